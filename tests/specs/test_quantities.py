"""Settings with units are read back as what they were, as cells of recipes do."""

from __future__ import annotations

import json

import pytest

from effx.errors import UsageError
from effx.specs.constraints import Constraints
from effx.specs.optimize import OptimizeSettings


@pytest.mark.parametrize(
    "given",
    [
        Constraints.of(max_p90_s="5ms", max_p99_s="0.1us", max_memory_bytes="64MiB", max_joules="20mJ"),
        Constraints.of(max_size_bytes=1 / 3, max_drop="1%"),
        OptimizeSettings.of(time_s="45m", max_drop=1e-5),
    ],
)
def test_settings_with_units_are_read_back(given: Constraints | OptimizeSettings) -> None:
    again = type(given).of(**json.loads(json.dumps(given.to_json())))
    assert again == given


@pytest.mark.parametrize(
    ("text", "seconds"), [("45m", 2700.0), ("2h", 7200.0), ("90s", 90.0), ("1.5 min", 90.0)]
)
def test_periods(text: str, seconds: float) -> None:
    assert OptimizeSettings.of(time_s=text).time_s == seconds


@pytest.mark.parametrize("text", ["45", "-1m", "0s", "1d", "m"])
def test_what_is_not_a_period_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="45m or 2h|more than 0"):
        OptimizeSettings.of(time_s=text)
