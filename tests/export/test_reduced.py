"""Reduced variants as real graphs, on every backend here, against the PyTorch reference."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from effx import data, engines
from effx.artifacts import Checkpoint, Engine, seal
from effx.encoding import Encoder
from effx.engines import open_graph, open_unchecked
from effx.errors import ArtifactError, UsageError
from effx.export import drift, exit_if, export, export_all, graph, verify
from effx.export.source import ExportSource
from effx.files import write_json
from effx.host import cpu
from effx.models import exits as ramps
from effx.models import families, infer, load, prune
from effx.specs import variants
from effx.specs.exits import EarlyExitSettings
from effx.specs.runtime import RuntimeSettings
from effx.specs.tokens import TokenPruningSettings
from effx.specs.training import FinetuneSettings
from effx.train import exits, finetune, tokens
from tests.conftest import REDUCED_VARIANTS
from tests.models import tiny
from tests.models.test_exits import RULES, with_ramps
from tests.models.test_surgery import Case, cases

pytestmark = pytest.mark.usefixtures("graphs_converted_once")

IMPOSSIBLE = {(name, "torch") for name in ("exit-if", "exit-if+tokens", "tokens", "exit+tokens",
                                           "exit+tokens+buckets")}  # fmt: skip


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
def test_every_variant_matches_the_pytorch_reference(
    reduced_checkpoint: Checkpoint, reduced_engines: dict[str, Engine], backend: str, rows_folder: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    """One checkpoint, all variants: labels, exit layers and logits at batch 1 and 8."""
    if backend == "onnxruntime":
        built, failures = list(reduced_engines.values()), []
    else:
        built, failures = export_all([reduced_checkpoint.folder], REDUCED_VARIANTS, [backend], tmp_path)
    refused = {(str(failure).split(".")[1], backend) for failure in failures}
    assert refused == {pair for pair in IMPOSSIBLE if pair[1] == backend}, failures
    assert len(built) + len(refused) == len(REDUCED_VARIANTS)
    model, rule = load(reduced_checkpoint.folder), ramps.rule_of(reduced_checkpoint)
    rows = data.load(reduced_checkpoint.task, "validation", rows_folder)
    for engine in built:
        manifest = engine.manifest
        assert manifest.parity.max_abs_diff < 1e-4 and manifest.parity.label_agreement == 1
        encoded = Encoder(engine.folder, engine.max_length)(rows.texts[:24])
        parts = engine.variant.split("+")
        early = "exit" in parts or "exit-if" in parts
        with engines.open(engine) as session:
            for batch in (1, 8):
                for start in range(0, 24, batch):
                    inputs = encoded.batch(np.arange(start, start + batch))
                    tensors = {name: torch.from_numpy(inputs[name]) for name in engine.input_names}
                    expected = infer(
                        model, tensors, rule=rule if early else None, prune_tokens="tokens" in parts
                    )
                    outputs = session.infer(inputs)
                    assert np.abs(outputs["logits"] - expected.logits.numpy()).max() < 1e-4
                    assert ("depth" in outputs) == early
                    if early:
                        assert outputs["depth"].tolist() == expected.depth.tolist()
        if early:
            assert manifest.exits.depths == (1, 2, 3)
            assert manifest.exits.segments == (3 if "exit" in parts else 1)


def test_relative_positions_are_refused_with_tokens_and_exits(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """MPNet: what a segment gets does not say which tokens are gone."""
    trained = finetune("sst2", encoders["mpnet"], out=tmp_path, name="m", data_folder=rows_folder,
                    settings=FinetuneSettings.of(max_steps=1, max_length=32))  # fmt: skip
    schedule = TokenPruningSettings.of(schedule=(0.9, 0.6, 0.4), epochs=1, max_steps=1)
    short = tokens.train(trained.folder, out=tmp_path, name="t", settings=schedule)
    both = exits.train(
        short.folder,
        out=tmp_path,
        name="b",
        settings=EarlyExitSettings.of(max_steps=1, after=(1,), depth=2.9),
    )
    built, (failure,) = export_all([both.folder], ["tokens", "exit", "exit+tokens"], out=tmp_path / "e")
    assert [engine.variant for engine in built] == ["tokens", "exit"]
    assert all(engine.manifest.parity.max_abs_diff < 1e-4 for engine in built)
    assert "b has a relative position bias" in str(failure)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases())
def test_random_structures_match_pytorch(tmp_path_factory: pytest.TempPathFactory, case: Case) -> None:
    """Zero heads, no FFN, uneven layers: on ONNX Runtime and OpenVINO, with padding."""
    model = prune(case.model(), case.heads, case.ffns, case.neurons, case.dropped)
    scratch = tmp_path_factory.mktemp("graph")
    graph.write(model, scratch / "model.onnx")
    import openvino

    openvino.save_model(
        openvino.Core().read_model(scratch / "model.onnx"),
        scratch / "model.xml",
        compress_to_fp16=False,
    )
    for name, backend in (("model.onnx", "onnxruntime"), ("model.xml", "openvino")):
        with open_unchecked(scratch, backend, RuntimeSettings((name,))) as session:
            for lengths in (case.lengths, [1], [3, 17, 30]):
                inputs = tiny.inputs(model, lengths, case.seed)
                arrays = {key: value.numpy() for key, value in inputs.items()}
                expected = tiny.logits(model, inputs).numpy()
                assert np.abs(session.infer(arrays)["logits"] - expected).max() <= 1e-4


@pytest.mark.parametrize("chained", [False, True], ids=["nested", "chained"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_exit_if_exits_where_the_reference_does(rule: object, chained: bool, tmp_path: Path) -> None:
    model = with_ramps("bert", 1, "mean")
    paths = []
    for number, layers in enumerate(graph.segments(model)):
        paths.append(tmp_path / f"segment-{number}.onnx")
        graph.write(model, paths[-1], layers=layers)
    exit_if.compose(paths, tmp_path / "model.onnx", rule, ramps.depths(model), chained=chained)  # type: ignore[arg-type]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for seed in range(6):
        inputs = tiny.inputs(model, [9, 4, 7, 1][: 1 + seed % 4], seed)
        logits, depth = session.run(["logits", "depth"], {name: x.numpy() for name, x in inputs.items()})
        expected = infer(model, inputs, rule=rule)  # type: ignore[arg-type]
        assert depth.tolist() == expected.depth.tolist()
        assert np.abs(logits - expected.logits.numpy()).max() < 1e-4


@pytest.mark.parametrize("chained", [False, True], ids=["nested", "chained"])
def test_batch_that_exited_skips_later_segments(chained: bool, tmp_path: Path) -> None:
    """The branch that is not taken does not run: it would fail on this graph."""
    import onnx

    model = with_ramps("bert", 1, "mean")
    paths = []
    for number, layers in enumerate(graph.segments(model)):
        paths.append(tmp_path / f"segment-{number}.onnx")
        graph.write(model, paths[-1], layers=layers)
    late = onnx.load(paths[1])
    broken = next(node for node in late.graph.node if node.op_type == "Reshape")
    nodes = [  # a token that is not there: nothing that loading the graph could tell
        onnx.helper.make_node("Gather", ["attention_mask", "far"], ["missing"], name="g", axis=1),
        onnx.helper.make_node("ReduceSum", ["missing"], ["nothing"], name="r", keepdims=0),
        onnx.helper.make_node("Add", [broken.input[1], "nothing"], ["bad"], name="a"),
    ]
    broken.input[1] = "bad"
    node_index = list(late.graph.node).index(broken)
    rest = [*late.graph.node]
    del late.graph.node[:]
    late.graph.node.extend([*rest[:node_index], *nodes, *rest[node_index:]])
    late.graph.initializer.append(onnx.numpy_helper.from_array(np.array([100_000]), "far"))
    onnx.save(late, paths[1])
    from effx.specs.exit_rules import ExitRule

    inputs = {key: value.numpy() for key, value in tiny.inputs(model, [5]).items()}
    for threshold, fails in ((10.0, False), (0.0, True)):
        rule = ExitRule("entropy", threshold)
        exit_if.compose(paths, tmp_path / "m.onnx", rule, ramps.depths(model), chained=chained)
        running = open_graph(tmp_path / "m.onnx", "onnxruntime")
        if fails:
            with pytest.raises(Exception, match="out of data bounds"):
                running.run(inputs)
        else:
            assert running.run(inputs)["depth"].tolist() == [1]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_int8_variants_compute_in_integers(
    reduced_checkpoint: Checkpoint, backend: str, tmp_path: Path
) -> None:
    names = ["int8", "exit+int8", "int8-static"]
    built, failures = export_all(
        [reduced_checkpoint.folder], names, [backend], tmp_path, calibration_rows=32, keep_failed=True
    )
    assert not failures and len(built) == 3
    for engine in built:
        audit = engine.manifest.audit
        assert audit.integer_weight_products >= 0.9 * audit.weight_products > 0
        assert engine.manifest.precision == "int8"
        lost = engine.manifest.parity.accuracy_lost_interval
        assert lost[0] <= engine.manifest.parity.accuracy_lost <= lost[1]
    if backend == "onnxruntime":
        tried = {entry.scheme for entry in built[0].manifest.candidates}
        assert tried == {"int8-dynamic", "int8-static"}  # the fastest also otherwise
        assert built[0].manifest.scheme in tried


@pytest.mark.parametrize("variant", ["bf16", "bf16+seq16"])
def test_bf16_engines_compute_in_bf16_in_pytorch(
    checkpoint: Checkpoint, tmp_path: Path, variant: str
) -> None:
    if not cpu.has_bf16():
        pytest.skip("this processor has no bf16")
    engine = export(checkpoint.folder, variant, "torch", tmp_path)
    plain = export(checkpoint.folder, variant.replace("bf16", "fp32"), "torch", tmp_path)
    assert engine.manifest.parity.passed
    assert engine.manifest.parity.max_abs_diff > 10 * plain.manifest.parity.max_abs_diff


def test_bf16_is_refused_on_processors_without_it(checkpoint: Checkpoint, tmp_path: Path) -> None:
    if not cpu.has_bf16():
        with pytest.raises(UsageError, match="does not support bf16"):
            export(checkpoint.folder, "bf16", "openvino", tmp_path)
        pytest.skip("this processor has no bf16")
    engine = export(checkpoint.folder, "bf16", "openvino", tmp_path)
    assert set(engine.manifest.audit.product_precisions) == {"bf16"}
    plain = export(checkpoint.folder, "fp32", "openvino", tmp_path)
    assert set(plain.manifest.audit.product_precisions) == {"f32"}


def test_drift_reports_the_changed_layer(tmp_path: Path) -> None:
    import onnx

    model = tiny.model("bert")
    graph.write(model, tmp_path / "good.onnx")
    bad = onnx.load(tmp_path / "good.onnx")
    norms = [node for node in bad.graph.node if node.op_type == "LayerNormalization"]
    scale = next(tensor for tensor in bad.graph.initializer if tensor.name == norms[3].input[1])
    scale.CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(scale) * np.float32(3), scale.name)
    )
    onnx.save(bad, tmp_path / "bad.onnx")
    inputs = {key: value.numpy() for key, value in tiny.inputs(model, [9]).items()}
    differences = drift.layers(tmp_path / "good.onnx", tmp_path / "bad.onnx", inputs)
    assert len(differences) == 7 and max(differences[:3]) == 0
    assert "Hidden states differ first in layer 1 (from 0), after attention" in drift.describe(
        differences, families.of(model).norm_names(model)
    )


def test_verify_requires_the_checkpoint_of_the_engine(
    checkpoint: Checkpoint, engines_folder: Path, tmp_path: Path
) -> None:
    outputs = verify([engines_folder], checkpoint.folder.parent)
    assert [engine.name for engine, *_ in outputs] == ["tiny.fp32.onnxruntime", "tiny.int8.onnxruntime"]
    for engine, task, parity in outputs:
        assert task.name == "sst2"
        assert parity.passed
        before = engine.manifest.parity
        assert parity.max_abs_diff == pytest.approx(before.max_abs_diff, rel=1e-3, abs=1e-6)
    with pytest.raises(ArtifactError, match="its checkpoint tiny is not in"):
        verify([engines_folder], tmp_path)
    other = Path(shutil.copytree(checkpoint.folder, tmp_path / "ck" / "tiny"))
    manifest = {**Checkpoint.open(other).to_json(), "model": "another"}
    write_json(other / "effx.json", seal(Checkpoint, manifest))
    with pytest.raises(ArtifactError, match="was built from another tiny"):
        verify([engines_folder], tmp_path / "ck")


@pytest.mark.parametrize(
    ("variant", "backend", "options", "message"),
    [
        ("exit", "onnxruntime", {}, "tiny has no exits. Train them with: effx train exits tiny"),
        ("tokens", "onnxruntime", {}, "tiny has no token schedule"),
        ("seq99", "onnxruntime", {}, "tiny accepts 66 tokens at most"),
        (
            "int8-static",
            "onnxruntime",
            {"calibration_rows": 1000},
            "calibration_rows 1000: expected at most the 160",
        ),
        ("fp16", "onnxruntime", {}, "effx does not build fp16 for ONNX Runtime on cpu; it builds fp32, int8"),
        ("int8-dynamic", "openvino", {}, "for OpenVINO on cpu; it builds fp32, bf16, int8, int8-static"),
        ("int8", "torch", {}, "effx does not build int8 for PyTorch on cpu"),
    ],
)
def test_unsupported_variants_are_refused_and_leave_no_files(
    checkpoint: Checkpoint, variant: str, backend: str, options: dict[str, int], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        export(checkpoint.folder, variant, backend, tmp_path / "engines", **options)
    assert not (tmp_path / "engines").exists() or not list((tmp_path / "engines").iterdir())


def test_few_training_rows_calibrate_static_int8_unless_the_user_says_how_many(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path
) -> None:
    for split in ("train", "validation"):
        lines = (rows_folder / f"{split}.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / f"{split}.jsonl").write_text("".join(lines[:60]))
    source = ExportSource(checkpoint, tmp_path / "s", tmp_path)
    assert len(source.calibration(variants.parse("int8-static"))) == 60
    source.calibration_rows = 20
    assert len(source.calibration(variants.parse("int8-static"))) == 20


def test_without_training_rows_int8_is_built_without_calibration(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = tmp_path / "rows" / "validation.jsonl"
    alone.parent.mkdir()
    shutil.copyfile(rows_folder / "validation.jsonl", alone)
    for number, rows in enumerate((alone, alone.parent)):
        capsys.readouterr()
        export(checkpoint.folder, "int8", "onnxruntime", tmp_path / f"engines-{number}", data_folder=rows)
        said = capsys.readouterr()
        assert "only int8-dynamic is built: calibration needs training rows" in said.err + said.out
        manifest = Engine.open(tmp_path / f"engines-{number}" / "tiny.int8.onnxruntime").manifest
        assert {entry.scheme for entry in manifest.candidates} == {manifest.scheme} == {"int8-dynamic"}
    with pytest.raises(UsageError, match="calibration needs training rows"):
        export(checkpoint.folder, "int8", "openvino", tmp_path / "none", data_folder=alone)


def test_truncated_or_edited_engines_do_not_open(engines_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(engines_folder / "tiny.fp32.onnxruntime", tmp_path / "cut"))
    model = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(model[: len(model) // 2])
    with pytest.raises(ArtifactError, match="truncated or changed"):
        engines.open(folder)
    folder = Path(shutil.copytree(engines_folder / "tiny.fp32.onnxruntime", tmp_path / "edited"))
    text = (folder / "engine.json").read_text()
    (folder / "engine.json").write_text(text.replace('"fp32"', '"int8"', 1))
    with pytest.raises(ArtifactError, match="was changed after it was written"):
        Engine.open(folder)


@pytest.mark.parametrize("backend", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def test_weights_past_the_protobuf_limit_are_external_files(
    reduced_checkpoint: Checkpoint, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every path that writes a graph, with a limit that even this model passes."""
    monkeypatch.setattr(graph, "LARGEST_PROTOBUF_BYTES", 1000)
    names = ["fp32", "exit", "exit-if", "tokens", "int8-static", "exit+int8-static"]
    names += ["int8-dynamic", "exit-if+int8-dynamic"] if backend == "onnxruntime" else []
    built, failures = export_all(
        [reduced_checkpoint.folder], names, [backend], tmp_path, calibration_rows=16, keep_failed=True
    )
    assert not failures
    for engine in built:
        if engine.manifest.precision == "fp32":
            assert engine.manifest.parity.max_abs_diff < 1e-4
        else:
            assert engine.manifest.parity.label_agreement > 0.8
        if backend == "onnxruntime":
            graphs = engine.runtime.files
            assert set(engine.manifest.files) >= {f"{name}.data" for name in graphs}
            assert all((engine.folder / name).stat().st_size < 300_000 for name in graphs)


