"""Two engines profiled on one task and one host: what changes from a to b, with intervals.

Pure functions over results: nothing here touches disk, device or console. Accuracy is compared
example by example, latency round by round where both ran in one session:

    a   | rows 1..n |   round 1: block   round 2: block  ...
    b   | rows 1..n |   round 1: block   round 2: block  ...
        difference      ratio            ratio             -> interval

A difference is b minus a, a ratio b over a. None means not measured or not comparable, with a remark.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from effx.analysis import break_even, cohorts, sentences
from effx.analysis.break_even import Payback
from effx.analysis.cohorts import EnergyMeter
from effx.errors import UsageError, nearest
from effx.formatting import percent
from effx.results import Energy, Run, WorkloadResult
from effx.specs.workloads import SINGLE_STREAM, Length
from effx.stats import intervals, tests
from effx.stats.intervals import Ratio
from effx.stats.metrics import METRICS, same_rows

MARGIN = 0.01
"""Default of the accepted loss of accuracy; 0.01 is a point."""
LAUNCH_BOUND = 0.5
"""Launch share above which a remark says that most of a single query's time is not the encoder's work."""
NOT_ON_DEVICE = "is not spent on the device: no reduction makes that part shorter"


@dataclass(frozen=True)
class LatencyRatio:
    """Seconds of b over seconds of a for one workload."""

    scenario: str
    batch: int
    length: Length
    statistic: str
    """``p50`` or ``mean`` of the seconds per query, ``mean per example`` offline and of CPU time."""
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
    rescored: int
    """Those whose score is not the same either: other answers and rankings may be as good."""
    p_value: float | None
    """That the metric of both is the same; None where there is no interval."""
    test: str | None
    """Of the p-value: ``McNemar`` (both are right equally often), or ``paired bootstrap``."""
    p_adjusted: float | None
    """Holm's, over the comparisons with one baseline; None for a single comparison.
    See :func:`adjusted`."""
    latency: list[LatencyRatio]
    cpu_time: LatencyRatio | None
    """Processor seconds per example, single queries; None where one was not recorded."""
    energy: EnergyRatio | None
    memory: dict[str, float | None]
    """Ratios of the peaks, by the name of the memory."""
    paybacks: list[Payback]
    """After how many queries b has paid for what its checkpoint took to make beyond that of a; empty if it
    took no computation of its own, or that is not known."""
    host_overhead_shares: tuple[float | None, float | None]
    """Of a and of b, see :attr:`effx.results.Run.host_overhead_share`; None for one not timed on a device."""
    remarks: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "non_inferiority": self.non_inferiority(), "sentence": self.sentence()}

    def non_inferiority(self, margin: float = MARGIN) -> str:
        """Return whether a loss of ``margin`` is ruled out, shown, or undecided, as text."""
        return sentences.non_inferiority(self.difference, self.interval, margin, n=self.n)

    def sentence(self) -> str:
        """Return speed, accuracy and energy of b compared with a as a sentence."""
        return sentences.comparison(self)


def compare(a: Run, b: Run) -> Comparison:
    """Compare b with a.

    Raises:
        UsageError: they are of different tasks, hosts, metrics or examples, or hold no predictions, or a
            failed gate made the quality of one unavailable.
    """
    for run in (a, b):
        if reason := run.withdrawn("quality"):
            raise UsageError(f"{run.name}: its quality is unavailable: {reason}; profile the engine again.")
    cohorts.check([a, b])
    labels = cohorts.shared_labels([a, b])
    of_a, of_b = a.quality.prediction_array, b.quality.prediction_array
    metric = a.quality.metric
    answers = zip(a.quality.predictions, b.quality.predictions, strict=True)
    differing = sum(answer != other for answer, other in answers)
    remarks = [f"{run.name}: {flag}" for run in (a, b) for flag in _flags(run)]
    tested = intervals.paired_test(METRICS[metric], labels, of_a, of_b)
    rescored = int(np.sum(~same_rows(of_a, of_b)))
    if tested.interval is None:
        remarks.append(f"{rescored} differing predictions are too few for an interval of {metric}")
    remarks += cohorts.without_labels(b)
    remarks += cohorts.sessions([a, b])
    latency = _latency(a, b, remarks)
    remarks += _launches(a, b)
    return Comparison(
        a=a.name,
        b=b.name,
        results=(a.id, b.id),
        task=a.task,
        host=a.host_id,
        metric=a.quality.described,
        n=a.quality.n,
        difference=b.quality.value - a.quality.value,
        interval=tested.interval,
        differing=differing,
        rescored=rescored,
        p_value=tested.p_value,
        test=tested.name,
        p_adjusted=None,
        latency=latency,
        cpu_time=_cpu_time(a, b),
        energy=_energy(a, b, remarks),
        memory=_memory(a, b),
        paybacks=[found for name in break_even.QUANTITIES if (found := break_even.payback(name, b, a))],
        host_overhead_shares=(a.host_overhead_share, b.host_overhead_share),
        remarks=remarks,
    )


def pair(runs: Sequence[Run], a: str, b: str) -> tuple[Run, Run]:
    """Return the results of two engines, given by name or by the id of a result.

    From the latest session that has both; else the latest of each, of one task and host if possible.

    Raises:
        UsageError: there is no such engine or result; the message names the nearest one.
    """
    of_a, of_b = _newest_first(runs, a), _newest_first(runs, b)
    couples = [(first, second) for first in of_a for second in of_b if first is not second]
    alike = [couple for couple in couples if len(cohorts.by_task_and_host(couple)) == 1]
    together = [couple for couple in alike if couple[0].session == couple[1].session]
    if together:
        return max(together, key=lambda couple: min(couple[0].started, couple[1].started))
    return (alike or couples or [(of_a[0], of_b[0])])[0]


def _newest_first(runs: Sequence[Run], name: str) -> list[Run]:
    chosen = [run for run in runs if name in (run.id, run.name)]
    if not chosen:
        names = sorted({run.name for run in runs})
        near = nearest(name, [*names, *(run.id for run in runs)])
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        raise UsageError(f"no result of '{name}'.{near} Known: {', '.join(names[:10])}{more}.")
    return sorted(chosen, key=lambda run: (run.started, run.id), reverse=True)


def adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return comparisons with one baseline, their p-values adjusted for their number by Holm's rule."""
    p_values = [each.p_value for each in comparisons if each.p_value is not None]
    values = iter(tests.holm(p_values))
    return [each if each.p_value is None else replace(each, p_adjusted=next(values)) for each in comparisons]


