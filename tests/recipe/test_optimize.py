"""``effx optimize`` on a tiny checkpoint: from its folder to an answer that its results justify."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from effx import results
from effx.analysis import optimized
from effx.artifacts import Checkpoint
from effx.cli import run
from effx.specs.optimize import OptimizeSettings
from effx.specs.workloads import SINGLE_STREAM
from tests import cache as caches

OPTIONS = [
    "--max-drop", "0.3", "--speedups", "1.2,1.5", "--epochs", "1", "--candidates", "3", "--rows", "32",
    "--backend", "onnxruntime",
]  # fmt: skip


@pytest.fixture(scope="module")
def workspace(cache: caches.Cache, checkpoint: Checkpoint) -> Path:
    def build(folder: Path) -> None:
        assert run(["optimize", str(checkpoint.folder), *OPTIONS, "-o", str(folder / "work")]) in (0, 1)

    return cache.folder("optimized", build) / "work"


def test_the_answer_follows_from_the_results(workspace: Path) -> None:
    answer = json.loads((workspace / "answer" / "answer.json").read_text())
    runs = results.find([workspace / "results" / "tiny"])
    settings = OptimizeSettings.of(max_drop=0.3, speedups=(1.2, 1.5), epochs=1, candidates=3, rows=32)
    again = optimized.answer(runs, settings, SINGLE_STREAM)
    assert json.loads(json.dumps(again.to_json())) == answer
    names = {"tiny.fp32.onnxruntime", "tiny.int8.onnxruntime"}
    names |= {f"tiny-{speedup}x.int8.onnxruntime" for speedup in ("1.2", "1.5")}
    assert {run.name for run in runs} == names
    assert answer["baseline"] == "tiny.fp32.onnxruntime"
