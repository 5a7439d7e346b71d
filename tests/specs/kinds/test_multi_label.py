"""Sets of labels: the forms in which files have them, how they are stored, predicted and scored."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from effx.errors import DataError
from effx.specs.heads import Head, HeadSettings, OtherHeadError
from effx.specs.kinds.multi_label import MULTI_LABEL

NAMES = ("anger", "fear", "joy")
SETS = st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=20)


def where(index: int) -> str:
    return f"row {index + 1}"


def encoded(*values: object, labels: tuple[str, ...] = NAMES) -> list[list[int]]:
    indices, sets = MULTI_LABEL.encode(labels, values, where, labels)
    assert indices.tolist() == list(range(len(values))) and sets.dtype == bool
    return sets.astype(int).tolist()


@pytest.mark.parametrize(
    "values",
    [
        (["joy", "anger"], [], ["fear"]),
        ([2, 0], [], [1]),
        ([1, 0, 1], [0, 0, 0], [0, 1, 0]),
        ([1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]),
        ([True, False, True], [False, False, False], [False, True, False]),
        ('["joy", "anger"]', "[]", "['fear']"),
        ("[1, 0, 1]", " [0, 0, 0]", "[0,1,0]"),
        (("joy", " anger "), (), ("fear",)),
        (("['joy'\n, 'anger',]"), "[ ]", "[ 'fear' ]"),
    ],
)
def test_each_form_of_labels_gives_the_same_sets(values: tuple[object, ...]) -> None:
    assert encoded(*values) == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


@settings(deadline=None, max_examples=40)
@given(SETS)
def test_labels_are_the_same_by_name_by_number_and_as_bits(bits: list[list[bool]]) -> None:
    expected = [[int(bit) for bit in row] for row in bits]
    numbers = [[i for i, bit in enumerate(row) if bit] for row in bits]
    assert encoded(*expected) == expected
    assert encoded(*numbers) == expected
    assert encoded(*([NAMES[i] for i in row] for row in numbers)) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((["joy"], "joy"), "row 2: the label is joy: expected a list of labels"),
        ((["joy"], None), "row 2: the label is None: expected a list of labels"),
        ((["joy"], ""), "row 2: the label is empty: expected a list of labels"),
        ((["joy"], ["jay"]), "row 2: label 'jay' is not one of 0=anger, 1=fear, 2=joy. Did you mean 'joy'"),
        ((["joy", "joy"],), "row 1: label 'joy' occurs twice"),
        (([0, 2], [3]), "row 2: label '3' is not one of"),
        (([[0]],), "row 1: the label is .*: expected names or numbers of labels in the list"),
        (([0.5, 0.5, 0.0],), "row 1: the label .*: expected names or numbers"),
        (([0, 1, 0], [0, 1]), "row 1: label 'anger' occurs twice"),
        (("['joy', 'fear']", "['joy' 'fear']"), "row 2: .*names of labels need commas between them"),
        (("['anger', 'joy'\n 'fear']",), "row 1: .*names of labels need commas between them"),
    ],
)
def test_labels_that_are_no_set_are_refused(values: tuple[object, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        encoded(*values)


def test_two_labels_whose_rows_may_be_bits_or_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="numbers of two labels, or 0 and 1 for each label"):
        encoded([0, 1], [1, 0], labels=("a", "b"))
    assert encoded([0, 1], [0, 0], labels=("a", "b")) == [[0, 1], [0, 0]]
    assert encoded([0, 1], [1], labels=("a", "b")) == [[1, 1], [0, 1]]


@settings(deadline=None, max_examples=40)
@given(SETS)
def test_stored_sets_are_restored(bits: list[list[bool]]) -> None:
    sets = np.array(bits)
    stored = MULTI_LABEL.store(sets)
    assert stored == [[i for i, bit in enumerate(row) if bit] for row in bits]
    np.testing.assert_array_equal(MULTI_LABEL.restore(stored, NAMES), sets)


@pytest.mark.parametrize("stored", [[[3]], [[-1]], [[1, 0]], [[1, 1]], [1], [["joy"]], [[0.5]]])
def test_stored_sets_are_checked(stored: list[object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        MULTI_LABEL.restore(stored, NAMES)


def test_a_label_is_predicted_if_its_probability_is_above_a_half() -> None:
    logits = np.array([[-0.1, 0.0, 0.1], [5.0, -5.0, 1e-6]])
    assert MULTI_LABEL.predict is not None
    expected = 1 / (1 + np.exp(-logits)) > 0.5
    np.testing.assert_array_equal(MULTI_LABEL.predict(logits), expected)


@settings(deadline=None, max_examples=40)
@given(SETS)
def test_the_constant_has_the_best_micro_f1_of_all_sets(bits: list[list[bool]]) -> None:
    train = np.array(bits)
    assert MULTI_LABEL.constant is not None

    def score(answer: tuple[bool, ...] | np.ndarray) -> float:
        answers = np.broadcast_to(answer, train.shape)
        return float(sklearn.f1_score(train, answers, average="micro", zero_division=0.0))

    best = max(score(answer) for answer in itertools.product((False, True), repeat=3))
    assert score(MULTI_LABEL.constant(train, NAMES).prediction) == pytest.approx(best)


@settings(deadline=None, max_examples=40)
@given(SETS)
def test_agreement_is_micro_f1_of_the_predicted_sets(bits: list[list[bool]]) -> None:
    expected = np.array(bits)
    other = expected ^ (np.random.default_rng(len(bits)).random(expected.shape) < 0.2)
    value = sklearn.f1_score(expected, other, average="micro", zero_division=1.0)
    assert MULTI_LABEL.agreement(expected, other) == pytest.approx(value)


def test_a_head_is_matched_by_label_names() -> None:
    head = Head("multi-label", ("JOY", "anger", "fear"), "a model")
    assert MULTI_LABEL.match_head(head, NAMES, HeadSettings()).order == (1, 2, 0)
    with pytest.raises(OtherHeadError, match="its labels are JOY, anger, fear"):
        MULTI_LABEL.match_head(head, ("joy", "anger", "love"), HeadSettings())
    with pytest.raises(OtherHeadError, match=r"a model\) is not one for multi-label"):
        MULTI_LABEL.match_head(Head("classification", NAMES, "a model"), NAMES, HeadSettings())
    for kept in (HeadSettings(keep_head=True), HeadSettings(labels=NAMES)):  # it lacks problem_type
        plan = MULTI_LABEL.match_head(Head("classification", NAMES, "a model"), NAMES, kept)
        assert plan.keep and plan.order in (None, (0, 1, 2))
    with pytest.raises(OtherHeadError, match="is not one for multi-label$"):
        MULTI_LABEL.match_head(Head("regression", ("x",), "a model"), NAMES, HeadSettings(keep_head=True))
