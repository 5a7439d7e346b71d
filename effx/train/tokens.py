"""Token pruning: learn a schedule, then train the encoder with it.

    soft stage    no token is dropped: each is scaled by how much of it the schedule would keep; the
                  schedule's parameters are learned together with the weights, under a penalty
        share         a r_j(rank)                    r in [0, 1] per layer and relative rank;
                      + lambda sum_j j mean(r_j) / sum_j j
                      then share_j = mean(r_j), decreasing     PoWER-BERT, Goyal et al. 2020, section 3.3
        threshold     a sigmoid((s - theta_j) / T)   s is the attention received;
                      + lambda mean_j mean(sigmoid)            LTP, Kim et al. 2022, section 3.3
    hard stage    tokens are removed by the schedule, and the weights are trained further

PoWER-BERT learns one r per absolute rank of the longest input. Here ranks are relative to each
row's length, in ``_BINS`` steps, so that one schedule serves short and long rows. If the schedule is
given, the soft stage is skipped. For a loss (``max_drop``), the scale of the learned schedule is proven on
held-out training rows after the hard stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from effx import progress
from effx.artifacts import Checkpoint
from effx.errors import UsageError
from effx.manifests import ProvenLoss, TokensCalibration, TokensRecord, TokensTarget, TrainingStage
from effx.models import evaluate, forward, reference, structure
from effx.models import tokens as schedules
from effx.specs.data import DataLocation
from effx.specs.tokens import TokenPruningSettings
from effx.stats import noninferiority
from effx.stats.metrics import METRICS, Metric
from effx.train import loop, output, shift
from effx.train import source as sources
from effx.train.distillation import Distillation, HeadLoss
from effx.train.trainer import TimeLimit

_BINS = 32
_TEMPERATURE = 2e-3  # the scores of a row of n tokens are about 1 / n
# Weights and schedule share one optimizer, so the schedule's parameters are scaled: in one step, r changes by
# about 100 lr, and theta, which is a fraction of 1 / n, by 10 lr.
_RETENTION_GAIN = 100.0
_THRESHOLD_GAIN = 10.0
_FIRST_THRESHOLD = 1e-3  # initial threshold of the last layer; those of earlier layers are smaller, linearly
SCALES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
"""Scales of the learned schedule that are tested for a loss, from all tokens to few."""
_MAX_SCALING = {"share": 64, "threshold": 4096}  # with more, the learned differences between layers vanish


def train(
    checkpoint: str | Path,
    *,
    out: str | Path = "checkpoints",
    name: str | None = None,
    data_folder: DataLocation = None,
    settings: TokenPruningSettings | None = None,
    overwrite: bool = False,
    distillation: Distillation | None = None,
    limit_s: float | None = None,
    rows_apart: int = 0,
) -> Checkpoint:
    """Add a token schedule to a checkpoint, train with it, write ``out/name``.

    The manifest's ``tokens`` has the score and the share of tokens on the validation rows; ``metrics`` are
    those of the plain forward pass, with all tokens.

    Args:
        checkpoint: the folder of a fine-tuned checkpoint, pruned or not.
        out: folder of the new checkpoint's folder.
        name: the new checkpoint's name; default: that of ``checkpoint`` with ``-tokens``.
        data_folder: file or folder of the rows; default: where the checkpoint's came from.
        settings: how to train.
        overwrite: replace a checkpoint of that name.
        distillation: a teacher whose predictions are learned besides the labels, as the checkpoint itself or
            a larger model; its hidden states are not compared. None: labels alone.
        limit_s: seconds of training, divided between the stages as their epochs are; as many steps are done
            as fit, by the speed of the first ones. None: as many as the epochs take.
        rows_apart: of the rows that limit and share leave out, how many are not used to choose the schedule
            either.

    Raises:
        UsageError: a setting is wrong, the kind of the task needs all tokens, or the checkpoint has exits,
            which would not fit the new weights.
        ArtifactError: the checkpoint is missing or damaged.
        DataError: the rows do not fit the task.
    """
    settings = settings or TokenPruningSettings()
    opened = Checkpoint.open(checkpoint)
    opened.task.behavior.check_supported("tokens", opened.task.name)
    if opened.manifest.structure.exits:
        raise UsageError(
            f"{opened.name} has exits, which do not fit weights that are trained further: prune tokens "
            "first, then train exits on the result."
        )
    folder = output.new_folder(out, name or f"{opened.name}-tokens", overwrite)
    source = sources.open_source(checkpoint, data_folder, settings.training, rows_apart)
    transformers.set_seed(settings.training.seed)
    model = source.model
    teacher = source.teacher(distillation)
    lengths, collate = source.batches(teacher, limit_s)
    loss = HeadLoss(source.task, None if teacher is None else teacher.settings)

    every_epoch = settings.epochs + (settings.soft_epochs if settings.schedule is None else 0.0)

    def run(module: nn.Module, epochs: float, stage: str) -> TrainingStage:
        title = f"train {folder.name}, {stage}: {len(lengths)} rows"
        callbacks = []
        if limit_s is not None:
            callbacks.append(TimeLimit(limit_s * epochs / every_epoch, settings.training.warmup))
        return loop.fit(
            module, lengths, collate, settings.training,
            epochs=epochs, lr=settings.learning_rate, description=title, callbacks=callbacks,
        )  # fmt: skip

    results = []
    held_out = source.encode(source.held_out)
    before = None if settings.max_drop is None else source.task.predict(evaluate.logits(model, held_out))
    learned: tuple[float, ...] | None = None
    _set(model, settings.rule, settings.schedule)
    if settings.schedule is None:
        soft = Soft(model, loss, settings.rule, settings.penalty)
        results.append(run(soft, settings.soft_epochs, "soft stage"))
        learned = soft.schedule()
        if settings.keep is not None:
            learned = _scaled_to(settings.keep, learned, source, settings, results[-1].steps)
        _set(model, settings.rule, learned)
    if settings.epochs > 0:
        results.append(run(Hard(model, loss), settings.epochs, "hard stage"))
    calibration = None
    if before is not None and learned is not None:
        proof = prove(model, source, settings, learned, before)
        compared = shift.two_samples(held_out.lengths, source.encoded_validation.lengths)
        calibration = TokensCalibration(seen_in_training=source.seen, proof=proof, lengths=compared)
        for warning in _warnings(calibration, settings.max_drop or 0.0, METRICS[source.task.metric]):
            progress.say(f"{folder.name}: {warning}")
    has_target = settings.keep is not None or settings.max_drop is not None
    record = TokensRecord(
        rule=settings.rule,
        target=TokensTarget(keep=settings.keep, max_drop=settings.max_drop) if has_target else None,
        calibration=calibration,
        validation=source.with_tokens()[1].validation,
    )
    plain = evaluate.logits(model, source.encoded_validation)
    return source.save(
        folder, settings, results, plain, kind="tokens", overwrite=overwrite, teacher=teacher, tokens=record
    )


class Soft(nn.Module):
    """The soft stage: the model with every token scaled by how much of it the schedule would keep."""

    def __init__(self, model: PreTrainedModel, loss: HeadLoss, rule: str, penalty: float) -> None:
        super().__init__()
        self.model, self.loss, self.rule, self.penalty = model, loss, rule, penalty
        layers = len(structure(model).layers)
        if rule == "share":
            raw = torch.full((layers, _BINS), 1.0 / _RETENTION_GAIN)
        else:
            raw = torch.linspace(1 / layers, 1, layers) * _FIRST_THRESHOLD / _THRESHOLD_GAIN
        self.raw = nn.Parameter(raw.to(model.device))

    def forward(
        self, labels: torch.Tensor, teacher_logits: torch.Tensor | None = None, **inputs: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the loss plus the penalty."""
        stream = forward.embed(self.model, inputs)
        penalties, weights = [], []
        for position, layer in enumerate(structure(self.model).layers):
            stream, probabilities = forward.attend(self.model, position, stream, explicit=bool(layer.heads))
            if probabilities is not None:
                received = schedules.scores(probabilities, stream.token_mask)
                scale, cost = self.token_scale(position, received, stream.token_mask)
                stream = replace(stream, hidden=stream.hidden * scale[..., None])
                penalties.append(cost)
                weights.append(float(position + 1) if self.rule == "share" else 1.0)
            stream = forward.feed(self.model, position, stream)
        out = forward.head(self.model, stream)
        loss = self.loss(out, labels, teacher_logits, inputs["attention_mask"])
        if penalties:
            weight = torch.tensor(weights, device=loss.device)
            loss = loss + self.penalty * (torch.stack(penalties) * weight).sum() / weight.sum()
        return {"loss": loss}

    def token_scale(
        self, position: int, received: torch.Tensor, token_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the factor in [0, 1] of each token and the penalty of a layer.

        Args:
            position: of the layer among the remaining layers.
            received: attention that each token receives, [batch, length].
            token_mask: False for padding, bool [batch, length].

        Returns:
            Factors [batch, length], 1 for the first token, and the penalty (scalar).
        """
        cls = torch.zeros_like(received)
        cls[:, 0] = 1.0
        if self.rule == "share":
            retention = self.retention()[position]
            ranks = _ranks(received.detach(), token_mask)
            share = (ranks.float() + 0.5) / token_mask.sum(1, keepdim=True)
            scale = retention[(share * _BINS).long().clamp(max=_BINS - 1)]
            cost = retention.mean()
        else:
            scale = torch.sigmoid((received - self.thresholds()[position]) / _TEMPERATURE)
            cost = (scale * token_mask).sum() / token_mask.sum()
        return torch.maximum(scale, cls), cost

    def retention(self) -> torch.Tensor:
        """Return r in [0, 1], [layers, bins]."""
        return (self.raw * _RETENTION_GAIN).clamp(0, 1)

    def thresholds(self) -> torch.Tensor:
        """Return theta in [0, 1], [layers]."""
        return (self.raw * _THRESHOLD_GAIN).clamp(0, 1)

    def schedule(self) -> tuple[float, ...]:
        """Return the learned schedule; shares never increase from layer to layer, and are at least 0.001."""
        if self.rule == "threshold":
            return tuple(float(value) for value in self.thresholds().detach())
        shares = self.retention().detach().mean(1).cpu().numpy()
        return tuple(float(max(share, 1e-3)) for share in np.minimum.accumulate(shares))


class Hard(nn.Module):
    """The hard stage: the model with its schedule, which removes tokens."""

    def __init__(self, model: PreTrainedModel, loss: HeadLoss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(
        self, labels: torch.Tensor, teacher_logits: torch.Tensor | None = None, **inputs: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the loss of the final head."""
        out = reference.heads_of(self.model, inputs)[-1]
        return {"loss": self.loss(out, labels, teacher_logits, inputs["attention_mask"])}


def _set(model: PreTrainedModel, rule: str, schedule: Sequence[float] | None) -> None:
    if rule == "share":
        schedules.schedule(model, shares=schedule)
    else:
        schedules.schedule(model, thresholds=schedule)


def prove(
    model: PreTrainedModel,
    source: sources.ContinuedTraining,
    settings: TokenPruningSettings,
    learned: tuple[float, ...],
    before: np.ndarray,
) -> ProvenLoss:
    """Set the schedule with the fewest tokens that is proven to lose at most ``max_drop``; return the proof.

    Scales of the learned schedule are tested on the held-out rows from all tokens to few, and the last before
    the first failure is chosen (:func:`effx.stats.noninferiority.fixed_sequence`). Where none is proven, all
    tokens are kept.

    Args:
        model: after the training; its schedule is changed in place.
        source: the rows and the task.
        settings: the rule, ``max_drop`` and the confidence.
        learned: the schedule of the soft stage, with which the weights were trained further.
        before: predictions for the held-out rows of the checkpoint with all tokens, before this training.
    """
    rows, labels = source.encode(source.held_out), np.asarray(source.held_out.labels)
    metric, max_drop, task = METRICS[source.task.metric], settings.max_drop, source.task
    assert max_drop is not None
    proven, chosen = 0, before
    for scale in SCALES:
        _set(model, settings.rule, _scaled(settings.rule, learned, scale))
        after = task.predict(evaluate.reduced(model, rows)[0])
        if not noninferiority.fixed_sequence(
            metric, labels, before, after[None], max_drop, 1 - settings.confidence
        ):
            break
        proven, chosen = proven + 1, after
    _set(model, settings.rule, _scaled(settings.rule, learned, SCALES[max(0, proven - 1)]))
    bounds = noninferiority.bounds(metric, labels, before, chosen, settings.confidence) if proven else None
    return ProvenLoss(
        proven=proven > 0,
        confidence=settings.confidence,
        rows=len(labels),
        loss=metric(labels, before) - metric(labels, chosen) if proven else 0.0,
        bound=0.0 if bounds is None else max(0.0, -bounds[0]),
    )


def _warnings(calibration: TokensCalibration, max_drop: float, metric: Metric) -> list[str]:
    """Return reasons why the loss may exceed ``max_drop``."""
    proof, warnings = calibration.proof, []
    if not proof.proven:
        needed = noninferiority.rows_needed(max_drop, proof.confidence)
        few = metric.is_share and proof.rows < needed
        more = f"; at least {needed} held-out rows are needed" if few else ""
        warnings.append(
            f"no schedule is proven to lose at most {max_drop:g} on {proof.rows} held-out rows "
            f"({100 * proof.confidence:g} %){more}. All tokens are kept. Raise max_drop, or set keep."
        )
    return [*warnings, *shift.warnings({"lengths": calibration.lengths}, "schedule")]


def _scaled(rule: str, learned: tuple[float, ...], scale: float) -> tuple[float, ...]:
    """Return the schedule raised to a power (shares) or multiplied (thresholds); at 0 all tokens are kept."""
    if rule == "share":
        return tuple(max(value**scale, 1e-3) for value in learned)
    return tuple(min(value * scale, 1.0) for value in learned)


def _scaled_to(
    keep: float,
    learned: tuple[float, ...],
    source: sources.ContinuedTraining,
    settings: TokenPruningSettings,
    steps: int,
) -> tuple[float, ...]:
    """Return the schedule raised to a power (shares) or scaled (thresholds) so that it keeps ``keep``.

    Args:
        keep: the target: mean share of tokens over rows and layers.
        learned: the soft stage's schedule.
        source: the share is measured on its held-out rows.
        settings: the rule; other settings are used in the error message only.
        steps: optimizer steps of the soft stage.

    Raises:
        UsageError: the learned schedule drops too few tokens to be scaled to ``keep``.
    """
    share = settings.rule == "share"
    rows = source.encode(source.held_out)

    def mean_share(x: float) -> float:
        _set(source.model, settings.rule, _scaled(settings.rule, learned, x))
        _, _, used = evaluate.reduced(source.model, rows)
        return float((used / rows.lengths[:, None]).mean())

    low, high = 0.0, 1.0
    while mean_share(high) > keep:
        low, high = high, high * 2
        if high > _MAX_SCALING[settings.rule]:
            distance = 1 - keep if share else 1 / float(rows.lengths.mean())
            advice = _advice(settings, steps, distance)
            raise UsageError(
                f"the soft stage dropped too few tokens to keep {keep:g}: {advice}, or set a schedule.",
                settings=("keep", "schedule"),
            )
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_share(middle) > keep else (low, middle)
    return _scaled(settings.rule, learned, high)


def _advice(settings: TokenPruningSettings, steps: int, distance: float) -> str:
    """Return which setting lets the soft stage drop more tokens.

    A step of Adam changes a parameter by about the learning rate; the penalty affects only the direction.
    Warm-up and decay halve the mean learning rate. If ``steps`` steps of this size cannot cover
    ``distance``, the change of r or theta that is needed, a higher penalty does not help.
    """
    gain = _RETENTION_GAIN if settings.rule == "share" else _THRESHOLD_GAIN
    lr = settings.learning_rate
    if steps * lr / 2 * gain >= distance:
        return f"raise penalty, now {settings.penalty:g}"
    more = "soft_epochs" if settings.training.max_steps is None else "max_steps"
    return f"{steps} steps at learning rate {lr:g} are too few; raise {more} or lr"


def _ranks(received: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
    """Return each token's rank by score, [batch, length]: 0 for the first token, 1 for the next best."""
    ranked = received.masked_fill(~token_mask, -1.0)
    ranked[:, 0] = 2.0
    order = ranked.argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1)
