"""Answers in a context: rows, windows, targets, decoding and scores, against independent computations.

``official_*`` and ``run_qa_*`` follow SQuAD's script evaluate-v1.1.py and run_qa.py of transformers.
"""

from __future__ import annotations

import collections
import re
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from effx.encoding import Encoded, Encoder
from effx.errors import DataError, UsageError
from effx.specs.kinds.answer_span import ANSWER_SPAN as KIND
from effx.specs.kinds.answer_span import Answers, targets
from effx.stats import intervals
from effx.stats.metrics import METRICS

WORDS = "film plot acting soup room view unbelievable warm dull never again was the and".split()
CASES: list[tuple[list[str], str]] = [
    (["the Eiffel Tower."], "eiffel tower"),
    (["A.B.C."], "abc"),
    (["the"], ""),
    (["the"], "a"),
    (["an apple"], "Apple!"),
    (["another theme"], "other me"),
    (["Zürich", "Zurich"], "ZÜRICH"),
    (["İstanbul"], "istanbul"),
    (["24–10", "24-10"], "2410"),
    (["“golden anniversary”"], "golden anniversary"),
    (["$5 million"], "5 million"),
    (["東京"], "東京 都"),
    (["a\u00a0b\u2009c"], "b c"),
    (["don't"], "dont"),
    (["x"], ""),
    (["cat cat dog"], "cat dog dog"),
]


def official_normalize(text: str) -> str:
    no_punctuation = "".join(ch for ch in text.lower() if ch not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", no_punctuation).split())


def official_f1(prediction: str, truth: str) -> float:
    prediction_tokens, truth_tokens = (
        official_normalize(prediction).split(),
        official_normalize(truth).split(),
    )
    common = collections.Counter(prediction_tokens) & collections.Counter(truth_tokens)
    num_same = sum(common.values())
    if num_same == 0:
        return 0
    precision, recall = num_same / len(prediction_tokens), num_same / len(truth_tokens)
    return 2 * precision * recall / (precision + recall)


def official_scores(answers: list[list[str]], predictions: list[str]) -> tuple[float, float]:
    """Return exact match and F1, in percent."""
    f1 = exact = 0.0
    for truths, prediction in zip(answers, predictions, strict=True):
        exact += max(official_normalize(prediction) == official_normalize(truth) for truth in truths)
        f1 += max(official_f1(prediction, truth) for truth in truths)
    return 100 * exact / len(answers), 100 * f1 / len(answers)


def cases() -> list[tuple[list[str], str]]:
    rng = np.random.default_rng(0)
    parts = [
        "the",
        "a",
        "An",
        "Theatre",
        "cat",
        "Dog",
        "naïve",
        "U.S.",
        "1,000",
        "-",
        "…",
        "",
        "(b)",
        "ß",
        "É",
        "’s",
    ]
    made = []
    for _ in range(500 - len(CASES)):
        texts = [
            "".join(f"{part}{rng.choice([' ', '  ', chr(0xA0), '-'])}" for part in rng.choice(parts, count))
            for count in rng.integers(0, 6, rng.integers(2, 6))
        ]
        made.append((texts[1:], texts[0] if rng.random() < 0.7 else str(rng.choice(texts[1:])).upper()))
    return CASES + made


def scores_of(answers: list[list[str]], predictions: list[str]) -> dict[str, float]:
    arrays = KIND.numbers(KIND.restore(answers, ()), KIND.restore(predictions, ()))
    return {name: METRICS[name](*arrays) for name in KIND.metrics}


def test_scores_are_those_of_the_official_script() -> None:
    every = cases()
    assert len(every) == 500
    singles = []
    for answers, prediction in every:
        exact, f1 = official_scores([answers], [prediction])
        assert scores_of([answers], [prediction]) == pytest.approx(
            {"answer_f1": f1 / 100, "exact_match": exact / 100}
        )
        singles.append(exact)
    assert 20 < np.mean(singles) < 80
    exact, f1 = official_scores([answers for answers, _ in every], [prediction for _, prediction in every])
    total = scores_of([answers for answers, _ in every], [prediction for _, prediction in every])
    assert total == pytest.approx({"answer_f1": f1 / 100, "exact_match": exact / 100})


def test_weighted_scores_are_those_of_repeated_questions() -> None:
    answers, predictions = [a for a, _ in cases()[:60]], [p for _, p in cases()[:60]]
    weights = np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), size=5)
    labels, scores = KIND.numbers(KIND.restore(answers, ()), KIND.restore(predictions, ()))
    for name in KIND.metrics:
        values = METRICS[name].weighted(labels, scores[None], weights.astype(np.float32))
        for row, weight in enumerate(weights):
            drawn = np.repeat(np.arange(60), weight)
            repeated = scores_of([answers[i] for i in drawn], [predictions[i] for i in drawn])
            assert values[0, row] == pytest.approx(repeated[name], abs=1e-6)


def test_few_differing_answers_have_a_bound_at_their_worst() -> None:
    metric, labels = METRICS["answer_f1"], np.ones((100, 2))
    low, high = intervals.few_differing_interval(metric, labels, labels, labels, 0.975)
    assert low == pytest.approx(-0.04) and high == pytest.approx(
        0.04
    )  # Clopper-Pearson: 1 - 0.025 ** 0.01 = 0.036


