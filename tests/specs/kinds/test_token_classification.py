"""Tags of words: labels of tasks and of rows, how tags are stored, predicted and scored."""

from __future__ import annotations

import numpy as np
import pytest
from seqeval.metrics import f1_score

from effx.encoding import Encoded, Words
from effx.errors import DataError
from effx.specs.heads import Head, HeadSettings, OtherHeadError
from effx.specs.kinds.token_classification import TOKEN_CLASSIFICATION as KIND
from effx.specs.kinds.token_classification import labels_of

LABELS = ("O", "B-a", "I-a", "B-b", "I-b")


def where(index: int) -> str:
    return f"row {index + 1}"


def test_labels_have_both_tags_of_each_type() -> None:
    assert labels_of(["I-b", "O", "B-a"]) == LABELS
    KIND.check_labels(LABELS)
    for wrong in (("O",), ("B-a", "I-a", "O"), ("O", "I-a", "B-a"), ("O", "B-a", "I-b"), ("O", "a", "b")):
        with pytest.raises(ValueError, match="expected"):
            KIND.check_labels(wrong)


def test_rows_of_names_or_named_numbers_have_the_same_tags() -> None:
    named = [["O", "B-b"], ["I-a"], [" B-a ", "I-a", "O"]]
    file_names = ["O", "B-b", "I-b", "B-a", "I-a"]
    numbers = [[file_names.index(tag.strip()) for tag in row] for row in named]
    expected = [[0, 3, -1], [2, -1, -1], [1, 2, 0]]
    for values, names in ((named, None), (numbers, file_names)):
        indices, tags = KIND.encode(LABELS, values, where, names)
        assert indices.tolist() == [0, 1, 2] and tags.tolist() == expected
    assert KIND.store(tags) == [[0, 3], [2], [1, 2, 0]]
    np.testing.assert_array_equal(KIND.restore(KIND.store(tags), LABELS), tags)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([["O"], ["B-aa"]], "row 2: tag 'B-aa' is not one of 0=O, 1=B-a.* Did you mean 'B-a'"),
        ([["O", "S-a"]], "row 1: tag 'S-a' is not in the scheme IOB2: expected O, B-TYPE or I-TYPE"),
        ([["O", "B-"]], "row 1: tag 'B-' is not in the scheme"),
        ([["NOUN"]], "row 1: tag 'NOUN' is not in the scheme"),
        ([[0, 1]], "row 1: the tags are numbers, and the file does not name them"),
        ([["O", None]], "row 1: the tag is None: expected text, as in {"),
    ],
)
def test_other_tags_are_refused(values: list[list[object]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        KIND.encode(LABELS, values, where, None)


@pytest.mark.parametrize("stored", [[[5]], [[-1]], [1], [["O"]], [[0.5]]])
def test_stored_tags_are_checked(stored: list[object]) -> None:
    with pytest.raises(ValueError, match="expected lists of tag numbers from 0 to 4"):
        KIND.restore(stored, LABELS)


def test_a_word_has_the_tag_of_its_first_piece() -> None:
    """[CLS] word, two pieces, [SEP] | [CLS] a word of two pieces, its second word was cut off."""
    starts = np.array([-1, 0, 1, -1, -1, -1, 0, -1], dtype=np.int32)
    encoded = Encoded(np.arange(8), np.zeros(8), np.array([0, 5, 8]), 0, Words(starts, np.array([2, 2]), 3))
    logits = np.eye(5)[[4, 1, 3, 4, 4, 4, 2, 4]]
    assert KIND.predict_rows is not None
    assert KIND.predict_rows(logits, encoded).tolist() == [[1, 3, -1], [2, 0, -1]]
    again = encoded.take([1])
    assert KIND.predict_rows(logits[5:], again).tolist() == [[2, 0, -1]]


def test_agreement_is_the_f1_of_entities() -> None:
    before, after = np.array([[1, 2, 0], [0, 3, -1]]), np.array([[1, 0, 0], [0, 3, -1]])
    names = [[[LABELS[tag] for tag in row if tag >= 0] for row in tags] for tags in (before, after)]
    assert KIND.agreement(before, after) == pytest.approx(f1_score(*names)) == 0.5
    assert KIND.agreement(before * 0, before * 0) == 1.0


def test_the_constant_answer_keeps_the_length_of_rows() -> None:
    assert KIND.constant is not None
    labels = np.array([[1, 2, 0], [0, 3, -1]])
    assert KIND.constant(labels, LABELS).answers(labels).tolist() == [[0, 0, 0], [0, 0, -1]]


def test_a_head_is_matched_by_the_names_of_the_tags() -> None:
    outputs = ("B-b", "I-b", "O", "I-a", "B-a")
    assert KIND.task_labels(outputs) == ("O", "B-b", "I-b", "B-a", "I-a")
    assert KIND.task_labels(("LABEL_0", "LABEL_1")) == ("LABEL_0", "LABEL_1")
    plan = KIND.match_head(Head("token-classification", outputs, "m"), LABELS, HeadSettings())
    assert plan.order == (2, 4, 3, 0, 1)
    with pytest.raises(OtherHeadError, match=r"m\) is not one for token-classification"):
        KIND.match_head(Head("classification", outputs, "m"), LABELS, HeadSettings())
