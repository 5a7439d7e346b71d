"""Reference predictions of a checkpoint in PyTorch, fp32, in batches of rows of similar length."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from effx import data, signals
from effx.artifacts import Checkpoint
from effx.encoding import Encoded, Encoder, smaller_batches
from effx.models import checkpoints, exits, forward, heads, infer, load, reference, structure
from effx.models.checkpoints import input_names
from effx.specs.data import DataLocation
from effx.specs.exit_rules import ExitRule
from effx.specs.tasks import Task

_Inputs = dict[str, torch.Tensor]


def predictions(model: PreTrainedModel, encoded: Encoded, task: Task) -> np.ndarray:
    """Return what the plain forward pass in eval mode predicts for a task, first axis the rows."""
    return task.predict(answers(model, encoded, task), with_documents(model, encoded))


def with_documents(model: PreTrainedModel, encoded: Encoded) -> Encoded:
    """Return rows with the vectors of the documents that they are compared with, if there are any."""
    if encoded.documents is None:
        return encoded
    return encoded.with_vectors(logits(model, encoded.documents.tokens))


def answers(model: PreTrainedModel, encoded: Encoded, task: Task) -> np.ndarray:
    """Return a task's logits of all sequences [sequences, outputs], or of their tokens [tokens, outputs]."""
    of_tokens = heads.head_type(task).per_token
    return token_logits(model, encoded, task) if of_tokens else logits(model, encoded)


@torch.inference_mode()
def logits(model: PreTrainedModel, encoded: Encoded, batch_size: int = 64) -> np.ndarray:
    """Return logits of the plain forward pass in eval mode, float32 [sequences, outputs], in order."""
    parts: list[tuple[np.ndarray, np.ndarray]] = []

    def run(rows: np.ndarray, inputs: _Inputs) -> None:
        parts.append((rows, model(**inputs).logits.float().cpu().numpy()))

    _over(model, encoded, batch_size, run)
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    return np.asarray(np.concatenate([values for _, values in parts])[order])


@torch.inference_mode()
def token_logits(model: PreTrainedModel, encoded: Encoded, task: Task, batch_size: int = 32) -> np.ndarray:
    """Return the logits of every token of all rows, concatenated, in eval mode: float32 [tokens, outputs].

    Those of row i are ``result[encoded.offsets[i]:encoded.offsets[i + 1]]``.
    """
    result = np.empty((int(encoded.offsets[-1]), task.outputs), dtype=np.float32)
    head = heads.head_type(task)

    def run(rows: np.ndarray, inputs: _Inputs) -> None:
        encoded.scatter(rows, head.logits(model(**inputs)).float().cpu().numpy(), result)

    _over(model, encoded, batch_size, run)
    return result


@torch.inference_mode()
def head_logits(
    model: PreTrainedModel, encoded: Encoded, *, prune_tokens: bool = True, batch_size: int = 64
) -> np.ndarray:
    """Return float32 logits [heads, n, outputs] of every ramp and, last, of the task head."""
    result = np.empty((len(exits.depths(model)), len(encoded), model.config.num_labels), dtype=np.float32)

    def run(rows: np.ndarray, inputs: _Inputs) -> None:
        outs = reference.all_heads(model, inputs, prune_tokens=prune_tokens)
        result[:, rows] = outs.float().cpu().numpy()

    _over(model, encoded, batch_size, run)
    return result


@torch.inference_mode()
def reduced(
    model: PreTrainedModel,
    encoded: Encoded,
    *,
    rule: ExitRule | None = None,
    prune_tokens: bool = True,
    batch_size: int = 64,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run the reference with early exit and token pruning.

    Returns:
        float32 logits [n, outputs], int64 depth [n] in layers, int64 tokens [n, layers].
    """
    n, layers = len(encoded), len(structure(model).layers)
    result = np.empty((n, model.config.num_labels), dtype=np.float32)
    depth, tokens = np.empty(n, dtype=np.int64), np.empty((n, layers), dtype=np.int64)

    def run(rows: np.ndarray, inputs: _Inputs) -> None:
        out = infer(model, inputs, rule=rule, prune_tokens=prune_tokens)
        result[rows] = out.logits.float().cpu().numpy()
        depth[rows], tokens[rows] = out.depth.cpu().numpy(), out.tokens.cpu().numpy()

    _over(model, encoded, batch_size, run)
    return result, depth, tokens


@torch.inference_mode()
def first_token_similarity(model: PreTrainedModel, encoded: Encoded, batch_size: int = 64) -> np.ndarray:
    """Return how little each layer changes the representation of the first token: float64 [layers], -1 to 1.

    It is the cosine between the representations before and after the layer, averaged over the sequences, in
    eval mode (Sajjad et al. 2020, section 3, contribution-based dropping).
    """
    cosines = np.empty((len(structure(model).layers), len(encoded)))

    def run(rows: np.ndarray, inputs: _Inputs) -> None:
        stream = forward.embed(model, inputs)
        for position in range(len(cosines)):
            before = stream.hidden[:, 0].double()
            stream = reference.layer(model, position, stream, prune=False)
            change = torch.nn.functional.cosine_similarity(before, stream.hidden[:, 0].double(), dim=-1)
            cosines[position, rows] = change.cpu().numpy()  # by row: a batch may be run again

    _over(model, encoded, batch_size, run)
    similarity: np.ndarray = cosines.mean(axis=1)
    return similarity


def at_length(
    checkpoint: str | Path, max_length: int, *, data_folder: DataLocation = None
) -> dict[str, float]:
    """Return a checkpoint's metrics on its validation rows, cut to ``max_length`` tokens each.

    This reduces the sequence length without training; to train at a limit, fine-tune with it.

    Args:
        checkpoint: the checkpoint's folder.
        max_length: maximum tokens per example, special tokens included.
        data_folder: file or folder of the rows; default: where the checkpoint's came from.

    Returns:
        The task's metrics, and ``cut``: the share of rows that lost tokens.

    Raises:
        UsageError: the limit is below 4 or above the model's limit.
    """
    opened = Checkpoint.open(checkpoint)
    model = load(opened)
    checkpoints.check_length(model, max_length)
    rows = data.load(opened.task, "validation", data.locate(data_folder, opened.task, opened.data))
    form = opened.task.behavior.form
    whole = Encoder(opened.folder, opened.max_length, form=form)(rows.texts).cut_lengths
    encoded = Encoder(opened.folder, max_length, form=form)(rows.texts, rows.documents)
    scores = opened.task.score(rows.labels, predictions(model, encoded, opened.task))
    return {**scores, "cut": float((whole > max_length).mean()) if len(whole) else 0.0}


def _over(
    model: PreTrainedModel, encoded: Encoded, batch_size: int, run: Callable[[np.ndarray, _Inputs], None]
) -> None:
    model.eval()
    names = input_names(model)
    longest_first = np.argsort(-encoded.lengths, kind="stable")  # what does not fit in memory fails at once
    for rows in smaller_batches(longest_first, encoded.lengths, batch_size, similar=True):
        signals.check()
        batch = encoded.batch(rows)
        run(rows, {name: torch.from_numpy(batch[name]).to(model.device) for name in names})
