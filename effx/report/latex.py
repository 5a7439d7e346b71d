"""LaTeX tables (booktabs), one per task and host, each engine by its latest result."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from effx.analysis.cohorts import energy_of, single_stream
from effx.analysis.frontier import FrontierPoint
from effx.analysis.objectives import QUALITY
from effx.formatting import fixed, in_column, interval, score
from effx.report.groups import Group
from effx.report.tables import energy_cell, energy_sources
from effx.results import Run

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
}
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]+")


def escape(text: str) -> str:
    """Return ``text`` such that LaTeX prints it literally."""
    text = _CONTROL_CHARACTERS.sub(" ", text)
    return "".join(_ESCAPED.get(character, character) for character in text)


def write(groups: Sequence[Group], path: Path) -> None:
    r"""Write a table per group to ``path``; a document needs ``\usepackage{booktabs}``."""
    head = "% Needs \\usepackage{booktabs}. Intervals are 95 %. Bold: on the frontier of latency."
    path.write_text("\n\n".join([head, *map(_table, groups)]) + "\n", encoding="utf-8")


def _table(group: Group) -> str:
    points = _latency_frontier(group)
    runs = sorted(group.runs, key=lambda run: single_stream(run).latency_s["p50"] or 0.0)
    with_energy = any(energy_of(run).joules_per_example is not None for run in runs)
    sources = energy_sources(runs)
    headings = [
        "engine", f"{escape(group.cohort.described)}, 95\\,\\%", "p50, ms", "p90, ms", "p99, ms",
        "peak memory, MiB", "size, MiB",
    ]  # fmt: skip
    headings += [f"mJ/example ({', '.join(sources)})"] if with_energy else []
    headings.append("$P$(frontier)")
    lines = []
    for run in runs:
        point = points.get(run.id)
        name = escape(run.name)
        cells = [rf"\textbf{{{name}}}" if point and point.non_dominated else name, *_cells(run)]
        cells += [escape(energy_cell(run, sources))] if with_energy else []
        cells.append("--" if point is None else fixed(point.p_non_dominated, 2))
        lines.append("  " + " & ".join(cells) + r" \\")
    energy = "" if with_energy else " Energy was not measured."
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{escape(group.title)}, $n = {group.cohort.n}$.{energy}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
            r"\toprule",
            "  " + " & ".join(headings) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _latency_frontier(group: Group) -> dict[str, FrontierPoint]:
    """Return the points of the frontier of accuracy and latency by result id."""
    for frontier in group.frontiers:
        if frontier.objectives == ("quality", "latency"):
            return {point.run.id: point for point in frontier.points}
    return {}


def _cells(run: Run) -> list[str]:
    latency_s = single_stream(run).latency_s
    return [
        f"{score(QUALITY.value(run))} {interval(QUALITY.interval(run))}",
        *(escape(in_column(latency_s[name], "s")) for name in ("p50", "p90", "p99")),
        escape(in_column(run.memory.host_peak_bytes, "B")),
        escape(in_column(run.engine.size_bytes, "B")),
    ]
