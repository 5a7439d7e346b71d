"""Which results of several tasks may be compared technique by technique.

    encoder, host, backend, device    the same for all tasks
    within a task                     one set of rows, one seed
    baseline                          an unreduced fp32 engine, of one kind on all tasks
    techniques                        those that every task has (:mod:`effx.analysis.shared_techniques`)

Rows of different tasks are different rows. Only ratios and losses within a task are compared between tasks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from effx.analysis import cohorts, shared_techniques
from effx.analysis.techniques import technique
from effx.errors import UsageError, unknown
from effx.results import Run

MOST_TECHNIQUES = 100
"""That are compared; every pair of them is ranked in every resampling."""
_MADE_DIFFERENTLY = "as engines with the same title were made with different settings or checkpoints"


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


@dataclass(frozen=True)
class _Rows:
    """The engines of one task and seed that were scored on the same rows."""

    task: str
    titles: Mapping[str, list[Run]]
    """By technique, each by name."""
    unreduced: tuple[str, ...]
    """Titles of unreduced fp32 engines, the plainest first; none whose engines were made differently."""


def _selection(place: _Place, by_task: Mapping[str, list[Run]], reasons: list[str]) -> Selection | None:
    remarks: list[str] = []

    def leave_out(task: str, why: str) -> None:
        reasons.append(f"{task}: {why}")
        remarks.append(f"{task} is left out: {why}")

    candidates = {task: _rows(task, members, remarks) for task, members in sorted(by_task.items())}
    for task, rows in list(candidates.items()):
        if not rows.unreduced:
            leave_out(task, _without(rows, place))
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
        one = _of_task(rows, base, remarks, reasons)
        if one.engines:
            tasks[task] = one
        else:
            leave_out(task, f"no other engine than {one.baseline.name} can be compared")
    while len(tasks) > 1 and not _common(tasks):
        least = min(tasks, key=lambda task: len(tasks[task].engines))
        leave_out(least, "it has no technique that every other task has")
        del tasks[least]
    if len(tasks) < 2:
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


def _baseline(tasks: Sequence[_Rows]) -> str | None:
    """Return the title of unreduced engines that most tasks have, of several the plainest.

    A baseline that is distilled on one task and not on another would make what reductions lose differ between
    tasks that do not. None: no two tasks have the same.
    """
    counts = Counter(title for rows in tasks for title in rows.unreduced)
    best = min(counts, key=lambda title: (-counts[title], _plainness(title)), default=None)
    return best if best is not None and counts[best] > 1 else None


def _plainness(title: str) -> tuple[int, str]:
    """Return what orders titles from the plainest, which is ``fp32`` alone, on."""
    parts = [part for part in re.split(r", |\+", title) if part != "fp32"]
    return len(parts), title


def _without(rows: _Rows, place: _Place) -> str:
    """Return why a task has no baseline."""
    ambiguous = [
        run.name for members in rows.titles.values() if any(map(_is_unreduced, members)) for run in members
    ]
    if ambiguous:
        return f"its unreduced fp32 engine is not known, {_MADE_DIFFERENTLY}: {', '.join(ambiguous)}"
    return f"its unreduced fp32 engine was not measured with {place.backend}"


def _is_unreduced(run: Run) -> bool:
    """Whether losses and costs may be relative to an engine."""
    return technique(run).name == "full" and run.engine.precision == "fp32"


def _rows(task: str, runs: Sequence[Run], remarks: list[str]) -> _Rows:
    """Return the engines of a task that are compared, by technique."""
    cohort = max(
        cohorts.split(runs, labels=True).values(),
        key=lambda members: (any(map(_is_unreduced, members)), len(members)),
    )
    if len(cohort) < len(runs):
        remarks.append(f"{task}: {len(runs) - len(cohort)} engines scored on other rows are left out")
    one_seed = sorted(_one_seed(task, cohort, remarks), key=lambda run: run.name)
    unreduced = [run for run in one_seed if _is_unreduced(run)]
    if not unreduced:
        return _Rows(task, {}, ())
    full = max(unreduced, key=lambda run: (run.engine.structure is not None, run.engine.max_length or 0))
    found: dict[str, list[Run]] = {}
    for run in one_seed:
        title = shared_techniques.title(run, full)
        if title is not None:
            found.setdefault(title, []).append(run)
    found = {title: _plain(task, members, remarks) for title, members in sorted(found.items())}
    titles = [
        title for title, members in found.items()
        if any(map(_is_unreduced, members)) and not _differ(members)
    ]  # fmt: skip
    return _Rows(task, found, tuple(sorted(titles, key=_plainness)))


def _of_task(rows: _Rows, base: str, remarks: list[str], reasons: list[str]) -> TaskRuns:
    """Return the engines of a task by technique, without those that two differently made engines are."""
    baseline, *same = sorted(rows.titles[base], key=lambda run: not _is_unreduced(run))
    if same:
        others = ", ".join(run.name for run in same)
        remarks.append(f"{rows.task}: the baseline is {baseline.name}; as their results say no more, "
                       f"{others} is the same and left out")  # fmt: skip
    engines = {}
    for title, members in rows.titles.items():
        if title == base:
            continue
        others = ", ".join(run.name for run in members[1:])
        if _differ(members):
            left = f"{rows.task}: '{title}' is left out: {_MADE_DIFFERENTLY}: {members[0].name}, {others}"
            remarks.append(left)
            reasons.append(left)
            continue
        if others:
            remarks.append(f"{rows.task}: '{title}' is {members[0].name}; as their results say no more, "
                           f"{others} is the same technique and left out")  # fmt: skip
        engines[title] = members[0]
    return TaskRuns(rows.task, baseline, engines)


def _plain(task: str, members: list[Run], remarks: list[str]) -> list[Run]:
    """Return engines of one title without those whose checkpoint has exits or tokens that are not used."""
    plain = [
        run for run in members
        if (origin := run.engine.origin) is None or (origin.exits is None and origin.tokens is None)
    ]  # fmt: skip
    left = [run.name for run in members if run not in plain]
    if not plain or not left:
        return members
    remarks.append(
        f"{task}: {', '.join(left)} left out: their checkpoints have exits or a token schedule, which these "
        f"engines do not use; {plain[0].name} is of one without"
    )
    return plain


def _differ(members: Sequence[Run]) -> bool:
    """Whether engines with one title are known to be made with other settings, or from other checkpoints.

    What a checkpoint that was trained further was made from is not in its settings.
    """
    made: set[tuple[str, str | None] | None] = set()
    for run in members:
        origin = run.engine.origin
        further = run.engine.checkpoint.digest if origin is not None and origin.trained_further else None
        made.add(None if origin is None else (origin.settings, further))
    return len(made) > 1


def _one_seed(task: str, runs: list[Run], remarks: list[str]) -> list[Run]:
    """Return the engines of the seed that most have, and those whose seed is unknown.

    A seed without an unreduced fp32 engine is taken only where no seed has one.
    """
    seeds = Counter(run.engine.origin.seed for run in runs if run.engine.origin is not None)
    if len(seeds) < 2:
        return runs
    able = {run.engine.origin.seed for run in runs if run.engine.origin is not None and _is_unreduced(run)}
    chosen = min(seeds, key=lambda seed: (seed not in able, -seeds[seed], seed))
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
