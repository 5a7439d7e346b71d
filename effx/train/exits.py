"""Early exits: train ramps after the layers, then choose when rows exit.

    two-stage   the checkpoint's weights are frozen; only the ramps are trained, on the sum of
                their losses                            DeeBERT, Xin et al. 2020, section 3.2
    joint       everything is trained, on sum_j d_j L_j / sum_j d_j over the ramps and the final
                head; d_j is the number of layers before ramp j    PABEE, Zhou et al. 2020, equation 5

The threshold and patience are then chosen on held-out training rows (see :mod:`effx.train.rows`): for a loss,
by :mod:`effx.specs.exit_calibration`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from effx import progress
from effx.artifacts import Checkpoint
from effx.errors import UsageError
from effx.manifests import (
    CheckpointFacts,
    ExitCalibration,
    ExitsRecord,
    ExitTarget,
    ExitValidation,
    ProvenLoss,
    RowShift,
)
from effx.models import add_ramps, evaluate, exits, reference, structure
from effx.specs import exit_calibration, exit_rules
from effx.specs.data import DataLocation
from effx.specs.exits import EarlyExitSettings
from effx.specs.tasks import Task
from effx.specs.training import MAX_DROP
from effx.stats import intervals, noninferiority
from effx.stats.metrics import METRICS, Metric
from effx.train import loop, output, shift
from effx.train import source as sources
from effx.train.distillation import Distillation, HeadLoss
from effx.train.trainer import TimeLimit

_POINTS = 8  # number of depths for which the manifest lists depth and score


def train(
    checkpoint: str | Path,
    *,
    out: str | Path = "checkpoints",
    name: str | None = None,
    data_folder: DataLocation = None,
    settings: EarlyExitSettings | None = None,
    overwrite: bool = False,
    distillation: Distillation | None = None,
    limit_s: float | None = None,
    rows_apart: int = 0,
) -> Checkpoint:
    """Train ramps on a checkpoint, choose the exit rule's settings, write ``out/name``.

    The manifest's ``exits`` has the rule, and its depth and score on held-out and validation rows;
    ``metrics`` are those of the final head, without early exits.

    Args:
        checkpoint: the folder of a fine-tuned checkpoint, pruned or not, with token schedule or not.
        out: folder of the new checkpoint's folder.
        name: the new checkpoint's name; default: that of ``checkpoint`` with ``-exits``.
        data_folder: file or folder of the rows; default: where the checkpoint's came from.
        settings: how to train and calibrate.
        overwrite: replace a checkpoint of that name.
        distillation: a teacher whose predictions are learned besides the labels, as the checkpoint itself or
            a larger model; its hidden states are not compared. None: labels alone.
        limit_s: seconds of training; as many steps are done as fit, by the speed of the first ones. None: as
            many as the epochs take.
        rows_apart: of the rows that limit and share leave out, how many are not used to choose settings
            either.

    Raises:
        UsageError: a setting is wrong, or no threshold of the rule meets the target.
        ArtifactError: the checkpoint is missing or damaged.
        DataError: the rows do not fit the task.
    """
    settings = settings or EarlyExitSettings()
    opened = Checkpoint.open(checkpoint)
    sources.check_trainable(opened.task)
    exit_rules.check_task(settings.rule, opened.task)
    folder = output.new_folder(out, name or f"{opened.name}-exits", overwrite)
    source = sources.open_source(checkpoint, data_folder, settings.training, rows_apart)
    transformers.set_seed(settings.training.seed)
    model = add_ramps(source.model, settings.after, pooling=settings.pooling)
    remaining = structure(model)
    if not remaining.exits:
        raise UsageError(f"{opened.name} has one layer: an exit needs at least two.")
    lowest = exit_rules.lowest_depth(settings.rule, exits.depths(model))
    if settings.depth is not None and settings.depth < lowest:
        raise UsageError(
            f"depth {settings.depth:g}: expected at least {lowest}, the first layer after which a row can "
            f"leave by rule {settings.rule}.",
            settings="depth",
        )
    teacher = source.teacher(distillation)
    lengths, collate = source.batches(teacher, limit_s)
    loss = HeadLoss(source.task, None if teacher is None else teacher.settings)
    trained = WithRamps(model, loss, joint=settings.mode == "joint")
    result = loop.fit(
        trained,
        lengths,
        collate,
        settings.training,
        epochs=settings.epochs,
        lr=settings.learning_rate,
        description=f"train {folder.name}: {len(lengths)} rows, ramps after layers "
        + ", ".join(map(str, remaining.exits)),
        callbacks=[] if limit_s is None else [TimeLimit(limit_s, settings.training.warmup)],
    )
    model.requires_grad_(True)
    plain = without_exits = evaluate.logits(model, source.encoded_validation)
    facts: CheckpointFacts = {}
    if remaining.prunes_tokens:  # the loss of token pruning is not that of exits
        without_exits, facts["tokens"] = source.with_tokens()
    facts["exits"] = calibrated = calibrate(source, model, settings, without_exits)
    for warning in _warnings(calibrated, METRICS[source.task.metric]):
        progress.say(f"{folder.name}: {warning}")
    return source.save(
        folder, settings, [result], plain, kind="exits", overwrite=overwrite, teacher=teacher, **facts
    )


def calibrate(
    source: sources.ContinuedTraining,
    model: PreTrainedModel,
    settings: EarlyExitSettings,
    without_exits: np.ndarray,
) -> ExitsRecord:
    """Choose the rule's settings on held-out rows and evaluate them on the validation rows.

    Args:
        source: the rows.
        model: with trained ramps.
        settings: the rule, and the target: a mean depth or a maximum loss.
        without_exits: logits of the final head on the validation rows, [n, outputs], with the model's
            token pruning.

    Returns:
        The manifest's ``exits``.
    """
    held = evaluate.head_logits(model, source.encode(source.held_out))
    depths = np.array(exits.depths(model))

    def score_on(rows: Any) -> exit_rules.Scorer:
        return lambda logits: source.score(logits, rows)

    max_drop = settings.max_drop
    if settings.depth is None and max_drop is None:
        max_drop = MAX_DROP
    on_held, proof = score_on(source.held_out), None
    if settings.depth is not None:
        chosen = exit_rules.calibrate(settings.rule, held, depths, on_held, depth=settings.depth)
    else:
        assert max_drop is not None
        proven = exit_calibration.prove(
            settings.rule, held, depths, np.asarray(source.held_out.labels), source.task.predict,
            METRICS[source.task.metric], max_drop=max_drop, confidence=settings.confidence,
        )  # fmt: skip
        chosen = exit_rules.evaluate(proven.rule, held, depths, on_held)
        proof = ProvenLoss(proven=proven.proven, confidence=settings.confidence, rows=proven.rows,
                           loss=proven.loss, bound=proven.bound)  # fmt: skip
    final, depth, _ = evaluate.reduced(model, source.encoded_validation, rule=chosen.rule)
    target = ExitTarget(depth=settings.depth, max_drop=None if settings.depth is not None else max_drop)
    losses = lost(source.task, source.validation.labels, without_exits, final)
    return ExitsRecord(
        rule=chosen.rule,
        mode=settings.mode,
        target=target,
        calibration=ExitCalibration(
            rows=len(source.held_out),
            seen_in_training=source.seen,
            mean_depth=chosen.mean_depth,
            score=chosen.score,
            final_head=on_held(held[-1]),
            points=tuple(points(settings.rule, held, depths, on_held)),
            proof=proof,
        ),
        validation=ExitValidation(
            scores=source.task.score(source.validation.labels, source.task.predict(final)),
            mean_depth=float(depth.mean()),
            layers=len(structure(model).layers),
            lost=losses.value,
            lost_at_least=losses.at_least,
            shift=RowShift(
                lengths=shift.two_samples(source.encode(source.held_out).lengths,
                                          source.encoded_validation.lengths),
                depths=shift.two_samples(depths[exit_rules.simulate(chosen.rule, held)], depth),
            ),
        ),
    )  # fmt: skip


def _warnings(record: ExitsRecord, metric: Metric) -> list[str]:
    """Return reasons why the loss may exceed ``max_drop``."""
    warnings = []
    max_drop, proof, measured = record.target.max_drop, record.calibration.proof, record.validation
    if proof is not None and not proof.proven:
        needed = noninferiority.rows_needed(max_drop or 0.0, proof.confidence)
        few = metric.is_share and proof.rows < needed
        more = f"; at least {needed} held-out rows are needed" if few else ""
        warnings.append(
            f"no setting of {record.rule.name} is proven to lose at most {max_drop:g} on {proof.rows} "
            f"held-out rows ({100 * proof.confidence:g} %){more}. Rows do not exit early. Raise max_drop, or "
            "set depth."
        )
    lower_bound = measured.lost_at_least
    if max_drop is not None and lower_bound is not None and lower_bound > max_drop:
        warnings.append(
            f"max_drop is {max_drop:g}, but exits lose {measured.lost:.4f} on the validation rows (at least "
            f"{lower_bound:.4f}, 95 %). Lower max_drop, or set depth."
        )
    samples = {} if measured.shift is None else dict(measured.shift)
    return [*warnings, *shift.warnings(samples, "threshold")]


@dataclass(frozen=True)
class Loss:
    """Loss of the primary metric by early exits."""

    value: float
    """The metric without exits minus with exits."""
    at_least: float | None
    """Its lower 95 % bound, one-sided, by :func:`effx.stats.intervals.paired_interval`; None: no interval."""


def lost(task: Task, labels: np.ndarray, final_head: np.ndarray, with_rule: np.ndarray) -> Loss:
    """Return the loss of the task's metric by early exits on labelled rows, and its lower bound.

    Args:
        task: its first metric is used.
        labels: [n].
        final_head: logits of the final head, [n, outputs].
        with_rule: logits of the head at which each row exits, [n, outputs].
    """
    metric = METRICS[task.metric]
    with_exits, without = task.predict(with_rule), task.predict(final_head)
    interval = intervals.paired_interval(metric, labels, with_exits, without, confidence=0.9)
    return Loss(
        metric(labels, without) - metric(labels, with_exits), None if interval is None else interval[0]
    )


def points(
    rule: str, logits: np.ndarray, depths: np.ndarray, score: exit_rules.Scorer
) -> list[exit_rules.ExitPoint]:
    """Return the rule's best settings for a few mean depths, in increasing order."""
    result: list[exit_rules.ExitPoint] = []
    for depth in np.linspace(depths[0], depths[-1], _POINTS):
        try:
            point = exit_rules.calibrate(rule, logits, depths, score, depth=float(depth))
        except UsageError:
            continue  # no threshold of the rule reaches this mean depth on these rows
        if point not in result:
            result.append(point)
    return result


class WithRamps(nn.Module):
    """A model whose loss is that of its ramps; in joint training also that of the final head."""

    def __init__(self, model: PreTrainedModel, loss: HeadLoss, *, joint: bool) -> None:
        super().__init__()
        self.model, self.joint, self.loss = model, joint, loss
        self.depths: Sequence[int] = exits.depths(model)
        if not joint:
            model.requires_grad_(False)
            model.ramps.requires_grad_(True)

    def train(self, mode: bool = True) -> WithRamps:
        """Set the mode; in two-stage training the encoder remains in eval mode, without dropout."""
        super().train(mode)
        if not self.joint:
            self.model.eval()
            self.model.ramps.train(mode)
        return self

    def forward(
        self, labels: torch.Tensor, teacher_logits: torch.Tensor | None = None, **inputs: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return ``{"loss": scalar}``, as the training loop expects."""
        outs = reference.heads_of(self.model, inputs)
        mask = inputs["attention_mask"]
        losses = torch.stack([self.loss(out, labels, teacher_logits, mask) for out in outs])
        if not self.joint:
            return {"loss": losses[:-1].sum()}
        weights = torch.tensor(self.depths, dtype=losses.dtype, device=losses.device)
        return {"loss": (weights * losses).sum() / weights.sum()}
