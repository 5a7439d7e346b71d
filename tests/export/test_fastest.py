"""The fastest of several candidates: how they are timed, what is recorded, and when they are built anew."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from effx import scratch
from effx.artifacts import Checkpoint
from effx.encoding import Encoded, Encoder
from effx.errors import UsageError
from effx.export import build, export, export_all, fastest, graph, parity
from effx.export.fastest import Files
from effx.export.source import ExportSource
from effx.specs import variants
from effx.specs.measurement import built_for
from effx.specs.runtime import RuntimeSettings
from tests.conftest import REDUCED_VARIANTS
from tests.models import tiny


@pytest.fixture
def encoded(checkpoint: Checkpoint) -> Encoded:
    texts = [(f"w{number % 7} " * (1 + number % 20),) for number in range(300)]
    return Encoder(checkpoint.folder, 32)(texts)


@pytest.mark.parametrize(
    ("word", "shapes"),
    [("single", {(1, "real")}), ("8x16", {(8, 16)}), ("offline", {(32, "real")}),
     (None, {(1, "real"), (16, "real")})],
)  # fmt: skip
def test_queries_are_those_of_the_workload(
    word: str | None, shapes: set[tuple[int, object]], encoded: Encoded
) -> None:
    kinds = fastest.queries(encoded, None if word is None else built_for(word))
    seen = set()
    for queries in kinds:
        for query in queries:
            batch, length = query["input_ids"].shape
            seen.add((batch, length if word == "8x16" else "real"))
            assert query["attention_mask"].sum(1).min() >= 1
    assert seen == shapes
    if word == "offline":  # rows of similar length are together
        longest = [int(query["attention_mask"].sum(1).max()) for query in kinds[0]]
        assert longest == sorted(longest) and len(kinds[0]) == 4


def test_no_query_is_as_long_as_the_row_that_fills_the_limit(
    checkpoint: Checkpoint, rows_folder: Path
) -> None:
    """The parity gate has a row of the model's limit, beyond what the tokenizer cuts at."""
    with scratch.folder("test") as folder:
        source = ExportSource(checkpoint, folder, rows_folder)
        gated, _, _ = source.parity_rows(variants.parse("fp32"))
    usual = parity.without_longest(gated)
    assert usual.row_count == gated.row_count - 1
    assert int(gated.lengths.max()) > checkpoint.max_length >= int(usual.lengths.max())
    assert np.array_equal(usual.ids, gated.ids[: len(usual.ids)])


@pytest.mark.parametrize("text", ["", "8", "8x", "0x8", "both", "8x8x8"])
def test_other_workloads_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected single, offline or BATCHxLENGTH"):
        built_for(text)


def test_the_larger_of_two_encoders_takes_longer(encoded: Encoded, tmp_path: Path) -> None:
    files = []
    for name, layers, width in (("large", 6, 64), ("small", 1, 8)):
        folder = tmp_path / name
        folder.mkdir()
        model = tiny.model("bert", layers=layers, head_size=width, neurons=16 * width)
        graph.write(model, folder / "model.onnx")
        files.append(Files(folder, "onnxruntime", RuntimeSettings(("model.onnx",))))
    query = {name: np.minimum(values, 59) for name, values in encoded.batch([19]).items()}
    rows = Encoded(query["input_ids"][0].astype(np.int32), query["token_type_ids"][0].astype(np.int8),
                   np.array([0, query["input_ids"].shape[1]]), encoded.pad_id)  # fmt: skip
    large, small = fastest.seconds(files, rows, built_for("single"))
    assert large > 2 * small > 0


def test_what_a_runtime_does_when_a_shape_is_new_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Compiling:
        """A session that takes a second for the first query of each shape, then a millisecond."""

        def __init__(self) -> None:
            self.now, self.seen = 0.0, set[tuple[int, ...]]()

        def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            shape = inputs["input_ids"].shape
            self.now += 0.001 if shape in self.seen else 1.0
            self.seen.add(shape)
            return {}

    session = Compiling()
    monkeypatch.setattr(fastest, "time", SimpleNamespace(perf_counter=lambda: session.now))
    queries = [{"input_ids": np.zeros((1, 3 + number % 4))} for number in range(40)]
    assert fastest._mean_seconds(session, queries) == pytest.approx(0.001)  # type: ignore[arg-type]


