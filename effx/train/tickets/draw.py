"""One ticket: a fine-tuned model scored, its pretrained weights cut by the scores, and fine-tuned again.

Section 3 of Liang et al. 2021, "Super Tickets in Pre-Trained Language Models". A sweep draws many of
them, see ``cells``; a recipe's ``pruned`` draws one of a checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from effx import data, progress
from effx.artifacts import Checkpoint
from effx.data import Rows
from effx.encoding import Encoder
from effx.models import checkpoints, load, prune, structure
from effx.specs.levels import Level
from effx.train import importance, loop, source
from effx.train.finetune import Settings as FineTuning
from effx.train.finetune import finetune
from effx.train.tickets import plan
from effx.train.tickets.plan import Removal


@dataclass(frozen=True)
class Scoring(FineTuning):
    """How structures are scored, and what may go; how all is fine-tuned."""

    importance: str = "taylor"
    granularity: str = "ffns"
    """``ffns`` or ``neurons``: what goes beside heads."""
    min_heads: int = 1
    """Heads that every layer keeps at least."""

    @property
    def training(self) -> FineTuning:
        """How it is fine-tuned."""
        return FineTuning(**{field.name: getattr(self, field.name) for field in fields(FineTuning)})


@dataclass(frozen=True)
class Settings(Scoring):
    """Which ticket."""

    level: Level = Level(40)
    kind: str = "winning"


def draw(
    checkpoint: str | Path,
    model_name: str | Path,
    *,
    out: str | Path,
    name: str,
    data_folder: str | Path | None = None,
    settings: Settings | None = None,
    trust_remote_code: bool = False,
) -> Checkpoint:
    """Draw a ticket of a checkpoint and write ``out/name``.

    Args:
        checkpoint: fine-tuned from ``model_name``; its structures are scored on the training rows.
        model_name: the pretrained encoder, a folder or a name on the hub: the ticket's weights.
        out: where checkpoints go.
        name: the ticket's name.
        data_folder: train and validation files; default: the hub, or the embedded demo.
        settings: which ticket, and how to fine-tune it. ``layers`` and ``head_dropout`` are to be
            those of the checkpoint.
        trust_remote_code: run model code that the repository brings.

    Raises:
        UsageError: a setting, name or model is wrong, or the level keeps too few heads.
        ArtifactError: the checkpoint is damaged.
        DataError: the rows do not fit the task.
    """
    settings = settings or Settings()
    importance.check_method(settings.importance)
    opened = Checkpoint.open(checkpoint)
    source.place(out, name, False)
    task = data.resolve(opened.task.name, data_folder)
    rows = data.load(task, "train", data_folder).limit(settings.limit)
    model = load(opened)
    removal = plan.removal(
        scores(opened, model, rows, settings, settings.seed), structure(model),
        settings.level, settings.kind, min_heads=settings.min_heads,
        granularity=settings.granularity, seed=settings.seed,
    )  # fmt: skip
    return train(
        task.name, model_name, opened.digest, removal, settings,
        out=out, name=name, data_folder=data_folder, trust_remote_code=trust_remote_code,
    )  # fmt: skip


def scores(
    opened: Checkpoint,
    model: PreTrainedModel,
    rows: Rows,
    settings: Scoring,
    seed: int,
) -> importance.Importance:
    """Return the normalised scores of a checkpoint's structures.

    Args:
        opened: the fine-tuned model.
        model: the same, loaded; scored on the GPU where there is one, left as it was.
        rows: what to score it on, cut to its length.
        settings: the method, whether neurons are scored, batch size and precision.
        seed: of the batches' order and the ``random`` method.
    """
    progress.say(f"score {opened.name}: {len(rows)} rows, {settings.importance}")
    encoded = Encoder(opened.folder, opened.max_length)(rows.texts)
    batches = importance.batches_of(
        encoded, rows.labels, checkpoints.input_names(model), settings.batch_size, seed
    )
    home = model.device
    model.to(loop.device())  # as in training, which lets the Trainer move it
    found = importance.measure(
        model, batches, settings.importance, neurons=settings.granularity == "neurons",
        precision=settings.precision, seed=seed,
    )  # fmt: skip
    model.to(home)
    return found


def train(
    task_name: str,
    model_name: str | Path,
    full: str,
    removal: Removal,
    settings: Settings,
    **options: Any,
) -> Checkpoint:
    """Cut the pretrained weights and fine-tune what remains.

    Args:
        task_name: as :func:`effx.train.finetune` takes it.
        model_name: the pretrained encoder.
        full: digest of the checkpoint whose scores decided.
        removal: what goes.
        settings: how to fine-tune, and for the record which ticket it is.
        **options: others of :func:`effx.train.finetune`.
    """
    about = {
        "kind": settings.kind,
        "level": settings.level.text,
        "importance": settings.importance,
        "granularity": settings.granularity,
        "min_heads": settings.min_heads,
        "removed": removal.counts(),
    }
    return finetune(
        task_name,
        model_name,
        settings=settings.training,
        reduce=lambda model: prune(model, **removal.arguments()),
        fresh_head=True,
        record={"parent": full, "ticket": about},
        **options,
    )
