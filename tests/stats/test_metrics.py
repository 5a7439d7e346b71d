"""Metrics against scikit-learn, SciPy and hand-worked values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from seqeval import metrics as seqeval
from sklearn import metrics as sklearn

from effx.stats import metrics
from effx.stats.metrics import METRICS


def test_classification_by_hand() -> None:
    labels, predictions = np.array([1, 1, 1, 0, 0, 0]), np.array([1, 1, 0, 0, 0, 1])
    assert METRICS["accuracy"](labels, predictions) == pytest.approx(4 / 6)
    assert METRICS["f1"](labels, predictions) == pytest.approx(2 / 3)
    # tp tn fp fn = 2 2 1 1: (4 - 1) / sqrt(3 * 3 * 3 * 3)
    assert METRICS["matthews"](labels, predictions) == pytest.approx(1 / 3)


@pytest.mark.parametrize("classes", [2, 3])
def test_classification_as_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(classes)
    for share in (0.0, 0.5, 0.9, 1.0):
        labels = rng.integers(0, classes, 97)
        predictions = np.where(rng.random(97) < share, labels, rng.integers(0, classes, 97))
        expected = {
            "accuracy": sklearn.accuracy_score(labels, predictions),
            "macro_f1": sklearn.f1_score(labels, predictions, average="macro", zero_division=0.0),
            "matthews": sklearn.matthews_corrcoef(labels, predictions),
        }
        if classes == 2:
            expected["f1"] = sklearn.f1_score(labels, predictions, zero_division=0.0)
        for name, value in expected.items():
            assert METRICS[name](labels, predictions) == pytest.approx(value, abs=1e-12), name


def test_predictions_of_one_class_as_scikit_learn() -> None:
    labels, zeros = np.array([0, 1, 1, 0]), np.zeros(4, dtype=int)
    assert METRICS["f1"](labels, zeros) == sklearn.f1_score(labels, zeros, zero_division=0.0) == 0.0
    assert METRICS["matthews"](labels, zeros) == sklearn.matthews_corrcoef(labels, zeros) == 0.0
    macro = sklearn.f1_score(labels, zeros, average="macro", zero_division=0.0)
    assert METRICS["macro_f1"](labels, zeros) == pytest.approx(macro)


@pytest.mark.parametrize("share", [0.0, 0.6, 0.95, 1.0])
def test_label_sets_as_scikit_learn(share: float) -> None:
    rng = np.random.default_rng(7)
    labels = rng.random((83, 6)) < [0.5, 0.3, 0.1, 0.05, 0.02, 0.6]
    labels[:, 4] = False  # a label without rows
    predictions = np.where(rng.random(labels.shape) < share, labels, rng.random(labels.shape) < 0.3)
    expected = {
        "micro_f1": sklearn.f1_score(labels, predictions, average="micro", zero_division=0.0),
        # labels that are neither in rows nor predicted do not count
        "macro_f1": sklearn.f1_score(labels, predictions, average="macro", zero_division=np.nan),
        "accuracy": sklearn.accuracy_score(labels, predictions),
    }
    for name, value in expected.items():
        assert METRICS[name](labels, predictions) == pytest.approx(value, abs=1e-12), name
    of_labels = sklearn.f1_score(labels, predictions, average=None, zero_division=np.nan)
    ours = [np.nan if f1 is None else f1 for f1 in metrics.label_f1(labels, predictions)]
    np.testing.assert_allclose(ours, of_labels, atol=1e-12)


@pytest.mark.parametrize("name", ["micro_f1", "macro_f1", "accuracy"])
def test_weights_of_label_sets_are_how_often_an_example_was_drawn(name: str) -> None:
    rng, n = np.random.default_rng(1), 41
    labels = rng.random((n, 4)) < 0.3
    predictions = np.stack([labels ^ (rng.random(labels.shape) < share) for share in (0, 0.1, 0.5)])
    weights = rng.multinomial(n, np.full(n, 1 / n), size=20)
    values = METRICS[name].weighted(
        labels.astype(float), predictions.astype(float), weights.astype(np.float32)
    )
    assert values.shape == (3, 20)
    for row, weight in enumerate(weights):
        drawn = np.repeat(np.arange(n), weight)
        for engine in range(3):
            expected = METRICS[name](labels[drawn], predictions[engine][drawn])
            assert values[engine, row] == pytest.approx(expected, abs=1e-9)


def test_no_label_at_all_scores_zero() -> None:
    nothing = np.zeros((3, 2), dtype=bool)
    assert METRICS["micro_f1"](nothing, nothing) == METRICS["macro_f1"](nothing, nothing) == 0.0
    assert METRICS["accuracy"](nothing, nothing) == 1.0
    assert metrics.label_f1(nothing, nothing) == [None, None]


def test_correlations_as_scipy() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=50), np.round(rng.normal(size=50), 1)  # with ties
    assert METRICS["pearson"](x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert METRICS["spearman"](x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    for constant in (np.ones(50), np.full(50, 0.1), np.full(50, 1e9 / 3)):
        assert METRICS["pearson"](x, constant) == METRICS["spearman"](x, constant) == 0.0
    assert METRICS["pearson"](x[:1], y[:1]) == METRICS["spearman"](x[:1], y[:1]) == 0.0  # one row has none


@pytest.mark.parametrize(
    "name", [name for name in METRICS if not METRICS[name].of_tags and not METRICS[name].of_scores]
)
def test_weights_are_how_often_an_example_was_drawn(name: str) -> None:
    rng = np.random.default_rng(0)
    n, metric = 61, METRICS[name]
    continuous = not metric.of_classes
    labels = rng.integers(0, 10, n) / 2 if continuous else rng.integers(0, 2 if name == "f1" else 3, n)
    predictions = np.stack(
        [np.where(rng.random(n) < share, labels, rng.permutation(labels)) for share in (0, 0.5, 1)]
    )
    predictions = np.concatenate([predictions + (rng.normal(size=(3, n)) * continuous), np.ones((1, n))])
    weights = rng.multinomial(n, np.full(n, 1 / n), size=40)
    values = metric.weighted(labels.astype(float), predictions.astype(float), weights.astype(np.float32))
    assert values.shape == (4, 40)
    for row, weight in enumerate(weights):
        drawn = np.repeat(np.arange(n), weight)
        for engine in range(4):
            expected = metric(labels[drawn], predictions[engine][drawn])
            assert values[engine, row] == pytest.approx(expected, abs=1e-9)


def test_answers_are_normalised_as_squad_does() -> None:
    assert metrics.exact_match(["the Eiffel Tower."], "eiffel tower") == 1.0
    assert metrics.exact_match(["Paris", "Lyon"], "Nice") == 0.0
    # {tower} shared; precision 1/2, recall 1/2
    assert metrics.token_f1(["Eiffel Tower"], "a tower block") == pytest.approx(0.5)


TAGS = ("O", "B-a", "I-a", "B-b", "I-b", "B-c", "I-c")


def tagged(rng: np.random.Generator, rows: int, words: int, share: float, lengths: np.ndarray) -> np.ndarray:
    tags = np.where(rng.random((rows, words)) < share, rng.integers(0, len(TAGS), (rows, words)), 0)
    tags[np.arange(words) >= lengths[:, None]] = -1
    return tags


def names(tags: np.ndarray) -> list[list[str]]:
    return [[TAGS[tag] for tag in row if tag >= 0] for row in tags]


@pytest.mark.filterwarnings("ignore")  # of seqeval, where a type is in the labels or the predictions alone
@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
def test_entities_are_scored_as_by_seqeval(share: float) -> None:
    """Random tags have I without B, and B and I of different types next to each other."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        rows, words = int(rng.integers(1, 8)), int(rng.integers(1, 12))
        lengths = rng.integers(1, words + 1, rows)
        labels = tagged(rng, rows, words, share, lengths)
        other = tagged(rng, rows, words, share, lengths)
        predictions = np.where(rng.random((rows, words)) < 0.5, labels, other)
        true, predicted = names(labels), names(predictions)
        assert METRICS["tag_accuracy"](labels, predictions) == pytest.approx(
            seqeval.accuracy_score(true, predicted)
        )
        assert METRICS["entity_f1"](labels, predictions) == pytest.approx(
            seqeval.f1_score(true, predicted, zero_division=0)
        )
        scores = metrics.entity_type_f1(labels, predictions, 3)
        if max(labels.max(), predictions.max()) <= 0:
            assert scores == [None, None, None] and METRICS["entity_macro_f1"](labels, predictions) == 0
            continue
        report = seqeval.classification_report(true, predicted, output_dict=True, zero_division=0)
        expected = [report[name]["f1-score"] if name in report else None for name in "abc"]
        assert scores == pytest.approx(expected)
        macro = METRICS["entity_macro_f1"](labels, predictions)
        assert macro == pytest.approx(report["macro avg"]["f1-score"])


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].of_tags])
def test_weights_are_how_often_a_row_of_tags_was_drawn(name: str) -> None:
    rng, n, metric = np.random.default_rng(0), 20, METRICS[name]
    lengths = rng.integers(1, 7, n)
    labels = tagged(rng, n, 6, 0.4, lengths)
    predictions = np.stack([labels, *(tagged(rng, n, 6, 0.4, lengths) for _ in range(2))])
    weights = rng.multinomial(n, np.full(n, 1 / n), size=10)
    values = metric.weighted(labels.astype(float), predictions.astype(float), weights.astype(np.float32))
    for row, weight in enumerate(weights):
        drawn = np.repeat(np.arange(n), weight)
        for engine in range(3):
            expected = metric(labels[drawn], predictions[engine][drawn])
            assert values[engine, row] == pytest.approx(expected, abs=1e-6)
