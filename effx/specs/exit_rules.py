"""When a row exits at an early-exit ramp: rules, and thresholds for a depth or an accuracy.

Plain NumPy, so that training, the PyTorch reference and engines on a target share one definition.
Every rule follows the same scheme: at each ramp a row is *sure* or not; it exits once it has been
sure at ``patience`` ramps in a row.

    entropy               H(p) < threshold, in nats                             DeeBERT, Xin et al. 2020
    max-probability       max p > threshold                                     Schwartz et al. 2020
    patience              the prediction equals that of the ramp before         PABEE, Zhou et al. 2020
    consecutive-entropy   H(p) / log(classes) < threshold                       PCEE-BERT, Zhang et al. 2022

For regression, which has no probabilities, only ``patience`` works: predictions are equal when they differ
by less than ``threshold``. The last head is not a ramp: a row that reaches it has not exited early.

A new rule is one row in ``RULES`` and one function in :mod:`effx.export.exit_graphs`, which computes the same
in ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from effx.errors import UsageError, unknown
from effx.specs.tasks import Task

_SAME_DEPTH_LAYERS = 0.25
"""Settings whose mean depths are this close to the deepest are compared by score."""

Decision = Callable[[np.ndarray, np.ndarray | None, float], np.ndarray]
"""Logits [n, outputs], those of the ramp before (None at the first) and the threshold -> sure, bool [n]."""
Thresholds = Callable[[np.ndarray, np.ndarray], list[float | None]]
"""Ramps' logits [ramps, n, outputs] and quantiles in [0, 1] -> thresholds to try; None: the rule has none."""


def entropy(logits: np.ndarray) -> np.ndarray:
    """Return the entropy in nats of softmax(logits), [n], for logits [n, classes]."""
    log_p = log_softmax(logits)
    return np.asarray(-(np.exp(log_p) * log_p).sum(-1))  # 0 * finite: finite where p is 0


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return log(softmax(logits)) over the last axis, in float64."""
    shifted = logits.astype(np.float64)
    shifted = shifted - shifted.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def _max_probability(logits: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(log_softmax(logits).max(-1)))


def _normalized_entropy(logits: np.ndarray) -> np.ndarray:
    return np.asarray(entropy(logits) / np.log(logits.shape[1]))


def _low_entropy(logits: np.ndarray, previous: np.ndarray | None, threshold: float) -> np.ndarray:
    return np.asarray(entropy(logits) < threshold)


def _high_probability(logits: np.ndarray, previous: np.ndarray | None, threshold: float) -> np.ndarray:
    return np.asarray(_max_probability(logits) > threshold)


def _same_prediction(logits: np.ndarray, previous: np.ndarray | None, threshold: float) -> np.ndarray:
    if previous is None:
        return np.zeros(len(logits), dtype=bool)
    if logits.shape[1] == 1:
        return np.asarray(np.abs(logits[:, 0] - previous[:, 0]) < threshold)
    return np.asarray(logits.argmax(-1) == previous.argmax(-1))


def _low_normalized_entropy(logits: np.ndarray, previous: np.ndarray | None, threshold: float) -> np.ndarray:
    return np.asarray(_normalized_entropy(logits) < threshold)


def _entropy_thresholds(ramps: np.ndarray, quantiles: np.ndarray) -> list[float | None]:
    values = np.quantile(entropy(_rows(ramps)), quantiles)
    return list(np.unique(np.clip(values, 0.0, None)))


def _probability_thresholds(ramps: np.ndarray, quantiles: np.ndarray) -> list[float | None]:
    values = np.quantile(np.exp(log_softmax(_rows(ramps)).max(-1)), quantiles)
    return [min(float(value), 1.0) for value in np.unique(values)]


def _normalized_entropy_thresholds(ramps: np.ndarray, quantiles: np.ndarray) -> list[float | None]:
    values = np.quantile(entropy(_rows(ramps)) / np.log(ramps.shape[-1]), quantiles)
    return [min(float(value), 1.0) for value in np.unique(np.clip(values, 0.0, None))]


def _difference_thresholds(ramps: np.ndarray, quantiles: np.ndarray) -> list[float | None]:
    """Return differences between consecutive predictions for regression; classes need no threshold."""
    if ramps.shape[-1] != 1:
        return [None]
    differences = np.abs(np.diff(ramps[..., 0], axis=0)) if len(ramps) > 1 else np.ones(1)
    return [float(value) for value in np.unique(np.quantile(differences, quantiles))]


def _rows(ramps: np.ndarray) -> np.ndarray:
    return ramps.reshape(-1, ramps.shape[-1])


@dataclass(frozen=True)
class RuleKind:
    """What distinguishes a rule from others: a row of ``RULES``."""

    name: str
    is_sure: Decision
    thresholds: Thresholds
    threshold_range: tuple[float, float] | None
    """The valid thresholds; None: the rule needs none (but for regression)."""
    patient: bool
    """Whether it can wait for several sure ramps in a row."""
    value: Callable[[np.ndarray], np.ndarray] | None = None
    """Logits [n, outputs] -> what is compared with the threshold, [n]; None: the decision also depends on the
    ramp before."""
    value_rises: bool = False
    """Whether a row is sure above the threshold, not below it."""
    uses_previous_logits: bool = False
    """Whether the decision compares with the ramp before."""
    task_kinds: tuple[str, ...] = ("classification",)
    """Kinds of tasks whose logits it decides on, keys of :data:`effx.specs.kinds.KINDS`."""


RULES: Mapping[str, RuleKind] = {
    kind.name: kind
    for kind in (
        RuleKind("entropy", _low_entropy, _entropy_thresholds, (0.0, np.inf), patient=False,
                 value=entropy),
        RuleKind("max-probability", _high_probability, _probability_thresholds, (0.0, 1.0), patient=False,
                 value=_max_probability, value_rises=True),
        RuleKind("patience", _same_prediction, _difference_thresholds, None, patient=True,
                 uses_previous_logits=True, task_kinds=("classification", "regression")),
        RuleKind("consecutive-entropy", _low_normalized_entropy, _normalized_entropy_thresholds, (0.0, 1.0),
                 patient=True, value=_normalized_entropy),
    )
}  # fmt: skip


def rule_kind(name: str) -> RuleKind:
    """Return the row of a rule.

    Raises:
        UsageError: there is no such rule; the message names the nearest.
    """
    if name not in RULES:
        raise unknown("exit rule", name, RULES)
    return RULES[name]


def check_task(rule: str, task: Task) -> None:
    """Raise :class:`UsageError` if a rule does not decide on the logits of a task's kind."""
    task.behavior.check_supported("exits", task.name)
    usable = [name for name, kind in RULES.items() if task.kind in kind.task_kinds]
    if rule not in usable:
        raise UsageError(
            f"task '{task.name}' ({task.kind}): exit rule {rule} does not support this kind of task: set "
            f"rule to {' or '.join(usable)}",
            settings="rule",
        )


