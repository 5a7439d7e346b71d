"""Short names keep only the parts in which engines differ."""

from __future__ import annotations

import pytest

from effx.report.short_names import short_names
from tests.analysis.simulated_run import simulated_run


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (
            ["sst2-bert-full-s0.fp32.onnxruntime", "sst2-bert-full-s0.exit+int8.onnxruntime"],
            ["fp32", "exit+int8"],
        ),
        (
            ["sst2-bert-full-s0.fp32.onnxruntime", "sst2-bert-ticket-s0.int8.onnxruntime"],
            ["full.fp32", "ticket.int8"],
        ),
        (
            ["sst2-bert-full-s0.fp32.onnxruntime", "sst2-bert-full-exits-s0.exit.openvino"],
            ["fp32.onnxruntime", "exits.exit.openvino"],
        ),
        (["sst2-a-s0.fp32.onnxruntime", "sst2-a-s1.fp32.onnxruntime"], ["s0", "s1"]),
        (["sst2-full-s0.fp32", "sst2-full-s0.fp32-s0"], ["fp32", "fp32-s0"]),
        (["a", "a-b"], ["a", "a-b"]),
        (["a-s0-x.fp32", "a-s0.x.fp32"], ["a-s0-x.fp32", "a-s0.x.fp32"]),
        (["alone-s0.fp32.onnxruntime"], ["alone-s0.fp32.onnxruntime"]),
    ],
)
def test_parts_that_differ_are_kept(names: list[str], short: list[str]) -> None:
    shortened = short_names([simulated_run(name) for name in names])
    assert [shortened[name] for name in names] == short
