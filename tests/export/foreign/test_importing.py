"""Graphs of other tools become engines that answer as their model does, in the task's order of labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from onnx import helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from effx import data, engines, files
from effx.analysis import wording
from effx.analysis.baseline import baseline_of
from effx.analysis.check import check
from effx.analysis.recommend import recommend
from effx.analysis.recommendation import Recommendation
from effx.analysis.techniques import Technique, technique
from effx.artifacts import Checkpoint, Engine, seal
from effx.encoding import Encoder
from effx.errors import ArtifactError, GateError, UsageError
from effx.export import graph, parity, verify
from effx.export.foreign import onnx_graph
from effx.export.foreign.importing import import_engine
from effx.export.graph import TraceShape
from effx.export.source import ExportSource
from effx.models import checkpoints
from effx.profile import profile
from effx.quiet import quiet
from effx.report import tables
from effx.results import find
from effx.specs.constraints import CheckSettings, Constraints, RecommendSettings
from effx.specs.data import DataSettings, DataSource
from effx.specs.foreign import ForeignSettings
from effx.specs.variants import parse
from tests import cache as caches
from tests.conftest import QUICK, write_rows
from tests.export.foreign import graphs


def rows_of(checkpoint: Checkpoint) -> DataSource | None:
    """Return where the rows of a checkpoint are."""
    return data.locate(None, checkpoint.task, checkpoint.data)


def write_onnx(model: torch.nn.Module, path: Path, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    """Export as a script of its own would, without effx."""
    arrays = (torch.ones((2, 7), dtype=torch.int64), torch.ones((2, 7), dtype=torch.int64))
    axes = {name: {0: "rows", 1: "tokens"} for name in inputs} | {name: {0: "rows"} for name in outputs}
    with quiet(output=True):
        torch.onnx.export(
            model,
            arrays,
            path,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=axes,
            dynamo=False,
        )


@pytest.fixture(scope="session")
def foreign(cache: caches.Cache, checkpoint: Checkpoint) -> Path:
    """``tiny`` as transformers saves it, its labels in the other order, and what other tools make of it."""

    def build(folder: Path) -> None:
        import nncf

        model = AutoModelForSequenceClassification.from_pretrained(checkpoint.folder)
        model.classifier.weight.data = model.classifier.weight.data.flip(0)
        model.classifier.bias.data = model.classifier.bias.data.flip(0)
        model.config.id2label = {0: "POSITIVE", 1: "NEGATIVE"}
        model.config.label2id = {"POSITIVE": 0, "NEGATIVE": 1}
        hub = folder / "hub"
        model.eval().save_pretrained(hub)
        AutoTokenizer.from_pretrained(checkpoint.folder).save_pretrained(hub)
        write_onnx(model, hub / "model.onnx", ("input_ids", "attention_mask"), ("logits",))
        quantize_dynamic(hub / "model.onnx", hub / "model_quantized.onnx")
        with quiet(output=True):
            ir = openvino.convert_model(hub / "model.onnx")
            openvino.save_model(ir, folder / "ir" / "openvino_model.xml")
            encoded = Encoder(checkpoint.folder, 32)(
                data.load(checkpoint.task, "train", rows_of(checkpoint)).texts[:64]
            )
            rows = [encoded.batch([row]) for row in range(64)]
            calibration = nncf.Dataset(
                [{key: row[key] for key in ("input_ids", "attention_mask")} for row in rows]
            )
            quantized = nncf.quantize(
                openvino.Core().read_model(hub / "model.onnx"), calibration,
                model_type=nncf.ModelType.TRANSFORMER, subset_size=64,
            )  # fmt: skip
            openvino.save_model(quantized, folder / "nncf" / "openvino_model.xml")
        for name in ("ir", "nncf"):
            shutil.copyfile(hub / "config.json", folder / name / "config.json")

    return cache.folder("foreign", build)


@pytest.fixture
def hub(foreign: Path, tmp_path: Path) -> Path:
    """A copy to change, with one graph."""
    folder = Path(shutil.copytree(foreign / "hub", tmp_path / "hub"))
    (folder / "model_quantized.onnx").unlink()
    return folder


@pytest.mark.parametrize(
    ("graph", "name", "scheme"),
    [
        ("hub/model.onnx", "hub.fp32.onnxruntime", "fp32"),
        ("hub/model_quantized.onnx", "hub-model_quantized.int8.onnxruntime", "int8-dynamic"),
        ("ir", "ir.fp32.openvino", "fp16-weights"),  # as save_model does by default
        ("nncf/openvino_model.xml", "nncf.int8.openvino", "int8-static"),
    ],
)
def test_answers_are_those_of_the_model_in_the_order_of_the_task(
    graph: str, name: str, scheme: str, foreign: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """The model's labels are in the other order; the checkpoint is the same model in the task's order."""
    engine = import_engine(
        foreign / graph, "sst2", tokenizer=foreign / "hub", checkpoint=checkpoint.folder, out=tmp_path
    )
    assert (engine.name, engine.manifest.scheme) == (name, scheme)
    assert engine.max_length == checkpoint.max_length
    parity = engine.manifest.parity
    assert parity is not None
    assert parity.passed
    assert parity.label_agreement > 0.95
    model = AutoModelForSequenceClassification.from_pretrained(foreign / "hub").eval()
    rows = data.load(checkpoint.task, "validation", rows_of(checkpoint))
    inputs = Encoder(foreign / "hub", 32)(rows.texts).batch(range(16))
    with torch.inference_mode(), engines.open(engine.folder) as session:
        logits = model(
            torch.tensor(inputs["input_ids"]), torch.tensor(inputs["attention_mask"])
        ).logits.numpy()
        answers = session.infer(inputs)["logits"]
    assert [model.config.id2label[row] for row in logits.argmax(1)] == [
        checkpoint.task.labels[row].upper() for row in answers.argmax(1)
    ]
    if scheme == "fp32" and "onnx" in name:
        np.testing.assert_allclose(answers, logits[:, ::-1], atol=1e-5)


def test_weights_in_fp16_are_computed_in_fp32_on_the_cpu(
    checkpoint: Checkpoint, foreign: Path, tmp_path: Path
) -> None:
    """ONNX Runtime itself says in which type it multiplies, in the graph that it optimized."""
    folder = Path(shutil.copytree(foreign / "hub", tmp_path / "half"))
    for name in ("model.onnx", "model_quantized.onnx"):
        (folder / name).unlink()
    graph.write(checkpoints.load(checkpoint), folder / "model.onnx", TraceShape(dtype=torch.float16))
    settings = ForeignSettings(labels=checkpoint.task.labels)
    engine = import_engine(folder, "sst2", checkpoint=checkpoint.folder, settings=settings, out=tmp_path)
    assert (engine.name, engine.manifest.scheme) == ("half.fp32.onnxruntime", "fp16-weights")
    assert (engine.manifest.precision, engine.runtime.precision) == ("fp32", "fp32")
    assert engine.manifest.parity is not None and engine.manifest.parity.max_abs_diff > 1e-6
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(tmp_path / "optimized.onnx")
    types = {entry.name: entry.data_type for entry in optimized.graph.initializer}
    products = [node for node in optimized.graph.node if node.op_type in ("MatMul", "Gemm", "FusedMatMul")]
    used = {types[name] for node in products for name in node.input if name in types}
    assert used == {onnx.TensorProto.FLOAT}
    (run,), failures = profile([engine.folder], out=tmp_path / "results", plan=QUICK)
    assert not failures
    assert (
        [each.engine.scheme for each in find([tmp_path / "results"])]
        == [run.engine.scheme]
        == ["fp16-weights"]
    )


def test_weights_are_compared_with_the_tolerance_of_their_type() -> None:
    assert parity.precision_of("fp16-weights", "fp32") == "fp16"
    assert parity.precision_of("bf16-weights", "fp32") == "bf16"
    assert parity.precision_of("int4-weights", "fp32") == "int8"
    assert parity.precision_of("fp32", "fp32") == "fp32"


def test_it_is_measured_beside_the_engines_of_effx(
    foreign: Path,
    engines_folder: Path,
    checkpoint: Checkpoint,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = import_engine(
        foreign / "hub" / "model.onnx", "sst2", data_folder=rows_of(checkpoint), out=tmp_path / "engines",
        settings=ForeignSettings(max_length=32),
    )  # fmt: skip
    runs, failures = profile(
        [made.folder, engines_folder / "tiny.fp32.onnxruntime"], out=tmp_path / "results", plan=QUICK
    )
    assert not failures
    ours = next(run for run in runs if run.name.startswith("tiny"))
    theirs = next(run for run in runs if run.name.startswith("hub"))
    assert theirs.session == ours.session
    assert theirs.quality.predictions == ours.quality.predictions
    # and marked in the result, the technique, the recommendation and the check
    producer = f"pytorch {torch.__version__.split('+')[0]}"
    assert (theirs.made_elsewhere, ours.made_elsewhere) == (producer, None)
    read = {run.name: run for run in find([tmp_path / "results"])}
    assert read[theirs.name].made_elsewhere == producer
    assert technique(theirs) == Technique("made elsewhere", None, producer)
    assert baseline_of(runs) is ours
    (answer,) = recommend(runs, "latency", RecommendSettings(constraints=Constraints(max_drop=0.5)))
    assert isinstance(answer, Recommendation)
    assert {answer.engine, answer.runner_up and answer.runner_up.engine} == {ours.name, theirs.name}
    (alone,) = recommend([theirs], "latency")
    assert isinstance(alone, Recommendation)
    assert f"deploy {theirs.name} (made elsewhere)" in wording.recommendation(alone)
    compared = "its predictions were not compared with a checkpoint"
    remark = f"{theirs.name} was made elsewhere, by {producer}; {compared}"
    assert remark in alone.remarks
    assert remark in check(theirs, ours, CheckSettings.of(max_drop="50%")).remarks
    tables.print_runs(runs)
    assert "(made" in capsys.readouterr().out


@pytest.mark.parametrize("names", [("LABEL_0", "LABEL_1"), None])
def test_labels_without_names_are_asked_for(
    names: tuple[str, str] | None, hub: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    config = json.loads((hub / "config.json").read_text())
    for key in ("id2label", "label2id"):
        del config[key]
    if names:
        config["id2label"] = {str(number): name for number, name in enumerate(names)}
    (hub / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        UsageError, match="does not say which of them is which of negative, positive"
    ) as error:
        import_engine(hub, "sst2", data_folder=rows_of(checkpoint), out=tmp_path)
    assert error.value.settings == ("labels",)
    settings = ForeignSettings.of(labels=("Positive", "negative"))
    engine = import_engine(hub, "sst2", data_folder=rows_of(checkpoint), out=tmp_path, settings=settings)
    assert engine.runtime.interface is not None
    assert engine.runtime.interface.label_order == (1, 0)
    with pytest.raises(UsageError, match="labels good, bad: expected the labels of the task"):
        import_engine(
            hub, "sst2", data_folder=rows_of(checkpoint), settings=ForeignSettings(labels=("good", "bad"))
        )


def test_a_wrong_order_of_labels_fails_the_parity_gate(
    hub: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    settings = ForeignSettings(labels=("negative", "positive"))
    with pytest.raises(GateError, match=r"its answers are not those of tiny: .* label agreement"):
        import_engine(hub, "sst2", checkpoint=checkpoint.folder, settings=settings, out=tmp_path)
    assert list(tmp_path.glob("hub.*")) == []
    kept = import_engine(
        hub, "sst2", checkpoint=checkpoint.folder, settings=settings, out=tmp_path, keep_failed=True
    )
    assert not kept.parity_passed


def test_scores_of_candidates(tmp_path: Path) -> None:
    """A row is a query with several candidates, and the graph reads pairs."""
    graphs.write(tmp_path / "hub", graphs.classifier(labels=1))
    pairs = [("good film", "dull"), ("good film", "film"), ("film", "fine fine"), ("film", "film")]
    rows = [
        {"query": query, "passage": passage, "label": number % 2}
        for number, (query, passage) in enumerate(pairs)
    ]
    for split in ("train", "validation"):
        write_rows(tmp_path / "rows" / f"{split}.jsonl", rows)
    source = DataSource(str(tmp_path / "rows"), DataSettings.of(task_kind="ranking"))
    engine = import_engine(tmp_path / "hub", "passages", data_folder=source, out=tmp_path)
    scores = predicted(engine, data.load(engine.task, "validation", source).texts)
    assert [list(row) for row in scores] == [[2.0, 1.0], [2.0, 0.0]]  # words that the table has as 1


def test_vectors_of_texts(tmp_path: Path) -> None:
    """The texts of a row are read one by one: no token is of the second text of a pair."""
    model = graphs.classifier(labels=3, extra_inputs=("token_type_ids",))
    model.graph.node.append(helper.make_node("Gather", ["types", "token_type_ids"], ["unused"]))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 3), np.float32), "types"))
    model.graph.node[5].output[0] = model.graph.output[0].name = "sentence_embedding"
    graphs.write(tmp_path / "hub", model)
    pairs = [("good", "fine film"), ("good", "bad"), ("good bad", "good")]
    rows = [{"sentence1": one, "sentence2": two, "label": number} for number, (one, two) in enumerate(pairs)]
    for split in ("train", "validation"):
        write_rows(tmp_path / "rows" / f"{split}.jsonl", rows)
    source = DataSource(str(tmp_path / "rows"), DataSettings.of(task_kind="embedding"))
    engine = import_engine(tmp_path / "hub", "alike", data_folder=source, out=tmp_path)
    cosines = predicted(engine, data.load(engine.task, "validation", source).texts)
    np.testing.assert_allclose(cosines.astype(float), [1.0, 0.0, 1 / np.sqrt(2)], atol=1e-6)


def predicted(engine: Engine, texts: list[tuple[str, ...]]) -> np.ndarray:
    """Return an engine's predictions of rows, from one batch of all sequences."""
    encoded = Encoder(engine.folder, engine.max_length, form=engine.task.behavior.form)(texts)
    with engines.open(engine) as session:
        out = session.infer(encoded.batch(range(len(encoded))))
    return engine.task.predict(engine.task.behavior.logits(out), encoded)


