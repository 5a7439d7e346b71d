"""When a row may leave at an early-exit ramp: rules, and thresholds for a depth or an accuracy.

Plain NumPy, so that training, the PyTorch reference and engines on a target share one meaning.
Every rule is the same machine: at each ramp a row is *sure* or not; it leaves once it has been
sure at ``patience`` ramps in a row.

    entropy               H(p) < threshold, in nats                             DeeBERT, Xin et al. 2020
    max-probability       max p > threshold                                     Schwartz et al. 2020
    patience              the prediction equals that of the ramp before         PABEE, Zhou et al. 2020
    consecutive-entropy   H(p) / log(classes) < threshold                       PCEE-BERT, Zhang et al. 2022

For regression, which has no probabilities, ``patience`` alone works: predictions are equal when
they differ by less than ``threshold``. The last head is not a ramp: who reaches it has not exited
early.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from effx.errors import UsageError, unknown

_NEAR = 0.25  # layers: settings this close to a depth are compared by score
_Sure = Callable[[np.ndarray, np.ndarray | None, float], np.ndarray]


def entropy(logits: np.ndarray) -> np.ndarray:
    """Return the entropy in nats of softmax(logits), [n], for logits [n, classes]."""
    log_p = log_softmax(logits)
    return np.asarray(-(np.exp(log_p) * log_p).sum(-1))  # 0 * finite: no NaN where p is 0


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return log(softmax(logits)) over the last axis, in float64."""
    shifted = logits.astype(np.float64)
    shifted = shifted - shifted.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def _low_entropy(logits: np.ndarray, previous: np.ndarray | None, threshold: float) -> np.ndarray:
    return np.asarray(entropy(logits) < threshold)


def _high_probability(logits: np.ndarray, previous: np.ndarray | None, threshold: float) -> np.ndarray:
    return np.asarray(np.exp(log_softmax(logits).max(-1)) > threshold)


def _same(logits: np.ndarray, previous: np.ndarray | None, threshold: float) -> np.ndarray:
    if previous is None:
        return np.zeros(len(logits), dtype=bool)
    if logits.shape[1] == 1:
        return np.asarray(np.abs(logits[:, 0] - previous[:, 0]) < threshold)
    return np.asarray(logits.argmax(-1) == previous.argmax(-1))


def _low_normalised_entropy(logits: np.ndarray, previous: np.ndarray | None, threshold: float) -> np.ndarray:
    return np.asarray(entropy(logits) / np.log(logits.shape[1]) < threshold)


@dataclass(frozen=True)
class _Kind:
    sure: _Sure
    threshold: tuple[float, float] | None
    """The range that makes sense; None: the rule has no threshold (but see regression)."""
    patient: bool


RULES: Mapping[str, _Kind] = {
    "entropy": _Kind(_low_entropy, (0.0, np.inf), patient=False),
    "max-probability": _Kind(_high_probability, (0.0, 1.0), patient=False),
    "patience": _Kind(_same, None, patient=True),
    "consecutive-entropy": _Kind(_low_normalised_entropy, (0.0, 1.0), patient=True),
}


@dataclass(frozen=True)
class State:
    """What a rule remembers of the rows that are still running."""

    streak: np.ndarray
    """int64 [n]; ramps in a row at which a row was sure."""
    previous: np.ndarray | None
    """Logits [n, outputs] of the ramp before."""

    def rows(self, keep: np.ndarray) -> State:
        """Return the state of some rows (bool [n])."""
        return State(self.streak[keep], None if self.previous is None else self.previous[keep])


@dataclass(frozen=True)
class ExitRule:
    """A rule with its settings.

    Raises:
        UsageError: the name is unknown, or a setting is missing, out of range or not the rule's.
    """

    name: str
    threshold: float | None = None
    patience: int = 1

    def __post_init__(self) -> None:
        if self.name not in RULES:
            raise unknown("exit rule", self.name, RULES)
        kind = RULES[self.name]
        if kind.threshold is not None:
            low, high = kind.threshold
            if self.threshold is None or not low <= self.threshold <= high:
                raise UsageError(f"exit rule {self.name}: a threshold from {low:g} to {high:g} is needed.")
        if self.patience < 1 or (self.patience > 1 and not kind.patient):
            allowed = "1 or more" if kind.patient else "1: it does not wait"
            raise UsageError(f"exit rule {self.name}: patience must be {allowed}.")

    def start(self, n: int) -> State:
        """Return the state of ``n`` rows before the first ramp."""
        return State(np.zeros(n, dtype=np.int64), None)

    def step(self, state: State, logits: np.ndarray) -> tuple[State, np.ndarray]:
        """Return the state after a ramp with ``logits`` [n, outputs], and who leaves there (bool [n]).

        Raises:
            UsageError: the rule needs probabilities and the task has none.
        """
        if logits.shape[1] == 1 and (RULES[self.name].sure is not _same or self.threshold is None):
            raise UsageError(f"exit rule {self.name}: regression exits by patience with a threshold only.")
        sure = RULES[self.name].sure(logits, state.previous, self.threshold or 0.0)
        streak = np.where(sure, state.streak + 1, 0)
        return State(streak, logits), streak >= self.patience

    def to_json(self) -> dict[str, Any]:
        """Return the rule as it stands in manifests."""
        value = asdict(self)
        return {"rule": value.pop("name"), **value}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ExitRule:
        """Rebuild a rule from a manifest."""
        threshold = value["threshold"]
        return cls(value["rule"], None if threshold is None else float(threshold), int(value["patience"]))


