"""Tables for papers: booktabs, one per task and host, each engine by its latest result."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from effx.analysis.cohorts import single_stream
from effx.formatting import in_column, interval, score
from effx.report.groups import Group
from effx.report.style import energy_sources, joules
from effx.results import Run

_SPECIAL = {
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
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


def escape(text: str) -> str:
    """Return ``text`` so that LaTeX prints it and obeys none of it."""
    return "".join(_SPECIAL.get(character, character) for character in _CONTROL.sub(" ", text))


def write(groups: Sequence[Group], path: Path) -> None:
    r"""Write every table to ``path``; a document needs ``\usepackage{booktabs}``."""
    parts = ["% Needs \\usepackage{booktabs}. Intervals are 95 %; bold engines are on the latency frontier."]
    path.write_text("\n\n".join([*parts, *map(_table, groups)]) + "\n", encoding="utf-8")


def _table(group: Group) -> str:
    front = next((one for one in group.frontiers if one.objectives == ("accuracy", "latency")), None)
    points = {} if front is None else {point.run.id: point for point in front.points}
    runs = sorted(group.runs, key=lambda run: single_stream(run).latency_s["p50"] or 0.0)
    metered = any(single_stream(run).energy.joules_per_example is not None for run in runs)
    sources = energy_sources(runs)
    heads = ["engine", f"{group.metric}, 95\\,\\%", "p50, ms", "p90, ms", "p99, ms", "peak, MiB", "size, MiB"]
    if metered:
        heads.append(f"mJ/example ({', '.join(sources)})")
    heads.append("$P$(frontier)")
    lines = []
    for run in runs:
        point = points.get(run.id)
        name = escape(run.name)
        cells = [rf"\textbf{{{name}}}" if point and point.non_dominated else name, *_cells(run)]
        if metered:
            cells.append(escape(joules(run, sources)))
        cells.append("--" if point is None else f"{point.p_non_dominated:.2f}")
        lines.append("  " + " & ".join(cells) + r" \\")
    energy = "" if metered else " Energy was not measured."
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{escape(group.task)} on {escape(group.host)}, $n = {group.n}$.{energy}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            "  " + " & ".join(heads) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _cells(run: Run) -> list[str]:
    latency_s = single_stream(run).latency_s
    return [
        f"{score(run.accuracy.value)} {interval(run.accuracy.interval)}",
        *(escape(in_column(latency_s[name], "s")) for name in ("p50", "p90", "p99")),
        escape(in_column(run.memory.get("host_peak_bytes"), "B")),
        escape(in_column(run.engine.get("size_bytes"), "B")),
    ]