@pytest.mark.parametrize("names", [("ids", "mask"), ("input_ids:0", "attention_mask:0"), ("input_ids", None)])
def test_inputs_of_openvino_graphs_have_any_name(names: tuple[str, str | None], tmp_path: Path) -> None:
    model = graphs.classifier()
    if names[1] is None:  # padding has a row of zeros in the table
        del model.graph.node[1:4], model.graph.input[1]
        model.graph.node[1].input[0] = "vectors"
    path = graphs.write(tmp_path / "hub", model)
    converted = openvino.Core().read_model(path)
    for entry, name in zip(converted.inputs, names, strict=False):
        entry.get_tensor().set_names({name})
        entry.get_node().set_friendly_name(name)
    openvino.save_model(converted, path.with_suffix(".xml"))
    path.unlink()
    rows = graphs.write_rows(tmp_path / "rows")
    engine = import_engine(tmp_path / "hub", "sst2", data_folder=rows, out=tmp_path)
    assert list(engine.runtime.interface.inputs) == [name for name in names if name]
    answers = predicted(engine, [(text,) for text, _ in graphs.ROWS])
    assert [engine.task.labels[number] for number in answers] == [label for _, label in graphs.ROWS]


def exchange_words(path: Path) -> None:
    """Give every word of a tokenizer the id of the next one."""
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    words = [word for word in vocabulary if not word.startswith("[")]
    numbers = [vocabulary[word] for word in words]
    vocabulary |= dict(zip(words, numbers[1:] + numbers[:1], strict=True))
    path.write_text(json.dumps(content))


