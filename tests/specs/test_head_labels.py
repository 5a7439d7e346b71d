"""Outputs are matched to labels by name, whatever their order and case."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effx.errors import UsageError
from effx.specs import head_labels as labels

NAMES = ("entailment", "neutral", "contradiction", "not relevant", "Other-Thing")


def restyled(name: str, style: int) -> str:
    """The same name as another author writes it."""
    return (name, name.upper(), name.title(), f" {name} ", name.replace(" ", "_").replace("-", " "))[style]


@given(st.permutations(NAMES), st.lists(st.integers(0, 4), min_size=5, max_size=5))
def test_every_permutation_and_style_of_the_names_is_matched(outputs: list[str], styles: list[int]) -> None:
    written = [restyled(name, style) for name, style in zip(outputs, styles, strict=True)]
    order = labels.order(written, NAMES)
    assert order is not None
    assert tuple(outputs[number] for number in order) == NAMES


@given(st.permutations(NAMES), st.integers(0, 4))
def test_one_other_name_is_no_match(outputs: list[str], index: int) -> None:
    outputs[index] = "something else"
    assert labels.order(outputs, NAMES) is None
    assert not labels.unclear(outputs, NAMES)


def test_names_that_differ_by_case_alone_are_told_apart() -> None:
    assert labels.order(["us", "US"], ["US", "us"]) == [1, 0]
    assert labels.order(["Us", "US"], ["US", "us"]) is None


@pytest.mark.parametrize("outputs", [["LABEL_0", "LABEL_1"], ["label_0", "label_1"], ["0", "1"]])
def test_numbers_match_numbers_and_nothing_else(outputs: list[str]) -> None:
    assert labels.order(outputs, ["0", "1"]) == [0, 1]
    assert labels.order(outputs, ["negative", "positive"]) is None
    assert labels.unclear(outputs, ["negative", "positive"])
    assert not labels.unclear(outputs, ["a", "b", "c"])


def test_names_come_from_the_config() -> None:
    config = {"id2label": {"1": "b", "0": "a"}, "label2id": {"a": 0, "b": 1}}
    assert labels.names_of_outputs(config, 2) == ("a", "b")
    assert labels.names_of_outputs({"label2id": {"x": 1, "y": 0}}, 2) == ("y", "x")
    assert labels.names_of_outputs({}, 2) == ("LABEL_0", "LABEL_1")
    with pytest.raises(UsageError, match="names 2 labels .b, a., the head has 3 outputs"):
        labels.names_of_outputs(config, 3)
    assert labels.names_of_outputs({**config, "label2id": {"LABEL_0": 1, "LABEL_1": 0}}, 2) == ("a", "b")
    with pytest.raises(UsageError, match="id2label and label2id number the labels differently"):
        labels.names_of_outputs({**config, "label2id": {"a": 1, "b": 0}}, 2)
    with pytest.raises(UsageError, match="two outputs 'a'"):
        labels.names_of_outputs({"id2label": {"0": "a", "1": "a"}}, 2)


def test_names_that_count_otherwise_than_their_positions_are_found() -> None:
    stars = [f"{number} star{'s' * (number > 1)}" for number in range(1, 6)]
    assert labels.count_differently(stars)
    assert not labels.count_differently([name.replace(name[0], str(n)) for n, name in enumerate(stars)])
    assert not labels.count_differently(["1", "2", "3"])  # rows have these names themselves
    assert not labels.count_differently(["negative", "positive"])
    assert not labels.count_differently(["top 5 of 10", "others"])
