"""Which results of a task may be compared over lengths of the inputs.

    task, encoder, host, backend, device    one
    rows, seed, techniques                  as :mod:`effx.analysis.technique_runs` says
    baseline                                an unreduced fp32 engine that takes inputs of any length as they
                                            are: one that pads them would make everything depend on the length
    shapes                                  of the grid, timed end to end: batch sizes at which the baseline
                                            and a technique were measured at two lengths, or more; lengths at
                                            which the baseline alone was measured are left out

A technique that was not measured at a length is missing there: an engine with a maximum length takes no
longer inputs, and its cost at them is not known from shorter ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from effx import progress
from effx.analysis import cohorts, objectives, technique_runs
from effx.analysis.objectives import Objective
from effx.analysis.technique_runs import MOST_TECHNIQUES, Place, TaskRuns, TitledRuns
from effx.errors import UsageError, unknown
from effx.results import Run
from effx.specs import variants, workloads

LEAST_LENGTHS = 2


@dataclass(frozen=True)
class Selection:
    """Results of a task that may be compared."""

    place: Place
    runs: TaskRuns
    shapes: Mapping[int, tuple[int, ...]]
    """Batch size -> lengths, rising, at which the cost of the baseline and of a technique was measured."""
    remarks: tuple[str, ...]


def select(runs: Sequence[Run], objective: str, tasks: Sequence[str] = ()) -> list[Selection]:
    """Return the results that may be compared, a selection for each task, encoder, host, backend and device.

    Args:
        runs: of each engine the latest is used.
        objective: the cost that is compared, one of :data:`effx.analysis.objectives.OF_WORKLOADS`.
        tasks: only these; empty: all.

    Raises:
        UsageError: a task is unknown, or no lengths may be compared of any task, or of one of ``tasks``: the
            message says why.

    What else is left out is said on standard error.
    """
    known = sorted({run.task for run in runs})
    for task in tasks:
        if task not in known:
            raise unknown("task", task, known)
    groups: dict[tuple[str, Place], list[Run]] = {}
    wanted = [run for run in cohorts.latest(runs) if not tasks or run.task in tasks]
    for run in wanted:
        groups.setdefault((run.task, Place.of(run)), []).append(run)
    found: list[Selection] = []
    left: dict[tuple[str, Place], list[str]] = {}
    for (task, place), members in groups.items():
        reasons: list[str] = []
        selection = _selection(task, place, members, objective, reasons)
        if selection is None:
            left[task, place] = reasons
        else:
            found.append(selection)
    for needed in [[task] for task in tasks] if found else [known]:
        if not any(each.runs.task in needed for each in found):
            raise _nothing(needed, wanted, left)
    for (_, place), reasons in left.items():
        progress.say(f"not compared, {place}: {'; '.join(reasons)}")
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
    rows = technique_runs.titled(task, able, remarks, _may_be_baseline)
    if not rows.unreduced:
        reasons.append(f"{task}: {_without_baseline(rows, able, place)} on {place.host}")
        return None
    one = technique_runs.of_task(rows, rows.unreduced[0], remarks, reasons)
    if not one.engines:
        reasons.append(
            f"{task}: no other engine than {one.baseline.name} was measured with {place.backend} on "
            f"{place.host}"
        )
        return None
    if len(one.engines) > MOST_TECHNIQUES:
        reasons.append(
            f"{task}: {len(one.engines)} techniques: at most {MOST_TECHNIQUES} can be compared; give fewer "
            "results"
        )
        return None
    shapes = _shapes(one, objective)
    if not shapes:
        reasons.append(_too_few(one, objective))
        return None
    return Selection(place, one, shapes, (*remarks, *technique_runs.sessions(one)))


def _nothing(
    tasks: Sequence[str], wanted: Sequence[Run], left: Mapping[tuple[str, Place], Sequence[str]]
) -> UsageError:
    """Return the error that no lengths of some tasks can be compared, with the reasons."""
    reasons = [reason for (task, _), said in left.items() if task in tasks for reason in said]
    runs = [run for run in wanted if run.task in tasks]
    apart = technique_runs.different_places(runs)
    advice = ["measure the unreduced engine and the techniques in one session"] if apart else []
    said = "; ".join(dict.fromkeys([*reasons, *apart, *advice]))
    return UsageError(f"no lengths can be compared: {said}.")


def _may_be_baseline(run: Run) -> bool:
    """Whether what others cost at a length may be relative to an engine.

    One with buckets or a fixed length pads its inputs, by a share that depends on their length.
    """
    variant = variants.parse(run.engine.variant)
    return technique_runs.is_unreduced(run) and variant.length is None and not variant.buckets


def _without_baseline(rows: TitledRuns, runs: Sequence[Run], place: Place) -> str:
    """Return why there is no baseline."""
    padded = [run.name for run in runs if technique_runs.is_unreduced(run) and not _may_be_baseline(run)]
    if rows.titles or not padded:
        return technique_runs.without_baseline(rows, place)
    return (
        f"no unreduced fp32 engine takes inputs of every length as they are: {', '.join(padded)} pads them, "
        "so that all costs relative to it would depend on the length; build and profile fp32 with "
        f"{place.backend}"
    )


def _shapes(one: TaskRuns, objective: str) -> dict[int, tuple[int, ...]]:
    """Return the batch sizes, and their lengths, at which something can be compared."""
    of_baseline = _measured(one.baseline, objective)
    of_engines = [_measured(run, objective) for run in one.engines.values()]
    found: dict[int, tuple[int, ...]] = {}
    for batch, lengths in sorted(of_baseline.items()):
        common = [lengths & theirs.get(batch, set()) for theirs in of_engines]
        if any(len(each) >= LEAST_LENGTHS for each in common):
            found[batch] = tuple(sorted(set().union(*common)))
    return found


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
    lacking = {
        run.name: cost.missing(run)
        for run in (one.baseline, *one.engines.values())
        for batch, length in reversed(_grid(run))
        if not (cost := cost_at(objective, batch, length)).value(run)
    }
    if lacking:
        why = next(iter(lacking.values()))
        return (
            f"{one.task}: objective {objective} was not measured of {', '.join(lacking)}: {why}; or compare "
            "another objective"
        )
    measured = ", ".join(f"{batch}x{length}" for batch, length in shapes) or "none"
    return (
        f"{one.task}: {one.baseline.name} and another engine must have two lengths of one batch size in "
        f"common; shapes of {one.baseline.name}: {measured}; profile all with a grid such as 1x32,1x128"
    )
