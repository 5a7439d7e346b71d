"""What ``effx compare-tasks`` and ``effx compare-lengths`` have in common: options, and the answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from effx.cli import options
from effx.specs.constraints import TechniqueComparisonSettings

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S")
Shown = TypeVar("Shown", contravariant=True)


class Tables(Protocol[Shown]):
    """A module that shows studies."""

    def write(self, studies: Sequence[Shown], out: Path) -> None: ...
    def to_json(self, studies: Sequence[Shown]) -> dict[str, Any]: ...
    def text(self, study: Shown) -> str: ...


def study_options(
    costs: Sequence[str], *, tasks: str, cost: str, out: str, json_file: str
) -> Callable[[F], F]:
    """Return a decorator with the arguments of such a command.

    Args:
        costs: that techniques can be compared by.
        tasks: help of the option that selects tasks.
        cost: help of the objective.
        out: help of the output folder.
        json_file: the JSON file in it.
    """
    parts = (
        click.argument("results", nargs=-1, type=click.Path(path_type=Path)),
        click.option("--task", "tasks", multiple=True, metavar="NAME", help=tasks),
        click.option(
            "--objective", type=options.Word(costs, "cost"), default="latency", show_default=True,
            metavar="COST", help=f"{cost}: {', '.join(costs)}.",
        ),
        options.of(TechniqueComparisonSettings),
        click.option("-o", "--out", type=click.Path(path_type=Path), metavar="DIR", help=out),
        click.option("--json", "as_json", is_flag=True, help=f"Print {json_file}."),
    )  # fmt: skip

    def add(function: F) -> F:
        for part in reversed(parts):
            function = part(function)
        return function

    return add


def answer(
    compare: Callable[..., Sequence[S]],
    tables: Tables[S],
    results: tuple[Path, ...],
    *,
    tasks: tuple[str, ...],
    objective: str,
    out: Path | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Print, and write, the studies of results.

    Args:
        compare: returns the studies.
        tables: shows them.
        results: folders.
        tasks: only these; empty: all.
        objective: the cost.
        out: folder; None: nothing is written.
        as_json: whether JSON is printed.
        settings: of the comparison.
    """
    if out is not None:
        from effx.errors import need

        need("report", "matplotlib")
    from effx.results import find

    found = find(list(results) or [Path("results")])
    studies = compare(found, objective, TechniqueComparisonSettings.of(**settings), tasks=tasks)
    if out is not None:
        tables.write(studies, out)
    if as_json:
        click.echo(json.dumps(tables.to_json(studies), indent=1, allow_nan=False))
        return
    click.echo("\n\n".join(tables.text(study) for study in studies))
    if out is not None:
        click.echo(str(out))
