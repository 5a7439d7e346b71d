from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats import proportion

from effx.stats import intervals, tests
from effx.stats.metrics import METRICS
from tests.stats.simulated import holds, latencies, paired_right


@pytest.mark.parametrize("right", [0, 1, 436, 806, 871, 872])
def test_wilson_as_statsmodels(right: int) -> None:
    expected = proportion.proportion_confint(right, 872, method="wilson")
    assert intervals.wilson(right, 872) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("accuracy", [0.6, 0.8, 0.9, 0.925, 0.95])
def test_wilson_covers(accuracy: float) -> None:
    """Summed over all counts, so there is no error of simulation."""
    bounds = np.array([intervals.wilson(right, 872) for right in range(873)])
    held = (bounds[:, 0] <= accuracy) & (accuracy <= bounds[:, 1])
    assert stats.binom.pmf(np.arange(873), 872, accuracy)[held].sum() == pytest.approx(0.95, abs=0.02)


def test_published_paired_table() -> None:
    """Complete response before and after therapy (Cavo et al. 2012): 59, 6, 16, 80."""
    before, after = paired_right(161, 6, 16)
    assert tests.mcnemar(before, after) == pytest.approx(0.052479, abs=1e-6)
    # Fagerland, Lydersen and Laake 2017, chapter 8: Tango, the difference taken the other way round
    low, high = intervals.paired_accuracy_interval(before, after)
    assert (-high, -low) == pytest.approx((-0.1240, -0.0054), abs=1e-4)


@pytest.mark.parametrize(
    ("n", "only_a", "only_b"), [(872, 0, 0), (872, 9, 3), (44, 0, 1), (30, 1, 25), (5, 5, 0)]
)
def test_paired_interval_ends_where_the_score_test_rejects(n: int, only_a: int, only_b: int) -> None:
    """The variance under each end, from a likelihood that is maximised by search."""
    difference = (only_b - only_a) / n
    for end in intervals.paired_accuracy_interval(*paired_right(n, only_a, only_b)):
        if abs(end) == 1.0:
            assert difference == end
            continue

        def loss(share: float, end: float = end) -> float:  # share: of "only a"
            cells = np.array([share, share + end, 1 - 2 * share - end])
            counts = np.array([only_a, only_b, n - only_a - only_b])
            with np.errstate(divide="ignore"):
                return -float(np.sum(np.where(counts > 0, counts * np.log(np.maximum(cells, 1e-300)), 0.0)))

        optimum = optimize.minimize_scalar(
            loss, bounds=(max(0.0, -end), (1 - end) / 2), method="bounded", options={"xatol": 1e-12}
        )
        variance = 2 * optimum.x + end - end**2
        assert n * (difference - end) ** 2 / variance == pytest.approx(1.959964**2, rel=1e-3)


def test_no_differing_example_still_has_an_interval() -> None:
    """Zero of n: the share that z rejects is z^2 / (n + z^2)."""
    low, high = intervals.paired_accuracy_interval(*paired_right(872, 0, 0))
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
        low, high = intervals.paired_accuracy_interval(*paired_right(872, k, m))
        covered += count * (low <= only_b - only_a <= high)
    assert 0.93 <= covered / 4000 <= 0.99


def quantile(samples: np.ndarray, share: float) -> float:
    """As ``np.quantile``, whose preparations take most of its time on few samples."""
    index = share * (len(samples) - 1)
    low, high = np.partition(samples, [math.floor(index), math.ceil(index)])[
        [math.floor(index), math.ceil(index)]
    ]
    return float(low + (high - low) * (index - math.floor(index)))


def test_quantile_as_numpy() -> None:
    samples = np.random.default_rng(0).normal(size=301)
    for share in (0.0, 0.5, 0.9, 1.0):
        assert quantile(samples, share) == pytest.approx(np.quantile(samples, share), rel=1e-12)


@pytest.mark.parametrize(("rounds", "share"), [(5, 0.5), (10, 0.9)])
def test_block_interval_covers_with_few_correlated_blocks(rounds: int, share: float) -> None:
    """Percentiles of the resamplings hold the truth in 84 % at five blocks, and 89 % at ten."""
    rng = np.random.default_rng(0)
    truth = np.exp(np.hypot(0.05, 0.4) * stats.norm.ppf(share))
    covered, trials = 0, 90
    for trial in range(trials):
        blocks = latencies(rng, np.zeros(rounds), 30)
        low, high = intervals.block_interval(blocks, lambda s: quantile(s, share), seed=trial)
        covered += low <= truth <= high
    assert holds(covered, trials)


