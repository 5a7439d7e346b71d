"""Intervals, 95 % unless stated otherwise. :mod:`effx.stats` lists which one answers which question."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effx.stats import CONFIDENCE, bootstrap
from effx.stats.bootstrap import LEAST_BLOCKS, Statistic
from effx.stats.metrics import Metric, same_rows
from effx.stats.tests import discordant, mcnemar, two_sided

LEAST_DIFFERING = 10
"""Differing predictions below which a bootstrap has no interval: it cannot draw what did not occur."""
_RESAMPLES_FOR_ERROR = 1000  # enough to know a standard error to 2 %


@dataclass(frozen=True)
class Ratio:
    """A ratio of two positive quantities, with its interval."""

    value: float
    interval: tuple[float, float]


def median(samples: np.ndarray) -> float:
    """Return the median of samples [n]."""
    return float(np.median(samples))


def mean(samples: np.ndarray) -> float:
    """Return the mean of samples [n]."""
    return float(np.mean(samples))


@functools.cache
def normal(confidence: float = CONFIDENCE) -> float:
    """Return the half width of the central interval of the standard normal distribution."""
    from scipy import stats

    return float(stats.norm.ppf(0.5 + confidence / 2))


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (Wilson 1927, J. Am. Stat. Assoc. 22:209-212).

    SciPy computes an exact p-value on the way to the same interval, which takes a hundred times as long.
    """
    z, share = normal(confidence), successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half


