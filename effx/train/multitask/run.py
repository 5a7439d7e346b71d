"""Train several tasks with one encoder, and write a checkpoint for each task.

The checkpoint of a task has the shared weights that its ticket uses, and the task's head: it is exported,
profiled and fine-tuned further as any other. Stopped training continues from the last complete epoch:

    OUT/.NAME.training/key.json    what decides the result
    OUT/.NAME.training/EPOCH/      state after an epoch (:mod:`effx.train.segment`)

Several processes (torchrun) train the same task in each step, as one process does. They save no state.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import platform
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from effx import data, files, progress, records
from effx.artifacts import Checkpoint
from effx.costs import Expense, united
from effx.data import DataSummary, Rows
from effx.encoding import Encoded, Encoder
from effx.errors import ArtifactError, UsageError
from effx.manifests import (
    CheckpointFacts,
    SharedRecord,
    TrainingRecord,
    TrainingStage,
)
from effx.models import (
    checkpoints,
    evaluate,
    families,
    heads,
    huggingface,
    pooling,
    sparse,
    structure,
    surgery,
)
from effx.specs.data import DataLocation, DataRecord
from effx.specs.heads import HeadSettings
from effx.specs.multitask import MultitaskSettings
from effx.specs.tasks import Task
from effx.specs.training import TrainingSettings
from effx.stats.metrics import mean_score
from effx.structure import Structure
from effx.train import distributed, loop, output, rows, source, understood
from effx.train.distillation import TEACHER, Distillation, Teacher
from effx.train.finetune import checked_encoder, chosen_pooling
from effx.train.multitask import batches
from effx.train.multitask.sharing import HoldOthers, SharedModel, union
from effx.train.segment import RunSegment

_KEY = "key.json"
_UNION = "union"
"""End of the name of a checkpoint with all tickets."""


@dataclass(frozen=True)
class _TaskRows:
    """The rows of one task."""

    task: Task
    every: Rows
    train: Rows
    validation: Rows
    record: DataRecord | None


@dataclass(frozen=True)
class _EncodedTask:
    """The rows of one task as the model reads them."""

    fit: np.ndarray
    """Numbers of the rows to train on."""
    held_out: np.ndarray
    """Numbers of the rows that early stopping is decided on."""
    train: Encoded
    held_out_rows: Encoded
    validation: Encoded
    summary: DataSummary


def multitask(
    task_names: Sequence[str],
    model_name: str | Path,
    *,
    out: str | Path = "checkpoints",
    name: str | None = None,
    data_folders: Mapping[str, DataLocation] | None = None,
    tickets: Sequence[str | Path] = (),
    teachers: Sequence[Distillation] = (),
    settings: MultitaskSettings | None = None,
    overwrite: bool = False,
    trust_remote_code: bool = False,
    write_union: bool = False,
    state: Path | None = None,
) -> list[Checkpoint]:
    """Train an encoder on several tasks at once and write ``out/name-TASK`` for each of them.

    Liu et al. 2019 (MT-DNN), algorithm 1; with tickets, Liang et al. 2021 ("Super Tickets in Pre-Trained
    Language Models"), algorithm 1. Every task gets a new head.

    Args:
        task_names: at least two; built-in tasks, or names of the tasks in ``data_folders``.
        model_name: the encoder: a folder as transformers saves it, a name on the hub, or a checkpoint, which
            stays reduced; weights of a sparse one that are zero remain zero.
        out: folder of the checkpoints' folders.
        name: beginning of their names; default multitask-MODEL-sSEED.
        data_folders: task -> file or folder of its rows; of other tasks: the hub, or the demo corpus.
        tickets: checkpoints, one for a task at most; the structure that remains in it is the task's ticket.
        teachers: checkpoints whose predictions are learned besides the labels, one for a task at most (Liu et
            al. 2019, "Improving Multi-Task Deep Neural Networks via Knowledge Distillation"); hidden states
            are not compared.
        settings: how to train.
        overwrite: replace checkpoints of these names.
        trust_remote_code: run model code from the model's repository.
        write_union: write ``out/name-union`` too: the encoder with the heads and FFNs of all tickets, and the
            head of the first task, to train other tasks from it. Its scores are measured with all of them.
        state: folder of the state of training that is stopped, which remains; default ``out/.name.training``,
            which is removed at the end.

    Returns:
        The checkpoints, in the order of the tasks; last, the one of the union.

    Raises:
        UsageError: a setting, name, model, ticket or teacher is wrong.
        DataError: the rows do not fit their task.
        ArtifactError: the checkpoint of a ticket or teacher is damaged.
    """
    settings = settings or MultitaskSettings()
    training, model_name = settings.training, str(model_name)
    for setting in ("task_dropout", "task_limit"):
        if others := sorted({task for task, _ in getattr(settings, setting) or ()} - set(task_names)):
            word = setting.removeprefix("task_")
            raise UsageError(f"{word} of {others[0]}: it is not one of the tasks.", settings=setting)
    cache: data.Cache = {}
    tasks = _tasks(task_names, data_folders or {}, cache)
    huggingface.check_source(model_name)
    name = name or f"multitask-{files.safe_name(huggingface.name_of(model_name))}-s{training.seed}"
    if write_union and not tickets:
        raise UsageError(
            "a union needs tickets: without them, every task has all heads and FFNs.",
            settings=("write_union", "tickets"),
        )
    if write_union and _UNION in task_names:
        raise UsageError(
            f"task '{_UNION}': {name}-{_UNION} is the checkpoint of the union, rename the task.",
            settings="write_union",
        )
    endings = [*(task.name for task in tasks), *([_UNION] if write_union else [])]
    folders = [output.new_folder(out, f"{name}-{ending}", overwrite) for ending in endings]
    base = Checkpoint.open(model_name) if Checkpoint.is_at(model_name) else None
    encoder_name = base.manifest.model if base else huggingface.recorded_name(model_name)
    opened = _tickets(tickets, tasks, encoder_name, settings)
    taught = _teachers(teachers, tasks, encoder_name)
    everything = [
        _rows(task, (data_folders or {}).get(task.name), settings.training_of(task.name), cache)
        for task in tasks
    ]
    cache.clear()

    transformers.set_seed(training.seed)
    loaded = [
        huggingface.load(
            model_name, task, trust_remote_code=trust_remote_code, head=HeadSettings(fresh_head=True)
        )
        for task in tasks
    ]
    models, tokenizer = [each.model for each in loaded], loaded[0].tokenizer
    structures = _structures(opened, tasks, models[0], chosen_pooling(settings.head_pooling, loaded[0]))
    for task, model, each in zip(tasks, models, loaded, strict=True):
        pooling.set_pooling(model, chosen_pooling(settings.head_pooling, each))
        if distributed.is_first():
            understood.say(model_name, task, each, settings.max_length)
        if (dropout := settings.dropout_of(task.name)) is not None:
            for module in families.of(model).head_dropouts(model):
                module.p = dropout
        if structures:
            surgery.reduce_to(model, union(structures))
    encoded = _encoded(model_name, models, tokenizer, everything, settings)
    for task, model, rows_of, part in zip(tasks, models, everything, encoded, strict=True):
        if task.name in taught:
            taught[task.name].prepare(model, part.train, rows_of.train.texts)
            taught[task.name].forget_model()
    distilled = [taught[task.name].settings if task.name in taught else None for task in tasks]
    shared = SharedModel(models, tasks, structures, distilled)
    if base and base.manifest.sparsity:
        sparse.hold_zeros(models[0])  # of the shared encoder

    key = {
        "settings": settings.to_json(),
        "precision": loop.choose_precision(training.precision),  # auto may be another one elsewhere
        "model": _digest(shared),
        "config": [_config_digest(model) for model in models],
        "pooling": [structure(model).head_pooling for model in models],
        "tokens": [_tokens_digest(each) for each in encoded],
        "rows": [rows.rows_digest(each.train) for each in everything],
        "tickets": {task: ticket.digest for task, ticket in opened.items()},
        "teachers": {
            task: [teacher.checkpoint.digest, teacher.settings.to_json()] for task, teacher in taught.items()
        },
        "versions": checkpoints.versions(),
    }
    kept = state is not None  # until the caller has recorded the checkpoints
    state = state or Path(out) / f".{name}.training"
    stage = _train(shared, everything, encoded, taught, settings, state, key, name)
    if not distributed.is_first():
        distributed.wait()
        return [Checkpoint.open(folder) for folder in folders]
    written = _write(
        shared, loaded, everything, encoded, opened, taught, structures, stage, settings, folders, overwrite,
        base, encoder_name,
        [
            *(() if base is None else (base.expenses(),)),
            *(ticket.expenses() for ticket in opened.values()),
            *(teacher.expenses() for teacher in taught.values()),
        ],
    )  # fmt: skip
    if not kept:
        shutil.rmtree(state, ignore_errors=True)
    distributed.wait()
    return written


def _tasks(names: Sequence[str], folders: Mapping[str, DataLocation], cache: data.Cache) -> list[Task]:
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError(f"tasks {','.join(names)}: expected at least two different tasks.")
    if others := sorted(set(folders) - set(names)):
        raise UsageError(f"data of {others[0]}: it is not one of the tasks.", settings="data")
    tasks = [data.resolve(name, folders.get(name), cache=cache) for name in names]
    for task in tasks:
        source.check_trainable(task)
        if heads.head_type(task).per_token or task.behavior.form != "texts":
            raise UsageError(
                f"task '{task.name}' ({task.kind}): multi-task training does not support this kind of task."
            )
    return tasks


def _tickets(
    paths: Sequence[str | Path], tasks: Sequence[Task], encoder_name: str, settings: MultitaskSettings
) -> dict[str, Checkpoint]:
    """Return task -> checkpoint with its ticket.

    Raises:
        UsageError: a ticket is of another task or encoder, or was trained differently.
    """
    if paths and settings.sharing == "none":
        raise UsageError(
            "sharing none does not use tickets: leave the tickets out.", settings=("sharing", "tickets")
        )
    result: dict[str, Checkpoint] = {}
    for path in paths:
        opened = Checkpoint.open(path)
        manifest, known = opened.manifest, ", ".join(task.name for task in tasks)
        if opened.task.name not in {task.name for task in tasks}:
            raise UsageError(
                f"ticket {path} is of task '{opened.task.name}', not of {known}.", settings="tickets"
            )
        if opened.task.name in result:
            raise UsageError(f"two tickets of task '{opened.task.name}': expected one.", settings="tickets")
        if manifest.model != encoder_name:
            raise UsageError(f"ticket {path} is of the encoder {manifest.model}, not of {encoder_name}.",
                             settings=("tickets", "model"))  # fmt: skip
        if manifest.structure.exits or manifest.structure.prunes_tokens:
            raise UsageError(f"ticket {path} has exits or a token schedule: expected one without.",
                             settings="tickets")  # fmt: skip
        before = manifest.training
        optimizer = before.settings.get("optimizer")
        other = before.learning_rate != settings.learning_rate or optimizer != settings.training.optimizer
        if other and not settings.mismatched:
            raise UsageError(
                f"ticket {path} was trained with {optimizer} at learning rate "
                f"{before.learning_rate or 0:g}, not {settings.training.optimizer} at "
                f"{settings.learning_rate:g}: use the same, or accept it with mismatched.",
                settings=("lr", "optimizer", "mismatched"),
            )
        result[opened.task.name] = opened
    return result


def _teachers(teachers: Sequence[Distillation], tasks: Sequence[Task], model: str) -> dict[str, Teacher]:
    """Return task -> its teacher.

    Raises:
        UsageError: a teacher is of another task, or a task has two.
    """
    result: dict[str, Teacher] = {}
    by_name = {task.name: task for task in tasks}
    for each in teachers:
        name = Checkpoint.open(each.teacher).task.name
        if name not in by_name:
            raise UsageError(
                f"the teacher {each.teacher} is of task '{name}', not of {', '.join(by_name)}.",
                settings="teacher",
            )
        if name in result:
            raise UsageError(f"two teachers of task '{name}': expected one.", settings="teacher")
        result[name] = Teacher(each.of_predictions(), by_name[name], model)
    return result


def _structures(
    opened: Mapping[str, Checkpoint], tasks: Sequence[Task], model: PreTrainedModel, head_pooling: str
) -> list[Structure] | None:
    """Return every task's structure; None: no task has a ticket.

    Raises:
        UsageError: a ticket has something that the encoder does not have.
    """
    if not opened:
        return None
    everything = structure(model)
    for ticket in opened.values():
        target = ticket.manifest.structure
        fits = target.numbers == everything.numbers and all(
            set(part.heads) <= set(whole.heads) and set(part.neuron_indices) <= set(whole.neuron_indices)
            for part, whole in zip(target.layers, everything.layers, strict=True)
        )
        if not fits:
            raise UsageError(f"ticket {ticket.folder} has other layers, heads or FFNs than the encoder.",
                             settings="tickets")  # fmt: skip
    parts = [opened[task.name].manifest.structure if task.name in opened else everything for task in tasks]
    return [replace(part, head_pooling=head_pooling) for part in parts]


def _rows(task: Task, location: DataLocation, training: TrainingSettings, cache: data.Cache) -> _TaskRows:
    every = data.load(task, "train", location, cache=cache)
    validation = data.load(task, "validation", location, cache=cache)
    train = every.take(rows.chosen(every, training))
    rows.check_classes(task, len(train), training)
    return _TaskRows(task, every, train, validation, data.recorded(task, location))


def _encoded(
    model_name: str,
    models: Sequence[PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    everything: Sequence[_TaskRows],
    settings: MultitaskSettings,
) -> list[_EncodedTask]:
    """Encode all rows, and say what they are."""
    texts = [text for each in everything for text in each.every.texts]
    encoder: Encoder = checked_encoder(
        model_name, models[0], tokenizer, settings.max_length, texts, form="texts"
    )
    result = []
    for each in everything:
        train, validation = encoder(each.train.texts), encoder(each.validation.texts)
        for split in (train, validation):
            huggingface.check_encoded(model_name, split, models[0])
        held_out = np.arange(0)
        if settings.patience:
            held_out = rows.held_out(each.train, settings.training.seed, each.task.behavior.group)
        summary = data.summarize(
            each.task, each.train, each.validation, lengths=train.lengths, max_length=encoder.max_length
        )
        if distributed.is_first():
            progress.say_once(f"task {each.task.name}", *summary.lines())
        fit = np.setdiff1d(np.arange(len(train)), held_out)
        held_out_rows = encoder(each.train.take(held_out).texts)
        result.append(_EncodedTask(fit, held_out, train, held_out_rows, validation, summary))
    return result


def _train(
    shared: SharedModel,
    everything: Sequence[_TaskRows],
    encoded: Sequence[_EncodedTask],
    taught: Mapping[str, Teacher],
    settings: MultitaskSettings,
    state: Path,
    key: Mapping[str, object],
    name: str,
) -> TrainingStage:
    """Train epoch by epoch, from the last complete epoch that is in ``state`` for the same ``key``."""
    training = settings.training
    lengths = [each.train.lengths[each.fit] for each in encoded]
    processes = distributed.processes()
    rows_per_step = training.batch_size * processes
    per_epoch = batches.count(lengths, rows_per_step)
    total = training.max_steps or math.ceil(per_epoch * settings.epochs)
    collates = [
        loop.labelled(each.train, rows_of.train.labels, checkpoints.input_names(model))
        for each, rows_of, model in zip(encoded, everything, shared.models, strict=True)
    ]
    for number, (each, part) in enumerate(zip(everything, encoded, strict=True)):
        if (teacher := taught.get(each.task.name)) is not None:
            every_row = np.ones(len(part.train), dtype=bool)
            collates[number] = teacher.collated(collates[number], part.train, every_row)

    def collate(items: list[batches.TaskBatch]) -> dict[str, Any]:
        ((number, positions, weight),) = items
        inputs = collates[number]([int(encoded[number].fit[position]) for position in positions])
        of_loss = {name: inputs.pop(name) for name in ("labels", TEACHER) if name in inputs}
        return {"task": number, "inputs": inputs, "weight": weight, **of_loss}

    def held_out_score() -> float:
        scores = [
            _scored(shared, number, each.train.take(part.held_out), part.held_out_rows, each.task)[0]
            for number, (each, part) in enumerate(zip(everything, encoded, strict=True))
        ]
        return average(scores)

    def order(rng: np.random.Generator) -> list[batches.TaskBatch]:
        return [*batches.divided(batches.order(lengths, rows_per_step, rng), processes)]

    # the state of several processes is not saved
    begin = _begun(state, key, name) if processes == 1 else None
    epoch = 0 if begin is None else int(begin.name)
    if begin is not None:
        progress.say(f"{name}: continued after epoch {epoch}")
    one_task: TrainingSettings = training.replace(batch_size=1)  # an item is a batch of one task
    while True:
        epoch += 1
        until = epoch * per_epoch if processes == 1 and epoch * per_epoch < total else None
        stage = loop.fit(
            shared,
            np.ones(per_epoch * processes, dtype=np.int64),
            collate,
            one_task,
            epochs=settings.epochs,
            lr=settings.learning_rate,
            patience=settings.patience,
            description=f"train {name}: {sum(map(len, lengths))} rows of {len(lengths)} tasks"
            + (f", epoch {epoch}" if processes == 1 else ""),
            score=held_out_score,
            segment=RunSegment(begin, until, None if until is None else state / str(epoch)),
            order=order,
            callbacks=[HoldOthers(shared)] if settings.sharing == "strict" else [],
        )
        if until is None:
            return stage
        before, begin = begin, state / str(epoch)
        if before is not None:
            shutil.rmtree(before, ignore_errors=True)


def _begun(state: Path, key: Mapping[str, object], name: str) -> Path | None:
    """Return the state after the last complete epoch of the same training; None: begin with the first."""
    recorded = None
    if (state / _KEY).is_file():
        try:
            recorded = records.read_json(state / _KEY)
        except ArtifactError:
            recorded = None
    wanted = json.loads(json.dumps(key))
    if recorded != wanted:
        if recorded is not None and any(path.name.isdecimal() for path in state.iterdir()):
            others = ", ".join(part for part in wanted if recorded.get(part) != wanted[part])
            progress.say(f"{name}: begins again, as the training that was stopped had other {others}")
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir(parents=True)
        files.write_json(state / _KEY, key)
        return None
    epochs = [path for path in state.iterdir() if path.name.isdecimal()]
    return max(epochs, key=lambda path: int(path.name), default=None)


def average(scores: Sequence[Mapping[str, float]]) -> float:
    """Return the mean over tasks of each task's score, see :func:`effx.stats.metrics.mean_score`."""
    return float(np.mean([mean_score(task) for task in scores]))


def _scored(
    shared: SharedModel,
    number: int,
    labelled: Rows,
    encoded: Encoded,
    task: Task,
    *,
    everywhere: bool = False,
) -> tuple[dict[str, float], np.ndarray]:
    """Return a task's metrics and predictions, by its head and ticket, or ``everywhere``: all tickets."""
    with nullcontext() if everywhere else shared.applied(number):
        predictions = evaluate.predictions(shared.models[number], encoded, task)
    return task.score(labelled.labels, predictions), predictions


def _write(
    shared: SharedModel,
    loaded: Sequence[huggingface.Loaded],
    everything: Sequence[_TaskRows],
    encoded: Sequence[_EncodedTask],
    opened: Mapping[str, Checkpoint],
    taught: Mapping[str, Teacher],
    structures: Sequence[Structure] | None,
    stage: TrainingStage,
    settings: MultitaskSettings,
    folders: Sequence[Path],
    overwrite: bool,
    base: Checkpoint | None,
    encoder_name: str,
    needed: Sequence[Sequence[Expense]],
) -> list[Checkpoint]:
    """Write every task's checkpoint: what its ticket uses of the shared encoder, and its head."""
    results = [
        _scored(shared, number, each.validation, part.validation, each.task)
        for number, (each, part) in enumerate(zip(everything, encoded, strict=True))
    ]
    numbers = list(range(len(everything)))
    average_score = average([metrics for metrics, _ in results])
    if len(folders) > len(numbers):  # the union's, with the head of the first task
        numbers.append(0)
        results.append(
            _scored(
                shared,
                0,
                everything[0].validation,
                encoded[0].validation,
                everything[0].task,
                everywhere=True,
            )
        )
    shared.cpu()
    record = SharedRecord(
        tasks=tuple(each.task.name for each in everything),
        average=average_score,
        encoder=_digest(shared.encoder),
        tickets={task: ticket.digest for task, ticket in opened.items()},
    )
    training, seen_elsewhere = settings.training, _seen_elsewhere(everything, encoded)
    written: list[Checkpoint] = []
    for number, folder, (metrics, predictions) in zip(numbers, folders, results, strict=True):
        each, part = everything[number], encoded[number]
        whole = len(written) == len(everything)
        model = copy.deepcopy(shared.models[number])
        if structures and not whole:
            surgery.reduce_to(model, structures[number])
        ticket, teacher = opened.get(each.task.name), taught.get(each.task.name)
        facts: CheckpointFacts = {
            "model": encoder_name,
            "seed": training.seed,
            "training": TrainingRecord(
                kind="multitask",
                settings=settings.to_json(),
                stages=(stage,),
                learning_rate=settings.learning_rate,
                limit=settings.training_of(each.task.name).limit,
                regime="full",
                rows=len(part.fit),
                held_out_rows=len(part.held_out),
                held_out_in_groups=settings.patience is not None,
                head=loaded[number].head,
                source=each.train.recorded_source,
                # unknown if the encoder is a checkpoint, which may have been trained on other rows before
                rows_digest=None if base or number in seen_elsewhere else rows.rows_digest(each.every),
                distillation=None if teacher is None else teacher.record(0),
                processes=distributed.processes(),
                host=platform.processor() or platform.machine(),
            ),
            **rows.validation_facts(each.validation, metrics, part.summary),
            "max_length": settings.max_length,
            "data": each.record,
            "shared": record.model_copy(update={"union": True}) if whole else record,
            "structure": structure(model),
            "predictions": tuple(each.task.behavior.store(predictions)),
            "expenses": united(*needed),
        }
        if base is not None:
            facts["parent"] = base.digest
            facts["layer_reductions"] = base.manifest.layer_reductions
            if base.manifest.sparsity:
                facts["sparsity"] = sparse.counted_again(base.manifest.sparsity, model)
        if ticket is not None:
            if not whole:
                facts["ticket"] = ticket.manifest.ticket
            facts["layer_reductions"] = ticket.manifest.layer_reductions
        written.append(
            checkpoints.save(
                model,
                folder,
                tokenizer=loaded[number].tokenizer,
                task=each.task,
                overwrite=overwrite,
                **facts,
            )
        )
    return written


def _seen_elsewhere(everything: Sequence[_TaskRows], encoded: Sequence[_EncodedTask]) -> set[int]:
    """Return the numbers of tasks with a row that they do not train, and whose texts another task trains."""
    trained = [each.train.take(part.fit).texts for each, part in zip(everything, encoded, strict=True)]
    result = set()
    for number, each in enumerate(everything):
        rest = {*each.every.texts} - {*trained[number]}
        others = (texts for other, texts in enumerate(trained) if other != number)
        if any(not rest.isdisjoint(texts) for texts in others):
            result.add(number)
    return result


def _config_digest(model: PreTrainedModel) -> str:
    """Return the digest of a model's config, wherever its files are."""
    config = json.loads(model.config.to_json_string(use_diff=False))
    return files.json_digest({name: value for name, value in config.items() if name != "_name_or_path"})


def _tokens_digest(encoded: _EncodedTask) -> str:
    """Return the SHA-256 of what a task's rows are to the model, and of which of them are held out."""
    digest = hashlib.sha256(f"pad {encoded.train.pad_id}".encode())
    for array in (encoded.train.ids, encoded.train.types, encoded.train.offsets, encoded.held_out):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _digest(module: torch.nn.Module) -> str:
    """Return the SHA-256 of a module's weights, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
