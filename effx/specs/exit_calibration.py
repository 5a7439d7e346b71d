"""Which setting of an exit rule is proven to lose at most a margin: learn then test.

The setting with the least depth whose measured loss is within the margin is the luckiest of up to 1,100 on
the rows that chose it; with 500 to 9,000 rows it often truly loses more.
Here the settings are tested one by one, from the deepest to the shallowest, and the last before the first
failure is chosen: a fixed sequence, which needs no adjustment for its length (Angelopoulos, Bates, Candes,
Jordan and Lei 2021, Learn then Test, section 4; Ann. Appl. Stat. 19:1641-1662). With confidence 0.95 the
chosen setting loses more than the margin in at most 5 % of calibrations, on rows like those of the
calibration.

The sequence may not depend on the tested labels. For one threshold, or one patience, it is their order. A
rule with both has a plane of settings: a path through it, from deep to shallow, is chosen by score on a third
of the rows and tested on the others (Pareto testing, Laufer-Goldshtein, Fisch, Barzilay and Jaakkola 2023,
ICLR).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from effx.specs import exit_rules
from effx.specs.exit_rules import ExitRule
from effx.stats import noninferiority
from effx.stats.metrics import Metric

_PATH_SHARE = 1 / 3


@dataclass(frozen=True)
class ProvenExit:
    """A setting of a rule, and what is proven of it."""

    rule: ExitRule
    proven: bool
    """False: no setting is proven, so rows never exit."""
    loss: float
    """Of the primary metric on the tested rows, against the model's head."""
    bound: float
    """Largest loss that is not ruled out with the confidence."""
    rows: int
    """Number of rows that tested it."""


def prove(
    name: str,
    logits: np.ndarray,
    depths: np.ndarray,
    labels: np.ndarray,
    predict: Callable[[np.ndarray], np.ndarray],
    metric: Metric,
    *,
    max_drop: float,
    confidence: float = 0.95,
) -> ProvenExit:
    """Return the setting with the least depth that is proven to lose at most ``max_drop``.

    Args:
        name: which rule.
        logits: [heads, n, outputs] of every ramp and the model's head on held-out rows.
        depths: [heads] layers before each head.
        labels: [n].
        predict: logits [n, outputs] -> predictions [n].
        metric: the task's primary metric.
        max_drop: accepted loss.
        confidence: of the proof, one-sided.
    """
    settings = exit_rules.candidates(name, logits)
    kind = exit_rules.rule_kind(name)
    tested = np.arange(logits.shape[1])
    if kind.patient and len({rule.threshold for rule in settings}) > 1:
        order = np.random.default_rng(0).permutation(len(tested))
        on_path, tested = np.split(order, [round(_PATH_SHARE * len(order))])
        settings = _path(settings, logits[:, on_path], depths, labels[on_path], predict, metric)
    logits, labels = logits[:, tested], labels[tested]
    heads = exit_rules.heads_of(settings, logits)
    order = np.argsort(-depths[heads].mean(axis=1), kind="stable")
    predictions = _predictions(logits, predict)
    full = predictions[-1]
    rows = np.arange(len(labels))
    after = predictions[heads[order], rows]
    count = noninferiority.fixed_sequence(metric, labels, full, after, max_drop, 1 - confidence)
    if count == 0:
        return ProvenExit(exit_rules.never(name, logits), False, 0.0, 0.0, len(labels))
    chosen = after[count - 1]
    bounds = noninferiority.bounds(metric, labels, full, chosen, confidence)
    assert bounds is not None
    loss = metric(labels, full) - metric(labels, chosen)
    return ProvenExit(settings[order[count - 1]], True, loss, max(0.0, -bounds[0]), len(labels))


def _predictions(logits: np.ndarray, predict: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return each head's predictions, [heads, n]."""
    return np.stack([predict(out) for out in logits])


def _path(
    settings: Sequence[ExitRule],
    logits: np.ndarray,
    depths: np.ndarray,
    labels: np.ndarray,
    predict: Callable[[np.ndarray], np.ndarray],
    metric: Metric,
) -> list[ExitRule]:
    """Return the settings that no other one dominates in depth and score on these rows."""
    heads = exit_rules.heads_of(settings, logits)
    predictions = _predictions(logits, predict)[heads, np.arange(len(labels))]
    weights = np.ones((1, len(labels)))
    scores = metric.weighted(labels.astype(float), predictions.astype(float), weights)[:, 0]
    mean_depths = depths[heads].mean(axis=1)
    best, result = -np.inf, []
    for index in np.lexsort((-scores, mean_depths)):  # shallow first, of equals the best score
        if scores[index] > best:
            best = scores[index]
            result.append(settings[index])
    return result
