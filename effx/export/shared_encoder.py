"""Engines with the heads of several tasks on one encoder, from the checkpoints of multi-task training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from effx import records
from effx.artifacts import Checkpoint
from effx.engines import Session
from effx.engines.protocol import Arrays
from effx.errors import ArtifactError, UsageError
from effx.manifests import head_output
from effx.models import checkpoints


def others(checkpoint: Checkpoint) -> list[Checkpoint]:
    """Return the checkpoints of the other tasks that were trained together, in the order of the training.

    They are in the same folder as ``checkpoint``, under any names.

    Raises:
        UsageError: the checkpoint is not of multi-task training, a checkpoint is missing or there are two, or
            the tasks do not have the same heads, FFNs and layers.
        ArtifactError: a checkpoint is damaged.
    """
    shared = checkpoint.manifest.shared
    if shared is None:
        raise UsageError(
            f"{checkpoint.name} shares its encoder with no other task: variant multi needs a checkpoint of "
            "effx train multitask."
        )
    found: dict[str, list[Checkpoint]] = {}
    parent = checkpoint.folder.absolute().parent  # of a link: where the links to the others are
    for folder in Checkpoint.find(parent):
        if folder.resolve() != checkpoint.folder.resolve() and _encoder(folder) == shared.encoder:
            other = Checkpoint.open(folder)
            found.setdefault(other.task.name, []).append(other)
    result = []
    for task in shared.tasks:
        if task == checkpoint.task.name:
            continue
        same = found.get(task, [])
        if len(same) != 1:
            names = ", ".join(each.name for each in same)
            raise UsageError(
                f"{checkpoint.name}: variant multi needs the checkpoint of task '{task}' of the same "
                f"training in {parent}: " + (f"there are several ({names})." if same else "there is none.")
            )
        if same[0].manifest.structure != checkpoint.manifest.structure:
            raise UsageError(
                f"{checkpoint.name} and {same[0].name} have different heads, FFNs or layers (their tickets "
                "differ): variant multi needs the same ones for all tasks. Export an engine for each task."
            )
        result += same
    return result


def _encoder(folder: Path) -> str | None:
    """Return the digest of the shared encoder that a checkpoint has its task's part of.

    None: it has none, or parts of other tasks too, or it is damaged.
    """
    try:
        value = records.read_json(folder / Checkpoint.manifest_name)
    except ArtifactError:
        return None
    shared = value.get("shared")
    return shared.get("encoder") if isinstance(shared, dict) and not shared.get("union") else None


def on_encoder_of(model: PreTrainedModel, other: Checkpoint) -> PreTrainedModel:
    """Return the model of another task with the encoder of ``model``.

    Raises:
        ArtifactError: its encoder has other weights.
    """
    loaded = checkpoints.load(other)
    prefix = model.base_model_prefix
    encoder, own = getattr(model, prefix), getattr(loaded, prefix)
    weights = own.state_dict()
    for name, tensor in encoder.state_dict().items():
        if name not in weights or not torch.equal(tensor, weights[name]):
            raise ArtifactError(f"{other.folder}: {name} of its encoder differs from the other tasks'.")
    setattr(loaded, prefix, encoder)
    return loaded


class OneHead:
    """A session of an engine with several heads, of which one task's answers."""

    def __init__(self, session: Session, task: str) -> None:
        self._session, self._output = session, head_output(task)

    def infer(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Return the task's logits as ``logits``."""
        return {"logits": self._session.infer(inputs)[self._output]}
