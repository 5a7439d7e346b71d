"""A plan and its result on stdout."""

from __future__ import annotations

import json

import click

from effx.errors import ArtifactError
from effx.recipe.execute.run import RunResult
from effx.recipe.execute.view import duration, summary
from effx.recipe.graph.plan import OPEN, CellPlan, PlanEntry
from effx.recipe.language.recipe import Recipe


def print_plan(plan: CellPlan, recipe: Recipe) -> None:
    """Print every cell, its state and how long it will take."""
    entries = list(plan.entries.values())
    width = max(len(entry.cell.id) for entry in entries)
    for entry in entries:
        click.echo(f"{entry.cell.id:<{width}}  {_state(plan, entry)}")
    click.echo(f"{len(entries)} cells in {recipe.workspace}: {_counts(plan)}{_remaining(plan, recipe)}")
    searches = [entry for entry in entries if entry.cell.stage == "tickets" and entry.state != "done"]
    if recipe.needs_search and searches:
        click.echo(
            "tickets of level super, what is made of them, and the profile follow when the search is done"
        )


def print_result(result: RunResult) -> None:
    """Print the frontiers, the cells that were not built, and where the results are."""
    plan = result.plan
    if result.report:
        from effx.report import tables

        try:
            content = json.loads((result.report / "frontier.json").read_bytes())
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{result.report}: frontier.json cannot be read ({error}).") from error
        tables.print_frontiers(content)
    for entry in plan.entries.values():
        if entry.cell.stage == "tickets" and entry.state == "done":
            folder = plan.store.cell(entry.key) / entry.cell.name
            click.echo((folder / "table.md").read_text(encoding="utf-8").rstrip())
            click.echo(f"tickets: {plan.store.folder / 'tickets' / entry.cell.name}")
    for entry in plan.entries.values():
        if entry.state in ("gate", "refused", "failed", "blocked"):
            click.echo(summary(entry))
    click.echo(f"{len(plan.entries)} cells in {plan.store.folder}: {_counts(plan)}")
    if result.report:
        click.echo(f"report: {(result.report / 'index.html').absolute()}")


def _state(plan: CellPlan, entry: PlanEntry) -> str:
    if entry.state != "todo":
        return f"{entry.state}{': ' + entry.note if entry.note else ''}"
    seconds = plan.estimates.seconds(entry.cell)
    return "to do" + (f", about {duration(seconds)}" if seconds is not None else "")


def _counts(plan: CellPlan) -> str:
    names = {"done": "done", "gate": "did not pass", "refused": "cannot be built", "failed": "failed",
             "blocked": "blocked"}  # fmt: skip
    parts = [f"{count} {text}" for state, text in names.items() if (count := plan.count(state))]
    parts += [f"{left} to do"] if (left := plan.count(*OPEN)) else []
    return ", ".join(parts)


def _remaining(plan: CellPlan, recipe: Recipe) -> str:
    remaining, unknown = plan.remaining_s(recipe.budgets.at_once)
    if not plan.count(*OPEN):
        return ""
    if unknown == plan.count("todo"):
        return "; no estimate: no similar cell has been done in this workspace"
    more = f", without {unknown} cells that have no estimate" if unknown else ""
    return f"; about {duration(remaining)}, by the times of earlier cells{more}"
