"""Agreement of the orders that two independent measurements give the same items."""

from __future__ import annotations

import numpy as np

from effx.stats import CONFIDENCE


def kendall(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return Kendall's tau-b of two orders (Kendall 1945, Biometrika 33:239-251), -1 to 1.

    Args:
        a: values [items], at least two.
        b: likewise, of the same items.

    None: all values of one of them are equal, which is no order.
    """
    signs_a, signs_b = _signs(np.asarray(a, dtype=float)), _signs(np.asarray(b, dtype=float))
    untied = float(np.abs(signs_a).sum() * np.abs(signs_b).sum())
    return float((signs_a * signs_b).sum() / np.sqrt(untied)) if untied else None


def kendall_interval(
    a: tuple[np.ndarray, np.ndarray],
    b: tuple[np.ndarray, np.ndarray],
    *,
    widened: tuple[float, float] = (1.0, 1.0),
    exact: bool = False,
    confidence: float = CONFIDENCE,
) -> tuple[float, float] | None:
    """Return the interval of Kendall's tau from resamplings of what is ranked.

    Noise in the values breaks a true order: tau of a resampling is nearer to 0 than that of the measurement,
    which is nearer to 0 than the truth, so that percentiles of it do not hold the truth. Instead, bands about
    the differences of all pairs of items, that hold all true differences at once (the bootstrap of the
    largest studentised deviation, Romano and Wolf 2005, J. Am. Stat. Assoc. 100:94-108), say which pairs are
    surely ordered on both sides. The others may be ordered either way: the interval reaches from the tau with
    all of them reversed to that with all of them alike.

    Args:
        a: values [items], and their values in resamplings [items, resamples].
        b: likewise; resampled independently of ``a``.
        widened: factors of the bands of a and b, for few units of resampling.
        exact: values that do not vary in resamplings are known without error, and not single readings.
        confidence: how often the interval holds the truth, at least.

    None: items differ by single readings, of which nobody knows how far others would be from them.
    """
    measured = [_differences(values) for values, _ in (a, b)]
    drawn = [_differences(draws) for _, draws in (a, b)]
    errors = [np.where(np.ptp(each, axis=1) > 0, each.std(axis=1), 0.0) for each in drawn]
    if not exact and any(
        np.any((error == 0) & (differences != 0)) for differences, error in zip(measured, errors, strict=True)
    ):
        return None
    largest = np.zeros(a[1].shape[1])
    for differences, draws, error in zip(measured, drawn, errors, strict=True):
        varies = error > 0
        if varies.any():
            deviations = np.abs(draws[varies] - differences[varies, None]) / error[varies, None]
            largest = np.maximum(largest, deviations.max(axis=0))
    factor = float(np.quantile(largest, confidence))
    sure = [
        np.where(np.abs(differences) > factor * wide * error, np.sign(differences), 0.0)
        for differences, error, wide in zip(measured, errors, widened, strict=True)
    ]
    alike = sure[0] * sure[1]
    open_pairs = int(np.sum(alike == 0))
    return float((alike.sum() - open_pairs) / len(alike)), float((alike.sum() + open_pairs) / len(alike))


def _signs(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.sign(_differences(values)))


def _differences(values: np.ndarray) -> np.ndarray:
    """Return the difference of each pair of items [pairs, ...]."""
    first, second = np.triu_indices(len(values), 1)
    return np.asarray(values[first] - values[second])
