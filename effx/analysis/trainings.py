"""Ways of training compared over tasks and seeds, from the scores in the checkpoints' manifests.

A checkpoint's name says how it was trained: TASK-METHOD-sSEED as in recipes and ``effx train``, or
METHOD-sSEED-TASK as in ``effx train multitask``. The scores of earlier comparisons, in their trainings.json,
count like checkpoints, so that seeds can be trained at several times and on several machines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, field_validator

from effx import files, progress, records
from effx.artifacts import Checkpoint
from effx.errors import ArtifactError, UsageError, unknown
from effx.manifests import CheckpointManifest
from effx.records import Record
from effx.stats import intervals, tests
from effx.stats.metrics import mean_score
from effx.stats.runs import PairedTest, Spread, SpreadRatio, paired_test, spread_ratio

SCHEMA = 2
"""Of trainings.json; 1 had no scores of single checkpoints."""
TRAININGS = "trainings.json"


class Training(Record):
    """One checkpoint's score."""

    task: Annotated[str, Field(min_length=1)]
    method: Annotated[str, Field(min_length=1)]
    """Its name without task and seed."""
    seed: int
    score: float
    """On the validation rows, see :func:`effx.stats.metrics.mean_score`."""
    weight_remaining: Annotated[float, Field(ge=0, le=1)]
    rows: str
    """Digest of what decides its rows and scores: the task's files, how they are read, labels and metrics."""

    @field_validator("task", "method", "rows")
    @classmethod
    def _printable(cls, value: str) -> str:
        records.check_texts(value)
        return value


class _Earlier(Record):
    """What is read of the trainings.json of an earlier comparison."""

    trainings: tuple[Training, ...]


@dataclass(frozen=True)
class Difference:
    """A method against the baseline with the same seeds."""

    test: PairedTest
    interval: tuple[float, float] | None
    """95 %, Student's t over seeds; None: one seed, or the difference is the same for every seed."""
    p_adjusted: float | None
    """After Holm's adjustment over the methods; None: there is no p-value."""
    spread: SpreadRatio | None
    """Standard deviation of the baseline divided by that of the method; None: one seed."""
    spread_p_adjusted: float | None = None
    """That of the ratio, after Holm's adjustment over the methods; None: there is no p-value."""


@dataclass(frozen=True)
class MethodScores:
    """One way of training."""

    method: str
    weight_remaining: float
    """Mean over tasks and seeds."""
    tasks: dict[str, Spread]
    """Over seeds, of the tasks that it was trained on."""
    average: Spread | None
    """Over seeds, of the mean over all tasks; None: no seed has all tasks."""
    differences: dict[str, Difference]
    """Task -> against the baseline; empty for the baseline."""
    average_difference: Difference | None
    """Of the average; None for the baseline, and where no seed of both has all tasks."""


@dataclass(frozen=True)
class MethodTable:
    """Methods over tasks; the first is the baseline."""

    tasks: tuple[str, ...]
    methods: tuple[MethodScores, ...]
    trainings: tuple[Training, ...]
    """What was compared, by method, task and seed."""

    @property
    def baseline(self) -> str:
        """Name of the method that the others are compared with."""
        return self.methods[0].method


def read(sources: Sequence[Path]) -> list[Training]:
    """Return the scores of the checkpoints in some folders, and of earlier comparisons.

    Checkpoints without scores, of rows without labels, are left out, and named on standard error.

    Args:
        sources: checkpoints, folders of them, or files that :func:`effx.report.trainings.write` wrote.

    Raises:
        ArtifactError: a folder has no checkpoints, or a checkpoint or file is damaged.
        UsageError: none has scores.
    """
    earlier = [source for source in sources if source.is_file()]
    result = [training for path in earlier for training in _earlier(path)]
    folders = [source for source in sources if source not in earlier]
    for folder in Checkpoint.find_all(folders) if folders else ():
        checkpoint = Checkpoint.open(folder)
        manifest = checkpoint.manifest
        if not manifest.metrics:
            progress.say(f"{folder}: left out, it was not scored on validation rows")
            continue
        scores = {name: manifest.metrics[name] for name in checkpoint.task.metrics}
        result.append(
            Training(
                task=manifest.task,
                method=_method(folder.absolute().name, manifest),
                seed=manifest.seed,
                score=mean_score(scores),
                weight_remaining=manifest.weight_remaining,
                rows=_rows(manifest),
            )
        )
    if not result:
        raise UsageError("no checkpoint was scored on validation rows.")
    return result


def _earlier(path: Path) -> tuple[Training, ...]:
    value: dict[str, Any] = records.read_json(path)
    if value.get("schema") != SCHEMA or "trainings" not in value:
        raise ArtifactError(
            f"{path}: expected a {TRAININGS} of `effx train compare -o` with schema {SCHEMA}, which has the "
            "score of every checkpoint."
        )
    return records.build(_Earlier, {"trainings": value["trainings"]}, path).trainings


def _method(name: str, manifest: CheckpointManifest) -> str:
    """Return a checkpoint's name without its task and seeds, wherever they are a part of it."""
    task = re.escape(manifest.task)
    method = re.sub(r"-s\d+(?=-|$)", "", name)
    if manifest.training.kind == "multitask" and method.endswith(f"-{manifest.task}"):
        return method.removesuffix(f"-{manifest.task}") or name
    return re.sub(rf"(^|-){task}(?=-|$)", "", method).strip("-") or name


