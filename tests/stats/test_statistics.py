from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats import contingency_tables, multitest, proportion

from effx.analysis import frontier as frontiers
from effx.results import Accuracy, Energy, Run, Workload, latency_summary
from effx.stats import metrics, statistics


def holds(covered: float, trials: int, nominal: float = 0.95) -> bool:
    """Whether a share of trials is within 2 points of nominal, give or take 3 standard errors."""
    return abs(covered / trials - nominal) <= 0.02 + 3 * np.sqrt(nominal * (1 - nominal) / trials)


def paired(n: int, only_a: int, only_b: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    a[:only_a], b[only_a : only_a + only_b] = True, True
    return a, b


def latencies(rng: np.random.Generator, drift: np.ndarray, queries: int = 70) -> list[list[float]]:
    """Blocks whose samples share a level and the host's drift; the median is 1 without drift."""
    level = 0.05 * rng.standard_normal((len(drift), 1)) + drift[:, None]
    return np.exp(level + 0.4 * rng.standard_normal((len(drift), queries))).tolist()  # type: ignore[no-any-return]


def test_wilson_by_formula() -> None:
    n, k, z = 872, 752, 1.959963984540054
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert statistics.wilson(k, n) == pytest.approx((centre - half, centre + half))


@pytest.mark.parametrize("right", [0, 1, 436, 806, 871, 872])
def test_wilson_as_statsmodels(right: int) -> None:
    expected = proportion.proportion_confint(right, 872, method="wilson")
    assert statistics.wilson(right, 872) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("accuracy", [0.6, 0.8, 0.9, 0.925, 0.95])
def test_wilson_covers(accuracy: float) -> None:
    """Summed over all counts, so there is no error of simulation."""
    intervals = np.array([statistics.wilson(right, 872) for right in range(873)])
    held = (intervals[:, 0] <= accuracy) & (accuracy <= intervals[:, 1])
    assert stats.binom.pmf(np.arange(873), 872, accuracy)[held].sum() == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 5), (6, 16), (16, 6), (40, 41), (120, 3)])
def test_mcnemar_as_statsmodels_and_binomial_test(only_a: int, only_b: int) -> None:
    value = statistics.mcnemar(*paired(872, only_a, only_b))
    expected = contingency_tables.mcnemar([[700, only_a], [only_b, 10]], exact=True).pvalue
    assert value == pytest.approx(expected, rel=1e-9)
    tail = stats.binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)
    assert value == pytest.approx(min(1.0, 2 * tail), rel=1e-9)


def test_mcnemar_refuses_other_examples() -> None:
    with pytest.raises(ValueError, match="same examples"):
        statistics.mcnemar(np.array([True]), np.array([True, False]))


def test_published_paired_table() -> None:
    """Complete response before and after therapy (Cavo et al. 2012): 59, 6, 16, 80."""
    before, after = paired(161, 6, 16)
    assert statistics.mcnemar(before, after) == pytest.approx(0.052479, abs=1e-6)
    # Fagerland, Lydersen and Laake 2017, chapter 8: Tango, the difference taken the other way round
    low, high = statistics.paired_accuracy_interval(before, after)
    assert (-high, -low) == pytest.approx((-0.1240, -0.0054), abs=1e-4)


@pytest.mark.parametrize(
    ("n", "only_a", "only_b"), [(872, 0, 0), (872, 9, 3), (44, 0, 1), (30, 1, 25), (5, 5, 0)]
)
def test_paired_interval_ends_where_the_score_test_rejects(n: int, only_a: int, only_b: int) -> None:
    """The variance under each end, from a likelihood that is maximised by search."""
    difference = (only_b - only_a) / n
    for end in statistics.paired_accuracy_interval(*paired(n, only_a, only_b)):
        if abs(end) == 1.0:
            assert difference == end
            continue

        def loss(share: float, end: float = end) -> float:  # share: of "only a"
            cells = np.array([share, share + end, 1 - 2 * share - end])
            counts = np.array([only_a, only_b, n - only_a - only_b])
            with np.errstate(divide="ignore"):
                return -float(np.sum(np.where(counts > 0, counts * np.log(np.maximum(cells, 1e-300)), 0.0)))

        found = optimize.minimize_scalar(
            loss, bounds=(max(0.0, -end), (1 - end) / 2), method="bounded", options={"xatol": 1e-12}
        )
        variance = 2 * found.x + end - end**2
        assert n * (difference - end) ** 2 / variance == pytest.approx(1.959964**2, rel=1e-3)


