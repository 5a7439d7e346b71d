"""One training loop for everything that trains: the Hugging Face Trainer, set up for speed.

    rows (flat ids) -> length-grouped batches -> bf16 autocast where the processor has it
                    -> fused AdamW, linear schedule with warm-up, clipped gradients

Length grouping keeps padding out of the arithmetic; on short sentences that, with bf16, is most
of the difference to a plain padded loop.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
import transformers
from torch import nn
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from effx import files, progress
from effx.encoding import Encoded
from effx.errors import UsageError, unknown
from effx.tasks import Task
from effx.train import adamax, distributed
from effx.train.stretch import Pause, State, Stretch

_WEIGHTS, _BEST = "weights.pt", "best.pt"
_MEGABATCH = 50  # batches sorted by length together, as in transformers' own grouped sampler

Collate = Callable[[list[int]], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class LoopSettings:
    """How to optimise; see the fields of TrainingArguments of the same meaning."""

    epochs: float
    batch_size: int
    """Of each process, if several train together."""
    lr: float
    seed: int
    precision: str = "auto"
    """``auto``, ``fp32`` or ``bf16``."""
    weight_decay: float = 0.01
    warmup: float = 0.1
    """Share of all steps."""
    max_grad_norm: float = 1.0
    max_steps: int | None = None
    """Stop after this many steps."""
    patience: int | None = None
    """Stop after this many evaluations without a better score, and keep the best weights."""
    optimizer: str = "adamw"
    """One of :data:`OPTIMIZERS`."""


OPTIMIZERS = ("adamw", "adamax")


@dataclass(frozen=True)
class LoopResult:
    """What a training run took."""

    steps: int
    """From the first one of the whole run on."""
    seconds: float
    """Of this stretch of it."""
    loss: float
    """Mean over the steps."""
    precision: str


def fit(
    model: nn.Module,
    lengths: np.ndarray,
    collate: Collate,
    settings: LoopSettings,
    *,
    description: str,
    score: Callable[[], float] | None = None,
    stretch: Stretch | None = None,
) -> LoopResult:
    """Train ``model`` in place on the parameters that require a gradient.

    Args:
        model: its forward returns a ``loss``.
        lengths: tokens per row, int64 [n]; groups the batches.
        collate: row numbers -> the model's inputs, labels included.
        settings: how to optimise.
        description: for the progress display.
        score: called after every epoch if ``settings.patience`` is set; higher is better.
        stretch: the part of the run to do now; None: all of it.

    Raises:
        UsageError: bf16 was asked for and the processor does not have it, no such optimizer, or
            the training diverged.
        ArtifactError: the state that the stretch begins with is damaged.
    """
    precision = choose_precision(settings.precision)
    if settings.optimizer not in OPTIMIZERS:
        raise unknown("optimizer", settings.optimizer, OPTIMIZERS)
    steps_per_epoch = math.ceil(len(lengths) / (settings.batch_size * distributed.processes()))
    total = settings.max_steps or math.ceil(steps_per_epoch * settings.epochs)
    best = _Best(score, settings.patience, steps_per_epoch) if settings.patience and score else None
    stretch = stretch or Stretch()
    before = State.read(stretch.begin) if stretch.begin else State(0, 0.0, False)
    saved = before.checkpoint(stretch.begin) if stretch.begin else None
    if best and saved:
        best.load(saved)
    if best and before.finished:
        if stretch.begin and stretch.state:
            with files.new_folder(stretch.state, replace=True) as folder:
                shutil.copytree(stretch.begin, folder, dirs_exist_ok=True)
        best.restore(model)
        model.eval()
        return LoopResult(before.steps, 0.0, round(before.loss, 6), precision)
    keep = files.new_folder(stretch.state, replace=True) if stretch.state else None
    with keep or _scratch() as folder, _calm():
        arguments = TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=settings.epochs,
            max_steps=settings.max_steps or -1,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.lr,
            weight_decay=settings.weight_decay,
            warmup_steps=int(settings.warmup * total),
            max_grad_norm=settings.max_grad_norm,
            lr_scheduler_type="linear",
            optim="adamw_torch_fused",
            bf16=precision == "bf16",
            use_cpu=not torch.cuda.is_available(),
            seed=settings.seed,
            data_seed=settings.seed,
            save_strategy="no",
            logging_strategy="steps",
            logging_steps=max(1, total // 50),
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            logging_nan_inf_filter=False,
        )
        arguments._n_gpu = min(arguments.n_gpu, 1)  # a process has one GPU, and torchrun many processes
        shown = min(stretch.until or total, total) - before.steps
        with progress.bar(description, shown, shown=distributed.is_first()) as advance:
            callbacks: list[TrainerCallback] = [_Show(advance)]
            callbacks += [best] if best else []
            callbacks += [Pause(stretch.until)] if stretch.until else []  # the last: it saves what they did
            trainer = _GroupedTrainer(
                model=model,
                args=arguments,
                train_dataset=_Indices(len(lengths)),
                data_collator=collate,
                callbacks=callbacks,
                optimizers=(_optimizer(model, settings), None),
            )
            trainer.remove_callback(transformers.PrinterCallback)
            trainer.lengths, trainer.best = lengths, best
            output = trainer.train(resume_from_checkpoint=str(saved) if saved else None)
            # accelerate leaves its autocast on model.forward; evaluation is in fp32
            trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
            model.__dict__.pop("forward", None)  # what is left there is the class's own
        steps = int(output.global_step)
        loss = (before.loss * before.steps + trainer.loss_sum()) / steps
        if not math.isfinite(loss):
            raise UsageError(f"training diverged (loss {loss}): lower --lr, now {settings.lr:g}.")
        if keep:
            State(steps, loss, best is not None and best.finished).write(folder)
    if best:
        best.restore(model)
    model.eval()
    return LoopResult(
        steps=steps,
        seconds=round(float(output.metrics["train_runtime"]), 3),
        loss=round(loss, 6),
        precision=precision,
    )


def _optimizer(model: nn.Module, settings: LoopSettings) -> torch.optim.Optimizer | None:
    """Return the optimizer; None: the Trainer's own fused AdamW."""
    if settings.optimizer == "adamw":
        return None
    return adamax.Adamax(adamax.groups(model, settings.weight_decay), settings.lr)


