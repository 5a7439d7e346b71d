"""A task with a tag for each word, from fine-tuning to a result that is checked when it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seqeval.metrics import classification_report, f1_score
from transformers import AutoTokenizer

from effx import data, results
from effx.analysis import majority
from effx.artifacts import Checkpoint, Engine
from effx.encoding import Encoder
from effx.errors import ArtifactError, UsageError
from effx.export.plan import export_all
from effx.models import checkpoints, evaluate, exits, families
from effx.models import tokens as schedules
from effx.profile import record
from effx.profile.worker import Worker
from effx.specs.exits import EarlyExitSettings
from effx.specs.imports import ImportSettings
from effx.specs.tickets import TicketSettings
from effx.specs.tokens import TokenPruningSettings
from effx.specs.training import FinetuneSettings
from effx.specs.workloads import SINGLE_STREAM, Workload
from effx.train import exits as train_exits
from effx.train import finetune, importance, loop, tokens
from effx.train.importing import import_model
from effx.train.tickets.draw import draw
from effx.train.tickets.result import TicketResult
from tests import cache as caches
from tests.analysis import simulated_results
from tests.conftest import CONFIGS, write_rows

LABELS = ("O", "B-food", "I-food", "B-place", "I-place")
WORDS = {"soup": "B-food", "dessert": "I-food", "room": "B-place", "view": "I-place"}
SCORES = {"entity_f1", "entity_macro_f1", "tag_accuracy", "accuracy"}


@pytest.fixture(scope="session")
def words_folder(cache: caches.Cache) -> Path:
    """Rows whose tags follow from the words; ``unbelievable`` has several pieces."""

    def build(folder: Path) -> None:
        rng = np.random.default_rng(0)
        others = ["the", "was", "unbelievable", "good", "and"]
        for split, n in (("train", 240), ("validation", 80)):
            rows: list[dict[str, object]] = []
            for _ in range(n):
                words = rng.choice([*WORDS, *others], rng.integers(1, 9)).tolist()
                tags = [
                    WORDS.get(word, "O") if rng.random() < 0.9 else str(rng.choice(LABELS)) for word in words
                ]
                rows.append({"tokens": words, "tags": tags})
            write_rows(folder / f"{split}.jsonl", rows)

    return cache.folder("words", build)


@pytest.fixture(scope="session")
def namer(cache: caches.Cache, encoders: dict[str, Path], words_folder: Path) -> Checkpoint:
    def build(folder: Path) -> None:
        settings = FinetuneSettings.of(epochs=3, max_length=24, lr=2e-3, batch_size=8)
        finetune(
            "food", encoders["bert"], out=folder, name="namer", data_folder=words_folder,
            settings=settings, keep_predictions=True,
        )  # fmt: skip

    return Checkpoint.open(cache.folder("namer", build) / "namer")


def rows_of(folder: Path) -> list[dict[str, list[str]]]:
    return [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]


def test_scores_are_those_of_seqeval(namer: Checkpoint, words_folder: Path) -> None:
    assert (namer.task.kind, namer.task.labels) == ("token-classification", LABELS)
    true = [row["tags"] for row in rows_of(words_folder)]
    assert namer.manifest.predictions is not None
    predicted = [[LABELS[tag] for tag in tags] for tags in namer.manifest.predictions]
    expected = f1_score(true, predicted)
    assert 0.3 < expected < 1
    assert namer.manifest.metrics["entity_f1"] == pytest.approx(expected)
    assert namer.manifest.metrics["entity_macro_f1"] == pytest.approx(
        f1_score(true, predicted, average="macro")
    )
    assert set(namer.manifest.metrics) == SCORES
    ticket = TicketResult.of(namer, "full", None, 0)
    again = TicketResult.from_json(json.loads(json.dumps(ticket.to_json())))
    labels = data.load(namer.task, "validation", words_folder).labels
    assert again.score(namer.task, labels, np.arange(80))["entity_f1"] == pytest.approx(expected)


def test_predictions_are_those_of_transformers(namer: Checkpoint, words_folder: Path) -> None:
    """The first piece of each word decides, as in the examples of transformers."""
    model, tokenizer = checkpoints.load(namer), AutoTokenizer.from_pretrained(namer.folder)
    assert namer.manifest.predictions is not None
    for row, stored in list(zip(rows_of(words_folder), namer.manifest.predictions, strict=True))[:20]:
        inputs = tokenizer(row["tokens"], is_split_into_words=True, return_tensors="pt", truncation=True,
                           max_length=24)  # fmt: skip
        classes = model(**inputs).logits[0].argmax(-1).tolist()
        numbers = inputs.word_ids(0)
        assert stored == [classes[numbers.index(word)] for word in range(len(row["tokens"]))]


@pytest.mark.parametrize("family", CONFIGS)
def test_each_family_has_the_logits_of_transformers(
    family: str, encoders: dict[str, Path], words_folder: Path
) -> None:
    from effx.models import forward, pretrained

    task = data.resolve("food", words_folder)
    model, _ = pretrained(encoders[family], task)
    model.eval()
    assert families.of(model).output_path(model) == "classifier"
    encoder = Encoder(encoders[family], 24, form="words")
    batch = encoder([("the", "unbelievable", "soup"), ("room",)]).batch([0, 1])
    inputs = loop.to_tensors(batch, checkpoints.input_names(model))
    stream = forward.embed(model, inputs)
    for position in range(3):
        stream = forward.feed(model, position, forward.attend(model, position, stream)[0])
    ours, theirs = forward.head(model, stream), model(**inputs).logits
    assert ours.shape == (2, batch["input_ids"].shape[1], 5)
    real = batch["attention_mask"] == 1
    np.testing.assert_allclose(ours.detach().numpy()[real], theirs.detach().numpy()[real], atol=1e-5)


def test_the_loss_is_that_of_the_first_pieces(namer: Checkpoint, words_folder: Path) -> None:
    rows = data.load(namer.task, "train", words_folder).limit(16)
    encoded = Encoder(namer.folder, 24, form="words")(rows.texts)
    batch = loop.labelled(encoded, rows.labels, ["input_ids"])(list(range(16)))
    starts = (batch["labels"] != -100).sum(1)
    assert starts.tolist() == [len(text) for text in rows.texts]
    assert encoded.lengths.sum() > starts.sum() + 2 * 16  # some words have several pieces
    for row, tags in enumerate(rows.labels):
        assert batch["labels"][row][batch["labels"][row] != -100].tolist() == tags[tags >= 0].tolist()


def test_importance_does_not_depend_on_the_batches(namer: Checkpoint, words_folder: Path) -> None:
    model = checkpoints.load(namer)
    rows = data.load(namer.task, "train", words_folder).limit(16)
    encoded = Encoder(namer.folder, 24, form="words")(rows.texts)
    names = checkpoints.input_names(model)
    scored = importance.measure(model, importance.batches_of(encoded, rows.labels, names, 8, 0))
    one_by_one = loop.labelled(encoded, rows.labels, names)
    singles = importance.measure(model, [one_by_one([row]) for row in range(16)])
    np.testing.assert_allclose(scored.heads, singles.heads, atol=1e-5)
    assert scored.heads.min() > 0


def test_a_ticket_is_drawn(
    namer: Checkpoint, encoders: dict[str, Path], words_folder: Path, tmp_path: Path
) -> None:
    settings = TicketSettings.of(level="30", max_length=24, max_steps=20, lr=2e-3, batch_size=8)
    ticket = draw(
        namer.folder, encoders["bert"], out=tmp_path, name="t", settings=settings, data_folder=words_folder
    )
    assert ticket.manifest.weight_remaining < 1 and set(ticket.manifest.metrics) == SCORES


def test_a_model_fine_tuned_elsewhere_keeps_its_scores(
    namer: Checkpoint, words_folder: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in namer.folder.iterdir():
        if file.name != "effx.json":
            (plain / file.name).write_bytes(file.read_bytes())
    config = json.loads((plain / "config.json").read_text())
    order = [2, 0, 4, 1, 3]  # outputs in another order; the model's weights follow
    config["id2label"] = {str(number): LABELS[label] for number, label in enumerate(order)}
    config["label2id"] = {name: int(number) for number, name in config["id2label"].items()}
    (plain / "config.json").write_text(json.dumps(config))
    from safetensors.torch import load_file, save_file

    weights = load_file(plain / "model.safetensors")
    for key in ("classifier.weight", "classifier.bias"):
        weights[key] = weights[key][order].contiguous()
    save_file(weights, plain / "model.safetensors", metadata={"format": "pt"})
    settings = ImportSettings(max_length=24)
    imported = import_model(plain, out=tmp_path, data_folder=words_folder, settings=settings)
    assert imported.task.kind == "token-classification" and imported.task.labels[0] == "O"
    assert imported.manifest.metrics == pytest.approx(namer.manifest.metrics)


def test_exits_and_token_pruning_are_refused_with_the_reason(namer: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="task 'food': exit rules decide on one prediction per row"):
        train_exits.train(namer.folder, out=tmp_path, settings=EarlyExitSettings.of(depth=2.0))
    with pytest.raises(UsageError, match="each word needs the output of its first piece"):
        tokens.train(
            namer.folder,
            out=tmp_path,
            settings=TokenPruningSettings.of(schedule=(1.0, 0.8, 0.6), max_steps=2),
        )
    assert not list(tmp_path.iterdir())
    model = checkpoints.load(namer)
    with pytest.raises(UsageError, match="this model has logits for every token"):
        schedules.schedule(model, shares=(1.0, 0.8, 0.6))
    with pytest.raises(UsageError, match="this model has logits for every token"):
        exits.add_ramps(model)


def test_words_beyond_the_maximum_length_are_predicted_as_outside(namer: Checkpoint) -> None:
    task, model = namer.task, checkpoints.load(namer)
    rows = [("soup",) * 12, ("soup",)]
    whole = evaluate.predictions(model, Encoder(namer.folder, 24, form="words")(rows), task)
    cut = evaluate.predictions(model, Encoder(namer.folder, 6, form="words")(rows), task)
    assert whole.shape == cut.shape == (2, 12)
    assert (cut[0, 4:] == 0).all() and (cut[1, 1:] == -1).all() and (whole[1, 1:] == -1).all()


@pytest.fixture(scope="session")
def namer_engines(cache: caches.Cache, namer: Checkpoint) -> Path:
    def build(folder: Path) -> None:
        for variant, backends in (("fp32", ["onnxruntime", "openvino"]), ("int8", ["onnxruntime"]),
                                  ("buckets", ["onnxruntime"])):  # fmt: skip
            _, errors = export_all([namer.folder], [variant], backends, folder)
            assert not errors

    return cache.folder("namer-engines", build)


def test_engines_pass_their_gates(namer: Checkpoint, namer_engines: Path, words_folder: Path) -> None:
    for folder in Engine.find_all([namer_engines]):
        engine = Engine.open(folder)
        parity = engine.manifest.parity
        assert parity is not None and parity.passed and parity.metric == "entity_f1"
        assert parity.accuracy == pytest.approx(namer.manifest.metrics["accuracy"], abs=0.1)
        if engine.manifest.precision == "fp32":
            assert parity.label_agreement == 1.0 and parity.metric_lost == 0.0


@pytest.mark.parametrize("variant", ["fp32", "buckets"])
def test_a_worker_scores_and_times_rows_of_words(
    variant: str, namer: Checkpoint, namer_engines: Path, words_folder: Path
) -> None:
    folder = str(namer_engines / f"namer.{variant}.onnxruntime")
    texts = data.load(namer.task, "validation", words_folder).texts
    worker = Worker.open(folder, texts, 1, 0)
    scored = worker.score(Workload("offline", 8, "real"), first_batch=0)
    ordered = [scored.predictions[number] for number in np.argsort(scored.rows)]
    assert ordered == list(map(list, namer.manifest.predictions or ()))
    for row, logits in zip(scored.rows, scored.logits, strict=True):  # of words that were not cut off
        assert len(logits) % 5 == 0 and 0 < len(logits) <= 5 * len(texts[row])
    for workload in (SINGLE_STREAM, Workload("offline", 8, "real")):
        block = worker.block(workload, 0.0, queries=4, least_s=0.0, limit_s=5.0)
        assert block.checked == block.agreed == 4 * workload.batch


def run_of(namer: Checkpoint, words_folder: Path) -> results.Run:
    rows = data.load(namer.task, "validation", words_folder)
    encoded = Encoder(namer.folder, 24, form="words")(rows.texts)
    predictions = evaluate.predictions(checkpoints.load(namer), encoded, namer.task)
    quality = record.score(namer.task, rows, predictions, SINGLE_STREAM, dependent=False)
    return replace(simulated_results.run(0, n=80, rounds=4, queries=5), quality=quality)


def test_a_result_stores_tags_and_their_scores(namer: Checkpoint, words_folder: Path, tmp_path: Path) -> None:
    run = run_of(namer, words_folder)
    read = results.open_run(results.save(run, tmp_path))
    true = [row["tags"] for row in rows_of(words_folder)]
    predicted = [[LABELS[tag] for tag in tags] for tags in read.quality.predictions]
    report = classification_report(true, predicted, output_dict=True)
    assert read.quality.value == pytest.approx(report["micro avg"]["f1-score"])
    of_types = {name: report[name]["f1-score"] for name in ("food", "place")}
    assert read.quality.label_f1 == pytest.approx(of_types)
    low, high = read.quality.interval
    assert low < read.quality.value < high
    assert majority.remark(read) is None and majority.majority_score(read) == 0


DAMAGES: list[tuple[Callable[[Any], object], str]] = [
    (lambda quality: quality.update(kind=None), "expected both kind and label_names, or neither"),
    (lambda quality: quality.update(kind="multi-label"), "rising label numbers|from 0 to 4|not a metric"),
    (lambda quality: quality["predictions"][0].__setitem__(0, 5), "tag numbers from 0 to 4"),
    (lambda quality: quality["predictions"][0].append(0), "different numbers of words"),
    (lambda quality: quality["metrics"].update(entity_f1=0.123), "0.123"),
    (lambda quality: quality["metrics"].update(matthews=0.5), "matthews is not a metric of several labels"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_result_that_contradicts_its_tags_is_refused(
    damage: Callable[[Any], object], message: str, namer: Checkpoint, words_folder: Path, tmp_path: Path
) -> None:
    path = results.save(run_of(namer, words_folder), tmp_path)
    value = json.loads(path.read_text())
    damage(value["quality"])
    path.write_text(json.dumps(value))
    with pytest.raises(ArtifactError, match=message):
        results.open_run(path)