def paired_interval(
    metric: Metric, labels: np.ndarray, a: np.ndarray, b: np.ndarray, *, confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """Return the interval of metric(b) - metric(a) on the same examples.

    Args:
        metric: for accuracy, or another share, the interval is Tango's, else a paired bootstrap's.
        labels: [n], or sets [n, labels].
        a: a's predictions, of the same shape.
        b: b's predictions.
        confidence: how often the interval holds the truth; its lower end alone is a one-sided bound that
            is right in (1 + confidence) / 2 of cases.

    None where fewer than :data:`LEAST_DIFFERING` predictions differ and the metric is not a share.
    """
    if metric.is_share:
        right = same_rows(a, labels), same_rows(b, labels)
        return paired_accuracy_interval(*right, confidence=confidence)
    if int(np.sum(~same_rows(a, b))) < LEAST_DIFFERING:
        return None
    return bootstrap.paired_difference(metric, labels, a, b, confidence=confidence)


@dataclass(frozen=True)
class PairedTest:
    """Whether a metric differs between two engines on the same examples."""

    interval: tuple[float, float] | None
    """Of the difference, as :func:`paired_interval` returns it."""
    p_value: float | None
    """Two-sided, that there is no difference; None without an interval."""
    name: str | None
    """The test's: ``McNemar``, or ``paired bootstrap``."""


def paired_test(metric: Metric, labels: np.ndarray, a: np.ndarray, b: np.ndarray) -> PairedTest:
    """Return the interval of metric(b) - metric(a), and the test of no difference that goes with it.

    Args:
        metric: for accuracy, or another share, the test is McNemar's exact test, else a paired bootstrap.
        labels: [n], or sets [n, labels].
        a: a's predictions, of the same shape.
        b: b's predictions.
    """
    if metric.is_share:
        a_right, b_right = same_rows(a, labels), same_rows(b, labels)
        return PairedTest(paired_accuracy_interval(a_right, b_right), mcnemar(a_right, b_right), "McNemar")
    if int(np.sum(~same_rows(a, b))) < LEAST_DIFFERING:
        return PairedTest(None, None, None)
    differences = bootstrap.paired_differences(metric, labels, a, np.asarray(b)[None])[0]
    return PairedTest(bootstrap.percentile_interval(differences), two_sided(differences), "paired bootstrap")


_MOST_CHANGES = 200
"""Changes of a row that are tried at most, if they are of every kind."""


def few_differing_interval(
    metric: Metric, labels: np.ndarray, a: np.ndarray, b: np.ndarray, confidence: float
) -> tuple[float, float]:
    """Return one-sided bounds of metric(b) - metric(a) where few predictions of classes differ.

    A bootstrap cannot draw what did not occur. Clopper and Pearson's bound (1934, Biometrika 26:404-413) says
    on how many of the rows a and b differ at most. The additional rows are taken at their worst (the change
    of a prediction that costs the metric most) and at their best, one at a time. This is approximate: several
    rows together may cost more, and classes that neither the labels nor a or b have are not tried.

    Args:
        metric: of classes.
        labels: [n], or sets [n, labels].
        a: a's predictions, of the same shape.
        b: b's predictions; few differ from a's, since the effort grows with their number.
        confidence: of each bound.
    """
    from scipy import stats

    n, differing = len(labels), int(np.sum(~same_rows(a, b)))
    share = 1.0 if differing == n else float(stats.beta.ppf(confidence, differing + 1, n - differing))
    unseen = min(n, math.ceil(share * n)) - differing
    before = metric(labels, a)
    if metric.of_scores:
        difference = metric(labels, b) - before
        return difference - unseen / n, difference + unseen / n
    known = np.unique(np.concatenate([labels, a, b])) if labels.ndim == 1 else np.arange(0)

    def changed(predictions: np.ndarray, *, right: bool) -> list[np.ndarray]:
        if metric.of_tags:
            return _one_tagging_changed(labels, predictions, right=right)
        if labels.ndim == 2:
            return _one_set_changed(labels, predictions, right=right)
        return _one_changed(labels, predictions, known, right=right)

    worst, best = b, b
    for _ in range(unseen):
        worst = min(changed(worst, right=True), key=lambda p: metric(labels, p), default=worst)
        best = max(changed(best, right=False), key=lambda p: metric(labels, p), default=best)
    return metric(labels, worst) - before, metric(labels, best) - before


def _one_changed(
    labels: np.ndarray, predictions: np.ndarray, classes: np.ndarray, *, right: bool
) -> list[np.ndarray]:
    """Return predictions [n] with one row changed, for each label and class that it may change between.

    Where these are more than :data:`_MOST_CHANGES`, only correct rows become wrong, or wrong ones correct:
    with many classes, a single row of another kind hardly counts.

    Args:
        labels: [n].
        predictions: [n].
        classes: all classes that a row may become.
        right: whether a correct row becomes wrong; False: a wrong row becomes correct. For few changes both
            are any change.
    """
    pairs, rows = np.unique(np.stack([labels, predictions], axis=1), axis=0, return_index=True)
    changes = [
        (row, target)
        for (label, current), row in zip(pairs.tolist(), rows.tolist(), strict=True)
        for target in classes.tolist()
        if target != current
    ]
    if len(changes) > _MOST_CHANGES:
        changes = [
            (row, target)
            for row, target in changes
            if (labels[row] == predictions[row] if right else labels[row] == target)
        ]
    changed = []
    for row, target in changes:
        copy = predictions.copy()
        copy[row] = target
        changed.append(copy)
    return changed


def _one_set_changed(labels: np.ndarray, predictions: np.ndarray, *, right: bool) -> list[np.ndarray]:
    """Return predicted sets [n, labels] with one row changed.

    A correct set becomes its complement, a wrong one becomes correct. Of rows in which equally many labels
    are at stake, the one with the rarest of them is taken: it changes a mean over labels most.
    """
    labels, predictions = labels.astype(bool), predictions.astype(bool)
    rows = np.flatnonzero(same_rows(labels, predictions) == right)
    at_stake = labels[rows] if right else labels[rows] != predictions[rows]
    rarity = at_stake @ (1 / np.maximum(labels.sum(axis=0), 1))
    changed = []
    for count in np.unique(at_stake.sum(axis=1)):
        chosen = np.flatnonzero(at_stake.sum(axis=1) == count)
        row = rows[chosen[rarity[chosen].argmax()]]
        copy = predictions.copy()
        copy[row] = ~labels[row] if right else labels[row]
        changed.append(copy)
    return changed


def _one_tagging_changed(labels: np.ndarray, predictions: np.ndarray, *, right: bool) -> list[np.ndarray]:
    """Return predicted tags [n, words] with one row changed.

    In a correct row each word becomes a wrong entity, of one type if it was of another; a wrong row becomes
    correct. Tried are the row with the most words, and those with the most entities of each type.
    """
    labels, predictions = labels.astype(int), predictions.astype(int)
    rows = np.flatnonzero(same_rows(labels, predictions) == right)
    if not len(rows):
        return []
    types = range((int(max(labels.max(), predictions.max())) + 1) // 2)
    at_stake = labels[rows] if right else np.where(labels[rows] != predictions[rows], labels[rows], 0)
    counts = [(labels[rows] >= 0).sum(1), *((at_stake == 2 * number + 1).sum(1) for number in types)]
    changed = []
    for row in sorted({int(rows[count.argmax()]) for count in counts}):
        for number in types if right else [0]:
            copy, tags = predictions.copy(), labels[row]
            # a word that is an entity of this type on its own would be right
            other = 2 * ((number + 1) % len(types)) + 1 if len(types) > 1 else 0
            wrong = np.where((tags + 1) // 2 == number + 1, other, 2 * number + 1)
            copy[row] = np.where(tags < 0, -1, wrong) if right else tags
            changed.append(copy)
    return changed


def paired_accuracy_interval(
    a_right: np.ndarray, b_right: np.ndarray, *, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return Tango's score interval of b's accuracy minus a's (Tango 1998, Statist. Med. 17:891-908).

    Args:
        a_right: booleans [n], whether a is right on each example.
        b_right: likewise for b, on the same examples.
        confidence: how often the interval holds the truth.

    Unlike a bootstrap or Wald's interval it has width when a and b are right on the same examples.

    Raises:
        ValueError: a and b have different numbers of examples, or none.
    """
    return tango(*discordant(a_right, b_right), len(a_right), confidence=confidence)


def tango(only_a: float, only_b: float, n: float, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return Tango's interval from counts; see :func:`paired_accuracy_interval`.

    Args:
        only_a: examples on which only a is right; expected counts need not be integers.
        only_b: examples on which only b is right.
        n: examples, more than 0.
        confidence: how often the interval holds the truth.
    """
    from scipy import optimize

    difference = (only_b - only_a) / n
    z = normal(confidence)

    def excess(delta: float) -> float:
        # n (d - delta)^2 - z^2 times its variance under delta: negative inside the interval.
        # The share of "only a" is its maximum-likelihood estimate given delta (Tango's q21).
        linear = -only_b - only_a + (2 * n - only_b + only_a) * delta
        constant = -only_a * delta * (1 - delta)
        share = (np.sqrt(max(linear * linear - 8 * n * constant, 0.0)) - linear) / (4 * n)
        return float(n * (difference - delta) ** 2 - z * z * (2 * share + delta * (1 - delta)))

    inside = 1e-9  # at the difference itself the variance, and so the excess, can be 0
    low = optimize.brentq(excess, -1.0, difference - inside) if difference > -1 else -1.0
    high = optimize.brentq(excess, difference + inside, 1.0) if difference < 1 else 1.0
    return float(low), float(high)


def adjusted_difference(only_a: float, only_b: float, n: float) -> tuple[float, float]:
    """Return b's accuracy minus a's and its standard error, as if one more row each favoured a and b.

    Bonett and Price (2012, J. Educ. Behav. Stat. 37:479-488). Unlike the error of a bootstrap it is not 0
    where a and b are right on the same rows. For sums and differences of independent differences, which have
    no score interval.

    Args:
        only_a: rows on which only a is right.
        only_b: rows on which only b is right.
        n: rows.
    """
    share_a, share_b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    difference = share_b - share_a
    return difference, math.sqrt((share_a + share_b - difference**2) / (n + 2))


def block_interval(
    blocks: Sequence[Sequence[float]],
    statistic: Statistic = median,
    *,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return an interval of a statistic of all samples, from resamplings of whole blocks.

    Args:
        blocks: positive samples, a list per block.
        statistic: of all samples [n]; positive.
        seed: of the resampling.

    Samples inside a block are correlated, so blocks are the units. None with fewer than three.

    The resamplings give the standard error of the logarithm, Student's t with blocks - 1 degrees
    the width: with ten blocks the percentiles of the resamplings themselves hold the truth in 90 %
    of cases only, because they are narrow by sqrt((n - 1) / n) and normal rather than t (Efron and
    Tibshirani 1993, An Introduction to the Bootstrap, section 12.5; Hesterberg 2015, Am. Stat. 69:371-386).
    If the statistics of the blocks spread wider than that, as with few short blocks, their spread is the
    error.
    """
    values = bootstrap.block_statistics(blocks, statistic, resamples=_RESAMPLES_FOR_ERROR, seed=seed)
    if values is None:
        return None
    centre = statistic(np.concatenate([np.asarray(block, dtype=float) for block in blocks]))
    of_blocks = np.array([statistic(np.asarray(block, dtype=float)) for block in blocks])
    return log_interval(values, centre, len(blocks), least=spread_error(of_blocks))


def spread_error(of_blocks: np.ndarray) -> float:
    """Return the standard error of the mean logarithm of one statistic per block, [blocks]."""
    return standard_error(np.log(of_blocks))


def log_interval(
    values: np.ndarray, centre: float, n: int, least: float = 0.0, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return the interval about ``centre`` from its values in resamplings of n units, all positive.

    Args:
        values: [resamples].
        centre: what was measured.
        n: units that were resampled.
        least: standard error of the logarithm below which the resamplings' is not believed.
        confidence: how often the interval holds the truth.
    """
    error = max(least, float(np.std(np.log(values))) * np.sqrt(n / (n - 1)))
    half = error * student(n - 1, confidence)
    return float(centre * np.exp(-half)), float(centre * np.exp(half))


def block_quantile(
    blocks: Sequence[Sequence[float]], share: float, confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """Return the interval of a quantile between two of the samples, from counts above it (Woodruff 1952).

    The share of samples above the measured quantile is uncertain; the samples at the ends of its interval are
    the interval's ends. It is Clopper and Pearson's with the number of samples that counts: divided by how
    much more the share varies between blocks than within them, and corrected for few blocks (Korn and
    Graubard 1998, Surv. Methodol. 24:193-201). None below three blocks, and where the upper end is above the
    largest sample: a resampling cannot draw what a rare slow block would have shown.

    Args:
        blocks: positive samples, a list per block; samples inside a block are correlated.
        share: of samples up to the quantile, 0 to 1.
        confidence: how often the interval holds the truth.
    """
    from scipy import stats

    if len(blocks) < LEAST_BLOCKS:
        return None
    lengths = np.array([len(block) for block in blocks])
    samples, count, n = np.sort(np.concatenate(blocks)), len(blocks), int(lengths.sum())
    quantile = samples[max(0, math.ceil(share * n - 1e-9) - 1)]
    above = np.array([np.sum(np.asarray(block) > quantile) for block in blocks])
    p = above.sum() / n
    between = count / (count - 1) * float(np.sum((above - p * lengths) ** 2)) / n**2
    within = max(p, 1 / n) * (1 - p) / n
    counted = n / max(1.0, between / within) * (normal(confidence) / student(count - 1, confidence)) ** 2
    expected, tail = (1 - share) * counted, (1 - confidence) / 2
    least = float(stats.beta.ppf(tail, expected, counted - expected + 1))
    most = float(stats.beta.ppf(1 - tail, expected + 1, max(counted - expected, 1e-9)))
    high = math.ceil((1 - least) * n)
    if high >= n:
        return None
    return float(samples[max(0, math.floor((1 - most) * n))]), float(samples[high])


def paired_ratio(
    blocks_a: Sequence[Sequence[float]],
    rounds_a: Sequence[int],
    blocks_b: Sequence[Sequence[float]],
    rounds_b: Sequence[int],
    statistic: Statistic = median,
) -> Ratio | None:
    """Return the ratio of b to a from the rounds that both have; None with fewer than three, or with a 0.

    Args:
        blocks_a: a's positive samples, a list per block.
        rounds_a: the round of each block of a.
        blocks_b: b's samples.
        rounds_b: the round of each block of b.
        statistic: of a round's samples [n]; positive.

    The value is the geometric mean over rounds of b's statistic over a's. Blocks of a round ran
    next to each other, so what slows the host slows both and leaves their ratio; rounds are the
    units, and the interval is Student's on the logarithms of the rounds' ratios.
    """
    levels_a = _by_round(blocks_a, rounds_a, statistic)
    levels_b = _by_round(blocks_b, rounds_b, statistic)
    common = sorted(levels_a.keys() & levels_b.keys())
    if len(common) < LEAST_BLOCKS or not all(levels_a[number] and levels_b[number] for number in common):
        return None
    logs = np.log([levels_b[number] / levels_a[number] for number in common])
    return ratio_of_logs(mean(logs), standard_error(logs), len(logs) - 1)


def unpaired_ratio(
    blocks_a: Sequence[Sequence[float]],
    blocks_b: Sequence[Sequence[float]],
    statistic: Statistic = median,
) -> Ratio | None:
    """Return the ratio of b to a from blocks that did not run side by side; None below three, or with a 0.

    Args:
        blocks_a: a's positive samples, a list per block.
        blocks_b: b's.
        statistic: of a block's samples [n]; positive.

    The value is the ratio of the geometric means of the blocks' statistics, the interval Welch's
    (1947) on logarithms. It cannot know what changed on the host between the two.
    """
    if min(len(blocks_a), len(blocks_b)) < LEAST_BLOCKS:
        return None
    levels_a, levels_b = (
        [statistic(np.asarray(block, dtype=float)) for block in blocks] for blocks in (blocks_a, blocks_b)
    )
    if not all([*levels_a, *levels_b]):
        return None
    logs_a, logs_b = np.log(levels_a), np.log(levels_b)
    error, degrees = welch(
        (standard_error(logs_a), len(logs_a) - 1), (standard_error(logs_b), len(logs_b) - 1)
    )
    return ratio_of_logs(mean(logs_b) - mean(logs_a), error, degrees)


def welch(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    """Return standard error and degrees of freedom of a difference of two independent estimates (Welch 1947).

    Args:
        a: standard error and degrees of freedom of one; infinite degrees: its error is known.
        b: likewise.
    """
    squares, degrees = np.array([a[0], b[0]]) ** 2, np.array([a[1], b[1]])
    total = float(squares.sum())
    spread = float(np.sum(squares**2 / degrees))
    if spread == 0.0:
        return float(np.sqrt(total)), 1.0 if total == 0.0 else float("inf")
    return float(np.sqrt(total)), total**2 / spread


def ratio_of_intervals(
    a: float, interval_a: tuple[float, float], b: float, interval_b: tuple[float, float]
) -> tuple[float, float] | None:
    """Return the interval of b / a from independent intervals of both (Zou and Donner 2008, MOVER).

    On logarithms the distances from the estimates to their limits add in squares. None where an
    interval reaches 0, which says nothing about a ratio.
    """
    if min(interval_a[0], interval_b[0]) <= 0:
        return None
    log_a, log_b = np.log([*interval_a, a]), np.log([*interval_b, b])
    low = np.hypot(log_b[2] - log_b[0], log_a[1] - log_a[2])
    high = np.hypot(log_b[1] - log_b[2], log_a[2] - log_a[0])
    return float(b / a * np.exp(-low)), float(b / a * np.exp(high))


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Return Student's interval of a mean; None with fewer than two values."""
    if len(values) < 2:
        return None
    centre, error = float(np.mean(values)), standard_error(values)
    half = error * student(len(values) - 1, confidence)
    return centre - half, centre + half


def median_interval(
    values: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return the interval of a median between two values, which holds for every continuous distribution.

    It is the narrowest between the k-th smallest and the k-th largest value that covers the median with at
    least ``confidence``, by the binomial distribution (Conover 1999, section 3.2). With fewer than six values
    there is none at 95 %: the smallest and the largest are returned.
    """
    from scipy import stats

    ordered = np.sort(np.asarray(values, dtype=np.float64))
    out = int(stats.binom.ppf((1 - confidence) / 2, len(ordered), 0.5))
    while out > 0 and stats.binom.cdf(out - 1, len(ordered), 0.5) > (1 - confidence) / 2:
        out -= 1
    return float(ordered[out - 1 if out else 0]), float(ordered[-out if out else -1])


def widest(
    between: tuple[float, float] | None, within: Sequence[tuple[float, float]]
) -> tuple[float, float] | None:
    """Return an interval that covers the spread of several readings and the uncertainty of each.

    Args:
        between: the interval of their mean; None: there is none.
        within: the interval of each reading, of those that have one.
    """
    if not within:
        return between
    low, high = (float(np.mean([pair[end] for pair in within])) for end in (0, 1))
    return (low, high) if between is None else (min(low, between[0]), max(high, between[1]))


def of_readings(
    between: tuple[float, float] | None,
    within: Sequence[tuple[tuple[float, float], tuple[float, float] | None]],
) -> tuple[float, float] | None:
    """Return the interval of the mean of readings that may all be wrong by the same factor.

    Such a factor is not in the spread of the readings, and occurs together with it. So the interval without
    it is computed first (:func:`widest`), and its ends are then multiplied by as much as the factor widens
    those of the readings, on average.

    Args:
        between: the interval of the mean by the spread of the readings; None: there is none.
        within: the interval of each reading, and the same without the common factor, of those that have one.
            Where the second is unknown for any reading, the factor counts as an error of each.
    """
    pairs = [(bounds, without) for bounds, without in within if without is not None]
    if len(pairs) < len(within):
        return widest(between, [bounds for bounds, _ in within])
    result = widest(between, [without for _, without in pairs])

    def factor(end: int) -> float:
        each = [bounds[end] / without[end] for bounds, without in pairs if without[end]]
        return float(np.mean(each)) if each else 1.0

    return None if result is None else (result[0] * factor(0), result[1] * factor(1))


def ratio_of_logs(log: float, error: float, degrees: float) -> Ratio:
    """Return a ratio with Student's interval.

    Args:
        log: its logarithm.
        error: standard error of that.
        degrees: of freedom.
    """
    half = error * student(degrees)
    return Ratio(float(np.exp(log)), (float(np.exp(log - half)), float(np.exp(log + half))))


def standard_error(values: Sequence[float] | np.ndarray) -> float:
    """Return the standard error of a mean; SciPy's takes a hundred times as long to set up."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


@functools.lru_cache(maxsize=4096)
def student(degrees: float, confidence: float = CONFIDENCE) -> float:
    """Return how many standard errors on either side hold a mean, by Student's t."""
    from scipy import stats

    return float(stats.t.ppf(0.5 + confidence / 2, degrees))


def _by_round(
    blocks: Sequence[Sequence[float]], rounds: Sequence[int], statistic: Statistic
) -> dict[int, float]:
    """Return the statistic of each round's samples."""
    samples: dict[int, list[float]] = {}
    for block, number in zip(blocks, rounds, strict=True):
        samples.setdefault(number, []).extend(block)
    return {number: statistic(np.array(values)) for number, values in samples.items()}
