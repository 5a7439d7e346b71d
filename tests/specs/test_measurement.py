"""Settings of a measurement: defaults, grids and scenarios as users write them."""

from __future__ import annotations

from typing import Any

import pytest

from effx.errors import UsageError
from effx.specs.measurement import GridShape, MeasurementPlan
from effx.specs.workloads import SCENARIOS


@pytest.mark.parametrize(
    ("grid", "shapes"),
    [
        ("1x32,8x128", ((1, 32), (8, 128))),
        (["1x32", "8x128,1x32"], ((1, 32), (8, 128))),
        (((1, 32), (8, 128)), ((1, 32), (8, 128))),
        ([[1, 32]], ((1, 32),)),
        ("none", ()),
        ([], ()),
        (None, None),
    ],
)
def test_a_grid_is_text_or_shapes(grid: Any, shapes: Any) -> None:
    plan = MeasurementPlan.of(grid=grid)
    assert plan.grid == shapes
    assert MeasurementPlan.of(**plan.to_json()) == plan
    assert all(isinstance(shape, GridShape) for shape in plan.grid or ())


def test_single_stream_is_always_measured() -> None:
    assert MeasurementPlan().scenarios == ("single-stream",)
    assert MeasurementPlan.of(scenarios=("server",)).scenarios == ("single-stream", "server")
    assert MeasurementPlan.of(scenarios="all").scenarios == tuple(SCENARIOS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"grid": ""}, "'': expected BATCHxLENGTH"),
        ({"grid": ["1x16", ""]}, "'': expected BATCHxLENGTH"),
        ({"grid": "1x32,8*64"}, "'8\\*64': expected BATCHxLENGTH"),
        ({"scenarios": ("ofline",)}, "unknown scenario 'ofline'. Did you mean 'offline'"),
        ({"rounds": 2}, "rounds: expected an integer >= 3, got 2"),
        ({"round": 3}, "Did you mean 'rounds'"),
    ],
)
def test_wrong_values_name_the_setting(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        MeasurementPlan.of(**values)
    assert caught.value.settings == (next(iter(values)),)