def test_no_differing_example_still_has_an_interval() -> None:
    """Zero of n: the share that z rejects is z^2 / (n + z^2)."""
    low, high = statistics.paired_accuracy_interval(*paired(872, 0, 0))
    assert (low, high) == pytest.approx((-3.8415 / 875.8415, 3.8415 / 875.8415), rel=1e-4)


@pytest.mark.parametrize(("only_a", "only_b"), [(0.002, 0.002), (0.01, 0.002), (0.03, 0.02)])
def test_paired_interval_covers_at_small_discordance(only_a: float, only_b: float) -> None:
    """A score interval of so few counts may hold the truth too often, never much too seldom."""
    rng = np.random.default_rng(0)
    draws, times = np.unique(
        rng.multinomial(872, [only_a, only_b, 1 - only_a - only_b], 4000), axis=0, return_counts=True
    )
    covered = 0
    for (k, m, _), count in zip(draws, times, strict=True):
        low, high = statistics.paired_accuracy_interval(*paired(872, k, m))
        covered += count * (low <= only_b - only_a <= high)
    assert 0.93 <= covered / 4000 <= 0.99


def test_holm_as_statsmodels_and_by_hand() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([]) == []
    rng = np.random.default_rng(0)
    for n in range(1, 20):
        values = rng.random(n) ** 3
        values[rng.integers(n)] = values[0]  # a tie
        expected = multitest.multipletests(values, method="holm")[1]
        assert statistics.holm(values.tolist()) == pytest.approx(expected)


@pytest.mark.parametrize("metric", metrics.METRICS.values(), ids=metrics.METRICS)
def test_many_metrics_at_once_are_the_metric(metric: metrics.Metric) -> None:
    """The values behind the interval are those of the metric itself, one by one."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3 if metric in (metrics.macro_f1, metrics.matthews) else 2, 40)
    a, b = (np.where(rng.random(40) < 0.7, labels, rng.permutation(labels)) for _ in range(2))
    if metric in (metrics.pearson, metrics.spearman):
        labels, a, b = (np.round(rng.normal(size=40) + labels, 1) for _ in range(3))  # with ties

    def same(labels: np.ndarray, predictions: np.ndarray) -> float:
        return metric(labels, predictions)

    fast = statistics.paired_bootstrap(metric, labels, a, b, resamples=100)
    assert fast == pytest.approx(statistics.paired_bootstrap(same, labels, a, b, resamples=100))
    assert fast[0] < fast[1]


def test_metrics_of_a_constant_are_zero_at_once_too() -> None:
    labels, right, constant = np.array([0, 1] * 20), np.array([0, 1] * 20), np.zeros(40, dtype=int)
    for metric in (metrics.matthews, metrics.pearson, metrics.f1):
        interval = statistics.paired_bootstrap(metric, labels, right, constant, resamples=50)
        assert interval == pytest.approx((-1.0, -1.0))


def test_paired_bootstrap_covers_a_difference_of_f1() -> None:
    rng = np.random.default_rng(0)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        labels = rng.integers(0, 2, n)
        a = np.where(rng.random(n) < 0.85, labels, 1 - labels)
        return labels, a, np.where(rng.random(n) < 0.1, 1 - a, a)

    labels, a, b = draw(2_000_000)
    truth = metrics.f1(labels, b) - metrics.f1(labels, a)
    intervals = [statistics.paired_bootstrap(metrics.f1, *draw(400), resamples=250) for _ in range(600)]
    assert holds(sum(low <= truth <= high for low, high in intervals), 600)  # unpaired: 100 %


@pytest.mark.parametrize(("rounds", "share"), [(5, 0.5), (10, 0.9)])
def test_block_interval_covers_with_few_correlated_blocks(rounds: int, share: float) -> None:
    """Percentiles of the resamplings hold the truth in 84 % at five blocks, and 89 % at ten."""
    rng = np.random.default_rng(0)
    truth = np.exp(np.hypot(0.05, 0.4) * stats.norm.ppf(share))
    covered, trials = 0, 90
    for trial in range(trials):
        blocks = latencies(rng, np.zeros(rounds), 30)
        low, high = statistics.block_interval(blocks, lambda s: float(np.quantile(s, share)), seed=trial)
        covered += low <= truth <= high
    assert holds(covered, trials)


def test_block_interval_of_equal_blocks_is_student_on_logarithms() -> None:
    """Of single samples, the mean's standard error over blocks is known without resampling."""
    logs = np.random.default_rng(0).normal(0, 0.01, 4)
    low, high = statistics.block_interval([[value] for value in np.exp(logs)], statistics.mean)
    expected = stats.ttest_1samp(logs, 0.0).confidence_interval()
    assert np.log(high / low) == pytest.approx(expected.high - expected.low, rel=0.07)
    assert np.sqrt(low * high) == pytest.approx(np.exp(logs).mean(), rel=1e-9)


