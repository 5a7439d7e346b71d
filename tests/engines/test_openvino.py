"""OpenVINO models: which shapes are compiled, and that all of them give PyTorch's answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from effx import engines
from effx.artifacts import Checkpoint, Engine, seal
from effx.engines import Session
from effx.engines.protocol import Arrays
from effx.errors import ArtifactError
from effx.export import build, export, fastest
from effx.host import cpu
from effx.models import checkpoints
from effx.specs.workloads import grid

openvino = pytest.importorskip("openvino")

from effx.engines import openvino as openvino_graphs  # noqa: E402
from effx.engines.openvino import OpenVinoGraph  # noqa: E402

LENGTHS = (3, 16, 40, 16, 3)


def queries(lengths: tuple[int, ...]) -> list[dict[str, np.ndarray]]:
    """Single rows, then all of them in one batch."""
    rng, width = np.random.default_rng(0), max(lengths)
    mask = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int64)
    ids = rng.integers(5, 60, mask.shape) * mask
    whole = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    single = [
        {name: values[row : row + 1, :length] for name, values in whole.items()}
        for row, length in enumerate(lengths)
    ]
    return [*single, whole]


def graph_of(session: Session) -> OpenVinoGraph:
    while hasattr(session, "_parts"):  # padding around a session around the graph
        (session,) = session._parts
    assert isinstance(session, OpenVinoGraph)
    return session


def gathered(session: Session) -> list[str]:
    """What the model's Gathers read from, by kind of node."""
    nodes = graph_of(session)._model.get_ops()
    return [
        node.input_value(0).get_node().get_type_name() for node in nodes if node.get_type_name() == "Gather"
    ]


@pytest.mark.parametrize(
    ("variant", "lengths", "compiled"),
    [
        ("fp32", LENGTHS, {(-1, -1)}),
        ("seq16", (3, 16, 9), {(1, 16), (-1, 16)}),
        ("buckets", LENGTHS, {(1, 16), (1, 64), (-1, 64)}),
        ("buckets24", LENGTHS, {(1, 24), (1, 48), (-1, 48)}),
    ],
)
def test_single_rows_of_fixed_lengths_have_models_without_dynamic_dimensions(
    variant: str,
    lengths: tuple[int, ...],
    compiled: set[tuple[int, int]],
    checkpoint: Checkpoint,
    tmp_path: Path,
) -> None:
    engine = export(checkpoint.folder, variant, "openvino", tmp_path)
    model = checkpoints.load(checkpoint)
    with engines.open(engine) as session:
        for query in queries(lengths):
            arrays = {name: torch.from_numpy(query[name]) for name in checkpoints.input_names(model)}
            with torch.inference_mode():
                expected = model(**arrays).logits.numpy()
            np.testing.assert_allclose(session.infer(query)["logits"], expected, atol=1e-4)
        assert {*graph_of(session)._compiled} == compiled


