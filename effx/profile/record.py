"""What a result says about an engine: its facts, its quality, its arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from effx import row_slices
from effx.artifacts import Engine
from effx.data import Rows, UnlabelledRows
from effx.errors import EffxError
from effx.results import (
    EngineRecord,
    ExitSettings,
    FailedEngineRecord,
    Quality,
    ReferenceEngine,
    RowGroups,
    StructureSummary,
)
from effx.specs.tasks import Task
from effx.specs.workloads import Workload
from effx.stats import bootstrap, intervals
from effx.stats.metrics import METRICS, same_rows


def score(task: Task, rows: Rows, predictions: np.ndarray, workload: Workload, *, dependent: bool) -> Quality:
    """Return the metrics of predictions, the primary one with its interval.

    Args:
        task: whose metrics are computed.
        rows: the rows with their labels.
        predictions: first axis n, as the kind of task has them.
        workload: in whose queries the rows were answered.
        dependent: whether an answer depends on the other rows of its batch.
    """
    quality = _quality(task, task.metrics, predictions, rows.labels, rows.recorded_source, None)
    return replace(
        quality, workload=workload, batch_dependent=dependent, texts_digest=rows.texts_digest,
        groups=RowGroups.of(row_slices.of_task(rows.texts, rows.labels, task), len(rows)),
    )  # fmt: skip


def agreement(
    task: Task,
    rows: UnlabelledRows,
    predictions: np.ndarray,
    reference: ReferenceEngine,
    of_reference: np.ndarray,
    workload: Workload,
    *,
    dependent: bool,
) -> Quality:
    """Return how far predictions agree with those of a reference engine, of the same shape; ``workload`` and
    ``dependent`` as for :func:`score`.
    """
    metrics = task.behavior.agreement_metrics
    quality = _quality(task, metrics, predictions, of_reference, rows.recorded_source, reference)
    return replace(
        quality, workload=workload, batch_dependent=dependent, texts_digest=rows.texts_digest,
        groups=RowGroups.of(row_slices.of_task(rows.texts, None, task), len(rows)),
    )  # fmt: skip


def _quality(
    task: Task,
    names: Sequence[str],
    predictions: np.ndarray,
    labels: np.ndarray,
    source: str,
    reference: ReferenceEngine | None,
) -> Quality:
    kind = task.behavior
    of_labels, of_predictions = kind.numbers(labels, predictions)
    primary, metrics = names[0], {name: METRICS[name](of_labels, of_predictions) for name in names}
    if METRICS[primary].is_share:
        interval = intervals.wilson(int(np.sum(same_rows(of_predictions, of_labels))), len(labels))
    else:
        low, high = bootstrap.metric_interval(METRICS[primary], of_labels, of_predictions)
        # of few rows all resamplings may be on one side
        interval = min(low, metrics[primary]), max(high, metrics[primary])
    return Quality(
        metric=primary,
        value=metrics[primary],
        n=len(labels),
        interval=interval,
        metrics=metrics,
        predictions=kind.store(predictions),
        labels=kind.store(labels),
        kind=None if kind.one_value else task.kind,
        label_names=None if kind.one_value else list(task.labels),
        source=source,
        reference=reference,
    )


def of_engine(engine: Engine) -> EngineRecord:
    """Return what a result says about its engine."""
    manifest = engine.manifest
    exits, foreign = manifest.exits, manifest.made_elsewhere
    return EngineRecord(
        name=engine.name,
        digest=engine.digest,
        task=engine.task.name,
        variant=manifest.variant,
        precision=manifest.precision,
        scheme=manifest.scheme,
        backend=manifest.backend,
        device=manifest.device,
        checkpoint=manifest.checkpoint,
        made_elsewhere=None if foreign is None else foreign.producer,
        parameters=manifest.parameters,
        model=manifest.model,
        regime=manifest.regime,
        drop_layers=list(manifest.drop_layers),
        origin=manifest.origin,
        weight_remaining=manifest.weight_remaining,
        sparsity=manifest.sparsity,
        size_bytes=engine.size_bytes,
        max_length=manifest.max_length,
        structure=_structure(engine),
        exits=None
        if exits is None
        else ExitSettings(
            exits.rule.name, exits.rule.threshold, exits.rule.patience, list(exits.depths), exits.segments
        ),
        parity=manifest.worst_parity,
        expenses=manifest.expenses,
    )


def failed_engine(folder: Path) -> FailedEngineRecord:
    """Return what is known about an engine that may not even open."""
    try:
        engine = Engine.open(folder)
    except EffxError:  # its failure is recorded by the caller
        return FailedEngineRecord(folder.resolve().name)
    return FailedEngineRecord(engine.name, engine.task.name, engine.digest)


def _structure(engine: Engine) -> StructureSummary | None:
    """Return a structure in counts: the numbers of the neurons would fill a result file."""
    structure, encoder = engine.manifest.structure, engine.manifest.encoder
    if structure is None:
        return None
    return StructureSummary(
        layers=len(structure.layers),
        heads=[len(layer.heads) for layer in structure.layers],
        intermediate=[layer.intermediate for layer in structure.layers],
        full_heads=None if encoder is None else encoder.heads,
        full_intermediate=None if encoder is None else encoder.intermediate,
        exits=list(structure.exits),
        tokens=None if structure.tokens is None else list(structure.tokens),
        token_thresholds=None if structure.token_thresholds is None else list(structure.token_thresholds),
        numbers=list(structure.numbers),
    )


def operations(engine: Engine, tokens: float) -> float:
    """Return a lower bound of the multiplications and additions in an example's products with weights.

    Args:
        engine: whose structure counts.
        tokens: of an example, mean.

    Exits and token pruning leave out some of them: at least one layer runs, on a tenth of the tokens. Of a
    graph made elsewhere, half of the products count: pooler and head, which run once per example, are not
    distinguished. 0 if the shape of the encoder is unknown.
    """
    if engine.manifest.made_elsewhere is not None:
        return engine.manifest.made_elsewhere.weights_per_token * tokens
    encoder, remaining = engine.manifest.encoder, engine.manifest.structure
    if encoder is None or remaining is None:
        return 0.0
    head = encoder.width // encoder.heads
    layers = [
        2 * encoder.width * (4 * head * len(layer.heads) + 2 * layer.intermediate)
        for layer in remaining.layers
    ]
    if remaining.exits or remaining.prunes_tokens:
        return min(layers) * tokens / 10
    return sum(layers) * tokens
