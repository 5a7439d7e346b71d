"""Rankings of candidates, from fine-tuning to a result that is checked when it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from effx import data, results
from effx.analysis import majority
from effx.artifacts import Checkpoint, Engine
from effx.encoding import Encoder
from effx.errors import ArtifactError, DataError, UsageError
from effx.export import parity
from effx.models import checkpoints, evaluate, load
from effx.profile.worker import Worker
from effx.recipe import sweeps
from effx.specs.data import DataSettings, DataSource
from effx.specs.exits import EarlyExitSettings
from effx.specs.kinds import KINDS
from effx.specs.levels import Level
from effx.specs.tasks import Task
from effx.specs.tickets import TicketSearchSettings, TicketSettings
from effx.specs.tokens import TokenPruningSettings
from effx.specs.workloads import SINGLE_STREAM, Workload
from effx.stats import bootstrap, noninferiority
from effx.stats.metrics import METRICS, ndcg, reciprocal_rank
from effx.train import exits, importance, loop, tokens
from effx.train.importing import import_model
from effx.train.tickets.draw import draw
from tests import cache as caches
from tests.conftest import write_rows
from tests.train.kinds import edit, exported, fine_tuned, run_of, source_of, without_manifest

KIND = "ranking"
QUERIES = Task("queries", KIND, ("query", "passage"), (), KINDS[KIND].metrics)
TOPICS = ["soup", "room", "view", "plot", "acting"]
FILLERS = ["the", "was", "and", "again", "never"]


@pytest.fixture(scope="session")
def queries_folder(cache: caches.Cache) -> Path:
    """Queries of a topic; a candidate is relevant if it has the topic, and more if it begins with it."""

    def build(folder: Path) -> None:
        rng = np.random.default_rng(0)
        for split, n in (("train", 130), ("validation", 30)):
            rows: list[dict[str, object]] = []
            for number in range(n):
                topic = str(rng.choice(TOPICS))
                query = f"{topic} {' '.join(FILLERS[int(i)] for i in f'{number:04b}'[-4:])} {number}"
                others = [word for word in TOPICS if word != topic]
                relevant = int(rng.integers(1, 3))
                for place in range(int(rng.integers(3, 8))):
                    words = list(rng.choice(FILLERS, 3))
                    grade = int(rng.integers(1, 3)) if place < relevant else 0
                    words.insert(0 if grade == 2 else 2, topic if grade else str(rng.choice(others)))
                    passage = f"{' '.join(words)} {place}"
                    rows.append({"query": query, "passage": passage, "label": grade})
            write_rows(folder / f"{split}.jsonl", [rows[int(i)] for i in rng.permutation(len(rows))])

    return cache.folder("queries", build)


@pytest.fixture(scope="session")
def ranker(cache: caches.Cache, encoders: dict[str, Path], queries_folder: Path) -> Checkpoint:
    return fine_tuned(
        cache, encoders["bert"], queries_folder, KIND, epochs=3, max_length=32, lr=2e-3, batch_size=16
    )


@pytest.fixture(scope="session")
def ranker_engines(cache: caches.Cache, ranker: Checkpoint, queries_folder: Path) -> Path:
    backends = {"fp32": ["onnxruntime", "openvino", "torch"], "int8": ["onnxruntime"]}
    return exported(cache, ranker, queries_folder, backends)


def by_query(folder: Path) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for line in (folder / "validation.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows.setdefault(row["query"], []).append(row)
    return rows


def plain_mrr(relevance: list[float], scores: list[float]) -> float:
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    for rank, index in enumerate(order[:10], 1):
        if relevance[index] > 0:
            return 1 / rank
    return 0.0


def test_scores_of_an_order_are_those_of_other_implementations() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        n = int(rng.integers(2, 25))
        relevance = rng.integers(0, 4, n).astype(float)
        scores = rng.normal(size=n)
        tied = rng.integers(0, 3, n).astype(float)
        if not relevance.any():
            assert ndcg(relevance, scores) == reciprocal_rank(relevance, scores) == 0.0
            continue
        for each in (scores, tied):
            assert ndcg(relevance, each) == pytest.approx(ndcg_score([relevance], [each], k=10))
        assert reciprocal_rank(relevance, scores) == plain_mrr(relevance.tolist(), scores.tolist())
    assert reciprocal_rank([1, 0, 0], [2.0, 2.0, 1.0]) == 0.5  # a constant score is not rewarded
    assert reciprocal_rank([0] * 10 + [1], list(range(11, 0, -1))) == 0.0


def test_scores_are_those_of_scikit_learn(ranker: Checkpoint, queries_folder: Path) -> None:
    groups, manifest = by_query(queries_folder), ranker.manifest
    assert (ranker.task.kind, ranker.task.metric) == (KIND, "ndcg_at_10")
    assert manifest.validation_rows == len(groups) == 30 and manifest.predictions is not None
    relevance = [[row["label"] for row in rows] for rows in groups.values()]
    pairs = list(zip(relevance, manifest.predictions, strict=True))
    assert manifest.metrics == pytest.approx(
        {
            "ndcg_at_10": np.mean([ndcg_score([labels], [scores], k=10) for labels, scores in pairs]),
            "mrr_at_10": np.mean([plain_mrr(labels, list(scores)) for labels, scores in pairs]),
        }
    )
    constant = np.mean([ndcg_score([labels], [[0.0] * len(labels)], k=10) for labels in relevance])
    assert manifest.baseline is not None and manifest.baseline.score == pytest.approx(constant)
    assert manifest.metrics["ndcg_at_10"] > constant + 0.1


def test_scores_are_those_of_transformers(ranker: Checkpoint, queries_folder: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(ranker.folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(ranker.folder)
    assert ranker.manifest.predictions is not None
    pairs = list(zip(by_query(queries_folder).values(), ranker.manifest.predictions, strict=True))
    for rows, stored in pairs[:8]:
        inputs = tokenizer(
            [row["query"] for row in rows], [row["passage"] for row in rows], padding=True, truncation=True,
            max_length=32, return_tensors="pt",
        )  # fmt: skip
        with torch.no_grad():
            scores = model(**inputs).logits[:, 0]
        np.testing.assert_allclose(scores, stored, atol=1e-5)


def test_candidates_are_trained_on_and_a_ticket_is_drawn(
    ranker: Checkpoint, encoders: dict[str, Path], queries_folder: Path, tmp_path: Path
) -> None:
    source, model = source_of(queries_folder, KIND), load(ranker)
    rows = data.load(ranker.task, "train", source).limit(6)
    encoded = Encoder(ranker.folder, 32, form="candidates")(rows.texts)
    assert encoded.row_count == 6 and len(encoded) == sum(len(texts) - 1 for texts in rows.texts)
    names = checkpoints.input_names(model)
    batches = list(importance.batches_of(encoded, rows.labels, names, 8, 0))
    relevance = sorted(value for batch in batches for value in batch["labels"].tolist())
    assert relevance == sorted(value for row in rows.labels for value in row)
    assert importance.measure(model, batches).heads.min() > 0
    first = loop.labelled(encoded, rows.labels, names)([0, 1])
    assert first["labels"].tolist() == list(rows.labels[0][:2])
    taken = encoded.take([3, 1])
    part = evaluate.predictions(model, taken, ranker.task)
    expected = evaluate.predictions(model, encoded, ranker.task)[[3, 1]]
    for a, b in zip(part, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    settings = TicketSettings.of(level="30", max_length=32, max_steps=5, lr=2e-3, batch_size=8)
    ticket = draw(
        ranker.folder, encoders["bert"], out=tmp_path, name="t", settings=settings, data_folder=source
    )
    assert ticket.manifest.weight_remaining < 1 and set(ticket.manifest.metrics) == {
        "ndcg_at_10",
        "mrr_at_10",
    }


def test_a_search_for_tickets_reads_its_results_again(
    encoders: dict[str, Path], queries_folder: Path, tmp_path: Path
) -> None:
    """Queries have different numbers of candidates, so predictions are lists of different lengths."""
    settings = TicketSearchSettings.of(
        levels=(Level(50),), kinds=("winning",), seeds=1, max_length=32, max_steps=2, lr=2e-3, batch_size=8
    )
    source = source_of(queries_folder, KIND)
    table = sweeps.tickets("sorting", encoders["bert"], out=tmp_path, data_folder=source, settings=settings)
    assert [row["level"] for row in table["summary"]] == [None, "50"]
    halving = settings.replace(search="halving", levels=(Level(20), Level(50)), max_steps=None)
    with pytest.raises(UsageError, match="halving and rewinding need max_steps for task sorting"):
        sweeps.tickets("sorting", encoders["bert"], out=tmp_path / "h", data_folder=source, settings=halving)


def test_a_model_made_elsewhere_keeps_its_scores(
    ranker: Checkpoint, queries_folder: Path, tmp_path: Path
) -> None:
    plain = without_manifest(ranker, tmp_path / "plain")
    imported = import_model(plain, out=tmp_path, data_folder=source_of(queries_folder, KIND))
    assert imported.task.kind == KIND
    assert imported.manifest.metrics == pytest.approx(ranker.manifest.metrics)
    edit(
        plain / "config.json",
        lambda value: value.update(architectures=["BertForTokenClassification"], problem_type=None),
    )
    with pytest.raises(UsageError, match="is not one for ranking|no use in the model"):
        import_model(plain, out=tmp_path / "x", data_folder=source_of(queries_folder, KIND))


GOOD = [{"query": "what", "passage": "the soup", "label": 1}, {"query": "what", "passage": "a", "label": 0}]
ROWS: list[tuple[dict[str, object], str]] = [
    ({"query": " ", "passage": "b", "label": 1}, "row 3: the query is empty: expected a row as {"),
    ({"query": "what", "passage": "", "label": 1}, "row 3: the candidate is empty"),
    ({"query": "what", "passage": "b", "label": "high"}, "row 3: label 'high' is not a number"),
    ({"query": "what", "passage": "b", "label": -1}, "row 3: relevance -1: expected a number >= 0"),
    (
        {"query": "how", "passage": "b", "label": 0},
        "row 3: the query 'how' has no candidate of relevance above",
    ),
    ({"query": "what", "passage": "a", "label": 1}, "row 3: the query 'what' has the candidate 'a' twice"),
]


@pytest.mark.parametrize(("row", "message"), ROWS)
def test_a_wrong_row_is_refused_with_its_position(
    row: dict[str, object], message: str, tmp_path: Path
) -> None:
    write_rows(tmp_path / "validation.jsonl", [*GOOD, row])
    with pytest.raises(DataError, match=message.replace("row 3", "(row|line) 3")) as error:
        data.load(QUERIES, "validation", tmp_path)
    assert "\n" not in str(error.value)


def test_rows_of_one_text_are_refused_with_a_right_row(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [{"sentence": "a", "label": 1.0}])
    with pytest.raises(DataError, match='rows of ranking have two texts, as {"query"'):
        data.resolve("mine", DataSource(str(tmp_path), DataSettings(task_kind=KIND)))


def test_queries_are_not_divided(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"query": f"q {n // 4}", "passage": f"film {n}", "relevance": int(n % 4 == 0)} for n in range(80)
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    source = DataSource(str(tmp_path / "rows.jsonl"), DataSettings(split=0.6, task_kind=KIND))
    task = data.resolve("mine", source)
    train, validation = (data.load(task, split, source) for split in ("train", "validation"))
    assert len(train) + len(validation) == 20 and {len(texts) for texts in train.texts} == {5}
    assert train.labels[0] == (1.0, 0.0, 0.0, 0.0)


def test_reductions_of_single_predictions_are_refused(
    ranker: Checkpoint, queries_folder: Path, tmp_path: Path
) -> None:
    source = source_of(queries_folder, KIND)
    with pytest.raises(UsageError, match="are not comparable"):
        exits.train(ranker.folder, out=tmp_path, data_folder=source, settings=EarlyExitSettings())
    with pytest.raises(UsageError, match="a query has one per candidate"):
        tokens.train(ranker.folder, out=tmp_path, data_folder=source, settings=TokenPruningSettings())


def test_engines_pass_their_gates(ranker: Checkpoint, ranker_engines: Path) -> None:
    for folder in Engine.find_all([ranker_engines]):
        measured = Engine.open(folder).manifest.parity
        assert measured is not None and measured.passed and measured.metric == "ndcg_at_10"
        assert measured.examples == 31 and measured.label_agreement > 0.93
        if Engine.open(folder).manifest.precision == "fp32":
            assert measured.label_agreement == 1.0 and measured.metric_lost == 0.0


def test_other_orders_fail_the_gate() -> None:
    rows = parity.random_rows(40, 200, 20, 0, form="candidates")
    scores = np.random.default_rng(0).normal(size=(40, 1)).astype(np.float32)
    reference = parity.Reference(rows, scores, None, None, "random")
    same = parity.compare(reference, scores + np.float32(1e-6), None, QUERIES, "fp32")
    assert same.passed and same.examples == 10 and same.label_agreement == 1.0
    # an offset that is the same for all candidates changes no order, but differs from the checkpoint
    assert not parity.compare(reference, scores + np.float32(0.1), None, QUERIES, "fp32").passed
    assert not parity.compare(reference, np.roll(scores, 1, axis=0), None, QUERIES, "int8").passed


def test_a_worker_scores_and_times_queries_with_all_their_candidates(
    ranker: Checkpoint, ranker_engines: Path, queries_folder: Path
) -> None:
    texts = data.load(ranker.task, "validation", source_of(queries_folder, KIND)).texts
    worker = Worker.open(str(ranker_engines / "trained.fp32.onnxruntime"), texts, 1, 0)
    encoded = Encoder(ranker.folder, 32, form="candidates")(texts)
    assert worker.opened().lengths == encoded.row_lengths.tolist()
    for workload in (Workload("offline", 8, "real"), SINGLE_STREAM):
        scored = worker.score(workload, first_batch=0)
        for number in np.argsort(scored.rows)[:5]:
            expected = (ranker.manifest.predictions or ())[scored.rows[number]]
            np.testing.assert_allclose(scored.predictions[number], expected, atol=1e-5)
        assert sum(map(len, scored.logits)) == len(encoded)
        block = worker.block(workload, 0.0, queries=3, least_s=0.0, limit_s=5.0)
        assert block.checked == block.agreed == block.examples > 0


def test_a_result_stores_scores_and_resamples_queries(
    ranker: Checkpoint, queries_folder: Path, tmp_path: Path
) -> None:
    path = results.save(run_of(ranker, source_of(queries_folder, KIND)), tmp_path)
    read = results.open_run(path)
    assert read.quality.predictions == [list(row) for row in ranker.manifest.predictions or ()]
    assert read.quality.n == 30 == len(read.quality.prediction_array) and read.quality.kind == KIND
    assert read.quality.metrics == pytest.approx(ranker.manifest.metrics)
    metric, labels = METRICS["ndcg_at_10"], read.quality.label_array
    low, high = bootstrap.metric_interval(metric, labels, read.quality.prediction_array)
    assert read.quality.interval == pytest.approx((low, high)) and low < read.quality.value < high
    assert majority.remark(read) is None
    same = noninferiority.bounds(metric, labels, *[read.quality.prediction_array] * 2, 0.95)
    assert same is not None and same[0] <= 0 <= same[1]
    edit(path, lambda value: value["quality"]["predictions"][0].pop())
    with pytest.raises(ArtifactError, match="scores, one for each candidate"):
        results.open_run(path)
