"""Which results of several tasks may be compared technique by technique.

    encoder, host, backend, device    the same for all tasks
    within a task                     one set of rows; an unreduced fp32 engine, which losses are against
    techniques                        those that every task has (:mod:`effx.analysis.shared_techniques`)

Rows of different tasks are different rows. Only ratios and losses within a task are compared between tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from effx.analysis import cohorts, shared_techniques
from effx.analysis.baseline import baseline_of
from effx.analysis.techniques import technique
from effx.errors import UsageError, unknown
from effx.results import Run

MOST_TECHNIQUES = 100
"""That are compared; every pair of them is ranked in every resampling."""


@dataclass(frozen=True)
class TaskRuns:
    """The engines of one task that are compared."""

    task: str
    baseline: Run
    engines: Mapping[str, Run]
    """By technique, in the same order for all tasks."""


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


@dataclass(frozen=True)
class _Place:
    """What must be equal for tasks to be compared."""

    encoder: str
    host: str
    backend: str
    device: str

    @classmethod
    def of(cls, run: Run) -> _Place:
        engine = run.engine
        return cls(engine.model or "unknown encoder", run.host_id, engine.backend, engine.device)


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
    able = [run for run in wanted if _unable(run) is None]
    places: dict[_Place, dict[str, list[Run]]] = {}
    for run in able:
        places.setdefault(_Place.of(run), {}).setdefault(run.task, []).append(run)
    reasons: list[str] = []
    found = [
        selection
        for place, by_task in places.items()
        if len(by_task) > 1 and (selection := _selection(place, by_task, reasons)) is not None
    ]
    if not found:
        raise UsageError(f"no two tasks can be compared: {_why(wanted, able, reasons)}.")
    return sorted(found, key=lambda each: (-len(each.tasks), -len(each.techniques), each.host, each.backend))


def _unable(run: Run) -> str | None:
    """Return why a result has no loss that can be tested; None: it has."""
    if reason := run.withdrawn("quality"):
        return reason
    if run.quality.reference is not None:
        return "its rows have no labels"
    return None if cohorts.has_predictions(run) else "its results were shared without predictions"


def _selection(place: _Place, by_task: Mapping[str, list[Run]], reasons: list[str]) -> Selection | None:
    remarks: list[str] = []
    tasks = {}
    for task, members in sorted(by_task.items()):
        one = _of_task(task, members, remarks)
        if one is None:
            reasons.append(f"{task}: its unreduced fp32 engine was not measured with {place.backend}")
        elif one.engines:
            tasks[task] = one
        else:
            reasons.append(f"{task}: no other engine than {one.baseline.name} was measured")
    while len(tasks) > 1 and not _common(tasks):
        least = min(tasks, key=lambda task: len(tasks[task].engines))
        remarks.append(f"{least} is left out: it has no technique that every other task has")
        del tasks[least]
    if len(tasks) < 2:
        reasons += [remark for remark in remarks if remark.endswith("every other task has")]
        return None
    titles = _common(tasks)
    if len(titles) > MOST_TECHNIQUES:
        raise UsageError(
            f"{len(titles)} techniques are on every task: at most {MOST_TECHNIQUES} can be compared; give "
            "fewer results."
        )
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
        (*remarks, *(remark for one in chosen for remark in _sessions(one))),
    )  # fmt: skip


def _common(tasks: Mapping[str, TaskRuns]) -> list[str]:
    """Return the techniques of every task, in the order of the first."""
    first, *others = tasks.values()
    return [title for title in first.engines if all(title in other.engines for other in others)]


def _of_task(task: str, runs: Sequence[Run], remarks: list[str]) -> TaskRuns | None:
    """Return the engines of a task by technique; None: it has no unreduced fp32 engine."""
    cohort = max(cohorts.split(runs, labels=True).values(), key=len)
    if len(cohort) < len(runs):
        remarks.append(f"{task}: {len(runs) - len(cohort)} engines scored on other rows are left out")
    one_seed = _one_seed(task, cohort, remarks)
    baseline = baseline_of(one_seed)
    if technique(baseline).name != "full" or baseline.engine.precision != "fp32":
        return None
    found: dict[str, list[Run]] = {}
    for run in sorted(one_seed, key=lambda run: run.name):
        title = shared_techniques.title(run, baseline)
        if title is not None:
            found.setdefault(title, []).append(run)
    found.pop(shared_techniques.title(baseline, baseline) or "", None)
    for title, members in found.items():
        if len(members) > 1:
            others = ", ".join(run.name for run in members[1:])
            remarks.append(f"{task}: '{title}' is {members[0].name}; as their results say no more, {others} "
                           "is the same technique and left out")  # fmt: skip
    return TaskRuns(task, baseline, {title: members[0] for title, members in sorted(found.items())})


def _one_seed(task: str, runs: list[Run], remarks: list[str]) -> list[Run]:
    """Return the engines of the seed that most have, and those whose seed is unknown."""
    seeds = Counter(run.engine.origin.seed for run in runs if run.engine.origin is not None)
    if len(seeds) < 2:
        return runs
    chosen = min(seeds, key=lambda seed: (-seeds[seed], seed))
    left = sum(seeds.values()) - seeds[chosen]
    remarks.append(f"{task}: seed {chosen}; {left} engines with other seeds are left out")
    return [run for run in runs if run.engine.origin is None or run.engine.origin.seed == chosen]


def _sessions(one: TaskRuns) -> list[str]:
    apart = [run for run in one.engines.values() if run.session != one.baseline.session]
    if not apart:
        return []
    return [f"{one.task}: {len(apart)} engines were measured in other sessions than the baseline, so that "
            "changes of the host between them affect their costs"]  # fmt: skip


def _why(wanted: Sequence[Run], able: Sequence[Run], reasons: Sequence[str]) -> str:
    left = sorted({run.task for run in able})
    unable: dict[str, str] = {}
    for run in wanted:
        if run.task not in left and (reason := _unable(run)) is not None:
            unable.setdefault(run.task, reason)
    said = [f"{task}: {reason}" for task, reason in sorted(unable.items())] + list(dict.fromkeys(reasons))
    if len(left) > 1 and not reasons:
        said += [
            f"they have different {what}, {', '.join(sorted(values))}"
            for what, values in (
                ("encoders", {run.engine.model or "unknown encoder" for run in able}),
                ("hosts", {run.host_id for run in able}),
                ("backends", {run.engine.backend for run in able}),
                ("devices", {run.engine.device for run in able}),
            )
            if len(values) > 1
        ]
    return "; ".join(said)
