"""``effx compare-lengths``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from effx.analysis.objectives import OF_WORKLOADS
from effx.cli.technique_studies import answer, study_options


@click.command("compare-lengths")
@study_options(
    OF_WORKLOADS,
    tasks="Compare only on these tasks; repeatable. Default: on each.",
    cost="Cost, relative to the unreduced engine at the same length",
    out="Also write the tables to this folder (CSV, Markdown, LaTeX), relative costs against length as a "
    "figure (PNG, SVG) and length-dependence.json.",
    json_file="length-dependence.json",
)
def command(results: tuple[Path, ...], **settings: Any) -> None:
    """Show whether the best reduction depends on the length of the inputs, from RESULTS (default: ./results).

    RESULTS hold engines of a task, scored on the same rows and measured on one host and backend with a grid
    of two lengths or more for one batch size, as effx profile --grid 1x32,1x128. Compares the techniques with
    the unreduced fp32 engine, which must not have buckets or a fixed length: what they cost at each length,
    whether that depends on the length (adjusted for the number of tests), the cheapest that loses at most
    --max-drop at each length, and what they lose on short and on long rows. Results of several tasks, hosts,
    backends and devices are compared apart.

    \b
    effx compare-lengths results
    effx compare-lengths results --task sst2 --objective cpu_time -o lengths
    """  # fmt: skip
    from effx.analysis import length_dependence
    from effx.report import length_dependence as tables

    answer(length_dependence.compare, tables, results, **settings)
