"""Settings with units are read back as what they were, as cells of recipes do."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from effx.errors import UsageError
from effx.specs.constraints import Constraints
from effx.specs.exits import EarlyExitSettings
from effx.specs.optimize import OptimizeSettings
from effx.specs.settings import Settings
from effx.specs.tokens import TokenPruningSettings


@pytest.mark.parametrize(
    "given",
    [
        Constraints.of(max_p90_s="5ms", max_p99_s="0.1us", max_memory_bytes="64MiB", max_joules="20mJ"),
        Constraints.of(max_size_bytes=1 / 3, max_drop="1%"),
        Constraints.of(max_drop="100%"),
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


@pytest.mark.parametrize("kind", [EarlyExitSettings, TokenPruningSettings])
@pytest.mark.parametrize(
    ("given", "loss"), [("1%", 0.01), ("0.01", 0.01), (0.02, 0.02), (0, 0.0), ("1.5", 1.5), ("100%", 1.0)]
)
def test_a_loss_is_written_as_in_recommendations(kind: type[Settings], given: Any, loss: float) -> None:
    settings = kind.of(max_drop=given)
    assert settings.flat()["max_drop"] == loss
    written = json.loads(json.dumps(settings.to_json()))
    assert type(written["max_drop"]) is float, "as manifests of earlier versions have it"
    assert kind.from_json(written) == settings


@pytest.mark.parametrize("kind", [EarlyExitSettings, TokenPruningSettings])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("5", "more than 2. 5 percentage points are 5%"),
        (5, "5 percentage points are 5%"),
        (5.0, "5 percentage points are 5%"),
        ("1", "could mean 1 % or all"),
        (1, "could mean 1 % or all"),
        ("-1%", "at least 0"),
        (-0.5, "at least 0"),
        ("150%", "at most 100%"),
        ("some", "0.01 or 1%"),
        (True, "got True"),
    ],
)
def test_what_is_not_a_loss_is_refused(kind: type[Settings], given: Any, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as info:
        kind.of(max_drop=given)
    assert info.value.settings == ("max_drop",)
