from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from effx import files, progress
from effx.artifacts import Checkpoint
from effx.errors import ArtifactError, UsageError
from effx.export import export_all
from effx.models import load, pretrained, save, sparse
from effx.recipe import sweeps
from effx.specs.exits import EarlyExitSettings
from effx.specs.heads import HeadSettings
from effx.specs.lottery import LotterySearchSettings
from effx.specs.tasks import TASKS
from effx.specs.tokens import TokenPruningSettings
from effx.specs.training import FinetuneSettings
from effx.specs.transfer import TransferSettings
from effx.train import exits, finetune, tokens, transfer
from effx.train.lottery import check
from effx.train.lottery import masks as mask_files
from tests.models.huggingface.saved import classifier

MASKED = LotterySearchSettings.of(epochs=1, max_length=32, lr=1e-3, limit=64, precision="fp32")
QUICK = MASKED.replace(sparsity=20)
COMPARED = QUICK.replace(
    kind=("imp", "random", "one-shot", "standard"), init=("pretrained", "fresh", "shuffled"),
    max_steps=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def result(
    tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path], rows_folder: Path
) -> tuple[Path, list[Checkpoint]]:
    folder = tmp_path_factory.mktemp("lottery") / "w"
    found = sweeps.lottery("sst2", encoders["bert"], out=folder, data_folder=rows_folder, settings=QUICK)
    return folder, found.checkpoints


def test_each_round_sets_the_smallest_weights_of_the_previous_round_to_zero(
    result: tuple[Path, list[Checkpoint]],
) -> None:
    _, trained = result
    assert [ticket.name for ticket in trained] == [
        f"sst2-bert-lottery{percent}-s0" for percent in (0, 10, 20)
    ]
    models = [load(ticket) for ticket in trained]
    total = sum(value.numel() for value in sparse.matrices(models[0]).values())
    for number, (before, after) in enumerate(zip(models, models[1:], strict=False), 1):
        sizes = np.concatenate([v.detach().abs().numpy().ravel() for v in sparse.matrices(before).values()])
        gone = np.concatenate([(v == 0).numpy().ravel() for v in sparse.matrices(after).values()])
        wanted = total * number // 10
        assert gone.sum() == wanted
        assert sizes[gone].max() <= sizes[~gone].min()
        stated = trained[number].manifest.sparsity
        assert (stated.zeros, stated.of) == (wanted, total) and stated.share == wanted / total
        assert trained[number].manifest.parent == trained[number - 1].digest
        assert trained[number].manifest.weight_remaining == 1.0
    biases = load_file(trained[2].folder / "model.safetensors")
    assert not any((value == 0).all() for key, value in biases.items() if key.endswith("dense.weight"))