def encoded_rows(
    folder: Path, rows: list[tuple[str, str]], max_length: int, stride: int | None = None
) -> Encoded:
    return Encoder(folder, max_length, form="windows", stride=stride)(rows)


def rows_of(n: int, seed: int = 0) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    return [
        (" ".join(rng.choice(WORDS, rng.integers(1, 5))), "  ".join(rng.choice(WORDS, rng.integers(1, 60))))
        for _ in range(n)
    ]


def features(folder: Path, rows: list[tuple[str, str]], max_length: int, stride: int | None = None) -> Any:
    tokenizer, encoder = AutoTokenizer.from_pretrained(folder), Encoder(folder, max_length, form="windows")
    return tokenizer(
        [encoder.question(question) for question, _ in rows], [context for _, context in rows],
        truncation="only_second", max_length=max_length, stride=stride or max_length // 3,
        return_overflowing_tokens=True, return_offsets_mapping=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("family", "stride"), [("bert", None), ("roberta", None), ("bert", 2), ("roberta", 9)]
)
def test_windows_are_those_of_transformers(
    family: str, stride: int | None, encoders: dict[str, Path]
) -> None:
    rows = rows_of(40)
    encoded = encoded_rows(encoders[family], rows, 24, stride)
    expected = features(encoders[family], rows, 24, stride)
    assert (
        encoded.row_of is not None and encoded.windows is not None and encoded.row_count == 40 < len(encoded)
    )
    assert encoded.row_of.tolist() == expected["overflow_to_sample_mapping"]
    for number, ids in enumerate(expected["input_ids"]):
        low, high = encoded.offsets[number : number + 2]
        assert encoded.ids[low:high].tolist() == ids
        offsets = [
            pair if sequence == 1 else (-1, -1)
            for pair, sequence in zip(
                expected["offset_mapping"][number], expected.sequence_ids(number), strict=True
            )
        ]
        assert (
            list(zip(encoded.windows.begins[low:high], encoded.windows.ends[low:high], strict=True))
            == offsets
        )


def test_a_long_question_leaves_half_of_a_window_to_its_context(encoders: dict[str, Path]) -> None:
    question, context = "  " + " ".join(WORDS * 4), " ".join(WORDS * 2)
    encoder = Encoder(encoders["bert"], 24, form="windows")
    encoded = encoder([(question, context)])
    assert encoded.windows is not None and len(encoded) > 2 and encoded.lengths.max() == 24
    assert question.lstrip().startswith(encoder.question(question)) and encoder.question("who?") == "who?"
    assert set(encoded.windows.ends[encoded.windows.ends > 0]) >= {
        len("film"),
        len(context),
    }  # all of the context
    with pytest.raises(UsageError, match="max_length 12: .* needs at least 16 tokens"):
        Encoder(encoders["bert"], 12, form="windows")
    with pytest.raises(UsageError, match="windows of 24 tokens have at most 10 in common, not 11"):
        Encoder(encoders["bert"], 24, form="windows", stride=11)


def run_qa_targets(folder: Path, rows: list[tuple[str, str]], answers: list[Answers]) -> list[list[int]]:
    expected = features(folder, rows, 24)
    result = []
    for i, offsets in enumerate(expected["offset_mapping"]):
        sequence_ids = expected.sequence_ids(i)
        answer = answers[expected["overflow_to_sample_mapping"][i]]
        start_char, end_char = answer.starts[0], answer.starts[0] + len(answer.texts[0])
        first = sequence_ids.index(1)
        last = len(sequence_ids) - 1 - sequence_ids[::-1].index(1)
        if not (offsets[first][0] <= start_char and offsets[last][1] >= end_char):
            result.append([0, 0])
            continue
        while first < len(offsets) and offsets[first][0] <= start_char and sequence_ids[first] == 1:
            first += 1
        while offsets[last][1] >= end_char and sequence_ids[last] == 1:
            last -= 1
        result.append([first - 1, last + 1])
    return result


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_targets_are_those_of_run_qa(family: str, encoders: dict[str, Path]) -> None:
    rng, rows = np.random.default_rng(1), rows_of(60)
    answers = []
    for _, context in rows:
        words = list(re.finditer(r"\S+", context))
        first = int(rng.integers(len(words)))
        last = min(first + int(rng.integers(4)), len(words) - 1)
        start, end = words[first].start(), words[last].end()
        answers.append(Answers((context[start:end], "other"), (start, 0)))
    array = np.empty(60, dtype=object)
    array[:] = answers
    positions = targets(array, encoded_rows(encoders[family], rows, 24))
    assert positions.tolist() == run_qa_targets(encoders[family], rows, answers)
    assert 0.1 < (positions[:, 0] == 0).mean() < 0.9


