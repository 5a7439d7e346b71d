"""A sweep for super tickets as cells: a full model and its scores per seed, one cell per ticket, a table.

    tickets-full seed ── ticket (kind, level, seed) ──┐
                     └── ticket                     ──┴── tickets: table and figures

Each cell fills a sweep's folder of its own, see :mod:`effx.train.tickets.cells`; what it needs of
others is linked into it, so that the cells may run anywhere, and the table is that of one sweep.
``search: halving`` decides as it goes which tickets to train: it is one cell.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from effx.host import locks
from effx.specs import presets
from effx.specs.levels import Level, parse_levels
from effx.specs.training import TicketSearchSettings

KINDS = ("winning", "random", "losing")
LEVELS = tuple(str(percent) for percent in range(10, 90, 10))
_WHICH = ("levels", "kinds", "seeds")
"""Settings that say which cells there are; the rest says how each is done."""


def levels(parts: Sequence[Any]) -> tuple[str, ...]:
    """Return levels from ``[10, 20/10]`` or ``["10,...,80"]``, as ``effx train tickets`` reads them.

    Raises:
        UsageError: one is no level, out of range, given twice, or ``...`` stands where it says nothing.
    """
    return tuple(level.text for level in parse_levels(",".join(map(str, parts))))


def grid(settings: dict[str, Any], first_seed: int) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Yield each seed with its tickets' kinds and levels."""
    for seed in range(first_seed, first_seed + int(settings["seeds"])):
        yield seed, [(kind, level) for level in settings["levels"] for kind in settings["kinds"]]


def how(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that every cell shares."""
    return {key: value for key, value in settings.items() if key not in _WHICH}


def full(spec: dict[str, Any], out: Path) -> tuple[str | None, str]:
    """Fine-tune the full model of a seed and score its structures."""
    from effx.train.tickets.cells import FULL, Cell

    work = _sweep(spec, out / spec["name"])
    cell = Cell(FULL, None, spec["settings"]["seed"])
    record = work.run(cell)
    work.scores(cell.seed)
    return None, _score(work, record)


def ticket(spec: dict[str, Any], out: Path) -> tuple[str | None, str]:
    """Train one ticket."""
    from effx.train.tickets.cells import FULL, Cell

    settings, place = spec["settings"], out / spec["name"]
    _link_all(Path(spec["read"][0]), place)
    work = _sweep(spec, place)
    cell = Cell(settings["kind"], Level.parse(settings["level"]), settings["seed"])
    record = work.run(cell)
    borrowed = Cell(FULL, None, cell.seed).name(work.stem)
    for path in [*(place / "checkpoints").glob(f"{borrowed}*"), place / "cells" / f"{borrowed}.json"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return None, f"{_score(work, record)}, {record.weight_remaining:.0%} of the weights"


def table(spec: dict[str, Any], out: Path) -> tuple[str | None, str]:
    """Put the cells of a sweep together, train what halving asks for, and write its table."""
    from effx.train import tickets

    place = out / spec["name"]
    for folder in spec["read"]:
        _link_all(Path(folder), place)
    found = tickets.run(
        spec["settings"]["task"],
        spec["places"]["model"],
        out=place,
        data_folder=spec["places"]["data"],
        settings=_settings(spec),
    )
    best = found["super"]
    return None, "no winning tickets" if best is None else f"super ticket at level {best['level']}"


def _sweep(spec: dict[str, Any], place: Path) -> Any:
    from effx.train.tickets.cells import Workspace

    data, model = spec["places"]["data"], spec["places"]["model"]
    return Workspace(place, spec["settings"]["task"], model, Path(data) if data else None, _settings(spec))


def _settings(spec: dict[str, Any]) -> TicketSearchSettings:
    """Return the sweep's settings: its own, over its preset's, over the recipe's ``training``."""
    settings = spec["settings"]
    given = dict(settings["tickets"])
    preset = given.pop("preset", None)
    chosen = presets.preset(preset, settings["task"]).given() if preset else {}
    which = {}
    if "levels" in settings:
        which = {
            "levels": tuple(Level.parse(level) for level in settings["levels"]),
            "kinds": tuple(settings["kinds"]),
            "seeds": settings["seeds"],
        }
    elif "level" in settings:
        which = {
            "levels": (Level.parse(settings["level"]),),
            "kinds": (settings["kind"],),
            "seeds": 1,
        }
    return TicketSearchSettings.of(**{**settings["training"], **chosen, **given, **which})


def _score(work: Any, record: Any) -> str:
    scores = work.task.score(work.validation.labels, record.predictions)
    return f"{work.task.metric} {scores[work.task.metric]:.4f}"


def _link_all(source: Path, target: Path) -> None:
    """Link a folder's files into another one; copy them where the file system cannot link."""
    for path in sorted(source.rglob("*")):
        if path.is_dir() or locks.FOLDER in path.relative_to(source).parts:
            continue
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            continue
        try:
            os.link(path, place)
        except OSError:
            shutil.copyfile(path, place)
