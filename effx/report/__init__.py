"""The report: frontiers, tables, figures and one self-contained page from result files.

    results -> groups (frontiers) -> pairs (comparisons) -> figures, tables, payload -> page

Everything is computed here once; the page sorts, filters and draws, and computes no statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effx import files, results
from effx.analysis import cohorts
from effx.analysis import frontier as frontiers
from effx.artifacts import now
from effx.errors import UsageError, need
from effx.host import memory
from effx.report import sections as more
from effx.report.groups import MAIN, Group

__all__ = ["content", "report"]

_INDENTED = 1000
"""Results up to which frontier.json is laid out for people."""


def report(
    folders: Sequence[Path], out: str | Path | None = None, *, sections: Sequence[Path] = ()
) -> tuple[dict[str, Any], Path]:
    """Write the report over all results in ``folders``.

    Args:
        folders: folders of result files.
        out: where it goes; default ``report/`` in the first folder, or beside the first file.
        sections: JSON files of further sections (see :mod:`effx.report.sections`), after those
            in ``sections/`` of the results folders.

    Returns:
        What frontier.json holds, and the report's folder.

    Raises:
        ArtifactError: a folder holds no results, or one is damaged; a section is none.
        UsageError: the place is taken by something that is no report, or cannot be written to.
        MissingExtraError: the extra ``report`` is not installed.
    """
    need("report", "matplotlib", "jinja2")
    from effx.report import figures, latex, page, tables
    from effx.report.groups import groups
    from effx.report.comparisons import pairs
    from effx.report.payload import payload

    folders = [Path(folder) for folder in folders]
    extra = more.read([*more.beside(folders), *map(Path, sections)])
    first = folders[0]
    target = Path(out) if out is not None else (first.parent if first.is_file() else first) / "report"
    if target.exists() and not _is_report(target):
        raise UsageError(f"{target} exists already and is no report. Choose another place with -o.")
    with memory.collector_paused():
        runs, failures = results.read(folders)
        failures = _standing(failures, runs)
        grouped = groups(runs)
        compared = pairs(grouped)
        everything = content(runs, grouped, failures)
    with files.new_folder(target, replace=_is_report(target)) as temporary:
        figures.write(grouped, runs, compared[0], temporary)
        tables.write_csv(runs, grouped, temporary / "frontier.csv")
        tables.write_grid(runs, temporary / "grid.csv")
        tables.write_pairs(compared[0], temporary / "comparisons.csv")
        latex.write(grouped, temporary / "tables.tex")
        files.write_json(temporary / "frontier.json", everything, indented=len(runs) <= _INDENTED)
        data = payload(everything, runs, grouped, compared, failures, extra)
        (temporary / "index.html").write_text(page.render(data), encoding="utf-8")
    return everything, target


def content(
    runs: Sequence[results.Run], grouped: Sequence[Group], failures: Sequence[results.Failure] = ()
) -> dict[str, Any]:
    """Return what frontier.json holds: the main frontiers, and under ``more`` those of the other pairs."""
    import effx

    found = [one for group in grouped for one in group.frontiers]
    return {
        "schema": 1,
        "created": now(),
        "effx": effx.__version__,
        "frontiers": [one.to_json() for pair in MAIN for one in found if one.objectives == pair],
        "more": [one.to_json() for one in found if one.objectives not in MAIN],
        "summary": frontiers.summary(runs),
        "failures": [{"engine": one.engine["name"], "failure": one.failure} for one in failures],
        "gates_failed": [
            {"engine": run.name, "gate": gate["name"], "detail": gate["detail"]}
            for run in cohorts.latest(runs)
            for gate in run.gates
            if gate["passed"] is False
        ],
        "energy_unavailable": sorted(
            {
                workload.energy.reason
                for run in runs
                for workload in run.workloads
                if (workload.scenario, workload.timing) == ("single-stream", "end-to-end")
                and workload.energy.reason
            }
        ),
    }


def _standing(failures: Sequence[results.Failure], runs: Sequence[results.Run]) -> list[results.Failure]:
    """Return the failures that still tell of an engine: those that no later run of it on the host undid."""
    newest: dict[tuple[Any, ...], str] = {
        (run.task, run.host_id, run.name): run.started for run in cohorts.latest(runs)
    }
    return [
        one
        for one in failures
        if not one.started
        or one.started >= newest.get((one.engine.get("task"), one.host["id"], one.engine["name"]), "")
    ]


def _is_report(folder: Path) -> bool:
    """Whether a folder is an earlier report (or empty), which alone may be replaced."""
    return folder.is_dir() and ((folder / "frontier.json").is_file() or not any(folder.iterdir()))
