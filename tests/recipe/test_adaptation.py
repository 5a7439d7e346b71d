from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from effx import data
from effx.artifacts import Checkpoint
from effx.cli import run
from effx.errors import UsageError
from effx.recipe import sweeps
from effx.recipe.execute.store import CellStore
from effx.specs.adaptation import AdaptationSettings
from effx.specs.heads import HeadSettings
from effx.specs.tasks import TASKS
from effx.specs.training import TrainingSettings
from effx.train import finetune
from effx.train.rows import chosen

QUICK = AdaptationSettings.of(
    shares=("10%", "100%"), draws=2, epochs=1.0, max_length=32, lr=1e-3, precision="fp32", keep="all"
)


@pytest.fixture(scope="module")
def adapted(
    tmp_path_factory: pytest.TempPathFactory,
    encoders: dict[str, Path],
    checkpoint: Checkpoint,
    rows_folder: Path,
) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("adaptation") / "sst2"
    models = {"plain": encoders["bert"], "tuned": checkpoint.folder}
    return folder, sweeps.adapt("sst2", models, out=folder, data_folder=rows_folder, settings=QUICK)


def test_every_model_is_trained_on_the_same_draws(adapted: tuple[Path, dict[str, Any]]) -> None:
    folder, table = adapted
    assert table["models"] == ["plain", "tuned"] and table["seeds"] == [0, 1]
    assert [(row["share"], row["rows"]) for row in table["summary"]] == [(0.1, 16), (1.0, 160)] * 2
    assert len(table["cells"]) == 8 and len(table["comparisons"]) == 2
    assert {path.name for path in folder.iterdir()} >= {
        "table.json", "table.csv", "table.md", "adaptation.png", "adaptation.svg",
    }  # fmt: skip
    assert json.loads((folder / "table.json").read_text()) == table
    for cell in table["cells"]:
        text = {0.1: "10", 1.0: "100"}[cell["share"]]
        name = f"sst2-{cell['model']}-share{text}-s{cell['seed']}"
        manifest = Checkpoint.open(folder / "checkpoints" / name).manifest
        assert manifest.metrics == cell["metrics"]
        assert manifest.training.rows == cell["rows"]
        assert str(manifest.training.head).startswith("new")


def test_a_run_equals_fine_tuning_on_the_drawn_rows(
    adapted: tuple[Path, dict[str, Any]], encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    folder, _ = adapted
    every = data.load(TASKS["sst2"], "train", rows_folder)
    drawn = every.take(chosen(every, TrainingSettings.of(share="10%", seed=1)))
    (tmp_path / "rows").mkdir()
    shutil.copy(rows_folder / "validation.jsonl", tmp_path / "rows")
    (tmp_path / "rows" / "train.jsonl").write_text(
        "".join(
            json.dumps({"sentence": text, "label": int(label)}) + "\n"
            for (text,), label in zip(drawn.texts, drawn.labels, strict=True)
        )
    )
    alone = finetune(
        "sst2", encoders["bert"], out=tmp_path, name="alone", data_folder=tmp_path / "rows",
        settings=QUICK.finetune.replace(seed=1), head=HeadSettings(fresh_head=True),
    )  # fmt: skip
    weights = [
        (path / "model.safetensors").read_bytes()
        for path in (alone.folder, folder / "checkpoints" / "sst2-plain-share10-s1")
    ]
    assert weights[0] == weights[1]


def test_more_shares_and_models_are_added_without_training_again(
    adapted: tuple[Path, dict[str, Any]], checkpoint: Checkpoint, encoders: dict[str, Path],
    rows_folder: Path, tmp_path: Path,
) -> None:  # fmt: skip
    folder, table = adapted
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, symlinks=True)
    before = {record.key for record in CellStore(copy).records()}
    models = {"plain": encoders["bert"], "tuned": checkpoint.folder}
    wider = sweeps.adapt(
        "sst2", models, out=copy, data_folder=rows_folder,
        settings=QUICK.replace(shares=("10%", "50%", "100%")),
    )  # fmt: skip
    records = CellStore(copy).records()
    added = sorted((record.stage, record.name) for record in records if record.key not in before)
    assert added == [
        ("adapt", f"sst2-{model}-share50-s{seed}") for model in ("plain", "tuned") for seed in (0, 1)
    ] + [("adaptation", "adaptation-sst2")]
    assert [cell for cell in wider["cells"] if cell["share"] != 0.5] == table["cells"]


def test_mistakes_are_reported_before_training(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(encoders["bert"])
    base = ["train", "adapt", "sst2", "--data", str(rows_folder), "-o", str(tmp_path / "w")]
    for options, message in (
        (["--model", model, "--shares", "0.1%"], "leaves no row"),
        (["--model", model, "--shares", "1%"], "fewer than the 2 labels"),
        (["--model", model, "--shares", "10%,10%"], "duplicate share 10%"),
        (["--model", model, "--shares", "10"], "could mean"),
        (["--model", model, "--model", model], "two models are named"),
        (["--model", f"a b={model}"], "expected NAME=MODEL"),
        (["--model", "x=./nowhere", "--shares", "10%"], "nowhere"),
        ([], "Missing option '--model'"),
    ):
        assert run([*base, *options]) == 2
        assert message in " ".join(capsys.readouterr().err.split()), options
    assert not (tmp_path / "w").exists()
    with pytest.raises(UsageError, match="shares sets the shares"):
        AdaptationSettings.of(share="10%")
