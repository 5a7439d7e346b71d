"""The Hugging Face Trainer with length-grouped batches, progress display and early stopping.

Rows of a batch have similar lengths, so little is computed on padding. Early stopping keeps the best
weights in memory; when a run is paused (:mod:`effx.train.segment`), they are saved with the Trainer's state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback

from effx import progress, signals
from effx.train import distributed

_WEIGHTS, _BEST = "weights.pt", "best.pt"
_WARM_STEPS, _TIMED_STEPS = 5, 40
"""Steps after which :class:`TimeLimit` begins to time, and after which it decides."""
_MEGABATCH = 50  # batches sorted by length together, as in the grouped sampler of transformers


def grouped_order(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random order of rows in which each batch has rows of similar length.

    Rows are shuffled, sorted by length within groups of 50 batches, and the batches are shuffled
    again, so that the optimizer does not see short rows first.

    Args:
        lengths: tokens per row, int64 [n].
        batch_size: rows per batch.
        rng: random generator.
    """
    order = rng.permutation(len(lengths))
    group = batch_size * _MEGABATCH
    batches: list[np.ndarray] = []
    for start in range(0, len(order), group):
        rows = order[start : start + group]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    full = [batch for batch in batches if len(batch) == batch_size]
    short = [batch for batch in batches if len(batch) < batch_size]  # at most one; it is the last batch
    return np.concatenate([full[i] for i in rng.permutation(len(full))] + short)


Objective = Callable[[nn.Module, Mapping[str, Any]], torch.Tensor]
"""The model and a batch -> the loss, a scalar; instead of the loss that the model computes itself."""
EpochOrder = Callable[[np.random.Generator], Sequence[Any]]
"""Random generator -> the items of an epoch in their order; consecutive items are one batch."""


class Items(Dataset[Any]):
    """A data set of ``n`` items, by default row numbers 0 ... n - 1; the collate function reads the rows."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, item: Any) -> Any:
        return item


class _EpochSampler(Sampler[Any]):
    """A new order each epoch, the same for the same seed."""

    def __init__(self, order: EpochOrder, n: int, seed: int) -> None:
        self._order, self._n, self._seed = order, n, seed
        self._epoch = 0

    def __len__(self) -> int:
        return self._n

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        rng = np.random.default_rng((self._seed, self._epoch))
        self._epoch += 1
        return iter(self._order(rng))


class OrderedTrainer(Trainer):  # type: ignore[misc]
    """A Trainer with an order of its items for each epoch; it sums the loss, and saves exact weights."""

    order: EpochOrder
    best: Best | None = None
    """Early stopping, if used."""
    objective: Objective | None = None
    """None: the loss is the model's."""
    sequences: int = 0
    """Sequences that were computed, each as often as it was."""
    _losses: torch.Tensor | None = None

    def training_step(self, *args: Any, **options: Any) -> torch.Tensor:
        signals.check()
        self.sequences += _sequences(args[1] if len(args) > 1 else options["inputs"])
        loss: torch.Tensor = super().training_step(*args, **options)
        detached = loss.detach().float()
        self._losses = detached if self._losses is None else self._losses + detached
        return loss

    def compute_loss(self, model: nn.Module, inputs: Any, *args: Any, **options: Any) -> Any:
        if self.objective is None:
            return super().compute_loss(model, inputs, *args, **options)
        return self.objective(model, inputs)

    def loss_sum(self) -> float:
        """Return the sum of the steps' losses.

        The mean that the Trainer reports depends on its release. The loss of a step is the mean over all
        processes, so that they agree on whether training diverged.
        """
        return 0.0 if self._losses is None else float(distributed.mean(self._losses))

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[Any]:
        return _EpochSampler(self.order, len(self.train_dataset), self.args.seed)

    # Trainer's versions of these two use save_pretrained, which may rename parameters, and load only those
    # that fit.

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.model.state_dict(), folder / _WEIGHTS)
        if self.best:
            self.best.save(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        weights = torch.load(Path(resume_from_checkpoint) / _WEIGHTS, map_location="cpu", weights_only=True)
        (model or self.model).load_state_dict(weights)


def _sequences(inputs: Mapping[str, Any]) -> int:
    """Return the number of sequences of a batch; those of one of several tasks are in ``inputs``."""
    return len(inputs.get("inputs", inputs)["input_ids"])


class Show(TrainerCallback):  # type: ignore[misc]
    """Updates the progress display with steps and the latest loss."""

    def __init__(self, advance: progress.Advance) -> None:
        self._advance, self._note = advance, ""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._advance(1, self._note)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._note = f"loss {float(logs['loss']):.3f}"


class TimeLimit(TrainerCallback):  # type: ignore[misc]
    """Shortens a training to the steps that fit into a time, by the speed of its first steps.

    The learning rate reaches 0 at the last of them, as it would with so many steps from the beginning.
    """

    def __init__(self, limit_s: float, warmup: float) -> None:
        """Limit a training to ``limit_s`` seconds, of which the share ``warmup`` has a rising rate."""
        self._limit_s, self._warmup = limit_s, warmup
        self._begun = 0.0
        self._first: tuple[int, float] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._begun = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **_: Any) -> None:
        now = time.monotonic()
        if state.global_step == _WARM_STEPS:  # the first steps allocate memory
            self._first = state.global_step, now
        if self._first is None or state.global_step != _TIMED_STEPS:
            return
        step, then = self._first
        rate_s = max((now - then) / (state.global_step - step), 1e-9)
        steps = state.global_step + int(max(self._limit_s - (now - self._begun), 0.0) / rate_s)
        if steps >= state.max_steps:
            return
        state.max_steps = steps
        rise = max(1, int(self._warmup * steps))

        def share(at: int) -> float:
            return float(min(at / rise, max(0.0, (steps - at) / max(1, steps - rise))))

        lr_scheduler.lr_lambdas = [share] * len(lr_scheduler.lr_lambdas)


class Best(TrainerCallback):  # type: ignore[misc]
    """Early stopping: scores after every epoch and keeps the best weights in memory."""

    def __init__(self, score: Callable[[], float], patience: int, steps_per_epoch: int) -> None:
        self._score, self._patience, self._steps_per_epoch = score, patience, steps_per_epoch
        self._best, self._waited = -math.inf, 0
        self._weights: dict[str, torch.Tensor] = {}

    @property
    def finished(self) -> bool:
        """Whether ``patience`` epochs in a row brought no better score."""
        return self._waited >= self._patience

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> Any:
        if state.global_step % self._steps_per_epoch and state.global_step != state.max_steps:
            return control
        training = model.training
        value = distributed.agreed(self._score(), next(model.parameters()).device)
        model.train(training)
        if value > self._best:
            self._best, self._waited = value, 0
            self._weights = {key: value.clone() for key, value in model.state_dict().items()}
        else:
            self._waited += 1
            control.should_training_stop |= self.finished
        return control

    def restore(self, model: nn.Module) -> None:
        """Load the best weights into ``model``."""
        if self._weights:  # else no epoch has ended yet
            model.load_state_dict(self._weights)

    def save(self, folder: Path) -> None:
        """Write the best weights and the state of early stopping."""
        torch.save({"best": self._best, "waited": self._waited, "weights": self._weights}, folder / _BEST)

    def load(self, folder: Path) -> None:
        """Read what :meth:`save` wrote."""
        state = torch.load(folder / _BEST, map_location="cpu", weights_only=True)
        self._best, self._waited, self._weights = state["best"], state["waited"], state["weights"]
