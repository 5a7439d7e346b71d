"""Embeddings of texts, from fine-tuning to a result that is checked when it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from scipy import stats
from transformers import AutoModel, AutoTokenizer

from effx import data, engines, results
from effx.analysis import majority
from effx.artifacts import Checkpoint, Engine
from effx.encoding import Encoder
from effx.errors import ArtifactError, DataError, UsageError
from effx.export import hub, parity, triton
from effx.export.foreign.importing import import_engine
from effx.models import add_ramps, checkpoints, evaluate, huggingface, load, pretrained, prune, save
from effx.models.losses import LOSSES
from effx.profile.worker import Worker
from effx.specs.data import DataSettings, DataSource
from effx.specs.exits import EarlyExitSettings
from effx.specs.foreign import ForeignSettings
from effx.specs.imports import ImportSettings
from effx.specs.kinds import KINDS
from effx.specs.tasks import Task
from effx.specs.tickets import TicketSettings
from effx.specs.tokens import TokenPruningSettings
from effx.specs.workloads import SINGLE_STREAM, Workload
from effx.train import exits, importance, loop, tokens
from effx.train.importing import import_model
from effx.train.tickets.draw import draw
from tests import cache as caches
from tests.conftest import CONFIGS, write_rows
from tests.train.kinds import edit, exported, fine_tuned, run_of, source_of, without_manifest

KIND = "embedding"
PAIRS = Task("pairs", KIND, ("sentence1", "sentence2"), (), KINDS[KIND].metrics)
TOPICS = ["soup", "room", "view", "plot", "acting"]
FILLERS = ["the", "was", "and", "again", "never"]


@pytest.fixture(scope="session")
def pairs_folder(cache: caches.Cache) -> Path:
    """Pairs whose score is the number of topics that both texts have."""

    def build(folder: Path) -> None:
        rng = np.random.default_rng(0)
        for split, n in (("train", 320), ("validation", 80)):
            rows: list[dict[str, object]] = []
            for _ in range(n):
                first, second = rng.choice(TOPICS, 2, replace=False), rng.choice(TOPICS, 2, replace=False)
                texts = [
                    " ".join(rng.permutation([*topics, *rng.choice(FILLERS, rng.integers(0, 5))]))
                    for topics in (first, second)
                ]
                score = 2.5 * len(set(first) & set(second))
                rows.append({"sentence1": texts[0], "sentence2": texts[1], "label": score})
            write_rows(folder / f"{split}.jsonl", rows)

    return cache.folder("pairs", build)


@pytest.fixture(scope="session")
def embedder(cache: caches.Cache, encoders: dict[str, Path], pairs_folder: Path) -> Checkpoint:
    return fine_tuned(
        cache, encoders["bert"], pairs_folder, KIND, epochs=4, max_length=16, lr=2e-3, batch_size=16
    )


@pytest.fixture(scope="session")
def embedder_engines(cache: caches.Cache, embedder: Checkpoint, pairs_folder: Path) -> Path:
    backends = {"fp32": ["onnxruntime", "openvino", "torch"], "int8": ["onnxruntime"]}
    return exported(cache, embedder, pairs_folder, backends)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]


def texts_of(folder: Path) -> list[str]:
    """Return the texts of the validation rows, those of a row after each other."""
    return [row[column] for row in rows_of(folder) for column in ("sentence1", "sentence2")]


def pooled(folder: Path, texts: list[str], pooling: str = "mean") -> np.ndarray:
    """Return the vectors of texts as sentence-transformers defines them, from a folder of transformers."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=16, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**inputs).last_hidden_state.numpy()
    mask = inputs["attention_mask"].numpy()[..., None]
    vectors = hidden[:, 0] if pooling == "cls" else (hidden * mask).sum(1) / mask.sum(1)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_scores_are_those_of_scipy(embedder: Checkpoint, pairs_folder: Path) -> None:
    manifest = embedder.manifest
    assert (embedder.task.kind, embedder.task.labels, embedder.task.metric) == (KIND, (), "spearman")
    vectors = pooled(embedder.folder, texts_of(pairs_folder))
    cosines = (vectors[0::2] * vectors[1::2]).sum(1)
    np.testing.assert_allclose(manifest.predictions, cosines, atol=1e-5)
    labels = [row["label"] for row in rows_of(pairs_folder)]
    assert manifest.metrics == pytest.approx(
        {"spearman": stats.spearmanr(labels, cosines)[0], "pearson": stats.pearsonr(labels, cosines)[0]},
        abs=1e-4,
    )
    assert manifest.metrics["spearman"] > 0.5
    assert manifest.baseline is not None and manifest.baseline.score == 0.0


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("family", CONFIGS)
def test_vectors_of_every_family_are_pooled_and_normalised(
    family: str, pooling: str, encoders: dict[str, Path], pairs_folder: Path, tmp_path: Path
) -> None:
    folder = without_manifest_of(encoders[family], tmp_path / "model")
    write_sentence_files(folder, pooling)
    model, tokenizer = pretrained(folder, PAIRS)
    rows = [(row["sentence1"], row["sentence2"]) for row in rows_of(pairs_folder)]
    expected = pooled(folder, texts_of(pairs_folder), pooling)
    saved = save(model, tmp_path / "saved", tokenizer=tokenizer, task=PAIRS, max_length=16)
    for each in (model, load(saved)):
        vectors = evaluate.logits(each, Encoder(saved.folder, 16, form="separate")(rows))
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
    np.testing.assert_allclose(pooled(saved.folder, texts_of(pairs_folder), pooling), expected, atol=1e-5)


