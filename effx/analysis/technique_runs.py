"""Which engines of one task are compared technique by technique, and with which baseline.

rows          one set of rows, one seed
baseline      an unreduced fp32 engine
techniques    what was asked for (:mod:`effx.analysis.shared_techniques`), an engine for each
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from effx.analysis import cohorts, shared_techniques
from effx.analysis.techniques import technique
from effx.results import Run
from effx.stats import intervals
from effx.stats.metrics import METRICS

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
class Place:
    """Where engines were measured that may be compared."""

    encoder: str
    host: str
    backend: str
    device: str

    def __str__(self) -> str:
        return f"{self.encoder}, {self.backend} on {self.device}, {self.host}"

    @classmethod
    def of(cls, run: Run) -> Place:
        engine = run.engine
        return cls(engine.model or "unknown encoder", run.host_id, engine.backend, engine.device)


def different_places(runs: Sequence[Run]) -> list[str]:
    """Return in what the places of runs differ, in words."""
    return [
        f"they have different {what}, {', '.join(sorted(values))}"
        for what, values in (
            ("encoders", {run.engine.model or "unknown encoder" for run in runs}),
            ("hosts", {run.host_id for run in runs}),
            ("backends", {run.engine.backend for run in runs}),
            ("devices", {run.engine.device for run in runs}),
        )
        if len(values) > 1
    ]


@dataclass(frozen=True)
class TitledRuns:
    """The engines of one task and seed that were scored on the same rows."""

    task: str
    titles: Mapping[str, list[Run]]
    """By technique, each by name."""
    unreduced: tuple[str, ...]
    """Titles of unreduced fp32 engines, the plainest first; none whose engines were made differently."""


def unable(run: Run) -> str | None:
    """Return why a result has no loss that can be tested; None: it has."""
    if reason := run.withdrawn("quality"):
        return reason
    if run.quality.reference is not None:
        return "its rows have no labels"
    return None if cohorts.has_predictions(run) else "its results were shared without predictions"


def loss_interval(baseline: Run, run: Run) -> tuple[float, float] | None:
    """Return the 95 % interval of an engine's loss in the task's metric; None: too few predictions differ."""
    quality = baseline.quality
    interval = intervals.paired_interval(
        METRICS[quality.metric], quality.label_array, quality.prediction_array, run.quality.prediction_array
    )
    return None if interval is None else (-interval[1], -interval[0])


def titled(
    task: str, runs: Sequence[Run], remarks: list[str], may_be_baseline: Callable[[Run], bool] | None = None
) -> TitledRuns:
    """Return the engines of a task that are compared, by technique.

    Args:
        task: the task.
        runs: its results; those that were shared without predictions belong to all of the same source, number
            of rows and metric.
        remarks: to which what is left out is added.
        may_be_baseline: of which engines the baseline is one; None: the unreduced fp32 ones.
    """
    is_baseline = may_be_baseline or is_unreduced
    cohort = max(_cohorts(runs), key=lambda members: (any(map(is_baseline, members)), len(members)))
    if len(cohort) < len(runs):
        remarks.append(f"{task}: {len(runs) - len(cohort)} engines scored on other rows are left out")
    one_seed = sorted(_one_seed(task, cohort, remarks, is_baseline), key=lambda run: run.name)
    unreduced = [run for run in one_seed if is_baseline(run)]
    if not unreduced:
        return TitledRuns(task, {}, ())
    full = max(unreduced, key=lambda run: (run.engine.structure is not None, run.engine.max_length or 0))
    found: dict[str, list[Run]] = {}
    for run in one_seed:
        title = shared_techniques.title(run, full)
        if title is not None:
            found.setdefault(title, []).append(run)
    found = {title: _plain(task, members, remarks) for title, members in sorted(found.items())}
    titles = [
        title for title, members in found.items()
        if any(map(is_baseline, members)) and not _differ(members)
    ]  # fmt: skip
    return TitledRuns(task, found, tuple(sorted(titles, key=plainness)))


def _cohorts(runs: Sequence[Run]) -> list[list[Run]]:
    """Return the results that were scored on the same rows, as far as they say.

    Labels tell rows apart, which results that were shared without predictions do not have.
    """
    known = cohorts.split([run for run in runs if cohorts.has_predictions(run)], labels=True)
    shared = cohorts.split([run for run in runs if not cohorts.has_predictions(run)])
    found = [[*members, *shared.get(replace(key, labels=None), [])] for key, members in known.items()]
    alone = shared.keys() - {replace(key, labels=None) for key in known}
    return [*found, *(members for key, members in shared.items() if key in alone)]


def of_task(rows: TitledRuns, base: str, remarks: list[str], reasons: list[str]) -> TaskRuns:
    """Return the engines of a task by technique, without those that two differently made engines are, and
    those that were measured with other threads than the baseline: their costs are not relative to it.

    Args:
        rows: the engines.
        base: technique of the baseline, one of ``rows.unreduced``.
        remarks: to which what is left out is added.
        reasons: likewise.
    """
    measured = [run for members in rows.titles.values() for run in members]
    baseline, *same = sorted(
        rows.titles[base],
        key=lambda run: (not is_unreduced(run), sum(other_threads(run, other) for other in measured)),
    )
    same = _of_same_threads(same, baseline, rows.task, remarks)
    if same:
        others = ", ".join(run.name for run in same)
        remarks.append(f"{rows.task}: the baseline is {baseline.name}; as their results say no more, "
                       f"{others} is the same and left out")  # fmt: skip
    engines = {}
    for title, members in rows.titles.items():
        if title == base:
            continue
        if _differ(members):
            others = ", ".join(run.name for run in members[1:])
            left = f"{rows.task}: '{title}' is left out: {_MADE_DIFFERENTLY}: {members[0].name}, {others}"
            remarks.append(left)
            reasons.append(left)
            continue
        members = sorted(members, key=lambda run: other_threads(run, baseline))
        if other_threads(members[0], baseline):
            left = (f"{rows.task}: '{title}' is left out: it was measured with {_threads(members[0])}, and "
                    f"the baseline {baseline.name} with {_threads(baseline)}")  # fmt: skip
            remarks.append(left)
            reasons.append(left)
            continue
        if same := _of_same_threads(members[1:], baseline, rows.task, remarks):
            others = ", ".join(run.name for run in same)
            remarks.append(f"{rows.task}: '{title}' is {members[0].name}; as their results say no more, "
                           f"{others} is the same technique and left out")  # fmt: skip
        engines[title] = members[0]
    return TaskRuns(rows.task, baseline, engines)


def _of_same_threads(runs: Sequence[Run], baseline: Run, task: str, remarks: list[str]) -> list[Run]:
    """Return the runs with the baseline's threads; of each other one, a remark says why it is left out."""
    remarks += [
        f"{task}: {run.name} is left out: it was measured with {_threads(run)}, and the baseline "
        f"{baseline.name} with {_threads(baseline)}"
        for run in runs if other_threads(run, baseline)
    ]  # fmt: skip
    return [run for run in runs if not other_threads(run, baseline)]


