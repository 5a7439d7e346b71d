"""What engines are compared by: one table of objectives, each with value, interval and resamplings.

Pure functions over results. A value is None where it was not measured, and the objective says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from effx.analysis import resampling
from effx.analysis.cohorts import energy_of, single_stream
from effx.errors import unknown
from effx.results import MIN_SAMPLES, Run, WorkloadResult
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


def drawn_interval(objective: Objective, runs: Sequence[Run], drawn: np.ndarray, centre: float) -> Interval:
    """Return the 95 % interval of a mean of runs' costs, or of a ratio of two, from its resamplings.

    Args:
        objective: whose values are positive.
        runs: the runs; rounds count as many as the run with the fewest has.
        drawn: the mean or ratio in joint resamplings [resamples].
        centre: what was measured.

    None: it is a single reading, or there are fewer than three rounds.
    """
    if not np.ptp(drawn) > 0:
        return None
    if objective.uses_energy:
        return bootstrap.percentile_interval(drawn)
    count = min(rounds(objective, run) for run in runs)
    return None if count < bootstrap.LEAST_BLOCKS else intervals.log_interval(drawn, centre, count)


def rounds(objective: Objective, run: Run) -> int:
    """Return the rounds in which a time was measured: those of single queries, or of the offline scenario."""
    workload = single_stream(run)
    if objective.name.endswith("_offline"):
        workload = next(each for each in run.workloads if each.workload.scenario == "offline")
    return len(set(workload.rounds))


def measures(run: Run) -> dict[str, float | None]:
    """Return the value of every objective, None where it was not measured."""
    return {objective.name: objective.value(run) for objective in OBJECTIVES.values()}


def energy_per_correct(run: Run) -> float | None:
    """Return joules per correct prediction of single queries; None without energy, or for regression."""
    joules, share = _joules(run), _correct_value(run)
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


def _latency(name: str, statistic: str, label: str) -> Objective:
    share = None if statistic == "mean" else float(statistic[1:]) / 100

    def value(run: Run) -> float | None:
        return single_stream(run).latency_s[statistic]

    def draws(runs: Sequence[Run]) -> np.ndarray:
        drawn = [resampling.latencies(run, single_stream(run), share) for run in runs]
        return _rows(drawn, [value(run) for run in runs])

    return Objective(
        name, f"{label} latency, one query at real lengths", "s", False, value,
        lambda run: resampling.latency_interval(run, single_stream(run), share), draws,
        lambda run: f"{statistic} needs {MIN_SAMPLES.get(statistic, 1)} queries, "
        f"{sum(map(len, single_stream(run).blocks_s))} were timed; profile with more rounds",
    )  # fmt: skip


def _throughput(name: str, scenario: str, label: str) -> Objective:
    def of(run: Run) -> WorkloadResult | None:
        return next((result for result in run.workloads if result.workload.scenario == scenario), None)

    def value(run: Run) -> float | None:
        workload = of(run)
        return None if workload is None else workload.throughput_per_s

    def interval(run: Run) -> Interval:
        workload = of(run)
        drawn = None if workload is None else resampling.throughputs(run, workload)
        if workload is None or drawn is None:
            return None
        return intervals.log_interval(drawn, workload.throughput_per_s, len(set(workload.rounds)))

    def draws(runs: Sequence[Run]) -> np.ndarray:
        workloads = [(run, of(run)) for run in runs]
        drawn = [
            None if workload is None else resampling.throughputs(run, workload) for run, workload in workloads
        ]
        return _rows(drawn, [value(run) for run in runs])

    return Objective(
        name, label, "1/s", True, value, interval, draws,
        lambda run: f"the {scenario} scenario was not measured; profile with scenario {scenario}",
    )  # fmt: skip


def _cpu_time(run: Run) -> float | None:
    return single_stream(run).cpu_s_per_example


def _cpu_time_interval(run: Run) -> Interval:
    single, value = single_stream(run), _cpu_time(run)
    drawn = resampling.cpu_times(run, single)
    if drawn is None or not value:
        return None
    return intervals.log_interval(drawn, value, len(set(single.rounds)))


def _cpu_time_draws(runs: Sequence[Run]) -> np.ndarray:
    drawn = [resampling.cpu_times(run, single_stream(run)) for run in runs]
    return _rows(drawn, [_cpu_time(run) for run in runs])


def _joules(run: Run) -> float | None:
    return energy_of(run).joules_per_example


def _joule_draws(runs: Sequence[Run]) -> np.ndarray:
    drawn = [resampling.energies(run, energy_of(run)) for run in runs]
    return _rows(drawn, [_joules(run) for run in runs])


def _no_energy(run: Run) -> str:
    return energy_of(run).reason or "energy was not measured"


def _per_correct_interval(run: Run) -> Interval:
    joules, of_joules = _joules(run), energy_of(run).interval
    share, of_share = _correct_value(run), _correct_interval(run)
    if joules is None or of_joules is None or not share or of_share is None:
        return None
    return intervals.ratio_of_intervals(share, of_share, joules, of_joules)


def _per_correct_draws(runs: Sequence[Run]) -> np.ndarray:
    right = np.maximum(resampling.scores("accuracy", runs), np.finfo(float).tiny)
    return np.asarray(_joule_draws(runs) / right)


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
        _latency("latency", "p50", "median"),
        _latency("latency_p90", "p90", "p90"),
        _latency("latency_p99", "p99", "p99"),
        _latency("latency_mean", "mean", "mean"),
        Objective("cpu_time", "CPU time, one query at real lengths", "s", False, _cpu_time,
                  _cpu_time_interval, _cpu_time_draws,
                  lambda run: "processor seconds were not recorded; profile the engine again"),
        _throughput("throughput", "single-stream", "throughput, one query after the other"),
        _throughput("throughput_offline", "offline", "throughput, offline"),
        Objective("energy", "energy", "J/example", False, _joules,
                  lambda run: energy_of(run).interval, _joule_draws, _no_energy),
        Objective("energy_per_correct", "energy per correct prediction", "J", False,
                  energy_per_correct, _per_correct_interval, _per_correct_draws,
                  lambda run: _no_energy(run) if _joules(run) is None
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
