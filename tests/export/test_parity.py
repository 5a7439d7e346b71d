from __future__ import annotations

import numpy as np
import pytest

from effx.engines.mock import MockBehavior, MockSession
from effx.export import parity
from effx.export.parity import Reference
from effx.manifests import Parity
from effx.specs.tasks import Task

PRICE = Task("price", "regression", ("sentence",), (), ("pearson", "spearman"))


@pytest.mark.parametrize(
    ("magnitude", "difference", "passed"),
    [(1.0, 9e-5, True), (1.0, 2e-4, False), (20_000.0, 0.004, True), (20_000.0, 0.05, False)],
)
def test_the_tolerance_grows_with_logits_beyond_the_rounding_of_float32(
    magnitude: float, difference: float, passed: bool
) -> None:
    expected = magnitude * np.linspace(0.5, 1.0, 16, dtype=np.float64)[:, None]
    rows = parity.random_rows(16, 100, 8, 0)
    reference = Reference(rows, expected, None, None, "random")
    answers = expected + difference * np.where(np.arange(16) % 2, 1, -1)[:, None]
    assert parity.compare(reference, answers, None, PRICE, "fp32").passed is passed


RARE = Task("rare", "classification", ("sentence",), ("no", "yes"), ("matthews",))


def compared(before: np.ndarray, after: np.ndarray, labels: np.ndarray | None, task: Task = RARE) -> Parity:
    """Return the parity of an int8 engine with these classes."""
    n = len(before)
    logits = [np.eye(len(task.labels))[classes] * 4.0 for classes in (before, after)]
    logits[1] += 0.01
    reference = Reference(parity.random_rows(n, 100, 8, 0), logits[0], None, labels, "task", discrete=True)
    return parity.compare(reference, logits[1], None, task, "int8")


def test_a_class_that_the_engine_never_predicts_fails() -> None:
    """Accuracy and agreement hardly change where a class is rare."""
    labels = (np.arange(1000) % 200 == 0).astype(int)  # 5 of 1000
    none = np.zeros(1000, dtype=int)
    result = compared(labels, none, labels)
    assert (result.label_agreement, result.accuracy_lost) == (0.995, pytest.approx(0.005))
    assert (result.passed, result.lost_classes) == (False, ("yes",))
    assert (result.metric, result.metric_lost) == ("matthews", pytest.approx(1.0))
    assert compared(labels, none, None).lost_classes == ("yes",)  # without labels too
    once = np.zeros(1000, dtype=int)
    once[3] = 1  # one row may differ by chance
    assert compared(once, none, none).passed
    assert compared(labels, labels, labels).passed


def test_the_primary_metric_and_the_recall_of_a_class_are_gated() -> None:
    labels = (np.arange(1000) < 50).astype(int)
    after = labels.copy()
    after[:30] = 0  # 30 of 50 are missed: 3 points of accuracy, 60 of recall
    result = compared(labels, after, labels)
    assert result.label_agreement > 0.93
    assert (result.worst_class, result.recall_lost) == ("yes", pytest.approx(0.6))
    assert result.recall_lost_interval is not None and 0.3 < result.recall_lost_interval[0] < 0.6
    assert result.metric_lost_interval is not None
    assert 0.2 < result.metric_lost_interval[0] < result.metric_lost < result.metric_lost_interval[1]
    assert not result.passed
    few = labels.copy()
    few[:1] = 0
    assert compared(labels, few, labels).passed


@pytest.mark.parametrize(
    ("effect", "rows_per_query", "passed"), [(0.0, 8, True), (1e-5, 8, True), (1.0, 1, False)]
)
def test_an_int8_engine_whose_answers_depend_on_the_batch_is_also_compared_in_single_queries(
    effect: float, rows_per_query: int, passed: bool
) -> None:
    rows = parity.random_rows(160, 100, 8, 0)
    session = MockSession(MockBehavior(batch_effect=effect))
    order = np.append(np.arange(128), 128 + np.argsort(rows.lengths[128:], kind="stable"))
    logits = np.empty((160, 2), dtype=np.float32)
    for start in range(0, 160, 8):  # the checkpoint's answers are the engine's in batches of eight
        batch = order[start : start + 8]
        logits[batch] = session.infer(rows.batch(batch))["logits"]
    task = Task("two", "classification", ("sentence",), ("no", "yes"), ("accuracy",))
    reference = Reference(rows, logits, None, logits.argmax(axis=1), "task")
    measured = parity.measure(reference, session, task, "int8")
    assert (measured.rows_per_query, measured.passed) == (rows_per_query, passed)
    assert parity.measure(reference, session, task, "fp32").passed  # padding only
    if not passed:
        assert measured.accuracy_lost is not None and measured.accuracy_lost > 0.05
