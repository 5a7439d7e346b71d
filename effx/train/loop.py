"""The training loop, used for everything that is trained: the Hugging Face Trainer, configured for speed.

    rows (flat ids) -> length-grouped batches -> bf16 autocast if the processor supports it
                    -> fused AdamW, linear schedule with warm-up, clipped gradients

With length-grouped batches, little is computed on padding. On short sentences, this and bf16 account for most
of the speed-up over a loop that pads every row to the maximum length.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from transformers import TrainerCallback, TrainingArguments

from effx import files, progress, scratch
from effx.costs import Cost, together, total
from effx.encoding import Encoded
from effx.errors import TrainingError, UsageError
from effx.host import cpu
from effx.manifests import TrainingStage
from effx.meters import running
from effx.models.losses import IGNORED
from effx.quiet import quiet
from effx.specs.kinds import answer_span
from effx.specs.training import TrainingSettings
from effx.train import adamax, distributed
from effx.train.segment import Pause, PausedState, RunSegment
from effx.train.trainer import Best, EpochOrder, Items, Objective, OrderedTrainer, Show, grouped_order

Collate = Callable[[list[Any]], dict[str, Any]]
"""Items of a batch, by default row numbers -> the model's inputs, labels included."""
OPTIMIZERS: Mapping[str, Callable[[nn.Module, float, float], torch.optim.Optimizer | None]] = {
    "adamw": lambda model, lr, weight_decay: None,
    "adamax": lambda model, lr, weight_decay: adamax.Adamax(adamax.groups(model, weight_decay), lr),
}
"""Optimizer -> its constructor: model, learning rate, weight decay. None: the Trainer's fused AdamW."""
_MAX_GRADIENT_NORM = 1.0
_LONGEST_WAIT_S = 86_400


def fit(
    model: nn.Module,
    lengths: np.ndarray,
    collate: Collate,
    settings: TrainingSettings,
    *,
    epochs: float,
    lr: float,
    description: str,
    patience: int | None = None,
    score: Callable[[], float] | None = None,
    segment: RunSegment | None = None,
    order: EpochOrder | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    objective: Objective | None = None,
) -> TrainingStage:
    """Train ``model`` in place on the parameters that require a gradient.

    Args:
        model: its forward returns a ``loss``.
        lengths: tokens per item, int64 [n]; items are rows by default.
        collate: items of a batch -> the model's inputs, labels included.
        settings: how to optimise; its ``lr`` is ignored.
        epochs: passes over the rows; ignored if ``settings.max_steps`` is set.
        lr: the peak learning rate.
        description: for the progress display.
        patience: stop after this many evaluations without a better score, and keep the best weights.
        score: called after every epoch if ``patience`` is given; higher is better.
        segment: the part of the run to do now; None: all of it.
        order: the order of the items in an epoch; None: random, with rows of similar length in a batch.
        callbacks: further callbacks of the Trainer.
        objective: the loss; None: the model's.

    Raises:
        UsageError: the precision is bf16 and the processor does not have it, or the segment continues
            training in another precision.
        TrainingError: training diverged: the loss is not finite.
        ArtifactError: the state that the segment begins with is damaged.
    """
    precision = choose_precision(settings.precision)
    steps_per_epoch = math.ceil(len(lengths) / (settings.batch_size * distributed.processes()))
    total = settings.max_steps or math.ceil(steps_per_epoch * epochs)
    opened: list[running.RunningMeter] = []  # just before the training

    def measured_score() -> float:
        assert score is not None
        with opened[-1].evaluating():
            return score()

    best = Best(measured_score, patience, steps_per_epoch) if patience and score else None
    segment = segment or RunSegment()
    before = PausedState.read(segment.begin) if segment.begin else PausedState(0, 0.0, 0.0, False)
    saved = before.checkpoint(segment.begin) if segment.begin else None
    if before.precision not in (None, precision):
        raise UsageError(
            f"training that was paused in {before.precision} cannot continue in {precision}, which this "
            "machine computes in: continue on the other machine, or in a new folder with precision "
            f"{before.precision}.",
            settings="precision",
        )
    if best and saved:
        best.load(saved)
    if best and before.finished:
        if segment.begin and segment.state:
            with files.new_folder(segment.state, replace=True) as folder:
                shutil.copytree(segment.begin, folder, dirs_exist_ok=True)
        best.restore(model)
        model.eval()
        return _stage(before, precision)
    keep = files.new_folder(segment.state, replace=True) if segment.state else None
    with keep or scratch.folder("train") as folder, quiet():
        arguments = TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=epochs,
            max_steps=settings.max_steps or -1,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=lr,
            weight_decay=settings.weight_decay,
            warmup_steps=int(settings.warmup * total),
            max_grad_norm=_MAX_GRADIENT_NORM,
            lr_scheduler_type="linear",
            optim="adamw_torch_fused",
            bf16=precision == "bf16",
            use_cpu=device() == "cpu",
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
            # True would multiply the loss by the number of processes: gradients would be summed, not averaged
            average_tokens_across_devices=False,
            # others wait while the first process evaluates and writes, for longer than the default of 30 min
            ddp_timeout=_LONGEST_WAIT_S,
        )
        arguments._n_gpu = min(arguments.n_gpu, 1)  # one GPU per process; torchrun starts several processes
        remaining_steps = min(segment.until or total, total) - before.steps
        with progress.bar(description, remaining_steps, shown=distributed.is_first()) as advance:
            used: list[TrainerCallback] = [*callbacks, Show(advance)]
            used += [best] if best else []
            # Pause is the last: the state that it saves includes what the others did
            used += [Pause(segment.until)] if segment.until else []
            trainer = OrderedTrainer(
                model=model,
                args=arguments,
                train_dataset=Items(len(lengths)),
                data_collator=collate,
                callbacks=used,
                optimizers=(OPTIMIZERS[settings.optimizer](model, lr, settings.weight_decay), None),
            )
            trainer.remove_callback(transformers.PrinterCallback)
            trainer.order = order or (lambda rng: grouped_order(lengths, settings.batch_size, rng).tolist())
            trainer.best = best
            trainer.objective = objective
            meter = running_meter()
            opened.append(meter)
            with meter:
                output = trainer.train(resume_from_checkpoint=str(saved) if saved else None)
            # accelerate replaced model.forward by one with autocast; evaluation is in fp32
            trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
            model.__dict__.pop("forward", None)  # so that the class's forward is used again
            # with this mark, accelerate would train the model's next stage in fp32, without a word
            model.__dict__.pop("_is_accelerate_prepared", None)
        steps = int(output.global_step)
        loss = (before.loss * before.steps + trainer.loss_sum()) / steps
        if not math.isfinite(loss):
            raise TrainingError(
                f"training diverged (loss {loss}): lower the learning rate, now {lr:g}.", settings="lr"
            )
        seconds = before.seconds + round(float(output.metrics["train_runtime"]), 3)
        reached = PausedState(
            steps, seconds, loss, best is not None and best.finished,
            *_costs(before, meter, trainer.sequences, shared=segment.shared), precision,
        )  # fmt: skip
        if keep:
            reached.write(folder)
    if best:
        best.restore(model)
    model.eval()
    return _stage(reached, precision)


