"""One ticket: a fine-tuned model scored, its pretrained weights cut by the scores, and fine-tuned again.

Section 3 of Liang et al. 2021, "Super Tickets in Pre-Trained Language Models". A sweep draws many of
them, see ``cells``; a recipe's ``pruned`` draws one of a checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from effx import data, progress
from effx.artifacts import Checkpoint
from effx.data import Rows
from effx.encoding import Encoder
from effx.models import checkpoints, load, prune, structure
from effx.specs.training import PruningSettings, TicketSettings, TrainingSettings
from effx.train import importance, loop, source
from effx.train.finetune import finetune
from effx.train.tickets import plan
from effx.train.tickets.plan import Removal


def draw(
    checkpoint: str | Path,
    model_name: str | Path,
    *,
    out: str | Path,
    name: str,
    settings: TicketSettings,
    data_folder: str | Path | None = None,
    trust_remote_code: bool = False,
) -> Checkpoint:
    """Draw a ticket of a checkpoint and write ``out/name``.

    Args:
        checkpoint: fine-tuned from ``model_name``; its structures are scored on the training rows.
        model_name: the pretrained encoder, a folder or a name on the hub: the ticket's weights.
        out: where checkpoints go.
        name: the ticket's name.
        settings: which ticket, and how to fine-tune it. ``layers`` and ``head_dropout`` are to be
            those of the checkpoint.
        data_folder: train and validation files; default: the hub, or the embedded demo.
        trust_remote_code: run model code that the repository brings.

    Raises:
        UsageError: a setting, name or model is wrong, or the level keeps too few heads.
        ArtifactError: the checkpoint is damaged.
        DataError: the rows do not fit the task.
    """
    pruning, training = settings.pruning, settings.finetune.training
    opened = Checkpoint.open(checkpoint)
    source.place(out, name, False)
    task = data.resolve(opened.task.name, data_folder)
    rows = data.load(task, "train", data_folder).limit(training.limit)
    model = load(opened)
    removal = plan.removal(
        scores(opened, model, rows, pruning, training), structure(model),
        settings.level, settings.kind, min_heads=pruning.min_heads,
        granularity=pruning.granularity, seed=training.seed,
    )  # fmt: skip
    return train(
        task.name, model_name, opened.digest, removal, settings,
        out=out, name=name, data_folder=data_folder, trust_remote_code=trust_remote_code,
    )  # fmt: skip


def scores(
    opened: Checkpoint,
    model: PreTrainedModel,
    rows: Rows,
    pruning: PruningSettings,
    training: TrainingSettings,
) -> importance.Importance:
    """Return the normalised scores of a checkpoint's structures.

    Args:
        opened: the fine-tuned model.
        model: the same, loaded; scored on the GPU where there is one, left as it was.
        rows: what to score it on, cut to its length.
        pruning: the method, and whether neurons are scored.
        training: batch size, precision, and the seed of the batches' order and the ``random`` method.
    """
    progress.say(f"score {opened.name}: {len(rows)} rows, {pruning.importance}")
    encoded = Encoder(opened.folder, opened.max_length)(rows.texts)
    batches = importance.batches_of(
        encoded, rows.labels, checkpoints.input_names(model), training.batch_size, training.seed
    )
    home = model.device
    model.to(loop.device())  # as in training, which lets the Trainer move it
    found = importance.measure(
        model, batches, pruning.importance, neurons=pruning.granularity == "neurons",
        precision=training.precision, seed=training.seed,
    )  # fmt: skip
    model.to(home)
    return found


def train(
    task_name: str,
    model_name: str | Path,
    full: str,
    removal: Removal,
    settings: TicketSettings,
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
        "importance": settings.pruning.importance,
        "granularity": settings.pruning.granularity,
        "min_heads": settings.pruning.min_heads,
        "removed": removal.counts(),
    }
    return finetune(
        task_name,
        model_name,
        settings=settings.finetune,
        reduce=lambda model: prune(model, **removal.arguments()),
        fresh_head=True,
        record={"parent": full, "ticket": about},
        **options,
    )
