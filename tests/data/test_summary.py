from __future__ import annotations

import numpy as np
import pytest

from effx.data import Rows, scored, summarize
from effx.specs.tasks import TASKS, Task

TASK = Task("mail", "classification", ("sentence",), ("billing", "other", "spam"), ("accuracy", "macro_f1"))


def rows(*pairs: tuple[str, int]) -> Rows:
    return Rows([(text,) for text, _ in pairs], np.array([label for _, label in pairs]), "mail.csv")


def test_doubtful_rows_are_counted() -> None:
    train = rows(("a", 0), ("a", 0), ("a", 1), ("b", 0), ("c", 2))
    summary = summarize(TASK, train, rows(("a", 0), ("b", 1), ("new", 0)), lengths=np.array([3, 3, 3, 8, 8]),
                        max_length=8)  # fmt: skip
    assert (summary.duplicates, summary.contradictions, summary.overlap) == (2, 1, 2)
    text = "\n".join(summary.lines())
    assert "classification of one text into 3 classes (the labels are names of classes)" in text
    assert "billing 3+2, other 1+1, spam 1+0" in text
    assert "2 training rows repeat the text of another one, 1 of them with another label" in text
    assert "warning: 2 of 3 validation rows (67 %) are also training rows" in text
    assert "40.0 % of the training rows reach 8 tokens" in text


def test_the_baseline_is_the_majority_of_the_training_rows() -> None:
    summary = summarize(TASK, rows(("a", 1), ("b", 1), ("c", 0)), rows(("d", 0), ("e", 0), ("f", 1)))
    assert summary.baseline.answer == "'other'"
    assert summary.baseline.score == pytest.approx(1 / 3)


def test_the_baseline_of_a_correlation_is_zero() -> None:
    train = Rows([("a", "b")] * 3, np.array([1.0, 2.0, 4.5]), "x")
    assert summarize(TASKS["stsb"], train, train).baseline.score == 0


def test_rows_that_are_scored_only() -> None:
    lines = scored(TASK, rows(("a", 0), ("b", 1), ("c", 0)))
    assert lines == [
        "data: task 'mail', classification of one text into 3 classes (the labels are names of classes); 3 "
        "rows of mail.csv",
        "  labels: billing 2, other 1, spam 0, 1 without rows",
        "  baseline: always 'billing': accuracy 0.6667",
    ]


def test_rows_without_doubts_have_no_warning() -> None:
    lines = summarize(TASK, rows(("a", 0), ("b", 1)), rows(("c", 0))).lines()
    assert not any("warning" in line or "repeat" in line for line in lines)


def test_many_classes_are_summarised() -> None:
    task = Task("intents", "classification", ("sentence",), tuple(map(str, range(150))), ("accuracy",))
    train = rows(*((f"t{index}", index % 150) for index in range(450)))
    assert "140 more with 3 to 3 rows each" in "\n".join(summarize(task, train, train).lines())
