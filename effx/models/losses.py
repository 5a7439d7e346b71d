"""Training losses: those that transformers computes for the ``problem_type`` of a model.

A kind of task (:mod:`effx.specs.kinds`) names one of them as its ``loss``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F  # noqa: N812

from effx.specs.tasks import Task

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits [batch, outputs] and labels [batch, ...] -> mean over the batch, a scalar; of tokens, logits [batch,
length, outputs] and labels [batch, length] -> mean over the tokens with a label; of spans, logits [batch,
length, 2] and labels [batch, 2], the tokens that begin and end the answer -> mean over both; of vectors
[2 pairs, width] and scores [pairs] -> a number for the batch."""
IGNORED = -100
"""Label of tokens that have none, as in transformers."""

_COSINE_SCALE = 20.0


def _cosine_order(vectors: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Return log(1 + sum of exp(20 (c_j - c_i)) over pairs of rows with score i > score j), c: cosines.

    Only the order of the scores counts (CoSENT, Su 2022; the loss of that name in sentence-transformers).
    Vectors 2 i and 2 i + 1 are a row.
    """
    cosines = _COSINE_SCALE * F.cosine_similarity(vectors[0::2].float(), vectors[1::2].float(), dim=-1)
    wrong = (cosines[None, :] - cosines[:, None])[scores[:, None] > scores[None, :]]
    return torch.logsumexp(torch.cat([wrong, wrong.new_zeros(1)]), dim=0)


LOSSES: Mapping[str, Loss] = {
    "cross-entropy": lambda logits, labels: F.cross_entropy(logits.float(), labels),
    "token-cross-entropy": lambda logits, labels: F.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED
    ),
    "span-cross-entropy": lambda logits, labels: F.cross_entropy(logits.float(), labels),
    "binary-cross-entropy": lambda logits, labels: F.binary_cross_entropy_with_logits(logits.float(), labels),
    "cosine-order": _cosine_order,
    "mean-squared-error": lambda logits, labels: F.mse_loss(logits.squeeze(-1).float(), labels),
}


def loss_of(task: Task) -> Loss:
    """Return the task's training loss."""
    assert task.behavior.loss is not None, f"{task.kind} is not trained"
    return LOSSES[task.behavior.loss]