@pytest.mark.parametrize(
    "backend", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow), "torch"]
)
def test_drift_is_located_on_every_backend_and_in_segments(
    reduced_checkpoint: Checkpoint, backend: str, tmp_path: Path
) -> None:
    """Engines of a checkpoint whose third layer (the second segment's) was disturbed."""
    variant = "exit+seq16" if backend == "torch" else "exit+tokens"
    model = load(reduced_checkpoint.folder)
    with torch.no_grad():
        next(iter(model.bert.encoder.layer[2].output.LayerNorm.parameters())).mul_(3)
    from effx.models import checkpoints, save

    bent = save(
        model, tmp_path / "bent", tokenizer=checkpoints.tokenizer(reduced_checkpoint.folder),
        task=reduced_checkpoint.task, max_length=reduced_checkpoint.max_length, data=reduced_checkpoint.data,
        exits=reduced_checkpoint.manifest.exits,
    )  # fmt: skip
    engine = export(bent.folder, variant, backend, tmp_path / "engines")
    with tempfile.TemporaryDirectory() as scratch:
        source = ExportSource(reduced_checkpoint, Path(scratch))
        graphs = source.graphs(variants.parse(variant))
        row = source.parity_rows(variants.parse(variant))[0].batch([0], 16 if backend == "torch" else None)
        runtime = engine.runtime
        text = drift.locate(
            graphs, engine.folder, backend, runtime, row, families.of(model).norm_names(model)
        )
        assert text.startswith("Hidden states differ first in layer 2 (from 0), after the FFN")
        same = export(reduced_checkpoint.folder, variant, backend, tmp_path / "same")
        text = drift.locate(graphs, same.folder, backend, runtime, row, families.of(model).norm_names(model))
        assert text.endswith("after every layer: the task head differs.")
