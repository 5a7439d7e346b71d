"""One ticket: score a fine-tuned model, prune the pretrained weights by the scores, fine-tune again.

Section 3 of Liang et al. 2021, "Super Tickets in Pre-Trained Language Models". A search trains many tickets
by the scores of one model (:func:`draw_scored`); a recipe's ``pruned`` trains one of a checkpoint
(:func:`draw`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from effx import data, files, progress, scratch
from effx.artifacts import Checkpoint
from effx.costs import IMPORTANCE, Cost, Expense, united
from effx.data import Rows
from effx.encoding import Encoder
from effx.errors import UsageError
from effx.manifests import CheckpointFacts, LayerReductionRecord, RemovedCounts, TicketRecord
from effx.models import checkpoints, huggingface, load, prune, structure
from effx.models.surgery import reduce_to
from effx.specs.data import DataLocation
from effx.specs.heads import HeadSettings
from effx.specs.levels import SUPER
from effx.specs.tasks import Task
from effx.specs.tickets import PruningSettings, TicketSettings
from effx.specs.training import TrainingSettings
from effx.structure import Structure
from effx.tickets import plan
from effx.tickets import scores as score_files
from effx.tickets.plan import Removal
from effx.tickets.scores import Importance, ScoredEncoder
from effx.train import importance, loop, output
from effx.train import rows as training_rows
from effx.train.distillation import Distillation
from effx.train.finetune import finetune
from effx.train.segment import RunSegment


def draw(
    checkpoint: str | Path,
    model_name: str | Path,
    *,
    out: str | Path,
    name: str,
    settings: TicketSettings,
    data_folder: DataLocation = None,
    trust_remote_code: bool = False,
    head: HeadSettings | None = None,
    distillation: Distillation | None = None,
) -> Checkpoint:
    """Train a ticket of a checkpoint and write ``out/name``.

    With several rounds, each prunes a part of the level by the scores of the model that the round before
    fine-tuned, and starts again from the pretrained weights (iterative pruning with rewinding, Frankle and
    Carbin 2019, section 2, of structures). A checkpoint that is reduced already stays so.

    Args:
        checkpoint: fine-tuned from ``model_name``; its structures are scored on the training rows.
        model_name: the pretrained encoder, a folder or a name on the hub: the ticket's weights.
        out: folder of the checkpoint's folder.
        name: the ticket's name.
        settings: which ticket, and how to fine-tune it. ``layers``, ``drop_layers`` and ``head_dropout`` have
            to be those of the checkpoint.
        data_folder: file or folder of the rows; default: the hub, or the generated rows of the demo.
        trust_remote_code: run model code from the model's repository.
        head: whether the task head of ``model_name`` is kept or replaced, as for the checkpoint.
        distillation: a teacher that the ticket learns from; None: labels alone.

    Raises:
        UsageError: a setting, name or model is wrong, or the level leaves too few heads.
        ArtifactError: the checkpoint is damaged.
        DataError: the rows do not fit the task.
    """
    pruning, training = settings.pruning, settings.finetune.training
    if settings.level == SUPER:
        raise UsageError("level super: only a recipe with a search for tickets knows it.", settings="level")
    opened = Checkpoint.open(checkpoint)
    output.new_folder(out, name, False)
    task = data.resolve(opened.task.name, data_folder)
    rows = _rows(task, data_folder, training)
    model = load(opened)
    plan.check(structure(model), settings.level, pruning.min_heads, pruning.granularity)
    parts = plan.rounds(structure(model), settings.level, pruning.granularity, settings.rounds)
    removals: list[Removal] = []
    expenses: list[Expense] = []
    scored_model = opened
    with scratch.folder("rounds") as folder:
        for number, part in enumerate(parts, 1):
            scored, cost = scores(scored_model, model, rows, pruning, training)
            expenses += [*scored_model.expenses(), importance_of(scored_model, pruning, training, cost)]
            removals.append(
                plan.removal(
                    scored, structure(model), settings.level, settings.kind, min_heads=pruning.min_heads,
                    granularity=pruning.granularity, seed=training.seed, counts=part,
                )
            )  # fmt: skip
            prune(model, **removals[-1].arguments())
            last = number == len(parts)
            if not last:
                progress.say(f"{name}: round {number} of {len(parts)}")
            scored_model = train(
                task.name, model_name, opened.digest, removals, settings, structure(model), expenses,
                out=out if last else folder, name=name if last else str(number), data_folder=data_folder,
                trust_remote_code=trust_remote_code, head=head, distillation=distillation,
                layer_reductions=opened.manifest.layer_reductions,
            )  # fmt: skip
            if not last:
                model = load(scored_model)
    return scored_model


def draw_scored(
    task_name: str,
    model_name: str | Path,
    scores_path: Path,
    *,
    out: str | Path,
    name: str,
    settings: TicketSettings,
    data_folder: DataLocation = None,
    segment: RunSegment | None = None,
    head: HeadSettings | None = None,
    distillation: Distillation | None = None,
    source: str | None = None,
) -> Checkpoint:
    """Train a ticket by the scores in a file, and write ``out/name`` with its predictions.

    Args:
        task_name: as :func:`effx.train.finetune` takes it.
        model_name: the pretrained encoder, a folder or a name on the hub: the ticket's weights.
        scores_path: file of :func:`write_scores`.
        out: folder of the checkpoint's folder.
        name: the ticket's name.
        settings: which ticket, and how to fine-tune it.
        data_folder: file or folder of the rows; default: the hub, or the generated rows of the demo.
        segment: the part of the training run to do now; None: all of it.
        head: whether the task head of ``model_name`` is kept or replaced, as for the model that was scored.
        distillation: a teacher that the ticket learns from besides the labels; None: labels alone.
        source: where the scores are from, for the manifest; default: their task, if it is another one.

    The ticket has the layers of the model that was scored.

    Raises:
        UsageError: the level leaves too few heads.
        ArtifactError: the scores, or the state that the segment begins with, are damaged.
    """
    scored, about = score_files.read(scores_path)
    task = data.resolve(task_name, data_folder)
    model, _ = huggingface.pretrained(model_name, task, head=head)
    scored_layers = set(about["layers"])
    prune(
        model, layers=[layer.index for layer in structure(model).layers if layer.index not in scored_layers]
    )
    removal = plan.removal(
        scored, structure(model), settings.level, settings.kind, min_heads=settings.pruning.min_heads,
        granularity=settings.pruning.granularity, seed=settings.finetune.training.seed,
    )  # fmt: skip
    prune(model, **removal.arguments())
    return train(
        task.name, model_name, about["checkpoint"], [removal], settings, structure(model),
        score_files.expenses(scores_path, about), source=source or _other(about.get("task"), task.name),
        out=out, name=name, data_folder=data_folder, keep_predictions=True, segment=segment, head=head,
        distillation=distillation,
    )  # fmt: skip


def write_scores(
    checkpoint: str | Path,
    path: Path,
    *,
    data_folder: DataLocation,
    pruning: PruningSettings,
    training: TrainingSettings,
) -> None:
    """Score the structures of a fine-tuned model on the training rows and write the scores as JSON.

    Args:
        checkpoint: the fine-tuned model.
        path: of the file.
        data_folder: file or folder of the rows; default: the hub, or the generated rows of the demo.
        pruning: the method, and whether neurons are scored.
        training: as :func:`scores` takes it; its ``limit`` limits the rows.
    """
    opened = Checkpoint.open(checkpoint)
    rows = _rows(data.resolve(opened.task.name, data_folder), data_folder, training)
    model = load(opened)
    scored, cost = scores(opened, model, rows, pruning, training)
    expenses = united(opened.expenses(), [importance_of(opened, pruning, training, cost)])
    path.parent.mkdir(parents=True, exist_ok=True)
    score_files.write(
        path,
        scored,
        checkpoint=opened.digest,
        task=opened.task.name,
        method=pruning.importance,
        precision=loop.choose_precision(training.precision),
        rows=len(rows),
        layers=[layer.index for layer in structure(model).layers],
        encoder=ScoredEncoder(model=opened.manifest.model, structure=structure(model)).to_json(),
        expenses=[expense.to_json() for expense in expenses],
    )


def importance_of(
    scored: Checkpoint, pruning: PruningSettings, training: TrainingSettings, cost: Cost
) -> Expense:
    """Return the expense of scoring a checkpoint's structures."""
    settings = {
        "importance": pruning.importance, "granularity": pruning.granularity,
        "rows": [training.limit, training.share, training.seed],
    }  # fmt: skip
    return Expense(
        kind=IMPORTANCE, checkpoint=scored.digest, name=scored.name, settings=files.json_digest(settings),
        cost=cost,
    )  # fmt: skip


