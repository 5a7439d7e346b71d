"""Options that several training commands share."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from effx.artifacts import Checkpoint

F = TypeVar("F", bound=Callable[..., Any])

_TRAINING = (
    click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True),
    click.option(
        "--limit",
        type=click.IntRange(min=1),
        metavar="N",
        help="Training rows at most; the same subset for every seed.",
    ),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
    click.option("--max-steps", type=click.IntRange(min=1), metavar="N", help="Stop after N steps."),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16"]),
        default="auto",
        show_default=True,
        help="auto: bf16 where the processor has it.",
    ),
)
_PLACE = (
    click.option(
        "-o",
        "--out",
        type=click.Path(path_type=Path),
        default=Path("checkpoints"),
        show_default=True,
        help="Where checkpoints go.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace a checkpoint of that name."),
    click.option("--json", "as_json", is_flag=True, help="Print the manifest."),
)


def training(function: F) -> F:
    """Add how to train."""
    return _with(_TRAINING, function)


def max_length(function: F) -> F:
    """Add ``--max-length``."""
    return click.option(
        "--max-length",
        type=click.IntRange(min=4),
        default=128,
        show_default=True,
        help="Tokens per example at most, here and in everything made from it.",
    )(function)


def epochs(function: F) -> F:
    """Add ``--epochs``."""
    positive = Finite(min=0, min_open=True)
    return click.option("--epochs", type=positive, default=3.0, show_default=True)(function)


def lr(default: str) -> Callable[[F], F]:
    """Add ``--lr``."""
    positive = Finite(min=0, min_open=True)
    return click.option("--lr", type=positive, help=f"Learning rate. Default: {default}.")


def patience(function: F) -> F:
    """Add ``--patience``."""
    return click.option(
        "--patience",
        type=click.IntRange(min=1),
        metavar="N",
        help="Stop after N epochs without a better score on a held-out tenth of the training rows, and "
        "keep the best weights.",
    )(function)


def workspace(holds: str) -> Callable[[F], F]:
    """Add where a workspace goes."""
    return click.option(
        "-o", "--out", type=click.Path(path_type=Path), metavar="DIR", help=f"The workspace: {holds}"
    )


def place(function: F) -> F:
    """Add where the checkpoint goes and how it is told."""
    return _with(_PLACE, function)


def data(default: str) -> Callable[[F], F]:
    """Add ``--data``."""
    return click.option(
        "--data",
        "data_folder",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder with train and validation as .jsonl[.gz], .csv, .tsv or .parquet. " + default,
    )


class Finite(click.FloatRange):
    """A number in a range; neither nan nor infinite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return found


class Numbers(click.ParamType):
    """Numbers separated by commas."""

    def __init__(self, kind: type[int] | type[float], name: str) -> None:
        self._kind, self.name = kind, name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a tuple of numbers."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(self._kind(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"'{value}': numbers separated by commas are needed.", param, ctx)


class Quantity(click.ParamType):
    """A positive number with its unit, as ``5ms`` or ``64MiB``; without one it is refused."""

    def __init__(self, name: str, units: dict[str, float], example: str) -> None:
        self.name, self._units, self._example = name, units, example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number in seconds or bytes."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-zµ]*)", str(value).strip())
        known = f"Units: {', '.join(self._units)}; as {self._example}."
        if match is None:
            self.fail(f"'{value}' is no {self.name}. {known}", param, ctx)
        number, unit = match.groups()
        if not unit:
            self.fail(f"'{value}' has no unit. {known}", param, ctx)
        if unit not in self._units:
            self.fail(f"'{value}': unknown unit '{unit}'. {known}", param, ctx)
        found = float(number) * self._units[unit]
        if not 0 < found < float("inf"):
            self.fail(f"'{value}': more than 0 is needed.", param, ctx)
        return found


DURATION = Quantity("duration", {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}, "5ms or 0.005s")
SIZE = Quantity(
    "size",
    {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30},
    "500MB or 64MiB",
)


def show(checkpoint: Checkpoint, as_json: bool, line: str) -> None:
    """Print a checkpoint's manifest or one line about it."""
    click.echo(json.dumps(checkpoint.manifest, indent=1) if as_json else f"{checkpoint.folder}: {line}")


def scores(checkpoint: Checkpoint, values: dict[str, Any]) -> str:
    """Return the task's metrics in ``values`` as text."""
    return ", ".join(f"{metric} {values[metric]:.4f}" for metric in checkpoint.task.metrics)


def _with(options: tuple[Callable[[F], F], ...], function: F) -> F:
    for option in reversed(options):
        function = option(function)
    return function