def test_rounds_keep_the_head_of_a_fine_tuned_model(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    model = classifier(encoders["bert"], tmp_path / "m", ("positive", "negative"))
    still = MASKED.replace(sparsity=10, lr=1e-30, max_steps=1)
    for head in (HeadSettings(), HeadSettings(fresh_head=True)):
        rounds = sweeps.lottery("sst2", tmp_path / "m", out=tmp_path / f"w{head.fresh_head}",
                                data_folder=rows_folder, settings=still, head=head).checkpoints  # fmt: skip
        saved = [load_file(ticket.folder / "model.safetensors")["classifier.weight"] for ticket in rounds]
        assert torch.equal(saved[0], saved[1])
        assert torch.equal(saved[1], model.classifier.weight[[1, 0]]) is not head.fresh_head


def test_each_round_starts_from_the_pretrained_weights(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """With a learning rate of almost 0, the saved weights are those before training."""
    still = QUICK.replace(lr=1e-30, max_steps=1)
    trained = sweeps.lottery(
        "sst2", encoders["bert"], out=tmp_path, data_folder=rows_folder, settings=still
    ).checkpoints
    torch.manual_seed(0)
    start, _ = pretrained(encoders["bert"], TASKS["sst2"])
    last = load(trained[-1])
    masks = {name: value != 0 for name, value in sparse.matrices(last).items()}
    for name, value in sparse.matrices(start).items():
        assert torch.equal(sparse.matrices(last)[name], value * masks[name])
    flat = torch.cat([value.detach().abs().flatten() for value in sparse.matrices(start).values()])
    remaining = torch.cat([mask.flatten() for mask in masks.values()])
    assert flat[~remaining].max() <= flat[remaining].min()
    assert torch.equal(
        load(trained[0]).classifier.weight, last.classifier.weight
    )  # initialized from the same seed in every round


@pytest.fixture(scope="module")
def compared(
    tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path], rows_folder: Path
) -> tuple[Path, sweeps.LotterySearch]:
    folder = tmp_path_factory.mktemp("compared") / "w"
    return folder, sweeps.lottery(
        "sst2", encoders["bert"], out=folder, data_folder=rows_folder, settings=COMPARED
    )


def test_every_kind_is_trained_under_its_mask(compared: tuple[Path, sweeps.LotterySearch]) -> None:
    folder, found = compared
    expected = {
        "lottery0": (0, None, "pretrained", None),
        "lottery10": (10, "imp", "pretrained", "sst210"),
        "lottery20": (20, "imp", "pretrained", "sst220"),
        "lottery20-fresh": (20, "imp", "fresh", "sst220"),
        "lottery20-shuffled": (20, "imp", "shuffled", "sst220"),
        "lottery-random20": (20, "random", "pretrained", "sst2-random20"),
        "lottery-one-shot20": (20, "one-shot", "pretrained", "sst2-one-shot20"),
        "lottery-standard10": (10, "standard", "pretrained", "sst2-standard10"),
        "lottery-standard20": (20, "standard", "pretrained", "sst2-standard20"),
    }
    assert [ticket.name for ticket in found.checkpoints] == [f"sst2-bert-{name}-s0" for name in expected]
    written = {path.name for path in (folder / "masks").iterdir()}
    assert written == {f"{row[3]}-s0.safetensors" for row in expected.values() if row[3]}
    for ticket, (percent, kind, init, mask) in zip(found.checkpoints, expected.values(), strict=True):
        record = ticket.manifest.sparsity
        assert (record.kind, record.init, record.rewind) == (kind, init, None)
        assert record.zeros == record.of * percent // 100
        if mask is None:
            assert record.mask is None
            continue
        path = folder / "masks" / f"{mask}-s0.safetensors"
        assert record.mask == files.sha256(path)
        masks = mask_files.read(path)
        for name, value in sparse.matrices(load(ticket)).items():
            assert torch.equal(value != 0, masks[name]), ticket.name


def test_a_standard_search_goes_on_from_the_round_before(
    compared: tuple[Path, sweeps.LotterySearch], rows_folder: Path, tmp_path: Path
) -> None:
    """The second round is a fine-tuning of the first one's checkpoint with its smallest weights masked."""
    by_name = {ticket.name: ticket for ticket in compared[1].checkpoints}
    first, second = (by_name[f"sst2-bert-lottery-standard{percent}-s0"] for percent in (10, 20))
    weights = {name: value.detach().numpy() for name, value in sparse.matrices(load(first)).items()}
    sizes = np.sort(np.abs(np.concatenate([value.ravel() for value in weights.values()])))
    limit = sizes[len(sizes) // 5]
    masks = {name: torch.from_numpy(np.abs(value) >= limit) for name, value in weights.items()}
    assert sum(int((~mask).sum()) for mask in masks.values()) == len(sizes) // 5  # no ties at the limit
    again = finetune(
        "sst2", first.folder, out=tmp_path, name="again", data_folder=rows_folder,
        settings=COMPARED.finetune.replace(lr=1e-3), reduce=lambda model: sparse.hold(model, masks),
    )  # fmt: skip
    saved, wanted = (load_file(ticket.folder / "model.safetensors") for ticket in (second, again))
    assert all(torch.equal(saved[name], wanted[name]) for name in wanted)
    assert second.manifest.parent == first.digest


def test_the_table_has_the_scores_of_the_checkpoints(compared: tuple[Path, sweeps.LotterySearch]) -> None:
    folder, found = compared
    table = json.loads((folder / "table.json").read_bytes())
    assert table == found.table
    assert {path.name for path in folder.glob("lottery.*")} == {"lottery.png", "lottery.svg"}
    of_names = {ticket.name: ticket.manifest.metrics["accuracy"] for ticket in found.checkpoints}
    assert {cell["name"]: cell["metrics"]["accuracy"] for cell in table["cells"]} == of_names
    rows = [(row["label"], row["percent"]) for row in table["summary"]]
    assert rows == [
        ("full model", 0), ("imp", 10), ("imp", 20), ("imp, fresh weights", 20), ("imp, shuffled layers", 20),
        ("random", 20), ("one-shot", 20), ("standard", 10), ("standard", 20),
    ]  # fmt: skip
    fresh = table["summary"][3]
    assert fresh["scores"]["accuracy"]["mean"] == of_names["sst2-bert-lottery20-fresh-s0"]
    assert str(folder) not in (folder / "table.json").read_text()


def test_a_search_that_was_stopped_ends_the_same(
    compared: tuple[Path, sweeps.LotterySearch], encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """Cells that are missing are made again, from masks and checkpoints that remain; records are not lost."""
    folder, found = compared
    shutil.copytree(folder, tmp_path / "w", symlinks=True)
    lost = ("sst210-s0", "sst2-bert-lottery10-s0", "sst220-s0", "sst2-bert-lottery-standard20-s0",
            "sst2-bert-lottery20-fresh-s0", "sst2-bert")  # fmt: skip
    removed = [path for path in (tmp_path / "w/cells").iterdir()
               if json.loads((path / "cell.json").read_bytes())["name"] in lost]  # fmt: skip
    assert len(removed) == len(lost)
    for path in removed:
        shutil.rmtree(path)
    again = sweeps.lottery(
        "sst2", encoders["bert"], out=tmp_path / "w", data_folder=rows_folder, settings=COMPARED
    )
    for one, other in zip(found.checkpoints, again.checkpoints, strict=True):
        weights, before = (load_file(ticket.folder / "model.safetensors") for ticket in (other, one))
        assert all(torch.equal(weights[name], before[name]) for name in before), one.name
    for path in (folder / "masks").iterdir():
        assert files.sha256(path) == files.sha256(tmp_path / "w/masks" / path.name)
    assert again.table["summary"] == found.table["summary"]


def test_masks_scores_and_table_remain_without_checkpoints(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    settings = QUICK.replace(rewind=1, max_steps=2, keep="none")
    arguments: dict[str, Any] = {"out": tmp_path, "data_folder": rows_folder}
    found = sweeps.lottery("sst2", encoders["bert"], settings=settings, **arguments)
    assert found.checkpoints == [] and not list((tmp_path / "cells").rglob("model.safetensors"))
    assert not list((tmp_path / "cells").rglob("*.pt")), "the state that was rewound to remains"
    names = {path.name for path in (tmp_path / "masks").iterdir()}
    assert names == {"sst210-rewind1-s0.safetensors", "sst220-rewind1-s0.safetensors"}
    assert [(cell["name"], cell["rewind"]) for cell in found.table["cells"]] == [
        ("sst2-bert-lottery0-s0", None),
        ("sst2-bert-lottery10-rewind1-s0", 1),
        ("sst2-bert-lottery20-rewind1-s0", 1),
    ]
    assert found.table["matching"] is None
    again = sweeps.lottery("sst2", encoders["bert"], settings=settings, **arguments)
    assert again.table == found.table
    more = sweeps.lottery("sst2", encoders["bert"], settings=settings.replace(sparsity=30), **arguments)
    assert more.table["summary"][:3] == found.table["summary"] and len(more.table["summary"]) == 4
    with pytest.raises(UsageError, match="rewind 3: expected fewer than the 2 steps of a round") as raised:
        sweeps.lottery(
            "sst2", encoders["bert"], out=tmp_path / "x", data_folder=rows_folder,
            settings=MASKED.replace(batch_size=32, rewind=3),
        )  # fmt: skip
    assert raised.value.settings == ("rewind",) and not (tmp_path / "x").exists()


def test_completed_rounds_are_skipped(
    result: tuple[Path, list[Checkpoint]], encoders: dict[str, Path], rows_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder, trained = result
    arguments = ("sst2", encoders["bert"])
    again = sweeps.lottery(
        *arguments, out=folder, data_folder=rows_folder, settings=QUICK.replace(sparsity=10)
    ).checkpoints
    assert [ticket.digest for ticket in again] == [ticket.digest for ticket in trained[:2]]
    capsys.readouterr()
    other = QUICK.replace(epochs=2, sparsity=10)
    sweeps.lottery(*arguments, out=folder, data_folder=rows_folder, settings=other)
    assert "was done before with other settings: epochs was 1.0, is 2.0." in capsys.readouterr().err


def test_an_exported_ticket_has_its_sparsity_in_the_manifest(
    result: tuple[Path, list[Checkpoint]], tmp_path: Path
) -> None:
    _, trained = result
    engines, failures = export_all([trained[0].folder, trained[2].folder], ["fp32"], out=tmp_path)
    assert not failures
    dense, ticket = engines
    assert ticket.manifest.sparsity.share == pytest.approx(0.2, abs=1e-4)
    assert dense.manifest.sparsity.zeros == 0
    assert ticket.manifest.audit.weight_products == dense.manifest.audit.weight_products
    assert ticket.manifest.parameters_removed == 0


@pytest.mark.parametrize("how", ["finetune", "tokens", "joint exits"])
def test_zeros_remain_when_a_ticket_is_trained_further(
    how: str, result: tuple[Path, list[Checkpoint]], rows_folder: Path, tmp_path: Path
) -> None:
    ticket = result[1][2]
    if how == "finetune":
        trained = finetune(
            "sst2", ticket.folder, out=tmp_path, data_folder=rows_folder,
            settings=FinetuneSettings.of(max_length=32, lr=1e-3, max_steps=3),
        )  # fmt: skip
    elif how == "tokens":
        settings = TokenPruningSettings.of(lr=1e-3, max_steps=3, schedule=(1, 0.9, 0.8))
        trained = tokens.train(ticket.folder, out=tmp_path, settings=settings)
    else:
        joint = EarlyExitSettings.of(mode="joint", lr=1e-3, max_steps=3, depth=2.9)
        trained = exits.train(ticket.folder, out=tmp_path, settings=joint)
    before, after = sparse.matrices(load(ticket)), sparse.matrices(load(trained))
    for name, value in before.items():
        assert torch.equal(after[name] == 0, value == 0)
        assert not torch.equal(after[name], value), "nothing was trained"
    assert trained.manifest.sparsity == ticket.manifest.sparsity


def test_sparsity_is_recomputed_when_layers_are_removed(
    result: tuple[Path, list[Checkpoint]], rows_folder: Path, tmp_path: Path
) -> None:
    settings = FinetuneSettings.of(max_length=32, max_steps=1, layers=2)
    trained = finetune("sst2", result[1][2].folder, out=tmp_path, data_folder=rows_folder, settings=settings)
    entry, unreduced = trained.manifest.sparsity, result[1][2].manifest.sparsity
    counted = sparse.counts(load(trained))
    assert entry == unreduced.model_copy(
        update={"share": counted.share, "zeros": counted.zeros, "of": counted.of}
    )
    assert 0 < entry.zeros < unreduced.zeros and entry.of < unreduced.of


def test_a_mask_of_masked_language_modelling_can_be_used_for_other_tasks(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    progress.say_once.cache_clear()
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"the film was {word}" for word in ("good", "bad", "dull", "fine") * 10))
    settings = QUICK.replace(objective="mlm", text=str(text))
    full, trained = sweeps.lottery(
        "sst2", encoders["bert"], out=tmp_path / "u", data_folder=rows_folder, settings=settings
    ).checkpoints
    assert full.manifest.sparsity.zeros == 0
    path = tmp_path / "u/masks/mlm20-s0.safetensors"
    masks = mask_files.read(path)
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int((~mask).sum()) for mask in masks.values()) == total // 5
    first = mask_files.read(tmp_path / "u/masks/mlm10-s0.safetensors")
    assert all(not (masks[name] & ~first[name]).any() for name in masks)  # zeros remain zeros
    weights = sparse.matrices(load(trained))
    assert all(torch.equal(weights[name] != 0, masks[name]) for name in masks)
    assert "bert.pooler.dense.weight" not in masks
    assert trained.manifest.sparsity.objective == "mlm"
    assert "bert has no language-modelling head" in capsys.readouterr().err
    _, other = sweeps.lottery(
        "cola", encoders["bert"], out=tmp_path / "o", data_folder=rows_folder,
        settings=MASKED.replace(mask=str(path)),
    ).checkpoints  # fmt: skip
    weights = sparse.matrices(load(other))
    assert all(torch.equal(weights[name] != 0, masks[name]) for name in masks)
    entry = other.manifest.sparsity
    assert entry.objective is None and entry.mask == files.sha256(path)
    with pytest.raises(ArtifactError, match="does not fit the model"):
        sweeps.lottery(
            "sst2", encoders["electra"], out=tmp_path / "e", data_folder=rows_folder,
            settings=MASKED.replace(mask=str(path)),
        )  # fmt: skip


def test_wrong_settings_are_refused_without_writing_files(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    for settings, message in (
        (MASKED.replace(mask="nowhere"), "mask nowhere: no such file"),
        (QUICK.replace(objective="mlm", text="nowhere"), "text nowhere: no such file"),
    ):
        with pytest.raises(UsageError, match=message):
            sweeps.lottery(
                "sst2", encoders["bert"], out=tmp_path / "w", data_folder=rows_folder, settings=settings
            )
    assert not (tmp_path / "w").exists()


def test_a_one_shot_mask_is_of_the_layers_that_are_trained(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """The smallest of the last two layers' weights, ranked in the saved file without effx."""
    settings = QUICK.replace(kind="one-shot", layers=2, drop_layers="bottom", max_steps=1, lr=1e-30)
    _, ticket = sweeps.lottery(
        "sst2", encoders["bert"], out=tmp_path, data_folder=rows_folder, settings=settings
    ).checkpoints
    path = tmp_path / "masks/sst2-one-shot20-s0.safetensors"
    saved = load_file(encoders["bert"] / "model.safetensors")
    weights = {}
    for name in mask_files.read(path):
        source = name.removeprefix("bert.")
        for position in (1, 0):
            source = source.replace(f"layer.{position}.", f"layer.{position + 1}.")
        weights[name] = saved[source].abs().numpy()
    assert len(weights) == 2 * 6 + 1
    limit = np.sort(np.concatenate([value.ravel() for value in weights.values()]))
    limit = limit[len(limit) * 20 // 100]
    for name, mask in mask_files.read(path).items():
        assert np.mean(mask.numpy() != (weights[name] >= limit)) < 0.002, name
    assert mask_files.model_of(path) == mask_files.MaskedModel("bert", (1, 2))
    (record,) = ticket.manifest.layer_reductions
    assert (record.strategy, record.kept) == ("bottom", (1, 2))
    with pytest.raises(ArtifactError, match="it is of the layers 2 3, and the model has 1 2"):
        sweeps.lottery(
            "sst2", encoders["bert"], out=tmp_path / "x", data_folder=rows_folder,
            settings=MASKED.replace(mask=str(path), layers=2),
        )  # fmt: skip
    assert not (tmp_path / "x").exists()


def test_rounds_of_reduced_models_drop_layers_once(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """A round that goes on from the one before keeps all layers that are left, and records nothing."""
    settings = QUICK.replace(kind="standard", layers=2, drop_layers="bottom", max_steps=1)
    rounds = sweeps.lottery(
        "sst2", encoders["bert"], out=tmp_path, data_folder=rows_folder, settings=settings
    ).checkpoints
    assert len(rounds) == 3
    for ticket in rounds:
        assert [record.kept for record in ticket.manifest.layer_reductions] == [(1, 2)], ticket.name


def test_the_full_model_beside_a_mask_of_a_file_is_not_masked(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """Searches under several masks share it."""
    model, _ = pretrained(encoders["bert"], TASKS["sst2"])
    path = tmp_path / "m.safetensors"
    found_for = mask_files.MaskedModel("bert", (0, 1, 2))
    mask_files.write(path, mask_files.FoundMask(sparse.drawn(sparse.matrices(model), 0.7, 0), found_for))
    settings = MASKED.replace(mask=str(path), max_steps=1)
    found = sweeps.lottery(
        "sst2", encoders["bert"], out=tmp_path / "w", data_folder=rows_folder, settings=settings
    )
    zeros = {
        one.name: sum(int((values == 0).sum()) for values in sparse.matrices(load(one)).values())
        for one in found.checkpoints
    }
    assert zeros["sst2-bert-mask-s0"] > 1000 * (1 + zeros["sst2-bert-lottery0-s0"])


def test_a_mask_of_a_model_of_another_name_is_told(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _ = pretrained(encoders["bert"], TASKS["sst2"])
    path = tmp_path / "m.safetensors"
    found_for = mask_files.MaskedModel("org/other", (0, 1, 2))
    mask_files.write(path, mask_files.FoundMask(sparse.drawn(sparse.matrices(model), 0.4, 0), found_for))
    settings = MASKED.replace(mask=str(path))
    check("sst2", str(encoders["bert"]), rows_folder, settings)
    assert "was found for model org/other, and this one is called bert" in capsys.readouterr().err
    shutil.copytree(encoders["bert"], tmp_path / "local/other")
    check("sst2", str(tmp_path / "local/other"), rows_folder, settings)
    assert "was found for" not in capsys.readouterr().err


def test_a_model_that_is_sparse_already_is_refused(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """Whether effx made it or not; a transfer sets weights to zero too, unless it has levels alone."""
    model, tokenizer = pretrained(encoders["bert"], TASKS["sst2"])
    sparse.hold(model, sparse.smallest(sparse.matrices(model), 0.3))
    save(model, tmp_path / "ours", tokenizer=tokenizer, task=TASKS["sst2"], sparsity=sparse.counts(model))
    model.save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    for folder in ("ours", "theirs"):
        name, tasks = str(tmp_path / folder), {"sst2": rows_folder}
        message = f"{folder} is sparse: 30.0% of its weights are zero before any mask"
        with pytest.raises(UsageError, match=message):
            check("sst2", name, rows_folder, QUICK)
        masks = TransferSettings.of(max_length=32, sparsity=(20,))
        with pytest.raises(UsageError, match=message):
            transfer.check(tasks, name, masks, HeadSettings())
        tickets = TransferSettings.of(max_length=32, levels=("40",))
        transfer.check(tasks, name, tickets, HeadSettings())
    check("sst2", str(encoders["bert"]), rows_folder, QUICK)
