"""Two engines that were profiled on one task and one host: what changes from a to b, and how sure that is.

Pure functions over results: nothing here touches disk, device or console. Accuracy is compared
example by example, latency round by round where both ran in one session:

    a   | rows 1..n |   round 1: block   round 2: block  ...
    b   | rows 1..n |   round 1: block   round 2: block  ...
        difference      ratio            ratio             -> interval

A difference is b minus a, a ratio b over a. None means not measured or not to be trusted, with a remark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from effx.analysis import cohorts
from effx.analysis.cohorts import EnergyMeter
from effx.errors import UsageError, nearest
from effx.formatting import from_to, percent, points, times
from effx.results import Energy, Run, WorkloadResult
from effx.specs.workloads import SINGLE_STREAM
from effx.stats import intervals, tests
from effx.stats.intervals import Ratio
from effx.stats.metrics import METRICS

MARGIN = 0.01
"""The loss of accuracy that a deployment is taken to accept."""
LAUNCH_BOUND = 0.5
"""Launch share above which most of a single query's time is not the encoder's work, which is told then."""
NOT_ON_DEVICE = "is not spent on the device: no reduction makes that part shorter"
_SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class LatencyRatio:
    """Seconds of b over seconds of a for one workload."""

    scenario: str
    batch: int
    sequence: int | str
    statistic: str
    """``p50`` or ``mean`` of the seconds per query, ``mean per example`` offline."""
    value: float
    interval: tuple[float, float] | None
    """95 %; None with fewer than three rounds."""
    paired: bool
    """Whether rounds of both ran next to each other."""


@dataclass(frozen=True)
class EnergyRatio:
    """Joules per example of b over those of a, single queries."""

    source: str
    meter: str
    value: float
    interval: tuple[float, float] | None
    """95 %, from both intervals; None where one has none or reaches 0."""


@dataclass(frozen=True)
class Comparison:
    """What changes from a to b."""

    a: str
    b: str
    results: tuple[str, str]
    """The ids of the two runs."""
    task: str
    host: str
    metric: str
    n: int
    difference: float
    """b's metric minus a's, 0.01 is a point."""
    interval: tuple[float, float] | None
    """95 %: Tango's score interval for accuracy, a paired bootstrap otherwise; None where too few
    predictions differ for a bootstrap."""
    differing: int
    """Predictions that are not the same."""
    p_value: float | None
    """McNemar's, that both are right equally often; None for regression."""
    p_adjusted: float | None
    """Holm's, over the comparisons with one baseline; None for a comparison that stands alone.
    See :func:`adjusted`."""
    latency: list[LatencyRatio]
    energy: EnergyRatio | None
    memory: dict[str, float | None]
    """Ratios of the peaks, by the name of the memory."""
    host_overhead_shares: tuple[float | None, float | None]
    """Of a and of b, see :attr:`effx.results.Run.host_overhead_share`; None for one not timed on a device."""
    remarks: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "non_inferiority": self.non_inferiority(), "sentence": self.sentence()}

    def non_inferiority(self, margin: float = MARGIN) -> str:
        """Return what can be said about a loss of ``margin``."""
        return non_inferiority(self.difference, self.interval, margin, n=self.n)

    def sentence(self) -> str:
        """Return speed, accuracy and energy of b beside a, as a person would write them."""
        a, b = (self.a, self.b) if self.a != self.b else self.results
        is_ = " and ".join(part for part in (self._speed(), self._accuracy()) if part)
        energy = self._energy()
        return f"Beside {a}, {b} is {is_}{'; it ' + energy if energy else ''}."

    def _speed(self) -> str | None:
        """Return the single-stream median's ratio, as times as fast."""
        for ratio in self.latency:
            if ratio.scenario == SINGLE_STREAM.scenario and ratio.statistic == "p50":
                break
        else:
            return None
        if ratio.interval is None:
            return f"{times(1 / ratio.value)}x as fast (too few blocks for an interval)"
        low, high = 1 / ratio.interval[1], 1 / ratio.interval[0]
        notes = ["" if low > 1 or high < 1 else ", not distinguishable"]
        notes.append("" if ratio.paired else ", not interleaved")
        return f"{times(1 / ratio.value)}x as fast ({from_to((low, high), times)}{''.join(notes)})"

    def _energy(self) -> str | None:
        if self.energy is None:
            return None
        said = f"takes {times(self.energy.value)}x the energy"
        if self.energy.interval is None:
            return f"{said} ({self.energy.source}, no interval)"
        low, high = self.energy.interval
        note = "" if low > 1 or high < 1 else ", not distinguishable"
        return f"{said} ({self.energy.source}, {from_to((low, high), times)}{note})"

    def _accuracy(self) -> str:
        apart = f"{abs(100 * self.difference):.1f} points"
        if apart == "0.0 points":
            said = f"{apart} apart in {self.metric}"
        elif self.metric == "accuracy":
            said = f"{apart} {'more' if self.difference > 0 else 'less'} accurate"
        else:
            said = f"{apart} {'higher' if self.difference > 0 else 'lower'} in {self.metric}"
        if self.interval is None:
            return f"{said} ({self.differing} of {self.n} predictions differ, not distinguishable)"
        low, high = self.interval
        notes = [f"{points(low)} to {points(high)}"]
        if low <= 0 <= high:
            notes.append(f"not distinguishable at n = {self.n}")
        elif self.p_adjusted is not None and self.p_adjusted > _SIGNIFICANCE:
            notes.append(f"not distinguishable once adjusted for the number of comparisons, n = {self.n}")
        return f"{said} ({', '.join(notes)})"