def without_manifest_of(folder: Path, target: Path) -> Path:
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def write_sentence_files(folder: Path, pooling: str) -> None:
    """Write the files of sentence-transformers as its version 2 does."""
    kinds = ("Transformer", "Pooling", "Normalize")
    paths = ("", "1_Pooling", "2_Normalize")
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    switches = {"pooling_mode_cls_token": pooling == "cls", "pooling_mode_mean_tokens": pooling == "mean",
                "pooling_mode_max_tokens": False}  # fmt: skip
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(switches))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 12}))


def test_the_loss_orders_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(12, 8, generator=generator)
    scores = [3.0, 1.0, 1.0, 0.0, 5.0, 2.0]
    cosines = torch.cosine_similarity(vectors[0::2], vectors[1::2]).tolist()
    terms = [
        np.exp(20 * (cosines[j] - cosines[i])) for i in range(6) for j in range(6) if scores[i] > scores[j]
    ]
    loss = LOSSES["cosine-order"](vectors, torch.tensor(scores))
    assert float(loss) == pytest.approx(np.log(1 + sum(terms)), rel=1e-5)
    leaf = vectors.requires_grad_()
    equal = LOSSES["cosine-order"](leaf, torch.ones(6))
    equal.backward()
    assert equal.item() == 0.0 and leaf.grad is not None and not leaf.grad.any()


def test_the_model_computes_the_loss_of_its_pairs(embedder: Checkpoint, pairs_folder: Path) -> None:
    model = load(embedder)
    rows = data.load(embedder.task, "validation", source_of(pairs_folder, KIND))
    encoded = Encoder(embedder.folder, 16, form="separate")(rows.texts)
    batch = loop.labelled(encoded, rows.labels, checkpoints.input_names(model))([5, 0, 7])
    assert len(batch["input_ids"]) == 6 and batch["labels"].tolist() == rows.labels[[5, 0, 7]].tolist()
    with torch.no_grad():
        out = model(**batch)
    assert float(out.loss) == pytest.approx(float(LOSSES["cosine-order"](out.logits, batch["labels"])))
    encoded_rows = encoded.take([5, 0, 7])
    np.testing.assert_allclose(evaluate.logits(model, encoded_rows), out.logits.numpy(), atol=1e-5)


def test_importance_is_measured_and_a_ticket_is_drawn(
    embedder: Checkpoint, encoders: dict[str, Path], pairs_folder: Path, tmp_path: Path
) -> None:
    source = source_of(pairs_folder, KIND)
    model = load(embedder)
    rows = data.load(embedder.task, "train", source).limit(20)
    encoded = Encoder(embedder.folder, 16, form="separate")(rows.texts)
    batches = list(importance.batches_of(encoded, rows.labels, checkpoints.input_names(model), 8, 0))
    assert sorted(len(batch["labels"]) for batch in batches) == [4, 8, 8]
    assert importance.measure(model, batches).heads.min() > 0
    settings = TicketSettings.of(level="30", max_length=16, max_steps=5, lr=2e-3, batch_size=8)
    ticket = draw(
        embedder.folder, encoders["bert"], out=tmp_path, name="t", settings=settings, data_folder=source
    )
    assert ticket.manifest.weight_remaining < 1 and set(ticket.manifest.metrics) == {"spearman", "pearson"}


