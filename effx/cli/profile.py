"""``effx profile``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from effx.cli import options
from effx.errors import UsageError
from effx.specs.data import DataSource
from effx.specs.measurement import MeasurementPlan
from effx.specs.workloads import SCENARIOS, SELECT_ALL

_WITHOUT_OPTION = (
    "scenarios", "rate_per_s", "block_queries", "block_s", "block_limit_s", "grid_rounds", "grid_queries",
    "grid_block_s", "grid_limit_s", "offline_batches", "warmup_s", "window_s", "windows", "batch_size",
    "timeout_s", "trust",
)  # fmt: skip
"""Settings of recipes and of Python; three have shorter options below."""
_WITH_RESUME = {"session", "out", "trust", "no_wait", "uri", "with_recommendation", "strict", "as_json"}
"""Options that are not about what is measured."""


@click.command("profile")
@click.argument("engines", nargs=-1, type=click.Path(path_type=Path))
@options.data("Default: where the checkpoint's validation rows came from.", labelled=False)
@options.meter
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    type=options.Word((*SCENARIOS, SELECT_ALL), "scenario"),
    help="Scenario to measure in addition to single-stream; repeatable. "
    + "".join(f"{name}: {what}. " for name, what in SCENARIOS.items())
    + f"{SELECT_ALL}: every scenario.",
)
@click.option(
    "--rate",
    "rate_per_s",
    type=options.Finite(min=0, min_open=True),
    metavar="QPS",
    help="Queries per second in the server scenario. Default: half the throughput of the slowest engine.",
)
@options.of(MeasurementPlan, without=_WITHOUT_OPTION)
@click.option(
    "--timeout",
    "timeout_s",
    type=options.Finite(min=0, min_open=True),
    default=MeasurementPlan.model_fields["timeout_s"].default,
    show_default=True,
    metavar="SECONDS",
    help="Seconds without an answer after which an engine counts as hung and has failed.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Folder for results.",
)
@click.option(
    "--host",
    metavar="NAME",
    help="Name of this machine in results; distinguishes machines with the same hardware. Default: the host "
    "name.",
)
@click.option(
    "--reference",
    metavar="ENGINE",
    help="For rows without labels: name or folder of the engine that the others are compared with. Default: "
    "the unreduced fp32 engine.",
)
@click.option(
    "--resume",
    "session",
    metavar="SESSION",
    help="Measure what is left of a session that was interrupted, with its engines and settings. Its id was "
    "printed; its file is OUT/unfinished/SESSION.jsonl.",
)
@click.option(
    "--no-wait",
    is_flag=True,
    help="Fail if another effx run measures on this host. Default: wait until it has ended.",
)
@click.option("--mlflow", "uri", metavar="URI", help="Log the results to this MLflow store as well.")
@click.option(
    "--trust",
    is_flag=True,
    help="Also open engines that can run code (PyTorch programs) and were not built on this machine.",
)
@click.option(
    "--recommend",
    "with_recommendation",
    is_flag=True,
    help="Also print the engine to deploy, as effx recommend does for the results of this session.",
)
@click.option("--strict", is_flag=True, help="Exit with code 1 if a gate failed.")
@click.option("--json", "as_json", is_flag=True, help="Print the results.")
@click.pass_context
def command(
    context: click.Context,
    /,
    engines: tuple[Path, ...],
    data_folder: DataSource | None,
    meter: str,
    scenarios: tuple[str, ...],
    rate_per_s: float | None,
    out: Path,
    host: str | None,
    reference: str | None,
    session: str | None,
    no_wait: bool,
    uri: str | None,
    trust: bool,
    with_recommendation: bool,
    strict: bool,
    as_json: bool,
    **settings: Any,
) -> int:
    """Measure ENGINES (default: all in ./engines) and write one result each.

    Each engine runs in a separate process, and the engines take turns, so that slow periods of the
    machine affect all of them. Measured are accuracy on every validation row, latency of single
    queries at the rows' lengths, latency for a grid of batch sizes and sequence lengths, peak memory,
    and energy if the machine has a meter. On rows without labels, agreement with a reference engine is
    measured instead of accuracy. Exit code 1: an engine failed, a quality gate failed and --strict was
    given, or --recommend has no engine to recommend. After Ctrl-C or a crash, --resume measures what is
    left.

    \b
    effx profile engines/
    effx profile engines/ --data ../data/sst2 --grid 1x32,32x128 --meter rapl
    effx profile engines/ --data texts.csv --unlabelled
    effx profile engines/ --recommend
    """  # fmt: skip
    from effx.analysis import batches, majority
    from effx.export.foreign.location import is_foreign
    from effx.profile import journal, profile, resume
    from effx.report import tracking

    if with_recommendation and as_json:
        raise UsageError("--recommend prints text: run effx recommend --json afterwards instead of --json.")
    if graph := next(filter(is_foreign, engines), None):
        raise UsageError(
            f"{graph} was not built by effx. Make an engine from it: effx import-engine {graph} --task TASK"
        )
    if uri is not None:
        tracking.check(uri)
    try:
        if session is not None:
            given = set(options.given(context, context.params)) - _WITH_RESUME
            if given:
                raise UsageError(
                    "a session is resumed with its engines and settings: leave these out",
                    settings=tuple(given),
                )
            runs, failures = resume(session, out=out, trust=trust, wait=not no_wait)
        else:
            plan = MeasurementPlan.of(scenarios=scenarios, rate_per_s=rate_per_s, trust=trust, **settings)
            runs, failures = profile(
                engines or (Path("engines"),),
                out=out,
                plan=plan,
                meter=meter,
                data_folder=data_folder,
                host=host,
                reference=reference,
                wait=not no_wait,
            )
    except KeyboardInterrupt as stop:
        left = sorted((out / journal.FOLDER).glob("*.jsonl"), key=lambda path: path.stat().st_mtime)
        if left:
            again = [
                "effx",
                "profile",
                "--resume",
                left[-1].stem,
                "-o",
                str(out),
                *(["--trust"] if trust else []),
            ]
            stop.add_note(f"To resume: {shlex.join(again)}")
        raise
    if as_json:
        click.echo(json.dumps([run.to_json() for run in runs]))
    else:
        from effx.report import tables

        tables.print_runs(runs)
        click.echo(f"{len(runs)} results in {out}")
        for run in runs:
            for gate in run.failed_gates:
                click.echo(f"{run.name}: gate failed: {gate.label}: {gate.detail}", err=True)
            for remark in filter(None, (majority.remark(run), batches.remark(run))):
                click.echo(f"note: {remark}", err=True)
    if uri is not None:
        tracking.log_runs(runs, uri)
    code = 1 if failures or (strict and any(run.flags for run in runs)) else 0
    if with_recommendation and runs:
        from effx import results
        from effx.analysis.recommend import recommend
        from effx.cli.recommend import print_answers

        unanswered: list[str] = []
        lost = results.failures([out]) if failures else []
        lost = [failure for failure in lost if failure.session == runs[0].session]
        answers = recommend(runs, failures=lost, unanswered=unanswered)
        code = max(code, print_answers(answers), 1 if unanswered else 0)
    return code
