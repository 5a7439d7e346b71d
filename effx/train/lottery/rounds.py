"""The fine-tunings of a search for lottery tickets.

    theta_0 ── STEP steps ── theta_STEP ── ... ── theta_T         the first fine-tuning, T steps
                                 └── mask ── T - STEP steps       a round that is rewound to STEP

A round that is rewound goes on from the state after STEP steps: weights, task head, moments of the optimizer,
learning rate, random numbers and order of the rows. Masked weights and their moments are zero. So it trains
the T - STEP steps that remain, as in algorithm 1 of Chen et al. 2020, and with nothing masked it would end
with the weights of the first fine-tuning, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback

from effx import files, scratch
from effx.artifacts import Checkpoint
from effx.costs import FIRST_STEPS, Expense
from effx.manifests import CheckpointFacts
from effx.models import sparse
from effx.specs.data import DataLocation
from effx.specs.heads import HeadSettings
from effx.specs.training import FinetuneSettings
from effx.train.distillation import Distillation
from effx.train.finetune import finetune
from effx.train.lottery import start
from effx.train.lottery.masks import MaskedModel, check_fit
from effx.train.segment import PausedState, RunSegment


@dataclass(frozen=True)
class MaskOrigin:
    """Where a mask, and the weights under it, come from; for the manifest."""

    kind: str | None
    """How it was found; None: there is no mask, or it was given as a file."""
    objective: str | None
    """What the rounds trained; None: nothing, or unknown."""
    digest: str | None = None
    """SHA-256 of its file; None: there is no mask."""
    init: str = "pretrained"
    """Which weights are fine-tuned under it; with ``kind`` standard, the trained ones of the round before."""
    rewind: int | None = None
    """Optimizer steps of the first fine-tuning that the weights are reset to; None: to ``init``."""
    source: str | None = None
    """Where the mask was found, if not on the same task with the same seed."""


def train_round(
    task_name: str,
    model_name: str | Path,
    masks: sparse.WeightMasks | None,
    origin: MaskOrigin,
    *,
    out: str | Path,
    name: str,
    data_folder: DataLocation,
    settings: FinetuneSettings,
    parent: str | None = None,
    expenses: tuple[Expense, ...] | None = (),
    state: Path | None = None,
    head: HeadSettings | None = None,
    distillation: Distillation | None = None,
    found_for: MaskedModel | None = None,
) -> Checkpoint:
    """Fine-tune weights under masks and write ``out/name``.

    Args:
        task_name: as :func:`effx.train.finetune` takes it.
        model_name: the pretrained encoder, or the checkpoint of the round before to go on from.
        masks: which weights remain; None: all.
        origin: of the masks and the weights.
        out: folder of the checkpoint's folder.
        name: the checkpoint's name.
        data_folder: as :func:`effx.train.finetune` takes it.
        settings: how to fine-tune.
        parent: digest of the checkpoint that the masks were found in.
        expenses: what had to be computed for the masks; None: unknown.
        state: what :func:`first_steps` wrote, to go on from; None: begin with the first step.
        head: whether the model's task head is kept or replaced.
        distillation: a teacher that is learned from besides the labels; None: labels alone.
        found_for: the model that the masks were found for; None: unknown.

    Raises:
        ArtifactError: the masks do not fit the model, or the state is damaged.
    """
    needed = None if expenses is None else [*expenses, *_first_steps(state)]

    def reduce(model: PreTrainedModel) -> None:
        start.set_weights(model, origin.init, settings.training.seed)
        if masks is not None:
            check_fit(masks, model, found_for)
            sparse.hold(model, masks)

    def facts(model: PreTrainedModel) -> CheckpointFacts:
        given = {"objective": origin.objective, "mask": origin.digest, "kind": origin.kind,
                 "init": origin.init, "rewind": origin.rewind, "source": origin.source}  # fmt: skip
        return {"parent": parent, "sparsity": sparse.counts(model).model_copy(update=given)}

    return finetune(
        task_name,
        model_name,
        out=out,
        name=name,
        data_folder=data_folder,
        settings=settings,
        reduce=reduce,
        facts=facts,
        expenses=needed,
        segment=None if state is None else RunSegment(begin=state, shared=True),
        callbacks=() if state is None or masks is None else (MaskedState(masks),),
        head=head,
        distillation=distillation,
    )


def _first_steps(state: Path | None) -> list[Expense]:
    """Return what the steps took that rounds are rewound to: they are done once for all rounds."""
    if state is None:
        return []
    return [
        Expense(
            kind=FIRST_STEPS, checkpoint=files.sha256(state / "state.json"), name="the state to rewind to",
            cost=PausedState.read(state).cost,
        )
    ]  # fmt: skip


def first_steps(
    task_name: str,
    model_name: str | Path,
    steps: int,
    state: Path,
    *,
    data_folder: DataLocation,
    settings: FinetuneSettings,
    head: HeadSettings | None = None,
    distillation: Distillation | None = None,
) -> None:
    """Do the first ``steps`` optimizer steps of a fine-tuning, and write its state into a folder.

    Args:
        task_name: as :func:`effx.train.finetune` takes it.
        model_name: the pretrained encoder.
        steps: fewer than the fine-tuning has.
        state: a new folder, see :mod:`effx.train.segment`.
        data_folder: as :func:`effx.train.finetune` takes it.
        settings: of the complete fine-tuning.
        head: whether the model's task head is kept or replaced.
        distillation: a teacher that is learned from besides the labels; None: labels alone.
    """
    with scratch.folder("rewind") as folder:
        finetune(
            task_name,
            model_name,
            out=folder,
            name=state.name,
            data_folder=data_folder,
            settings=settings,
            segment=RunSegment(until=steps, state=state),
            head=head,
            distillation=distillation,
        )


class MaskedState(TrainerCallback):  # type: ignore[misc]
    """Masks the weights of a state that training goes on from, and the optimizer's moments of them.

    The state replaces the weights that were masked before, and a weight whose moments are not zero moves even
    without a gradient.
    """

    def __init__(self, masks: sparse.WeightMasks) -> None:
        self._masks = masks

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **_: Any
    ) -> None:
        parameters = sparse.matrices(model)
        with torch.no_grad():
            for name, mask in self._masks.items():
                if name not in parameters:
                    continue
                weight = parameters[name]
                remaining = mask.to(weight.device)
                weight.mul_(remaining)
                for moment in optimizer.state.get(weight, {}).values():
                    if isinstance(moment, torch.Tensor) and moment.shape == weight.shape:
                        moment.mul_(remaining)