def choose_precision(asked: str) -> str:
    """Return ``bf16`` or ``fp32``: what was asked for, or the fast one that this machine has."""
    fast = has_bf16()
    if asked == "auto":
        return "bf16" if fast else "fp32"
    if asked == "bf16" and not fast:
        raise UsageError("--precision bf16: this processor has no bf16 arithmetic. Use fp32.")
    return asked


def has_bf16() -> bool:
    """Whether the GPU, or else the CPU, multiplies bf16 matrices in hardware."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def to_tensors(batch: dict[str, np.ndarray], names: list[str]) -> dict[str, torch.Tensor]:
    """Return the arrays that the model takes as tensors."""
    return {name: torch.from_numpy(batch[name]) for name in names}


def labelled(encoded: Encoded, labels: np.ndarray, names: list[str]) -> Collate:
    """Return a collate function over encoded rows with one label each."""
    dtype = torch.float32 if labels.dtype.kind == "f" else torch.int64
    targets = torch.as_tensor(labels).to(dtype)

    def collate(indices: list[int]) -> dict[str, torch.Tensor]:
        return {**to_tensors(encoded.batch(indices), names), "labels": targets[indices]}

    return collate


def loss_of(task: Task) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return the loss over logits [batch, outputs] and labels [batch] that the task is trained on."""
    if task.kind == "regression":
        return lambda logits, labels: F.mse_loss(logits.squeeze(-1).float(), labels)
    return lambda logits, labels: F.cross_entropy(logits.float(), labels)


