"""Which results of a task may be compared over lengths of the inputs.

    task, encoder, host, backend, device    one
    rows, seed, baseline, techniques        as :mod:`effx.analysis.technique_runs` says
    shapes                                  of the grid, timed end to end: batch sizes at which the baseline
                                            and a technique were measured at two lengths, or more

A technique that was not measured at a length is missing there: an engine with a maximum length takes no
longer inputs, and its cost at them is not known from shorter ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from effx.analysis import cohorts, objectives, technique_runs
from effx.analysis.objectives import Objective
from effx.analysis.technique_runs import MOST_TECHNIQUES, Place, TaskRuns
from effx.errors import UsageError, unknown
from effx.results import Run
from effx.specs import workloads

LEAST_LENGTHS = 2


@dataclass(frozen=True)
class Selection:
    """Results of a task that may be compared."""

    place: Place
    runs: TaskRuns
    shapes: Mapping[int, tuple[int, ...]]
    """Batch size -> lengths, rising, at which the baseline's cost was measured."""
    remarks: tuple[str, ...]


def select(runs: Sequence[Run], objective: str, tasks: Sequence[str] = ()) -> list[Selection]:
    """Return the results that may be compared, a selection for each task, encoder, host, backend and device.

    Args:
        runs: of each engine the latest is used.
        objective: the cost that is compared, one of :data:`effx.analysis.objectives.OF_WORKLOADS`.
        tasks: only these; empty: all.

    Raises:
        UsageError: a task is unknown, or no lengths may be compared: the message says why.
    """
    known = sorted({run.task for run in runs})
    for task in tasks:
        if task not in known:
            raise unknown("task", task, known)
    groups: dict[tuple[str, Place], list[Run]] = {}
    wanted = [run for run in cohorts.latest(runs) if not tasks or run.task in tasks]
    for run in wanted:
        groups.setdefault((run.task, Place.of(run)), []).append(run)
    reasons: list[str] = []
    found = [
        selection
        for (task, place), members in groups.items()
        if (selection := _selection(task, place, members, objective, reasons)) is not None
    ]
    if not found:
        apart = technique_runs.different_places(wanted) if len(groups) > 1 else []
        advice = ["measure the unreduced engine and the techniques in one session"] if apart else []
        said = "; ".join(dict.fromkeys([*reasons, *apart, *advice]))
        raise UsageError(f"no lengths can be compared: {said}.")
    return sorted(
        found, key=lambda each: (each.runs.task, -len(each.runs.engines), *vars(each.place).values())
    )


def cost_at(objective: str, batch: int, length: int) -> Objective:
    """Return the cost of a shape of the grid."""
    return objectives.at(objective, workloads.grid(batch, length))


def _selection(
    task: str, place: Place, runs: Sequence[Run], objective: str, reasons: list[str]
) -> Selection | None:
    remarks: list[str] = []
    able = []
    for run in runs:
        if reason := run.withdrawn("quality"):
            reasons.append(f"{run.name}: {reason}")
            remarks.append(f"{run.name} is left out: {reason}")
        else:
            able.append(run)
    if not able:
        return None
    rows = technique_runs.titled(task, able, remarks)
    if not rows.unreduced:
        reasons.append(f"{task}: {technique_runs.without_baseline(rows, place)} on {place.host}")
        return None
    one = technique_runs.of_task(rows, rows.unreduced[0], remarks, reasons)
    if not one.engines:
        reasons.append(
            f"{task}: no other engine than {one.baseline.name} was measured with {place.backend} on "
            f"{place.host}"
        )
        return None
    if len(one.engines) > MOST_TECHNIQUES:
        raise UsageError(
            f"{task}: {len(one.engines)} techniques: at most {MOST_TECHNIQUES} can be compared; give fewer "
            "results."
        )
    shapes = _shapes(one, objective)
    if not shapes:
        reasons.append(_too_few(one, objective))
        return None
    return Selection(place, one, shapes, (*remarks, *technique_runs.sessions(one)))


def _shapes(one: TaskRuns, objective: str) -> dict[int, tuple[int, ...]]:
    """Return the batch sizes, and their lengths, at which something can be compared."""
    of_baseline = _measured(one.baseline, objective)
    of_engines = [_measured(run, objective) for run in one.engines.values()]
    return {
        batch: tuple(sorted(lengths))
        for batch, lengths in sorted(of_baseline.items())
        if any(len(lengths & theirs.get(batch, set())) >= LEAST_LENGTHS for theirs in of_engines)
    }


def _measured(run: Run, objective: str) -> dict[int, set[int]]:
    """Return the batch sizes and lengths at which a cost was measured."""
    found: dict[int, set[int]] = {}
    for batch, length in _grid(run):
        if cost_at(objective, batch, length).value(run):
            found.setdefault(batch, set()).add(length)
    return found


def _grid(run: Run) -> list[tuple[int, int]]:
    """Return the shapes that were measured end to end."""
    return sorted(
        (each.workload.batch, int(each.workload.length))
        for each in run.workloads
        if each.workload.scenario == "grid" and not each.workload.on_device
    )


def _too_few(one: TaskRuns, objective: str) -> str:
    """Return why no two lengths can be compared, and what to do."""
    shapes = _grid(one.baseline)
    for batch, length in shapes:
        cost = cost_at(objective, batch, length)
        if not cost.value(one.baseline):
            return (
                f"{one.task}, {one.baseline.name}: objective {objective}: {cost.missing(one.baseline)}; or "
                "compare another objective"
            )
    measured = ", ".join(f"{batch}x{length}" for batch, length in shapes) or "none"
    return (
        f"{one.task}: {one.baseline.name} and another engine must have two lengths of one batch size in "
        f"common; shapes of {one.baseline.name}: {measured}; profile all with a grid such as 1x32,1x128"
    )
