"""Joint resamplings of several runs: the same examples and the same rounds for every engine.

    examples   one draw of rows per resampling  -> every engine's accuracy on those rows
    rounds     one draw per session             -> every engine's latency in those rounds
    energy     its interval, engine by engine

A difficult row or a slow period of the host is thus drawn for all engines together, so that it does not
count as a difference between engines. Rounds of different sessions are drawn independently.
"""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable, Sequence

import numpy as np

from effx.analysis.cohorts import shared_labels
from effx.results import Energy, Run, WorkloadResult
from effx.stats import CONFIDENCE, intervals
from effx.stats.bootstrap import LEAST_BLOCKS
from effx.stats.metrics import METRICS

RESAMPLES = 1000
ROUNDS_OF_RARE = 20
"""Rounds below which a percentile above p90 has no interval: if a fifth of the rounds is slow, one session in
nine with ten rounds has no slow round at all, with 20 one in ninety."""
_COMMON = 0.9
_GATHERED = 20_000_000  # entries of predictions that are in memory at a time


def example_weights(n: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Return how often each of n examples is drawn, [resamples, n]; the same for the same n."""
    return _weights(n, resamples)


def scores(metric: str, runs: Sequence[Run]) -> np.ndarray:
    """Return the metric of each run in every resampling of examples, [runs, resamples].

    Args:
        metric: a name of :data:`effx.stats.metrics.METRICS`.
        runs: scored on the same rows, with every prediction.

    Raises:
        UsageError: a run lacks predictions, or their labels differ.
    """
    if not runs:
        return np.empty((0, RESAMPLES))
    labels = shared_labels(runs).astype(float)
    weights = example_weights(len(labels))
    step = max(1, _GATHERED // labels.size)
    parts = [runs[start : start + step] for start in range(0, len(runs), step)]
    result = [
        METRICS[metric].weighted(
            labels, np.array([run.quality.prediction_array for run in part], dtype=float), weights
        )
        for part in parts
    ]
    return np.concatenate(result)


def latencies(run: Run, workload: WorkloadResult, share: float | None) -> np.ndarray | None:
    """Return a percentile (``share``, 0 to 1) or the mean (None) of a workload's seconds per query.

    In every resampling of rounds, [resamples]; None with fewer than three rounds. The percentile is
    the smallest sample that the share does not exceed, as in :func:`effx.results.latency_summary`.
    """
    return _remembered(workload, (run.session, share), lambda: _latencies(run, workload, share))


def latency_interval(
    run: Run, workload: WorkloadResult, share: float | None, confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """Return the interval of a workload's percentile or mean in seconds, from resamplings of rounds.

    The resamplings give the standard error, Student's t the width: see
    :func:`effx.stats.intervals.block_interval`. None with fewer than three rounds. Few rounds decide a
    percentile above p90: it needs 20, and its interval holds that of
    :func:`effx.stats.intervals.block_quantile`, None where that has no upper end.
    """
    values = latencies(run, workload, share)
    if values is None:
        return None
    key = f"p{100 * share:.0f}" if share is not None else "mean"
    centre = workload.latency_s[key]
    if centre is None:
        return None
    least, rounds = intervals.spread_error(_of_blocks(workload.blocks_s, share)), len(set(workload.rounds))
    interval = intervals.log_interval(values, centre, rounds, least, confidence)
    if share is None or share <= _COMMON:
        return interval
    between_samples = intervals.block_quantile(_rounds_s(workload), share, confidence)
    if rounds < least_rounds(share) or between_samples is None:
        return None
    return min(interval[0], between_samples[0]), max(interval[1], between_samples[1])


def least_rounds(share: float | None) -> int:
    """Return the rounds below which a percentile (``share``, 0 to 1) or the mean (None) has no interval."""
    return LEAST_BLOCKS if share is None or share <= _COMMON else ROUNDS_OF_RARE


def _rounds_s(workload: WorkloadResult) -> list[list[float]]:
    """Return the samples of each round."""
    by_round: dict[int, list[float]] = {}
    for number, block in zip(workload.rounds, workload.blocks_s, strict=True):
        by_round.setdefault(number, []).extend(block)
    return list(by_round.values())


def _of_blocks(blocks_s: Sequence[Sequence[float]], share: float | None) -> np.ndarray:
    """Return each block's percentile or mean, [blocks]; blocks of like length at once."""
    result = np.empty(len(blocks_s))
    lengths = np.array([len(block) for block in blocks_s])
    for length in np.unique(lengths):
        positions = np.flatnonzero(lengths == length)
        samples = np.array([blocks_s[int(round_index)] for round_index in positions], dtype=float)
        result[positions] = samples.mean(axis=1) if share is None else np.quantile(samples, share, axis=1)
    return result


def throughputs(run: Run, workload: WorkloadResult) -> np.ndarray | None:
    """Return a workload's examples per second in every resampling of rounds; None below three."""
    return _remembered(workload, (run.session, "throughput"), lambda: _throughputs(run, workload))


def cpu_times(run: Run, workload: WorkloadResult) -> np.ndarray | None:
    """Return a workload's processor seconds per example in every resampling of rounds; None below three, or
    where they were not recorded.
    """
    return _remembered(workload, (run.session, "cpu time"), lambda: _cpu_times(run, workload))


def energies(run: Run, energy: Energy) -> np.ndarray | None:
    """Return joules per example as they vary within their interval, [resamples]; None without either.

    There are few windows, and their spread does not include the meter's tolerance, so they are not
    resampled: each half of the interval is taken as that of a normal distribution. The meter's tolerance is
    drawn once for all runs of one meter on one host; the rest is independent between runs.
    """
    value, interval = energy.joules_per_example, energy.interval
    if value is None or interval is None:
        return None
    of_run = _halves(value, energy.interval_without_gain or interval)
    both = _halves(value, interval)
    of_meter = [math.sqrt(max(0.0, all_**2 - run_**2)) for all_, run_ in zip(both, of_run, strict=True)]
    drawn = value + sum(
        _drawn(f"energy {name}", halves)
        for name, halves in ((run.id, of_run), (f"{energy.meter} on {run.host.id}", of_meter))
    )
    return np.asarray(np.maximum(drawn, np.finfo(float).tiny))


def _halves(value: float, interval: tuple[float, float]) -> tuple[float, float]:
    return value - interval[0], interval[1] - value


def _drawn(name: str, halves: Sequence[float]) -> np.ndarray:
    """Return deviations with these 95 % half-widths below and above zero, seeded by the name."""
    z = np.random.default_rng(list(name.encode())).standard_normal(RESAMPLES)
    return z * np.where(z < 0, *halves) / intervals.normal()


@functools.lru_cache(maxsize=4)
def _weights(n: int, resamples: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float32)  # whole numbers
    weights.setflags(write=False)
    return weights


def _round_weights(run: Run, rounds: int) -> np.ndarray:
    """Return how often each round of a run's session is drawn, [resamples, rounds]."""
    return _session_weights(run.session, rounds)


@functools.lru_cache(maxsize=4096)
def _session_weights(session: str, rounds: int) -> np.ndarray:
    rng = np.random.default_rng([rounds, *session.encode()])
    return rng.multinomial(rounds, np.full(rounds, 1 / rounds), size=RESAMPLES).astype(np.int32)


def _by_round(workload: WorkloadResult) -> tuple[np.ndarray, int]:
    """Return the index of each block's round, and the number of rounds."""
    numbers, round_index = np.unique(workload.rounds, return_inverse=True)
    return round_index, len(numbers)


def _latencies(run: Run, workload: WorkloadResult, share: float | None) -> np.ndarray | None:
    round_index, rounds = _by_round(workload)
    if rounds < LEAST_BLOCKS:
        return None
    weights = _round_weights(run, rounds)
    lengths = [len(block) for block in workload.blocks_s]
    samples, of = np.concatenate(workload.blocks_s), np.repeat(round_index, lengths)
    drawn = weights @ np.bincount(of, minlength=rounds)
    if share is None:
        return np.asarray(weights @ np.bincount(of, samples, minlength=rounds) / drawn)
    order = np.argsort(samples, kind="stable")
    samples, of = samples[order], of[order]
    # counts[i, r]: how many of round r's samples are among the i + 1 smallest
    counts = np.cumsum(of[:, None] == np.arange(rounds), axis=0, dtype=np.int32)
    wanted = np.maximum(np.ceil(share * drawn - 1e-9), 1)
    low, high = np.zeros(RESAMPLES, dtype=int), np.full(RESAMPLES, len(samples) - 1)
    while np.any(low < high):  # bisection: the first sample at which enough have been drawn
        middle = (low + high) // 2
        enough = np.einsum("ij,ij->i", counts[middle], weights) >= wanted
        high = np.where(enough, middle, high)
        low = np.where(enough, low, np.minimum(middle + 1, high))
    return np.asarray(samples[low])


def _throughputs(run: Run, workload: WorkloadResult) -> np.ndarray | None:
    if _by_round(workload)[1] < LEAST_BLOCKS:
        return None
    served = workload.elapsed_s if workload.workload.rate_per_s else None
    elapsed = served or [sum(block) for block in workload.blocks_s]
    return _quotient(run, workload, workload.examples_of_blocks, elapsed)


def _cpu_times(run: Run, workload: WorkloadResult) -> np.ndarray | None:
    if _by_round(workload)[1] < LEAST_BLOCKS or workload.cpu_s is None:
        return None
    drawn = _quotient(run, workload, workload.cpu_s, workload.examples_of_blocks)
    return np.asarray(np.maximum(drawn, np.finfo(float).tiny))


def _quotient(
    run: Run, workload: WorkloadResult, above: Sequence[float], below: Sequence[float]
) -> np.ndarray:
    """Return the quotient of two sums over blocks in every resampling of rounds, [resamples]."""
    round_index, rounds = _by_round(workload)
    weights = _round_weights(run, rounds)
    sums = [weights @ np.bincount(round_index, part, minlength=rounds) for part in (above, below)]
    return np.asarray(sums[0] / sums[1])


_REMEMBERED: dict[int, dict[tuple, np.ndarray | None]] = {}


def _remembered(
    workload: WorkloadResult, key: tuple, compute: Callable[[], np.ndarray | None]
) -> np.ndarray | None:
    """Compute once per workload object, for as long as it lives: several frontiers ask for the same."""
    cached = _REMEMBERED.get(id(workload))
    if cached is None:
        cached = _REMEMBERED[id(workload)] = {}
        weakref.finalize(workload, _REMEMBERED.pop, id(workload), None)
    if key not in cached:
        cached[key] = compute()
    return cached[key]
