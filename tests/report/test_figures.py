"""What is written in figures, read from their SVG files."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from effx.analysis import task_dependence
from effx.report import frontier_figures, task_figures
from effx.report.groups import group_runs
from effx.results import Run
from tests.analysis import simulated_tasks
from tests.analysis.simulated_run import simulated_run


def texts(path: Path) -> list[str]:
    found = re.findall(r"<text[^>]*>(.*?)</text>", path.read_text(), re.DOTALL)
    return [" ".join(html.unescape(re.sub(r"<[^>]+>", "", text)).split()) for text in found]


def without_predictions(run: Run) -> Run:
    return replace(run, quality=replace(run.quality, predictions=[], labels=[]))


def runs(joules: float | None) -> list[Run]:
    return [
        simulated_run("fp32", range(20), 0.010, joules, precision="fp32", queries=10),
        simulated_run("int8", range(22), 0.006, joules, queries=10),
    ]


def reasons(of: Sequence[Run], cost: str, folder: Path) -> str:
    """Return the text of a figure without panels."""
    frontier_figures.write(group_runs(of), of, [], folder)
    return " ".join(texts(folder / f"frontier-{cost}.svg"))


@pytest.mark.parametrize("joules", [None, 0.02])
def test_a_missing_frontier_of_latency_is_not_blamed_on_energy(joules: float | None, tmp_path: Path) -> None:
    """Results may be shared without predictions; their latency, and energy if any, was measured."""
    shared = [without_predictions(run) for run in runs(joules)]
    latency = reasons(shared, "latency", tmp_path)
    assert "energy" not in latency
    assert "no frontier of accuracy and median latency" in latency and "do not contain predictions" in latency
    energy = " ".join(texts(tmp_path / "frontier-energy.svg"))
    assert ("energy: unavailable" in energy) == (joules is None)
    assert ("no meter" in energy) == (joules is None)
    assert ("do not contain predictions" in energy) == (joules is not None)


def test_every_reason_of_a_missing_frontier_is_written(tmp_path: Path) -> None:
    """One engine has no energy, the other no predictions."""
    (first, _), (_, second) = runs(None), runs(0.02)
    text = reasons([first, without_predictions(second)], "energy", tmp_path)
    assert "no meter" in text and "do not contain predictions" in text and "energy: unavailable" not in text


def test_the_legend_has_the_techniques_of_every_panel(tmp_path: Path) -> None:
    """The baseline of the first task is hardly better than a constant answer: no loss is relative to it."""
    rng = np.random.default_rng(1)
    techniques = {"int8": (0.01, 0.01, 0.004), "seq64": (0.02, 0.01, 0.006)}
    both = simulated_tasks.task_runs(rng, "a", techniques, wrong=0.48, n=100)
    both += simulated_tasks.task_runs(rng, "b", techniques, metric="f1")
    (study,) = task_dependence.compare(both)
    relative = [[each.in_percent(relative=True)[0] for each in task.techniques] for task in study.tasks]
    assert relative[0] == [None, None] and None not in relative[1]
    task_figures.draw(study, tmp_path / "figure")
    legend = texts(tmp_path / "figure.svg")
    for label in ("not reduced", *(each.technique for each in study.tasks[0].techniques)):
        assert legend.count(label) == 1
