"""Workspaces of finished searches, with drawn scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effx.tickets import scores
from effx.tickets.scores import Importance

PARTS = ("whole", "rest", "selection")


def cell(
    kind: str, level: str | None, seed: int, weights: float, values: Mapping[str, float]
) -> dict[str, Any]:
    """An entry of table.json; ``values``: part -> score."""
    return {
        "checkpoint": f"{kind}{level or ''}-s{seed}", "kind": kind, "level": level, "seed": seed,
        "weight_remaining": weights, "scores": {part: {"accuracy": values[part]} for part in PARTS},
    }  # fmt: skip


def workspace(
    folder: Path, task: str, full: Sequence[float], tickets: Mapping[str, Sequence[float]], *,
    level: str | None, rows: int = 1000, seed: int = 0, shape: tuple[int, int] = (4, 4), model: str = "tiny",
) -> Path:  # fmt: skip
    """Write a workspace; ``full`` and ``tickets`` (level -> scores) have one score per seed."""
    cells = [cell("full", None, s, 1.0, dict.fromkeys(PARTS, score)) for s, score in enumerate(full)]
    cells += [
        cell("winning", text, s, 1 - int(text) / 200, dict.fromkeys(PARTS, score))
        for text, scored in tickets.items()
        for s, score in enumerate(scored)
    ]
    table = {
        "schema": 1, "task": task, "model": model, "metric": "accuracy", "metrics": ["accuracy"],
        "seeds": list(range(len(full))), "settings": {"granularity": "ffns", "min_heads": 1},
        "rows": {"whole": 200, "rest": 100, "selection": 100}, "cells": cells,
        "super": None if level is None else {"level": level}, "phases": None,
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "table.json").write_text(json.dumps(table))
    rng = np.random.default_rng(seed)
    for s in range(len(full)):
        drawn = Importance(rng.random(shape), rng.random(shape[0]))
        scores.write(folder / f"importance-s{s}.json", drawn, rows=rows)
    return folder
