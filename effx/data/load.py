"""Rows of a task: read, checked against the task, and divided where there is one file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from effx import corpus, progress, records
from effx.data import hub, labels, layouts, retrieval, tables
from effx.data.columns import WORDS, Columns, choose
from effx.data.location import digest_of
from effx.data.rows import Origin, Rows, UnlabelledRows
from effx.data.split import split as divide
from effx.data.tables import MISSING, Table
from effx.errors import DataError, EffxError, UsageError, nearest, one_line
from effx.specs.data import DataLocation, DataSettings, DataSource
from effx.specs.kinds import KINDS, multi_label
from effx.specs.kinds.token_classification import EXAMPLE
from effx.specs.kinds.values import ClassNamesError, is_float, is_integer, short, texts_of
from effx.specs.tasks import MISSING_NUMBERS, NAME, NAMING, TASKS, Task, get

T = TypeVar("T")
_ASSUMED = {"split": 0.8, "encoding": "utf-8,latin-1"}
"""What is assumed for a setting that the user has to give, to see what else is missing."""
_BITS = {"0": False, "0.0": False, "False": False, "false": False,
         "1": True, "1.0": True, "True": True, "true": True}  # fmt: skip
"""Texts of a column of 0 and 1."""
_MISTYPED = 0.75  # similarity to a task of the table from which a name is taken for a typing error


Cache = dict[tuple[tuple[Path, ...], DataSettings], Table]
"""Files that were read, and how. Calls that share one read each file once."""


def load(task: Task, split: str, source: DataLocation = None, *, cache: Cache | None = None) -> Rows:
    """Return the rows of a split.

    Args:
        task: the task.
        split: ``train`` or ``validation``.
        source: file or folder; None: the hub, or the demo corpus.
        cache: files that were read before; those that are read now are added.

    Raises:
        DataError: files, columns or labels are missing or do not fit the task.
        UsageError: how rows are divided is not set.
    """
    if source is not None:
        rows = _with_all_problems(
            _source(source), lambda known: _local(task, split, known, labelled=True, cache=cache)
        )
        assert isinstance(rows, Rows)
        return rows
    if task.name == "demo":
        texts, numbers = corpus.split(split)
        return Rows([(text,) for text in texts], np.array(numbers), f"demo corpus, {split}")
    if task.hub is None:
        raise DataError(
            f"task '{task.name}' is not on the Hugging Face hub: give the folder with its files",
            settings="data",
        )
    table = hub.read(task.hub, split)
    named = DataSettings.of(
        text_column=task.hub.columns[0] if task.hub.columns else task.columns[0],
        text_pair_column=(task.hub.columns or task.columns)[1] if len(task.columns) == 2 else None,
        label_column=task.hub.label,
    )
    return _rows(task, table, choose(table.columns, table.source, named, task), named)


def load_to_measure(
    task: Task, source: DataLocation = None, split: str = "validation"
) -> Rows | UnlabelledRows:
    """Return rows that need no labels; otherwise as :func:`load`."""
    if source is None and task.hub is not None and split not in layouts.SPLITS:
        names = task.hub.columns or task.columns
        named = DataSettings.of(
            unlabelled=True,
            text_column=names[0],
            text_pair_column=names[1] if len(task.columns) == 2 else None,
        )
        table = hub.read(task.hub, split)
        return _unlabelled(task, table, choose(table.columns, table.source, named, task, labelled=False))
    if source is None:
        return load(task, split)
    return _with_all_problems(_source(source), lambda known: _local(task, split, known, labelled=False))


def resolve(name: str, source: DataLocation, *, cache: Cache | None = None) -> Task:
    """Return the task called ``name``; a task that is not in the table is inferred from its files.

    Args:
        name: of the task.
        source: file or folder; None: the task is one of the table.
        cache: see :func:`load`.

    Raises:
        UsageError: the name is unknown and there are no files, the name is close to that of a task in the
            table, or it cannot be part of a folder's name.
        DataError: the files do not describe a task.
    """
    if name in TASKS or source is None:
        return _builtin(name, source)
    _check_new_name(name)
    task = _with_all_problems(_source(source), lambda known: _infer(name, known, training=True, cache=cache))
    assert isinstance(task, Task)
    return _checked(task, source)


def resolve_to_measure(name: str, source: DataLocation) -> Task | tuple[str, ...]:
    """Return the task called ``name``, for which nothing is trained: a single file need not be divided.

    Where the rows have no labels, the names of a task's text columns are returned: the kind of the task, and
    its labels, do not follow from the rows.

    Raises:
        UsageError, DataError: as :func:`resolve`.
    """
    if name in TASKS or source is None:
        return _builtin(name, source)
    _check_new_name(name)
    task = _with_all_problems(_source(source), lambda known: _infer(name, known, training=False))
    return _checked(task, source) if isinstance(task, Task) else task


def _builtin(name: str, source: DataLocation) -> Task:
    """Return a task of the table, unless the user says that it is of another kind."""
    task, known = get(name), DataSource.of(source)
    kind = None if known is None else known.settings.task_kind
    if kind not in (None, task.kind):
        raise UsageError(
            f"the built-in task '{name}' is {task.kind}: for its rows as {kind}, choose another name, as "
            f"{name}-{kind}",
            settings="task_kind",
        )
    return task


def _checked(task: Task, source: DataLocation) -> Task:
    """Refuse names of classes that manifests cannot hold."""
    for label in task.labels:
        try:
            records.check_texts(label)
        except ValueError as error:
            raise DataError(f"{_source(source).path}: the label '{one_line(label, 60)}': {error}.") from error
    return task


def _check_new_name(name: str) -> None:
    if hint := nearest(name, TASKS, cutoff=_MISTYPED):
        raise UsageError(
            f"unknown task '{name}'.{hint} If this is a new task, choose a name that differs more."
        )
    if not NAME.fullmatch(name):
        raise UsageError(f"the task's name '{name}' becomes part of folder names: {NAMING} Choose another.")


def published_numbers(task: Task, split: str, source: DataSource) -> list[str] | None:
    """Return what the column ``index`` or ``id`` of a file of rows without labels holds; None: there is none.

    Raises:
        DataError: the file cannot be read.
    """
    table = _table_of(task, split, source, labelled=False)
    names = [column.strip().lower() for column in table.columns]
    position = next((names.index(name) for name in ("index", "id") if name in names), None)
    return None if position is None else [str(row[position]) for row in table.rows]


def column_values(task: Task, split: str, source: DataSource, name: str) -> list[str]:
    """Return the texts of a column of the file of a split, one for each line of its table.

    :attr:`effx.data.Rows.positions` are the lines of rows.

    Raises:
        DataError: the file cannot be read, or has no such column; the nearest is named.
    """
    table = _table_of(task, split, source, labelled=not source.settings.unlabelled)
    if name not in table.columns:
        known = ", ".join(table.columns)
        raise DataError(
            f"{table.source} has no column '{name}'.{nearest(name, table.columns)} Columns: {known}.",
            settings="column",
        )
    position = table.columns.index(name)
    return ["" if row[position] is MISSING else str(row[position]) for row in table.rows]


def _table_of(task: Task, split: str, source: DataSource, *, labelled: bool) -> Table:
    """Return every line of the files of a split."""
    files = layouts.files_of(source, split, task.name)
    return _table(files.paths, task.name, task, source.settings, labelled=labelled, cache=None)


def paths(task: str, split: str, source: DataLocation) -> tuple[Path, ...]:
    """Return the files that hold a split.

    Raises:
        DataError: there are none, or it is not clear which.
        UsageError: how rows are divided is not set.
    """
    return layouts.files_of(_source(source), split, task).paths


def _with_all_problems(source: DataSource, read: Callable[[DataSource], T]) -> T:
    """Return what is read; where several settings are missing, the error names all of them.

    Raises:
        DataError, UsageError: as ``read`` does.
    """
    errors: list[EffxError] = []
    known = source
    while True:
        try:
            result = read(known)
        except (DataError, UsageError) as error:
            errors.append(error)
            name = next((name for name in error.settings if name in _ASSUMED), None)
            if name is None or name in known.settings.given():
                break
            known = replace(known, settings=known.settings.replace(**{name: _ASSUMED[name]}))
        else:
            if not errors:
                return result
            break
    if len(errors) == 1:
        raise errors[0]
    text = "; ".join(str(error).removesuffix(".") for error in errors)
    raise DataError(text, settings=tuple(dict.fromkeys(name for error in errors for name in error.settings)))


def _source(value: DataLocation) -> DataSource:
    source = DataSource.of(value)
    assert source is not None
    return source


def _infer(
    name: str, source: DataSource, *, training: bool, cache: Cache | None = None
) -> Task | tuple[str, ...]:
    """Describe a user's task from its training rows: columns, kind and class names.

    With ``training`` it is a :class:`Task`; otherwise the text columns are returned of rows without labels.
    """
    if training and source.settings.unlabelled:
        raise _unlabelled_error(source)
    if (searched := _retrieval(name, source)) is not None:
        return searched
    one_file = source.settings.split is None and not Path(source.path).is_dir()
    split_files = layouts.files_of(source, "validation" if one_file and not training else "train", name)
    table = _table(split_files.paths, name, None, source.settings, labelled=training, cache=cache)
    if (recognised := _recognised(name, table, source.settings)) is not None:
        return recognised
    columns = choose(table.columns, table.source, source.settings, None, labelled=training)
    named: tuple[str, ...] = ("sentence1", "sentence2") if len(columns.texts) == 2 else ("sentence",)
    if columns.label is None:
        return ("tokens",) if _has_words(table, columns, source.settings) else named
    class_names = table.class_names.get(table.columns[columns.label])
    values = _labels(table, columns, source.settings)
    if not KINDS[source.settings.task_kind or "classification"].of_numbers:
        values = _with_names(values, class_names)
    if _has_words(table, columns, source.settings):
        return labels.infer_tags(name, _words(table, columns.texts), values, table.where, class_names)
    if source.settings.several_labels or (
        source.settings.task_kind is None and any(map(multi_label.is_list, values))
    ):
        return labels.infer_sets(name, named, values, source.settings, table.where, class_names)
    of_classes = KINDS[source.settings.task_kind or "classification"]
    if class_names is not None and source.settings.class_names is None and not of_classes.of_numbers:
        return Task(name, of_classes.name, named, class_names, of_classes.metrics)
    texts = texts_of(values, table.where)
    task = labels.infer(name, named, texts, source.settings, table.source)
    known = set(map(_plain_number, set(texts)))
    if unused := [label for label in task.labels if label.isdigit() and label not in known]:
        shown = ", ".join(unused[:10]) + (", ..." if len(unused) > 10 else "")
        if all(map(is_integer, task.labels)):
            progress.say_once(
                f"{table.source}: no row has the label {shown}, but classes are numbered from 0 to the "
                "largest label"
            )
    return task


def _plain_number(label: str) -> str:
    """Return the label of a class as classes are numbered: ``1`` for ``1.0`` and ``+1``."""
    if is_integer(label) or not is_float(label) or not float(label).is_integer():
        return label
    return str(int(float(label)))


def _retrieval(name: str, source: DataSource) -> Task | None:
    """Return the task of a folder with documents and queries; None: it is another one.

    Raises:
        DataError: the rows are to be of this kind, and are not; or of another one, and are of this.
    """
    kind, has_documents = KINDS["retrieval"], layouts.has_documents(source.path)
    wanted = source.settings.task_kind
    if not has_documents and wanted == kind.name:
        raise DataError(f"{source.path}: retrieval needs {layouts.CORPUS_LAYOUT}", settings="data")
    if has_documents and wanted not in (None, kind.name):
        raise DataError(
            f"{source.path} has documents and queries, which are rows of retrieval, not of {wanted}",
            settings="task_kind",
        )
    return Task(name, kind.name, ("query",), (), kind.metrics) if has_documents else None


def _recognised(name: str, table: Table, settings: DataSettings) -> Task | None:
    """Return the task of rows whose columns are those that a kind of task needs; None: there is none.

    The columns have the kind's names; or those that the user gives, and labels as only the kind has them.
    """
    if settings.unlabelled:
        return None
    for kind in KINDS.values():
        if (
            settings.task_kind not in (None, kind.name)
            or not kind.columns
            or kind.label_column is None
            or kind.is_label is None
        ):
            continue
        given = (settings.text_column, settings.text_pair_column) if settings.text_column else kind.columns
        label = settings.label_column or kind.label_column
        if not {*given, label} <= set(table.columns):
            continue
        named = settings.text_column is not None or settings.label_column is not None
        if not named or kind.is_label(table.rows[0][table.columns.index(label)]):
            return Task(name, kind.name, kind.columns, (), kind.metrics)
    if settings.task_kind is not None and (kind := KINDS[settings.task_kind]).columns:
        return Task(name, kind.name, kind.columns, (), kind.metrics)
    return None


def _unlabelled_error(source: DataSource) -> DataError:
    return DataError(f"{source.path}: rows without labels cannot be trained on", settings="unlabelled")


def _local(
    task: Task, split: str, source: DataSource, *, labelled: bool, cache: Cache | None = None
) -> Rows | UnlabelledRows:
    """Return the rows of a split; with ``labelled`` they are :class:`Rows`."""
    if labelled and source.settings.unlabelled:
        raise _unlabelled_error(source)
    if source.settings.task_kind not in (None, task.kind):
        raise UsageError(
            f"task '{task.name}' is {task.kind}, not {source.settings.task_kind}: leave the kind out",
            settings="task_kind",
        )
    split_files = layouts.files_of(source, split, task.name)
    of_documents = task.behavior.form == "documents"
    if of_documents is not layouts.has_documents(source.path):
        needs = (
            f"which needs {layouts.CORPUS_LAYOUT}" if of_documents else "and these are documents and queries"
        )
        raise DataError(f"{source.path}: task '{task.name}' is {task.kind}, {needs}", settings="data")
    if of_documents:
        searched = retrieval.load(split_files.paths, source.settings)
        return replace(searched, file=_file_of(split_files.paths[0], source))
    if split_files.divided and source.digest is not None and digest_of(split_files.paths) != source.digest:
        raise DataError(
            f"{split_files.paths[0]} has changed since the checkpoint was trained on a part of it: splitting "
            "it again could turn training rows into validation rows. Give a folder with a validation file",
            settings="data",
        )
    table = _table(split_files.paths, task.name, task, source.settings, labelled=labelled, cache=cache)
    named = _named(split_files.paths[0], task, source.settings)
    columns = choose(table.columns, table.source, named, task, labelled=labelled)
    file = _file_of(split_files.paths[0], source)
    if columns.label is None:
        return replace(_unlabelled(task, table, columns), file=file)
    rows = replace(_rows(task, table, columns, source.settings, labelled=labelled), file=file)
    if not split_files.divided:
        return rows
    settings = source.settings
    assert settings.split is not None
    groups = [task.behavior.group(texts) for texts in rows.texts]
    train, validation = divide(groups, rows.labels, settings.split, settings.split_seed or 0)
    return rows.take(train if split == "train" else validation)


def _file_of(path: Path, source: DataSource) -> str:
    """Return a file as artifacts and results have it: from the data folder's name on."""
    location, path = Path(source.path).expanduser().resolve(), path.resolve()
    shown = path.relative_to(location.parent) if path.is_relative_to(location) else Path(path.name)
    return shown.as_posix()


