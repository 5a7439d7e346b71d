"""Whether an engine computes what its checkpoint computes, and with which kernels: parity and audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from effx.manifests.fields import Count
from effx.specs.tasks import Task


@dataclass(frozen=True)
class Parity:
    """Differences of an engine's logits from its checkpoint's."""

    examples: int
    max_abs_diff: float
    """-1: an answer was not finite."""
    label_agreement: float
    passed: bool
    inputs: str
    """``task`` rows or ``random`` ids."""
    measured_on: str = "engine"
    """The engine, or the graphs that it was built from where it cannot run."""
    depth_agreement: float | None = None
    """Share of rows that exit after the same layer; None: the engine has no exits."""
    accuracy: float | None = None
    """On the labelled rows, where there are any."""
    accuracy_lost: float | None = None
    """Against the checkpoint on the same rows; negative: gained."""
    accuracy_lost_interval: tuple[float, float] | None = None
    """95 %, from the paired differences."""
    metric: str | None = None
    """The task's primary metric, where it is another one than accuracy, with labelled rows."""
    metric_lost: float | None = None
    """As ``accuracy_lost``."""
    metric_lost_interval: tuple[float, float] | None = None
    """95 %; None: too few predictions differ."""
    worst_class: str | None = None
    """The class whose recall fell by the most on the labelled rows, with its interval; None: none fell."""
    recall_lost: float | None = None
    recall_lost_interval: tuple[float, float] | None = None
    """95 %, adjusted for the number of classes."""
    lost_classes: tuple[str, ...] = ()
    """Classes that the checkpoint predicts and the engine never does, on more rows than chance explains."""
    least_cosine: float | None = None
    """Of the engine's and the checkpoint's vector of a text; None: texts are not embedded."""
    rows_per_query: Count = 8
    """1: the answers depend on the other rows of a batch, and this comparison is of single queries."""

    @property
    def agreement(self) -> str:
        """The agreement of the predictions, for messages; that of numbers has no lower limit."""
        if self.label_agreement < 0:
            return "label agreement below 0%"
        return f"label agreement {self.label_agreement:.1%}"

    @property
    def compared_rows(self) -> str:
        """Number and kind of the compared rows, for messages."""
        return (
            f"{self.examples} rows of the task" if self.inputs == "task" else f"{self.examples} random inputs"
        )


def check_parity(parity: Parity) -> Parity:
    """Return the differences; raise :class:`ValueError` if they contradict each other."""
    if parity.examples < 0:
        raise ValueError(f"examples: expected an integer >= 0, got {parity.examples}")
    if parity.passed and (parity.max_abs_diff < 0 or not 0 <= parity.label_agreement <= 1):
        raise ValueError("passed: contradicts max_abs_diff or label_agreement")
    if parity.least_cosine is not None and not -1 - 1e-6 <= parity.least_cosine <= 1 + 1e-6:
        raise ValueError(f"least_cosine: expected a number from -1 to 1, got {parity.least_cosine:g}")
    if parity.rows_per_query not in (1, 8):
        raise ValueError(f"rows_per_query: expected 1 or 8, got {parity.rows_per_query}")
    for name in ("depth_agreement", "accuracy"):
        value = getattr(parity, name)
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name}: expected a number from 0 to 1, got {value:g}")
    lost, interval = parity.accuracy_lost, parity.accuracy_lost_interval
    if lost is not None and not -1 <= lost <= 1:
        raise ValueError(f"accuracy_lost: expected a number from -1 to 1, got {lost:g}")
    if interval is not None and (lost is None or not interval[0] - 1e-9 <= lost <= interval[1] + 1e-9):
        raise ValueError("accuracy_lost_interval: does not contain accuracy_lost")
    for name, loss in (("metric", "metric_lost"), ("worst_class", "recall_lost")):
        if (getattr(parity, name) is None) != (getattr(parity, loss) is None):
            raise ValueError(f"{name} and {loss}: expected both or neither")
        if getattr(parity, f"{loss}_interval") is not None and getattr(parity, loss) is None:
            raise ValueError(f"{loss}_interval: expected none without {loss}")
    if parity.metric_lost is not None and not -2 <= parity.metric_lost <= 2:
        raise ValueError(f"metric_lost: expected a number from -2 to 2, got {parity.metric_lost:g}")
    if parity.recall_lost is not None and not 0 < parity.recall_lost <= 1:
        raise ValueError(f"recall_lost: expected a number from 0 to 1, got {parity.recall_lost:g}")
    return parity


CheckedParity = Annotated[Parity, AfterValidator(check_parity)]


@dataclass(frozen=True)
class PlanAudit:
    """What a built TensorRT plan runs, by its inspector."""

    layers: Mapping[str, Count]
    """Kind of layer -> how many."""
    product_precisions: Mapping[str, Count]
    """Precision -> how many matrix products with weights run in it; ``unknown`` where it is not reported."""
    fused_attention: Count
    """Kernels of fused attention."""


@dataclass(frozen=True)
class Audit:
    """What an engine's files compute, counted."""

    nodes: Mapping[str, Count]
    """Kind of node -> how many, the most frequent first."""
    weight_products: Count
    """Matrix products with weights."""
    integer_weight_products: Count
    """Those that are computed in integers."""
    fused_attention: Count
    product_precisions: Mapping[str, Count] | None = None
    """Precision -> how many matrix products with weights; None: not reported by the runtime."""
    head_products: Count | None = None
    """Matrix products of heads and ramps, which are not quantized; None: counted with the others."""
    plan: PlanAudit | None = None
    """What the built plan runs; None: not a plan, or not built on its GPU."""


def check_parity_of(parity: Parity, task: Task, key: str) -> None:
    """Raise :class:`ValueError` if the differences under ``key`` name what the task does not have."""
    if parity.metric not in (None, *task.metrics):
        raise ValueError(f"{key}.metric: {parity.metric!r} is not a metric of the task")
    if unknown := {parity.worst_class, *parity.lost_classes} - {None, *task.labels}:
        raise ValueError(f"{key}: {unknown.pop()!r} is not a label of the task")
