"""The report: frontiers, tables, figures and one self-contained page from result files.

    results -> groups (frontiers) -> comparisons -> figures, tables, payload -> page

All statistics are computed here; the page only sorts, filters and draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from effx import files, results
from effx.analysis import cohorts
from effx.errors import UsageError, need
from effx.host import memory
from effx.report import sections as section_files
from effx.report.contents import ReportContents, collect_contents

__all__ = ["ReportContents", "report"]

_INDENTED = 1000
"""Number of results up to which frontier.json is indented."""


def report(
    folders: Sequence[Path], out: str | Path | None = None, *, sections: Sequence[Path] = ()
) -> tuple[ReportContents, Path]:
    """Write the report over all results in ``folders``.

    Args:
        folders: folders of result files.
        out: the report's folder; default ``report/`` in the first folder, or next to the first file.
        sections: JSON files with further sections (see :mod:`effx.report.sections`), shown after those
            in ``sections/`` of the results folders.

    Returns:
        What frontier.json holds, and the report's folder.

    Raises:
        ArtifactError: a folder holds no results, or a result or section is damaged.
        UsageError: ``out`` exists and is not a report, or cannot be written to.
        MissingExtraError: the extra ``report`` is not installed.
    """
    need("report", "matplotlib", "jinja2")
    from effx.report import (
        frontier_figures,
        latex,
        length_dependence,
        page,
        seeds,
        slices,
        studies,
        tables,
        task_dependence,
        training_costs,
    )
    from effx.report.comparisons import compare_groups
    from effx.report.groups import group_runs
    from effx.report.payload import payload

    folders = [Path(folder) for folder in folders]
    further = section_files.read([*section_files.in_results(folders), *map(Path, sections)])
    first = folders[0]
    target = Path(out) if out is not None else (first.parent if first.is_file() else first) / "report"
    if target.exists() and not _is_report(target):
        raise UsageError(
            f"{target} exists already and is not a report: choose another output folder.", settings="out"
        )
    with memory.collector_paused():
        runs, failures = results.read(folders)
        failures = cohorts.current_failures(failures, runs)
        groups = group_runs(runs)
        comparisons, refused = compare_groups(groups)
        content = collect_contents(runs, groups, failures)
        costs = training_costs.sheet(groups)
        of_tasks = task_dependence.of_report(runs)
        of_lengths = length_dependence.of_report(runs)
    with files.new_folder(target, replace=_is_report(target)) as temporary:
        frontier_figures.write(groups, runs, comparisons, temporary)
        tables.write_csv(runs, groups, content.seed_means, temporary / "frontier.csv")
        tables.write_grid(runs, temporary / "grid.csv")
        tables.write_comparisons(comparisons, temporary / "comparisons.csv")
        if costs is not None:
            costs.write(temporary)
        latex.write(groups, temporary / "tables.tex")
        seeds.write(content.seed_means, temporary)
        studies.write_of_report("tasks", of_tasks, temporary / "tasks", task_dependence.write)
        studies.write_of_report("lengths", of_lengths, temporary / "lengths", length_dependence.write)
        generated = [
            seeds.section(content.seed_means),
            *map(task_dependence.section, of_tasks),
            *map(length_dependence.section, of_lengths),
            *slices.of_groups(groups, further),
            None if costs is None else training_costs.section(costs),
        ]
        shown = [*(each for each in generated if each is not None), *further]
        files.write_json(temporary / "frontier.json", content.to_json(), indented=len(runs) <= _INDENTED)
        data = payload(content.created, runs, groups, (comparisons, refused), failures, shown)
        (temporary / "index.html").write_text(page.render(data), encoding="utf-8")
    return content, target


def _is_report(folder: Path) -> bool:
    """Return whether a folder is an earlier report or empty, so that it may be replaced."""
    return folder.is_dir() and ((folder / "frontier.json").is_file() or not any(folder.iterdir()))
