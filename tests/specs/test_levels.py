"""Levels between dots: filled, or refused where the dots say nothing."""

from __future__ import annotations

import re

import pytest

from effx.errors import UsageError
from effx.specs.levels import parse_levels


def test_dots_go_on_in_steps() -> None:
    assert [level.heads for level in parse_levels("10,...,40")] == [10, 20, 30, 40]
    assert [level.heads for level in parse_levels("50,60,…,80")] == [50, 60, 70, 80]
    assert [level.heads for level in parse_levels("10,20,...,45")] == [10, 20, 30, 40, 45]
    assert [level.heads for level in parse_levels("10,...,20")] == [10, 20]  # a step of 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("50,...,80", "levels '50,...,80': a step of 50 from 50 gives no level below 80: write two levels"),
        ("10,20,...,25", "a step of 10 from 20 gives no level below 25"),
        ("80,...,10", "levels '80,...,10': levels must rise across '...'; 10 is not above 80."),
        ("10,20,...,20", "20 is not above 20"),
        ("20/10,...,80", "'...' must be between two plain levels"),
    ],
)
def test_dots_that_fill_nothing_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        parse_levels(text)
