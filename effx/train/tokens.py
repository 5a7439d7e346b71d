"""Token pruning: find a schedule, then train the encoder to live with it.

    soft stage    every token stays, scaled by how much of it the schedule would keep; the
                  schedule's parameters are learned beside the weights under a penalty
        share         a r_j(rank)                    r in [0, 1] per layer and relative rank;
                      + lambda sum_j j mean(r_j) / sum_j j
                      then share_j = mean(r_j), not rising     PoWER-BERT, Goyal et al. 2020, section 3.3
        threshold     a sigmoid((s - theta_j) / T)   s is the attention received;
                      + lambda mean_j mean(sigmoid)            LTP, Kim et al. 2022, section 3.3
    hard stage    tokens are cut out by the schedule, the weights are trained on

PoWER-BERT learns one r per absolute rank of the longest input. Here ranks are relative to each
row's length, in ``_BINS`` steps, because shares are: a schedule then serves short rows and long.
A schedule given by hand skips the soft stage.
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

from effx.artifacts import Checkpoint
from effx.errors import UsageError
from effx.models import evaluate, forward, reference, structure
from effx.models import tokens as schedules
from effx.specs.tasks import Task
from effx.specs.training import TokenPruningSettings
from effx.train import loop
from effx.train import source as sources

_BINS = 32
_TEMPERATURE = 2e-3  # the scores of a row of n tokens lie around 1 / n
_RETENTION_GAIN = 100.0  # one optimizer serves weights and schedule: r moves 100 lr a step,
_THRESHOLD_GAIN = 10.0  # theta, a fraction of 1 / n, 10 lr
_FIRST_THRESHOLD = 1e-3  # of the last layer, falling linearly to the first
_MOST_SCALING = {"share": 64, "threshold": 4096}  # beyond that, what was learned does not show


def train(
    checkpoint: str | Path,
    *,
    out: str | Path = "checkpoints",
    name: str | None = None,
    data_folder: str | Path | None = None,
    settings: TokenPruningSettings | None = None,
    overwrite: bool = False,
) -> Checkpoint:
    """Give a checkpoint a token schedule, train it with that, write ``out/name``.

    The manifest's ``tokens`` has what the schedule did on the validation rows; ``metrics`` are
    those of the plain forward pass, with all tokens.

    Args:
        checkpoint: the folder of a fine-tuned checkpoint, pruned or not.
        out: where checkpoints go.
        name: the new checkpoint's name; default: the old one's with ``-tokens``.
        data_folder: train and validation files; default: where the checkpoint's came from.
        settings: how to train.
        overwrite: replace a checkpoint of that name.

    Raises:
        UsageError: a setting is wrong, or the checkpoint has exits, which would not fit any more.
        ArtifactError: the checkpoint is missing or damaged.
        DataError: the rows do not fit the task.
    """
    settings = settings or TokenPruningSettings()
    opened = Checkpoint.open(checkpoint)
    if opened.manifest["structure"].get("exits"):
        raise UsageError(
            f"{opened.name} has exits, trained for the weights as they are: prune its tokens first, "
            "then train exits on the result."
        )
    folder = sources.place(out, name or f"{opened.name}-tokens", overwrite)
    source = sources.open_source(checkpoint, data_folder, settings.training.limit, settings.training.seed)
    transformers.set_seed(settings.training.seed)
    model = source.model
    lengths, collate = source.batches()

    def run(module: nn.Module, epochs: float, stage: str) -> loop.LoopResult:
        title = f"train {folder.name}, {stage}: {len(lengths)} rows"
        return loop.fit(
            module, lengths, collate, settings.training,
            epochs=epochs, lr=settings.learning_rate, description=title,
        )  # fmt: skip

    results = []
    _set(model, settings.rule, settings.schedule)
    if settings.schedule is None:
        soft = Soft(model, source.task, settings.rule, settings.penalty)
        results.append(run(soft, settings.soft_epochs, "soft stage"))
        learned = soft.schedule()
        if settings.keep is not None:
            learned = _brought_to(settings.keep, learned, source, settings, results[-1].steps)
        _set(model, settings.rule, learned)
    if settings.epochs > 0:
        results.append(run(Hard(model, source.task), settings.epochs, "hard stage"))
    target = None if settings.keep is None else {"keep": settings.keep}
    facts = {**source.with_tokens()[1], "rule": settings.rule, "target": target}
    plain = evaluate.logits(model, source.encoded_validation)
    return source.save(folder, settings, results, plain, overwrite=overwrite, tokens=facts)


class Soft(nn.Module):
    """The soft stage: the model with every token scaled by what the schedule would keep of it."""

    def __init__(self, model: PreTrainedModel, task: Task, rule: str, penalty: float) -> None:
        super().__init__()
        self.model, self.rule, self.penalty = model, rule, penalty
        self.loss = loop.loss_of(task)
        layers = len(structure(model).layers)
        if rule == "share":
            raw = torch.full((layers, _BINS), 1.0 / _RETENTION_GAIN)
        else:
            raw = torch.linspace(1 / layers, 1, layers) * _FIRST_THRESHOLD / _THRESHOLD_GAIN
        self.raw = nn.Parameter(raw.to(model.device))

    def forward(self, labels: torch.Tensor, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the task's loss plus the penalty."""
        stream = forward.embed(self.model, inputs)
        penalties, weights = [], []
        for place, layer in enumerate(structure(self.model).layers):
            stream, probabilities = forward.attend(self.model, place, stream, explicit=bool(layer.heads))
            if probabilities is not None:
                received = schedules.scores(probabilities, stream.token_mask)
                kept, cost = self.kept(place, received, stream.token_mask)
                stream = replace(stream, hidden=stream.hidden * kept[..., None])
                penalties.append(cost)
                weights.append(float(place + 1) if self.rule == "share" else 1.0)
            stream = forward.feed(self.model, place, stream)
        loss = self.loss(forward.head(self.model, stream.hidden), labels)
        if penalties:
            weight = torch.tensor(weights, device=loss.device)
            loss = loss + self.penalty * (torch.stack(penalties) * weight).sum() / weight.sum()
        return {"loss": loss}

    def kept(
        self, place: int, received: torch.Tensor, alive: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how much of each token stays, [batch, length] (CLS: all), and the layer's cost."""
        cls = torch.zeros_like(received)
        cls[:, 0] = 1.0
        if self.rule == "share":
            retention = self.retention()[place]
            ranks = _ranks(received.detach(), alive)
            share = (ranks.float() + 0.5) / alive.sum(1, keepdim=True)
            kept = retention[(share * _BINS).long().clamp(max=_BINS - 1)]
            cost = retention.mean()
        else:
            kept = torch.sigmoid((received - self.thresholds()[place]) / _TEMPERATURE)
            cost = (kept * alive).sum() / alive.sum()
        return torch.maximum(kept, cls), cost

    def retention(self) -> torch.Tensor:
        """Return r in [0, 1], [layers, bins]."""
        return (self.raw * _RETENTION_GAIN).clamp(0, 1)

    def thresholds(self) -> torch.Tensor:
        """Return theta in [0, 1], [layers]."""
        return (self.raw * _THRESHOLD_GAIN).clamp(0, 1)

    def schedule(self) -> tuple[float, ...]:
        """Return the learned schedule; shares do not rise, and keep a thousandth at least."""
        if self.rule == "threshold":
            return tuple(float(value) for value in self.thresholds().detach())
        shares = self.retention().detach().mean(1).cpu().numpy()
        return tuple(float(max(share, 1e-3)) for share in np.minimum.accumulate(shares))


class Hard(nn.Module):
    """The hard stage: the model with its schedule, tokens really cut out."""

    def __init__(self, model: PreTrainedModel, task: Task) -> None:
        super().__init__()
        self.model, self.loss = model, loop.loss_of(task)

    def forward(self, labels: torch.Tensor, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the task's loss."""
        return {"loss": self.loss(reference.heads_of(self.model, inputs)[-1], labels)}


def _set(model: PreTrainedModel, rule: str, schedule: Sequence[float] | None) -> None:
    if rule == "share":
        schedules.schedule(model, shares=schedule)
    else:
        schedules.schedule(model, thresholds=schedule)


def _brought_to(
    keep: float,
    learned: tuple[float, ...],
    source: sources.ContinuedTraining,
    settings: TokenPruningSettings,
    steps: int,
) -> tuple[float, ...]:
    """Return the schedule raised to a power (shares) or scaled (thresholds) until it keeps ``keep``.

    Args:
        keep: the mean share wanted.
        learned: the soft stage's schedule.
        source: its held-out rows are counted on.
        settings: the rule; the rest is for advice.
        steps: that the soft stage took.

    Raises:
        UsageError: the soft stage learned nothing that could be scaled.
    """
    share = settings.rule == "share"
    rows = source.encode(source.held_out)

    def scaled(x: float) -> tuple[float, ...]:
        if share:
            return tuple(max(value**x, 1e-3) for value in learned)
        return tuple(min(value * x, 1.0) for value in learned)

    def kept(x: float) -> float:
        _set(source.model, settings.rule, scaled(x))
        _, _, used = evaluate.reduced(source.model, rows)
        return float((used / rows.lengths[:, None]).mean())

    low, high = 0.0, 1.0
    while kept(high) > keep:
        low, high = high, high * 2
        if high > _MOST_SCALING[settings.rule]:
            far = 1 - keep if share else 1 / float(rows.lengths.mean())
            advice = _advice(settings, steps, far)
            raise UsageError(
                f"the soft stage dropped too few tokens to keep {keep:g}: {advice}, or set a schedule.",
                settings=("keep", "schedule"),
            )
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) > keep else (low, middle)
    return scaled(high)


def _advice(settings: TokenPruningSettings, steps: int, far: float) -> str:
    """Return what lets the soft stage drop more, whose schedule had ``far`` to go.

    Adam's steps are as long as the learning rate, whatever the penalty: that turns them, no more. Warm-up
    and decay halve the rate.
    """
    gain = _RETENTION_GAIN if settings.rule == "share" else _THRESHOLD_GAIN
    lr = settings.learning_rate
    if steps * lr / 2 * gain >= far:
        return f"raise penalty, now {settings.penalty:g}"
    more = "soft_epochs" if settings.training.max_steps is None else "max_steps"
    return f"{steps} steps at learning rate {lr:g} are too few; raise {more} or lr"


def _ranks(received: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
    """Return each token's rank by score, 0 the best after CLS, which is always first."""
    ranked = received.masked_fill(~alive, -1.0)
    ranked[:, 0] = 2.0
    order = ranked.argsort(dim=1, descending=True, stable=True)
    return order.argsort(dim=1)
