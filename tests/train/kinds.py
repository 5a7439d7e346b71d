"""What tests of kinds of tasks share: a checkpoint fine-tuned on rows, its engines, and a run of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from effx import data, results
from effx.artifacts import Checkpoint
from effx.data import Rows
from effx.export.plan import export_all
from effx.profile import record
from effx.specs.data import DataSettings, DataSource
from effx.specs.training import FinetuneSettings
from effx.specs.workloads import SINGLE_STREAM
from effx.train import finetune
from tests import cache as caches
from tests.analysis import simulated_results


def fine_tuned(
    cache: caches.Cache, encoder: Path, rows: Path, kind: str | None = None, **settings: object
) -> Checkpoint:
    """Return a checkpoint of ``encoder`` on ``rows`` with its predictions, trained once for the code.

    Args:
        cache: of the session.
        encoder: a folder of a model.
        rows: a folder of the cache, whose name identifies its content.
        kind: of the task; None: it follows from the rows.
        settings: of :class:`FinetuneSettings`.
    """

    def build(folder: Path) -> None:
        finetune(
            "things", encoder, out=folder, name="trained", data_folder=source_of(rows, kind),
            settings=FinetuneSettings.of(**settings), keep_predictions=True,
        )  # fmt: skip

    return Checkpoint.open(cache.folder(f"trained-{rows.name}", build) / "trained")


def source_of(rows: Path, kind: str | None) -> DataSource:
    """Return a folder of rows of a kind."""
    return DataSource(str(rows), DataSettings(task_kind=kind))


def exported(
    cache: caches.Cache, checkpoint: Checkpoint, rows: Path, variants: Mapping[str, Sequence[str]]
) -> Path:
    """Return a folder with engines of a checkpoint: variant -> backends."""

    def build(folder: Path) -> None:
        for variant, backends in variants.items():
            _, errors = export_all([checkpoint.folder], [variant], list(backends), folder)
            assert not errors, errors

    return cache.folder(f"engines-{rows.name}", build)


def run_of(checkpoint: Checkpoint, source: DataSource) -> results.Run:
    """Return a simulated run whose score is that of the checkpoint's predictions."""
    task = checkpoint.task
    rows = data.load(task, "validation", source)
    assert isinstance(rows, Rows) and checkpoint.manifest.predictions is not None
    predictions = task.behavior.restore(checkpoint.manifest.predictions, task.labels)
    quality = record.score(task, rows, predictions, SINGLE_STREAM, dependent=False)
    return replace(simulated_results.run(0, n=len(rows), rounds=4, queries=5), quality=quality)


def without_manifest(checkpoint: Checkpoint, target: Path) -> Path:
    """Return a copy of a checkpoint as another tool could have written it."""
    for file in sorted(path for path in checkpoint.folder.rglob("*") if path.is_file()):
        copy = target / file.relative_to(checkpoint.folder)
        if file.name != "effx.json":
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    return target


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Change a file of JSON."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
