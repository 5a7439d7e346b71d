"""Options: generated from settings, types of their values, and options that several commands share."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
from click.core import ParameterSource

from effx.artifacts import Checkpoint
from effx.errors import EffxError, UsageError, nearest
from effx.specs import backends, meters, presets, settings
from effx.specs.data import DataSettings, DataSource
from effx.specs.distillation import DistillationSettings, GivenTeacher
from effx.specs.quantities import Quantity
from effx.specs.settings import Leaf, Settings

if TYPE_CHECKING:
    from effx.train.distillation import Distillation

F = TypeVar("F", bound=Callable[..., Any])


def of(
    cls: type[Settings], *, without: Collection[str] = (), defaults: Mapping[str, Any] | None = None
) -> Callable[[F], F]:
    """Add an option for every setting of ``cls``, except those in ``without``.

    Name, type, choices, range, default and help are those of the field; ``defaults`` has this command's
    defaults by setting, where they differ. A help text names other settings in backticks, `max_drop`, which
    become options.
    """

    def add(function: F) -> F:
        leaves = [leaf for leaf in settings.leaves(cls) if leaf.name not in without]
        flags = {leaf.name: _flag(leaf) for leaf in leaves}
        for leaf in reversed(leaves):
            default = (defaults or {}).get(leaf.name, leaf.field.get_default())
            text = f"{leaf.field.description or ''} {cls.NOTES.get(leaf.name, '')}"
            function = _option(leaf, _with_flags(text, flags), default)(function)
        return function

    return add


def given(context: click.Context, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a command's values that the user gave, not the defaults."""
    return {
        name: value
        for name, value in values.items()
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }


