from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from effx import files
from effx.artifacts import Checkpoint
from effx.errors import ArtifactError, UsageError
from effx.export import export_all
from effx.models import load, pretrained, sparse
from effx.recipe import sweeps
from effx.specs.tasks import TASKS
from effx.specs.training import EarlyExitSettings, FinetuneSettings, LotterySettings, TokenPruningSettings
from effx.train import exits, finetune, lottery, tokens

MASKED = LotterySettings.of(epochs=1, max_length=32, lr=1e-3, limit=64, precision="fp32")
QUICK = MASKED.replace(sparsity=20)


@pytest.fixture(scope="module")
def found(
    tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path], rows_folder: Path
) -> tuple[Path, list[Checkpoint]]:
    folder = tmp_path_factory.mktemp("lottery") / "w"
    return folder, sweeps.lottery(
        "sst2", encoders["bert"], out=folder, data_folder=rows_folder, settings=QUICK
    )


def test_each_round_removes_the_smallest_weights_of_the_one_before(
    found: tuple[Path, list[Checkpoint]],
) -> None:
    _, made = found
    assert [one.name for one in made] == [f"sst2-bert-lottery{percent}-s0" for percent in (0, 10, 20)]
    models = [load(one) for one in made]
    total = sum(value.numel() for value in sparse.matrices(models[0]).values())
    for number, (before, after) in enumerate(zip(models, models[1:], strict=False), 1):
        sizes = np.concatenate([v.detach().abs().numpy().ravel() for v in sparse.matrices(before).values()])
        gone = np.concatenate([(v == 0).numpy().ravel() for v in sparse.matrices(after).values()])
        wanted = total * number // 10
        assert gone.sum() == wanted
        assert sizes[gone].max() <= sizes[~gone].min()
        stated = made[number].manifest["sparsity"]
        assert (stated["zeros"], stated["of"]) == (wanted, total) and stated["share"] == wanted / total
        assert made[number].manifest["parent"] == made[number - 1].digest
        assert made[number].manifest["weight_remaining"] == 1.0
    biases = load_file(made[2].folder / "model.safetensors")
    assert not any((value == 0).all() for key, value in biases.items() if key.endswith("dense.weight"))