@pytest.mark.parametrize("statistic", [statistics.median, statistics.mean])
@pytest.mark.parametrize("rounds", [3, 10])
def test_paired_ratio_covers_under_shared_drift(statistic: statistics.Statistic, rounds: int) -> None:
    rng = np.random.default_rng(0)
    order, trials = list(range(rounds)), 600
    covered = unpaired = 0
    for _ in range(trials):
        drift = np.cumsum(0.1 * rng.standard_normal(rounds)) + 0.5 * (rng.random(rounds) < 0.2)
        a, b = latencies(rng, drift), [[0.6 * s for s in block] for block in latencies(rng, drift)]
        low, high = statistics.paired_ratio(a, order, b, order, statistic).interval
        covered += low <= 0.6 <= high
        wide = statistics.unpaired_ratio(a, b, statistic).interval
        unpaired += wide[1] / wide[0] > high / low
    assert holds(covered, trials)
    if rounds == 10:
        assert unpaired > 0.9 * trials  # the drift is gone from the pairs only


def test_unpaired_ratio_covers_on_a_steady_host() -> None:
    rng = np.random.default_rng(0)
    intervals = [
        statistics.unpaired_ratio(latencies(rng, np.zeros(10)), latencies(rng, np.zeros(6))).interval
        for _ in range(600)
    ]
    assert holds(sum(low <= 1.0 <= high for low, high in intervals), 600)


def test_paired_ratio_by_hand() -> None:
    """Rounds that only one engine has are left out, blocks of one round are put together."""
    a = [[1.0], [9.0], [2.0], [4.0, 4.0], [4.0]]
    b = [[2.0], [4.0], [8.0, 8.0], [7.0]]
    ratio = statistics.paired_ratio(a, [0, 7, 1, 2, 2], b, [0, 1, 2, 9])
    assert ratio.value == pytest.approx(2.0)
    assert ratio.interval == pytest.approx((2.0, 2.0))
    uneven = statistics.paired_ratio([[1.0]] * 3, [0, 1, 2], [[1.0], [2.0], [4.0]], [0, 1, 2])
    expected = stats.ttest_1samp(np.log([1.0, 2.0, 4.0]), 0.0).confidence_interval()
    assert uneven.interval == pytest.approx(np.exp([expected.low, expected.high]))
    assert statistics.paired_ratio(a[:3], [0, 7, 1], b, [0, 1, 2, 9]) is None


