"""``effx run``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click


@click.command("run")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a value of the recipe, e.g. tasks.sst2.limit=300; VALUE is YAML. Repeatable.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Workspace (output folder). Default: the workspace in the recipe, or effx-NAME.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan without running it.")
@click.option(
    "--on",
    "where",
    default="local",
    show_default=True,
    metavar="local|ray[:ADDRESS]",
    help="Where cells run: this machine, or a Ray cluster.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan with the outcome of each cell.")
def command(
    recipe: Path, assignments: tuple[str, ...], out: Path | None, dry_run: bool, where: str, as_json: bool
) -> int:
    """Run RECIPE, a YAML file: train, export, profile, report.

    A recipe consists of cells, one per checkpoint, engine, profiling session and report. Completed
    cells are skipped: after Ctrl-C, a crash or a change of the recipe, the same command resumes the
    run. Paths in a recipe are relative to the working directory. Exit code 1: an engine did not pass
    its parity gate, a cell could not be run because nothing that it reads was built, or the time
    budget ran out; 2: a cell failed. If a cell fails, all cells that do not need it are still run.

    \b
    effx run recipes/demo.yaml
    effx run recipes/sst2-frontier.yaml --dry-run --set models.encoder=./minilm
    effx run recipes/sst2-frontier.yaml --set tasks.sst2.data=../data/sst2 --set limit=300
    """  # fmt: skip
    from effx import files
    from effx.errors import StoppedError
    from effx.host import identity
    from effx.recipe import load, plan, run
    from effx.recipe.execute.executors import check_executor, executor

    check_executor(where)
    wanted = load(recipe, assignments, workspace=out)
    if not dry_run or not wanted.folder.is_dir():  # a plan of what is done needs no more than to read it
        files.check_writable(wanted.folder)
    if dry_run:
        planned = plan(wanted, identity.host().id)
        if as_json:
            click.echo(json.dumps(planned.to_json(), indent=1))
        else:
            from effx.recipe.execute import console

            console.print_plan(planned, wanted)
        return 0
    try:
        result = run(wanted, executor=executor(where, wanted))
    except StoppedError as error:
        again = ["effx", "run", str(recipe)]
        again += [word for assignment in assignments for word in ("--set", assignment)]
        again += ["-o", str(out)] if out else []
        again += ["--on", where] if where != "local" else []
        raise StoppedError(f"{error} To resume: {shlex.join(again)}", error.exit_code) from None
    if as_json:
        click.echo(json.dumps(result.plan.to_json(), indent=1))
    else:
        from effx.recipe.execute import console

        console.print_result(result)
    return result.exit_code
