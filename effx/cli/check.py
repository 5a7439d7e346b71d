"""``effx check``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from effx.cli import options
from effx.specs.constraints import CheckSettings

if TYPE_CHECKING:
    from effx.analysis.check import Subject
    from effx.results import Failure, Run

_STDOUT = Path("-")


@click.command("check")
@click.argument("subject", metavar="ENGINE|RESULT")
@click.argument("results", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--baseline",
    metavar="ENGINE|RESULT",
    help="Engine or result that --max-drop compares with; it must be another engine.",
)
@options.of(CheckSettings)
@click.option("--host", metavar="H", help="Only results of this host.")
@click.option(
    "--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write JUnit XML; - is standard output."
)
@click.option(
    "--markdown", type=click.Path(path_type=Path), metavar="FILE", help="Write a table; - is standard output."
)
@click.option("--json", "as_json", is_flag=True, help="Print the verdicts as JSON.")
def command(
    subject: str,
    results: tuple[Path, ...],
    baseline: str | None,
    host: str | None,
    junit: Path | None,
    markdown: Path | None,
    as_json: bool,
    **settings: Any,
) -> int:
    """Check one engine against limits, for CI.

    ENGINE|RESULT is the name or folder of an engine, or the id or file of a result. For a name, the latest
    result in RESULTS (default: ./results) is checked; for a folder, the latest result of exactly this build.

    Each limit is tested one-sided with the given confidence. It holds, is violated, or the measurement is
    inconclusive; then the output says, where it can be estimated, how many rows or rounds are needed. Exit
    code 0: every limit holds. Exit code 1: a limit is violated or inconclusive, or a quality gate failed.
    Exit code 2: nothing can be checked, e.g. because the baseline was measured on another host or other
    rows.

    \b
    effx check engines/sst2.int8.onnxruntime --baseline sst2.fp32.onnxruntime --max-drop 1%
    effx check sst2.int8.onnxruntime --max-p90 5ms --max-memory 500MB --min-accuracy 0.9
    """  # fmt: skip
    from effx.analysis import check_report
    from effx.analysis.check import check, select

    limits = CheckSettings.of(**settings)
    named = [name for name in (subject, baseline) if name is not None]
    runs, failures = _read(named, results)
    of_baseline = None if baseline is None else _subject(baseline)
    run, other = select(runs, failures, _subject(subject), of_baseline, host)
    result = check(run, other, limits)
    for path, form in ((junit, check_report.junit), (markdown, check_report.markdown)):
        if path == _STDOUT:
            click.echo(form(result, options.of_setting), nl=False)
        elif path is not None:
            path.write_text(form(result, options.of_setting), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=1, allow_nan=False))
    elif _STDOUT not in (junit, markdown):
        click.echo(check_report.text(result, options.of_setting))
    return 0 if result.passed else 1


def _read(named: list[str], folders: tuple[Path, ...]) -> tuple[list[Run], list[Failure]]:
    """Read the results that are named as files, and the folders where others are looked up."""
    from effx.results import read

    paths = [Path(name) for name in named if Path(name).is_file()]
    if len(paths) < len(named) or folders:
        paths += folders or (Path("results"),)
    return read(paths)


def _subject(name: str) -> Subject:
    """Return what a name, folder or file on the command line means."""
    from effx.analysis.check import Subject
    from effx.artifacts import Engine
    from effx.results import read

    path = Path(name)
    if path.is_file():
        runs, failures = read([path])
        return Subject(runs[0].id if runs else failures[0].id)
    if Engine.is_at(path):
        return Subject(name, Engine.open(path).digest)
    return Subject(name)
