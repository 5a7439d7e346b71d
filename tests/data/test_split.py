from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effx.data.split import split
from effx.errors import UsageError

LABELS = st.lists(st.integers(0, 4), min_size=2, max_size=60)


@settings(max_examples=200, deadline=None)
@given(LABELS, st.data(), st.floats(0.05, 0.95), st.integers(0, 3))
def test_parts_are_disjoint_complete_and_have_no_text_in_common(
    labels: list[int], data: st.DataObject, share: float, seed: int
) -> None:
    numbers = data.draw(st.lists(st.integers(0, 40), min_size=len(labels), max_size=len(labels)))
    texts = [(f"text {number}",) for number in numbers]
    try:
        train, validation = split(texts, np.array(labels), share, seed)
    except UsageError:
        assert len(set(zip(numbers, labels, strict=True))) <= len(set(labels)) * 2 or len(set(numbers)) <= 5
        return
    assert sorted([*train, *validation]) == list(range(len(labels)))
    assert not {texts[index] for index in train} & {texts[index] for index in validation}
    again = split(texts, np.array(labels), share, seed)
    assert np.array_equal(train, again[0]) and np.array_equal(validation, again[1])


def test_classes_are_divided_in_the_same_proportion() -> None:
    labels = np.repeat([0, 1, 2, 3], [800, 150, 45, 5])
    texts = [(str(index),) for index in range(len(labels))]
    train, validation = split(texts, labels, 0.8, 0)
    assert Counter(labels[train].tolist()) == {0: 640, 1: 120, 2: 36, 3: 4}
    assert Counter(labels[validation].tolist()) == {0: 160, 1: 30, 2: 9, 3: 1}
    other, _ = split(texts, labels, 0.8, 1)
    assert not np.array_equal(train, other)


def test_numbers_are_divided_within_tenths_of_their_range() -> None:
    labels = np.linspace(0, 5, 1000)
    _, validation = split([(str(index),) for index in range(1000)], labels, 0.9, 0)
    assert len(validation) == 100
    assert Counter((labels[validation] // 0.5001).astype(int).tolist()) == dict.fromkeys(range(10), 10)


def test_a_class_with_one_text_is_trained_on() -> None:
    texts = [("a",), ("b",), ("c",), ("d",)]
    train, validation = split(texts, np.array([0, 0, 0, 1]), 0.5, 0)
    assert 3 in train and 3 not in validation


def test_one_text_cannot_be_divided() -> None:
    with pytest.raises(UsageError, match="4 training rows and 0 validation rows"):
        split([("a",)] * 4, np.array([0, 1, 0, 1]), 0.5, 0)
