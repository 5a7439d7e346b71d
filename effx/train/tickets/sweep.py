"""The sweep: every cell of the grid, or those that halving asks for, then the table."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effx import files, progress
from effx.specs.levels import Level
from effx.specs.training import TicketSearchSettings
from effx.train import distributed, workspace
from effx.train.tickets import halving, selection, table
from effx.train.tickets.cells import FULL, Cell, Record, Workspace


def run(
    task_name: str,
    model_name: str | Path,
    *,
    out: str | Path | None = None,
    data_folder: str | Path | None = None,
    settings: TicketSearchSettings | None = None,
) -> dict[str, Any]:
    """Find tickets, and write table and figure beside their checkpoints.

    Fine-tune, score, cut, rewind, fine-tune again, for every kind, level and seed. What is there
    already is not trained again; table and figure have the cells that these settings name. Several
    processes may do this in one workspace at once: of a grid, each trains cells that no other is at, and
    all end with the whole table.

    Args:
        task_name: a task of the table, or with ``data_folder`` any name for the user's own.
        model_name: a folder with config.json and safetensors weights, or a name on the hub.
        out: the workspace; default ``tickets/TASK-MODEL``.
        data_folder: train and validation files; default: the hub, or the embedded demo.
        settings: which tickets, and how to train.

    Returns:
        What table.json holds; see :mod:`effx.train.tickets.table`.

    Raises:
        UsageError: a setting is wrong, or the workspace was made with others.
        DataError: the rows do not fit the task.
        ArtifactError: a file of the workspace is damaged.
    """
    distributed.refuse("a sweep for tickets")
    settings = settings or TicketSearchSettings()
    place = Path(out) if out is not None else Path("tickets") / workspace.stem(task_name, str(model_name))
    work = Workspace(place, task_name, str(model_name), Path(data_folder) if data_folder else None, settings)
    found = _halving(work) if settings.search == "halving" else _grid(work)
    for seed in work.seeds:  # part of what a sweep is for, also where every ticket was there before
        work.scores(seed)
    result = table.build(work, *found)
    table.write(work.folder, result)
    _draw(work, result)
    return result


def _grid(work: Workspace) -> tuple[list[Record], Level | None, dict[str, Any]]:
    """Train every cell; return the records, the super ticket's level and what was spent."""
    settings = work.settings
    tickets = [(kind, level) for level in settings.levels for kind in settings.kinds]
    cells = [Cell(*what, seed) for seed in work.seeds for what in ((FULL, None), *tickets)]
    records = _run(work, cells)
    spent = {"search": "grid", "steps": sum(record.steps for record in records), "rungs": []}
    if "winning" not in settings.kinds:
        return records, None, spent
    candidates = [candidate(work, level, _of(records, "winning", level)) for level in settings.levels]
    return records, selection.best(candidates).level, spent


def _run(work: Workspace, cells: Sequence[Cell]) -> list[Record]:
    """Run cells in order, those that other processes work on last."""
    records: dict[Cell, Record] = {}
    while left := [cell for cell in cells if cell not in records]:
        cell = next((cell for cell in left if not work.busy(cell)), left[0])
        progress.say(f"cell {len(records) + 1} of {len(cells)}: {cell.name(work.stem)}")
        records[cell] = work.run(cell)
    return [records[cell] for cell in cells]


def _halving(work: Workspace) -> tuple[list[Record], Level | None, dict[str, Any]]:
    """Train the cells that successive halving asks for; return as :func:`_grid` does."""
    settings, seeds = work.settings, work.seeds
    used: dict[tuple[Level, int], int] = {}

    def run_level(level: Level, steps: int) -> selection.Candidate:
        whole, part = divmod(steps, work.steps)
        cells = [Cell("winning", level, seed) for seed in seeds[:whole]]
        cells += [Cell("winning", level, seeds[whole], part)] if part else []
        records = [work.run(cell) for cell in cells]
        used.update({(level, record.cell.seed): record.steps for record in records})
        return candidate(work, level, records)

    plan = halving.rungs(len(settings.levels), len(seeds), work.steps, work.warmup_steps)
    grid = (len(settings.levels) + 1) * len(seeds) * work.steps
    planned = halving.cost(plan, len(seeds) * work.steps) + len(seeds) * work.steps
    progress.say(f"halving: {planned} training steps at most, {planned / grid:.1%} of the grid's {grid}")
    for number, rung in enumerate(plan, 1):
        progress.say(
            f"rung {number}: {rung.levels} levels, {rung.steps} of {len(seeds) * work.steps} steps each"
        )
    full = [work.run(Cell(FULL, None, seed)) for seed in seeds]
    level, seen = halving.search(settings.levels, plan, run_level)
    last = [work.run(Cell("winning", level, seed)) for seed in seeds]
    used.update({(level, record.cell.seed): record.steps for record in last})
    work.drop_paused([Cell("winning", level, seed) for level in settings.levels for seed in seeds])
    taken = sum(used.values()) + sum(record.steps for record in full)
    spent = {
        "search": "halving",
        "steps": taken,
        "grid_steps": grid,  # at most, where cells may stop early: then nobody knows the share
        "share": None if settings.finetune.patience else taken / grid,
        "rungs": seen,
    }
    return [*full, *last], level, spent


def candidate(work: Workspace, level: Level, records: Sequence[Record]) -> selection.Candidate:
    """Return a level with its winning tickets' scores on the rows that select."""
    rows, _ = selection.split(len(work.validation), work.settings.selection, work.training.seed)
    scores = tuple(table.score(work, record, rows)[work.task.metric] for record in records)
    return selection.Candidate(level, float(np.mean([record.weight_remaining for record in records])), scores)


def _of(records: Sequence[Record], kind: str, level: Level) -> list[Record]:
    return [record for record in records if (record.cell.kind, record.cell.level) == (kind, level)]


def _draw(work: Workspace, result: dict[str, Any]) -> None:
    """Draw the phases and each seed's scores, where matplotlib is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        progress.say(
            "no figures: matplotlib is not installed. Run: pip install 'effx[report]', then this again"
        )
        return
    from effx.train.tickets import figure

    for suffix in (".png", ".svg"):
        with files.replacing(work.folder / f"phases{suffix}") as path:
            figure.phases(result, path)
        for seed in work.seeds:
            with files.replacing(work.scores_path(seed).with_suffix(suffix)) as path:
                figure.heat_map(work.scores(seed), work.structure, f"{work.stem}, seed {seed}", path)
