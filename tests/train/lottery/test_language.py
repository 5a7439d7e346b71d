"""Masks by masked language modelling with settings of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from effx import corpus, files
from effx.artifacts import Checkpoint
from effx.costs import MASK_ROUND, TRAINING
from effx.errors import ArtifactError, UsageError
from effx.recipe import sweeps
from effx.recipe.execute.store import CellRecord, CellStore
from effx.recipe.graph import lottery as cells
from effx.recipe.graph.cells import CellBuilder
from effx.recipe.graph.plan import Artifacts, CellPlan
from effx.specs.lottery import LotterySearchSettings
from effx.train.lottery import check
from effx.train.lottery.result import MaskResult

OWN = LotterySearchSettings.of(
    objective="mlm", sparsity=30, mlm_steps=3, mlm_batch_size=4, mlm_lr=1e-2, mlm_max_length=24,
    mlm_rows="blocks", mlm_prune="before",
    epochs=1, limit=32, batch_size=16, lr=1e-3, max_length=32, precision="fp32",
)  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(corpus.texts("train")[:60]))
    return path


@pytest.fixture(scope="module")
def searched(
    tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path], rows_folder: Path, text: Path
) -> tuple[Path, list[Checkpoint]]:
    folder = tmp_path_factory.mktemp("language") / "w"
    settings = OWN.replace(text=str(text))
    found = sweeps.lottery("sst2", encoders["bert"], out=folder, data_folder=rows_folder, settings=settings)
    return folder, found.checkpoints


def masks_of(folder: Path, percent: int) -> dict[str, np.ndarray]:
    return {name: mask.astype(bool) for name, mask in load_file(
        folder / f"masks/mlm{percent}-s0.safetensors").items()}  # fmt: skip


def smallest(encoder: Path, percent: int) -> dict[str, np.ndarray]:
    """Masks of the smallest of the saved matrices of the layers, without effx."""
    parts = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
    saved = load_file(encoder / "model.safetensors")
    weights = {f"bert.{key}": np.abs(value) for key, value in saved.items()
               if key.endswith(tuple(f".{part}.weight" for part in parts))}  # fmt: skip
    flat = np.sort(np.concatenate([value.ravel() for value in weights.values()]))
    limit = flat[len(flat) * percent // 100]
    return {name: value >= limit for name, value in weights.items()}


def masks_in(folder: Path) -> dict[str, CellRecord]:
    return {record.name: record for record in CellStore(folder).records() if record.stage == "lottery-mask"}


def test_the_first_mask_is_that_of_the_pretrained_weights(
    searched: tuple[Path, list[Checkpoint]], encoders: dict[str, Path]
) -> None:
    found, wanted = masks_of(searched[0], 10), smallest(encoders["bert"], 10)
    assert found.keys() == wanted.keys() and len(wanted) == 3 * 6
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_later_masks_have_been_trained_for_and_contain_the_zeros_before(
    searched: tuple[Path, list[Checkpoint]], encoders: dict[str, Path]
) -> None:
    folder, (_, ticket) = searched
    for percent in (20, 30):
        before, after = masks_of(folder, percent - 10), masks_of(folder, percent)
        total = sum(mask.size for mask in after.values())
        assert sum(int((~mask).sum()) for mask in after.values()) == total * percent // 100
        assert not any((after[name] & ~before[name]).any() for name in after)
        untrained = smallest(encoders["bert"], percent)
        assert any((after[name] != untrained[name]).any() for name in after)
    record = ticket.manifest.sparsity
    assert record is not None and record.objective == "mlm" and record.kind == "imp"
    assert record.mask == files.sha256(folder / "masks/mlm30-s0.safetensors")


def test_rounds_begin_with_the_pretrained_weights(
    encoders: dict[str, Path], rows_folder: Path, text: Path, tmp_path: Path
) -> None:
    """With a learning rate of almost 0, all masks are those of the pretrained weights."""
    for when in ("before", "after"):
        still = OWN.replace(text=str(text), mlm_lr=1e-30, mlm_prune=when, mlm_steps=1, max_steps=1)
        sweeps.lottery("sst2", encoders["bert"], out=tmp_path / when, data_folder=rows_folder, settings=still)
        for percent in (10, 20, 30):
            found, wanted = masks_of(tmp_path / when, percent), smallest(encoders["bert"], percent)
            assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_rounds_train_by_their_settings_and_the_ticket_by_those_of_the_fine_tuning(
    searched: tuple[Path, list[Checkpoint]],
) -> None:
    folder, trained = searched
    for checkpoint in trained:
        record = checkpoint.manifest.training
        assert checkpoint.manifest.max_length == 32 and record.learning_rate == 1e-3
        assert (record.settings["batch_size"], record.settings["epochs"], record.steps) == (16, 1.0, 2)
    by_name = {name: record.settings for name, record in masks_in(folder).items()}
    assert sorted(by_name) == [f"mlm{percent}-s0" for percent in (10, 20, 30)]
    for percent in (20, 30):
        values = by_name[f"mlm{percent}-s0"]
        names = ("max_steps", "batch_size", "lr", "max_length", "mlm_rows", "kind")
        assert [values[name] for name in names] == [3, 4, 1e-2, 24, "blocks", "imp"]
    assert (by_name["mlm10-s0"]["kind"], by_name["mlm10-s0"]["text_digest"]) == ("one-shot", None)


def test_a_ticket_states_what_the_rounds_of_its_mask_took(searched: tuple[Path, list[Checkpoint]]) -> None:
    """Two rounds train: for 20 and 30 %, three steps of four blocks each."""
    folder, (full, ticket) = searched
    expenses = ticket.expenses()
    assert [(expense.kind, expense.name) for expense in expenses] == [
        (MASK_ROUND, "mlm20-s0"), (MASK_ROUND, "mlm30-s0"), (TRAINING, ticket.name),
    ]  # fmt: skip
    for percent, expense in zip((20, 30), expenses, strict=False):
        assert expense.checkpoint == files.sha256(folder / f"masks/mlm{percent}-s0.safetensors")
        assert expense.cost is not None and expense.cost.sequences == 3 * 4 and expense.cost.seconds > 0
    assert ticket.manifest.expenses == expenses[:2] and full.manifest.expenses == ()
    assert Checkpoint.open(ticket.folder).expenses() == expenses  # as it was written


def test_rounds_that_prune_after_training_all_state_what_they_took(
    encoders: dict[str, Path], rows_folder: Path, text: Path, tmp_path: Path
) -> None:
    settings = OWN.replace(text=str(text), mlm_prune="after", sparsity=20, mlm_rows="passages", mlm_steps=2)
    _, ticket = sweeps.lottery(
        "sst2", encoders["bert"], out=tmp_path, data_folder=rows_folder, settings=settings
    ).checkpoints
    taken = [expense.cost.sequences for expense in ticket.manifest.expenses or () if expense.cost]
    assert taken == [2 * 4, 2 * 4]


def test_the_rest_of_a_text_is_said(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.txt"
    path.write_text("\n".join(["the film was good"] * 13))
    settings = OWN.replace(text=str(path), sparsity=20, max_steps=1, mlm_max_length=12)
    sweeps.lottery("sst2", encoders["bert"], out=tmp_path / "w", data_folder=rows_folder, settings=settings)
    assert "t.txt: 5 blocks of 12 tokens; the last 2 tokens do not fill one and are left out." in (
        capsys.readouterr().err
    )


def planned(
    settings: LotterySearchSettings, encoder: Path, rows: Path, folder: Path
) -> dict[str, tuple[str, Any]]:
    """Return the keys and settings of a search's cells; nothing is trained."""
    recipe = sweeps.recipe_of("lottery", "sst2", {"bert": encoder}, folder, rows, 32, None)

    def add(builder: CellBuilder, artifacts: Artifacts) -> None:
        cells.add_search(builder, recipe.tasks[0], recipe.models[0], settings)

    plan: CellPlan = sweeps.planned(recipe, add)
    return {name: (entry.key, entry.cell.settings) for name, entry in plan.entries.items()}


