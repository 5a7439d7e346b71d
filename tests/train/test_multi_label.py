"""A task with several labels per row, from fine-tuning to a result that is checked when it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sklearn

from effx import data, results
from effx.analysis import majority
from effx.artifacts import Checkpoint, Engine
from effx.encoding import Encoder
from effx.errors import ArtifactError, UsageError
from effx.export.plan import export_all
from effx.models import checkpoints, evaluate
from effx.profile import record
from effx.specs.exits import EarlyExitSettings
from effx.specs.tokens import TokenPruningSettings
from effx.specs.training import FinetuneSettings
from effx.specs.workloads import SINGLE_STREAM
from effx.train import exits, finetune, importance, loop, tokens
from effx.train.importing import import_model
from effx.train.tickets.result import TicketResult
from tests import cache as caches
from tests.analysis import simulated_results
from tests.conftest import write_rows

WORDS = {"bad": "awful", "food": "soup", "stay": "room"}
NAMES = ("bad", "food", "stay")


@pytest.fixture(scope="session")
def sets_folder(cache: caches.Cache) -> Path:
    """Rows whose labels are the topics of their words."""

    def build(folder: Path) -> None:
        rng = np.random.default_rng(0)
        for split, n in (("train", 240), ("validation", 80)):
            rows: list[dict[str, object]] = []
            for _ in range(n):
                chosen = [name for name in NAMES if rng.random() < 0.4]
                words = [WORDS[name] for name in chosen] + ["the", "was"]
                rows.append({"sentence": " ".join(rng.permutation(words)), "label": chosen})
            write_rows(folder / f"{split}.jsonl", rows)

    return cache.folder("sets", build)


@pytest.fixture(scope="session")
def tagger(cache: caches.Cache, encoders: dict[str, Path], sets_folder: Path) -> Checkpoint:
    def build(folder: Path) -> None:
        settings = FinetuneSettings.of(epochs=6, max_length=16, lr=2e-3, batch_size=8)
        finetune(
            "topics", encoders["bert"], out=folder, name="tagger", data_folder=sets_folder,
            settings=settings, keep_predictions=True,
        )  # fmt: skip

    return Checkpoint.open(cache.folder("tagger", build) / "tagger")


def labels_of(folder: Path) -> np.ndarray:
    rows = [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]
    return np.array([[name in row["label"] for name in NAMES] for row in rows])


def test_scores_are_those_of_scikit_learn(tagger: Checkpoint, sets_folder: Path) -> None:
    assert (tagger.task.kind, tagger.task.labels) == ("multi-label", NAMES)
    labels, predictions = labels_of(sets_folder), np.zeros((80, 3), dtype=bool)
    assert tagger.manifest.predictions is not None
    for row, numbers in enumerate(tagger.manifest.predictions):
        predictions[row, list(numbers)] = True  # type: ignore[arg-type]
    expected = {
        "micro_f1": sklearn.f1_score(labels, predictions, average="micro"),
        "macro_f1": sklearn.f1_score(labels, predictions, average="macro"),
        "accuracy": sklearn.accuracy_score(labels, predictions),
    }
    assert tagger.manifest.metrics == pytest.approx(expected)
    assert tagger.manifest.baseline is not None
    assert expected["micro_f1"] > tagger.manifest.baseline.score
    assert json.loads((tagger.folder / "config.json").read_text())["problem_type"] == (
        "multi_label_classification"
    )
    ticket = TicketResult.of(tagger, "full", None, 0)
    again = TicketResult.from_json(json.loads(json.dumps(ticket.to_json())))
    np.testing.assert_array_equal(again.predictions, predictions)
    assert again.score(tagger.task, labels, np.arange(80)) == pytest.approx(expected)


def test_a_model_fine_tuned_elsewhere_keeps_its_scores(
    tagger: Checkpoint, sets_folder: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in tagger.folder.iterdir():
        if file.name != "effx.json":
            (plain / file.name).write_bytes(file.read_bytes())
    imported = import_model(plain, out=tmp_path, data_folder=sets_folder)
    assert imported.task.kind == "multi-label"
    assert imported.manifest.metrics == pytest.approx(tagger.manifest.metrics)


def test_importance_is_scored_with_the_loss_of_the_labels(tagger: Checkpoint, sets_folder: Path) -> None:
    model = checkpoints.load(tagger)
    rows = data.load(tagger.task, "train", sets_folder).limit(32)
    encoded = Encoder(tagger.folder, 16)(rows.texts)
    names = checkpoints.input_names(model)
    scored = importance.measure(model, importance.batches_of(encoded, rows.labels, names, 8, 0))
    one_by_one = loop.labelled(encoded, rows.labels, names)
    singles = importance.measure(model, [one_by_one([row]) for row in range(32)])
    np.testing.assert_allclose(scored.heads, singles.heads, atol=1e-5)
    assert scored.heads.min() > 0


def test_exits_are_refused_and_tokens_are_pruned(
    tagger: Checkpoint, sets_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="task 'topics': exit rules decide on one prediction per row"):
        exits.train(tagger.folder, out=tmp_path, settings=EarlyExitSettings.of(depth=2.0))
    assert not list(tmp_path.iterdir())
    settings = TokenPruningSettings.of(schedule=(1.0, 0.8, 0.6), max_steps=2)
    short = tokens.train(tagger.folder, out=tmp_path, name="short", settings=settings)
    assert set(short.manifest.metrics) == {"micro_f1", "macro_f1", "accuracy"}


@pytest.fixture(scope="session")
def tagger_engines(cache: caches.Cache, tagger: Checkpoint) -> Path:
    def build(folder: Path) -> None:
        for variant, backends in (("fp32", ["onnxruntime", "openvino"]), ("int8", ["onnxruntime"])):
            _, errors = export_all([tagger.folder], [variant], backends, folder)
            assert not errors

    return cache.folder("tagger-engines", build)


def test_engines_pass_their_gates_and_their_answers_are_checked(
    tagger: Checkpoint, tagger_engines: Path, sets_folder: Path, tmp_path: Path
) -> None:
    rows = data.load(tagger.task, "validation", sets_folder)
    expected = evaluate.logits(checkpoints.load(tagger), Encoder(tagger.folder, 16)(rows.texts))
    for folder in Engine.find_all([tagger_engines]):
        engine = Engine.open(folder)
        parity = engine.manifest.parity
        assert parity.passed and parity.accuracy is not None and parity.accuracy_lost is not None
        if engine.manifest.precision == "fp32":
            assert parity.label_agreement == 1.0
            right = ((expected > 0) == rows.labels).all(axis=1).mean()
            assert parity.accuracy == pytest.approx(float(right), abs=1 / 80)


def run_of(tagger: Checkpoint, sets_folder: Path) -> results.Run:
    rows = data.load(tagger.task, "validation", sets_folder)
    logits = evaluate.logits(checkpoints.load(tagger), Encoder(tagger.folder, 16)(rows.texts))
    predictions = tagger.task.predict(logits)
    quality = record.score(tagger.task, rows, predictions, SINGLE_STREAM, dependent=False)
    return replace(simulated_results.run(0, n=80, rounds=4, queries=5), quality=quality)


def test_a_result_stores_sets_and_their_scores(tagger: Checkpoint, sets_folder: Path, tmp_path: Path) -> None:
    run = run_of(tagger, sets_folder)
    read = results.open_run(results.save(run, tmp_path))
    labels = labels_of(sets_folder)
    np.testing.assert_array_equal(read.quality.label_array, labels)
    assert read.quality.labels[0] == np.flatnonzero(labels[0]).tolist()
    assert read.quality.metrics == pytest.approx(tagger.manifest.metrics)
    of_labels = sklearn.f1_score(labels, read.quality.prediction_array, average=None)
    assert read.quality.label_f1 == pytest.approx(dict(zip(NAMES, of_labels, strict=True)))
    low, high = read.quality.interval
    assert low < read.quality.value < high
    assert majority.remark(read) is None


DAMAGES: list[tuple[Callable[[Any], object], str]] = [
    (lambda quality: quality.update(label_names=None), "expected both kind and label_names, or neither"),
    (lambda quality: quality.update(kind="regression"), "kind: expected multi-label, "),
    (lambda quality: quality["predictions"].__setitem__(0, [3]), "label numbers from 0 to 2"),
    (lambda quality: quality["labels"].__setitem__(0, [1, 0]), "rising label numbers"),
    (lambda quality: quality["metrics"].update(macro_f1=0.123), "macro_f1 is 0.123, but its predictions"),
    (lambda quality: quality["metrics"].update(matthews=0.5), "matthews is not a metric of several labels"),
    (lambda quality: quality["predictions"].pop(), "79 predictions of 80 rows"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_result_that_contradicts_its_sets_is_refused(
    damage: Callable[[Any], object], message: str, tagger: Checkpoint, sets_folder: Path, tmp_path: Path
) -> None:
    path = results.save(run_of(tagger, sets_folder), tmp_path)
    value = json.loads(path.read_text())
    damage(value["quality"])
    path.write_text(json.dumps(value))
    with pytest.raises(ArtifactError, match=message):
        results.open_run(path)
