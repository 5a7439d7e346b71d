"""``effx optimize`` as a function: checks, plans and does the cells of :mod:`effx.recipe.graph.optimize`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from effx import scratch
from effx.errors import EffxError
from effx.meters import running
from effx.optimize.check import Checked, check
from effx.recipe import sweeps
from effx.recipe.execute.executors import InlineExecutor, check_executor
from effx.recipe.execute.executors import executor as executor_of
from effx.recipe.graph import optimize as cells
from effx.recipe.graph.cells import CellBuilder
from effx.recipe.graph.plan import Artifacts, CellPlan
from effx.recipe.language.recipe import BackendEntry, Recipe
from effx.specs.data import DataLocation
from effx.specs.optimize import OptimizeSettings, workload_of


@dataclass(frozen=True)
class Optimized:
    """What :func:`optimize` did."""

    recipe: Recipe
    plan: CellPlan
    folder: Path | None
    """With answer.json, answer.md and answer.txt; None: it was only planned."""


def optimize(
    checkpoint: str | Path,
    *,
    out: str | Path | None = None,
    data_folder: DataLocation = None,
    settings: OptimizeSettings | None = None,
    backends: Sequence[str] = (),
    device: str | None = None,
    built_for: str | None = None,
    meter: str = "auto",
    unlabelled: Path | None = None,
    where: str = "local",
    dry_run: bool = False,
) -> Optimized:
    """Find the cheapest engine of a fine-tuned model that is proven to lose at most what is accepted.

    Args:
        checkpoint: with all of its heads and neurons.
        out: the workspace; default ``optimized/NAME``.
        data_folder: file or folder of the rows; default: where the checkpoint's came from. Rows without
            labels get those that the checkpoint predicts; engines are scored by their agreement with it.
        settings: what is accepted and looked for.
        backends: runtimes; default: those of the CPU that are installed, or on a GPU the first that is. On
            a GPU a single one.
        device: ``cpu`` or ``cuda``; default: that of the backends.
        built_for: workload, see :func:`effx.specs.measurement.built_for`; default: single rows, or offline
            batches for throughput.
        meter: energy meter.
        unlabelled: further texts for the training after pruning.
        where: cells run in this process (``local``), or on Ray (``ray[:ADDRESS]``).
        dry_run: plan only.

    Raises:
        UsageError: a setting is wrong, or the checkpoint has lost heads or neurons.
        DataError: the rows do not fit the task, or too few of them prove anything.
        ArtifactError: the checkpoint or a file of the workspace is damaged.
        DeviceError: there is no usable GPU.
        StoppedError: by Ctrl-C or SIGTERM.
    """
    settings = settings or OptimizeSettings()
    workload = workload_of(settings, built_for)
    folder = Path(out) if out is not None else Path("optimized") / Path(checkpoint).name
    labelled = folder / "labelled"
    with contextlib.ExitStack() as until_planned:
        if dry_run:
            labelled = until_planned.enter_context(scratch.folder("labelled"))
        checked = check(
            Path(checkpoint), settings, workload, data_folder, backends, meter, labelled, device=device
        )
        return _optimize(checked, folder, settings, workload, meter, unlabelled, where, dry_run=dry_run)


def _optimize(
    checked: Checked,
    folder: Path,
    settings: OptimizeSettings,
    workload: str,
    meter: str,
    unlabelled: Path | None,
    where: str,
    *,
    dry_run: bool,
) -> Optimized:
    entries = tuple(BackendEntry(backend=name, device=checked.device) for name in checked.backends)
    recipe = sweeps.recipe_of(
        "optimize", checked.task.name, {}, folder, checked.rows, settings.limit, None, backends=entries
    )
    check_executor(where)
    runner = InlineExecutor() if where == "local" else executor_of(where, recipe)

    def add(builder: CellBuilder, artifacts: Artifacts) -> None:
        cells.add(
            builder, recipe.tasks[0], checked, settings, artifacts,
            workload=workload, meter=meter, host=runner.host, unlabelled=unlabelled,
        )  # fmt: skip

    if dry_run:
        return Optimized(recipe, sweeps.planned(recipe, add), None)
    with running.using(running.Requested(meter)):
        plan = sweeps.done(recipe, add, runner)
    entry = next((entry for entry in plan.entries.values() if entry.cell.stage == "answer"), None)
    if entry is None or entry.state != "done":
        left = [entry for entry in plan.entries.values() if entry.state in ("gate", "refused", "blocked")]
        why = f": {left[0].cell.id}: {left[0].note}" if left else ""
        raise EffxError(f"no engine could be built{why}")
    return Optimized(recipe, plan, plan.store.cell(entry.key) / entry.cell.name)