def test_settings_of_rounds_that_equal_those_of_the_fine_tuning_change_no_key(
    encoders: dict[str, Path], rows_folder: Path, text: Path, tmp_path: Path
) -> None:
    shared = LotterySearchSettings.of(
        objective="mlm", text=str(text), sparsity=20, batch_size=8, lr=1e-4, max_length=32, max_steps=7
    )
    before = planned(shared, encoders["bert"], rows_folder, tmp_path)
    wanted = {**shared.finetune.given(), "seed": 0, "limit": None, "share": None}  # rows are not read
    for percent in (10, 20):
        _, settings = before[f"lottery-mask mlm{percent}-s0"]
        others = ("task", "percent", "kind", "objective", "text_digest", "mlm_rows")
        given = {name: value for name, value in settings.given().items() if name not in others}
        assert given.pop("precision") in ("bf16", "fp32")  # what auto is on this machine
        assert given == wanted
    same = shared.replace(
        mlm_batch_size=8, mlm_lr=1e-4, mlm_max_length=32, mlm_steps=7, mlm_rows="passages", mlm_prune="after"
    )
    after = planned(same, encoders["bert"], rows_folder, tmp_path)
    masks_and_tickets = [name for name in before if name.startswith(("lottery ", "lottery-mask "))]
    assert len(masks_and_tickets) == 4 and all(after[name] == before[name] for name in masks_and_tickets)
    other = planned(shared.replace(mlm_lr=1e-3), encoders["bert"], rows_folder, tmp_path)
    changed = {name for name in masks_and_tickets if other[name][0] != before[name][0]}
    assert changed == {"lottery-mask mlm10-s0", "lottery-mask mlm20-s0", "lottery sst2-bert-mlm20-s0"}
    ticket = "lottery sst2-bert-mlm20-s0"
    assert other[ticket][1] == before[ticket][1]  # its key changes with that of its mask alone