def _named(path: Path, task: Task | None, settings: DataSettings) -> DataSettings:
    """Return the settings, with the columns of GLUE's original files."""
    glue = layouts.glue_file(path, task.name) if task is not None else None
    if glue is None:
        return settings
    names = {**glue.columns, "delimiter": "tab", "quoting": "none", **settings.given()}
    if settings.unlabelled:
        names.pop("label_column", None)
    return settings.replace(**names)


def _table(
    split_files: tuple[Path, ...],
    name: str,
    task: Task | None,
    settings: DataSettings,
    *,
    labelled: bool,
    cache: Cache | None,
) -> Table:
    glue = layouts.glue_file(split_files[0], name) if task is not None else None
    named = _named(split_files[0], task, settings)
    shown = str(split_files[0])
    cache = {} if cache is None else cache
    if (split_files, named) not in cache:
        cache[split_files, named] = tables.read(
            split_files,
            named,
            lambda columns: choose(columns, shown, named, task, labelled=labelled),
            glue.ragged if glue else None,
        )
    return cache[split_files, named]


def _labels(table: Table, columns: Columns, settings: DataSettings) -> list[Any]:
    """Return the labels of rows as the file has them, in lists if it has several columns or a separator."""
    if columns.labels:
        return _label_sets(table, columns.labels, settings)
    assert columns.label is not None
    values = _values(table, columns.label)
    if (separator := settings.label_separator) is None:
        return values
    return [
        [part.strip() for part in value.split(separator) if part.strip()]
        if isinstance(value, str) and not multi_label.is_list(value)
        else value
        for value in values
    ]


