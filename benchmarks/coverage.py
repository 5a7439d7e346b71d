"""Coverage of effx's intervals, on simulated data with known true values.

    python benchmarks/coverage.py                  # half an hour on one core, prints JSON
    python benchmarks/coverage.py --trials 4000    # half the error
    python benchmarks/coverage.py --only p_non_dominated hypervolume --trials 5000

Every number is a share of trials in percent, nominal is 95. With 1000 trials of a method that covers
95 %, two standard errors are 1.4 points.

``percentiles``: the interval of p50, p90, p99 of single queries whose blocks have something in common: a
level (its standard deviation on the logarithm; that of queries is 0.4), bursts (in a fifth of the blocks
5 % of the queries take five times as long), slow rounds (a fifth takes 1.65 times as long). ``covered`` is of
the intervals that are not refused. With ten rounds there is no slow round at all in 11 % of the trials, so no
method can cover more than 89 %: hence 20 rounds by default.

``p_non_dominated`` checks the probability that a frontier reports. ``missed_at_5`` is the share of the
truly non-dominated engines whose probability was 5 % or less, so that the report calls them dominated;
at most 5 is nominal. ``bins`` lists the mean reported probability and how often the engine was truly
non-dominated. Resampling has no prior: where engines are statistically indistinguishable, as here, the
best measurement overestimates its engine, and low probabilities are a few points too low.

Latencies are lognormal: the spread of query lengths, a level per block, and in pairs a drift over the
rounds (a random walk and a few slow rounds) that is the same for both engines.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1]))

from effx.analysis import pareto, resampling
from effx.analysis.frontier import frontier
from effx.artifacts import now
from effx.host import identity
from effx.results import MIN_SAMPLES, Energy, Run, WorkloadResult
from effx.specs.measurement import MeasurementPlan
from effx.specs.workloads import SINGLE_STREAM
from effx.stats import bootstrap, intervals
from effx.stats.intervals import LEAST_DIFFERING
from effx.stats.metrics import METRICS, Metric
from tests.analysis.simulated_run import simulated_run

QUERIES = MeasurementPlan().block_queries
ROUNDS = MeasurementPlan().rounds
EXAMPLES = 872  # SST-2's validation set
BINS = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)

ANY_RUN = simulated_run("any", n=2, rounds=1, queries=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="compute only these")
    options = parser.parse_args()
    trials = options.trials

    def rng() -> np.random.Generator:
        return np.random.default_rng(options.seed)

    parts: dict[str, Callable[[], object]] = {
        "wilson": wilson,
        "paired_accuracy": paired_accuracy,
        "paired_bootstrap": lambda: paired_bootstrap(trials, rng()),
        "percentiles": lambda: percentiles(trials, rng()),
        "paired_ratio": lambda: paired_ratio(trials, rng()),
        "unpaired_ratio": lambda: unpaired_ratio(trials, rng()),
        "p_non_dominated": lambda: p_non_dominated(max(1, trials // 5), rng()),
        "hypervolume": lambda: hypervolume(max(1, trials // 10), rng()),
    }
    names = options.only or list(parts)
    if unknown := set(names) - set(parts):
        parser.error(f"unknown name {sorted(unknown)[0]}: choose from {', '.join(parts)}")
    facts = {
        "command": " ".join(["python", "benchmarks/coverage.py", *sys.argv[1:]]),
        "date": now(),
        "host": identity.host().to_json(),
        "versions": {name: version(name) for name in ("numpy", "scipy")},
        "trials": trials,
        **{name: parts[name]() for name in names},
    }
    print(json.dumps(facts, indent=1))


def percent(covered: int | float, trials: int) -> float:
    """Return a share in percent."""
    return round(100 * float(covered) / trials, 1)


def wilson() -> dict[str, float]:
    """Coverage of Wilson's interval, summed exactly over all counts, at several accuracies."""
    bounds = np.array([intervals.wilson(right, EXAMPLES) for right in range(EXAMPLES + 1)])
    shares = {}
    for accuracy in (0.5, 0.7, 0.8, 0.9, 0.925, 0.95, 0.99):
        covered = (bounds[:, 0] <= accuracy) & (accuracy <= bounds[:, 1])
        weights = stats.binom.pmf(np.arange(EXAMPLES + 1), EXAMPLES, accuracy)
        shares[str(accuracy)] = percent(weights[covered].sum(), 1)
    return shares