def _rows(manifest: CheckpointManifest) -> str:
    record = None
    if manifest.data is not None:  # the same rows in another folder are the same
        known = manifest.data.to_json()
        record = {name: known[name] for name in ("settings", "digest")}
    task = manifest.task_definition
    return files.json_digest(
        {"data": record, "rows": manifest.validation_rows, "labels": task.labels, "metrics": task.metrics}
    )


def compare(trainings: Sequence[Training], baseline: str | None = None) -> MethodTable:
    """Compare methods with a baseline, paired by seed.

    Args:
        trainings: at least two methods.
        baseline: a method; None: the one whose name is shortest.

    Raises:
        UsageError: there is nothing to compare, the baseline is unknown, two checkpoints are of the same
            method, task and seed, or the validation rows of a task differ.
    """
    found: dict[tuple[str, str, int], Training] = {}
    rows: dict[str, Training] = {}
    for training in trainings:
        key = (training.method, training.task, training.seed)
        if key in found:
            raise UsageError(
                f"two checkpoints of task '{training.task}' with seed {training.seed} are of "
                f"'{training.method}': leave one out."
            )
        found[key] = training
        first = rows.setdefault(training.task, training)
        if first.rows != training.rows:
            raise UsageError(
                f"task '{training.task}': '{first.method}' and '{training.method}' were trained or scored on "
                "different files, so they cannot be compared."
            )
    methods = sorted({training.method for training in trainings}, key=lambda name: (len(name), name))
    if len(methods) < 2:
        raise UsageError(f"only '{methods[0]}' was trained: expected at least two methods to compare.")
    if baseline is not None and baseline not in methods:
        raise unknown("baseline", baseline, methods)
    first_method = baseline or methods[0]
    tasks = tuple(sorted(rows))
    scores = {
        method: {
            task: {
                seed: training.score
                for (name, of, seed), training in sorted(found.items())
                if (name, of) == (method, task)
            }
            for task in tasks
        }
        for method in (first_method, *(name for name in methods if name != first_method))
    }
    weights = {
        method: float(
            np.mean([training.weight_remaining for training in trainings if training.method == method])
        )
        for method in scores
    }
    result = [
        _scores(method, weights[method], by_task, scores[first_method] if method != first_method else None)
        for method, by_task in scores.items()
    ]
    return MethodTable(tasks, tuple(_adjusted(result, tasks)), tuple(found[key] for key in sorted(found)))


def _scores(
    method: str,
    weight: float,
    by_task: dict[str, dict[int, float]],
    baseline: dict[str, dict[int, float]] | None,
) -> MethodScores:
    average = _averages(by_task)
    differences, of_average = {}, None
    if baseline is not None:
        for task, of_seeds in by_task.items():
            if (found := _difference(baseline[task], of_seeds)) is not None:
                differences[task] = found
        of_average = _difference(_averages(baseline), average)
    return MethodScores(
        method,
        weight,
        {task: Spread.of([*of_seeds.values()]) for task, of_seeds in by_task.items() if of_seeds},
        Spread.of([*average.values()]) if average else None,
        differences,
        of_average,
    )


def _averages(by_task: dict[str, dict[int, float]]) -> dict[int, float]:
    """Return the mean over tasks of every seed that has all of them."""
    seeds = set.intersection(*(set(of_seeds) for of_seeds in by_task.values()))
    return {seed: float(np.mean([of_seeds[seed] for of_seeds in by_task.values()])) for seed in sorted(seeds)}


def _difference(before: dict[int, float], after: dict[int, float]) -> Difference | None:
    seeds = sorted(before.keys() & after.keys())
    if not seeds:
        return None
    one, other = ([of_seeds[seed] for seed in seeds] for of_seeds in (before, after))
    test = paired_test(one, other)
    return Difference(
        test,
        None if test.p is None else intervals.mean_interval(np.subtract(other, one).tolist()),
        None,
        spread_ratio(Spread.of(one), Spread.of(other)),
    )


def _adjusted(methods: Sequence[MethodScores], tasks: Sequence[str]) -> list[MethodScores]:
    """Return the methods with adjusted p-values, over the methods: those of each task, and of the average."""
    averages = _with_adjusted([method.average_difference for method in methods])
    of_tasks = {task: _with_adjusted([method.differences.get(task) for method in methods]) for task in tasks}
    return [
        replace(
            method,
            average_difference=averages[number],
            differences={task: each for task in tasks if (each := of_tasks[task][number]) is not None},
        )
        for number, method in enumerate(methods)
    ]


def _with_adjusted(differences: Sequence[Difference | None]) -> list[Difference | None]:
    """Return the differences of several methods, with p-values after Holm's adjustment over them."""
    of_means = tests.holm_of_known([None if each is None else each.test.p for each in differences])
    of_spreads = tests.holm_of_known(
        [None if each is None or each.spread is None else each.spread.p for each in differences]
    )
    return [
        None if each is None else replace(each, p_adjusted=of_mean, spread_p_adjusted=of_spread)
        for each, of_mean, of_spread in zip(differences, of_means, of_spreads, strict=True)
    ]