def _with_names(values: list[Any], class_names: Sequence[str] | None) -> list[Any]:
    """Return labels with names for the class numbers of a file that names them, in lists too.

    There, a number is a position, also if names are numbers themselves: of "1" to "5", 0 is "1". Only such
    names are put in here; of others, the task knows the order. Numbers that the file does not name stay.
    """
    if class_names is None or not any(map(is_integer, class_names)):
        return values

    def named(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [named(entry) for entry in value]
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return class_names[value] if is_number and 0 <= value < len(class_names) else value

    return [named(value) for value in values]


def _label_sets(table: Table, indices: tuple[int, ...], settings: DataSettings) -> list[Any]:
    """Return the names of the columns in which each row has 1."""
    sets: list[list[str]] = [[] for _ in table.rows]
    for index, name in zip(indices, settings.label_columns or (), strict=True):
        for row, value in enumerate(_values(table, index)):
            if str(value).strip() not in _BITS:
                raise DataError(f"{table.where(row)}: column '{name}': expected 0 or 1, got '{value}'.")
            if _BITS[str(value).strip()]:
                sets[row].append(name)
    return sets


def _values(table: Table, index: int) -> list[Any]:
    values = [row[index] for row in table.rows]
    if any(value is MISSING for value in values):
        raise table.missing(table.columns[index], values.index(MISSING))
    return values


def _unlabelled(task: Task, table: Table, columns: Columns) -> UnlabelledRows:
    """Return a table's rows as texts, or words, of a task.

    Raises:
        DataError: a value is neither.
    """
    texts = (_words if task.behavior.of_words else _texts)(table, columns.texts)
    notes = [*_notes(table), *([] if task.behavior.of_words else _empty(texts))]
    for note in notes:
        progress.say_once(f"{table.source}: {note}")
    names = tuple(table.columns[index] for index in columns.texts)
    origin = Origin(names, None, table.format, tuple(notes))
    return UnlabelledRows(texts, table.source, origin)


def _notes(table: Table) -> list[str]:
    skipped = f"{table.skipped} rows with a wrong number of fields are left out"
    return [skipped] if table.skipped else []


def _empty(texts: Sequence[tuple[str, ...]]) -> list[str]:
    """Return how many rows have an empty text, as a note; an empty list: none has."""
    count = sum(not all(map(str.strip, row)) for row in texts)
    return [f"{count:,} of {len(texts):,} rows have an empty text"] if count else []


def _rows(
    task: Task, table: Table, columns: Columns, settings: DataSettings, *, labelled: bool = True
) -> Rows:
    """Return a table's rows as texts and labels of the task.

    Args:
        task: the task.
        table: the rows.
        columns: of the texts and the labels.
        settings: how the labels are written.
        labelled: whether rows without labels are of no use, for the message.

    Raises:
        DataError: a value does not fit the task, or no row has a label.
    """
    assert columns.label is not None
    notes = _notes(table)
    texts = (_words if task.behavior.of_words else _texts)(table, columns.texts)
    names = tuple(table.columns[index] for index in columns.texts)
    label_column = table.columns[columns.label]
    if columns.labels:
        label_column = ", ".join(table.columns[index] for index in columns.labels)
    values = _labels(table, columns, settings)
    if not columns.labels and not task.behavior.of_numbers:
        values = _with_names(values, table.class_names.get(label_column))
    if not columns.labels and all(value is None or not str(value).strip() for value in values):
        raise _no_labels(table, label_column, labelled)
    if task.behavior.check_rows is not None:
        task.behavior.check_rows(texts, values, table.where)
    kept = _with_mark_removed(task, values)
    try:
        with_label, encoded = task.behavior.encode(
            task.labels,
            [values[index] for index in kept],
            lambda row: table.where(kept[row]),
            _order_of_classes(task, settings, table, label_column),
        )
        with_label = np.asarray(kept, dtype=np.int64)[with_label]
    except ClassNamesError as error:
        raise DataError(f"{table.source}: {error}", settings="class_names") from error
    if unlabelled := len(texts) - len(with_label):
        notes.append(f"{unlabelled} rows without a label (-1 or -) are left out")
    if not len(with_label):
        raise _no_labels(table, label_column, labelled)
    of_rows = [texts[index] for index in with_label]
    notes += [] if task.behavior.of_words else _empty(of_rows)
    for note in notes:
        progress.say_once(f"{table.source}: {note}")
    origin = Origin(names, label_column, table.format, tuple(notes))
    positions: np.ndarray | None = np.asarray(with_label, dtype=np.int64)
    if task.behavior.collect is not None:  # several lines are one row
        of_rows, encoded = task.behavior.collect(of_rows, encoded, lambda row: table.where(with_label[row]))
        positions = None
    return Rows(of_rows, encoded, table.source, origin, positions=positions)


def _order_of_classes(
    task: Task, settings: DataSettings, table: Table, label_column: str
) -> tuple[str, ...] | None:
    """Return the names of the file's class numbers; None: no file, user or built-in task states them."""
    stated = table.class_names.get(label_column) or settings.class_names
    return stated or (task.labels if task.name in TASKS and task.labels else None)


def _with_mark_removed(task: Task, values: Sequence[Any]) -> list[int]:
    """Return the indices of the rows whose number does not mark a missing one, as in test rows of the hub."""
    mark = MISSING_NUMBERS.get(task.name)
    if mark is None:
        return list(range(len(values)))
    return [
        index for index, value in enumerate(values) if not is_float(str(value)) or float(str(value)) != mark
    ]


def _no_labels(table: Table, column: str, labelled: bool) -> DataError:
    text = f"{table.source}: no row has a label in column '{column}'"
    if labelled:
        return DataError(f"{text}: name the column of the label", settings="label_column")
    return DataError(
        f"{text}: name the column of the label, or, if the rows have none, set unlabelled",
        settings=("label_column", "unlabelled"),
    )


def _has_words(table: Table, columns: Columns, settings: DataSettings) -> bool:
    """Return whether the rows of a user's task are lists of words, not texts.

    Raises:
        DataError: a list is written as text.
    """
    if settings.task_kind is not None:
        return KINDS[settings.task_kind].of_words
    if len(columns.texts) != 1:
        return False
    name, first = table.columns[columns.texts[0]], table.rows[0][columns.texts[0]]
    as_text = isinstance(first, str) and multi_label.is_list(first)
    if as_text and settings.text_column is None and name.strip().casefold() in WORDS:
        raise DataError(
            f"{table.where(0)}: column '{name}' has a list that is written as text: use .jsonl, .conll or "
            f".parquet, with rows as {EXAMPLE}."
        )
    return isinstance(first, list | tuple)


def _words(table: Table, indices: tuple[int, ...]) -> list[tuple[str, ...]]:
    """Return the words of each row.

    Raises:
        DataError: a row has no list of words.
    """
    name = table.columns[indices[0]]
    rows = []
    for number, row in enumerate(table.rows):
        value = row[indices[0]]
        if value is MISSING:
            raise table.missing(name, number)
        if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
            raise DataError(
                f"{table.where(number)}: column '{name}': expected a list of words, as {EXAMPLE}, got "
                f"{short(value)}."
            )
        if not value:
            raise DataError(f"{table.where(number)}: column '{name}' has no words.")
        rows.append(tuple(value))
    return rows


def _texts(table: Table, indices: tuple[int, ...]) -> list[tuple[str, ...]]:
    names = [table.columns[index] for index in indices]
    texts = []
    for number, row in enumerate(table.rows):
        for index, name in zip(indices, names, strict=True):
            value = row[index]
            if isinstance(value, str):
                continue
            if value is MISSING:
                raise table.missing(name, number)
            raise DataError(
                f"{table.where(number)}: column '{name}': expected text, got {type(value).__name__}."
            )
        texts.append(tuple(row[index] for index in indices))
    return texts