def test_what_the_rounds_train_with_does_not_change_the_mask_of_the_pretrained_weights(
    encoders: dict[str, Path], rows_folder: Path, text: Path, tmp_path: Path
) -> None:
    one, other = (
        planned(settings, encoders["bert"], rows_folder, tmp_path)
        for settings in (OWN.replace(text=str(text)), OWN.replace(text=str(text), mlm_lr=1e-5, lr=1e-5))
    )
    assert one["lottery-mask mlm10-s0"] == other["lottery-mask mlm10-s0"]
    assert one["lottery-mask mlm20-s0"][0] != other["lottery-mask mlm20-s0"][0]


def test_a_search_on_a_task_has_the_same_table_settings_as_before(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path, searched: tuple[Path, list[Checkpoint]]
) -> None:
    settings = LotterySearchSettings.of(sparsity=10, max_steps=1, max_length=32, limit=32)
    table = sweeps.lottery("sst2", encoders["bert"], out=tmp_path, data_folder=rows_folder,
                           settings=settings).table  # fmt: skip
    assert not any(name.startswith("mlm") for name in table["settings"])
    of_mlm = json.loads((searched[0] / "table.json").read_bytes())["settings"]
    assert (of_mlm["mlm_steps"], of_mlm["mlm_rows"], of_mlm["mlm_prune"]) == (3, "blocks", "before")
    assert "text" not in of_mlm


@pytest.mark.parametrize(
    ("values", "message", "names"),
    [
        ({"text": None}, "mlm_rows blocks joins the passages of a file", ("mlm_rows", "text")),
        (
            {"mlm_max_length": 100},
            "mlm_max_length 100: this model reads at most 66 tokens",
            ("mlm_max_length",),
        ),
        ({"mlm_max_length": None, "max_length": 100}, "max_length 100: this model reads", ("max_length",)),
    ],
)
def test_a_search_that_cannot_be_done_is_refused_before_it_begins(
    values: dict[str, Any], message: str, names: tuple[str, ...], encoders: dict[str, Path],
    rows_folder: Path, text: Path, tmp_path: Path,
) -> None:  # fmt: skip
    settings = OWN.replace(**{"text": str(text), **values})
    with pytest.raises(UsageError, match=message) as raised:
        check("sst2", str(encoders["bert"]), rows_folder, settings)
    assert raised.value.settings == names


def test_a_short_text_is_refused_before_the_search_begins(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.txt").write_text("the film was good\n" * 4)
    settings = OWN.replace(text=str(tmp_path / "t.txt"))
    with pytest.raises(UsageError, match="text has 16 tokens, which do not fill a block of 24 tokens"):
        sweeps.lottery(
            "sst2", encoders["bert"], out=tmp_path / "w", data_folder=rows_folder, settings=settings
        )
    assert not (tmp_path / "w").exists()


def test_a_damaged_result_of_a_mask_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text('{"parent": null, "expenses": null}')
    assert MaskResult.read(path).expenses is None  # an earlier version did not record it
    for damaged in ('{"parent": null}', '{"parent": null, "expenses": 3}'):
        path.write_text(damaged)
        with pytest.raises(ArtifactError, match="the mask is then searched again"):
            MaskResult.read(path)
