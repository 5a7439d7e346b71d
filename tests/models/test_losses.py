"""Losses are those of transformers for the problem type of a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from effx.encoding import Encoder
from effx.models import checkpoints, pretrained
from effx.models.heads import head_type
from effx.models.losses import LOSSES, loss_of
from effx.specs.kinds import KINDS
from effx.specs.tasks import Task
from effx.train import loop

LABELS = {
    "classification": np.array([2, 0, 1]),
    "regression": np.array([0.5, -1.0, 2.0]),
    "multi-label": np.array([[True, False, True], [False, False, False], [False, True, False]]),
    "token-classification": np.array([[0, 1, 2], [0, 0, 1], [2, 0, -1]]),
    "answer-span": KINDS["answer-span"].restore([["good"], ["soup"]], ()),
    "embedding": np.array([0.5, -1.0, 2.0]),
    "ranking": KINDS["ranking"].restore([[2.0, 0.0], [1.0]], ()),
}
TEXTS = {
    "texts": [("a good film",), ("the soup was cold",), ("never again",)],
    "words": [("a", "good", "unbelievable"), ("the", "soup", "was"), ("never", "again")],
    "windows": [("what", "a good film"), ("was it", "the soup was cold")],
    "candidates": [("what", "a good film", "a film"), ("was it", "the soup was cold")],
    "separate": [("a good film", "a film"), ("the soup was cold", "never"), ("again", "was it")],
}


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS.values() if kind.loss is not None])
def test_a_loss_is_that_of_transformers(kind: str, encoders: dict[str, Path]) -> None:
    form = KINDS[kind].form
    names = {"words": ("O", "B-a", "I-a"), "texts": ("a", "b", "c")}.get(form, ())
    task = Task("t", kind, ("sentence",), () if KINDS[kind].of_numbers else names, KINDS[kind].metrics)
    model, _ = pretrained(encoders["bert"], task)
    model.eval()
    encoded = Encoder(encoders["bert"], 32, form=form)(TEXTS[form])
    collate = loop.labelled(encoded, LABELS[kind], checkpoints.input_names(model))
    items, _ = loop.items(encoded, LABELS[kind], np.arange(encoded.row_count))
    batch = collate(items.tolist())
    with torch.no_grad():
        out = model(**batch)
    assert out.loss is not None
    labels = batch.get("labels")
    if labels is None:
        labels = torch.stack([batch["start_positions"], batch["end_positions"]], 1)
    torch.testing.assert_close(loss_of(task)(head_type(task).logits(out), labels), out.loss)


def test_every_kind_names_a_loss_that_exists_or_says_why_it_is_not_trained() -> None:
    for kind in KINDS.values():
        assert kind.loss in LOSSES or "training" in kind.refused