def lowest_depth(rule: str, depths: Sequence[int]) -> int:
    """Return the layers of a row that leaves as early as a rule allows.

    Args:
        rule: its name.
        depths: layers before each ramp and, last, before the model's head.
    """
    return depths[1 if rule_kind(rule).uses_previous_logits else 0]


@dataclass(frozen=True)
class ExitState:
    """What a rule remembers of the rows that have not exited."""

    streak: np.ndarray
    """int64 [n]; consecutive ramps at which a row was sure."""
    previous: np.ndarray | None
    """Logits [n, outputs] of the ramp before."""

    def rows(self, keep: np.ndarray) -> ExitState:
        """Return the state of some rows, given as bool [n] or as indices."""
        return ExitState(self.streak[keep], None if self.previous is None else self.previous[keep])


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
        kind = rule_kind(self.name)
        if kind.threshold_range is not None:
            low, high = kind.threshold_range
            if self.threshold is None or not low <= self.threshold <= high:
                raise UsageError(
                    f"exit rule {self.name}: expected a threshold from {low:g} to {high:g}, got "
                    f"{self.threshold}."
                )
        if self.patience < 1 or (self.patience > 1 and not kind.patient):
            expected = "an integer >= 1" if kind.patient else "1 (this rule decides on one ramp)"
            raise UsageError(f"exit rule {self.name}: expected patience {expected}, got {self.patience}.")

    @property
    def kind(self) -> RuleKind:
        """The rule's row in the table."""
        return rule_kind(self.name)

    def start(self, n: int) -> ExitState:
        """Return the state of ``n`` rows before the first ramp."""
        return ExitState(np.zeros(n, dtype=np.int64), None)

    def step(self, state: ExitState, logits: np.ndarray) -> tuple[ExitState, np.ndarray]:
        """Return the state after a ramp with ``logits`` [n, outputs], and which rows exit there (bool [n]).

        Raises:
            UsageError: the task is regression, and the rule needs probabilities or has no threshold.
        """
        kind = self.kind
        if logits.shape[1] == 1 and ("regression" not in kind.task_kinds or self.threshold is None):
            raise UsageError(f"exit rule {self.name}: regression supports only patience with a threshold.")
        sure = kind.is_sure(logits, state.previous, self.threshold or 0.0)
        streak = np.where(sure, state.streak + 1, 0)
        return ExitState(streak, logits), streak >= self.patience

    def to_json(self) -> dict[str, Any]:
        """Return the rule as results have it."""
        value = asdict(self)
        return {"rule": value.pop("name"), **value}


