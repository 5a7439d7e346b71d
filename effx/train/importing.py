"""A checkpoint from a model that was fine-tuned elsewhere: read, matched to a task, scored, not trained."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from effx import data, files, model_files, progress
from effx.artifacts import Checkpoint
from effx.data import Rows
from effx.errors import UsageError
from effx.host import state
from effx.manifests import IMPORT_READER, CheckpointFacts, ImportRecord
from effx.models import checkpoints, evaluate, huggingface, sparse
from effx.models.huggingface.folder import reading
from effx.models.huggingface.load import Loaded, Opened, OpenedCheckpoint
from effx.specs import head_labels
from effx.specs.data import DataLocation, DataSource
from effx.specs.heads import Head, OtherHeadError
from effx.specs.imports import ImportSettings
from effx.specs.kinds import KINDS
from effx.specs.tasks import NAME, TASKS, Task
from effx.train import output, understood
from effx.train.finetune import checked_encoder

_KIND = "imported"
"""What is remembered of a checkpoint on this machine: the folder that it was imported from."""


def import_model(
    name: str | Path,
    *,
    out: str | Path = "checkpoints",
    checkpoint_name: str | None = None,
    data_folder: DataLocation = None,
    settings: ImportSettings | None = None,
    overwrite: bool = False,
    trust_remote_code: bool = False,
) -> Checkpoint:
    """Make a checkpoint of a fine-tuned model, scored on the task's validation rows.

    Args:
        name: a folder as transformers saves it, a name on the Hugging Face hub, or a checkpoint of effx,
            which stays reduced, and sparse.
        out: folder of the checkpoint's folder.
        checkpoint_name: the checkpoint's name; default: TASK-MODEL.
        data_folder: file or folder of the rows; default: the hub, or the embedded demo.
        settings: the task, and what the model's config leaves open.
        overwrite: replace a checkpoint of that name.
        trust_remote_code: run model code that the repository brings.

    Raises:
        UsageError: the model cannot be read, its task head is not one for the task, or the task is unknown.
        DataError: the rows do not fit the task.
    """
    name, settings = str(name), settings or ImportSettings()
    task_name = _task_name(settings, data_folder)
    task = data.resolve_to_measure(task_name, data_folder)
    huggingface.check_source(name)
    short = files.safe_name(huggingface.name_of(name))
    folder = output.new_folder(out, checkpoint_name or f"{task_name}-{short}", overwrite)
    with reading(name):
        opened = huggingface.open_model(name, trust_remote_code=trust_remote_code)
    if isinstance(task, Task):
        inferred, task = task, _named(task, opened.head, settings)
        if task.labels != inferred.labels and head_labels.numbered(inferred.labels):
            data_folder = _numbered_by(data_folder, task.labels)
    else:
        task = _of_head(task_name, task, opened.head, settings, name)
        wanted = DataSource.of(data_folder)
        kind = None if wanted is None else wanted.settings.task_kind
        if kind not in (None, task.kind):
            raise UsageError(
                f"model {name}: the rows have no labels, and its head is for {task.kind}, not for {kind}",
                settings=("task_kind", "unlabelled"),
            )
    try:
        plan = task.behavior.match_head(opened.head, task.labels, settings.head)
    except OtherHeadError as error:
        if opened.head.kind == "embedding":
            raise UsageError(
                f"model {name}: {error}: fine-tune it on {task.name}; or, to embed texts, give pairs of "
                "texts with a score, and the kind embedding",
                settings="task_kind",
            ) from error
        raise UsageError(f"model {name}: {error}", settings=("labels", "keep_head", "task")) from error
    with reading(name):
        loaded = huggingface.build(opened, task, plan, trust_remote_code)
    most = _max_length(opened, loaded)
    if loaded.max_length is not None:
        most = min(most, loaded.max_length)
    if task.behavior.form == "windows":  # a longer context is not cut, but has another window
        most = min(most, task.behavior.max_length)
    max_length = settings.max_length or most
    understood.say(name, task, replace(loaded, head=f"{loaded.head} ({opened.head.reason})"), max_length)
    checkpoint = _scored(opened, loaded, task, folder, settings, max_length, data_folder, overwrite)
    state.remember(_KIND, checkpoint.digest, _origin(name))
    return checkpoint


def _scored(
    opened: Opened | OpenedCheckpoint,
    loaded: Loaded,
    task: Task,
    folder: Path,
    settings: ImportSettings,
    max_length: int,
    data_folder: DataLocation,
    overwrite: bool,
) -> Checkpoint:
    """Score the model on the validation rows, if these have labels, and write the checkpoint."""
    name = opened.name
    rows = data.load_to_measure(task, data_folder)
    progress.say(*data.scored(task, rows))
    encoder = checked_encoder(
        name, loaded.model, loaded.tokenizer, max_length, rows.texts, form=task.behavior.form
    )
    encoded = encoder(rows.texts, rows.documents)
    huggingface.check_encoded(name, encoded, loaded.model)
    if encoded.documents is not None:
        huggingface.check_encoded(name, encoded.documents.tokens, loaded.model)
    facts: CheckpointFacts = {
        "model": huggingface.recorded_name(name),
        "max_length": max_length,
        "data": data.recorded(task, data_folder),
        "validation_rows": len(rows),
        "validation_source": rows.recorded_source,
        "imported": ImportRecord(
            digest=digest(opened.path),
            settings=_recorded(settings),
            head=loaded.head,
            notes=tuple(loaded.notes),
            reader=IMPORT_READER,
        ),
    }
    if isinstance(rows, Rows):
        predictions = evaluate.predictions(loaded.model, encoded, task)
        facts["metrics"] = task.score(rows.labels, predictions)
    if isinstance(opened, OpenedCheckpoint):
        before = opened.checkpoint.manifest
        facts["model"], facts["parent"] = before.model, opened.checkpoint.digest
        facts["ticket"], facts["layer_reductions"] = before.ticket, before.layer_reductions
        if before.sparsity:
            facts["sparsity"] = sparse.counted_again(before.sparsity, loaded.model)
    progress.say(*data.truncation("validation rows", encoded.cut_lengths, max_length))
    if encoded.documents is not None:
        progress.say(*data.truncation("documents", encoded.documents.tokens.cut_lengths, max_length))
    return checkpoints.save(
        loaded.model.cpu(),
        folder,
        tokenizer=loaded.tokenizer,
        task=task,
        overwrite=overwrite,
        **facts,
    )


def as_checkpoint(
    name: str | Path,
    *,
    out: str | Path = "checkpoints",
    data_folder: DataLocation = None,
    settings: ImportSettings | None = None,
) -> Path:
    """Return the folder of a checkpoint: ``name`` itself, or what a model of transformers is imported to.

    A model that was imported before, with the same files, rows and settings, is not imported again; if one
    of them has changed, its checkpoint is replaced.

    Raises:
        UsageError, DataError: as :func:`import_model`.
    """
    settings = settings or ImportSettings()
    path = Path(name)
    on_hub = huggingface.is_hub_name(name) and not path.parent.is_dir()
    if on_hub and settings.task is None and data_folder is None:
        raise UsageError(
            f"{name} does not exist. Make a checkpoint with: effx train finetune TASK --model MODEL; "
            "or, if it is a model of the Hugging Face hub, name its task or its rows",
            settings=("task", "data"),
        )
    is_checkpoint = bool(Checkpoint.find(path))
    if is_checkpoint and settings.model_fields_set:
        raise UsageError(
            f"{name}: the task, labels and maximum length of a checkpoint are already known, so settings of "
            "an import cannot be used with it",
            settings=tuple(sorted(settings.model_fields_set)),
        )
    if is_checkpoint or not (huggingface.is_model(path) or on_hub):
        return path  # its reader reports a path without a checkpoint
    target = (
        Path(out) / f"{_task_name(settings, data_folder)}-{files.safe_name(huggingface.name_of(str(name)))}"
    )
    replace_import = False
    if Checkpoint.is_at(target):
        before = Checkpoint.open(target)
        imported = before.manifest.imported
        replace_import = imported is not None and state.recall(_KIND, before.digest) == _origin(name)
        files_of_model = huggingface.open_folder(str(name)).path if on_hub else path
        if (
            imported is not None
            and imported.reader == IMPORT_READER
            and imported.digest == digest(files_of_model)
            and imported.settings == _recorded(settings)
            and before.data == data.recorded(before.task, data_folder)
        ):
            progress.say(f"{target} was imported from {name} before")
            return target
        if replace_import:
            progress.say(
                f"{target} was imported from {name} before; its files, rows, settings or how effx reads "
                "it have changed"
            )
    return import_model(
        name, out=out, data_folder=data_folder, settings=settings, overwrite=replace_import
    ).folder


def _origin(name: str | Path) -> str:
    """Return what identifies a model on this machine: its folder, or its name on the hub."""
    return str(name) if huggingface.is_hub_name(name) else str(Path(name).resolve())


def _recorded(settings: ImportSettings) -> dict[str, JsonValue]:
    """Return the settings that were given, as JSON; the task has another entry in the manifest."""
    values = settings.to_json()
    return {name: values[name] for name in settings.given() if name != "task"}


def digest(folder: Path) -> str:
    """Return a SHA-256 of the names and contents of a model's files, of subfolders those that are loaded."""
    total, own = hashlib.sha256(), sorted(folder.iterdir())
    for path in [*own, *(path for path in model_files.deciding(folder) if path not in own)]:
        if path.is_file():
            total.update(f"{path.relative_to(folder)} {files.sha256(path)}\n".encode())
    return total.hexdigest()