def grouped_order(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random order of rows whose consecutive batches hold rows of like length.

    Rows are shuffled, sorted by length within groups of 50 batches, and the batches shuffled
    again, so that the optimizer does not see long rows first.
    """
    order = rng.permutation(len(lengths))
    group = batch_size * _MEGABATCH
    batches: list[np.ndarray] = []
    for start in range(0, len(order), group):
        rows = order[start : start + group]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    full = [batch for batch in batches if len(batch) == batch_size]
    short = [batch for batch in batches if len(batch) < batch_size]  # at most one: it goes last
    return np.concatenate([full[i] for i in rng.permutation(len(full))] + short)


class _Indices(Dataset[int]):
    """Row numbers; the collate function fetches the rows."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> int:
        return index


class _GroupedSampler(Sampler[int]):
    """A new grouped order each epoch, the same for the same seed."""

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = lengths, batch_size, seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self._seed, self._epoch))
        self._epoch += 1
        return iter(grouped_order(self._lengths, self._batch_size, rng).tolist())


class _GroupedTrainer(Trainer):  # type: ignore[misc]
    lengths: np.ndarray
    best: _Best | None = None
    _losses: torch.Tensor | None = None

    def training_step(self, *args: Any, **options: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **options)
        here = loss.detach().float()
        self._losses = here if self._losses is None else self._losses + here
        return loss

    def loss_sum(self) -> float:
        """Return the sum of the steps' losses; the Trainer's own mean depends on its release."""
        return 0.0 if self._losses is None else float(self._losses)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return _GroupedSampler(self.lengths, self.args.train_batch_size, self.args.seed)

    # The Trainer's own two go through save_pretrained, which may rename parameters, and load what fits.

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.model.state_dict(), folder / _WEIGHTS)
        if self.best:
            self.best.save(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        weights = torch.load(Path(resume_from_checkpoint) / _WEIGHTS, map_location="cpu", weights_only=True)
        (model or self.model).load_state_dict(weights)


class _Show(TrainerCallback):  # type: ignore[misc]
    """Hands steps and the latest loss to the progress display."""

    def __init__(self, advance: progress.Advance) -> None:
        self._advance, self._note = advance, ""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._advance(1, self._note)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._note = f"loss {float(logs['loss']):.3f}"


class _Best(TrainerCallback):  # type: ignore[misc]
    """Scores after every epoch, keeps the best weights in memory, stops without progress."""

    def __init__(self, score: Callable[[], float], patience: int, steps_per_epoch: int) -> None:
        self._score, self._patience, self._steps_per_epoch = score, patience, steps_per_epoch
        self._best, self._waited = -math.inf, 0
        self._weights: dict[str, torch.Tensor] = {}

    @property
    def finished(self) -> bool:
        """Whether patience has run out."""
        return self._waited >= self._patience

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> Any:
        if state.global_step % self._steps_per_epoch and state.global_step != state.max_steps:
            return control
        training = model.training
        value = self._score()
        model.train(training)
        if value > self._best:
            self._best, self._waited = value, 0
            self._weights = {key: value.clone() for key, value in model.state_dict().items()}
        else:
            self._waited += 1
            control.should_training_stop |= self.finished
        return control

    def restore(self, model: nn.Module) -> None:
        if self._weights:  # else no epoch has ended yet
            model.load_state_dict(self._weights)

    def save(self, folder: Path) -> None:
        torch.save({"best": self._best, "waited": self._waited, "weights": self._weights}, folder / _BEST)

    def load(self, folder: Path) -> None:
        found = torch.load(folder / _BEST, map_location="cpu", weights_only=True)
        self._best, self._waited, self._weights = found["best"], found["waited"], found["weights"]


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="effx-train-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def _calm() -> Iterator[None]:
    """Keep the Trainer's remarks about tokenizers and devices off the user's screen."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            transformers.logging.set_verbosity(verbosity)
