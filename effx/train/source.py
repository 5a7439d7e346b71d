"""What training that goes on from a checkpoint shares: its rows, and rows held out for decisions.

Thresholds and schedules are decided on training rows that the ramps are not trained on, never on
the validation split. Best are rows that the checkpoint itself has not seen either, for on rows it
knows by heart it is surer than on new ones:

    rows that its --limit left out, or the tenth it held out for early stopping: unseen
    otherwise a tenth of the training rows: seen, and the manifest says so
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from effx import data, files, progress
from effx.artifacts import Checkpoint
from effx.data import Rows
from effx.encoding import Encoded, Encoder
from effx.errors import UsageError
from effx.models import io
from effx.tasks import Task
from effx.train import distributed, loop

_LEAST_HELD_OUT = 500


@dataclass(frozen=True)
class Settings:
    """How to train; each kind of training adds its own."""

    epochs: float = 3.0
    batch_size: int = 32
    lr: float | None = None
    """None: the default of what is trained."""
    weight_decay: float = 0.01
    warmup: float = 0.1
    seed: int = 0
    limit: int | None = None
    """Training rows at most, the same subset for every seed; None: all, or as many as the
    checkpoint was trained on."""
    precision: str = "auto"
    max_steps: int | None = None

    def loop(self, lr: float, epochs: float | None = None) -> loop.LoopSettings:
        """Return the settings of one training run."""
        return loop.LoopSettings(
            epochs=self.epochs if epochs is None else epochs,
            batch_size=self.batch_size,
            lr=self.lr or lr,
            seed=self.seed,
            precision=self.precision,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
            max_steps=self.max_steps,
        )


@dataclass(frozen=True)
class Source:
    """A checkpoint, its model and its rows."""

    checkpoint: Checkpoint
    model: PreTrainedModel
    encoder: Encoder
    rows: Rows
    """To train on."""
    held_out: Rows
    """To decide on."""
    limit: int | None
    """Of the rows that the result has seen (subsets are nested); None: all."""
    seen: bool
    """Whether the checkpoint was trained on the held-out rows."""
    validation: Rows
    data_folder: str | None

    @property
    def task(self) -> Task:
        return self.checkpoint.task

    def encode(self, rows: Rows) -> Encoded:
        """Return the rows as the checkpoint reads them."""
        return self.encoder(rows.texts)

    def batches(self) -> tuple[np.ndarray, loop.Collate]:
        """Return lengths and collate function of the training rows."""
        encoded = self.encode(self.rows)
        return encoded.lengths, loop.labelled(encoded, self.rows.labels, io.input_names(self.model))

    def score(self, logits: np.ndarray, rows: Rows) -> float:
        """Return the task's primary metric."""
        return self.task.score(rows.labels, self.task.predict(logits))[self.task.metric]

    def save(
        self,
        folder: Path,
        settings: Any,
        results: list[loop.LoopResult],
        logits: np.ndarray,
        *,
        overwrite: bool,
        **manifest: Any,
    ) -> Checkpoint:
        """Write the trained model; ``logits`` are its plain forward pass on the validation rows."""
        scores = self.task.score(self.validation.labels, self.task.predict(logits))
        return io.save(
            self.model.cpu(),
            folder,
            tokenizer=io.tokenizer(self.checkpoint.folder),
            task=self.task,
            overwrite=overwrite,
            model=str(self.checkpoint.manifest["model"]),
            seed=settings.seed,
            training={
                **asdict(settings),
                "limit": self.limit,
                "regime": self.checkpoint.manifest["training"].get("regime"),
                "stages": [asdict(result) for result in results],
                "rows": len(self.rows),
                "source": self.rows.source,
            },
            metrics={**scores, "n": len(self.validation), "source": self.validation.source},
            parent=self.checkpoint.digest,
            max_length=self.checkpoint.max_length,
            data=self.data_folder,
            **manifest,
        )


def open_source(
    checkpoint: str | Path, data_folder: str | Path | None, limit: int | None, seed: int
) -> Source:
    """Open a checkpoint and its rows.

    Raises:
        ArtifactError: the checkpoint is missing or damaged.
        DataError: its rows cannot be had.
    """
    distributed.refuse("training that goes on from a checkpoint")
    opened = Checkpoint.open(checkpoint)
    folder = str(Path(data_folder).resolve()) if data_folder else opened.data
    task = opened.task
    check_trainable(task)
    everything = data.load(task, "train", folder)
    validation = data.load(task, "validation", folder)
    before = opened.manifest["training"].get("limit")
    fit, held_out, seen = split(everything, opened.manifest["training"], limit, seed)
    if seen:
        progress.say(
            f"{opened.name}: no training rows are left that it has not seen; what is decided on "
            f"{len(held_out)} of them may be too sure of itself."
        )
    return Source(
        opened,
        io.load(opened),
        Encoder(opened.folder, opened.max_length),
        everything.take(fit),
        everything.take(held_out),
        max(before, limit or before) if before is not None else None,
        seen,
        validation,
        folder,
    )


def check_trainable(task: Task) -> None:
    """Raise :class:`UsageError` for a task that effx exports but does not train."""
    if task.kind == "answer-span":
        raise UsageError(f"task '{task.name}': question answering is exported and verified, not trained yet.")


def split(
    rows: Rows, training: dict[str, Any], limit: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return row numbers to train on, row numbers held out, and whether the latter were trained on.

    Args:
        rows: all training rows.
        training: the checkpoint's manifest entry of that name.
        limit: rows to train on at most; None: as the checkpoint.
        seed: of the draw.
    """
    known = training.get("source") == rows.source
    before = rows.subset(training.get("limit") if known else None)
    fit = rows.subset(limit if limit is not None else training.get("limit"))
    unseen = np.setdiff1d(np.arange(len(rows)), before)
    if known and not len(unseen) and training.get("held_out_rows"):
        unseen = before[held_out(len(before), int(training["seed"]))]
    pool = unseen if len(unseen) else fit
    wanted = min(max(_LEAST_HELD_OUT, len(fit) // 10), max(1, len(pool) if len(unseen) else len(pool) // 10))
    held = np.sort(np.random.default_rng((seed, 2)).permutation(pool)[:wanted])
    fit = np.setdiff1d(fit, held)
    if not len(fit):
        raise UsageError(f"{len(rows)} training rows are too few to hold some out: at least 2 are needed.")
    return fit, held, known and not len(unseen)


def held_out(n: int, seed: int) -> np.ndarray:
    """Return the numbers of a tenth of ``n`` rows, rising: those that fine-tuning stops early on.

    Raises:
        UsageError: there are too few rows.
    """
    cut = max(1, n // 10)
    if cut >= n:
        raise UsageError("early stopping holds rows out: at least 2 training rows are needed.")
    return np.sort(np.random.default_rng((seed, 1)).permutation(n)[:cut])


def place(out: str | Path, name: str, overwrite: bool) -> Path:
    """Return where a checkpoint goes.

    Raises:
        UsageError: the name is none, there is one already, or nothing can be written there.
    """
    if Path(name).name != name or name == "..":
        raise UsageError(f"--name '{name}': a plain name is needed, without folders; -o says where it goes.")
    folder = Path(out) / name
    if folder.exists() and not overwrite:
        raise UsageError(f"{folder} exists already. Choose another --name, or pass --overwrite.")
    if folder.exists() and not Checkpoint.is_at(folder):
        raise UsageError(f"{folder} exists already and is no checkpoint: move it, or choose another --name.")
    files.check_writable(Path(out))
    return folder