def test_a_model_made_elsewhere_keeps_its_scores(
    embedder: Checkpoint, pairs_folder: Path, tmp_path: Path
) -> None:
    plain = without_manifest(embedder, tmp_path / "plain")
    source = source_of(pairs_folder, KIND)
    imported = import_model(plain, out=tmp_path, data_folder=source)
    assert imported.task.kind == KIND and imported.max_length == 16
    assert imported.manifest.metrics == pytest.approx(embedder.manifest.metrics)
    unlabelled = tmp_path / "unlabelled"
    for split in ("train", "validation"):
        write_rows(unlabelled / f"{split}.jsonl", [{"sentence1": "the soup", "sentence2": "the room"}])
    assert import_model(plain, out=tmp_path, data_folder=unlabelled).task.kind == KIND
    with pytest.raises(UsageError, match="a model of sentence embeddings.* is not one for regression"):
        import_model(plain, out=tmp_path, data_folder=pairs_folder, checkpoint_name="other")
    with pytest.raises(UsageError, match="the built-in task 'stsb' is regression"):
        import_model(plain, out=tmp_path, data_folder=source, settings=ImportSettings(task="stsb"))


POOLING, LENGTH = "1_Pooling/config.json", "sentence_bert_config.json"
CONFIG = "config_sentence_transformers.json"
DAMAGED: list[tuple[str, Callable[[Any], object], str]] = [
    ("modules.json", lambda value: value[1].update(type="x.Dense"), "has the modules Transformer, Dense"),
    ("modules.json", lambda value: value[0].update(path="0_T"), "the Transformer is in 0_T"),
    ("modules.json", lambda value: value[1].update(path="../x"), "expected a type and a path for each"),
    ("modules.json", lambda value: value.clear(), ""),
    (POOLING, lambda value: value.update(pooling_mode_cls_token=True), "its pooling is cls and mean"),
    (POOLING, lambda value: value.update(pooling_mode="max"), "its pooling is max"),
    (POOLING, lambda value: value.clear(), "its pooling is not stated"),
    (CONFIG,
     lambda value: value.update(prompts={"q": "query: "}, default_prompt_name="q"),
     "sentence-transformers puts the prompt 'query:' before each text"),
    (LENGTH, lambda value: value.update(max_seq_length="x"), "expected an integer"),
    (LENGTH, lambda value: value.update(processing_kwargs={"text": {"max_length": 8}}),
     "sentence_bert_config.json: effx does not compute processing_kwargs: {'text': {'max_length': 8}}"),
    (LENGTH, lambda value: value.update(config_args={"rotary_scaling_factor": 2}), "compute config_args"),
    (LENGTH, lambda value: value.update(model_args={"torch_dtype": "bfloat16", "num_labels": 2}),
     "model_args: effx does not compute num_labels: 2"),
    (LENGTH, lambda value: value.update(transformer_task="fill-mask"), "effx computes feature-extraction"),
    (LENGTH, lambda value: value.update(modality_config={"text": {"method": "get_text_features"}}),
     "modality_config: effx computes last_hidden_state of forward"),
    (CONFIG, lambda value: value.update(truncate_dim=8), "effx does not compute truncate_dim: 8"),
    (CONFIG, lambda value: value.update(model_type="SparseEncoder"), "says SparseEncoder: effx computes"),
    (LENGTH, lambda value: value.update(  # as version 6 writes it, and harmless arguments of older ones
        transformer_task="feature-extraction", module_output_name="token_embeddings", unpad_inputs=True,
        modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        model_args={"add_pooling_layer": False}, config_args={}, query_length=None), ""),
    (CONFIG, lambda value: value.update(
        __version__={"pytorch": "2.8.0"}, prompts={"query": ""}, default_prompt_name=None, truncate_dim=None),
     ""),
]  # fmt: skip