def test_unpaired_ratio_is_welch_on_logarithms() -> None:
    a, b = [[1.0], [1.1], [1.3], [0.9]], [[2.0], [2.6], [2.2]]
    expected = stats.ttest_ind(np.log(b), np.log(a), equal_var=False).confidence_interval()
    ratio = statistics.unpaired_ratio(a, b)
    assert ratio.interval == pytest.approx((np.exp(expected.low)[0], np.exp(expected.high)[0]))
    assert statistics.unpaired_ratio(a, b[:2]) is None
    assert statistics.unpaired_ratio([[2.0]] * 3, [[1.0]] * 3) == statistics.Ratio(0.5, (0.5, 0.5))


def test_ratio_of_intervals() -> None:
    """With a's known exactly it is b's interval over a; one that reaches 0 says nothing."""
    assert statistics.ratio_of_intervals(2.0, (2.0, 2.0), 3.0, (2.0, 5.0)) == pytest.approx((1.0, 2.5))
    assert statistics.ratio_of_intervals(2.0, (1.0, 4.0), 2.0, (2.0, 2.0)) == pytest.approx((0.5, 2.0))
    assert statistics.ratio_of_intervals(2.0, (-1.0, 5.0), 3.0, (2.0, 5.0)) is None


def test_p_non_dominated_is_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the points to which a frontier gives about P, a share of about P is truly non-dominated."""
    monkeypatch.setattr(statistics, "block_interval", lambda *_: None)  # slow, and not at issue here
    rng = np.random.default_rng(0)
    reported, true = [], []
    for _ in range(35):
        accuracies, seconds = rng.uniform(0.86, 0.90, 8), np.exp(rng.uniform(-0.1, 0.1, 8))
        for point in frontiers.frontier(_runs(rng, accuracies, seconds)).points:
            own = int(point.run.name)
            reported.append(point.p_non_dominated)
            true.append(not ((accuracies > accuracies[own]) & (seconds < seconds[own])).any())
    chances, truths = np.array(reported), np.array(true)
    for low, high in ((0.0, 0.1), (0.1, 0.5), (0.5, 1.0)):
        chosen = (low <= chances) & (chances <= high)
        mean = chances[chosen].mean()
        error = np.sqrt(mean * (1 - mean) / chosen.sum())
        assert abs(truths[chosen].mean() - mean) <= 0.05 + 3 * error, (low, high)


def _runs(rng: np.random.Generator, accuracies: np.ndarray, seconds: np.ndarray) -> list[Run]:
    """Engines that err on much the same rows and share the host's drift."""
    n, rounds = 872, 10
    hardness, drift = rng.standard_normal(n), np.cumsum(0.1 * rng.standard_normal(rounds))
    runs = []
    for index, (accuracy, own) in enumerate(zip(accuracies, seconds, strict=True)):
        ease = (2 * hardness + rng.standard_normal(n)) / np.sqrt(5)
        right = (ease < stats.norm.ppf(accuracy)).astype(float)
        blocks = [[own * sample for sample in block] for block in latencies(rng, drift)]
        single = Workload(
            "single-stream", 1, "real", "end-to-end", blocks, list(range(rounds)), Energy("none", "none", "")
        )
        scored = Accuracy("accuracy", right.mean(), n, (0.0, 1.0), {}, right.tolist(), [1.0] * n, "rows")
        engine = {"name": str(index), "task": "sst2", "precision": "fp32", "size_bytes": 0}
        runs.append(Run(str(index), "0", engine, {"id": "h"}, scored, [single], {}, {}, "s"))
    return runs


def test_too_few_blocks_have_no_interval() -> None:
    assert statistics.block_interval([[1.0], [2.0]]) is None
    assert statistics.mean_interval([1.0]) is None


def test_bootstrap_metric_brackets_the_value() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    predictions = np.where(rng.random(300) < 0.8, labels, 1 - labels)
    low, high = statistics.bootstrap_metric(metrics.matthews, labels, predictions, resamples=200)
    assert low < metrics.matthews(labels, predictions) < high


def test_percentiles_are_refused_below_their_counts() -> None:
    assert latency_summary([[0.1] * 63])["p90"] is None
    assert latency_summary([[0.1] * 64])["p90"] == 0.1
    assert latency_summary([[0.1] * 661])["p99"] is None
    assert latency_summary([list(np.arange(662) / 1000)])["p99"] == 0.655
