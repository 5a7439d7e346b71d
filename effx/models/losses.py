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
length, 2] and labels [batch, 2], the tokens that begin and end the answer -> mean over both."""
IGNORED = -100
"""Label of tokens that have none, as in transformers."""

LOSSES: Mapping[str, Loss] = {
    "cross-entropy": lambda logits, labels: F.cross_entropy(logits.float(), labels),
    "token-cross-entropy": lambda logits, labels: F.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED
    ),
    "span-cross-entropy": lambda logits, labels: F.cross_entropy(logits.float(), labels),
    "binary-cross-entropy": lambda logits, labels: F.binary_cross_entropy_with_logits(logits.float(), labels),
    "mean-squared-error": lambda logits, labels: F.mse_loss(logits.squeeze(-1).float(), labels),
}


def loss_of(task: Task) -> Loss:
    """Return the task's training loss."""
    assert task.behavior.loss is not None, f"{task.kind} is not trained"
    return LOSSES[task.behavior.loss]