def test_block_interval_of_equal_blocks_is_student_on_logarithms() -> None:
    """Of single samples, the mean's standard error over blocks is known without resampling."""
    logs = np.random.default_rng(0).normal(0, 0.01, 4)
    low, high = intervals.block_interval([[value] for value in np.exp(logs)], intervals.mean)
    expected = stats.ttest_1samp(logs, 0.0).confidence_interval()
    assert np.log(high / low) == pytest.approx(expected.high - expected.low, rel=0.07)
    assert np.sqrt(low * high) == pytest.approx(np.exp(logs).mean(), rel=1e-9)


@pytest.mark.parametrize("statistic", [intervals.median, intervals.mean])
@pytest.mark.parametrize("rounds", [3, 10])
def test_paired_ratio_covers_under_shared_drift(statistic: intervals.Statistic, rounds: int) -> None:
    rng = np.random.default_rng(0)
    order, trials = list(range(rounds)), 600
    covered = unpaired = 0
    for _ in range(trials):
        drift = np.cumsum(0.1 * rng.standard_normal(rounds)) + 0.5 * (rng.random(rounds) < 0.2)
        a, b = latencies(rng, drift), [[0.6 * s for s in block] for block in latencies(rng, drift)]
        low, high = intervals.paired_ratio(a, order, b, order, statistic).interval
        covered += low <= 0.6 <= high
        wide = intervals.unpaired_ratio(a, b, statistic).interval
        unpaired += wide[1] / wide[0] > high / low
    assert holds(covered, trials)
    if rounds == 10:
        assert unpaired > 0.9 * trials  # the drift is gone from the pairs only


def test_unpaired_ratio_covers_on_a_steady_host() -> None:
    rng = np.random.default_rng(0)
    bounds = [
        intervals.unpaired_ratio(latencies(rng, np.zeros(10)), latencies(rng, np.zeros(6))).interval
        for _ in range(600)
    ]
    assert holds(sum(low <= 1.0 <= high for low, high in bounds), 600)


def test_paired_ratio_by_hand() -> None:
    """Rounds that only one engine has are left out, blocks of one round are put together."""
    a = [[1.0], [9.0], [2.0], [4.0, 4.0], [4.0]]
    b = [[2.0], [4.0], [8.0, 8.0], [7.0]]
    ratio = intervals.paired_ratio(a, [0, 7, 1, 2, 2], b, [0, 1, 2, 9])
    assert ratio.value == pytest.approx(2.0)
    assert ratio.interval == pytest.approx((2.0, 2.0))
    uneven = intervals.paired_ratio([[1.0]] * 3, [0, 1, 2], [[1.0], [2.0], [4.0]], [0, 1, 2])
    expected = stats.ttest_1samp(np.log([1.0, 2.0, 4.0]), 0.0).confidence_interval()
    assert uneven.interval == pytest.approx(np.exp([expected.low, expected.high]))
    assert intervals.paired_ratio(a[:3], [0, 7, 1], b, [0, 1, 2, 9]) is None


def test_unpaired_ratio_is_welch_on_logarithms() -> None:
    a, b = [[1.0], [1.1], [1.3], [0.9]], [[2.0], [2.6], [2.2]]
    expected = stats.ttest_ind(np.log(b), np.log(a), equal_var=False).confidence_interval()
    ratio = intervals.unpaired_ratio(a, b)
    assert ratio.interval == pytest.approx((np.exp(expected.low)[0], np.exp(expected.high)[0]))
    assert intervals.unpaired_ratio(a, b[:2]) is None
    assert intervals.unpaired_ratio([[2.0]] * 3, [[1.0]] * 3) == intervals.Ratio(0.5, (0.5, 0.5))


def test_ratio_of_intervals() -> None:
    """With a's known exactly it is b's interval over a; one that reaches 0 says nothing."""
    assert intervals.ratio_of_intervals(2.0, (2.0, 2.0), 3.0, (2.0, 5.0)) == pytest.approx((1.0, 2.5))
    assert intervals.ratio_of_intervals(2.0, (1.0, 4.0), 2.0, (2.0, 2.0)) == pytest.approx((0.5, 2.0))
    assert intervals.ratio_of_intervals(2.0, (-1.0, 5.0), 3.0, (2.0, 5.0)) is None


def test_too_few_blocks_have_no_interval() -> None:
    assert intervals.block_interval([[1.0], [2.0]]) is None
    assert intervals.mean_interval([1.0]) is None


