from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effx.analysis.tickets import searches
from effx.errors import ArtifactError
from tests.analysis.tickets.made import workspace


def made(folder: Path) -> Path:
    return workspace(
        folder, "mrpc", (0.80, 0.82), {"20": (0.84, 0.81), "40": (0.84, 0.83)}, level="40", rows=3668
    )


def test_super_tickets_of_the_mean_and_of_every_seed(tmp_path: Path) -> None:
    search = searches.read(made(tmp_path / "w"))
    assert [cell.level for cell in search.super] == ["40", "40"]
    assert [cell.level for cell in search.super_per_seed] == ["40", "40"], "on a tie, fewer weights"
    assert (search.training_rows, search.name) == (3668, "mrpc, tiny")


def test_removed_heads_are_the_least_important_ones(tmp_path: Path) -> None:
    search = searches.read(made(tmp_path / "w"))
    removed = search.removed("20", 1)
    scored = search.importance[1].heads
    lowest = {tuple(map(int, divmod(index, 4))) for index in np.argsort(scored.ravel())[:3]}
    assert {(layer, head) for layer, heads in removed.heads.items() for head in heads} == lowest


def without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda table: table.pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("cells"), "'cells' is missing"),
        (lambda table: table.update(schema=7), "schema 7, expected 1"),
        (lambda table: table.update(cells=table["cells"][1:]), "a full model of every seed"),
        (lambda table: table["super"].update(level="20/"), "level '20/'"),
        (lambda table: table["super"].update(level="60"), "a winning ticket of its level"),
        (lambda table: table["cells"][0].update(weight_remaining=1.5), "from 0 to 1"),
        (lambda table: table["cells"][0]["scores"]["rest"].update(accuracy=True), "expected a number"),
        (lambda table: table.update(metric="f1"), "not one of metrics"),
        (lambda table: table.update(cells=[1]), "not the table"),
    ],
)
def test_a_damaged_table_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    path = made(tmp_path / "w") / "table.json"
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))
    with pytest.raises(ArtifactError, match=message) as caught:
        searches.read(tmp_path / "w")
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_table_is_not_a_finished_search(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="effx train tickets"):
        searches.read(tmp_path)
