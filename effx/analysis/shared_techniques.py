"""Which engines of several tasks, or of several seeds, are the same technique.

A technique is what was asked for, not what came of it: a ticket of 40 % leaves another share of the weights
on every task, and exits chosen for a loss of a point another mean depth. It is read from typed fields of
results. Where those of earlier versions do not say what was asked for, what came of it is compared, rounded.
"""

from __future__ import annotations

import itertools

from effx.manifests import SparsityRecord, TicketRecord
from effx.results import Run, StructureSummary
from effx.specs import variants
from effx.specs.layer_reduction import TOP
from effx.specs.tickets import TICKET_KINDS, PruningSettings

_FP32 = "fp32"
_USUAL = PruningSettings()


def title(run: Run, baseline: Run) -> str | None:
    """Return the technique of an engine, equal on all tasks and for all seeds; None: made elsewhere.

    Args:
        run: the engine's result.
        baseline: an unreduced engine of the same task and encoder.
    """
    if run.made_elsewhere is not None:
        return None
    pieces = [*_trained(run), *_removed(run, baseline), *_scheduled(run, baseline)]
    parts = sorted(part for part in variants.parse(run.engine.variant).text.split("+") if part != _FP32)
    return ", ".join([*pieces, "+".join(parts) or _FP32])


def _trained(run: Run) -> list[str]:
    """Return how it was trained, where not as usual."""
    regime, origin = run.engine.regime, run.engine.origin
    return [
        *([regime] if regime not in (None, "full") else []),
        *(["distilled"] if origin is not None and origin.distilled else []),
        *(["quantization-aware"] if origin is not None and origin.quantization_aware else []),
    ]


def _removed(run: Run, baseline: Run) -> list[str]:
    """Return which layers, structures and weights are gone."""
    engine, origin = run.engine, run.engine.origin
    pieces = []
    layers, full = (each.engine.structure.layers if each.engine.structure else None
                    for each in (run, baseline))  # fmt: skip
    fewer = layers is not None and full is not None and layers < full
    if fewer:
        strategies = [strategy for strategy, _ in itertools.groupby(engine.drop_layers)]
        how = "" if strategies in ([], [TOP]) else f", {', then '.join(strategies)}"
        pieces.append(f"{layers} layers{how}")
    ticket = None if origin is None else origin.ticket
    if ticket is not None:
        pieces.append(_ticket(ticket))
    if origin is not None and origin.speedup is not None:
        pieces.append(f"pruned for {origin.speedup:g}x")
    share = engine.weight_remaining
    stated = ticket is not None or (origin is not None and origin.speedup is not None)
    if share is not None and share < 1 and not stated and not (fewer and not _is_pruned(engine.structure)):
        pieces.append(f"{share:.0%} of weights")
    if engine.sparsity is not None and engine.sparsity.share:
        pieces.append(_zeros(engine.sparsity))
    return pieces


def _is_pruned(shape: StructureSummary | None) -> bool:
    """Whether the remaining layers have lost heads or neurons."""
    return shape is not None and (
        any(heads != shape.full_heads for heads in shape.heads)
        or any(width != shape.full_intermediate for width in shape.intermediate)
    )


def _zeros(sparsity: SparsityRecord) -> str:
    """Return the share of zeros, and how they were found where it is not by magnitude on the task itself."""
    how = "" if sparsity.described == "imp" else f" ({sparsity.described})"
    return f"{sparsity.share:.0%} zeros{how}"


def _ticket(ticket: TicketRecord) -> str:
    """Return a ticket's settings, without those that are the default."""
    kind = "" if ticket.kind == TICKET_KINDS[0] else f"{ticket.kind} "
    by = [
        *([ticket.importance] if ticket.importance != _USUAL.importance else []),
        *([ticket.granularity] if ticket.granularity != _USUAL.granularity else []),
        *([f"{ticket.rounds} rounds"] if ticket.rounds > 1 else []),
        *([f"scores of {ticket.source}"] if ticket.source is not None else []),
    ]
    return f"{kind}ticket {ticket.level} %" + (f" ({', '.join(by)})" if by else "")


def _scheduled(run: Run, baseline: Run) -> list[str]:
    """Return what exits and tokens were chosen for, and the maximum length where it is reduced."""
    engine, origin = run.engine, run.engine.origin
    variant = variants.parse(engine.variant)
    pieces = []
    if variant.exits is not None and origin is not None and origin.exits is not None:
        target = origin.exits
        if target.depth is not None:
            pieces.append(f"exits for depth {target.depth:g}")
        elif target.max_drop is not None:
            pieces.append(f"exits for a loss of {target.max_drop:g}")
    if variant.tokens:
        asked = None if origin is None else origin.tokens
        if asked is not None and asked.max_drop is not None:
            pieces.append(f"tokens for a loss of {asked.max_drop:g}")
        elif asked is not None and asked.keep is not None:
            pieces.append(f"{asked.keep:.0%} of tokens")
        elif engine.structure is not None and engine.structure.tokens:
            pieces.append(f"{sum(engine.structure.tokens) / len(engine.structure.tokens):.0%} of tokens")
    longest, limit = baseline.engine.max_length, engine.max_length
    if variant.length is None and longest and limit and limit < longest:
        pieces.append(f"at {limit} tokens")
    return pieces
