"""The variant ``auto``: which precision is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from effx import engines
from effx.artifacts import Checkpoint, Engine
from effx.cli import run
from effx.errors import GateError
from effx.export import build, export, fastest, verify
from effx.export.fastest import Files
from effx.host import cpu
from effx.manifests import Parity
from effx.specs import backends, variants


@pytest.fixture(scope="module")
def engine(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return export(checkpoint.folder, "auto", "onnxruntime", tmp_path_factory.mktemp("engines"))


def test_every_precision_is_built_and_one_is_kept(engine: Engine, checkpoint: Checkpoint) -> None:
    manifest = engine.manifest
    assert (engine.folder.name, manifest.variant) == (f"{checkpoint.name}.auto.onnxruntime", "auto")
    assert manifest.precision == manifest.runtime.precision and manifest.precision in ("fp32", "int8")
    assert manifest.candidates is not None
    assert {each.scheme for each in manifest.candidates} == {"fp32", "int8-dynamic", "int8-static"}
    assert manifest.scheme in backends.get("onnxruntime").schemes_for(manifest.precision, "cpu")
    assert manifest.parity is not None and manifest.parity.passed


def test_it_is_opened_and_verified_as_what_it_is(engine: Engine, checkpoint: Checkpoint) -> None:
    with engines.open(engine) as session:
        assert session.describe()
    ((_, _, parity),) = verify([engine.folder], checkpoint.folder.parent)
    assert parity.passed


def test_it_is_not_built_again(
    engine: Engine, checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(checkpoint.folder), "--variant", "auto", "-o", str(engine.folder.parent)]
    assert run(command) == 0
    assert f"{engine.folder.name}: up to date" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "lost", "expected"),
    [
        ({"int8": 1.0, "fp32": 2.0}, {"int8": 0.01, "fp32": 0.0}, "int8"),
        ({"int8": 1.0, "fp32": 1.05}, {"int8": 0.01, "fp32": 0.0}, "fp32"),  # better, and nearly as fast
        ({"int8": 1.0, "fp32": 1.05}, {"int8": 0.0, "fp32": 0.0}, "int8"),
        ({"int8": 1.0, "fp32": 0.9}, {"int8": 0.0, "fp32": 0.0}, "fp32"),
        ({"int8": 1.0, "fp32": 0.95}, {"int8": -0.01, "fp32": 0.0}, "int8"),
    ],
)
def test_the_fastest_is_kept_unless_a_better_one_is_nearly_as_fast(
    seconds: dict[str, float],
    lost: dict[str, float],
    expected: str,
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def timed(files: Sequence[Files], *_: object) -> list[float]:
        return [seconds[each.runtime.precision] for each in files]

    monkeypatch.setattr(fastest, "seconds", timed)
    monkeypatch.setattr(build._Candidate, "score_lost", property(lambda self: lost[self.runtime.precision]))
    kept = export(checkpoint.folder, "auto+seq16", "onnxruntime", tmp_path)
    assert kept.manifest.precision == expected
    assert kept.manifest.variant == "auto+seq16" and kept.manifest.runtime.lengths == (16,)
    assert f"auto is {expected}; compared with the checkpoint: int8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        ({"accuracy_lost": 0.01}, 0.01),
        ({"accuracy_lost": -0.002, "metric": "matthews", "metric_lost": 0.015}, 0.015),  # as CoLA's
        ({"accuracy_lost": 0.01, "metric": "f1", "metric_lost": 0.0}, 0.0),
        ({"metric": "pearson", "metric_lost": 0.02}, 0.02),
        ({}, 0.0),
    ],
)
def test_what_is_lost_is_of_the_primary_metric(lost: dict[str, Any], expected: float) -> None:
    assert build._score_lost(Parity(200, 0.0, 1.0, True, "task", **lost)) == expected


def test_without_training_rows_a_calibrated_precision_is_left_out(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    kept = export(
        checkpoint.folder, "auto", "openvino", tmp_path, data_folder=rows_folder / "validation.jsonl"
    )
    assert "int8 is left out: there are no training rows for it" in capsys.readouterr().err
    assert kept.manifest.precision != "int8"


def test_if_no_precision_passes_the_gates_it_is_said(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_failure", lambda *_: "planted.")
    with pytest.raises(GateError, match="auto.onnxruntime: planted"):
        export(checkpoint.folder, "auto", "onnxruntime", tmp_path)
    assert not [*tmp_path.iterdir()]


def test_every_candidate_that_was_timed_has_its_time(engine: Engine) -> None:
    assert engine.manifest.candidates is not None
    of_precisions = [each for each in engine.manifest.candidates if each.seconds is not None]
    assert {each.scheme.partition("-")[0] for each in of_precisions} == {"fp32", "int8"}
    assert any(each.scheme == "fp32" and each.merged_projections for each in engine.manifest.candidates)


def test_openvino_compares_bf16_where_the_processor_has_it(checkpoint: Checkpoint, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    kept = export(checkpoint.folder, "auto", "openvino", tmp_path).manifest
    assert kept.candidates is not None
    assert ("bf16" in {each.scheme for each in kept.candidates}) == cpu.has_bf16()


def test_precisions_are_those_of_the_device() -> None:
    row = backends.get("onnxruntime")
    assert row.schemes_for("auto", "cuda") == ("fp16", "fp32")
    assert row.is_chosen_by_time("auto", "cuda", None)
    assert variants.parse("auto").is_quantized  # the gate takes as many rows as for int8
