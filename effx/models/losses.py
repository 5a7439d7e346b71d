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


Distance = Callable[[torch.Tensor, torch.Tensor, "torch.Tensor | None", torch.Tensor, float], torch.Tensor]
"""The student's and the teacher's logits of a batch, labels (of words: which tokens have one), which tokens
are not padding (bool [batch, length]), and a temperature T -> mean over the batch, a scalar. Shapes are those
of :data:`Loss`. It is 0 if both predict the same."""


def _divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return T^2 KL(teacher || student) of classes on the last axis, a mean over all others.

    The factor keeps the size of gradients as T changes (Hinton et al. 2015, section 2.1). Classes that are
    ruled out by a logit of -inf in both count for nothing.
    """
    ours = F.log_softmax(student / temperature, dim=-1)
    theirs = F.log_softmax(teacher / temperature, dim=-1)
    terms = theirs.exp() * (theirs - ours).nan_to_num(0.0, posinf=0.0, neginf=0.0)
    return temperature**2 * terms.sum(-1).mean()


def _of_words(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor | None, mask: torch.Tensor, t: float
) -> torch.Tensor:
    tokens = mask if labels is None else labels != IGNORED
    return _divergence(student[tokens], teacher[tokens], t)


def _of_spans(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor | None, mask: torch.Tensor, t: float
) -> torch.Tensor:
    """Compare where answers begin and end: [batch, length, 2] are two distributions over tokens."""
    out = ~mask[..., None]
    values = [logits.masked_fill(out, -torch.inf).transpose(1, 2) for logits in (student, teacher)]
    return _divergence(values[0], values[1], t)


def _of_labels(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor | None, mask: torch.Tensor, t: float
) -> torch.Tensor:
    """Compare the probabilities of outputs that are independent of each other."""
    ours, theirs = (torch.stack([z, torch.zeros_like(z)], dim=-1) for z in (student, teacher))
    return _divergence(ours, theirs, t)


DISTANCES: Mapping[str, Distance] = {
    "cross-entropy": lambda student, teacher, labels, mask, t: _divergence(student, teacher, t),
    "token-cross-entropy": _of_words,
    "span-cross-entropy": _of_spans,
    "binary-cross-entropy": _of_labels,
    "cosine-order": lambda student, teacher, labels, mask, t: (
        1 - F.cosine_similarity(student, teacher, dim=-1)
    ).mean(),
    "mean-squared-error": lambda student, teacher, labels, mask, t: F.mse_loss(student, teacher),
}
"""Name of a loss -> the distance of a student's predictions from its teacher's. The temperature counts for
classes alone."""


def distance_of(task: Task) -> Distance:
    """Return the distance between a student's and a teacher's predictions for a task."""
    assert task.behavior.loss is not None, f"{task.kind} is not trained"
    return DISTANCES[task.behavior.loss]