def paired_accuracy() -> dict[str, float]:
    """Coverage of the paired interval, summed over all likely pairs of discordant counts."""
    shares = {}
    for only_a, only_b in (
        (0.001, 0.001),
        (0.003, 0.003),
        (0.01, 0.001),
        (0.01, 0.01),
        (0.03, 0.02),
        (0.1, 0.05),
    ):
        likely_a, likely_b = (
            np.arange(stats.binom.ppf(1e-6, EXAMPLES, p), stats.binom.ppf(1 - 1e-6, EXAMPLES, p) + 1)
            for p in (only_a, only_b)
        )
        covered = total = 0.0
        for k in likely_a.astype(int):
            for m in likely_b.astype(int):
                weight = stats.binom.pmf(k, EXAMPLES, only_a)
                weight *= stats.binom.pmf(m, EXAMPLES - k, only_b / (1 - only_a))
                if weight < 1e-6:
                    continue
                a, b = np.zeros(EXAMPLES, dtype=bool), np.zeros(EXAMPLES, dtype=bool)
                a[:k], b[k : k + m] = True, True
                low, high = intervals.paired_accuracy_interval(a, b)
                covered += weight * (low <= only_b - only_a <= high)
                total += weight
        shares[f"only a {only_a}, only b {only_b}"] = percent(covered / total, 1)
    return shares


