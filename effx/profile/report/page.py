"""The page: one HTML file with its figures inside, no scripts, nothing from the network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from effx.profile.report import style
from effx.results import Run


def write(content: dict[str, Any], runs: Sequence[Run], folder: Path) -> None:
    """Write ``folder/index.html``; the figures are those already in the folder."""
    environment = Environment(
        loader=PackageLoader("effx.profile.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "ms": style.milliseconds,
        "mib": style.mebibytes,
        "mj": style.millijoules,
        "four": style.four,
    }
    drawn = {frontier["objectives"][1] for frontier in content["frontiers"]}
    figures = [
        (f"Accuracy and {cost}", base64.b64encode((folder / f"frontier-{cost}.svg").read_bytes()).decode())
        for cost in ("latency", "energy")
        if cost in drawn
    ]
    shapes = list(
        dict.fromkeys(
            (workload.batch, workload.sequence)
            for run in runs
            for workload in run.workloads
            if workload.scenario == "grid"
        )
    )
    text = environment.get_template("index.html.j2").render(
        content=content,
        runs=runs,
        hosts={run.host_id: run.host for run in runs},
        figures=figures,
        shapes=shapes,
        scenarios=[
            (run.name, workload)
            for run in runs
            for workload in run.workloads
            if workload.scenario not in ("single-stream", "grid")
        ],
    )
    (folder / "index.html").write_text(text, encoding="utf-8")