def other_threads(run: Run, other: Run) -> bool:
    """Whether two sessions had different numbers of threads; engines with their own number go with any."""
    counts = {cohorts.session_threads(run), cohorts.session_threads(other)} - {None}
    return len(counts) > 1


def _threads(run: Run) -> str:
    count = run.settings.runtime.threads
    return "1 thread" if count == 1 else f"{count} threads"


def sessions(one: TaskRuns) -> list[str]:
    apart = [run for run in one.engines.values() if run.session != one.baseline.session]
    if not apart:
        return []
    return [f"{one.task}: {len(apart)} engines were measured in other sessions than the baseline, so that "
            "changes of the host between them affect their costs"]  # fmt: skip


def plainness(title: str) -> tuple[int, str]:
    """Return what orders titles from the plainest, which is ``fp32`` alone, on."""
    parts = [part for part in re.split(r", |\+", title) if part != "fp32"]
    return len(parts), title


def without_baseline(rows: TitledRuns, place: Place) -> str:
    """Return why a task has no baseline."""
    ambiguous = [
        run.name for members in rows.titles.values() if any(map(is_unreduced, members)) for run in members
    ]
    if ambiguous:
        return f"its unreduced fp32 engine is not known, {_MADE_DIFFERENTLY}: {', '.join(ambiguous)}"
    return f"its unreduced fp32 engine was not measured with {place.backend}"


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


def _one_seed(
    task: str, runs: list[Run], remarks: list[str], is_baseline: Callable[[Run], bool]
) -> list[Run]:
    """Return the engines of the seed that most have, and those whose seed is unknown.

    A seed without a baseline is taken only where no seed has one.
    """
    seeds = Counter(run.engine.origin.seed for run in runs if run.engine.origin is not None)
    if len(seeds) < 2:
        return runs
    able = {run.engine.origin.seed for run in runs if run.engine.origin is not None and is_baseline(run)}
    chosen = min(seeds, key=lambda seed: (seed not in able, -seeds[seed], seed))
    left = sum(seeds.values()) - seeds[chosen]
    remarks.append(f"{task}: seed {chosen}; {left} engines with other seeds are left out")
    return [run for run in runs if run.engine.origin is None or run.engine.origin.seed == chosen]


def is_unreduced(run: Run) -> bool:
    """Whether losses and costs may be relative to an engine: nothing is reduced, in fp32."""
    return technique(run).name == "full" and run.engine.precision == "fp32"