def compare(a: Run, b: Run) -> Comparison:
    """Compare b with a.

    Raises:
        UsageError: they are of different tasks, hosts, metrics or examples, or hold no predictions.
    """
    cohorts.check([a, b])
    labels = np.array(cohorts.shared_labels([a, b]))
    own_a, own_b = np.array(a.accuracy.predictions), np.array(b.accuracy.predictions)
    metric, differing = a.accuracy.metric, int(np.sum(own_a != own_b))
    remarks = [f"{run.name}: {flag}" for run in (a, b) for flag in _flags(run)]
    interval = intervals.paired_interval(METRICS[metric], labels, own_a, own_b)
    if interval is None:
        remarks.append(f"{differing} differing predictions are too few for an interval of {metric}")
    if a.session != b.session:
        remarks.append("not of one session: what changed on the host between them is in the ratios too")
    latency = _latency(a, b, remarks)
    remarks += _launches(a, b)
    return Comparison(
        a=a.name,
        b=b.name,
        results=(a.id, b.id),
        task=a.task,
        host=a.host_id,
        metric=metric,
        n=a.accuracy.n,
        difference=b.accuracy.value - a.accuracy.value,
        interval=interval,
        differing=differing,
        p_value=tests.mcnemar(own_a == labels, own_b == labels) if METRICS[metric].of_classes else None,
        p_adjusted=None,
        latency=latency,
        energy=_energy(a, b, remarks),
        memory=_memory(a, b),
        host_overhead_shares=(a.host_overhead_share, b.host_overhead_share),
        remarks=remarks,
    )


def pair(runs: Sequence[Run], a: str, b: str) -> tuple[Run, Run]:
    """Return the runs that two names of engines, or ids of results, stand for.

    The latest session that holds both; else the latest of each, on one task and host if there are
    such.

    Raises:
        UsageError: there is no such engine or result; the message names the nearest one.
    """
    found = []
    for name in (a, b):
        own = [run for run in runs if name in (run.id, run.name)]
        if not own:
            names = sorted({run.name for run in runs})
            near = nearest(name, [*names, *(run.id for run in runs)])
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            raise UsageError(f"no result of '{name}'.{near} There are: {', '.join(names[:10])}{more}.")
        found.append(sorted(own, key=lambda run: (run.started, run.id), reverse=True))
    couples = [(one, other) for one in found[0] for other in found[1] if one is not other]
    alike = [two for two in couples if len(cohorts.by_task_and_host(two)) == 1]
    together = [two for two in alike if two[0].session == two[1].session]
    best = (together or alike or couples or [(found[0][0], found[1][0])])[0]
    if together:
        best = max(together, key=lambda two: min(two[0].started, two[1].started))
    return best


def adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return comparisons with one baseline, McNemar's p-values adjusted for their number by Holm's rule."""
    tested = [one.p_value for one in comparisons if one.p_value is not None]
    values = iter(tests.holm(tested))
    return [one if one.p_value is None else replace(one, p_adjusted=next(values)) for one in comparisons]


def non_inferiority(
    difference: float, interval: tuple[float, float] | None, margin: float = MARGIN, *, n: int
) -> str:
    """Return whether a loss of more than ``margin`` is ruled out, shown, or neither; never "equal".

    Args:
        difference: of the metric, b minus a.
        interval: its 95 % interval; None if there is none.
        margin: the loss that is accepted, 0.01 is a point.
        n: examples.

    The interval lies within the margin if and only if the one-sided test at 2.5 % rejects.
    """
    tested = f"{100 * margin:g}"
    tested += ".0 points" if tested.isdigit() else " points"
    if interval is None:
        return f"not distinguishable at n = {n}: {points(difference)} points, no interval"
    low, high = interval
    if low >= -margin:
        return f"loses at most {tested} (95 %)"
    if high < -margin:
        return f"loses more than {tested} (95 %)"
    return (
        f"not distinguishable at n = {n}: {points(difference)} points "
        f"({from_to((low, high), points)}) neither rule out nor show a loss of more than {tested}"
    )


def energy_per_correct(run: Run) -> float | None:
    """Return joules per right prediction of single queries; None with no energy, or for regression."""
    workload, scored = run.workload(SINGLE_STREAM), run.accuracy
    if (
        workload is None
        or workload.energy.joules_per_example is None
        or not METRICS[scored.metric].of_classes
    ):
        return None
    if scored.metric == "accuracy":
        right = scored.value
    elif scored.predictions:
        right = float(np.mean(np.array(scored.predictions) == np.array(scored.labels)))
    else:
        return None
    return workload.energy.joules_per_example / right if right > 0 else None


def _latency(a: Run, b: Run, remarks: list[str]) -> list[LatencyRatio]:
    found = []
    paired = a.session == b.session
    for own, other in cohorts.shared_workloads(a, b):
        name = own.workload.name
        remarks += [f"{run.name}, {name}: {flag}" for run, w in ((a, own), (b, other)) for flag in w.flags]
        if own.workload.rate_per_s != other.workload.rate_per_s:
            remarks.append(f"{name}: asked at different rates, not compared")
            continue
        for statistic in ("mean per example",) if own.workload.scenario == "offline" else ("p50", "mean"):
            ratio = _seconds_ratio(own, other, statistic, paired)
            value = ratio.value if ratio else _seconds(other, statistic) / _seconds(own, statistic)
            found.append(
                LatencyRatio(
                    scenario=own.workload.scenario,
                    batch=own.workload.batch,
                    sequence=own.workload.length,
                    statistic=statistic,
                    value=value,
                    interval=ratio.interval if ratio else None,
                    paired=paired,
                )
            )
    return found


def _launches(a: Run, b: Run) -> list[str]:
    """Remark where most of a single query to either is off the device: there reductions show little."""
    one, other = a.host_overhead_share, b.host_overhead_share
    if one is None or other is None or max(one, other) <= LAUNCH_BOUND:
        return []
    names = (a.name, b.name) if a.name != b.name else (a.id, b.id)
    return [
        f"{percent(one)} of a single query to {names[0]} and {percent(other)} of one to "
        f"{names[1]} {NOT_ON_DEVICE}"
    ]


def _seconds_ratio(a: WorkloadResult, b: WorkloadResult, statistic: str, paired: bool) -> Ratio | None:
    measure = intervals.median if statistic == "p50" else intervals.mean
    blocks_a, blocks_b = _blocks(a, statistic), _blocks(b, statistic)
    if paired:
        return intervals.paired_ratio(blocks_a, a.rounds, blocks_b, b.rounds, measure)
    return intervals.unpaired_ratio(blocks_a, blocks_b, measure)


def _seconds(workload: WorkloadResult, statistic: str) -> float:
    """Return the statistic of all samples, for a ratio without interval."""
    samples = np.concatenate([np.asarray(block) for block in _blocks(workload, statistic)])
    return (intervals.median if statistic == "p50" else intervals.mean)(samples)


def _blocks(workload: WorkloadResult, statistic: str) -> list[list[float]]:
    """Return the samples of each block: seconds per query, or one figure of seconds per example."""
    if statistic != "mean per example":
        return workload.blocks_s
    elapsed_s = [sum(block) for block in workload.blocks_s]
    examples = workload.examples or [workload.workload.batch * len(block) for block in workload.blocks_s]
    return [[seconds / count] for seconds, count in zip(elapsed_s, examples, strict=True)]


def _energy(a: Run, b: Run, remarks: list[str]) -> EnergyRatio | None:
    own, other = (_single_energy(run) for run in (a, b))
    if own is None or other is None or own.joules_per_example is None or other.joules_per_example is None:
        return None
    meters = EnergyMeter.of(own), EnergyMeter.of(other)
    if meters[0] != meters[1]:
        remarks.append(
            f"energies are not compared: they are of different source or meter, {meters[0]} and {meters[1]}"
        )
        return None
    interval = None
    if own.interval and other.interval:
        interval = intervals.ratio_of_intervals(
            own.joules_per_example, own.interval, other.joules_per_example, other.interval
        )
    return EnergyRatio(
        source=own.source,
        meter=own.meter,
        value=other.joules_per_example / own.joules_per_example,
        interval=interval,
    )


def _single_energy(run: Run) -> Energy | None:
    workload = run.workload(SINGLE_STREAM)
    return None if workload is None else workload.energy


def _memory(a: Run, b: Run) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, own in a.memory.items():
        other = b.memory.get(name)
        found[name] = other / own if own and other is not None else None
    return found


def _flags(run: Run) -> list[str]:
    """Return what a run is flagged for; of gates that it did not pass with what was seen."""
    failed = {gate.name for gate in run.failed_gates}
    details = [f"{gate.label}: {gate.detail}" for gate in run.failed_gates]
    return [*(flag for flag in run.flags if flag not in failed), *details]
