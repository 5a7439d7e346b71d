"""Options that are generated from settings."""

from __future__ import annotations

import importlib
from typing import Any

import click
import pytest
from click.testing import CliRunner

from effx.cli import options
from effx.specs import meters
from effx.specs.exits import EarlyExitSettings
from effx.specs.lottery import LotterySettings
from effx.specs.settings import Settings, leaves
from effx.specs.tickets import TicketSearchSettings
from effx.specs.tokens import TokenPruningSettings
from effx.specs.training import FinetuneSettings
from effx.specs.workloads import SCENARIOS


@pytest.mark.parametrize(
    "kind",
    [
        FinetuneSettings,
        TicketSearchSettings,
        LotterySettings,
        TokenPruningSettings,
        EarlyExitSettings,
    ],
)
def test_every_setting_has_an_option_with_its_default(kind: type[Settings]) -> None:
    @click.command()
    @options.of(kind)
    @click.pass_context
    def command(context: click.Context, /, **values: Any) -> None:
        assert options.given(context, values) == {}
        filled = {name: value for name, value in values.items() if value is not None}
        assert kind.of(**filled).flat() == kind().flat()
        assert set(values) == {leaf.name for leaf in leaves(kind)}

    done = CliRunner().invoke(command, [], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_options_become_settings() -> None:
    @click.command()
    @options.of(TicketSearchSettings, without=("keep",))
    @click.pass_context
    def command(context: click.Context, /, **values: Any) -> None:
        settings = TicketSearchSettings.of(**options.given(context, values))
        assert [level.text for level in settings.levels] == ["10", "20", "30", "5/10"]
        assert settings.kinds == ("winning", "random")
        assert settings.finetune.training.lr == 1e-3

    arguments = ["--levels", "10,...,30,5/10", "--kinds", "winning, random", "--lr", "1e-3"]
    assert CliRunner().invoke(command, arguments, catch_exceptions=False).exit_code == 0
    refused = CliRunner().invoke(command, ["--keep", "all"])
    assert refused.exit_code == 2 and "No such option" in refused.output


def test_every_meter_has_a_module_and_is_in_the_help() -> None:
    for name in meters.METERS:
        assert callable(importlib.import_module(f"effx.meters.{name}").open)
        assert name in meters.grammar() and f"{name}: " in meters.help_text()


def test_the_help_of_profile_describes_every_scenario() -> None:
    command = importlib.import_module("effx.cli.profile").command
    (scenario,) = [parameter for parameter in command.params if parameter.name == "scenarios"]
    for name, description in SCENARIOS.items():
        assert f"{name}: {description}" in scenario.help
    assert set(scenario.type.choices) == {*SCENARIOS, "all"}
