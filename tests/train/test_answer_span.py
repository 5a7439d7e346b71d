"""Answers in a context, from fine-tuning to a result that is checked when it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from effx import data, results
from effx.analysis import majority, objectives
from effx.artifacts import Checkpoint, Engine
from effx.encoding import Encoder
from effx.errors import ArtifactError
from effx.export.plan import export_all
from effx.models import checkpoints, evaluate
from effx.profile import record
from effx.profile.worker import Worker
from effx.specs.data import DataSettings, DataSource
from effx.specs.imports import ImportSettings
from effx.specs.tickets import TicketSettings
from effx.specs.training import FinetuneSettings
from effx.specs.workloads import SINGLE_STREAM, Workload
from effx.train import finetune, importance, loop
from effx.train.importing import import_model
from effx.train.tickets.draw import draw
from effx.train.tickets.result import TicketResult
from tests import cache as caches
from tests.analysis import simulated_results
from tests.conftest import write_rows
from tests.specs.kinds.test_answer_span import official_scores

FILLERS = ["the", "film", "was", "acting", "plot", "never", "again", "and"]
ANSWERS = {"soup": "warm soup", "view": "view", "room": "unbelievable room"}


@pytest.fixture(scope="session")
def questions_folder(cache: caches.Cache) -> Path:
    """Rows whose answer is the only phrase in the context that is not filler; some have several windows."""

    def build(folder: Path) -> None:
        rng = np.random.default_rng(0)
        for split, n in (("train", 200), ("validation", 60)):
            rows: list[dict[str, object]] = []
            for _ in range(n):
                words = rng.choice(FILLERS, rng.integers(1, 26)).tolist()
                text = ANSWERS[str(rng.choice(list(ANSWERS)))]
                words.insert(int(rng.integers(len(words) + 1)), text)
                context = " ".join(words)
                start = context.index(text)
                answers = {
                    "text": [text, text.split()[-1]],
                    "answer_start": [start, start + text.rfind(" ") + 1],
                }
                rows.append({"id": str(len(rows)), "title": "t", "context": context,
                             "question": "what was it", "answers": answers})  # fmt: skip
            write_rows(folder / f"{split}.jsonl", rows)

    return cache.folder("questions", build)


@pytest.fixture(scope="session")
def answerer(cache: caches.Cache, encoders: dict[str, Path], questions_folder: Path) -> Checkpoint:
    def build(folder: Path) -> None:
        settings = FinetuneSettings.of(epochs=4, max_length=24, lr=3e-3, batch_size=8)
        finetune(
            "things", encoders["bert"], out=folder, name="answerer", data_folder=questions_folder,
            settings=settings, keep_predictions=True,
        )  # fmt: skip

    return Checkpoint.open(cache.folder("answerer", build) / "answerer")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]


def test_scores_are_those_of_the_official_script(answerer: Checkpoint, questions_folder: Path) -> None:
    task, manifest = answerer.task, answerer.manifest
    assert (task.kind, task.columns, task.labels) == ("answer-span", ("question", "context"), ())
    answers = [row["answers"]["text"] for row in rows_of(questions_folder)]
    assert manifest.predictions is not None
    exact, f1 = official_scores(answers, list(manifest.predictions))
    assert manifest.metrics == pytest.approx({"answer_f1": f1 / 100, "exact_match": exact / 100})
    assert f1 > 30 and manifest.baseline is not None and manifest.baseline.score < f1 / 100
    ticket = TicketResult.of(answerer, "full", None, 0)
    again = TicketResult.from_json(json.loads(json.dumps(ticket.to_json())))
    labels = data.load(task, "validation", questions_folder).labels
    assert again.score(task, labels, np.arange(60))["answer_f1"] == pytest.approx(f1 / 100)


def test_the_model_opens_in_transformers(answerer: Checkpoint, questions_folder: Path) -> None:
    model, tokenizer = (
        AutoModelForQuestionAnswering.from_pretrained(answerer.folder).eval(),
        AutoTokenizer.from_pretrained(answerer.folder),
    )
    rows = [(row["question"], row["context"]) for row in rows_of(questions_folder)][:20]
    encoded = Encoder(answerer.folder, 24, form="windows")(rows)
    logits = evaluate.token_logits(checkpoints.load(answerer), encoded, answerer.task)
    inputs = tokenizer(
        *zip(*rows, strict=True), truncation="only_second", max_length=24, stride=8, padding=True,
        return_overflowing_tokens=True, return_tensors="pt",
    )  # fmt: skip
    del inputs["overflow_to_sample_mapping"]
    with torch.no_grad():
        out = model(**inputs)
    real = inputs["attention_mask"].numpy() == 1
    np.testing.assert_allclose(logits[:, 0], out.start_logits.numpy()[real], atol=1e-4)
    np.testing.assert_allclose(logits[:, 1], out.end_logits.numpy()[real], atol=1e-4)


def test_importance_scores_windows(answerer: Checkpoint, questions_folder: Path) -> None:
    model = checkpoints.load(answerer)
    rows = data.load(answerer.task, "train", questions_folder).limit(8)
    encoded = Encoder(answerer.folder, 24, form="windows")(rows.texts)
    names = checkpoints.input_names(model)
    singles = loop.labelled(encoded, rows.labels, names)
    one_by_one = importance.measure(model, [singles([number]) for number in range(len(encoded))])
    equal = [number for number in range(len(encoded)) if encoded.lengths[number] == 24]
    assert len(encoded) > 8 and len(equal) > 1
    assert one_by_one.heads.min() > 0
    batches = importance.batches_of(encoded, rows.labels, names, 4, 0)
    np.testing.assert_allclose(
        importance.measure(model, batches).heads, one_by_one.heads, rtol=0.2, atol=1e-3
    )


def test_a_ticket_is_drawn(
    answerer: Checkpoint, encoders: dict[str, Path], questions_folder: Path, tmp_path: Path
) -> None:
    settings = TicketSettings.of(level="30", max_length=24, max_steps=10, lr=2e-3, batch_size=8)
    ticket = draw(
        answerer.folder,
        encoders["bert"],
        out=tmp_path,
        name="t",
        settings=settings,
        data_folder=questions_folder,
    )
    assert ticket.manifest.weight_remaining < 1 and set(ticket.manifest.metrics) == {
        "answer_f1",
        "exact_match",
    }


def test_a_model_fine_tuned_elsewhere_keeps_its_scores(
    answerer: Checkpoint, questions_folder: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in answerer.folder.iterdir():
        if file.name != "effx.json":
            (plain / file.name).write_bytes(file.read_bytes())
    settings = ImportSettings(max_length=24)
    imported = import_model(plain, out=tmp_path, data_folder=questions_folder, settings=settings)
    assert imported.task.kind == "answer-span"
    assert imported.manifest.metrics == pytest.approx(answerer.manifest.metrics)


def test_questions_about_one_context_are_not_divided(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"question": f"what {n}", "context": f"film number {n // 3}", "answers": {"text": ["film"]}}
        for n in range(30)
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    source = DataSource(str(tmp_path / "rows.jsonl"), DataSettings(split=0.6))
    task = data.resolve("mine", source)
    contexts = [
        {context for _, context in data.load(task, split, source).texts} for split in ("train", "validation")
    ]
    assert task.kind == "answer-span" and contexts[0] and contexts[1] and not contexts[0] & contexts[1]


def test_columns_with_other_names_are_given(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"q": "what", "passage": "a warm film", "gold": [{"text": "film", "answer_start": 7}]},
        {"q": "how", "passage": "a warm film", "gold": [{"text": "warm", "answer_start": 2}]},
    ]
    for split in ("train", "validation"):
        write_rows(tmp_path / f"{split}.jsonl", rows)
    names = DataSettings(text_column="q", text_pair_column="passage", label_column="gold")
    source = DataSource(str(tmp_path), names)
    task = data.resolve("mine", source)
    loaded = data.load(task, "validation", source)
    assert task.kind == "answer-span" and loaded.texts[1] == ("how", "a warm film")
    assert loaded.labels[0].starts == (7,)


@pytest.fixture(scope="session")
def answerer_engines(cache: caches.Cache, answerer: Checkpoint) -> Path:
    def build(folder: Path) -> None:
        for variant, backends in (("fp32", ["onnxruntime", "openvino", "torch"]), ("int8", ["onnxruntime"])):
            _, errors = export_all([answerer.folder], [variant], backends, folder)
            assert not errors

    return cache.folder("answerer-engines", build)


def test_engines_pass_their_gates(answerer: Checkpoint, answerer_engines: Path) -> None:
    for folder in Engine.find_all([answerer_engines]):
        engine = Engine.open(folder)
        parity = engine.manifest.parity
        assert parity is not None and parity.passed and parity.metric == "answer_f1" and parity.examples == 61
        assert parity.accuracy == pytest.approx(answerer.manifest.metrics["exact_match"], abs=0.1)
        if engine.manifest.precision == "fp32":
            assert parity.label_agreement == 1.0 and parity.metric_lost == 0.0


def test_a_worker_scores_and_times_questions_with_all_their_windows(
    answerer: Checkpoint, answerer_engines: Path, questions_folder: Path
) -> None:
    texts = data.load(answerer.task, "validation", questions_folder).texts
    worker = Worker.open(str(answerer_engines / "answerer.fp32.onnxruntime"), texts, 1, 0)
    encoded = Encoder(answerer.folder, 24, form="windows")(texts)
    assert worker.opened().lengths == encoded.row_lengths.tolist() and len(encoded) > 60
    scored = worker.score(Workload("offline", 8, "real"), first_batch=0)
    ordered = [scored.predictions[number] for number in np.argsort(scored.rows)]
    assert ordered == list(answerer.manifest.predictions or ())
    assert sum(map(len, scored.logits)) == 4 * len(encoded)
    for workload in (SINGLE_STREAM, Workload("offline", 8, "real")):
        block = worker.block(workload, 0.0, queries=4, least_s=0.0, limit_s=5.0)
        assert block.checked == block.agreed == block.examples
        assert (
            4 * workload.batch - 4 <= block.examples <= 4 * workload.batch
        )  # the last batch has 4 questions


def run_of(answerer: Checkpoint, folder: Path) -> results.Run:
    rows = data.load(answerer.task, "validation", folder)
    predictions = answerer.task.behavior.restore(answerer.manifest.predictions or (), ())
    quality = record.score(answerer.task, rows, predictions, SINGLE_STREAM, dependent=False)
    return replace(simulated_results.run(0, n=60, rounds=4, queries=5), quality=quality)


def test_a_result_stores_answers_and_their_scores(
    answerer: Checkpoint, questions_folder: Path, tmp_path: Path
) -> None:
    read = results.open_run(results.save(run_of(answerer, questions_folder), tmp_path))
    assert read.quality.predictions == list(answerer.manifest.predictions or ())
    assert read.quality.labels[0] == rows_of(questions_folder)[0]["answers"]["text"]
    assert read.quality.metrics == pytest.approx(answerer.manifest.metrics)
    low, high = read.quality.interval
    assert low <= read.quality.value <= high and read.quality.label_f1 is None
    assert majority.remark(read) is None and majority.majority_score(read) is None
    joules = objectives.energy_per_correct(read)
    value = objectives.get("energy").value(read)
    assert value is None or joules == pytest.approx(value / read.quality.metrics["exact_match"])


DAMAGES: list[tuple[Callable[[Any], object], str]] = [
    (lambda quality: quality.update(kind=None), "expected both kind and label_names, or neither"),
    (lambda quality: quality["predictions"].__setitem__(0, 5), "expected texts, or lists of accepted texts"),
    (lambda quality: quality["predictions"].__setitem__(0, ["a"]), "predictions: expected texts"),
    (lambda quality: quality["labels"].__setitem__(0, "a"), "labels: expected lists of accepted texts"),
    (lambda quality: quality["metrics"].update(exact_match=0.123), "0.123"),
    (lambda quality: quality["metrics"].update(accuracy=0.5), "accuracy is not a metric of"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_result_that_contradicts_its_answers_is_refused(
    damage: Callable[[Any], object],
    message: str,
    answerer: Checkpoint,
    questions_folder: Path,
    tmp_path: Path,
) -> None:
    path = results.save(run_of(answerer, questions_folder), tmp_path)
    value = json.loads(path.read_text())
    damage(value["quality"])
    path.write_text(json.dumps(value))
    with pytest.raises(ArtifactError, match=message):
        results.open_run(path)


def test_a_variant_sets_how_far_windows_overlap(
    answerer: Checkpoint, questions_folder: Path, tmp_path: Path
) -> None:
    built, errors = export_all(
        [answerer.folder], ["stride2", "seq20+stride10", "stride9"], ["onnxruntime"], tmp_path
    )
    assert [engine.stride for engine in built] == [2, 9]
    assert [str(error) for error in errors] == [
        f"variant 'seq20+stride10': {answerer.name}: windows of 20 tokens have at most 7 in common."
    ]
    texts = data.load(answerer.task, "validation", questions_folder).texts
    tokens = []
    for engine in built:
        expected = Encoder(answerer.folder, 24, form="windows", stride=engine.stride)(texts)
        worker = Worker.open(str(engine.folder), texts, 1, 0)
        assert worker.opened().lengths == expected.row_lengths.tolist()
        scored = worker.score(Workload("offline", 8, "real"), first_batch=0)
        ordered = [scored.predictions[number] for number in np.argsort(scored.rows)]
        logits = evaluate.token_logits(checkpoints.load(answerer), expected, answerer.task)
        predict_rows = answerer.task.behavior.predict_rows
        assert predict_rows is not None and ordered == predict_rows(logits, expected).tolist()
        tokens.append(expected.row_lengths.sum())
    assert tokens[0] < tokens[1]


def test_a_stride_is_refused_where_no_row_has_windows(
    checkpoint: Checkpoint, answerer: Checkpoint, questions_folder: Path, tmp_path: Path
) -> None:
    built, errors = export_all([checkpoint.folder], ["stride8"], ["onnxruntime"], tmp_path / "engines")
    assert not built and "its rows are not divided into windows" in str(errors[0])
    run = run_of(answerer, questions_folder)
    with_stride = replace(run, engine=replace(run.engine, variant="fp32+stride8", max_length=24))
    path = results.save(with_stride, tmp_path)
    assert results.open_run(path).engine.variant == "fp32+stride8"
    for quality, length, message in (
        (run.quality, 20, "windows of 20 tokens have at most 7 in common"),
        (simulated_results.run(0, n=60, rounds=4, queries=5).quality, 24, "rows are not divided"),
    ):
        other = replace(run, engine=replace(with_stride.engine, max_length=length), quality=quality)
        path.write_text(json.dumps(other.to_json()))
        with pytest.raises(ArtifactError, match=message):
            results.open_run(path)
