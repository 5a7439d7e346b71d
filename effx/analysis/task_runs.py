"""Which results of several tasks may be compared technique by technique.

    encoder, host, backend, device    the same for all tasks
    threads                           the same for all, but for engines with a number of their own
    within a task                     one set of rows, one seed
    baseline                          an unreduced fp32 engine, of one kind on all tasks
    techniques                        those that every task has (:mod:`effx.analysis.technique_runs`)

Rows of different tasks are different rows. Only ratios and losses within a task are compared between tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from effx import progress
from effx.analysis import cohorts, technique_runs
from effx.analysis.technique_runs import MOST_TECHNIQUES, Place, TaskRuns, TitledRuns
from effx.errors import UsageError, unknown
from effx.results import Run


@dataclass(frozen=True)
class Selection:
    """Results of several tasks that may be compared."""

    encoder: str
    host: str
    backend: str
    device: str
    tasks: tuple[TaskRuns, ...]
    remarks: tuple[str, ...]

    @property
    def techniques(self) -> tuple[str, ...]:
        """Titles of the techniques that every task has."""
        return tuple(self.tasks[0].engines)


def select(runs: Sequence[Run], tasks: Sequence[str] = ()) -> list[Selection]:
    """Return the results that may be compared, a selection for each encoder, host, backend and device.

    Args:
        runs: of each engine the latest is used.
        tasks: only these; empty: all.

    Raises:
        UsageError: a task is unknown, or no two tasks may be compared: the message says why.
    """
    known = sorted({run.task for run in runs})
    for task in tasks:
        if task not in known:
            raise unknown("task", task, known)
    wanted = [run for run in cohorts.latest(runs) if not tasks or run.task in tasks]
    named = sorted({run.task for run in wanted})
    if len(named) < 2:
        raise UsageError(f"results of one task, {', '.join(named)}: expected at least two tasks to compare.")
    able = [run for run in wanted if technique_runs.unable(run) is None]
    places: dict[Place, dict[str, list[Run]]] = {}
    for run in able:
        places.setdefault(Place.of(run), {}).setdefault(run.task, []).append(run)
    reasons: list[str] = []
    said: list[str] = []
    found: list[Selection] = []
    for place, by_task in places.items():
        of_place: list[str] = []
        selection = _selection(place, by_task, of_place) if len(by_task) > 1 else None
        if selection is not None:
            found.append(selection)
        elif of_place:
            reasons += of_place
            said.append(f"tasks are not compared, {place}: {'; '.join(dict.fromkeys(of_place))}")
    if not found:
        raise UsageError(f"no two tasks can be compared: {_why(wanted, able, reasons)}.")
    progress.say(*said)
    return sorted(found, key=lambda each: (-len(each.tasks), -len(each.techniques), each.host, each.backend))


def _selection(place: Place, by_task: Mapping[str, list[Run]], reasons: list[str]) -> Selection | None:
    remarks: list[str] = []

    def leave_out(task: str, why: str) -> None:
        reasons.append(f"{task}: {why}")
        remarks.append(f"{task} is left out: {why}")

    candidates = {
        task: technique_runs.titled(task, members, remarks) for task, members in sorted(by_task.items())
    }
    for task, rows in list(candidates.items()):
        if not rows.unreduced:
            leave_out(task, technique_runs.without_baseline(rows, place))
            del candidates[task]
    if len(candidates) < 2:
        return None
    base = _baseline(list(candidates.values()))
    tasks = {}
    for task, rows in candidates.items():
        if base is None or base not in rows.unreduced:
            theirs = " or ".join(f"'{title}'" for title in rows.unreduced)
            others = "of another kind" if base is None else f"'{base}'"
            leave_out(task, f"its unreduced fp32 engine is {theirs}, that of other tasks {others}")
            continue
        one = technique_runs.of_task(rows, base, remarks, reasons)
        if one.engines:
            tasks[task] = one
        else:
            leave_out(task, f"no other engine than {one.baseline.name} can be compared")
    counts = Counter(each for one in tasks.values() if (each := cohorts.session_threads(one.baseline)))
    threads = max(counts, key=lambda count: (counts[count], count), default=None)
    for task, one in list(tasks.items()):
        other = cohorts.session_threads(one.baseline)
        if other not in (None, threads):
            leave_out(task, f"it was measured with threads: {other}, and other tasks with threads: {threads}")
            del tasks[task]
    while len(tasks) > 1 and not _common(tasks):
        least = min(tasks, key=lambda task: len(tasks[task].engines))
        leave_out(least, "it has no technique that every other task has")
        del tasks[least]
    if len(tasks) < 2:
        return None
    titles = _common(tasks)
    if len(titles) > MOST_TECHNIQUES:
        reasons.append(
            f"{len(titles)} techniques are on every task: at most {MOST_TECHNIQUES} can be compared; give "
            "fewer results"
        )
        return None
    missing = sorted({title for one in tasks.values() for title in one.engines} - set(titles))
    if missing:
        listed = "; ".join(missing[:5]) + ("; ..." if len(missing) > 5 else "")
        count = "1 technique is" if len(missing) == 1 else f"{len(missing)} techniques are"
        remarks.append(f"{count} not on every task and left out: {listed}")
    chosen = tuple(
        TaskRuns(one.task, one.baseline, {title: one.engines[title] for title in titles})
        for one in tasks.values()
    )
    return Selection(
        place.encoder, place.host, place.backend, place.device, chosen,
        (*remarks, *(remark for one in chosen for remark in technique_runs.sessions(one))),
    )  # fmt: skip


def _common(tasks: Mapping[str, TaskRuns]) -> list[str]:
    """Return the techniques of every task, in the order of the first."""
    first, *others = tasks.values()
    return [title for title in first.engines if all(title in other.engines for other in others)]


def _baseline(tasks: Sequence[TitledRuns]) -> str | None:
    """Return the title of unreduced engines that most tasks have, of several the plainest.

    A baseline that is distilled on one task and not on another would make what reductions lose differ between
    tasks that do not. None: no two tasks have the same.
    """
    counts = Counter(title for rows in tasks for title in rows.unreduced)
    best = min(counts, key=lambda title: (-counts[title], technique_runs.plainness(title)), default=None)
    return best if best is not None and counts[best] > 1 else None


def _why(wanted: Sequence[Run], able: Sequence[Run], reasons: Sequence[str]) -> str:
    left = sorted({run.task for run in able})
    reason_of: dict[str, str] = {}
    for run in wanted:
        if run.task not in left and (reason := technique_runs.unable(run)) is not None:
            reason_of.setdefault(run.task, reason)
    said = [f"{task}: {reason}" for task, reason in sorted(reason_of.items())] + list(dict.fromkeys(reasons))
    if len(left) > 1 and not reasons:
        said += technique_runs.different_places(able)
    return "; ".join(said)