def _stage(reached: PausedState, precision: str) -> TrainingStage:
    """Return the record of a training that got so far."""
    return TrainingStage(
        steps=reached.steps,
        seconds=reached.seconds,
        loss=round(reached.loss, 6),
        precision=precision,
        cost=reached.cost,
        evaluations=reached.evaluations,
        evaluation=reached.evaluation,
    )


def _costs(
    before: PausedState, meter: running.RunningMeter, sequences: int, *, shared: bool
) -> tuple[Cost | None, int, Cost | None]:
    """Return the cost of a training with its earlier segments, the number of evaluations, and their cost.

    ``shared``: the earlier segments belong to other trainings too, and are left out.
    """
    cost = together(distributed.gathered(meter.cost(sequences)))
    evaluation = meter.evaluation_cost()
    if evaluation is not None:
        evaluation = together(distributed.gathered(evaluation))
    if before.steps and not shared:
        parts = [part for part in (before.evaluation, evaluation) if part is not None]
        return total([before.cost, cost]), before.evaluations + meter.evaluations, total(parts)
    return cost, meter.evaluations, evaluation


def choose_precision(precision: str) -> str:
    """Return ``bf16`` or ``fp32``; for ``auto``: bf16 if this machine computes it in hardware.

    Raises:
        UsageError: ``bf16`` without such hardware.
    """
    if precision == "auto":
        return "bf16" if has_bf16() else "fp32"
    if precision == "bf16" and not has_bf16():
        raise UsageError(
            "this processor has no bf16 arithmetic: set precision to fp32.", settings="precision"
        )
    return precision


def device() -> str:
    """Return the device to train on: ``cuda`` if there is a GPU, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def hardware() -> str:
    """Return the name of what :func:`device` trains on: the GPU, or the processor."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return cpu.this_cpu().model


