from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from effx import files
from effx.artifacts import Checkpoint
from effx.cli import run
from effx.errors import UsageError
from effx.models import load, sparse, structure
from effx.recipe import sweeps
from effx.recipe.execute.store import CellStore
from effx.specs.transfer import TransferSettings
from effx.tickets import plan
from effx.tickets import scores as score_files
from effx.train.lottery import masks
from tests.conftest import write_rows

QUICK = TransferSettings.of(
    sparsity=20, levels="50", controls=("random", "one-shot"), seeds=2, keep="all",
    max_steps=2, max_length=32, lr=1e-3, precision="fp32", limit=64,
)  # fmt: skip


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, rows_folder: Path) -> dict[str, Path]:
    """Two tasks with different labels."""
    folder = tmp_path_factory.mktemp("tasks")
    for split in ("train", "validation"):
        rows = [json.loads(line) for line in (rows_folder / f"{split}.jsonl").read_text().splitlines()]
        write_rows(
            folder / "length" / f"{split}.jsonl",
            [{"text": row["sentence"], "label": ("short", "middle", "long")[len(row["sentence"]) % 3]}
             for row in rows],
        )  # fmt: skip
    return {"sst2": rows_folder, "length": folder / "length"}


@pytest.fixture(scope="module")
def transferred(
    tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path], tasks: dict[str, Path]
) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("transfer") / "w"
    table = sweeps.transfer(
        ["sst2", "length"], encoders["bert"], out=folder, data_folders=tasks, settings=QUICK
    )
    return folder, table


def test_every_task_is_trained_under_every_mask(transferred: tuple[Path, dict[str, Any]]) -> None:
    folder, table = transferred
    assert table["seeds"] == [0, 1]
    rows = {(row["family"], row["source"], row["target"]) for row in table["summary"]}
    sources = {"unstructured": ("sst2", "length", "other seed", "random", "one-shot"),
               "structured": ("sst2", "length", "other seed", "random")}  # fmt: skip
    assert rows == {
        *((None, "full model", target) for target in ("sst2", "length")),
        *((family, source, target) for family, names in sources.items() for source in names
          for target in ("sst2", "length")),
    }  # fmt: skip
    assert json.loads((folder / "table.json").read_text()) == table
    assert {path.name for path in folder.iterdir()} >= {
        "table.json", "table.csv", "table.md", "transfer.png", "transfer.svg", "masks", "checkpoints",
    }  # fmt: skip
    full = [record for record in CellStore(folder).records() if record.name.endswith("-lottery0-s0")]
    assert len(full) == 2  # masks and scores are found in the same full models


def test_the_zeros_of_a_transferred_ticket_are_those_of_its_mask(
    transferred: tuple[Path, dict[str, Any]],
) -> None:
    folder, table = transferred
    digests = {
        (cell["family"], cell["source"], cell["target"], cell["seed"]): cell["checkpoint"]
        for cell in table["cells"]
    }
    for name, source, mask in (
        ("length-bert-lottery20-from-sst2-s1", "sst2", "sst220-s1"),
        ("length-bert-lottery20-from-seed0-s1", "other seed", "length20-s0"),
        ("length-bert-lottery20-from-seed1-s0", "other seed", "length20-s1"),
    ):
        checkpoint = Checkpoint.open(folder / "checkpoints" / name)
        seed = int(name[-1])
        assert digests["unstructured", source, "length", seed] == checkpoint.digest
        assert checkpoint.task.labels == ("long", "middle", "short")
        path = folder / "masks" / f"{mask}.safetensors"
        assert checkpoint.manifest.sparsity is not None
        assert checkpoint.manifest.sparsity.mask == files.sha256(path)
        assert (checkpoint.manifest.sparsity.kind, checkpoint.manifest.sparsity.source) == ("imp", source)
        matrices = sparse.matrices(load(checkpoint))
        for parameter, remaining in masks.read(path).items():
            assert torch.equal(matrices[parameter] != 0, remaining)


