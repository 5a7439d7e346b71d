"""Who is lost: what reduced engines lose on parts of the rows, beside what they lose on the others.

A slice is a set of validation rows: those of a class, of a length, with a negation, with a rare word, with
much overlap between their texts, or with a value in a column of the user's. For each engine and slice,

    loss      mean of (baseline's score of a row - engine's), over the rows of the slice
    excess    that minus the same mean over all other rows
    p         of the hypothesis that the rows of the slice lose no more than the others: the share of random
              sets of as many rows with an excess at least as large (a permutation test), one-sided,
              adjusted for all slices and engines (Holm 1979)

A row's score is 1 if the prediction is right and 0 otherwise; for numbers the negative absolute error; for
answers and rankings the row's share of the metric. A loss that is the same everywhere is not flagged: what
the engine loses in total is in every other table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from effx.analysis import cohorts
from effx.analysis.baseline import intended_baseline
from effx.errors import UsageError
from effx.results import Run
from effx.row_slices import Slice, is_large_enough
from effx.stats import intervals, tests
from effx.stats.metrics import METRICS, same_rows

LEVEL = 0.05
ABSOLUTE_ERROR = "absolute error"
_DRAWS, _FEW_VALUES = 9_999, 8
_MOST_ENGINES, _MOST_DRAWN_ROWS = 100, 50_000


@dataclass(frozen=True)
class SliceLoss:
    """What one engine loses on one slice; scores and losses as the module says."""

    engine: str
    slice: str
    rows: int
    before: float
    """Mean score of the baseline."""
    after: float
    loss: float
    interval: tuple[float, float] | None
    """95 %, of ``loss``: Tango's where rows are right or wrong, otherwise Student's; None: all rows lose the
    same."""
    excess: float
    p: float
    p_adjusted: float

    @property
    def flagged(self) -> bool:
        """Whether the slice loses more than the other rows, at 5 % for all slices and engines together."""
        return self.p_adjusted <= LEVEL


@dataclass(frozen=True)
class LostRow:
    """A row that the baseline gets right and an engine does not."""

    engine: str
    row: int
    """Its number, from 0."""
    slices: tuple[str, ...]


@dataclass(frozen=True)
class LeftOut:
    """An engine whose quality a failed gate made unavailable."""

    engine: str
    reason: str


@dataclass(frozen=True)
class SliceReport:
    """Losses of the engines of one task on its slices."""

    task: str
    baseline: str
    unit: str
    """Of losses: ``points`` of a share of right rows or of the metric, or :data:`ABSOLUTE_ERROR`."""
    slices: tuple[Slice, ...]
    losses: tuple[SliceLoss, ...]
    lost: tuple[LostRow, ...]
    """Empty for numbers, which are not right or wrong."""
    left_out: tuple[LeftOut, ...] = ()
    """Engines whose predictions say nothing of them."""


def measure(
    runs: Sequence[Run],
    slices: Sequence[Slice],
    baseline: Run | None = None,
    *,
    chosen_from: int = 1,
) -> SliceReport:
    """Return what every engine loses on every slice; those whose quality is unavailable are left out.

    Args:
        runs: results of one task, on the same rows.
        slices: those with fewer than :data:`LEAST_ROWS` rows, or that leave fewer, are left out.
        baseline: default: the unreduced fp32 engine.
        chosen_from: number of engines that the measured ones were chosen from, which tests are adjusted for.

    Raises:
        UsageError: the results do not belong together, lack predictions, the quality of the baseline is
            unavailable, or there is nothing to compare.
    """
    baseline = baseline or intended_baseline(runs)
    if reason := baseline.withdrawn("quality"):
        raise UsageError(
            f"the baseline {baseline.name}: its quality is unavailable: {reason.removesuffix('.')}. Profile "
            "it again, or name another baseline.", settings="baseline",
        )  # fmt: skip
    left_out = tuple(LeftOut(run.name, reason) for run in runs if (reason := run.withdrawn("quality")))
    others = [run for run in runs if run is not baseline and not run.withdrawn("quality")]
    if not others:
        others_failed = "".join(
            f" The quality of {each.engine} is unavailable: {each.reason.removesuffix('.')}."
            for each in left_out
        )
        measured = "can be compared" if left_out else "was measured"
        raise UsageError(
            f"only {baseline.name} {measured}: expected at least two engines to compare.{others_failed}"
        )
    cohorts.check([baseline, *others])
    cohorts.shared_labels([baseline, *others])
    before, count = row_scores(baseline), baseline.quality.n
    kept = tuple(each for each in slices if is_large_enough(each, count))
    # so many that one slice alone can be shown
    draws = max(_DRAWS, math.ceil(2 * len(kept) * len(others) * chosen_from / LEVEL))
    right_or_wrong = is_right_or_wrong(baseline)
    losses: list[SliceLoss] = []
    lost: list[LostRow] = []
    for number, run in enumerate(others):
        after = row_scores(run)
        of_rows = before - after
        p_of = p_values(of_rows, [part.rows for part in kept], draws=draws, seed=number)
        for index, part in enumerate(kept):
            inside = np.zeros(count, dtype=bool)
            inside[part.rows] = True
            losses.append(
                SliceLoss(
                    engine=run.name,
                    slice=part.title,
                    rows=len(part.rows),
                    before=float(before[inside].mean()),
                    after=float(after[inside].mean()),
                    loss=float(of_rows[inside].mean()),
                    interval=_interval(before[inside], after[inside], right_or_wrong=right_or_wrong),
                    excess=float(of_rows[inside].mean() - of_rows[~inside].mean()),
                    p=p_of[index],
                    p_adjusted=1.0,
                )
            )
        if right_or_wrong:
            members = [(part.title, set(part.rows.tolist())) for part in kept]
            lost += [
                LostRow(run.name, int(row), tuple(name for name, rows in members if row in rows))
                for row in np.flatnonzero(of_rows > 0)
            ]
    adjusted = [min(1.0, chosen_from * value) for value in tests.holm([each.p for each in losses])]
    return SliceReport(
        task=baseline.task,
        baseline=baseline.name,
        unit="points" if right_or_wrong or METRICS[baseline.quality.metric].of_scores else ABSOLUTE_ERROR,
        slices=kept,
        losses=tuple(replace(each, p_adjusted=value) for each, value in zip(losses, adjusted, strict=True)),
        lost=tuple(lost),
        left_out=left_out,
    )


def is_right_or_wrong(run: Run) -> bool:
    """Whether a row of the task is right or wrong."""
    metric = METRICS[run.quality.metric]
    return not metric.of_scores and (metric.of_classes or metric.of_tags or run.quality.kind is not None)


def row_scores(run: Run) -> np.ndarray:
    """Return the score of every row, float64 [n]; see the module."""
    quality = run.quality
    labels, predictions = quality.label_array, quality.prediction_array
    metric = METRICS[quality.metric]
    if metric.of_scores:
        return np.array([metric(labels[[row]], predictions[[row]]) for row in range(len(labels))])
    if is_right_or_wrong(run):
        return same_rows(labels, predictions).astype(float)
    return np.asarray(-np.abs(predictions - labels), dtype=float)


def p_values(
    losses: np.ndarray, parts: Sequence[np.ndarray], *, draws: int = _DRAWS, seed: int = 0
) -> list[float]:
    """Return one-sided p-values of the permutation test that a slice loses no more than the other rows.

    Args:
        losses: of every row, float64 [n].
        parts: row numbers of each slice.
        draws: random sets of rows.
        seed: of them.
    """
    rng = np.random.default_rng((17, seed))
    if not parts:
        return []
    values, counts = np.unique(losses, return_counts=True)
    if len(values) == 1:
        return [1.0] * len(parts)
    found = np.array([losses[part].sum() for part in parts])
    least = found - 1e-9 * np.maximum(1.0, np.abs(found))  # sums in another order are rounded otherwise
    sizes = np.array([len(part) for part in parts])
    if len(values) <= _FEW_VALUES:  # then the number of rows with each loss is enough
        beyond = [
            int(np.sum(rng.multivariate_hypergeometric(counts, size, draws) @ values >= limit))
            for size, limit in zip(sizes, least, strict=True)
        ]
    else:  # the first rows of one random order are a set of every size
        beyond = [0] * len(parts)
        for _ in range(draws):
            sums = np.cumsum(losses[rng.permutation(len(losses))])[sizes - 1]
            beyond = [count + int(value >= limit)
                      for count, value, limit in zip(beyond, sums, least, strict=True)]  # fmt: skip
    return [(count + 1) / (draws + 1) for count in beyond]


def _interval(before: np.ndarray, after: np.ndarray, *, right_or_wrong: bool) -> tuple[float, float] | None:
    if right_or_wrong:
        low, high = intervals.paired_accuracy_interval(before > 0, after > 0)
        return -high, -low
    return intervals.mean_interval((before - after).tolist())


def is_quick(engines: int, baseline: Run) -> bool:
    """Whether the losses of so many engines can be tested for every report.

    An engine takes a tenth of a second where rows are right or wrong; where they have scores, seconds per
    10,000 rows.
    """
    few = engines * baseline.quality.n <= _MOST_DRAWN_ROWS
    return engines <= _MOST_ENGINES and (is_right_or_wrong(baseline) or few)


def of_results(
    runs: Sequence[Run], baseline: Run, *, chosen_from: int = 1, group: str | None = None
) -> SliceReport | None:
    """Return what every engine loses on the slices that results have, without the rows themselves.

    Args:
        runs: of engines that may be compared, with or without ``baseline``.
        baseline: what they are compared with.
        chosen_from: as :func:`measure` takes it.
        group: of the slices; None: of all groups.

    Returns:
        None if there are no slices, predictions, or other engines.
    """
    known = [run for run in runs if run is not baseline and cohorts.has_predictions(run)]
    parts = [part for each in baseline.quality.groups for part in each.slices()]
    found = [
        part for part in parts if is_large_enough(part, baseline.quality.n) and group in (None, part.group)
    ]
    if not found or not known or not cohorts.has_predictions(baseline):
        return None
    try:
        return measure([baseline, *known], found, baseline, chosen_from=chosen_from)
    except UsageError:  # other rows
        return None


def remarks(report: SliceReport | None, engine: str) -> list[str]:
    """Return a sentence for an engine that loses more on some slices than on the other rows."""
    flagged = [] if report is None else [each for each in summary(report).get(engine, []) if each.loss > 0]
    if not flagged or report is None:
        return []
    factor, decimals, unit = (100, 1, " points") if report.unit == "points" else (1, 4, "")
    named = "; ".join(
        f"{each.slice} ({factor * each.loss:.{decimals}f}{unit} on {each.rows} rows, "
        f"{factor * (each.loss - each.excess):.{decimals}f} on the others, p = {each.p_adjusted:.2g})"
        for each in flagged
    )
    return [f"{engine} loses more than on the other rows on {named}; see effx slices"]


def summary(report: SliceReport) -> Mapping[str, list[SliceLoss]]:
    """Return engine -> its flagged slices, the largest excess first."""
    return {
        engine: sorted(
            (each for each in report.losses if each.engine == engine and each.flagged),
            key=lambda each: -each.excess,
        )
        for engine in dict.fromkeys(each.engine for each in report.losses)
    }