def _task_name(settings: ImportSettings, data_folder: DataLocation) -> str:
    """Return the task's name: as given, or that of the data folder, with the kind if it is another."""
    if settings.task is not None:
        return settings.task
    source = DataSource.of(data_folder)
    if source is None:
        raise UsageError("what does the model predict? Name its task, or the folder with its rows",
                         settings=("task", "data"))  # fmt: skip
    path = Path(source.path).resolve()
    stem = path.name if path.is_dir() else path.name.partition(".")[0]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._") or "rows"
    name = name if NAME.fullmatch(name) else "rows"
    kind = source.settings.task_kind
    return f"{name}-{kind}" if kind and name in TASKS and TASKS[name].kind != kind else name


def _of_head(
    name: str, columns: tuple[str, ...], head: Head, settings: ImportSettings, model_name: str
) -> Task:
    """Return the task that a model's head is for, where the rows have no labels.

    Raises:
        UsageError: the model has no task head, or one of a kind that effx does not know.
    """
    if head.kind not in KINDS:
        raise UsageError(
            f"model {model_name}: the rows have no labels, and its head does not say what it predicts "
            f"({head.reason}): name the task, or rows with labels",
            settings=("task", "data"),
        )
    kind, outputs = KINDS[head.kind], settings.labels or head.outputs
    labels = kind.task_labels(outputs) if kind.has_classes else ()
    return Task(name, kind.name, columns, labels, kind.metrics)


