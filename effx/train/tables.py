"""What the tables of sweeps share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effx import files
from effx.stats import intervals, runs, tests


def write(folder: Path, value: Mapping[str, Any], csv: str, markdown: str) -> None:
    """Write table.json, table.csv and table.md."""
    files.write_json(folder / "table.json", value)
    files.write_atomic(folder / "table.csv", csv.encode())
    files.write_atomic(folder / "table.md", markdown.encode())


SPREAD = ("mean", "std", "low", "high")
"""Columns of :func:`spread`; one with the number of runs follows."""


def spread(value: Mapping[str, Any]) -> list[float | int | None]:
    """Return the cells of a :class:`effx.stats.runs.Spread` as JSON: :data:`SPREAD`, and of how many runs."""
    return [*(value[name] for name in SPREAD), value["n"]]


def mean_and_std(spread: Mapping[str, Any]) -> str:
    """Return the mean of a :class:`effx.stats.runs.Spread` as JSON, and its deviation if there is one."""
    return f"{spread['mean']:.4f}" + ("" if spread["std"] is None else f" ± {spread['std']:.4f}")


def paired(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    """Return the difference of two groups of scores with the same seeds.

    Returns:
        difference, low, high, p, n, reason: ``low`` and ``high`` are the ends of the 95 % interval of
        Student's t; null, as p is, for one seed, or if all seeds differ by the same, as ``reason`` says.
    """
    test = runs.paired_test(before, after)
    low, high = None, None
    if test.p is not None:
        low, high = intervals.mean_interval(np.subtract(after, before).tolist()) or (None, None)
    return {
        "difference": test.difference,
        "low": low,
        "high": high,
        "p": test.p,
        "n": test.n,
        "reason": test.reason,
    }


def adjust(comparisons: Iterable[dict[str, Any]]) -> None:
    """Add ``p_adjusted``, p after Holm's adjustment over all comparisons; null where there is no p."""
    every = list(comparisons)
    for entry, adjusted in zip(every, tests.holm_of_known([entry["p"] for entry in every]), strict=True):
        entry["p_adjusted"] = adjusted


def difference(entry: Mapping[str, Any]) -> str:
    """Return a comparison of several seeds in words, as in ``+0.0120 [-0.0010, +0.0250], p = 0.060``."""
    if entry["p"] is None:
        return f"{entry['difference']:+.4f}, no p-value: {entry['reason']}"
    interval = f"[{entry['low']:+.4f}, {entry['high']:+.4f}]"
    return f"{entry['difference']:+.4f} {interval}, p = {entry['p_adjusted']:.3f}"