def test_each_round_starts_from_the_pretrained_weights(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """At a learning rate that rounds to nothing, what is saved is what training began with."""
    still = QUICK.replace(lr=1e-30, max_steps=1)
    made = sweeps.lottery("sst2", encoders["bert"], out=tmp_path, data_folder=rows_folder, settings=still)
    torch.manual_seed(0)
    start, _ = pretrained(encoders["bert"], TASKS["sst2"])
    last = load(made[-1])
    masks = {name: value != 0 for name, value in sparse.matrices(last).items()}
    for name, value in sparse.matrices(start).items():
        assert torch.equal(sparse.matrices(last)[name], value * masks[name])
    flat = torch.cat([value.detach().abs().flatten() for value in sparse.matrices(start).values()])
    kept = torch.cat([mask.flatten() for mask in masks.values()])
    assert flat[~kept].max() <= flat[kept].min()
    assert torch.equal(
        load(made[0]).classifier.weight, last.classifier.weight
    )  # afresh from the same seed every round


def test_completed_rounds_are_skipped(
    found: tuple[Path, list[Checkpoint]], encoders: dict[str, Path], rows_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder, made = found
    arguments = ("sst2", encoders["bert"])
    again = sweeps.lottery(
        *arguments, out=folder, data_folder=rows_folder, settings=QUICK.replace(sparsity=10)
    )
    assert [one.digest for one in again] == [one.digest for one in made[:2]]
    capsys.readouterr()
    other = QUICK.replace(epochs=2, sparsity=10)
    sweeps.lottery(*arguments, out=folder, data_folder=rows_folder, settings=other)
    assert "was done before with other settings: epochs was 1.0, is 2.0." in capsys.readouterr().err


def test_it_exports_like_any_other_and_says_how_sparse(
    found: tuple[Path, list[Checkpoint]], tmp_path: Path
) -> None:
    _, made = found
    engines, failures = export_all([made[0].folder, made[2].folder], ["fp32"], out=tmp_path)
    assert not failures
    dense, ticket = engines
    assert ticket.manifest["sparsity"]["share"] == pytest.approx(0.2, abs=1e-4)
    assert dense.manifest["sparsity"]["zeros"] == 0
    assert ticket.manifest["audit"]["weight_products"] == dense.manifest["audit"]["weight_products"]
    assert ticket.manifest["parameters_removed"] == 0


@pytest.mark.parametrize("how", ["finetune", "tokens", "joint exits"])
def test_what_goes_on_from_a_ticket_keeps_its_zeros(
    how: str, found: tuple[Path, list[Checkpoint]], rows_folder: Path, tmp_path: Path
) -> None:
    ticket = found[1][2]
    if how == "finetune":
        made = finetune(
            "sst2", ticket.folder, out=tmp_path, data_folder=rows_folder,
            settings=FinetuneSettings.of(max_length=32, lr=1e-3, max_steps=3),
        )  # fmt: skip
    elif how == "tokens":
        settings = TokenPruningSettings.of(lr=1e-3, max_steps=3, schedule=(1, 0.9, 0.8))
        made = tokens.train(ticket.folder, out=tmp_path, settings=settings)
    else:
        joint = EarlyExitSettings.of(mode="joint", lr=1e-3, max_steps=3, depth=2.9)
        made = exits.train(ticket.folder, out=tmp_path, settings=joint)
    before, after = sparse.matrices(load(ticket)), sparse.matrices(load(made))
    for name, value in before.items():
        assert torch.equal(after[name] == 0, value == 0)
        assert not torch.equal(after[name], value), "else nothing was trained"
    assert made.manifest["sparsity"] == ticket.manifest["sparsity"]


def test_the_sparsity_of_a_ticket_that_lost_layers_is_counted_anew(
    found: tuple[Path, list[Checkpoint]], rows_folder: Path, tmp_path: Path
) -> None:
    settings = FinetuneSettings.of(max_length=32, max_steps=1, layers=2)
    made = finetune("sst2", found[1][2].folder, out=tmp_path, data_folder=rows_folder, settings=settings)
    told, whole = made.manifest["sparsity"], found[1][2].manifest["sparsity"]
    assert told == {**sparse.counts(load(made)), "objective": "task"}
    assert 0 < told["zeros"] < whole["zeros"] and told["of"] < whole["of"]


def test_the_universal_mask_comes_from_language_and_serves_other_tasks(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"the film was {word}" for word in ("good", "bad", "dull", "fine") * 10))
    settings = QUICK.replace(objective="mlm", text=str(text))
    (made,) = sweeps.lottery(
        "sst2", encoders["bert"], out=tmp_path / "u", data_folder=rows_folder, settings=settings
    )
    path = tmp_path / "u/masks/mlm20-s0/mask.safetensors"
    masks = lottery.read_masks(path)
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int((~mask).sum()) for mask in masks.values()) == total // 5
    first = lottery.read_masks(tmp_path / "u/masks/mlm10-s0/mask.safetensors")
    assert all(not (masks[name] & ~first[name]).any() for name in masks)  # what is gone stays gone
    weights = sparse.matrices(load(made))
    assert all(torch.equal(weights[name] != 0, masks[name]) for name in masks)
    assert "bert.pooler.dense.weight" not in masks
    assert made.manifest["sparsity"]["objective"] == "mlm"
    assert "bert has no language head" in capsys.readouterr().err
    (other,) = sweeps.lottery(
        "cola", encoders["bert"], out=tmp_path / "o", data_folder=rows_folder,
        settings=MASKED.replace(mask=str(path)),
    )  # fmt: skip
    weights = sparse.matrices(load(other))
    assert all(torch.equal(weights[name] != 0, masks[name]) for name in masks)
    told = other.manifest["sparsity"]
    assert told["objective"] is None and told["mask"] == files.sha256(path)
    with pytest.raises(ArtifactError, match="does not fit the model"):
        sweeps.lottery(
            "sst2", encoders["electra"], out=tmp_path / "e", data_folder=rows_folder,
            settings=MASKED.replace(mask=str(path)),
        )  # fmt: skip


def test_wrong_settings_leave_nothing(encoders: dict[str, Path], rows_folder: Path, tmp_path: Path) -> None:
    for settings, message in (
        (MASKED.replace(mask="nowhere"), "mask nowhere: no such file"),
        (QUICK.replace(objective="mlm", text="nowhere"), "text nowhere: no such file"),
    ):
        with pytest.raises(UsageError, match=message):
            sweeps.lottery(
                "sst2", encoders["bert"], out=tmp_path / "w", data_folder=rows_folder, settings=settings
            )
    assert not (tmp_path / "w").exists()