def test_the_tokenizer_is_compared_with_that_of_the_checkpoint(
    hub: Path, foreign: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """The gate runs both models on the same ids; the engine is used with its own tokenizer."""
    good = import_engine(hub, "sst2", checkpoint=checkpoint.folder, out=tmp_path, name="good")
    exchange_words(hub / "tokenizer.json")
    with pytest.raises(UsageError, match="its tokenizer encodes texts unlike that of tiny, such as '.+'"):
        import_engine(hub, "sst2", checkpoint=checkpoint.folder, out=tmp_path, name="bad")
    # also where there are no rows
    assert import_engine(hub, "sst2", data_folder=rows_of(checkpoint), out=tmp_path, name="bad").folder
    source = ExportSource(checkpoint, tmp_path)
    source.__dict__["rows"] = None
    assert source.encoded_differently(good.folder, parse("fp32")) is None
    assert source.encoded_differently(hub, parse("fp32"))
    # in an engine that was imported before
    shutil.copyfile(hub / "tokenizer.json", good.folder / "tokenizer.json")
    manifest = json.loads((good.folder / "engine.json").read_text())
    manifest["files"]["tokenizer.json"] = files.sha256(hub / "tokenizer.json")
    (good.folder / "engine.json").write_text(json.dumps(seal(Engine, manifest)))
    with pytest.raises(ArtifactError, match="its tokenizer encodes texts unlike that of tiny"):
        verify([good.folder], checkpoint.folder.parent)


@pytest.mark.parametrize("operation", ["Sigmoid", "Softmax"])
@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_probabilities_are_no_logits_of_several_labels(operation: str, suffix: str, tmp_path: Path) -> None:
    """All are above 0, so every label would be predicted for every row; of classes, the largest stays."""
    model = graphs.classifier()
    model.graph.node.append(helper.make_node(operation, ["logits"], ["raw"]))
    model.graph.node.append(helper.make_node("Identity", ["raw"], ["probabilities"]))
    model.graph.output[0].name = "probabilities"
    path = graphs.write(tmp_path / "hub", model, id2label={"0": "joy", "1": "fear"})
    if suffix == ".xml":
        openvino.save_model(openvino.Core().read_model(path), path.with_suffix(suffix))
        path.unlink()
    rows = [{"text": "good film", "labels": labels} for labels in (["joy"], ["fear"], [])]
    for split in ("train", "validation"):
        write_rows(tmp_path / "several" / f"{split}.jsonl", rows * 8)
        write_rows(tmp_path / "one" / f"{split}.jsonl", [{**row, "labels": name} for row in rows[:2]
                                                         for name in row["labels"]] * 8)  # fmt: skip
    with pytest.raises(UsageError, match=rf"has probabilities \({operation}\), not logits: a label of task"):
        import_engine(tmp_path / "hub", "moods", data_folder=tmp_path / "several", out=tmp_path)
    engine = import_engine(tmp_path / "hub", "mood", data_folder=tmp_path / "one", out=tmp_path)
    assert engine.task.labels == ("fear", "joy") and engine.runtime.interface.label_order == (1, 0)
    settings = ForeignSettings(logits_output="logits")
    if suffix == ".onnx":  # the output with the logits can be stated
        logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["rows", 2])
        model.graph.output.append(logits)
        onnx.save(model, path)
        assert import_engine(
            path, "moods", data_folder=tmp_path / "several", out=tmp_path, settings=settings, name="stated"
        ).runtime.interface.outputs == {"logits": "logits"}


