"""An answer to a question: a part of a context, as in SQuAD v1.1. Every token has a start and an end logit.

    question  Who created it?    context  The show was created by Simon Fuller.    answer  Simon Fuller

A context that is longer than the maximum length is divided into windows, each with the question before it
(:class:`effx.encoding.Encoder`). A row is a question with all its windows. Labels are the accepted answers,
predictions are texts, both object [n]. Features, labels and decoding are those of ``run_qa.py`` of
transformers; exact match and F1 are those of SQuAD's script ``evaluate-v1.1.py``.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from effx.errors import DataError
from effx.specs.heads import Head, HeadPlan, HeadSettings, OtherHeadError
from effx.specs.kinds.kind import Constant, Labels, RowTokens, TaskKind, Texts, Where
from effx.specs.kinds.values import objects, short
from effx.stats.metrics import exact_match, token_f1

EXAMPLE = (
    '{"question": "who?", "context": "Ann wrote it.", "answers": {"text": ["Ann"], "answer_start": [0]}}'
)
_BEST = 20
"""Starts, and ends, of a window that are combined."""
_LONGEST = 30
"""Tokens of an answer at most."""
_UNKNOWN = -1
"""Position of an answer that the file does not say."""


class Answers(NamedTuple):
    """Accepted answers to a question."""

    texts: tuple[str, ...]
    starts: tuple[int, ...]
    """First character of each in the context; -1: not known."""


def _check_labels(labels: Labels) -> None:
    if labels:
        raise ValueError(f"labels: expected none for answer-span, got {len(labels)}")


# labels of rows


def _check_rows(texts: Texts, values: Sequence[Any], where: Where) -> None:
    for index, ((question, context), value) in enumerate(zip(texts, values, strict=True)):
        if not question.strip():
            raise DataError(f"{where(index)}: the question is empty.")
        for text, start in zip(*_answers(value, where(index)), strict=True):
            if text not in context:
                raise DataError(f"{where(index)}: the answer '{short(text)}' is not in the context.")
            if start != _UNKNOWN and context[start : start + len(text)] != text:
                raise DataError(
                    f"{where(index)}: answer_start {start}: the context has "
                    f"'{short(context[start : start + len(text)])}' there, not the answer '{short(text)}'."
                )


def _encode(
    labels: Labels, values: Sequence[Any], where: Where, class_names: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return all rows, and their accepted answers."""
    return np.arange(len(values)), objects([_answers(value, where(i)) for i, value in enumerate(values)])


def _answers(value: Any, where: str) -> Answers:
    """Return the answers of ``{"text": [...], "answer_start": [...]}``, or of a list of single answers.

    Raises:
        DataError: it is neither, an answer is empty, or there is none.
    """
    if isinstance(value, list | tuple) and all(isinstance(answer, dict) for answer in value):
        value = {key: [answer.get(key) for answer in value] for key in ("text", "answer_start")}
        if all(start is None for start in value["answer_start"]):
            del value["answer_start"]
    texts = value.get("text") if isinstance(value, dict) else None
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{where}: column 'answers': expected a row as {EXAMPLE}, got {short(value)}.")
    if not texts:
        raise DataError(f"{where}: the question has no answer: expected at least one in each row.")
    if not all(text.strip() for text in texts):
        raise DataError(f"{where}: an answer is empty.")
    starts = value.get("answer_start")
    if starts is None:
        return Answers(tuple(texts), (_UNKNOWN,) * len(texts))
    if not isinstance(starts, list | tuple) or not all(type(start) is int and start >= 0 for start in starts):
        raise DataError(f"{where}: answer_start: expected a list of integers >= 0, got {short(starts)}.")
    if len(starts) != len(texts):
        raise DataError(f"{where}: {len(texts)} answers and {len(starts)} values of answer_start.")
    return Answers(tuple(texts), tuple(starts))


def _is_label(value: Any) -> bool:
    first = value[0] if isinstance(value, list | tuple) and value else value
    return isinstance(first, dict) and "text" in first


def targets(labels: np.ndarray, rows: RowTokens) -> np.ndarray:
    """Return the tokens that begin and end the first answer, int64 [sequences, 2].

    Both are 0, the first token, if the window does not have the answer completely.

    Args:
        labels: answers of the rows.
        rows: their windows.

    Raises:
        DataError: the position of an answer is unknown, and its text occurs more than once in the context.
    """
    windows, row_of = rows.windows, rows.row_of
    assert windows is not None and row_of is not None
    characters = [_first(answers, context) for answers, context in zip(labels, windows.contexts, strict=True)]
    result = np.zeros((len(rows.offsets) - 1, 2), dtype=np.int64)
    for number, (low, high) in enumerate(itertools.pairwise(rows.offsets)):
        begin, end = characters[row_of[number]]
        begins, ends = windows.begins[low:high], windows.ends[low:high]
        inside = np.flatnonzero(begins >= 0)
        if not len(inside) or begins[inside[0]] > begin or ends[inside[-1]] < end:
            continue
        result[number, 0] = inside[np.searchsorted(begins[inside], begin, side="right") - 1]
        result[number, 1] = inside[np.searchsorted(ends[inside], end, side="left")]
    return result


def _first(answers: Answers, context: str) -> tuple[int, int]:
    """Return the first character of the first answer, and the one after its last."""
    text, start = answers.texts[0], answers.starts[0]
    if start == _UNKNOWN:
        if context.count(text) != 1:
            raise DataError(
                f"the answer '{short(text)}' occurs {context.count(text)} times in the context "
                f"'{short(context)}': training needs its answer_start, as in {EXAMPLE}."
            )
        start = context.index(text)
    return start, start + len(text)


# predictions