def _rows(task: Task, data_folder: DataLocation, training: TrainingSettings) -> Rows:
    """Return the training rows that structures are scored on: those of a fine-tuning with these settings."""
    every = data.load(task, "train", data_folder)
    return every.take(training_rows.chosen(every, training))


def scores(
    opened: Checkpoint,
    model: PreTrainedModel,
    rows: Rows,
    pruning: PruningSettings,
    training: TrainingSettings,
) -> tuple[Importance, Cost]:
    """Return the normalised scores of a checkpoint's structures, and what it cost to compute them.

    Args:
        opened: the fine-tuned model.
        model: its model; scored on the GPU if there is one, then moved back.
        rows: the rows to score it on; they are truncated to the checkpoint's maximum length.
        pruning: the method, and whether neurons are scored.
        training: batch size, precision, and the seed of the batches' order and the ``random`` method.
    """
    progress.say(f"score {opened.name}: {len(rows)} rows, {pruning.importance}")
    encoder = Encoder(opened.folder, opened.max_length, form=opened.task.behavior.form)
    encoded = encoder(rows.texts)
    batches = importance.batches_of(
        encoded, rows.labels, checkpoints.input_names(model), training.batch_size, training.seed
    )
    original_device = model.device
    model.to(loop.device())  # as in training, where the Trainer moves the model
    with loop.running_meter() as meter:
        scored = importance.measure(
            model, batches, pruning.importance, neurons=pruning.granularity == "neurons",
            precision=training.precision, seed=training.seed,
        )  # fmt: skip
    model.to(original_device)
    return scored, meter.cost(len(encoded))