def test_inputs_and_outputs_are_asked_for_when_unclear(
    hub: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    model = onnx.load(hub / "model.onnx")
    renamed = {"input_ids": "a", "attention_mask": "b", "logits": "scores"}
    for node in model.graph.node:
        for values in (node.input, node.output):
            for index, value in enumerate(values):
                values[index] = renamed.get(value, value)
    for entry in (*model.graph.input, *model.graph.output):
        entry.name = renamed.get(entry.name, entry.name)
    pooled = next(node.input[0] for node in model.graph.node if node.output[0] == "scores")
    model.graph.output.append(helper.make_tensor_value_info(pooled, onnx.TensorProto.FLOAT, ["rows", 32]))
    onnx.save(model, hub / "model.onnx")
    with pytest.raises(
        UsageError, match=r"unclear which input takes which array: the graph has a \(int64"
    ) as error:
        import_engine(hub, "sst2", data_folder=rows_of(checkpoint), out=tmp_path)
    assert error.value.settings == ("input_names",)
    named = {"input_names": ("input_ids=a", "attention_mask=b")}
    with pytest.raises(UsageError, match="unclear which output has the logits: the graph has scores"):
        import_engine(
            hub, "sst2", data_folder=rows_of(checkpoint), settings=ForeignSettings.of(**named), out=tmp_path
        )
    with pytest.raises(UsageError, match=r"has 32 logits, but task sst2 has 2 labels: negative, positive"):
        import_engine(hub, "sst2", data_folder=rows_of(checkpoint), out=tmp_path,
                      settings=ForeignSettings.of(**named, logits_output=pooled))  # fmt: skip
    settings = ForeignSettings.of(**named, logits_output="scores")
    engine = import_engine(hub, "sst2", checkpoint=checkpoint.folder, settings=settings, out=tmp_path)
    assert engine.parity_passed
    swapped = ForeignSettings.of(input_names=("input_ids=b", "attention_mask=a"), logits_output="scores")
    with pytest.raises((GateError, ArtifactError, UsageError)):
        import_engine(hub, "sst2", checkpoint=checkpoint.folder, settings=swapped, out=tmp_path / "swapped")


def test_a_graph_without_mask_that_depends_on_padding_is_refused(
    hub: Path, foreign: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    class Unmasked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModelForSequenceClassification.from_pretrained(foreign / "hub").eval()

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.model(ids, torch.ones_like(ids)).logits

    with quiet(output=True):
        torch.onnx.export(
            Unmasked(), (torch.ones((2, 7), dtype=torch.int64),), hub / "model.onnx", input_names=["ids"],
            output_names=["logits"], dynamic_axes={"ids": {0: "n", 1: "t"}}, dynamo=False,
        )  # fmt: skip
    with pytest.raises(
        ArtifactError, match="no input for the attention mask, and its answers depend on padding"
    ):
        import_engine(hub, "sst2", data_folder=rows_of(checkpoint), out=tmp_path)


def test_weights_in_other_files_are_regular_files_of_the_folder(
    hub: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    model = onnx.load(hub / "model.onnx")
    onnx.save(
        model, hub / "model.onnx", save_as_external_data=True, location="model.onnx_data", size_threshold=0
    )
    engine = import_engine(hub, "sst2", checkpoint=checkpoint.folder, out=tmp_path / "engines")
    assert {"model.onnx", "model.onnx_data"} <= set(engine.manifest.files.keys())
    (hub / "model.onnx_data").rename(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="model.onnx_data, which has its weights, is missing"):
        onnx_graph.read(hub / "model.onnx")
    (hub / "model.onnx_data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="is not a regular file in its folder"):
        onnx_graph.read(hub / "model.onnx")
    model = onnx.load(hub / "model.onnx", load_external_data=False)
    for entry in model.graph.initializer:
        for pair in entry.external_data:
            if pair.key == "location":
                pair.value = "../elsewhere"
    (hub / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match=r"at '\.\./elsewhere', which is not a file in its folder"):
        onnx_graph.read(hub / "model.onnx")


def test_what_is_missing_is_named(foreign: Path, hub: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has 2 graphs: model.onnx, model_quantized.onnx. Name one of them"):
        import_engine(foreign / "hub", "sst2", data_folder=rows_of(checkpoint), out=tmp_path)
    with pytest.raises(ArtifactError, match="tokenizer.json is missing. Name the tokenizer's folder"):
        import_engine(foreign / "ir", "sst2", data_folder=rows_of(checkpoint), out=tmp_path)
    with pytest.raises(UsageError, match="has no graph"):
        import_engine(checkpoint.folder, "sst2", data_folder=rows_of(checkpoint), out=tmp_path)
    (hub / "model.onnx").write_bytes(b"\x08")
    with pytest.raises(ArtifactError, match="is not an ONNX file"):
        import_engine(hub, "sst2", data_folder=rows_of(checkpoint), out=tmp_path)
    with pytest.raises(UsageError, match=r"logits, but task \S+ has 1 output"):
        import_engine(foreign / "hub" / "model_quantized.onnx", "stsb", out=tmp_path)


def test_a_fixed_length_is_padded_to(
    hub: Path, foreign: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(foreign / "hub").eval()
    with quiet(output=True):
        torch.onnx.export(
            model, (torch.ones((2, 16), dtype=torch.int64), torch.ones((2, 16), dtype=torch.int64)),
            hub / "model.onnx", input_names=["input_ids", "attention_mask"], output_names=["logits"],
            dynamic_axes={name: {0: "n"} for name in ("input_ids", "attention_mask", "logits")}, dynamo=False,
        )  # fmt: skip
    engine = import_engine(hub, "sst2", data_folder=rows_of(checkpoint), out=tmp_path)
    assert (engine.variant, engine.max_length, engine.runtime.lengths) == ("fp32+seq16", 16, (16,))
    assert Engine.open(engine.folder).name == "hub.fp32+seq16.onnxruntime"