def running_meter() -> running.RunningMeter:
    """Return a meter for a computation on :func:`device`.

    Raises:
        UsageError: the meter that was requested cannot be read.
    """
    return running.open_running(device(), hardware=hardware(), device_peak_bytes=_device_peak(), gpu=_gpu())


def _gpu() -> str | None:
    """Return the UUID of the GPU that this process trains on, as NVML names it; None: none, or unknown."""
    if not torch.cuda.is_available():
        return None
    index = int(os.environ.get("LOCAL_RANK", "0")) if distributed.processes() > 1 else 0
    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
    return None if uuid is None else f"GPU-{str(uuid).removeprefix('GPU-')}"


def _device_peak() -> Callable[[], int] | None:
    """Begin to count the memory allocated on the GPU; return what tells the most since then, None: no GPU."""
    if not torch.cuda.is_available():
        return None
    torch.cuda.reset_peak_memory_stats()
    return lambda: int(torch.cuda.max_memory_allocated())


def has_bf16() -> bool:
    """Whether the GPU, or without one the CPU, multiplies bf16 matrices in hardware."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return cpu.has_bf16()


def to_tensors(batch: dict[str, np.ndarray], names: list[str]) -> dict[str, torch.Tensor]:
    """Return the named arrays of a batch as tensors."""
    return {name: torch.from_numpy(batch[name]) for name in names}


def items(encoded: Encoded, labels: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of what is trained on, and its lengths in tokens.

    It is rows; or, where labels belong to parts of rows, their sequences: windows or candidates.

    Args:
        encoded: rows.
        labels: of the rows.
        rows: those to train on.
    """
    if labels.dtype == object:
        sequences = encoded.sequences(rows)
        return sequences, encoded.lengths[sequences]
    return rows, encoded.row_widths[rows]


def labelled(encoded: Encoded, labels: np.ndarray, names: list[str]) -> Collate:
    """Return a collate function (row numbers -> inputs and labels) over encoded rows and their labels.

    Classes are int64, numbers and sets of labels float32, as the losses of transformers take them. The label
    of a word is that of its first token; other tokens have the label that the loss ignores. The items of
    questions are their windows, those of queries their candidates. A row of texts that are encoded apart is
    two inputs, one after the other.
    """
    if encoded.words is not None:
        return _tagged(encoded, labels, names)
    if encoded.windows is not None:
        return _spans(encoded, labels, names)
    if labels.dtype == object:
        return _scored(encoded, labels, names)
    dtype = torch.int64 if labels.dtype.kind == "i" else torch.float32
    targets = torch.as_tensor(labels).to(dtype)

    def collate(indices: list[int]) -> dict[str, torch.Tensor]:
        batch = encoded.batch(encoded.sequences(indices))
        return {**to_tensors(batch, names), "labels": targets[indices]}

    return collate


def _tagged(encoded: Encoded, labels: np.ndarray, names: list[str]) -> Collate:
    """Return a collate function over rows of words and their labels [n, words]."""
    assert encoded.words is not None
    starts = encoded.words.starts
    row = np.repeat(np.arange(len(encoded)), encoded.lengths)
    targets = np.where(starts >= 0, labels[row, np.maximum(starts, 0)], IGNORED)

    def collate(indices: list[int]) -> dict[str, torch.Tensor]:
        batch = encoded.batch(indices)
        tags = np.full(batch["input_ids"].shape, IGNORED, dtype=np.int64)
        for number, index in enumerate(indices):
            tokens = targets[encoded.offsets[index] : encoded.offsets[index + 1]]
            tags[number, : len(tokens)] = tokens
        return {**to_tensors(batch, names), "labels": torch.from_numpy(tags)}

    return collate


def _scored(encoded: Encoded, labels: np.ndarray, names: list[str]) -> Collate:
    """Return a collate function over candidates and their relevance."""
    relevance = torch.tensor(np.concatenate([np.array(row) for row in labels]), dtype=torch.float32)

    def collate(indices: list[int]) -> dict[str, torch.Tensor]:
        return {**to_tensors(encoded.batch(indices), names), "labels": relevance[indices]}

    return collate


def _spans(encoded: Encoded, answers: np.ndarray, names: list[str]) -> Collate:
    """Return a collate function over windows and the answers of their rows, named as transformers does."""
    positions = torch.from_numpy(answer_span.targets(answers, encoded))

    def collate(indices: list[int]) -> dict[str, torch.Tensor]:
        start, end = positions[indices].unbind(1)
        inputs = to_tensors(encoded.batch(indices), names)
        return {**inputs, "start_positions": start, "end_positions": end}

    return collate