def train(
    task_name: str,
    model_name: str | Path,
    full: str,
    removals: Sequence[Removal],
    settings: TicketSettings,
    remaining: Structure,
    expenses: Sequence[Expense],
    *,
    layer_reductions: tuple[LayerReductionRecord, ...] = (),
    source: str | None = None,
    **options: Any,
) -> Checkpoint:
    """Reduce the pretrained weights to a structure and fine-tune them.

    Args:
        task_name: as :func:`effx.train.finetune` takes it.
        model_name: the pretrained encoder.
        full: digest of the checkpoint whose scores decided what is pruned.
        removals: the structures that each round pruned, for the manifest.
        settings: how to fine-tune; kind, level and pruning are recorded in the manifest.
        remaining: heads, FFNs and neurons of the ticket.
        expenses: what had to be computed for the scores.
        layer_reductions: of the checkpoint that was scored, for the manifest; empty: those of the settings.
        source: where the scores are from, if not from the same task and seed; for the manifest.
        **options: further arguments of :func:`effx.train.finetune`.
    """
    ticket = TicketRecord(
        kind=settings.kind,
        level=settings.level.text,
        importance=settings.pruning.importance,
        granularity=settings.pruning.granularity,
        min_heads=settings.pruning.min_heads,
        removed=_together([removal.counts() for removal in removals]),
        rounds=len(removals),
        source=source,
    )

    def reduce(model: PreTrainedModel) -> PreTrainedModel:
        whole = structure(model)
        return reduce_to(model, replace(whole, layers=remaining.layers))

    def facts(model: PreTrainedModel) -> CheckpointFacts:
        result: CheckpointFacts = {"parent": full, "ticket": ticket}
        if layer_reductions:
            result["layer_reductions"] = layer_reductions
        return result

    return finetune(
        task_name,
        model_name,
        settings=settings.finetune,
        reduce=reduce,
        keep_layers=[layer.index for layer in remaining.layers],
        facts=facts,
        expenses=expenses,
        **options,
    )


def _other(scored_on: str | None, task: str) -> str | None:
    """Return the task that was scored, if it is another one."""
    return None if scored_on == task else scored_on


def _together(counts: Sequence[RemovedCounts]) -> RemovedCounts:
    return RemovedCounts(
        heads=sum(each.heads for each in counts),
        ffns=sum(each.ffns for each in counts),
        neurons=sum(each.neurons for each in counts),
    )