def simulate(rule: ExitRule, logits: np.ndarray) -> np.ndarray:
    """Return at which head each row leaves: int64 [n], the last one for those who never exit.

    Args:
        rule: when rows leave.
        logits: [heads, n, outputs] of every ramp, first to last, and the model's own head.
    """
    last = len(logits) - 1
    leaves = np.full(logits.shape[1], last)
    state = rule.start(logits.shape[1])
    for number, out in enumerate(logits[:-1]):
        state, now = rule.step(state, out)
        leaves = np.where(now & (leaves == last), number, leaves)
    return leaves


@dataclass(frozen=True)
class Point:
    """What a rule does on the rows it was tried on."""

    rule: ExitRule
    mean_depth: float
    """Layers that a row runs through on average."""
    score: float
    """The task's primary metric."""

    def to_json(self) -> dict[str, Any]:
        """Return the point as it stands in manifests."""
        return {**self.rule.to_json(), "mean_depth": self.mean_depth, "score": self.score}


Scorer = Callable[[np.ndarray], float]
"""Logits [n, outputs] -> the task's primary metric."""


def evaluate(rule: ExitRule, logits: np.ndarray, depths: np.ndarray, score: Scorer) -> Point:
    """Return mean depth and score of ``rule`` over logits [heads, n, outputs].

    ``depths`` [heads] says how many layers stand before each head.
    """
    leaves = simulate(rule, logits)
    chosen = logits[leaves, np.arange(len(leaves))]
    return Point(rule, float(depths[leaves].mean()), float(score(chosen)))


def candidates(name: str, logits: np.ndarray, thresholds: int = 100) -> list[ExitRule]:
    """Return rules of one kind that cover its range on logits [heads, n, outputs].

    Thresholds are quantiles of what the ramps say on these rows; patience goes up to the ramps.
    """
    if name not in RULES:
        raise unknown("exit rule", name, RULES)
    kind = RULES[name]
    ramps = logits[:-1]
    patiences = range(1, len(ramps) + 1) if kind.patient else [1]
    flat = ramps.reshape(-1, ramps.shape[-1])
    shares = np.linspace(0.0, 1.0, thresholds)
    values: list[float | None]
    if name == "patience" and ramps.shape[-1] == 1:
        steps = np.abs(np.diff(ramps[..., 0], axis=0)) if len(ramps) > 1 else np.ones(1)
        values = [float(value) for value in np.unique(np.quantile(steps, shares))]
    elif kind.threshold is None:
        values = [None]
    elif name == "max-probability":
        values = list(np.unique(np.quantile(np.exp(log_softmax(flat).max(-1)), shares)))
    else:
        scale = np.log(ramps.shape[-1]) if name == "consecutive-entropy" else 1.0
        values = list(np.unique(np.clip(np.quantile(entropy(flat) / scale, shares), 0.0, None)))
    values = [None if value is None else float(min(value, kind.threshold[1] if kind.threshold else value))
              for value in values]  # fmt: skip
    return [ExitRule(name, value, patience) for patience in patiences for value in values]


def calibrate(
    name: str,
    logits: np.ndarray,
    depths: np.ndarray,
    score: Scorer,
    *,
    depth: float | None = None,
    max_drop: float | None = None,
) -> Point:
    """Choose a rule's settings on held-out rows, for a mean depth or for a loss of score.

    Args:
        name: which rule.
        logits: [heads, n, outputs] of every ramp and the model's own head on held-out rows.
        depths: [heads] layers before each head.
        score: the task's primary metric.
        depth: mean layers to run at most; the best score among the settings that use it up (to a
            quarter of a layer) is chosen.
        max_drop: loss of score against the model's own head at most; the least depth within it
            is chosen.

    Returns:
        The chosen point; its figures are those of these rows and flatter the rule a little.

    Raises:
        UsageError: not exactly one of ``depth`` and ``max_drop``, or no setting reaches the depth.
    """
    if (depth is None) == (max_drop is None):
        raise UsageError("calibrate exits for a depth or for a drop: give exactly one.")
    points = [evaluate(rule, logits, depths, score) for rule in candidates(name, logits)]
    if depth is not None:
        within = [point for point in points if point.mean_depth <= depth]
        if not within:
            least = min(point.mean_depth for point in points)
            raise UsageError(
                f"exit rule {name} runs {least:.2f} layers at least here, more than {depth:.2f}."
            )
        deepest = max(point.mean_depth for point in within)
        near = [point for point in within if point.mean_depth >= deepest - _NEAR]
        return max(near, key=lambda point: (point.score, -point.mean_depth))
    assert max_drop is not None
    own = float(score(logits[-1]))
    within = [point for point in points if point.score >= own - max_drop - 1e-9]
    if not within:
        raise UsageError(f"exit rule {name} loses more than {max_drop:g} at every setting here.")
    return min(within, key=lambda point: (point.mean_depth, -point.score))