@pytest.mark.parametrize(("file", "change", "message"), DAMAGED)
def test_what_effx_does_not_compute_of_an_encoder_is_refused(
    file: str, change: Callable[[Any], object], message: str, embedder: Checkpoint, tmp_path: Path
) -> None:
    plain = without_manifest(embedder, tmp_path / "plain")
    edit(plain / file, change)
    if not message:
        assert pretrained(plain, PAIRS)
        return
    with pytest.raises(UsageError, match=message) as error:
        pretrained(plain, PAIRS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"])
def test_the_maximum_length_has_a_file_of_several_names(
    kind: str, embedder: Checkpoint, tmp_path: Path
) -> None:
    plain = without_manifest(embedder, tmp_path / "plain")
    (plain / LENGTH).unlink()
    (plain / f"sentence_{kind}_config.json").write_text(json.dumps({"max_seq_length": 9}))
    assert huggingface.load(plain, PAIRS).max_length == 9
    (plain / LENGTH).write_text(json.dumps({"max_seq_length": 7}))
    assert huggingface.load(plain, PAIRS).max_length == 7
    (plain / LENGTH).write_text("{")
    with pytest.raises(UsageError, match="sentence_bert_config.json"):
        huggingface.load(plain, PAIRS)


ROWS: list[tuple[dict[str, object], str]] = [
    ({"sentence1": "a", "sentence2": " ", "label": 1.5}, "row 2: text 2 of the pair is empty"),
    ({"sentence1": "", "sentence2": "b", "label": 1.5}, "row 2: text 1 of the pair is empty"),
    ({"sentence1": "a", "sentence2": "b", "label": "high"}, "row 2: label 'high' is not a number"),
    ({"sentence1": "a", "sentence2": "b", "label": None}, "row 2: the label is empty"),
    ({"sentence1": "a", "sentence2": 5, "label": 1.0}, "column 'sentence2': expected text"),
]


@pytest.mark.parametrize(("row", "message"), ROWS)
def test_a_wrong_row_is_refused_with_its_position(
    row: dict[str, object], message: str, tmp_path: Path
) -> None:
    good: dict[str, object] = {"sentence1": "a", "sentence2": "b", "label": 2.0}
    write_rows(tmp_path / "validation.jsonl", [good, row])
    with pytest.raises(DataError, match=message.replace("row 2", "(row|line) 2")):
        data.load(PAIRS, "validation", tmp_path)


def test_rows_of_one_text_are_refused_with_a_right_row(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [{"sentence": "a", "label": 1.0}])
    with pytest.raises(DataError, match='rows of embedding have two texts, as {"sentence1"'):
        data.resolve("mine", DataSource(str(tmp_path), DataSettings(task_kind=KIND)))


def test_reductions_that_need_a_prediction_per_row_are_refused(
    embedder: Checkpoint, pairs_folder: Path, tmp_path: Path
) -> None:
    source = source_of(pairs_folder, KIND)
    with pytest.raises(UsageError, match="a vector alone predicts nothing"):
        exits.train(embedder.folder, out=tmp_path, data_folder=source, settings=EarlyExitSettings())
    with pytest.raises(UsageError, match="mean pooling needs the outputs of all tokens"):
        tokens.train(embedder.folder, out=tmp_path, data_folder=source, settings=TokenPruningSettings())
    with pytest.raises(UsageError, match="this model has a vector"):
        add_ramps(load(embedder))


def test_engines_pass_their_gates(embedder: Checkpoint, embedder_engines: Path, pairs_folder: Path) -> None:
    texts = texts_of(pairs_folder)
    rows = list(zip(texts[0::2], texts[1::2], strict=True))
    expected = pooled(embedder.folder, texts)
    for folder in Engine.find_all([embedder_engines]):
        engine = Engine.open(folder)
        measured = engine.manifest.parity
        assert measured is not None and measured.passed and measured.metric == "spearman"
        assert measured.examples == 81 and measured.least_cosine is not None
        exact = engine.manifest.precision == "fp32"
        assert measured.least_cosine > (1 - 1e-6 if exact else 0.9)
        encoded = Encoder(folder, engine.max_length, form="separate")(rows)
        with engines.open(engine) as session:
            out = session.infer(encoded.batch(np.arange(20)))
        vectors = out["sentence_embedding"]
        cosines = (vectors * expected[:20]).sum(1)
        np.testing.assert_allclose(cosines, 1.0, atol=1e-5 if exact else 0.1)
        mask = encoded.batch(np.arange(20))["attention_mask"][..., None]
        means = (out["last_hidden_state"] * mask).sum(1) / mask.sum(1)
        np.testing.assert_allclose(vectors, means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-5)


def test_vectors_of_other_directions_fail_the_gate() -> None:
    rows = parity.random_rows(40, 200, 20, 0, form="separate")
    vectors = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    reference = parity.Reference(rows, vectors, None, None, "random")
    same = parity.compare(reference, vectors + np.float32(1e-6), None, PAIRS, "fp32")
    assert same.passed and same.examples == 20 and same.least_cosine == pytest.approx(1, abs=1e-6)
    # the same cosines of all pairs, by a rotation of the space: only the vectors show it
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(16, 16)))[0].astype(np.float32)
    turned = parity.compare(reference, vectors @ rotation, None, PAIRS, "int8")
    assert turned.label_agreement > 0.999 and not turned.passed
    swapped = parity.compare(reference, np.roll(vectors, 1, axis=0), None, PAIRS, "int8")
    assert not swapped.passed


