"""Runtime settings survive engine.json."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from effx.specs.exit_rules import ExitRule
from effx.specs.runtime import PlanTarget, RuntimeSettings, StagedExits

SETTINGS = [
    RuntimeSettings(("model.onnx",)),
    RuntimeSettings(
        ("segment-0.plan", "segment-1.plan"),
        precision="int8",
        device="sm89",
        unquantized_precision="bf16",
        lengths=(16, 32),
        pad_id=1,
        token_pruning=True,
        exits=StagedExits(ExitRule("entropy", 0.3), (2, 4)),
        input_names={"segment-0.plan": ("input_ids",)},
        profile_batches=(16, 512),
        weight_files={"segment-0.plan": "segment-0.onnx"},
        plan=PlanTarget("10.1", "sm89"),
    ),
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings_are_the_same_after_json(settings: RuntimeSettings) -> None:
    adapter = TypeAdapter(RuntimeSettings)
    assert adapter.validate_json(adapter.dump_json(settings), strict=True) == settings


def test_staged_engines_have_exits_and_several_files() -> None:
    plain, staged = SETTINGS
    assert not plain.is_staged and plain.dynamic_length
    assert staged.is_staged and not staged.dynamic_length
    other = staged.with_exit_rule(ExitRule("max-probability", 0.9))
    assert other.exits and other.exits.rule.name == "max-probability" and other.exits.depths == (2, 4)
    with pytest.raises(ValueError, match="no exits"):
        plain.with_exit_rule(ExitRule("patience"))
