"""The command line: each command parses, calls one function, prints.

stdout is for results, stderr for progress and errors. Commands are imported when they are used,
so ``effx --help`` loads nothing heavy.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

import effx
from effx import signals
from effx.errors import EffxError, MissingExtraError, StoppedError, nearest, one_line, printable

_EXTRAS = {
    "torch": "train", "transformers": "train", "accelerate": "train", "safetensors": "train",
    "onnx": "export", "onnxscript": "export", "onnxruntime": "cpu",
    "openvino": "openvino", "nncf": "openvino",
    "matplotlib": "report", "jinja2": "report", "datasets": "hub", "pyarrow": "hub",
    "mlflow": "mlflow",
}  # fmt: skip


EXIT_CODES = {
    0: "done",
    1: "a gate or check failed",
    2: "wrong input, or something else that the user can correct",
    3: "internal error",
    130: "stopped by Ctrl-C",
    143: "stopped by SIGTERM",
}


_MAX_LINE = 1000
"""Characters of a message at most: it may repeat a value of any length."""
_COMMAND = "command"
"""Key of the context's object: the command that raised an error."""


class LazyGroup(click.Group):
    """A group whose commands are named in a table and imported on use."""

    def __init__(self, *args: Any, table: dict[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._table)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self._table:
            return None
        module, _ = self._table[name]
        return importlib.import_module(module).command  # type: ignore[no-any-return]

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EffxError:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            if command is not None and not isinstance(command, click.Group):
                ctx.ensure_object(dict)[_COMMAND] = command
            raise

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self._table:
            known = ", ".join(self._table)
            raise click.UsageError(
                f"no command '{args[0]}'.{nearest(args[0], self._table)} Known: {known}.", ctx
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._table.items()])


@click.group(
    cls=LazyGroup,
    table={
        "demo": ("effx.cli.demo", "Run the whole pipeline on a generated data set."),
        "run": ("effx.cli.recipe", "Run a recipe: train, export, profile, report."),
        "train": ("effx.cli.train", "Fine-tune and reduce encoders."),
        "optimize": ("effx.cli.optimize", "Find the cheapest engine that keeps its accuracy."),
        "import": ("effx.cli.import_", "Make a checkpoint from a model fine-tuned elsewhere."),
        "export": ("effx.cli.export", "Build engines from checkpoints and verify them."),
        "import-engine": ("effx.cli.import_engine", "Make an engine from a graph of another tool."),
        "verify": ("effx.cli.verify", "Compare engines with their checkpoints again."),
        "profile": ("effx.cli.profile", "Measure engines: accuracy, latency, energy, memory."),
        "cost-table": ("effx.cli.cost_table", "Measure what heads and FFNs cost on this machine."),
        "report": ("effx.cli.report", "Write the report: frontiers, tables, a page."),
        "tickets": ("effx.cli.ticket_analyses", "Analyse finished searches for super tickets."),
        "recommend": ("effx.cli.recommend", "Recommend an engine to deploy, with its certainty."),
        "compare": ("effx.cli.compare", "Compare two engines."),
        "compare-tasks": ("effx.cli.compare_tasks", "Show whether the best reduction depends on the task."),
        "compare-lengths": (
            "effx.cli.compare_lengths",
            "Show whether the best reduction depends on the length of the inputs.",
        ),
        "slices": ("effx.cli.slices", "Show on which rows reduced engines lose more than on others."),
        "check": ("effx.cli.check", "Check one engine against limits, for CI."),
        "doctor": ("effx.cli.doctor", "Check what works on this machine, and how to fix what does not."),
        "completion": ("effx.cli.completion", "Tab completion for bash, zsh or fish."),
    },
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(effx.__version__, prog_name="effx")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Find the cheapest way to run a BERT-class encoder on the hardware you deploy on.

    Train, reduce, export, then measure the engines on this machine.

    \b
    effx train finetune sst2 --model bert-base-uncased
    effx export --variant fp32 --variant int8
    effx profile engines/
    effx report results/
    effx recommend results/ --max-drop 0.01 --max-p90 5ms

    \b
    effx run recipes/demo.yaml
    effx doctor
    """


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; errors become one line on stderr."""
    debug = "--debug" in arguments or bool(os.environ.get("EFFX_DEBUG"))
    state: dict[str, click.Command] = {}
    try:
        code = _invoke(arguments, state)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.ClickException as error:
        return _fail(_one_line(error), error.exit_code if error.exit_code != 1 else 2)
    except (click.Abort, KeyboardInterrupt) as error:  # click makes an Abort of the other
        stop = error.__cause__ if isinstance(error, click.Abort) and error.__cause__ else error
        notes = getattr(stop, "__notes__", ["completed work was saved."])
        number = signals.exit_code(stop) if isinstance(stop, KeyboardInterrupt) else 130
        return _fail(f"stopped; {' '.join(notes)}", number)
    except BrokenPipeError:  # the reader of stdout, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except EffxError as error:
        if debug:
            raise
        return _fail(_with_options(error, state.get(_COMMAND)), error.exit_code, *error.lines()[1:])
    except ModuleNotFoundError as error:
        root = (error.name or "").split(".")[0]
        if debug or root not in _EXTRAS:
            raise
        message = f"{root} is not installed. Run: pip install 'effx[{_EXTRAS[root]}]'"
        return _fail(message, MissingExtraError.exit_code)
    except OSError as error:
        if debug:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        return _fail(f"{where}{error.strerror or error}.", 2)
    except Exception as error:
        if debug:
            raise
        text = one_line(f"{type(error).__name__}: {error}", 300)
        return _fail(f"internal error: {text} Run again with --debug for the traceback, and report it.", 3)
    return code if isinstance(code, int) else 0


def _invoke(arguments: list[str], state: dict[str, click.Command]) -> Any:
    """Run a command; whatever it returns or raises after a signal, it was stopped.

    Raises:
        StopRequest: a library has turned the exception of the signal into another, or swallowed it.
    """
    try:
        code = cli.main(arguments, prog_name="effx", standalone_mode=False, obj=state)
    except (click.Abort, StoppedError):
        raise
    except Exception as error:
        if (stop := signals.requested()) is not None:
            raise stop from error
        raise
    finally:
        signals.acknowledge()
    if (stop := signals.requested()) is not None:
        stop.add_note("the command had completed.")
        raise stop
    return code


def _with_options(error: EffxError, command: click.Command | None) -> str:
    """Return the error's first line with the options of the command that set what it is about."""
    from effx.cli.options import names

    known = {} if command is None else names(command)
    concerned = dict.fromkeys(known[name] for name in error.settings if name in known)
    options = [option for option in concerned if option not in str(error)]
    first = error.lines()[0]
    return (
        f"{first} ({'option' if len(options) == 1 else 'options'} {', '.join(options)})" if options else first
    )


def _one_line(error: click.ClickException) -> str:
    message = one_line(error.format_message(), None)
    context = getattr(error, "ctx", None)
    if context is not None and not message.endswith("."):
        message += "."
    if context is not None:
        message += f" See: {context.command_path} --help"
    return message


def _fail(message: str, code: int, *details: str) -> int:
    for line in (f"effx: {message}", *details):
        text = printable(line)
        print(text if len(text) <= _MAX_LINE else f"{text[:_MAX_LINE]}...", file=sys.stderr)
    return code
