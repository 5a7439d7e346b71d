"""What engines are compared by: one table of objectives, each with value, interval and resamplings.

Pure functions over results. A value is None where it was not measured, and the objective says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from effx.analysis import resampling
from effx.analysis.cohorts import single_stream
from effx.errors import UsageError, unknown
from effx.results import MIN_SAMPLES, Energy, Run, WorkloadResult
from effx.specs.workloads import Workload
from effx.stats import bootstrap, intervals
from effx.stats.metrics import METRICS, same_rows

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Objective:
    """A quantity that engines are compared by: an axis of a frontier."""

    name: str
    label: str
    unit: str
    """SI, a key of :data:`effx.formatting.UNITS`; empty for a score."""
    maximise: bool
    value: Callable[[Run], float | None]
    interval: Callable[[Run], Interval]
    """95 %; None where there is none."""
    draws: Callable[[Sequence[Run]], np.ndarray]
    """Values [runs, resamples] in joint resamplings (:mod:`effx.analysis.resampling`); all have a value."""
    missing: Callable[[Run], str]
    """Why a run has no value."""
    timed: Callable[[Run], WorkloadResult | None] = single_stream
    """The workload whose rounds, or energy, it is of; for scores and sizes of no importance."""
    least_rounds: int = 0
    """Rounds below which it has no interval; 0: it is not of rounds."""

    @property
    def short(self) -> str:
        """The label without the workload, which is the same for all engines."""
        return self.label.partition(", one query")[0]

    @property
    def uses_energy(self) -> bool:
        """Whether its unit contains joules, whose source and meter must not be mixed."""
        return self.name.startswith("energy")

    @property
    def is_score(self) -> bool:
        """Whether it is a metric of the predictions."""
        return self.name in ("quality", "correct", *METRICS)


def get(name: str) -> Objective:
    """Return an objective of the table.

    Raises:
        UsageError: there is no such objective; the message names the nearest one.
    """
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    return OBJECTIVES[name]


def at(name: str, workload: Workload) -> Objective:
    """Return a cost of another workload than single queries at real lengths, such as a shape of the grid.

    Args:
        name: one of :data:`OF_WORKLOADS`.
        workload: which was measured, or not: then the objective says so.

    Raises:
        UsageError: there is no such objective; or it is not measured for each workload, such as the size on
            disk, or energy, which is not metered for shapes of the grid.
    """
    get(name)
    if name not in OF_WORKLOADS:
        raise UsageError(
            f"objective {name} is not measured for each workload: choose {', '.join(OF_WORKLOADS)}.",
            settings="objective",
        )
    of = _of_workload(_Timed.at(workload), f"throughput, {workload.name}")
    return next(objective for objective in of if objective.name == name)


def drawn_interval(objective: Objective, runs: Sequence[Run], drawn: np.ndarray, centre: float) -> Interval:
    """Return the 95 % interval of a mean of runs' costs, or of a ratio of two, from its resamplings.

    Args:
        objective: whose values are positive.
        runs: the runs; rounds count as many as the run with the fewest has.
        drawn: the mean or ratio in joint resamplings [resamples].
        centre: what was measured.

    None: it is a single reading, or there are fewer rounds than the objective needs.
    """
    if not np.ptp(drawn) > 0:
        return None
    if objective.uses_energy:
        return bootstrap.percentile_interval(drawn)
    count = min(rounds(objective, run) for run in runs)
    return None if count < objective.least_rounds else intervals.log_interval(drawn, centre, count)


def rounds(objective: Objective, run: Run) -> int:
    """Return the rounds in which a time was measured; 0: it was not."""
    workload = objective.timed(run)
    return 0 if workload is None else len(set(workload.rounds))


def rounds_setting(workload: Workload) -> str:
    """Return the setting of how many rounds a workload has, of :mod:`effx.specs.measurement`."""
    return "grid_rounds" if workload.scenario in ("grid", "offline") else "rounds"


def energy(objective: Objective, run: Run) -> Energy | None:
    """Return the energy that an objective is of, without a number if a hard gate failed; None: its workload
    was not measured.
    """
    workload = objective.timed(run)
    return None if workload is None else run.energy_of(workload)


def measures(run: Run) -> dict[str, float | None]:
    """Return the value of every objective, None where it was not measured."""
    return {objective.name: objective.value(run) for objective in OBJECTIVES.values()}


def energy_per_correct(run: Run) -> float | None:
    """Return joules per correct prediction of single queries; None without energy, or for regression."""
    joules, share = _ENERGY.value(run), _correct_value(run)
    return None if joules is None or not share else joules / share


def _constant(values: Sequence[float | None]) -> np.ndarray:
    column = np.array(values, dtype=float)[:, None]
    return np.broadcast_to(column, (len(values), resampling.RESAMPLES))


def _rows(resampled: list[np.ndarray | None], values: Sequence[float | None]) -> np.ndarray:
    """Stack resamplings [runs, resamples]; a run without any keeps its value."""
    full = [
        np.full(resampling.RESAMPLES, value) if drawn is None else drawn
        for drawn, value in zip(resampled, values, strict=True)
    ]
    return np.array(full) if full else np.empty((0, resampling.RESAMPLES))


def _score(name: str) -> Objective:
    """Return a metric of the task; ``quality`` is the primary one, whichever that is."""

    def value(run: Run) -> float | None:
        if run.withdrawn("quality"):
            return None
        return run.quality.value if name == "quality" else run.quality.metrics.get(name)

    def interval(run: Run) -> Interval:
        if run.withdrawn("quality"):
            return None
        if name in ("quality", run.quality.metric):
            return run.quality.interval
        return bootstrap.percentile_interval(draws([run])[0])

    def draws(runs: Sequence[Run]) -> np.ndarray:
        metric = runs[0].quality.metric if name == "quality" and runs else name
        return resampling.scores(metric, runs)

    def missing(run: Run) -> str:
        if reason := run.withdrawn("quality"):
            return reason
        if run.quality.reference is not None:
            return without_labels(run)
        return f"{name} is not a metric of {run.task}"

    return Objective(name, name, "", True, value, interval, draws, missing)


def without_labels(run: Run) -> str:
    """Return why a result has no metric of the task: its rows have no labels."""
    return f"the rows have no labels: {run.quality.described} was measured instead"


def _correct_value(run: Run) -> float | None:
    scored = run.quality
    if run.withdrawn("quality") or scored.reference is not None:
        return None
    if not METRICS[scored.metric].of_classes:
        return None
    if stated := [value for name, value in scored.metrics.items() if METRICS[name].is_share]:
        return stated[0]
    if not scored.predictions:
        return None
    return float(np.mean(same_rows(scored.prediction_array, scored.label_array)))


def _correct_interval(run: Run) -> Interval:
    value, n = _correct_value(run), run.quality.n
    return None if value is None else intervals.wilson(round(value * n), n)


@dataclass(frozen=True)
class _Timed:
    """Whose samples an objective is of."""

    of: Callable[[Run], WorkloadResult | None]
    label: str
    """Of the queries."""
    missing: Callable[[Run], str]
    """Why a run has no such samples."""

    @classmethod
    def at(cls, workload: Workload) -> _Timed:
        """Return that of a workload that may not have been measured."""
        return cls(
            lambda run: run.workload(workload),
            workload.name,
            lambda run: f"{workload.name} was not measured; profile the engine with it",
        )

    def drawn(
        self, runs: Sequence[Run], draw: Callable[[Run, WorkloadResult], np.ndarray | None],
        values: Sequence[float | None],
    ) -> np.ndarray:  # fmt: skip
        """Return values of runs in joint resamplings [runs, resamples]."""
        results = [(run, self.of(run)) for run in runs]
        return _rows([None if result is None else draw(run, result) for run, result in results], values)


def _latency(name: str, statistic: str, label: str, timed: _Timed) -> Objective:
    share = None if statistic == "mean" else float(statistic[1:]) / 100

    def value(run: Run) -> float | None:
        result = timed.of(run)
        return None if result is None else result.latency_s[statistic]

    def interval(run: Run) -> Interval:
        result = timed.of(run)
        return None if result is None else resampling.latency_interval(run, result, share)

    def draws(runs: Sequence[Run]) -> np.ndarray:
        return timed.drawn(
            runs, lambda run, result: resampling.latencies(run, result, share), [value(run) for run in runs]
        )

    def missing(run: Run) -> str:
        result = timed.of(run)
        if result is None:
            return timed.missing(run)
        if result.latency_s["mean"] is None:
            return (
                "the engine could not keep up with the queries: how long they wait depends on how many came"
            )
        return (
            f"{statistic} needs {MIN_SAMPLES.get(statistic, 1)} queries, "
            f"{sum(map(len, result.blocks_s))} were timed; profile with more "
            f"{rounds_setting(result.workload)}"
        )

    return Objective(
        name, f"{label} latency, {timed.label}", "s", False, value, interval, draws, missing, timed.of,
        resampling.least_rounds(share),
    )  # fmt: skip


def _throughput(name: str, label: str, timed: _Timed) -> Objective:
    def value(run: Run) -> float | None:
        result = timed.of(run)
        return None if result is None else result.throughput_per_s

    def interval(run: Run) -> Interval:
        result = timed.of(run)
        drawn = None if result is None else resampling.throughputs(run, result)
        if result is None or drawn is None:
            return None
        return intervals.log_interval(drawn, result.throughput_per_s, len(set(result.rounds)))

    def draws(runs: Sequence[Run]) -> np.ndarray:
        return timed.drawn(runs, resampling.throughputs, [value(run) for run in runs])

    return Objective(
        name, label, "1/s", True, value, interval, draws, timed.missing, timed.of, bootstrap.LEAST_BLOCKS
    )


def _cpu_time(timed: _Timed) -> Objective:
    def value(run: Run) -> float | None:
        result = timed.of(run)
        return None if result is None else result.cpu_s_per_example

    def interval(run: Run) -> Interval:
        result, centre = timed.of(run), value(run)
        drawn = None if result is None else resampling.cpu_times(run, result)
        if result is None or drawn is None or not centre:
            return None
        return intervals.log_interval(drawn, centre, len(set(result.rounds)))

    def draws(runs: Sequence[Run]) -> np.ndarray:
        return timed.drawn(runs, resampling.cpu_times, [value(run) for run in runs])

    def missing(run: Run) -> str:
        result = timed.of(run)
        if result is None:
            return timed.missing(run)
        if value(run) is not None:
            return (
                "the processor seconds are 0, which no other can be divided by: so few queries are too short "
                f"for the system's clock; profile with more {rounds_setting(result.workload)}"
            )
        return "processor seconds were not recorded; profile the engine again"

    return Objective(
        "cpu_time", f"CPU time, {timed.label}", "s", False, value, interval, draws, missing, timed.of,
        bootstrap.LEAST_BLOCKS,
    )  # fmt: skip


def _energy(label: str, timed: _Timed) -> Objective:
    def of(run: Run) -> Energy | None:
        result = timed.of(run)
        return None if result is None else run.energy_of(result)

    def value(run: Run) -> float | None:
        found = of(run)
        return None if found is None else found.joules_per_example

    def interval(run: Run) -> Interval:
        found = of(run)
        return None if found is None else found.interval

    def draws(runs: Sequence[Run]) -> np.ndarray:
        return timed.drawn(
            runs,
            lambda run, result: resampling.energies(run, run.energy_of(result)),
            [value(run) for run in runs],
        )

    def missing(run: Run) -> str:
        found = of(run)
        return timed.missing(run) if found is None else found.reason or "energy was not measured"

    return Objective("energy", label, "J/example", False, value, interval, draws, missing, timed.of)


def _of_workload(timed: _Timed, throughput: str) -> tuple[Objective, ...]:
    """Return the costs that every workload has, with the label of the throughput."""
    return (
        _latency("latency", "p50", "median", timed),
        _latency("latency_p90", "p90", "p90", timed),
        _latency("latency_p99", "p99", "p99", timed),
        _latency("latency_mean", "mean", "mean", timed),
        _cpu_time(timed),
        _throughput("throughput", throughput, timed),
    )


def _offline(run: Run) -> WorkloadResult | None:
    return next((result for result in run.workloads if result.workload.scenario == "offline"), None)


_QUERIES = _Timed(single_stream, "one query at real lengths", lambda run: "single queries were not measured")
_SINGLE = _of_workload(_QUERIES, "throughput, one query after the other")
_ENERGY = _energy("energy", _QUERIES)
OF_WORKLOADS = tuple(objective.name for objective in _SINGLE)
"""Names of the costs that every workload has, see :func:`at`."""


def _per_correct_interval(run: Run) -> Interval:
    joules, of_joules = _ENERGY.value(run), _ENERGY.interval(run)
    share, of_share = _correct_value(run), _correct_interval(run)
    if joules is None or of_joules is None or not share or of_share is None:
        return None
    return intervals.ratio_of_intervals(share, of_share, joules, of_joules)


def _per_correct_draws(runs: Sequence[Run]) -> np.ndarray:
    right = np.maximum(resampling.scores("accuracy", runs), np.finfo(float).tiny)
    return np.asarray(_ENERGY.draws(runs) / right)


def _fixed(name: str, label: str, unit: str, value: Callable[[Run], float | None], missing: str) -> Objective:
    return Objective(
        name, label, unit, False, value, lambda run: None,
        lambda runs: _constant([value(run) for run in runs]), lambda run: missing,
    )  # fmt: skip


def _no_correct(run: Run) -> str:
    if run.quality.reference is not None:
        return without_labels(run)
    return f"predictions of {run.task} are not right or wrong"


OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        _score("quality"),
        *(_score(name) for name in METRICS),
        Objective("correct", "share of correct predictions", "", True, _correct_value, _correct_interval,
                  lambda runs: resampling.scores("accuracy", runs),
                  _no_correct),
        *_SINGLE,
        _throughput(
            "throughput_offline", "throughput, offline",
            _Timed(_offline, "offline",
                   lambda run: "the offline scenario was not measured; profile with scenario offline"),
        ),
        _ENERGY,
        Objective("energy_per_correct", "energy per correct prediction", "J", False,
                  energy_per_correct, _per_correct_interval, _per_correct_draws,
                  lambda run: _ENERGY.missing(run) if _ENERGY.value(run) is None
                  else _no_correct(run)),
        _fixed("memory", "peak memory of the process", "B",
               lambda run: run.memory.host_peak_bytes, "peak memory was not measured"),
        _fixed("device_memory", "peak memory of the device", "B",
               lambda run: run.memory.device_peak_bytes, "the device's memory was not measured"),
        _fixed("size", "size on disk", "B",
               lambda run: run.engine.size_bytes, "the result does not say"),
        _fixed("parameters", "parameters", "count", lambda run: run.engine.parameters,
               "the result does not say"),
    )
}  # fmt: skip
QUALITY = OBJECTIVES["quality"]
"""The primary metric; on rows without labels the agreement with a reference engine."""
LABELLED_QUALITY = replace(
    QUALITY,
    value=lambda run: QUALITY.value(run) if run.quality.reference is None else None,
    missing=lambda run: run.withdrawn("quality") or without_labels(run),
)
"""The primary metric on rows with labels: agreement with a reference engine does not count."""
AGREEMENT = replace(
    QUALITY,
    value=lambda run: QUALITY.value(run) if run.quality.reference is not None else None,
    missing=lambda run: (
        run.withdrawn("quality") or f"the rows have labels: {run.quality.metric} was measured instead"
    ),
)
"""The primary agreement with a reference engine, on rows without labels."""