def test_paired_interval_has_one_method_per_metric() -> None:
    """Tango's for accuracy; a bootstrap for other metrics, and none where few predictions differ."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    a, b = (np.where(rng.random(200) < 0.8, labels, 1 - labels) for _ in range(2))
    for confidence in (0.95, 0.9):
        tango = intervals.paired_accuracy_interval(a == labels, b == labels, confidence=confidence)
        assert intervals.paired_interval(METRICS["accuracy"], labels, a, b, confidence=confidence) == tango
    wide, narrow = (
        intervals.paired_interval(METRICS["f1"], labels, a, b, confidence=confidence)
        for confidence in (0.95, 0.9)
    )
    assert wide is not None and narrow is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    few = np.where(np.arange(200) < intervals.LEAST_DIFFERING - 1, 1 - a, a)
    assert intervals.paired_interval(METRICS["f1"], labels, a, few) is None
    assert intervals.paired_interval(METRICS["accuracy"], labels, a, few) is not None


def test_block_quantile_covers_a_high_percentile_where_some_rounds_are_slow() -> None:
    """A fifth of the rounds is slow: the truth is the p99 of the mixture, from many samples."""
    many = np.random.default_rng(1)
    truth = np.quantile(
        np.exp(0.4 * many.standard_normal(400_000) + 0.5 * (many.random(400_000) < 0.2)), 0.99
    )
    rng, covered, refused, trials = np.random.default_rng(0), 0, 0, 300
    for _ in range(trials):
        logs = 0.4 * rng.standard_normal((20, 35)) + 0.5 * (rng.random((20, 1)) < 0.2)
        interval = intervals.block_quantile(np.exp(logs).tolist(), 0.99)
        refused += interval is None
        covered += interval is not None and interval[0] <= truth <= interval[1]
    assert refused < 0.25 * trials
    assert covered > 0.9 * (trials - refused)


def test_block_quantile_of_independent_samples_is_clopper_and_pearsons() -> None:
    """Each block is one sample, so blocks add nothing to the variance; with 800 t is nearly normal."""
    samples = np.random.default_rng(0).exponential(size=800)
    interval = intervals.block_quantile([[value] for value in samples], 0.9)
    exact = stats.binomtest(80, 800).proportion_ci(method="exact")
    assert interval is not None
    for end, above in zip(interval, (exact.high, exact.low), strict=True):
        assert np.mean(samples > end) == pytest.approx(above, abs=0.003)


def test_block_quantile_has_no_upper_end_above_the_largest_sample() -> None:
    rng = np.random.default_rng(0)
    assert intervals.block_quantile(rng.random((10, 20)).tolist(), 0.99) is None
    assert intervals.block_quantile(rng.random((2, 2000)).tolist(), 0.5) is None


def test_adjusted_difference_is_that_of_two_more_rows() -> None:
    """Bonett and Price: one more row for each side; the error of a multinomial with those counts."""
    only_a, only_b, n = 7, 3, 100
    difference, error = intervals.adjusted_difference(only_a, only_b, n)
    rows = np.array([-1.0] * (only_a + 1) + [1.0] * (only_b + 1) + [0.0] * (n - only_a - only_b))
    assert (difference, error) == pytest.approx((rows.mean(), rows.std() / np.sqrt(n + 2)))
    assert intervals.adjusted_difference(0, 0, n)[1] > 0


def test_welch_adds_errors_in_squares() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(0, 1, 6), rng.normal(1, 3, 9)
    expected = stats.ttest_ind(b, a, equal_var=False)
    parts = [(values.std(ddof=1) / np.sqrt(len(values)), len(values) - 1) for values in (a, b)]
    error, degrees = intervals.welch(*parts)
    assert degrees == pytest.approx(expected.df)
    assert (b.mean() - a.mean()) / error == pytest.approx(expected.statistic)
    assert intervals.welch((3.0, np.inf), (4.0, np.inf)) == (5.0, np.inf)
    assert intervals.welch((3.0, 4.0), (0.0, 7.0)) == pytest.approx((3.0, 4.0))
    ratio = intervals.ratio_of_logs(np.log(2.0), 0.1, np.inf)
    assert ratio.interval == pytest.approx((2 * np.exp(-0.1 * 1.959964), 2 * np.exp(0.1 * 1.959964)))


@pytest.mark.parametrize("zero", [0, 1])
def test_a_block_of_zero_processor_seconds_gives_no_ratio(zero: int) -> None:
    """A coarse clock: a short block may have used none."""
    blocks = [[[0.1], [0.1], [0.1]], [[0.2], [0.2], [0.2]]]
    blocks[zero][1] = [0.0]
    assert intervals.paired_ratio(blocks[0], [0, 1, 2], blocks[1], [0, 1, 2]) is None
    assert intervals.unpaired_ratio(*blocks) is None
