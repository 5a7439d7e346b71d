"""What an engine's manifest says about how its checkpoint was made."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import JsonValue

from effx import files
from effx.manifests import CheckpointManifest, CheckpointOrigin
from effx.specs.optimize import OneShotSettings

_SHARE_DECIMALS = 2
"""Of zeros: rounds of pruning leave a few weights more or less."""


def of(manifest: CheckpointManifest) -> CheckpointOrigin | None:
    """Return how a checkpoint was made; None: effx did not train it, so that its seed is unknown."""
    training, ticket, one_shot = manifest.training, manifest.ticket, manifest.one_shot
    shared, sparsity = manifest.shared, manifest.sparsity
    if training.kind is None and one_shot is None:
        return None
    seed = manifest.seed
    speedup = None
    if one_shot is not None:
        settings = OneShotSettings.from_json(one_shot.settings)
        speedup = settings.speedup
        seed = settings.seed if training.kind is None else seed
    return CheckpointOrigin(
        seed=seed,
        settings=files.json_digest(_settings(manifest)),
        trained_further=manifest.parent is not None or bool(shared and shared.tickets),
        unrecorded=training.distillation is not None
        or (sparsity is not None and sparsity.objective == "mlm"),
        distilled=training.distillation is not None,
        quantization_aware=training.settings.get("quantization_aware") is True,
        ticket=ticket,
        speedup=speedup,
        exits=None if manifest.exits is None else manifest.exits.target,
        tokens=None if manifest.tokens is None else manifest.tokens.target,
    )


def _settings(manifest: CheckpointManifest) -> dict[str, object]:
    """Return what was set for a checkpoint, without seeds and without what followed from its rows."""
    training, ticket, exits, tokens = manifest.training, manifest.ticket, manifest.exits, manifest.tokens
    distillation, one_shot, sparsity = training.distillation, manifest.one_shot, manifest.sparsity
    return {
        "model": manifest.model,
        "max_length": manifest.max_length,
        "training": [training.kind, training.regime, training.limit, _seedless(training.settings),
                     training.rows_digest],
        "distillation": None if distillation is None
        else [_seedless_name(distillation.teacher), _seedless(distillation.settings)],
        "ticket": None if ticket is None else {**ticket.to_json(), "removed": None},
        "one_shot": None if one_shot is None else _seedless(one_shot.settings),
        "exits": None if exits is None else [exits.rule.name, exits.mode, exits.target.to_json()],
        "tokens": None if tokens is None
        else [tokens.rule, None if tokens.target is None else tokens.target.to_json()],
        "zeros": None if sparsity is None
        else [round(sparsity.share, _SHARE_DECIMALS), sparsity.objective, sparsity.kind, sparsity.init,
              sparsity.rewind, sparsity.mask if sparsity.found_by is None else None, sparsity.source],
        "shared": None if manifest.shared is None
        else [list(manifest.shared.tasks), sorted(manifest.shared.tickets),
              *(["union"] if manifest.shared.union else [])],
    }  # fmt: skip


def _seedless(settings: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in settings.items() if name != "seed"}


def _seedless_name(teacher: str) -> str:
    """Return a teacher's name without its seed: seeds of a method may have teachers of their own."""
    return re.sub(r"-s\d+(?=[-.]|$)", "", teacher)