def simulate(rule: ExitRule, logits: np.ndarray) -> np.ndarray:
    """Return the head at which each row exits: int64 [n], the last head for rows that do not exit early.

    Args:
        rule: when rows exit.
        logits: [heads, n, outputs] of every ramp, first to last, and the model's head.
    """
    last = len(logits) - 1
    heads = np.full(logits.shape[1], last)
    state = rule.start(logits.shape[1])
    for number, out in enumerate(logits[:-1]):
        state, now = rule.step(state, out)
        heads = np.where(now & (heads == last), number, heads)
    return heads


def heads_of(rules: Sequence[ExitRule], logits: np.ndarray) -> np.ndarray:
    """Return the head at which each row exits by each setting of one rule: int64 [settings, n].

    As :func:`simulate`, which computes the values of the ramps again for every setting.

    Args:
        rules: settings of one rule.
        logits: [heads, n, outputs] of every ramp, first to last, and the model's head.
    """
    kind = rule_kind(rules[0].name)
    if kind.value is None:
        return np.array([simulate(rule, logits) for rule in rules])
    sign = -1.0 if kind.value_rises else 1.0
    values = sign * np.array([kind.value(out) for out in logits[:-1]])
    heads = np.empty((len(rules), logits.shape[1]), dtype=np.int64)
    for patience in {rule.patience for rule in rules}:
        members = [index for index, rule in enumerate(rules) if rule.patience == patience]
        # a row exits at the first ramp at which the last few values are all below the threshold
        largest = np.full(values.shape, np.inf)
        for number in range(patience - 1, len(values)):
            largest[number] = values[number - patience + 1 : number + 1].max(axis=0)
        least = np.minimum.accumulate(largest, axis=0)
        for index in members:
            heads[index] = (least >= sign * (rules[index].threshold or 0.0)).sum(axis=0)
    return heads


def never(name: str, logits: np.ndarray) -> ExitRule:
    """Return the setting of a rule by which no row exits early, for logits [heads, n, outputs]."""
    kind = rule_kind(name)
    if name == "max-probability":
        return ExitRule(name, 1.0)
    if kind.threshold_range is None and logits.shape[-1] > 1:
        return ExitRule(name, None, max(1, len(logits) - 1))  # at the first ramp no prediction is repeated
    return ExitRule(name, 0.0)


@dataclass(frozen=True)
class ExitPoint:
    """Depth and score of a rule on some rows."""

    rule: ExitRule
    mean_depth: float
    """Layers that a row runs through on average."""
    score: float
    """The task's primary metric."""


Scorer = Callable[[np.ndarray], float]
"""Logits [n, outputs] -> the task's primary metric."""


def evaluate(rule: ExitRule, logits: np.ndarray, depths: np.ndarray, score: Scorer) -> ExitPoint:
    """Return mean depth and score of ``rule`` over logits [heads, n, outputs].

    ``depths`` [heads] is the number of layers before each head.
    """
    heads = simulate(rule, logits)
    chosen = logits[heads, np.arange(len(heads))]
    return ExitPoint(rule, float(depths[heads].mean()), float(score(chosen)))


def candidates(name: str, logits: np.ndarray, thresholds: int = 100) -> list[ExitRule]:
    """Return settings of a rule that cover its range on logits [heads, n, outputs].

    Thresholds are quantiles of the ramps' values on these rows; patience is at most the number of ramps.
    """
    kind, ramps = rule_kind(name), logits[:-1]
    patiences = range(1, len(ramps) + 1) if kind.patient else [1]
    values = kind.thresholds(ramps, np.linspace(0.0, 1.0, thresholds))
    values = [None if value is None else float(value) for value in values]
    return [ExitRule(name, value, patience) for patience in patiences for value in values]


def calibrate(name: str, logits: np.ndarray, depths: np.ndarray, score: Scorer, *, depth: float) -> ExitPoint:
    """Choose a rule's settings on held-out rows, for a mean depth.

    For a loss of score see :mod:`effx.specs.exit_calibration`.

    Args:
        name: which rule.
        logits: [heads, n, outputs] of every ramp and the model's head on held-out rows.
        depths: [heads] layers before each head.
        score: the task's primary metric.
        depth: maximum mean number of layers; of the settings within a quarter of a layer of it, the one with
            the best score is chosen.

    Returns:
        The chosen point; its figures are of these rows, so they are slightly optimistic.

    Raises:
        UsageError: no setting reaches the depth.
    """
    points = [evaluate(rule, logits, depths, score) for rule in candidates(name, logits)]
    within = [point for point in points if point.mean_depth <= depth]
    if not within:
        least = min(point.mean_depth for point in points)
        raise UsageError(
            f"exit rule {name}: the lowest mean depth on these rows is {least:.2f} layers, more than "
            f"{depth:.2f}.",
            settings="depth",
        )
    deepest = max(point.mean_depth for point in within)
    near = [point for point in within if point.mean_depth >= deepest - _SAME_DEPTH_LAYERS]
    return max(near, key=lambda point: (point.score, -point.mean_depth))