def _latency(a: Run, b: Run, remarks: list[str]) -> list[LatencyRatio]:
    ratios = []
    paired = a.session == b.session
    for of_a, of_b in cohorts.shared_workloads(a, b):
        name = of_a.workload.name
        remarks += [f"{run.name}, {name}: {flag}" for run, w in ((a, of_a), (b, of_b)) for flag in w.flags]
        if of_a.workload.rate_per_s != of_b.workload.rate_per_s:
            remarks.append(f"{name}: not compared, as queries arrived at different rates")
            continue
        if overloaded := [run.name for run, w in ((a, of_a), (b, of_b)) if w.latency_s["mean"] is None]:
            remarks.append(f"{name}: not compared, as {' and '.join(overloaded)} could not keep up")
            continue
        for statistic in ("mean per example",) if of_a.workload.scenario == "offline" else ("p50", "mean"):
            ratio = _seconds_ratio(of_a, of_b, statistic, paired)
            value = ratio.value if ratio else _seconds(of_b, statistic) / _seconds(of_a, statistic)
            ratios.append(
                LatencyRatio(
                    scenario=of_a.workload.scenario,
                    batch=of_a.workload.batch,
                    length=of_a.workload.length,
                    statistic=statistic,
                    value=value,
                    interval=ratio.interval if ratio else None,
                    paired=paired,
                )
            )
    return ratios


def _launches(a: Run, b: Run) -> list[str]:
    """Remark where most of a single query to either is off the device: there reductions show little."""
    one, other = a.host_overhead_share, b.host_overhead_share
    if one is None or other is None or max(one, other) <= LAUNCH_BOUND:
        return []
    names = (a.name, b.name) if a.name != b.name else (a.id, b.id)
    return [
        f"{percent(one)} of the time of a single query to {names[0]}, and {percent(other)} to "
        f"{names[1]}, {NOT_ON_DEVICE}"
    ]


def _seconds_ratio(a: WorkloadResult, b: WorkloadResult, statistic: str, paired: bool) -> Ratio | None:
    measure = intervals.median if statistic == "p50" else intervals.mean
    blocks_a, blocks_b = _blocks(a, statistic), _blocks(b, statistic)
    return _ratio(blocks_a, a.rounds, blocks_b, b.rounds, measure, paired)


