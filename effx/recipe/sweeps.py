"""Sweeps without a recipe file: ``effx train tickets``, ``lottery``, ``transfer`` and ``adapt``.

Each builds the cells that a recipe would have with the same settings, in a separate workspace, and runs them
with the same engine: several processes may share a workspace, a sweep that was stopped is resumed, and
levels, seeds, kinds, shares, draws and models can be added. Cells are done in this process unless an executor
is given; see :class:`effx.recipe.execute.executors.InlineExecutor` for why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effx import files, records
from effx.artifacts import Checkpoint
from effx.errors import EffxError, UsageError
from effx.recipe.execute.executors import Executor, InlineExecutor
from effx.recipe.execute.run import make_plan, run_plan
from effx.recipe.execute.store import CellStore
from effx.recipe.graph import adaptation as adaptation_cells
from effx.recipe.graph import lottery as lottery_cells
from effx.recipe.graph import sweeps as ticket_cells
from effx.recipe.graph import transfer as transfer_cells
from effx.recipe.graph.cells import CellBuilder
from effx.recipe.graph.digests import Digests
from effx.recipe.graph.plan import Artifacts, CellPlan
from effx.recipe.language.recipe import ModelEntry, Recipe, TaskEntry
from effx.specs.adaptation import AdaptationSettings
from effx.specs.data import DataLocation, DataSettings, DataSource
from effx.specs.distillation import GivenTeacher
from effx.specs.heads import HeadSettings
from effx.specs.lottery import LotterySearchSettings
from effx.specs.tickets import TicketSearchSettings
from effx.specs.transfer import TransferSettings


@dataclass(frozen=True)
class LotterySearch:
    """What a search for lottery tickets has made."""

    checkpoints: list[Checkpoint]
    """Of every seed: the full model, then the tickets and the rounds before them; none if they are not kept.
    Their manifests have ``sparsity``."""
    table: dict[str, Any]
    """The content of table.json; see :mod:`effx.train.lottery.table`."""


def tickets(
    task_name: str,
    model_name: str | Path,
    *,
    out: str | Path | None = None,
    data_folder: DataLocation = None,
    settings: TicketSearchSettings | None = None,
    head: HeadSettings | None = None,
    scores: str | Path | None = None,
    teacher: GivenTeacher | None = None,
    executor: Executor | None = None,
) -> dict[str, Any]:
    """Search for super tickets, and write their table and figures.

    For every seed the encoder is fine-tuned and its structures are scored; each ticket is pruned by the
    scores, starts from the pretrained weights again and is fine-tuned. Completed cells are skipped.

    Args:
        task_name: a task of the table, or with ``data_folder`` any name for the user's rows.
        model_name: a folder with config.json and safetensors weights, or a name on the hub.
        out: the workspace; default ``tickets/TASK-MODEL``.
        data_folder: file or folder of the rows; default: the hub, or the demo corpus.
        settings: which tickets, and how to train.
        head: whether the model's task head is kept or replaced, for the full models and the tickets alike;
            default: kept if its labels are the task's.
        scores: importance scores of another search, by which tickets are pruned instead: its workspace, with
            importance-sSEED.json of every seed, or one such file for all seeds.
        teacher: a checkpoint of the task that the full models and the tickets learn from besides the labels.
            It lies outside the workspace.
        executor: where cells run; None: in this process.

    Returns:
        The content of table.json; see :mod:`effx.train.tickets.table`.

    Raises:
        UsageError: a setting is wrong.
        DataError: the rows do not fit the task.
        ArtifactError: a file of the workspace is damaged.
        StoppedError: by Ctrl-C or SIGTERM.
    """
    from effx.train import tickets as training

    settings = settings or TicketSearchSettings()
    given = None if scores is None else _scores_of(Path(scores), settings)
    training.check(task_name, str(model_name), data_folder, settings, head, given)
    limit = settings.finetune.training.limit
    models, folder = _workspace("tickets", task_name, model_name, out)
    _check_teacher(teacher, folder)
    recipe = recipe_of("tickets", task_name, models, folder, data_folder, limit, head)

    def add(builder: CellBuilder, artifacts: Artifacts) -> None:
        task, model = recipe.tasks[0], recipe.models[0]
        ticket_cells.add_search(
            builder, task, model, settings, artifacts, views="", scores=given, teacher=teacher
        )

    return _table(done(recipe, add, executor), "tickets")


def lottery(
    task_name: str,
    model_name: str | Path,
    *,
    out: str | Path | None = None,
    data_folder: DataLocation = None,
    settings: LotterySearchSettings | None = None,
    head: HeadSettings | None = None,
    teacher: GivenTeacher | None = None,
    executor: Executor | None = None,
) -> LotterySearch:
    """Train unstructured lottery tickets and the full model, and write their masks, table and figure.

    For every seed, the encoder is fine-tuned; masks are found as ``kind`` says, and every ticket is
    fine-tuned under its mask. Completed cells are skipped.

    Args:
        task_name: a task of the table, or with ``data_folder`` any name for the user's rows.
        model_name: a folder with config.json and safetensors weights, or a name on the hub.
        out: the workspace; default ``lottery/TASK-MODEL``, with ``-mlm`` or ``-mask``.
        data_folder: file or folder of the rows; default: the hub, or the demo corpus.
        settings: which tickets, and how to train.
        head: whether the model's task head is kept or replaced; default: kept if its labels are the task's.
        teacher: a checkpoint of the task that every fine-tuning learns from besides the labels. It lies
            outside the workspace.
        executor: where cells run; None: in this process.

    Raises:
        UsageError: a setting is wrong.
        DataError: the rows do not fit the task.
        ArtifactError: a mask or checkpoint is damaged or fits another model.
        StoppedError: by Ctrl-C or SIGTERM.
    """
    from effx.train import lottery as training

    settings = settings or LotterySearchSettings()
    training.check(task_name, str(model_name), data_folder, settings, head)
    kind = "mask" if settings.search.mask else settings.search.objective
    suffix = "" if kind == "task" else f"-{kind}"
    limit = settings.finetune.training.limit
    models, folder = _workspace("lottery", task_name, model_name, out, suffix)
    _check_teacher(teacher, folder)
    recipe = recipe_of("lottery", task_name, models, folder, data_folder, limit, head)

    def add(builder: CellBuilder, artifacts: Artifacts) -> None:
        lottery_cells.add_search(builder, recipe.tasks[0], recipe.models[0], settings, teacher)

    plan = done(recipe, add, executor)
    folders = [
        plan.store.cell(entry.key) / entry.cell.name
        for entry in plan.entries.values()
        if entry.cell.stage == "lottery" and entry.cell.keep
    ]
    return LotterySearch([Checkpoint.open(path) for path in folders], _table(plan, "lottery-table"))


def transfer(
    task_names: Sequence[str],
    model_name: str | Path,
    *,
    out: str | Path | None = None,
    data_folders: Mapping[str, DataLocation] | None = None,
    settings: TransferSettings | None = None,
    executor: Executor | None = None,
) -> dict[str, Any]:
    """Find masks or tickets on several tasks, train each task under each, and write their table and figure.

    Completed cells are skipped.

    Args:
        task_names: at least two tasks of the table, or with ``data_folders`` any names for the user's rows.
        model_name: a folder with config.json and safetensors weights, or a name on the hub.
        out: the workspace; default ``transfer/MODEL``.
        data_folders: task -> file or folder of its rows; default: the hub, or the demo corpus.
        settings: which masks and tickets, and how to train.
        executor: where cells run; None: in this process.

    Returns:
        The content of table.json; see :mod:`effx.train.transfer.table`.

    Raises:
        UsageError: a setting is wrong, or there are fewer than two tasks.
        DataError: the rows do not fit a task.
        ArtifactError: a file of the workspace is damaged.
        StoppedError: by Ctrl-C or SIGTERM.
    """
    from effx.train import transfer as training

    settings, head = settings or TransferSettings(), HeadSettings(fresh_head=True)
    folders = dict(data_folders or {})
    if len(task_names) < 2:
        raise UsageError("a transfer needs two tasks or more, e.g. mrpc,rte.")
    if double := next((name for name in task_names if list(task_names).count(name) > 1), None):
        raise UsageError(f"task '{double}' is given twice: expected different tasks.")
    if unknown := next((name for name in folders if name not in task_names), None):
        raise UsageError(f"data of {unknown}: it is not one of the tasks.", settings="data")
    locations = {name: folders.get(name) for name in task_names}
    training.check(locations, str(model_name), settings, head)
    models, folder = _workspace("transfer", "", model_name, out)
    recipe = Recipe(
        name="transfer",
        workspace=str(folder),
        tasks=tuple(_task(name, source, settings.limit_of(name)) for name, source in locations.items()),
        models=_models(models, head),
    )

    def add(builder: CellBuilder, artifacts: Artifacts) -> None:
        transfer_cells.add(builder, recipe.tasks, recipe.models[0], settings)

    return _table(done(recipe, add, executor), "transfer-table")


def adapt(
    task_name: str,
    models: Mapping[str, str | Path],
    *,
    out: str | Path | None = None,
    data_folder: DataLocation = None,
    settings: AdaptationSettings | None = None,
    head: HeadSettings | None = None,
    executor: Executor | None = None,
) -> dict[str, Any]:
    """Fine-tune several models on the same small shares of a task's rows, and write their table and figure.

    Args:
        task_name: the target: a task of the table, or with ``data_folder`` any name for the user's rows.
        models: name in the table -> a folder with config.json and safetensors weights, a checkpoint, or a
            name on the hub. The first is the one that the others are compared with.
        out: the workspace; default ``adaptation/TASK``.
        data_folder: file or folder of the rows; default: the hub, or the demo corpus.
        settings: shares, draws, and how to train.
        head: whether the models' task heads are kept or replaced; default: replaced.
        executor: where cells run; None: in this process.

    Returns:
        The content of table.json; see :mod:`effx.train.adaptation.table`.

    Raises:
        UsageError: a setting is wrong, or no model is given.
        DataError: the rows do not fit the task.
        ArtifactError: a checkpoint or a file of the workspace is damaged.
        StoppedError: by Ctrl-C or SIGTERM.
    """
    from effx.train import adaptation as training

    settings, head = settings or AdaptationSettings(), head or HeadSettings(fresh_head=True)
    if not models:
        raise UsageError("adaptation needs at least one model.", settings="model")
    training.check(task_name, [str(source) for source in models.values()], data_folder, settings, head)
    limit = settings.finetune.training.limit
    folder = Path(out) if out is not None else Path("adaptation") / task_name
    recipe = recipe_of("adaptation", task_name, models, folder, data_folder, limit, head)

    def add(builder: CellBuilder, artifacts: Artifacts) -> None:
        adaptation_cells.add(builder, recipe.tasks[0], recipe.models, settings)

    return _table(done(recipe, add, executor), "adaptation")


def _check_teacher(teacher: GivenTeacher | None, workspace: Path) -> None:
    """Raise :class:`UsageError` if a search might replace the checkpoint that it learns from by its own.

    The same command would then learn from another teacher when it is given again.
    """
    if teacher is not None and Path(teacher.folder).resolve().is_relative_to(workspace.resolve()):
        raise UsageError(
            f"the teacher {teacher.folder} lies in the workspace {workspace}, where this search writes "
            "checkpoints of its own: choose another workspace.", settings=("teacher", "out"),
        )  # fmt: skip


def _scores_of(path: Path, settings: TicketSearchSettings) -> dict[int, Path]:
    """Return seed -> file of scores.

    Raises:
        UsageError: there is no such file.
    """
    first = settings.finetune.training.seed
    names = {seed: path / f"importance-s{seed}.json" if path.is_dir() else path
             for seed in range(first, first + settings.seeds)}  # fmt: skip
    if missing := [name for name in names.values() if not name.is_file()]:
        raise UsageError(
            f"{missing[0]} does not exist: expected the workspace of a search with the same seeds, or a file "
            "of scores.", settings="scores",
        )  # fmt: skip
    return names


def _table(plan: CellPlan, stage: str) -> dict[str, Any]:
    """Return the table of a sweep."""
    entry = next(entry for entry in plan.entries.values() if entry.cell.stage == stage)
    return records.read_json(plan.store.cell(entry.key) / entry.cell.name / "table.json")


def recipe_of(
    kind: str,
    task_name: str,
    models: Mapping[str, str | Path],
    folder: Path,
    data_folder: DataLocation,
    limit: int | None,
    head: HeadSettings | None,
    **sections: Any,
) -> Recipe:
    """Return a recipe of one task and some models, without stages; ``sections`` are others of its fields."""
    task = _task(task_name, data_folder, limit)
    return Recipe(name=kind, workspace=str(folder), tasks=(task,), models=_models(models, head), **sections)


def _task(name: str, data_folder: DataLocation, limit: int | None) -> TaskEntry:
    """Return the entry of a task."""
    source = DataSource.of(data_folder)
    return TaskEntry(
        name=name,
        data=None if source is None else source.path,
        limit=limit,
        reading=DataSettings() if source is None else source.settings,
    )


def _models(models: Mapping[str, str | Path], head: HeadSettings | None) -> tuple[ModelEntry, ...]:
    """Return the entries of models by their short names."""
    settings = head or HeadSettings()
    return tuple(
        ModelEntry(label=label, source=str(source), head=settings) for label, source in models.items()
    )


def _workspace(
    kind: str, task_name: str, model_name: str | Path, out: str | Path | None, suffix: str = ""
) -> tuple[dict[str, str | Path], Path]:
    """Return a model by its short name, and the workspace; an empty ``task_name``: of several tasks."""
    from effx.models.huggingface import name_of

    label = files.safe_name(name_of(str(model_name)))
    name = f"{task_name}-{label}{suffix}" if task_name else label
    return {label: model_name}, Path(out) if out is not None else Path(kind) / name


def planned(recipe: Recipe, add: Callable[[CellBuilder, Artifacts], None]) -> CellPlan:
    """Return the plan of the cells that ``add`` adds."""

    def cells(digests: Digests, artifacts: Artifacts) -> list[Any]:
        builder = CellBuilder(recipe, digests)
        add(builder, artifacts)
        return builder.cells

    return make_plan(CellStore(recipe.folder), cells)


def done(
    recipe: Recipe, add: Callable[[CellBuilder, Artifacts], None], executor: Executor | None
) -> CellPlan:
    """Do the cells that ``add`` adds; raise the first failure.

    Raises:
        EffxError: a cell failed.
    """
    where = executor or InlineExecutor()
    try:
        result = run_plan(planned(recipe, add), where, recipe.budgets)
    finally:
        where.close()
    failed = [entry for entry in result.plan.entries.values() if entry.state == "failed"]
    if failed:
        raise EffxError(f"{failed[0].cell.id}: {failed[0].note}")
    return result.plan
