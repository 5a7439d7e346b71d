"""The stage that builds engines, on a machine unlike the one on which the run was planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from effx.errors import EffxError
from effx.host import cpu
from effx.recipe.execute.protocol import CellInputs, CellSpec, LocalPaths, RefusedError
from effx.recipe.execute.stages import export
from effx.specs.stages import ExportStage


def spec(variant: str, backend: str, **processor: bool) -> CellSpec:
    settings = ExportStage(variant=variant, backend=backend, **processor).to_json()
    return CellSpec("w", "key", "export", "an-engine", settings, LocalPaths(), CellInputs())


def test_a_refusal_stays_only_where_the_processor_is_that_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "this_cpu", lambda: cpu.Cpu("old", frozenset(), "x86_64"))
    with pytest.raises(RefusedError, match="this processor does not support bf16"):
        export.run(spec("bf16", "torch", bf16=False), tmp_path)
    for planned in (spec("bf16", "torch", bf16=True), spec("int8-dynamic", "onnxruntime", vnni=True)):
        with pytest.raises(EffxError, match="was planned for a processor with ") as caught:
            export.run(planned, tmp_path)
        assert not isinstance(caught.value, RefusedError)  # a failure: another machine may build it
