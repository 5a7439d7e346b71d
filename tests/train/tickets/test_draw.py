"""Tickets of a checkpoint: in one shot, in rounds, and of a checkpoint that is reduced already."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from effx import data
from effx.artifacts import Checkpoint
from effx.encoding import Encoder
from effx.errors import UsageError
from effx.models import checkpoints, load, prune, structure
from effx.specs.levels import Level
from effx.specs.tickets import TicketSettings
from effx.structure import Structure
from effx.tickets.plan import rounds
from effx.train import finetune, importance
from effx.train.tickets.draw import draw
from tests.tickets.test_plan import full_structure

TRAINING: dict[str, object] = {"epochs": 1, "max_length": 32, "lr": 1e-3, "limit": 64, "precision": "fp32"}


def ticket(checkpoint: Path, encoder: Path, rows: Path, out: Path, **settings: object) -> Checkpoint:
    return draw(
        checkpoint, encoder, out=out, name="ticket", data_folder=rows,
        settings=TicketSettings.of(**TRAINING, **settings),
    )  # fmt: skip


def lowest(checkpoint: Checkpoint, rows: Path, heads: int, ffns: int) -> dict[str, object]:
    """Return the least important heads and FFNs of a checkpoint, as arguments of ``prune``."""
    model = load(checkpoint)
    settings = TicketSettings.of(level="50", **TRAINING).finetune.training
    train = data.load(checkpoint.task, "train", rows).limit(64)
    encoded = Encoder(checkpoint.folder, 32)(train.texts)
    batches = importance.batches_of(
        encoded, train.labels, checkpoints.input_names(model), settings.batch_size, settings.seed
    )
    scores = importance.measure(model, batches, "taylor", precision="fp32")
    remaining = structure(model)
    pairs = [(n, head) for n, layer in enumerate(remaining.layers) for head in layer.heads]
    chosen: dict[int, list[int]] = {}
    left = [len(layer.heads) for layer in remaining.layers]
    for n, head in sorted(pairs, key=lambda at: scores.heads[at]):
        if sum(map(len, chosen.values())) < heads and left[n] > 1:
            chosen.setdefault(remaining.layers[n].index, []).append(head)
            left[n] -= 1
    with_ffn = [n for n, layer in enumerate(remaining.layers) if layer.intermediate]
    gone = sorted(with_ffn, key=lambda n: scores.ffns[n])[:ffns]
    return {"heads": chosen, "ffns": [remaining.layers[n].index for n in gone]}


def heads_of(found: Structure) -> list[tuple[int, ...]]:
    return [layer.heads for layer in found.layers]


def test_rounds_divide_a_level() -> None:
    whole = full_structure()
    assert rounds(whole, Level(30), "ffns", 1) == [(43, 3)]
    parts = rounds(whole, Level(30), "ffns", 4)
    assert parts == [(10, 0), (11, 1), (11, 1), (11, 1)]
    assert rounds(full_structure(2, 4), Level(50), "ffns", 9) == [(1, 0)] * 4


def test_each_round_is_scored_anew_and_begins_with_the_pretrained_weights(
    checkpoint: Checkpoint, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    whole = structure(load(checkpoint))
    parts = rounds(whole, Level(60), "ffns", 2)
    assert len(parts) == 2
    first = lowest(checkpoint, rows_folder, *parts[0])
    settings = TicketSettings.of(level="60", **TRAINING).finetune
    between = finetune(
        "sst2", encoders["bert"], out=tmp_path, name="between", data_folder=rows_folder, settings=settings,
        reduce=lambda model: prune(model, **first),
    )  # fmt: skip
    second = lowest(between, rows_folder, *parts[1])
    expected = finetune(
        "sst2", encoders["bert"], out=tmp_path, name="expected", data_folder=rows_folder, settings=settings,
        reduce=lambda model: prune(prune(model, **first), **second),
    )  # fmt: skip
    found = ticket(checkpoint.folder, encoders["bert"], rows_folder, tmp_path, level="60", rounds=2)
    assert heads_of(found.manifest.structure) == heads_of(expected.manifest.structure)
    assert found.manifest.structure == expected.manifest.structure
    states = [load(each).state_dict() for each in (found, expected)]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name
    record = found.manifest.ticket
    assert record is not None and record.rounds == 2
    assert (record.removed.heads, record.removed.ffns) == tuple(np.sum(parts, axis=0))


def test_a_ticket_of_a_reduced_checkpoint_stays_reduced(
    checkpoint: Checkpoint, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    settings = TicketSettings.of(level="60", **TRAINING).finetune
    reduced = finetune(
        "sst2", encoders["bert"], out=tmp_path, name="reduced", data_folder=rows_folder, settings=settings,
        reduce=lambda model: prune(model, heads={0: [1]}, ffns=[1]),
    )  # fmt: skip
    found = ticket(reduced.folder, encoders["bert"], rows_folder, tmp_path, level="30")
    before, after = reduced.manifest.structure, found.manifest.structure
    assert 1 not in after.layers[0].heads and after.layers[1].intermediate == 0
    for old, new in zip(before.layers, after.layers, strict=True):
        assert set(new.heads) <= set(old.heads)
    removed = found.manifest.ticket.removed if found.manifest.ticket else None
    assert removed is not None
    assert removed.heads == sum(map(len, heads_of(before))) - sum(map(len, heads_of(after))) > 0


def test_a_level_that_is_too_high_is_refused_before_training(
    checkpoint: Checkpoint, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="must remain with min_heads"):
        ticket(checkpoint.folder, encoders["bert"], rows_folder, tmp_path, level="95", rounds=3)
    assert not (tmp_path / "ticket").exists()