def test_an_answer_without_its_position_is_searched_or_refused(encoders: dict[str, Path]) -> None:
    encoded = encoded_rows(encoders["bert"], [("what was it", "the film was dull and the plot was warm")], 24)
    assert targets(KIND.restore([["dull"]], ()), encoded)[0, 0] > 0
    with pytest.raises(
        DataError, match="'was' occurs 2 times in the context .*: training needs its answer_start"
    ):
        targets(KIND.restore([["was"]], ()), encoded)


def run_qa_answers(logits: np.ndarray, folder: Path, rows: list[tuple[str, str]]) -> list[str]:
    expected = features(folder, rows, 24)
    found: list[list[tuple[float, str]]] = [[] for _ in rows]
    begin = 0
    for i, ids in enumerate(expected["input_ids"]):
        row = expected["overflow_to_sample_mapping"][i]
        start_logits, end_logits = logits[begin : begin + len(ids)].T
        begin += len(ids)
        offsets = [
            pair if sequence == 1 else None
            for pair, sequence in zip(expected["offset_mapping"][i], expected.sequence_ids(i), strict=True)
        ]
        for start in np.argsort(start_logits)[-1 : -20 - 1 : -1].tolist():
            for end in np.argsort(end_logits)[-1 : -20 - 1 : -1].tolist():
                if offsets[start] is None or offsets[end] is None:
                    continue
                if end < start or end - start + 1 > 30:
                    continue
                text = rows[row][1][offsets[start][0] : offsets[end][1]]
                found[row].append((float(start_logits[start] + end_logits[end]), text))
    return [max(each, key=lambda pair: pair[0])[1] if each else "" for each in found]


def test_answers_are_those_of_run_qa(encoders: dict[str, Path]) -> None:
    rows = rows_of(50, seed=2)
    encoded = encoded_rows(encoders["bert"], rows, 24)
    logits = np.random.default_rng(3).normal(size=(len(encoded.ids), 2)).astype(np.float32)
    assert KIND.predict_rows is not None
    predicted = KIND.predict_rows(logits, encoded)
    assert predicted.tolist() == run_qa_answers(logits, encoders["bert"], rows)
    order = np.random.default_rng(4).permutation(50)
    parts = [logits[encoded.offsets[i] : encoded.offsets[i + 1]] for i in encoded.sequences(order)]
    again = KIND.predict_rows(np.concatenate(parts), encoded.take(order))
    assert again.tolist() == predicted[order].tolist()
    assert [len(part) % 4 for part in KIND.deciding(logits, encoded)] == [0] * 50


def test_an_answer_has_at_most_30_tokens(encoders: dict[str, Path]) -> None:
    encoded = encoded_rows(encoders["bert"], [("what", " ".join(["film"] * 40))], 60)
    assert KIND.predict_rows is not None and encoded.windows is not None
    logits = np.zeros((len(encoded.ids), 2), dtype=np.float32)
    inside = np.flatnonzero(encoded.windows.begins >= 0)
    logits[inside[0], 0] = logits[inside[35], 1] = 9.0
    logits[inside[3], 0] = logits[inside[4], 1] = 5.0
    assert KIND.predict_rows(logits, encoded)[0].count("film") <= 30
    logits[inside[35], 1] = 0.0
    assert KIND.predict_rows(logits, encoded)[0] == "film film film film film"


GOOD = {"text": ["warm film"], "answer_start": [2]}
BAD: list[tuple[Any, str]] = [
    ({"text": ["cold"]}, "r1: the answer 'cold' is not in the context"),
    ({"text": ["warm"], "answer_start": [3]}, "r1: answer_start 3: the context has 'arm ' there"),
    ({"text": []}, "r1: the question has no answer"),
    ({"text": [" "]}, "r1: an answer is empty"),
    ({"text": ["warm"], "answer_start": [2, 3]}, "r1: 1 answers and 2 values of answer_start"),
    ({"text": ["warm"], "answer_start": ["2"]}, "r1: answer_start: expected a list of integers"),
    ("warm", "r1: column 'answers': expected a row as {\"question\""),
    (None, "r1: column 'answers': expected a row as"),
]


@pytest.mark.parametrize(("value", "message"), BAD)
def test_a_wrong_row_is_refused_with_its_position(value: Any, message: str) -> None:
    assert KIND.check_rows is not None
    rows = [("what", "a warm film")] * 2
    with pytest.raises(DataError) as error:
        KIND.check_rows(rows, [GOOD, value], lambda index: f"r{index}")
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_both_layouts_of_answers_are_read() -> None:
    values = [
        GOOD,
        [{"text": "warm", "answer_start": 2}, {"text": "film", "answer_start": 7}],
        {"text": ["warm"]},
    ]
    _, labels = KIND.encode((), values, str, None)
    assert labels.tolist() == [
        Answers(("warm film",), (2,)), Answers(("warm", "film"), (2, 7)), Answers(("warm",), (-1,))
    ]  # fmt: skip
    assert KIND.store(labels) == [["warm film"], ["warm", "film"], ["warm"]]
    assert [answers.texts for answers in KIND.restore(KIND.store(labels), ())] == [a.texts for a in labels]
    for wrong in ([1], [[]], [[1]], [{"text": "a"}]):
        with pytest.raises(ValueError, match="expected texts, or lists of accepted texts"):
            KIND.restore(wrong, ())