@pytest.mark.parametrize(
    ("variant", "word", "shape"),
    [("fp32", "4x16", (4, 16)), ("fp32", "1x16", (1, 16)), ("seq16", "4x16", (4, 16)),
     ("buckets24", "4x20", (4, 24)), ("exit-if", "4x16", (4, 16)), ("fp32+unpadded", "4x16", (4, 16)),
     ("seq16", "1x16", None), ("fp32", "single", None), ("exit", "4x16", None), ("tokens", "4x16", None)],
)  # fmt: skip
def test_the_shape_that_an_engine_is_built_for_is_tried_without_dynamic_dimensions(
    variant: str,
    word: str,
    shape: tuple[int, int] | None,
    reduced_checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = {2: [1.0, 0.5], 4: [1.0, 0.9, 0.5, 0.6]}
    monkeypatch.setattr(fastest, "seconds", lambda files, *_: times[len(files)])
    monkeypatch.setattr(build, "_part_rows", lambda *_: [])
    plain = export(reduced_checkpoint.folder, variant, "openvino", tmp_path / "plain")
    engine = export(reduced_checkpoint.folder, variant, "openvino", tmp_path, built_for=word)
    assert engine.manifest.runtime.static_shape == shape
    tried = [(each.merged_projections, each.static_shape) for each in engine.manifest.candidates or ()]
    single = word in ("single", "1x16")
    graphs = [False, True] if single else [False]
    shapes = [None] if shape is None else [None, shape]
    assert tried == (
        [(graph, each) for each in shapes for graph in graphs] if len(graphs + shapes) > 2 else []
    )
    with engines.open(plain) as session, engines.open(engine) as faster:
        if shape is not None:
            assert {*graph_of(faster)._compiled} == {shape}
        for batch, length in ((4, 16), (4, 9), (1, 16), (2, 20)):
            if variant == "seq16" and length > 16:
                continue
            (whole,) = queries((length,) * batch)[-1:]
            np.testing.assert_allclose(
                faster.infer(whole)["logits"], session.infer(whole)["logits"], atol=1e-5
            )


@pytest.mark.parametrize("variant", ["fp32", "exit", "exit-if", "tokens", "buckets24", "int8-static+exit"])
def test_merged_projections_pass_the_gate(
    variant: str, reduced_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastest, "seconds", lambda files, *_: [1.0, 0.5][: len(files)])
    manifest = export(reduced_checkpoint.folder, variant, "openvino", tmp_path, built_for="single").manifest
    assert manifest.parity.passed and manifest.merged_projections
    layers = [layer for layer in manifest.structure.layers if layer.heads]
    assert manifest.audit.weight_products <= 4 * len(layers) + 2 * len(manifest.structure.exits) + 2


@pytest.mark.parametrize(
    ("variant", "word", "parts", "at_once"),
    [("fp32", "8x16", [4, 2], 2), ("seq16", "8x16", [4, 2], 2), ("int8-static", "6x16", [3], 2),
     ("fp32+threads1", "8x16", [], None), ("exit-if", "8x16", [], None), ("fp32", "3x16", [], None),
     ("fp32", "1x16", [], None), ("fp32", "2x16", [1], 2)],
)  # fmt: skip
def test_batches_of_one_shape_are_tried_in_parts(
    variant: str,
    word: str,
    parts: list[int],
    at_once: int | None,
    reduced_checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each thread gets one part or two; the last candidate is the fastest."""
    monkeypatch.setattr(cpu, "usable_processors", lambda: 2)
    monkeypatch.setattr(
        fastest, "seconds", lambda files, *_: [1.0 - 0.1 * number for number in range(len(files))]
    )
    plain = export(reduced_checkpoint.folder, variant, "openvino", tmp_path / "plain")
    engine = export(reduced_checkpoint.folder, variant, "openvino", tmp_path, built_for=word)
    candidates = engine.manifest.candidates or ()
    assert [each.part_rows for each in candidates if each.part_rows] == parts
    assert engine.manifest.runtime.part_rows == (parts[-1] if parts else None)
    batch, length = map(int, word.split("x"))
    with engines.open(plain) as session, engines.open(engine, threads=2) as faster:
        for rows in (batch, batch, 1, 5):
            lengths = tuple(length - row % 5 for row in range(rows))  # rows differ, and have padding
            query = queries(lengths)[-1]
            expected, found = session.infer(query), faster.infer(query)
            assert expected.keys() == found.keys()
            for name, values in expected.items():
                np.testing.assert_allclose(found[name], values, atol=1e-5)
        if at_once is not None:
            compiled, requests = graph_of(faster)._compiled[batch, length]
            assert compiled.get_property("NUM_STREAMS") == at_once
            assert len(requests) == batch // parts[-1]
            assert compiled.inputs[0].get_partial_shape().get_max_shape()[0] == parts[-1]


@pytest.mark.parametrize("rows", [0, 3, 4, 8])
def test_parts_that_do_not_divide_a_batch_are_not_read(
    rows: int, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    engine = export(checkpoint.folder, "fp32", "openvino", tmp_path)
    path = engine.folder / "engine.json"
    manifest = json.loads(path.read_text())
    manifest["runtime"] |= {"static_shape": [4, 8], "part_rows": rows}
    path.write_text(json.dumps(seal(Engine, manifest)))
    with pytest.raises(ArtifactError, match=r"runtime\.part_rows: expected a divisor of the rows"):
        Engine.open(engine.folder)


def test_a_static_shape_that_answers_wrongly_fails_the_gate(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastest, "seconds", lambda files, *_: [1.0, 0.5][: len(files)])
    run = OpenVinoGraph.run

    def wrong(graph: OpenVinoGraph, inputs: dict[str, np.ndarray]) -> Arrays:
        out = run(graph, inputs)
        if inputs["attention_mask"].shape == graph._static_shape:
            out["logits"] = -out["logits"]
        return out

    monkeypatch.setattr(OpenVinoGraph, "run", wrong)
    manifest = export(checkpoint.folder, "fp32", "openvino", tmp_path, built_for="3x48").manifest
    assert manifest.runtime.static_shape is None and manifest.parity.passed
    assert "parity failed" in manifest.candidates[1].failure


@pytest.mark.parametrize("shape", [(0, 8), (2, 0), (2, 67), (10**6, 8)])
def test_a_shape_that_cannot_be_compiled_is_not_read(
    shape: tuple[int, int], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    engine = export(checkpoint.folder, "fp32", "openvino", tmp_path)
    path = engine.folder / "engine.json"
    manifest = json.loads(path.read_text())
    manifest["runtime"]["static_shape"] = list(shape)
    path.write_text(json.dumps(seal(Engine, manifest)))
    with pytest.raises(
        ArtifactError, match=r"runtime\.static_shape: expected 1 to 4096 rows and 1 to 66 tokens"
    ):
        Engine.open(engine.folder)
    assert build._static_shape(engine.runtime, grid(4097, 8)) is None


@pytest.mark.skipif(cpu.allowed_processors() < 2, reason="a single processor")
@pytest.mark.parametrize("threads", [1, cpu.allowed_processors()])
def test_threads_are_pinned_only_if_they_use_all_processors(
    threads: int, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Otherwise several processes of one thread would all run on the first processor."""
    engine = export(checkpoint.folder, "fp32", "openvino", tmp_path)
    with engines.open(engine, threads=threads) as session:
        ((compiled, _),) = graph_of(session)._compiled.values()
        assert compiled.get_property("ENABLE_CPU_PINNING") == (threads > 1)


def test_an_engine_that_would_run_in_another_precision_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plugin takes a precision that the processor lacks without a word, and computes in another one."""
    if "FP16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor computes in f16")
    engine = export(checkpoint.folder, "fp32", "openvino", tmp_path)
    with engines.open(engine) as session:
        assert session.describe()["precision_hint"] == "f32"
    monkeypatch.setitem(openvino_graphs._HINTS, "fp32", "f16")
    with pytest.raises(ArtifactError, match=r"OpenVINO computes in b?f(16|32) instead of f16"):
        engines.open(engine)


def test_quantized_embeddings_are_unpacked_once(checkpoint: Checkpoint, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    quantized = export(checkpoint.folder, "int8-static+buckets24", "openvino", tmp_path)
    single = export(checkpoint.folder, "int8-static", "openvino", tmp_path)
    with engines.open(quantized) as session, engines.open(single) as dynamic:
        unpacked, packed = gathered(session), gathered(dynamic)
        assert "Multiply" in packed and unpacked.count("Constant") > packed.count("Constant")
        (whole,) = queries((24, 24))[-1:]
        np.testing.assert_allclose(session.infer(whole)["logits"], dynamic.infer(whole)["logits"], atol=1e-5)