def test_a_worker_scores_pairs_and_times_texts(
    embedder: Checkpoint, embedder_engines: Path, pairs_folder: Path
) -> None:
    texts = data.load(embedder.task, "validation", source_of(pairs_folder, KIND)).texts
    worker = Worker.open(str(embedder_engines / "trained.fp32.onnxruntime"), texts, 1, 0)
    encoded = Encoder(embedder.folder, 16, form="separate")(texts)
    assert worker.opened().lengths == encoded.lengths.tolist() and len(encoded) == 160
    for workload in (Workload("offline", 8, "real"), SINGLE_STREAM):
        scored = worker.score(workload, first_batch=0)
        ordered = np.array(scored.predictions)[np.argsort(scored.rows)]
        np.testing.assert_allclose(ordered, embedder.manifest.predictions, atol=1e-5)
        assert [len(logits) for logits in scored.logits] == [1] * 80
        block = worker.block(workload, 0.0, queries=6, least_s=0.0, limit_s=5.0)
        assert block.examples == 6 * workload.batch
        assert block.checked == block.agreed == 3 * workload.batch
    assert worker.score(SINGLE_STREAM, 0, only=[3, 1]).rows == [3, 1]


def test_a_result_stores_cosines(embedder: Checkpoint, pairs_folder: Path, tmp_path: Path) -> None:
    run = run_of(embedder, source_of(pairs_folder, KIND))
    path = results.save(run, tmp_path)
    read = results.open_run(path)
    assert read.quality.predictions == list(embedder.manifest.predictions or ())
    assert read.quality.metric == "spearman" and read.quality.metrics == pytest.approx(
        embedder.manifest.metrics
    )
    low, high = read.quality.interval
    assert low <= read.quality.value <= high and majority.remark(read) is None
    edit(path, lambda value: value["quality"]["predictions"].__setitem__(0, 0.9))
    with pytest.raises(ArtifactError, match="spearman"):
        results.open_run(path)


def test_a_pruned_engine_is_written_for_sentence_transformers(
    embedder: Checkpoint, pairs_folder: Path, tmp_path: Path
) -> None:
    model = load(embedder)
    prune(model, heads={0: [0]}, ffns=[1], layers=[2])
    rows = data.recorded(embedder.task, source_of(pairs_folder, KIND))
    pruned = save(
        model, tmp_path / "small", tokenizer=checkpoints.tokenizer(embedder.folder), task=embedder.task,
        max_length=16, data=rows,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="size mismatch|mismatched"):
        AutoModel.from_pretrained(pruned.folder)
    from effx.export import export

    engine = export(pruned.folder, "fp32", out=tmp_path / "engines")
    assert engine.manifest.parity is not None and engine.manifest.parity.passed
    folder = hub.write([engine], tmp_path / "hub")
    modules = json.loads((folder / "modules.json").read_text())
    assert [module["type"].rpartition(".")[2] for module in modules] == [
        "Transformer",
        "Pooling",
        "Normalize",
    ]
    assert json.loads((folder / "1_Pooling" / "config.json").read_text())["pooling_mode_mean_tokens"] is True
    assert json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"] == 16
    assert (folder / "onnx" / "model.onnx").is_file()
    assert hub.write([engine], tmp_path / "hub") == folder  # what it wrote before is replaced


def test_a_graph_made_elsewhere_becomes_an_engine_if_it_has_vectors(
    embedder: Checkpoint, embedder_engines: Path, pairs_folder: Path, tmp_path: Path
) -> None:
    graph = embedder_engines / "trained.fp32.onnxruntime" / "model.onnx"
    source = source_of(pairs_folder, KIND)
    made = import_engine(
        graph, "things", tokenizer=embedder.folder, checkpoint=embedder.folder, data_folder=source,
        settings=ForeignSettings(max_length=16), out=tmp_path,
    )  # fmt: skip
    measured = made.manifest.parity
    assert measured is not None and measured.least_cosine == pytest.approx(1, abs=1e-6)
    model = onnx.load(graph)
    del model.graph.output[0]  # as an export of Optimum, whose outputs are those of the tokens
    (tmp_path / "tokens").mkdir()
    onnx.save(model, tmp_path / "tokens" / "model.onnx")
    with pytest.raises(UsageError, match="expected outputs sentence_embedding, the graph has last_hidden"):
        import_engine(
            tmp_path / "tokens" / "model.onnx", "things", tokenizer=embedder.folder, data_folder=source,
            settings=ForeignSettings(max_length=16), out=tmp_path,
        )  # fmt: skip


def test_the_configuration_of_triton_has_the_width_of_the_vectors(embedder_engines: Path) -> None:
    config = triton.config(Engine.open(embedder_engines / "trained.fp32.onnxruntime"), "m")
    assert {output["name"]: output["dims"] for output in config["output"]} == {
        "sentence_embedding": [32], "last_hidden_state": [-1, 32],
    }  # fmt: skip