def test_a_transferred_ticket_has_the_heads_of_the_other_task_and_pretrained_weights(
    transferred: tuple[Path, dict[str, Any]], encoders: dict[str, Path], tasks: dict[str, Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    folder, _ = transferred
    store = CellStore(folder)
    scores = {
        record.name: store.cell(record.key) / record.name / "importance.json"
        for record in store.records()
        if record.stage == "tickets-scores"
    }
    assert sorted(scores) == [f"{task}-bert-full-s{seed}" for task in ("length", "sst2") for seed in (0, 1)]
    scored, _ = score_files.read(scores["sst2-bert-full-s0"])
    moved = Checkpoint.open(folder / "checkpoints" / "length-bert-winning50-from-sst2-s0")
    whole = structure(load(Checkpoint.open(folder / "checkpoints" / "length-bert-lottery0-s0")))
    settings = QUICK.ticket((QUICK.levels or ())[0], "winning", 0, "length")
    removal = plan.removal(
        scored, whole, settings.level, "winning", min_heads=settings.pruning.min_heads,
        granularity=settings.pruning.granularity, seed=0,
    )  # fmt: skip
    assert moved.manifest.ticket is not None and moved.manifest.ticket.source == "sst2"
    remaining = structure(load(moved))
    for position, (before, after) in enumerate(zip(whole.layers, remaining.layers, strict=True)):
        gone = removal.arguments()["heads"].get(position, ())
        assert set(after.heads) == set(before.heads) - set(gone)
    # the same ticket by the command for one task
    alone = tmp_path / "alone"
    line = [
        "train", "tickets", "length", "--model", str(encoders["bert"]), "--data", str(tasks["length"]),
        "--levels", "50", "--kinds", "winning", "--seeds", "1", "--max-steps", "2", "--max-length", "32",
        "--lr", "1e-3", "--precision", "fp32", "--limit", "64", "--fresh-head", "-o", str(alone),
        "--scores", str(scores["sst2-bert-full-s0"]),
    ]  # fmt: skip
    assert run(line) == 0
    other = Checkpoint.open(alone / "checkpoints" / "length-bert-winning50-s0")
    assert other.manifest.ticket is not None and other.manifest.ticket.source == "sst2"
    weights = [
        load_file(path / "model.safetensors")
        for path in (moved.folder, alone / "checkpoints" / "length-bert-winning50-s0")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_an_own_mask_is_that_of_a_search_on_the_task(
    transferred: tuple[Path, dict[str, Any]], encoders: dict[str, Path], tasks: dict[str, Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    folder, _ = transferred
    line = [
        "train", "lottery", "length", "--model", str(encoders["bert"]), "--data", str(tasks["length"]),
        "--sparsity", "20", "--max-steps", "2", "--max-length", "32", "--lr", "1e-3", "--precision", "fp32",
        "--limit", "64", "--fresh-head", "-o", str(tmp_path / "alone"),
    ]  # fmt: skip
    assert run(line) == 0
    for kept in ("checkpoints/length-bert-lottery20-s0/model.safetensors", "masks/length20-s0.safetensors"):
        assert (folder / kept).read_bytes() == (tmp_path / "alone" / kept).read_bytes()


def test_more_seeds_and_percentages_are_added_without_training_again(
    transferred: tuple[Path, dict[str, Any]], encoders: dict[str, Path], tasks: dict[str, Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    folder, table = transferred
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, symlinks=True)
    before = {record.key for record in CellStore(copy).records()}
    wider = sweeps.transfer(
        ["sst2", "length"], encoders["bert"], out=copy, data_folders=tasks,
        settings=QUICK.replace(sparsity=(10, 20), controls=("random",)),
    )  # fmt: skip
    added = [record for record in CellStore(copy).records() if record.key not in before]
    tickets = sorted(record.name for record in added if record.stage == "lottery" and record.name[-1] == "0")
    assert tickets == sorted(
        f"{target}-bert-lottery{name}-s0"
        for target, other in (("sst2", "length"), ("length", "sst2"))
        for name in (f"10-from-{other}", "10-from-seed1", "-random10")
    )
    known = [cell for cell in wider["cells"] if cell["amount"] in (None, "20", "50")]
    assert known == [cell for cell in table["cells"] if cell["source"] != "one-shot"]


def test_names_that_two_results_would_share_are_refused(
    encoders: dict[str, Path], tasks: dict[str, Path], tmp_path: Path
) -> None:
    """A mask of one task never silently takes the place of another's."""
    for names in (("a", "a-random"), ("a", "seed1")):
        with pytest.raises(UsageError, match="two different results would be named"):
            sweeps.transfer(names, encoders["bert"], out=tmp_path / "w", settings=QUICK,
                            data_folders=dict.fromkeys(names, tasks["length"]))  # fmt: skip
    assert not (tmp_path / "w" / "cells").exists()


def test_masks_of_masked_language_modelling_are_found_once(
    encoders: dict[str, Path], tasks: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("a short passage\nanother passage of words\n" * 8)
    settings = QUICK.replace(
        sparsity=10, levels=None, controls=("mlm",), text=str(tmp_path / "text.txt"), seeds=1, max_steps=1
    )
    table = sweeps.transfer(["sst2", "length"], encoders["bert"], out=tmp_path / "w",
                            data_folders=tasks, settings=settings)  # fmt: skip
    assert {row["target"] for row in table["summary"] if row["source"] == "mlm"} == {"sst2", "length"}

    def mlm_cells() -> list[str]:
        records = CellStore(tmp_path / "w").records()
        return [record.name for record in records if record.name.startswith("mlm")]

    assert mlm_cells() == ["mlm10-s0"]
    assert table["mlm"]["mlm_rows"] == "passages"
    assert table["mlm"]["text"] == files.sha256(tmp_path / "text.txt")
    sweeps.transfer(["length", "sst2"], encoders["bert"], out=tmp_path / "w",
                    data_folders=tasks, settings=settings.replace(task_limit=[("length", 48)]))  # fmt: skip
    assert mlm_cells() == ["mlm10-s0"]  # tasks do not decide it


def test_a_preset_says_how_the_mask_of_the_control_is_found(
    encoders: dict[str, Path], tasks: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text("a short passage\nanother passage of words\n" * 30)
    line = [
        "train", "transfer", "sst2,length", "--model", str(encoders["bert"]), "--sparsity", "20",
        *(part for name, path in tasks.items() for part in ("--data", f"{name}={path}")),
        "--controls", "mlm", "--text", str(tmp_path / "text.txt"), "--preset", "universal",
        "--mlm-steps", "2", "--mlm-batch-size", "3", "--mlm-max-length", "16",
        "--seeds", "1", "--max-steps", "1", "--batch-size", "4", "--max-length", "32", "--keep", "all",
        "-o", str(tmp_path / "w"),
    ]  # fmt: skip
    assert run(line) == 0
    assert "blocks of 16 tokens" in capsys.readouterr().err
    records = {record.name: record for record in CellStore(tmp_path / "w").records()}
    assert {name for name in records if name.startswith("mlm")} == {"mlm10-s0", "mlm20-s0"}
    names = ("max_steps", "batch_size", "max_length", "lr", "mlm_rows")
    assert [records["mlm20-s0"].settings[name] for name in names] == [2, 3, 16, 5e-5, "blocks"]
    ticket = Checkpoint.open(tmp_path / "w/checkpoints/length-bert-lottery20-from-mlm-s0")
    settings = ticket.manifest.training.settings
    assert [settings[name] for name in names[:4]] == [1, 4, 32, 2e-5]
    (expense,) = ticket.manifest.expenses or ()
    assert (expense.kind, expense.name) == ("mask search", "mlm20-s0")
    assert expense.cost is not None and expense.cost.sequences == 2 * 3
    table = json.loads((tmp_path / "w/table.json").read_text())
    assert {row["target"] for row in table["summary"] if row["source"] == "mlm"} == {"sst2", "length"}
    assert not any(name.startswith("mlm") for name in table["settings"])


def test_mistakes_are_reported_before_training(
    encoders: dict[str, Path], tasks: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [part for name, path in tasks.items() for part in ("--data", f"{name}={path}")]
    base = ["--model", str(encoders["bert"]), "-o", str(tmp_path / "w")]
    for names, options, message in (
        ("sst2", data[:2], "two tasks or more"),
        ("sst2,sst2", data[:2], "task 'sst2' is given twice"),
        ("sst2,length", [*data, "--data", "other=x"], "data of other: it is not one of the tasks"),
        ("sst2,length", data[:2], "length"),
        ("sst2,length", [*data, "--sparsity", "25"], "sparsity 25: expected a multiple of 10"),
        ("sst2,length", [*data, "--sparsity", "20,20"], "duplicate sparsity 20"),
        ("sst2,length", [*data, "--max-length", "32", "--levels", "5"], "prunes nothing"),
        ("sst2,length", [*data, "--levels", "40", "--controls", "one-shot"], "give sparsity too"),
        ("sst2,length", [*data, "--controls", "mlm"], "passages of text"),
        ("sst2,length", [*data, "--mlm-lr", "1e-3"], "add mlm to controls"),
        ("sst2,length", [*data, "--preset", "universal"], "add mlm to controls"),
        ("sst2,length", [*data, "--preset", "universal", "--controls", "mlm"], "give text"),
        ("sst2,length", [*data, "--controls", "some"], "unknown control 'some'"),
        ("sst2,length", [*data, "--task-limit", "lenght=10"], "Did you mean 'length'?"),
        ("random,length", data[2:], "the table uses this name"),
        ("sst2,length", [*data, "--regime", "frozen"], "found by training all weights"),
        ("sst2,length", [*data, "--layers", "1", "--drop-layers", "contribution"], "use another strategy"),
        (
            "sst2,length",
            [*data, "--max-length", "32", "--limit", "2"],
            "fewer than the 3 labels of task length",
        ),
        ("sst2,length", [*data, "--max-length", "32", "--share", "1%"], "leaves 1 training rows, fewer than"),
    ):
        assert run(["train", "transfer", names, *options, *base]) == 2, (names, options)
        error = capsys.readouterr().err
        assert message in " ".join(error.split()), (message, error)
    assert not (tmp_path / "w").exists()
    with pytest.raises(UsageError, match="duplicate level 40"):
        TransferSettings.of(levels=("40", "40"))