def _ratio(
    blocks_a: Sequence[Sequence[float]], rounds_a: Sequence[int], blocks_b: Sequence[Sequence[float]],
    rounds_b: Sequence[int], measure: Callable[[np.ndarray], float], paired: bool,
) -> Ratio | None:  # fmt: skip
    if paired:
        return intervals.paired_ratio(blocks_a, rounds_a, blocks_b, rounds_b, measure)
    return intervals.unpaired_ratio(blocks_a, blocks_b, measure)


def _cpu_time(a: Run, b: Run) -> LatencyRatio | None:
    """Return the ratio of the processor seconds per example of single queries."""
    of_a, of_b = a.workload(SINGLE_STREAM), b.workload(SINGLE_STREAM)
    if of_a is None or of_b is None or not of_a.cpu_s_per_example or not of_b.cpu_s_per_example:
        return None
    paired = a.session == b.session
    blocks_a, blocks_b = _cpu_blocks(of_a), _cpu_blocks(of_b)
    ratio = _ratio(blocks_a, of_a.rounds, blocks_b, of_b.rounds, intervals.mean, paired)
    return LatencyRatio(
        scenario=of_a.workload.scenario,
        batch=of_a.workload.batch,
        length=of_a.workload.length,
        statistic="mean per example",
        value=ratio.value if ratio else of_b.cpu_s_per_example / of_a.cpu_s_per_example,
        interval=ratio.interval if ratio else None,
        paired=paired,
    )


def _cpu_blocks(workload: WorkloadResult) -> list[list[float]]:
    """Return the processor seconds per example of each block."""
    return [
        [used / count] for used, count in zip(workload.cpu_s or (), workload.examples_of_blocks, strict=True)
    ]


def _seconds(workload: WorkloadResult, statistic: str) -> float:
    """Return the statistic of all samples, for a ratio without interval."""
    samples = np.concatenate([np.asarray(block) for block in _blocks(workload, statistic)])
    return (intervals.median if statistic == "p50" else intervals.mean)(samples)


def _blocks(workload: WorkloadResult, statistic: str) -> list[list[float]]:
    """Return the samples of each block: seconds per query, or one figure of seconds per example."""
    if statistic != "mean per example":
        return workload.blocks_s
    elapsed_s = [sum(block) for block in workload.blocks_s]
    return [[seconds / count] for seconds, count in zip(elapsed_s, workload.examples_of_blocks, strict=True)]


def _energy(a: Run, b: Run, remarks: list[str]) -> EnergyRatio | None:
    of_a, of_b = (_single_energy(run) for run in (a, b))
    if of_a is None or of_b is None or of_a.joules_per_example is None or of_b.joules_per_example is None:
        return None
    meters = EnergyMeter.of(of_a), EnergyMeter.of(of_b)
    if meters[0] != meters[1]:
        remarks.append(f"energies are not compared: sources or meters differ, {meters[0]} and {meters[1]}")
        return None
    interval = None
    # the tolerance of the meter multiplies both energies: it is not in their ratio
    within = [of.interval_without_gain or of.interval for of in (of_a, of_b)]
    if within[0] and within[1]:
        interval = intervals.ratio_of_intervals(
            of_a.joules_per_example, within[0], of_b.joules_per_example, within[1]
        )
    return EnergyRatio(
        source=of_a.source,
        meter=of_a.meter,
        value=of_b.joules_per_example / of_a.joules_per_example,
        interval=interval,
    )


def _single_energy(run: Run) -> Energy | None:
    workload = run.workload(SINGLE_STREAM)
    return None if workload is None else run.energy_of(workload)


def _memory(a: Run, b: Run) -> dict[str, float | None]:
    ratios: dict[str, float | None] = {}
    of_b = vars(b.memory)
    for name, peak in vars(a.memory).items():
        other = of_b[name]
        ratios[name] = other / peak if peak and other is not None else None
    return ratios


def _flags(run: Run) -> list[str]:
    """Return what a run is flagged for; of gates that it did not pass with what was seen."""
    failed = {gate.name for gate in run.failed_gates}
    details = [f"{gate.label}: {gate.detail}" for gate in run.failed_gates]
    return [*(flag for flag in run.flags if flag not in failed), *details]
