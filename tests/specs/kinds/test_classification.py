"""Heads that serve a classification, and those that do not."""

from __future__ import annotations

import pytest

from effx.specs.heads import Head, HeadSettings, OtherHeadError
from effx.specs.kinds import KINDS

KIND = KINDS["classification"]


def test_outputs_are_matched_by_name_also_if_the_names_are_numbers() -> None:
    numbers = ("0", "1", "2")
    assert KIND.match_head(Head("classification", ("2", "0", "1"), "m"), numbers, HeadSettings()).order == (
        1,
        2,
        0,
    )
    plain = Head("classification", ("LABEL_0", "LABEL_1", "LABEL_2"), "m")
    assert KIND.match_head(plain, numbers, HeadSettings()).order == (0, 1, 2)
    with pytest.raises(OtherHeadError, match="its labels are a, b, c, those of the task 0, 1, 2"):
        KIND.match_head(Head("classification", ("a", "b", "c"), "m"), numbers, HeadSettings())


def test_a_regression_head_names_the_kind_of_task_that_it_is_for() -> None:
    head = Head("regression", ("LABEL_0",), "m", of_numbers=True)
    with pytest.raises(OtherHeadError, match="read as classes: .* set task_kind to regression"):
        KIND.match_head(head, ("0", "1", "2", "3", "4"), HeadSettings())
    with pytest.raises(OtherHeadError, match="its labels are LABEL_0"):
        KIND.match_head(head, ("bad", "fair", "good"), HeadSettings())