def test_a_slow_and_a_fast_candidate_answer_the_same_queries(
    encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked = [0.0], dict[str, list[int]]()

    class Timed:
        """A session whose queries take as many milliseconds as they have tokens, times a factor."""

        def __init__(self, name: str, factor: float) -> None:
            self.name, self.factor = name, factor

        def __enter__(self) -> Timed:
            return self

        def __exit__(self, *_: object) -> None: ...

        def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            length = inputs["input_ids"].shape[1]
            asked.setdefault(self.name, []).append(length)
            now[0] += 0.001 * self.factor * length
            return {}

    factors = {"slow": 8.0, "fast": 4.0}
    monkeypatch.setattr(
        fastest.engines, "open_unchecked", lambda folder, *_: Timed(folder.name, factors[folder.name])
    )
    monkeypatch.setattr(fastest, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    files = [Files(Path(name), "onnxruntime", RuntimeSettings(("model.onnx",))) for name in factors]
    slow, fast = fastest.seconds(files, encoded, built_for("single"))
    assert slow == pytest.approx(2 * fast)
    assert len(asked["fast"]) < 3 * 64  # the slow one decides: about a second of it


def test_what_was_tried_is_in_the_manifest(checkpoint: Checkpoint, tmp_path: Path) -> None:
    engine = export(checkpoint.folder, "fp32", "onnxruntime", tmp_path, built_for="single")
    manifest = engine.manifest
    tried = manifest.candidates
    assert [(each.merged_projections, bool(each.disabled_optimizers)) for each in tried] == [
        (False, False), (True, False), (False, True), (True, True)
    ]  # fmt: skip
    assert all(each.seconds > 0 and each.scheme == "fp32" for each in tried)
    chosen = [each for each in tried if (each.merged_projections, each.disabled_optimizers) ==
              (manifest.merged_projections, manifest.runtime.disabled_optimizers)]  # fmt: skip
    assert chosen[0].parity == manifest.parity and manifest.parity.passed
    plain, best = tried[0].seconds, chosen[0].seconds
    assert best == plain or best <= fastest.WORTH * plain
    assert manifest.built_for == "single"
    for each in tried:  # what is slower is not compared
        assert each.parity is not None or each.seconds >= best


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [([1.0, 0.9, 0.95, 0.8], (True, True)), ([1.0, 0.99, 0.985, 0.985], (False, False)),
     ([1.0, 0.7, 0.9, 0.8], (True, False)), ([1.0, 2.0, 0.9, 2.0], (False, True))],
)  # fmt: skip
def test_the_fastest_is_kept_where_it_is_worth_it(
    seconds: list[float],
    expected: tuple[bool, bool],
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fastest, "seconds", lambda files, *_: seconds[: len(files)])
    engine = export(checkpoint.folder, "fp32", "onnxruntime", tmp_path, built_for="single")
    manifest = engine.manifest
    assert (manifest.merged_projections, bool(manifest.runtime.disabled_optimizers)) == expected
    nodes = manifest.audit.nodes
    assert nodes.get("Split", 0) == len(manifest.structure.layers) * expected[0]


def test_a_faster_candidate_that_fails_its_gate_is_not_used(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastest, "seconds", lambda files, *_: [1.0, 0.5, 0.9, 0.6][: len(files)])
    failure = build._failure

    def only_separate(candidate: build._Candidate, *rest: object) -> str | None:
        return "no" if candidate.merged_projections else failure(candidate, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "_failure", only_separate)
    manifest = export(checkpoint.folder, "fp32", "onnxruntime", tmp_path, built_for="single").manifest
    assert not manifest.merged_projections and manifest.runtime.disabled_optimizers
    assert [each.failure for each in manifest.candidates] == [None, "no", None, "no"]


@pytest.mark.parametrize(("variant", "word"), [("seq16", "8x32"), ("fp32", "1x4096")])
def test_a_workload_longer_than_the_engine_reads_is_refused(
    variant: str, word: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"tokens at most, and is to be built for {word}"):
        export(checkpoint.folder, variant, "onnxruntime", tmp_path, built_for=word)
    assert not [*tmp_path.iterdir()]


def test_an_engine_for_another_workload_is_not_up_to_date(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for word, expected in (
        (None, False),
        ("single", False),
        ("single", True),
        ("4x16", False),
        (None, False),
    ):
        capsys.readouterr()
        ((engine,), _) = export_all([checkpoint.folder], ["fp32"], ["onnxruntime"], tmp_path, built_for=word)
        assert ("up to date" in capsys.readouterr().err) == expected
        assert engine.manifest.built_for == word
        assert (engine.manifest.candidates is None) == (word is None)


def test_int8_tries_graphs_of_its_fastest_scheme(checkpoint: Checkpoint, tmp_path: Path) -> None:
    tried = export(checkpoint.folder, "int8", "onnxruntime", tmp_path).manifest.candidates
    assert [(each.scheme, each.merged_projections) for each in tried[:2]] == [
        ("int8-dynamic", False), ("int8-static", False)
    ]  # fmt: skip
    assert len(tried) == 5 and len({each.scheme for each in tried[2:]}) == 1


@pytest.mark.parametrize("variant", [*REDUCED_VARIANTS, "int8-dynamic+exit-if", "int8-dynamic+exit+tokens"])
def test_every_variant_passes_its_gate_with_merged_projections(
    variant: str, reduced_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastest, "seconds", lambda files, *_: [1.0, 0.8, 0.9, 0.7][: len(files)])
    manifest = export(
        reduced_checkpoint.folder, variant, "onnxruntime", tmp_path, built_for="single"
    ).manifest
    assert manifest.parity.passed and manifest.merged_projections and manifest.runtime.disabled_optimizers
    layers = sum(bool(layer.heads) for layer in manifest.structure.layers)
    assert manifest.audit.nodes["Split"] >= layers
