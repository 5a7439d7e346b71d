"""Results and the rows that they are of: which slices the rows have, and what engines lose on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from effx import data, results
from effx.analysis import slices
from effx.analysis.slices import Slice, SliceReport
from effx.data import Rows, UnlabelledRows
from effx.errors import EffxError, UsageError, unknown
from effx.results import Run
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
    task = data.resolve(tasks[0], source)
    rows = _rows(task, source, runs[0])
    pairs = len(task.columns) == 2 and task.behavior.form == "texts"
    found = [
        *_of_task(task, rows, runs[0]),
        *slices.of_texts(rows.texts, _training_texts(task, source), pairs=pairs),
    ]
    for name in columns:
        if source is None:
            raise UsageError(
                f"column {name}: give the file or folder of the rows.", settings=("column", "data")
            )
        values = data.column_values(task, "validation", source, name)
        if len(values) != len(rows):
            raise UsageError(
                f"column {name} has {len(values)} values for {len(rows)} rows: give a file of the validation "
                "rows alone.", settings=("column", "data"),
            )  # fmt: skip
        found += slices.of_column(name, values)
    chosen = None if baseline is None else by_name[baseline]
    return slices.measure(runs, found, chosen), rows.texts


def _latest(runs: Sequence[Run]) -> list[Run]:
    """Return the latest result of each engine."""
    return [*{run.name: run for run in sorted(runs, key=lambda run: run.started)}.values()]


def _rows(task: Task, source: DataSource | None, run: Run) -> Rows | UnlabelledRows:
    """Return the validation rows, which have to be those of a result.

    Raises:
        UsageError: they are others.
    """
    if run.quality.reference is not None:
        rows: Rows | UnlabelledRows = data.load_to_measure(task, source)
        same = len(rows) == run.quality.n
    else:
        labelled = data.load(task, "validation", source)
        rows, same = labelled, list(task.behavior.store(labelled.labels)) == list(run.quality.labels)
    if not same:
        raise UsageError(
            f"{run.name} was scored on {run.quality.n} other rows than the {len(rows)} of "
            f"{'the hub' if source is None else source.path}: give those, in their order.", settings="data",
        )  # fmt: skip
    return rows


def _of_task(task: Task, rows: Rows | UnlabelledRows, run: Run) -> list[Slice]:
    if task.kind != "classification" or not isinstance(rows, Rows):
        return []
    return slices.of_labels(rows.labels.tolist(), task.labels)


def _training_texts(task: Task, source: DataSource | None) -> list[tuple[str, ...]]:
    try:
        return data.load(task, "train", source).texts
    except EffxError:  # there are none: which words are rare is unknown
        return []
