"""Which reduction an engine stands for, and how far it goes, read from its result.

    precision   what the weights are: fp32, int8, ...
    layers      some layers were dropped                         level: layers left
    pruned      heads, FFNs or neurons were removed (tickets)    level: share of the weights left
    zeroed      single weights are zero (lottery tickets)        level: share that is not zero
    exits       rows leave early                                 level: mean depth, else the threshold
    tokens      tokens are dropped between layers                level: mean share of tokens kept
    length      inputs are cut                                   level: tokens at most
    combined    several of the last six

A series is a technique at one precision, backend and device: its engines differ in level alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effx.results import Run
from effx.specs import variants
from effx.specs.variants import Variant


@dataclass(frozen=True)
class Technique:
    """What was reduced."""

    name: str
    """One of the names above; ``full`` where nothing but the precision was."""
    level: float | None
    """How much is left; None for ``full`` and ``combined``."""
    text: str
    """The level with its unit, as a label."""

    @property
    def is_reduction(self) -> bool:
        return self.name != "full"


def technique(run: Run) -> Technique:
    """Return the technique of a run; older results say less, and then the variant's name decides."""
    found = [
        one
        for one in (
            _removed(run.engine),
            _zeroed(run.engine),
            _exits(run),
            _tokens(run.engine),
            _length(run.engine),
        )
        if one is not None
    ]
    if not found:
        return Technique("full", None, "not reduced")
    if len(found) == 1:
        return found[0]
    return Technique("combined", None, " + ".join(f"{one.name} {one.text}" for one in found))


def series(run: Run, of: Technique, longest: int | None = None) -> str:
    """Return what has to be equal for engines to differ in their level alone.

    Args:
        run: the engine's result.
        of: its technique.
        longest: tokens that the engines beside it take at most; one that takes fewer is told apart.
    """
    engine = run.engine
    regime = engine.get("regime") or "full"
    where = engine["backend"] if engine["device"] == "cpu" else f"{engine['backend']} on {engine['device']}"
    name = of.name if of.is_reduction else of.text
    kind = name if regime == "full" else f"{name} ({regime})"
    own = engine.get("max_length")
    if longest and own and own < longest and of.name != "length":
        kind = f"{kind} at {own} tokens"
    variant = _variant(engine)  # buckets and exit-if change how an engine runs, not how far it is reduced
    ways = [
        name for name, used in (("buckets", variant.buckets), ("exit-if", variant.exits == "exit-if")) if used
    ]
    return ", ".join([kind, *ways, str(engine["precision"]), where])


def longest(runs: Sequence[Run]) -> int | None:
    """Return how many tokens the engines take at most; None: the results do not say."""
    return max((own for run in runs if (own := run.engine.get("max_length"))), default=None)


def _variant(engine: Mapping[str, Any]) -> Variant:
    return variants.parse(str(engine["variant"]))


def _removed(engine: Mapping[str, Any]) -> Technique | None:
    remaining = engine.get("weight_remaining")
    if remaining is None or remaining >= 1:  # in older results ramps count as weights
        return None
    shape = engine.get("structure")
    if shape and all(
        kept == full
        for kept, full in (
            *((heads, shape["full_heads"]) for heads in shape["heads"]),
            *((width, shape["full_intermediate"]) for width in shape["intermediate"]),
        )
    ):
        return Technique("layers", float(shape["layers"]), f"{shape['layers']} layers")
    return Technique("pruned", float(remaining), f"{remaining:.0%} of weights")


def _zeroed(engine: Mapping[str, Any]) -> Technique | None:
    share = (engine.get("sparsity") or {}).get("share")
    return Technique("zeroed", 1 - float(share), f"{share:.0%} zeros") if share else None


def _exits(run: Run) -> Technique | None:
    if _variant(run.engine).exits is None:
        return None
    depth = run.settings.get("mean_depth")
    exits = run.engine.get("exits") or {}
    threshold = exits.get("threshold")
    if depth is not None:
        rule = "" if threshold is None else f", {exits['rule']} {threshold:.3g}"
        return Technique("exits", float(depth), f"depth {depth:.2f}{rule}")
    if threshold is not None:
        return Technique("exits", float(threshold), f"{exits['rule']} {threshold:.3g}")
    return Technique("exits", None, "depth not recorded")


def _tokens(engine: Mapping[str, Any]) -> Technique | None:
    if not _variant(engine).tokens:
        return None
    shape = engine.get("structure") or {}
    if shape.get("tokens"):
        kept = sum(shape["tokens"]) / len(shape["tokens"])
        return Technique("tokens", kept, f"{kept:.0%} of tokens")
    if shape.get("token_thresholds"):
        mean = sum(shape["token_thresholds"]) / len(shape["token_thresholds"])
        return Technique("tokens", mean, f"threshold {mean:.3g}")
    return Technique("tokens", None, "share not recorded")


def _length(engine: Mapping[str, Any]) -> Technique | None:
    length = _variant(engine).length
    return None if length is None else Technique("length", float(length), f"{length} tokens")
