"""The report: frontiers, tables, figures and one self-contained page from result files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effx import files, results
from effx.artifacts import now
from effx.profile import frontier as frontiers
from effx.profile.frontier import Frontier

__all__ = ["content", "report"]

_AXES = (("accuracy", "latency"), ("accuracy", "energy"))


def report(folders: Sequence[Path], out: str | Path | None = None) -> tuple[dict[str, Any], Path]:
    """Write the report over all results in ``folders``.

    Args:
        folders: folders of result files.
        out: where it goes; default ``report/`` in the first folder.

    Returns:
        What frontier.json holds, and the report's folder.

    Raises:
        ArtifactError: a folder holds no results, or one is damaged.
        MissingExtraError: the extra ``report`` is not installed.
    """
    from effx.errors import need

    need("report", "matplotlib", "jinja2")
    from effx.profile.report import figures, page, tables

    runs, failures = results.read([Path(folder) for folder in folders])
    target = Path(out) if out is not None else Path(folders[0]) / "report"
    found = {axes: _frontiers(runs, axes) for axes in _AXES}
    everything = content(runs, found, failures)
    with files.new_folder(target, replace=_is_report(target)) as temporary:
        for axes, name in zip(_AXES, ("latency", "energy"), strict=True):
            for suffix in ("png", "svg"):
                figures.draw(found[axes], runs, axes[1], temporary / f"frontier-{name}.{suffix}")
        tables.write_csv(runs, found, temporary / "frontier.csv")
        files.write_json(temporary / "frontier.json", everything)
        page.write(everything, runs, temporary)
    return everything, target


def content(
    runs: Sequence[results.Run],
    found: dict[tuple[str, str], list[Frontier]],
    failures: Sequence[results.Failure] = (),
) -> dict[str, Any]:
    """Return what frontier.json holds."""
    import effx

    return {
        "schema": 1,
        "created": now(),
        "effx": effx.__version__,
        "frontiers": [one.to_json() for group in found.values() for one in group],
        "summary": frontiers.summary(runs),
        "failures": [{"engine": one.engine["name"], "failure": one.failure} for one in failures],
        "gates_failed": [
            {"engine": run.name, "gate": gate["name"], "detail": gate["detail"]}
            for run in frontiers.latest(runs)
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


def _frontiers(runs: Sequence[results.Run], axes: tuple[str, str]) -> list[Frontier]:
    """Return one frontier per task, host, evaluation set and (for energy) source."""
    cost = frontiers.OBJECTIVES[axes[1]]
    groups: dict[tuple[str, ...], list[results.Run]] = {}
    for run in frontiers.latest(runs):
        if cost.value(run) is None:
            continue
        single = run.workload("single-stream")
        source = single.energy.source if single and axes[1] == "energy" else ""
        key = (run.task, run.host_id, run.accuracy.source, str(run.accuracy.n), source)
        groups.setdefault(key, []).append(run)
    return [frontiers.frontier(groups[key], axes) for key in sorted(groups)]


def _is_report(folder: Path) -> bool:
    """Whether a folder is an earlier report (or empty), which alone may be replaced."""
    return folder.is_dir() and ((folder / "frontier.json").is_file() or not any(folder.iterdir()))
