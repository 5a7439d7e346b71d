"""Results and the rows that they are of: which slices the rows have, and what engines lose on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from effx import data, progress, results, row_slices
from effx.analysis import slices
from effx.analysis.slices import SliceReport
from effx.data import Rows, UnlabelledRows
from effx.errors import EffxError, UsageError, unknown
from effx.results import Run
from effx.row_slices import Slice
from effx.specs.data import DataSource
from effx.specs.tasks import Task


def report(
    folders: Sequence[Path],
    source: DataSource | None,
    *,
    columns: Sequence[str] = (),
    baseline: str | None = None,
) -> tuple[SliceReport, list[tuple[str, ...]]]:
    """Return what every engine loses on every slice, and the texts of the rows.

    Args:
        folders: of results of one task; of an engine that was measured several times, the latest is taken.
        source: the rows that they are of; None: the hub, or the demo corpus.
        columns: of the rows' file, whose values are slices.
        baseline: name of the engine that the others are compared with; None: the unreduced fp32 engine.

    Raises:
        UsageError: the results are of several tasks or of other rows, or a name is unknown.
        DataError: the rows or a column cannot be read.
        ArtifactError: a result is damaged.
    """
    runs = _latest(results.find(list(folders)))
    tasks = sorted({run.task for run in runs})
    if len(tasks) > 1:
        raise UsageError(f"the results are of several tasks, {', '.join(tasks)}: give the folder of one.")
    by_name = {run.name: run for run in runs}
    if baseline is not None and baseline not in by_name:
        raise unknown("engine", baseline, [*by_name])
    task = _task(tasks[0], source)
    rows = _rows(task, source, runs[0])
    pairs = len(task.columns) == 2 and task.behavior.form == "texts"
    found = [
        *_of_task(task, rows),
        *row_slices.of_texts(rows.texts, _training_texts(task, source), pairs=pairs),
    ]
    for name in columns:
        found += _of_column(task, source, name, rows)
    chosen = None if baseline is None else by_name[baseline]
    return slices.measure(runs, found, chosen), rows.texts


def _latest(runs: Sequence[Run]) -> list[Run]:
    """Return the latest result of each engine."""
    return [*{run.name: run for run in sorted(runs, key=lambda run: run.started)}.values()]


def _task(name: str, source: DataSource | None) -> Task:
    task = data.resolve_to_measure(name, source)
    if not isinstance(task, Task):
        raise UsageError(
            f"task '{name}': without labels, the rows do not say what its classes are: give labelled rows.",
            settings="data",
        )
    return task


def _rows(task: Task, source: DataSource | None, run: Run) -> Rows | UnlabelledRows:
    """Return the validation rows, which have to be those of a result; it may be of a part, by ``--limit``.

    Raises:
        UsageError: they are others, or nothing shows that they are the same.
    """
    quality = run.quality
    rows = data.load_to_measure(task, source).limit(quality.n)
    if quality.texts_digest is not None:
        same = rows.texts_digest == quality.texts_digest
    else:
        stored = list(task.behavior.store(rows.labels)) if isinstance(rows, Rows) else None
        same = stored is not None and stored == list(quality.labels)
        progress.say(
            f"{run.name} was measured by an earlier version, which did not record the texts of its rows: "
            "that the rows are the same is known from their labels alone"
        )
    if not same:
        raise UsageError(
            f"{run.name} was scored on {quality.n} other rows than the {len(rows)} of "
            f"{'the hub' if source is None else source.path}: give those, in their order.", settings="data",
        )  # fmt: skip
    return rows


def _of_column(task: Task, source: DataSource | None, name: str, rows: Rows | UnlabelledRows) -> list[Slice]:
    """Return the slices of a column of the rows' file.

    Raises:
        UsageError: there is no file, its lines are no rows, or no value has enough rows.
        DataError: there is no such column.
    """
    if source is None:
        raise UsageError(f"column {name}: give the file or folder of the rows.", settings=("column", "data"))
    lines = data.column_values(task, "validation", source, name)
    positions = rows.positions if isinstance(rows, Rows) else np.arange(len(lines))
    if positions is None or len(positions) != len(rows):
        raise UsageError(f"column {name}: the lines of {source.path} are not single rows.", settings="column")
    found = row_slices.of_column(name, [lines[position] for position in positions])
    if not any(row_slices.is_large_enough(each, len(rows)) for each in found):
        raise UsageError(
            f"column {name}: no value has at least {row_slices.LEAST_ROWS} rows and leaves as many.",
            settings="column",
        )
    return found


def _of_task(task: Task, rows: Rows | UnlabelledRows) -> list[Slice]:
    if task.kind != "classification" or not isinstance(rows, Rows):
        return []
    return row_slices.of_labels(rows.labels.tolist(), task.labels)


def _training_texts(task: Task, source: DataSource | None) -> list[tuple[str, ...]]:
    try:
        return data.load(task, "train", source).texts
    except EffxError:  # there are none: which words are rare is unknown
        return []
