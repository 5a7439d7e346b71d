"""What was reduced in an engine, read from its result."""

from __future__ import annotations

from dataclasses import replace

from effx.analysis.techniques import Technique, series, technique
from tests.analysis.simulated_run import engine, simulated_run


def test_engines_made_elsewhere_are_not_counted_as_unreduced_or_reduced() -> None:
    """Nothing is known about their reduction; tools are not joined into one series."""
    names = []
    for tool in ("pytorch 2.14.1", "onnx.quantize 0.1.0"):
        made = engine("theirs", made_elsewhere=tool, structure=None, weight_remaining=None, parity=None)
        run = replace(simulated_run("theirs"), engine=made)
        assert technique(run) == Technique("made elsewhere", None, tool)
        assert not technique(run).is_reduction
        names.append(series(run, technique(run)))
    assert names == [
        "made elsewhere (pytorch 2.14.1), fp32, none",
        "made elsewhere (onnx.quantize 0.1.0), fp32, none",
    ]
    ours = simulated_run("ours", precision="fp32")
    assert series(ours, technique(ours)) == "not reduced, fp32, none"