def _numbered_by(data_folder: DataLocation, labels: tuple[str, ...]) -> DataLocation:
    """Return the rows with the names of their class numbers, which are those of the model's outputs."""
    source = DataSource.of(data_folder)
    return None if source is None else replace(source, settings=source.settings.replace(class_names=labels))


def _named(task: Task, head: Head, settings: ImportSettings) -> Task:
    """Return an inferred task with the names of the model's outputs, if rows have numbers or some of them.

    The rows of a small folder may lack a class that the model knows. If they have all, the task's own order
    stays, so that engines of several models have their classes in one order.

    Raises:
        UsageError: rows have numbers, and names such as "1 star" of output 0 count otherwise.
    """
    outputs = task.behavior.task_labels(settings.labels or head.outputs)
    if task.name in TASKS or not task.labels or head.kind != task.kind:
        return task
    if len(outputs) != len(head.outputs) or head_labels.numbered(outputs):
        return task
    by_number = head_labels.numbered(task.labels) and len(task.labels) <= len(outputs)
    if by_number and head_labels.count_differently(outputs):
        raise UsageError(
            f"the rows have class numbers, and the model's outputs are {', '.join(outputs[:3])}, ...: is "
            f"class 1 '{outputs[0]}', or output 1, '{outputs[1]}'? Name the outputs as the rows do, or name "
            "the classes in the order of their numbers",
            settings=("labels", "class_names"),
        )
    by_name = head_labels.covers(outputs, task.labels) and set(task.labels) < set(outputs)
    return replace(task, labels=tuple(outputs)) if by_number or by_name else task


def _max_length(opened: Opened | OpenedCheckpoint, loaded: Loaded) -> int:
    """Return how many tokens the tokenizer cuts texts to, at most as many as the model reads."""
    if isinstance(opened, OpenedCheckpoint):
        return opened.checkpoint.max_length
    limit = checkpoints.position_limit(loaded.model)
    stated = opened.folder.tokenizer_config.get("model_max_length") or loaded.tokenizer.model_max_length
    return int(min(limit, stated))
