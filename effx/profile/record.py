"""What a result says of an engine: its facts, its accuracy, its work."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from effx.artifacts import Engine
from effx.data import Rows
from effx.results import Accuracy
from effx.specs.tasks import Task
from effx.stats import bootstrap, intervals
from effx.stats.metrics import METRICS


def score(task: Task, rows: Rows, logits: np.ndarray) -> Accuracy:
    """Return the accuracy of logits [n, outputs] with its interval and all predictions."""
    predictions = task.predict(logits)
    metrics = task.score(rows.labels, predictions)
    if task.metric == "accuracy":
        correct = int(np.sum(predictions == rows.labels))
        interval = intervals.wilson(correct, len(rows))
    else:
        interval = bootstrap.metric_interval(METRICS[task.metric], rows.labels, predictions)
    return Accuracy(
        metric=task.metric,
        value=metrics[task.metric],
        n=len(rows),
        interval=interval,
        metrics=metrics,
        predictions=predictions.tolist(),
        labels=rows.labels.tolist(),
        source=rows.source,
    )


def of_engine(engine: Engine) -> dict[str, Any]:
    """Return what a result says about its engine."""
    manifest = engine.manifest
    return {
        "name": engine.name,
        "digest": engine.digest,
        "variant": engine.variant,
        "precision": manifest.precision,
        "scheme": manifest.scheme,
        "backend": engine.backend,
        "device": engine.device,
        "task": engine.task.name,
        "checkpoint": manifest.checkpoint.to_json(),
        "model": manifest.model,
        "regime": manifest.regime,
        "parameters": manifest.parameters,
        "weight_remaining": manifest.weight_remaining,
        "sparsity": manifest.sparsity and manifest.sparsity.to_json(),
        "size_bytes": engine.size_bytes,
        "max_length": manifest.max_length,
        "structure": _shape(engine),
        "exits": manifest.exits and manifest.exits.to_json(),
        "parity": asdict(manifest.parity),
    }


def _shape(engine: Engine) -> dict[str, Any]:
    """Return what a structure leaves, counted: neurons by their numbers would fill a result file."""
    structure, config = engine.manifest.structure, _config(engine)
    layers = structure.layers
    return {
        "layers": len(layers),
        "heads": [len(layer.heads) for layer in layers],
        "intermediate": [layer.intermediate for layer in layers],
        "full_heads": config.get("num_attention_heads") or config.get("n_heads"),
        "full_intermediate": config.get("intermediate_size") or config.get("hidden_dim"),
        "exits": list(structure.exits),
        "tokens": structure.tokens,
        "token_thresholds": structure.token_thresholds,
    }


def _config(engine: Engine) -> Any:
    """Return the model's configuration as Hugging Face writes it."""
    return json.loads((engine.folder / "config.json").read_bytes())


def operations(engine: Engine, tokens: float) -> float:
    """Return the multiplications and additions of an example's products with weights, from below.

    Args:
        engine: whose structure counts.
        tokens: of an example, in the mean.

    Exits and dropped tokens leave out some of them: at least one layer's, of one token in ten.
    """
    config = _config(engine)
    width = int(config.get("hidden_size") or config.get("dim"))
    head = width // int(config.get("num_attention_heads") or config.get("n_heads"))
    remaining = engine.manifest.structure
    layers = [
        2 * width * (4 * head * len(layer.heads) + 2 * layer.intermediate) for layer in remaining.layers
    ]
    if remaining.exits or remaining.prunes_tokens:
        return min(layers) * tokens / 10
    return sum(layers) * tokens