def _predict(logits: np.ndarray, rows: RowTokens) -> np.ndarray:
    """Return the text of the best answer to each question; empty: no window has one.

    Of each window the 20 best starts and ends are combined; an answer is in the context and has 1 to 30
    tokens. The best of all windows has the highest sum of start and end logit.
    """
    windows, row_of = rows.windows, rows.row_of
    assert windows is not None and row_of is not None, "answers are parts of contexts: the rows have none"
    texts, best = [""] * len(windows.contexts), np.full(len(windows.contexts), -np.inf)
    for number, (low, high) in enumerate(itertools.pairwise(rows.offsets)):
        row, begins, ends = row_of[number], windows.begins[low:high], windows.ends[low:high]
        start, end = logits[low:high, 0], logits[low:high, 1]
        starts, lasts = (np.argsort(-values, kind="stable")[:_BEST] for values in (start, end))
        starts, lasts = starts[begins[starts] >= 0], lasts[begins[lasts] >= 0]
        lengths = lasts[None] - starts[:, None] + 1
        sums = start[starts][:, None] + end[lasts][None]
        sums = np.where((lengths >= 1) & (lengths <= _LONGEST), sums, -np.inf)
        if sums.size and sums.max() > best[row]:
            first, last = np.unravel_index(int(sums.argmax()), sums.shape)
            best[row] = sums[first, last]
            texts[row] = windows.contexts[row][begins[starts[first]] : ends[lasts[last]]]
    return objects(texts)


def _deciding(logits: np.ndarray, rows: RowTokens) -> list[np.ndarray]:
    """Return the highest and lowest start and end logit of each window, float32 [4 x windows] of each row."""
    windows, row_of = rows.windows, rows.row_of
    assert windows is not None and row_of is not None
    parts = itertools.pairwise(rows.offsets)
    extremes = np.array([[*logits[low:high].max(0), *logits[low:high].min(0)] for low, high in parts])
    ends = np.searchsorted(row_of, np.arange(1, len(windows.contexts)))
    return [part.ravel() for part in np.split(extremes, ends)]


def _numbers(labels: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of right answers and of predictions, float64 [n, 2]: exact match and F1.

    Raises:
        ValueError: a prediction is not a text, or a label is not a list of texts.
    """
    if not all(isinstance(answers, Answers) for answers in labels):
        raise ValueError("labels: expected lists of accepted texts")
    if not all(isinstance(text, str) for text in predictions):
        raise ValueError("predictions: expected texts")
    scores = [
        (exact_match(answers.texts, text), token_f1(answers.texts, text))
        for answers, text in zip(labels, predictions, strict=True)
    ]
    return np.ones((len(labels), 2)), np.array(scores, dtype=float).reshape(-1, 2)


def _store(values: np.ndarray) -> list[Any]:
    return [value if isinstance(value, str) else list(value.texts) for value in values]


def _restore(values: Sequence[Any], labels: Labels) -> np.ndarray:
    restored: list[Any] = []
    for value in values:
        if isinstance(value, str):
            restored.append(value)
        elif isinstance(value, list | tuple) and value and all(isinstance(text, str) for text in value):
            restored.append(Answers(tuple(value), (_UNKNOWN,) * len(value)))
        else:
            raise ValueError("expected texts, or lists of accepted texts")
    return objects(restored)


def _summarize(labels: Labels, splits: Sequence[np.ndarray]) -> str:
    answers = [text for rows in splits for row in rows for text in row.texts]
    rows = sum(map(len, splits))
    words = sum(len(text.split()) for text in answers) / len(answers)
    return f"{len(answers) / rows:.1f} answers per question, of {words:.1f} words on average"


def _constant(train: np.ndarray, labels: Labels) -> Constant:
    text = Counter(row.texts[0] for row in train).most_common(1)[0][0]
    answer = np.empty((), dtype=object)
    answer[()] = text
    return Constant(answer, f"'{short(text)}'")


def _match_head(head: Head, labels: Labels, settings: HeadSettings) -> HeadPlan:
    if head.kind != "answer-span":
        raise OtherHeadError(f"the task head ({head.reason}) is not one for answer-span")
    return HeadPlan("kept: start and end logits", keep=True)


def _agreement(expected: np.ndarray, texts: np.ndarray) -> float:
    """Return the mean F1 of the words of both answers; 1 for the same text, also an empty one."""
    pairs = zip(expected, texts, strict=True)
    return float(np.mean([1.0 if before == after else token_f1((before,), after) for before, after in pairs]))


ANSWER_SPAN = TaskKind(
    name="answer-span",
    head="span",
    output_names=("start_logits", "end_logits"),
    loss="span-cross-entropy",
    metrics=("answer_f1", "exact_match"),
    outputs=lambda labels: 2,
    check_labels=_check_labels,
    describe=lambda texts, labels: "answers in a context",
    encode=_encode,
    label_column="answers",
    columns=("question", "context"),
    is_label=_is_label,
    summarize=_summarize,
    match_head=_match_head,
    store=_store,
    restore=_restore,
    predict_rows=_predict,
    of_tokens=True,
    form="windows",
    one_value=False,
    numbers=_numbers,
    deciding=_deciding,
    group=lambda texts: texts[1],  # questions about one context are alike
    max_length=384,
    pipeline="question-answering",
    check_rows=_check_rows,
    agreement=_agreement,
    agreement_words="the mean F1 of the words of the engine's answer and the checkpoint's",
    least_agreement_of_int8=0.85,  # answers of nearly equal scores, with a word more or less, change places
    constant=_constant,
    gates=frozenset({"metric"}),
    refused={
        "exits": "exit rules decide on one prediction per row, and an answer needs the logits of every token",
        "tokens": "token pruning drops tokens that may begin or end the answer",
    },
)
