"""Simulated samples and counts for tests of intervals."""

from __future__ import annotations

import numpy as np


def holds(covered: float, trials: int, nominal: float = 0.95) -> bool:
    """Whether a share of trials is within 2 points of nominal, give or take 3 standard errors."""
    return abs(covered / trials - nominal) <= 0.02 + 3 * np.sqrt(nominal * (1 - nominal) / trials)


def paired_right(n: int, only_a: int, only_b: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether a and b are right on each of n examples."""
    a, b = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    a[:only_a], b[only_a : only_a + only_b] = True, True
    return a, b


def latencies(rng: np.random.Generator, drift: np.ndarray, queries: int = 70) -> list[list[float]]:
    """Blocks whose samples share a level and the host's drift; the median is 1 without drift."""
    level = 0.05 * rng.standard_normal((len(drift), 1)) + drift[:, None]
    return np.exp(level + 0.4 * rng.standard_normal((len(drift), queries))).tolist()  # type: ignore[no-any-return]