def answers(
    rng: np.random.Generator, n: int, disagreement: float, shared: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels and two engines' predictions [n]; b differs from a on a share of rows."""
    labels = rng.integers(0, 2, n)
    a = np.where(rng.random(n) < shared, labels, 1 - labels)
    return labels, a, np.where(rng.random(n) < disagreement, 1 - a, a)


def paired_bootstrap(trials: int, rng: np.random.Generator) -> dict[str, float]:
    """Coverage of metric(b) - metric(a), by how many predictions are expected to differ."""
    shares = {}
    for name, metric, n in (("f1", METRICS["f1"], 408), ("matthews", METRICS["matthews"], 1043)):
        for differing in (12, 20, 60):
            truth = difference(metric, answers(rng, 4_000_000, differing / n, 0.85))
            drawn = [answers(rng, n, differing / n, 0.85) for _ in range(trials)]
            drawn = [
                (y, a, b) for y, a, b in drawn if np.sum(a != b) >= LEAST_DIFFERING
            ]  # with fewer there is no interval
            bounds = [bootstrap.paired_difference(metric, *answers_, resamples=1000) for answers_ in drawn]
            covered = sum(low <= truth <= high for low, high in bounds)
            shares[f"{name}, n {n}, about {differing} differ"] = percent(covered, len(drawn))
    mix = np.array([[1.0, 0.9, 0.88], [0.9, 1.0, 0.95], [0.88, 0.95, 1.0]])
    covered = 0
    for _ in range(trials):
        labels, a, b = rng.multivariate_normal(np.zeros(3), mix, 1500).T
        low, high = bootstrap.paired_difference(METRICS["pearson"], labels, a, b, resamples=1000)
        covered += low <= mix[0, 2] - mix[0, 1] <= high
    shares["pearson, n 1500"] = percent(covered, trials)
    return shares


def difference(metric: Metric, drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> float:
    labels, a, b = drawn
    return metric(labels, b) - metric(labels, a)


def latencies(
    rng: np.random.Generator,
    rounds: int,
    between: float,
    drift: np.ndarray | float = 0.0,
    queries: int = QUERIES,
) -> np.ndarray:
    """Return seconds [rounds, queries] with a median of 1 where there is no drift."""
    logs = 0.4 * rng.standard_normal((rounds, queries)) + between * rng.standard_normal((rounds, 1))
    return np.exp(logs + np.broadcast_to(drift, (rounds,))[:, None])


def shared_drift(rng: np.random.Generator, rounds: int) -> np.ndarray:
    """Return the logarithm of the host's slowness [rounds]: a walk, and some slow rounds."""
    return np.cumsum(0.1 * rng.standard_normal(rounds)) + 0.5 * (rng.random(rounds) < 0.2)


BLOCK_EFFECTS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "level 0.02": lambda rng, rounds, queries: 0.02 * rng.standard_normal((rounds, 1)),
    "level 0.1": lambda rng, rounds, queries: 0.1 * rng.standard_normal((rounds, 1)),
    "level 0.3": lambda rng, rounds, queries: 0.3 * rng.standard_normal((rounds, 1)),
    "bursts": lambda rng, rounds, queries: (
        np.log(5) * ((rng.random((rounds, 1)) < 0.2) & (rng.random((rounds, queries)) < 0.05))
    ),
    "slow rounds": lambda rng, rounds, queries: 0.5 * (rng.random((rounds, 1)) < 0.2),
}
"""What the queries of a block have in common, added to the logarithm of their seconds [rounds, queries]."""


def with_effect(rng: np.random.Generator, effect: str, rounds: int, queries: int) -> np.ndarray:
    """Return seconds [rounds, queries]."""
    return np.exp(0.4 * rng.standard_normal((rounds, queries)) + BLOCK_EFFECTS[effect](rng, rounds, queries))


def percentiles(trials: int, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """Coverage of the interval of a percentile, and how often it is refused, by rounds and effect."""
    shares = {}
    for effect in BLOCK_EFFECTS:
        many = with_effect(np.random.default_rng(1), effect, 40_000, 50)
        for rounds, queries in ((5, 70), (10, 70), (ROUNDS, QUERIES)):
            for share in (0.5, 0.9, 0.99):
                if rounds * queries < MIN_SAMPLES.get(f"p{round(100 * share)}", 1):
                    continue
                truth, covered, refused = float(np.quantile(many, share)), 0, 0
                for _ in range(trials):
                    run = timed(with_effect(rng, effect, rounds, queries))
                    interval = resampling.latency_interval(run, run.workloads[0], share)
                    refused += interval is None
                    covered += interval is not None and interval[0] <= truth <= interval[1]
                name = f"p{round(100 * share)}, {rounds} rounds of {queries}, {effect}"
                shares[name] = {"refused": percent(refused, trials)}
                if refused < trials:
                    shares[name]["covered"] = percent(covered, trials - refused)
    return shares


def timed(seconds: np.ndarray) -> Run:
    """Return a run of single queries [rounds, queries]."""
    none = Energy("none", "none", "simulated")
    rounds = list(range(len(seconds)))
    return replace(ANY_RUN, workloads=[WorkloadResult(SINGLE_STREAM, seconds.tolist(), rounds, none)])


def paired_ratio(trials: int, rng: np.random.Generator) -> dict[str, float]:
    """Coverage of a ratio of 0.6 between engines that share the host's drift; other effects are their own."""
    shares = {}
    for name, statistic in (("median", intervals.median), ("mean", intervals.mean)):
        for rounds, queries in ((3, 70), (5, 4), (10, 70), (ROUNDS, QUERIES)):
            for effect in BLOCK_EFFECTS:
                covered = 0
                for _ in range(trials):
                    drift = np.exp(shared_drift(rng, rounds))[:, None]
                    a, b = (drift * with_effect(rng, effect, rounds, queries) for _ in range(2))
                    order = list(range(rounds))
                    ratio = intervals.paired_ratio(a.tolist(), order, (0.6 * b).tolist(), order, statistic)
                    assert ratio is not None
                    covered += ratio.interval[0] <= 0.6 <= ratio.interval[1]
                shares[f"{name}, {rounds} rounds of {queries}, {effect}"] = percent(covered, trials)
    return shares


def unpaired_ratio(trials: int, rng: np.random.Generator) -> dict[str, float]:
    """Coverage of a ratio of 0.6 on a steady host, and where the host drifted in both sessions."""
    shares = {}
    for name, drifts in (("steady", False), ("drifting", True)):
        covered = 0
        for _ in range(trials):
            a, b = (
                latencies(rng, ROUNDS, 0.05, shared_drift(rng, ROUNDS) if drifts else 0.0) for _ in range(2)
            )
            ratio = intervals.unpaired_ratio(a.tolist(), (0.6 * b).tolist())
            assert ratio is not None
            covered += ratio.interval[0] <= 0.6 <= ratio.interval[1]
        shares[name] = percent(covered, trials)
    return shares


def p_non_dominated(trials: int, rng: np.random.Generator) -> dict[str, object]:
    """Reported probability against frequency, for four statistically indistinguishable engines."""
    reported, true = [], []
    for _ in range(trials):
        accuracies, seconds = rng.uniform(0.86, 0.90, 4), np.exp(rng.uniform(-0.1, 0.1, 4))
        measured = frontier(engines(rng, accuracies, seconds))
        for point in measured.points:
            index = int(point.run.name)
            better = (accuracies > accuracies[index]) & (seconds < seconds[index])
            reported.append(point.p_non_dominated)
            true.append(not better.any())
    bin_numbers = np.clip(np.digitize(reported, BINS) - 1, 0, len(BINS) - 2)
    missed = np.array(reported)[np.array(true)] <= BINS[1]
    bins = [
        {
            "from": BINS[bin_number],
            "to": BINS[bin_number + 1],
            "points": int(np.sum(bin_numbers == bin_number)),
            "reported": percent(np.array(reported)[bin_numbers == bin_number].mean(), 1),
            "true": percent(np.array(true)[bin_numbers == bin_number].mean(), 1),
        }
        for bin_number in sorted(set(bin_numbers.tolist()))
    ]
    return {"engines": len(true), "missed_at_5": percent(missed.mean(), 1), "bins": bins}


def hypervolume(trials: int, rng: np.random.Generator) -> dict[str, float]:
    """Coverage of the interval of a frontier's hypervolume, the true value computed in the same box."""
    shares = {}
    for count in (3, 8, 30):
        covered = 0
        for _ in range(trials):
            accuracies, seconds = rng.uniform(0.84, 0.92, count), np.exp(rng.uniform(-1, 1, count))
            seen = frontier(engines(rng, accuracies, seconds))
            indices = np.array([int(point.run.name) for point in seen.points])
            values = np.array([[-point.values["quality"], point.values["latency"]] for point in seen.points])
            level = np.median(values[:, 1] / seconds[indices])  # the drift that all engines share
            worst = values.max(axis=0) * [1.0, 1.1]
            box = (worst[0] - values[:, 0].min()) * worst[1]
            truth = np.column_stack([-accuracies, level * seconds])
            interval = seen.hypervolume_interval
            assert interval is not None
            covered += interval[0] <= pareto.hypervolume(truth, worst) / box <= interval[1]
        shares[f"{count} engines"] = percent(covered, trials)
    return shares


def engines(rng: np.random.Generator, accuracies: np.ndarray, seconds: np.ndarray) -> list[Run]:
    """Return runs of engines whose errors are correlated, measured in one session."""
    hardness = rng.standard_normal(EXAMPLES)
    drift = shared_drift(rng, ROUNDS)
    runs = []
    for index, (accuracy, median_s) in enumerate(zip(accuracies, seconds, strict=True)):
        ease = (2 * hardness + rng.standard_normal(EXAMPLES)) / np.sqrt(5)
        wrong = np.flatnonzero(ease >= stats.norm.ppf(accuracy))
        run = simulated_run(str(index), wrong, n=EXAMPLES, rounds=1, queries=1)
        runs.append(replace(run, workloads=timed(median_s * latencies(rng, ROUNDS, 0.05, drift)).workloads))
    return runs


if __name__ == "__main__":
    main()