def apart(cls: type[Settings], values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values that are settings of ``cls``, and the others."""
    fields = {leaf.name for leaf in settings.leaves(cls)}
    ours = {name: value for name, value in values.items() if name in fields}
    return ours, {name: value for name, value in values.items() if name not in fields}


def names(command: click.Command) -> dict[str, str]:
    """Return setting -> option for every option of a command."""
    result: dict[str, str] = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            option = max(parameter.opts, key=len)
            result[option.removeprefix("--").replace("-", "_")] = option
            if parameter.name:
                result[parameter.name] = option
    return result


def of_setting(setting: str) -> str:
    """Return the option of the current command that sets a setting."""
    return names(click.get_current_context().command)[setting]


def _flag(leaf: Leaf) -> str:
    """Return the option of a setting: its name without the unit."""
    parsed = settings.grammar(leaf.field)
    name = leaf.name.removesuffix(parsed.suffix) if isinstance(parsed, Quantity) else leaf.name
    return f"--{name.replace('_', '-')}"


def _with_flags(text: str, flags: Mapping[str, str]) -> str:
    """Return a help text on one line; settings in it, which are in backticks, become options."""
    named = re.sub(r"(?<!`)`(\w+)`(?!`)", lambda match: flags.get(match[1], match[0]), text)
    return " ".join(named.split())


def _option(leaf: Leaf, text: str, default: Any) -> Callable[[F], F]:
    field = leaf.field
    if settings.is_list(field) and default is not None:
        parsed = settings.grammar(field)
        default = ",".join(str(part) if parsed is None else parsed.text(part) for part in default)
    if settings.kind_of(field) is bool:
        return click.option(_flag(leaf), leaf.name, is_flag=True, default=default, help=text)
    return click.option(
        _flag(leaf),
        leaf.name,
        type=_type(leaf),
        default=default,
        show_default=default is not None,
        help=text,
    )


def _type(leaf: Leaf) -> click.ParamType:
    field, limits = leaf.field, settings.bounds(leaf.field)
    kind: click.ParamType = click.STRING
    if one_of := settings.choices(field):
        kind = Word(one_of.choices, one_of.noun)
    elif parsed := settings.grammar(field):
        kind = Grammar(parsed.parse, parsed.metavar)
    elif settings.kind_of(field) is int:
        kind = click.IntRange(_whole(limits.low), _whole(limits.high))
    elif settings.kind_of(field) is float:
        kind = Finite(limits.low, limits.high, min_open=limits.above, max_open=limits.below)
    return Listed(kind) if settings.is_list(field) else kind


def _whole(limit: float | None) -> int | None:
    return None if limit is None else int(limit)


class Word(click.Choice):
    """One of a few words; the nearest is named where another is given."""

    def __init__(self, words: Sequence[str], noun: str) -> None:
        super().__init__(list(words))
        self._words, self._noun = tuple(words), noun

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the word."""
        if value in self._words:
            return value
        hint, known = nearest(str(value), self._words), ", ".join(self._words)
        self.fail(f"unknown {self._noun} '{value}'.{hint} Known: {known}.", param, ctx)


class Grammar(click.ParamType):
    """A word that a parser accepts."""

    def __init__(self, parse: Callable[[str], Any], metavar: str) -> None:
        self._parse, self.name = parse, metavar

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return the grammar."""
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the word, once the parser has accepted it."""
        try:
            self._parse(str(value))
        except EffxError as error:
            self.fail(str(error), param, ctx)
        return value


class Listed(click.ParamType):
    """Values separated by commas."""

    def __init__(self, entry: click.ParamType) -> None:
        self._entry, self.name = entry, "list"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return the form of the list."""
        if isinstance(self._entry, click.Choice):
            return f"{'|'.join(map(str, self._entry.choices))},..."
        names = {"integer range": "INTEGER", "float range": "NUMBER"}
        return f"{names.get(self._entry.name, self._entry.name)},..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a tuple of the entries."""
        if not isinstance(value, str):
            return value
        parts = [part.strip() for part in value.split(",")]
        if isinstance(self._entry, Grammar):
            return tuple(parts)  # the settings parse a list as a whole: it may contain "..."
        return tuple(self._entry.convert(part, param, ctx) for part in parts)


class Finite(click.FloatRange):
    """A number in a range; neither nan nor infinite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def _use_meter(context: click.Context, _: click.Parameter, meter: str) -> None:
    """Measure what a command computes by a meter."""
    from effx.meters import running

    if not context.resilient_parsing:
        context.with_resource(running.using(running.Requested(meter, required=meter != "auto")))


def _meter(default: str) -> Callable[[F], F]:
    """Return the option of a meter of measurements."""
    return click.option(
        "--meter",
        type=Grammar(meters.check, meters.grammar()),
        default=default,
        show_default=True,
        help=f"Energy meter. {meters.help_text()}.",
    )


model = click.option(
    "--model",
    required=True,
    metavar="MODEL",
    help="Encoder: a folder with config.json and safetensors weights, a checkpoint of effx, or a name on the "
    "Hugging Face hub.",
)
meter = _meter("auto")
table_meter = _meter("none")
mask_preset = click.option(
    "--preset",
    type=Word(tuple(presets.MASK_PRESETS), "preset"),
    help="Settings of a paper's search for masks. universal: the mask by masked language modelling of Chen "
    "et al. 2020, pruned before training, in rounds of 10,000 steps on blocks of 512 tokens; needs --text. "
    "Other options override them.",
)
training_meter = click.option(
    "--meter",
    type=Grammar(meters.check, meters.grammar()),
    default="auto",
    show_default=True,
    expose_value=False,
    callback=_use_meter,
    help="Energy meter of the computation; what it took is recorded in the checkpoint. "
    f"{meters.help_text('the first meter that can read what is trained on')}.",
)
device = click.option(
    "--device",
    type=Word(backends.RUNNABLE_DEVICES, "device"),
    help="Device of the engines: cpu or cuda. Default: cpu, or cuda for backends without cpu.",
)
engines_folder = click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("engines"),
    show_default=True,
    help="Folder for engines.",
)
_CHECKPOINT = (
    click.option(
        "-o",
        "--out",
        type=click.Path(path_type=Path),
        default=Path("checkpoints"),
        show_default=True,
        help="Folder for checkpoints.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace a checkpoint of that name."),
    click.option("--json", "as_json", is_flag=True, help="Print the manifest."),
)


def workspace(holds: str) -> Callable[[F], F]:
    """Add ``--out`` for a workspace."""
    return click.option(
        "-o", "--out", type=click.Path(path_type=Path), metavar="DIR", help=f"Output folder: {holds}"
    )


def new_checkpoint(default_name: str) -> Callable[[F], F]:
    """Add name, folder, ``--overwrite`` and ``--json`` of a command that writes a checkpoint."""

    def add(function: F) -> F:
        name = click.option("--name", help=f"Name of the new checkpoint. Default: {default_name}.")
        for option in reversed((name, *_CHECKPOINT)):
            function = option(function)
        return function

    return add


trust_remote_code = click.option(
    "--trust-remote-code", is_flag=True, help="Run model code from the repository."
)


def data(default: str, *, labelled: bool = True, without: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Add ``--data`` and the options of how files are read; the command gets both as ``data_folder``.

    Args:
        default: where rows come from without the option.
        labelled: whether the command needs labels; otherwise it has ``--unlabelled``.
        without: settings of how files are read that the command does not have.
    """

    def add(function: F) -> F:
        settings = DataSettings.model_fields.keys() - {*without}

        @functools.wraps(function)
        def with_source(*arguments: Any, data_path: Path | None, **values: Any) -> Any:
            reading = {name: values.pop(name) for name in list(values) if name in settings}
            given = {
                name: value for name, value in reading.items() if value is not None and value is not False
            }
            if given and data_path is None:
                name = next(iter(given))
                raise UsageError(f"{name} says how local files are read: add data", settings=(name, "data"))
            source = None if data_path is None else DataSource(str(data_path), DataSettings.of(**given))
            return function(*arguments, data_folder=source, **values)

        option = click.option(
            "--data",
            "data_path",
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="File (.csv, .tsv, .txt, .jsonl, .json, .conll, .parquet, .arrow; text formats also .gz), "
            "or folder with a file for each split. " + default,
        )
        left_out = (*without, *(("unlabelled",) if labelled else ()))
        return cast(F, option(of(DataSettings, without=left_out)(with_source)))

    return add


def teacher(function: F) -> F:
    """Add ``--teacher`` and the settings of distillation."""
    return _teacher(of(DistillationSettings)(function))


def teacher_of_texts(function: F) -> F:
    """Add ``--teacher``, ``--unlabelled-data`` and the settings of distillation."""
    return _teacher(_unlabelled(of(DistillationSettings)(function)))


def teacher_of_predictions(function: F) -> F:
    """Add ``--teacher`` and the settings of distillation but for hidden states."""
    return _teacher(of(DistillationSettings, without=("hidden_weight",))(function))


def teachers_of_predictions(function: F) -> F:
    """Add ``--teacher``, once for each task, and the settings of distillation but for hidden states."""
    return click.option(
        "--teacher",
        "teachers",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="CHECKPOINT",
        help="Distillation: train the model to predict what this checkpoint of one of the tasks predicts; "
        "repeatable, once per task.",
    )(of(DistillationSettings, without=("hidden_weight",))(function))


def given_teacher(
    given: Mapping[str, Any], teacher: Path | None
) -> tuple[GivenTeacher | None, dict[str, Any]]:
    """Return the teacher of a sweep, and the settings among those ``given`` that are not of distillation.

    Raises:
        UsageError: settings of distillation without a teacher.
        ArtifactError: it is not a checkpoint.
    """
    found, rest = distillation(given, teacher)
    if found is None:
        return None, rest
    return GivenTeacher(str(found.teacher), Checkpoint.open(found.teacher).digest, found.settings), rest


def _unlabelled(function: F) -> F:
    return click.option(
        "--unlabelled-data",
        type=click.Path(exists=True, path_type=Path),
        metavar="FILE",
        help="Further texts without labels to learn from the teacher on: .csv, .tsv, .txt, .jsonl, .json, "
        ".parquet or .arrow, with the columns of the task. Texts of validation rows, and of rows that early "
        "stopping is decided on, are dropped.",
    )(function)


def _teacher(function: F) -> F:
    return click.option(
        "--teacher",
        type=click.Path(path_type=Path),
        metavar="CHECKPOINT",
        help="Distillation: train the model to predict what this checkpoint of the same task predicts.",
    )(function)


def distillation(
    given: Mapping[str, Any], teacher: Path | None, unlabelled_data: Path | None = None
) -> tuple[Distillation | None, dict[str, Any]]:
    """Return the teacher with the settings of distillation among those ``given``, and the other settings.

    Raises:
        UsageError: settings of distillation without a teacher.
    """
    settings, rest = apart(DistillationSettings, given)
    if teacher is None:
        names = [*settings, *(["unlabelled_data"] if unlabelled_data else [])]
        if names:
            raise UsageError(f"{names[0]} has no effect without a teacher: add teacher",
                             settings=(names[0], "teacher"))  # fmt: skip
        return None, rest
    from effx.train.distillation import Distillation

    return Distillation(teacher, DistillationSettings.of(**settings), unlabelled_data), rest


def distillations(
    given: Mapping[str, Any], teachers: Sequence[Path]
) -> tuple[list[Distillation], dict[str, Any]]:
    """Return :func:`distillation` of each of several teachers, and the settings that are not of distillation.

    Raises:
        UsageError: settings of distillation without a teacher.
    """
    found = [distillation(given, teacher) for teacher in teachers]
    rest = found[0][1] if found else distillation(given, None)[1]
    return [each for each, _ in found if each is not None], rest


def show(checkpoint: Checkpoint, as_json: bool, line: str) -> None:
    """Print a checkpoint's manifest or one line about it."""
    click.echo(json.dumps(checkpoint.to_json(), indent=1) if as_json else f"{checkpoint.folder}: {line}")


def against_baseline(checkpoint: Checkpoint) -> str:
    """Return a remark on a checkpoint that is not better than one answer for every row; else ''."""
    baseline = checkpoint.manifest.baseline
    if baseline is None or checkpoint.manifest.metrics[checkpoint.task.metric] > baseline.score:
        return ""
    return f"; this is not better than always predicting {baseline.answer} ({baseline.score:.4f})"
