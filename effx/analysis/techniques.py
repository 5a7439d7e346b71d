"""The reduction that was applied to an engine, and how much is left, read from its result.

    precision   what the weights are: fp32, int8, ...
    layers      some layers were dropped                         level: layers left
    pruned      heads, FFNs or neurons were removed (tickets)    level: share of the weights left
    zeroed      single weights are zero (lottery tickets)        level: share that is not zero
                other masks than those of iterative magnitude pruning on the task with rewinding to the
                pretrained weights are named: zeroed (random), zeroed (imp, fresh weights), ...
    exits       rows leave early                                 level: mean depth, else the threshold
    tokens      tokens are dropped between layers                level: mean share of tokens that remain
    length      inputs are cut                                   level: tokens at most
    combined    several of the last six
    made elsewhere    effx did not build it, so what was reduced is not known

A series is a technique at one precision, backend and device: its engines differ in level alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from effx.results import EngineRecord, Run
from effx.specs import variants
from effx.specs.variants import Variant

MADE_ELSEWHERE = "made elsewhere"


@dataclass(frozen=True)
class Technique:
    """What was reduced."""

    name: str
    """One of the names above; ``full`` where nothing but the precision was."""
    level: float | None
    """How much is left; None for ``full``, ``combined`` and ``made elsewhere``."""
    text: str
    """The level with its unit, as a label; the program that made the engine's graph."""

    @property
    def is_reduction(self) -> bool:
        """Whether something other than the precision is known to be reduced."""
        return self.name not in ("full", MADE_ELSEWHERE)


def technique(run: Run) -> Technique:
    """Return the technique of a run."""
    if run.made_elsewhere is not None:
        return Technique(MADE_ELSEWHERE, None, run.made_elsewhere)
    candidates = (
        _removed(run.engine),
        _zeroed(run.engine),
        _exits(run),
        _tokens(run.engine),
        _length(run.engine),
    )
    applied = [candidate for candidate in candidates if candidate is not None]
    if not applied:
        return Technique("full", None, "not reduced")
    if len(applied) == 1:
        return applied[0]
    return Technique("combined", None, " + ".join(f"{each.name} {each.text}" for each in applied))


def series(run: Run, of: Technique, longest: int | None = None) -> str:
    """Return what has to be equal for engines to differ in their level alone.

    Args:
        run: the engine's result.
        of: its technique.
        longest: tokens that the longest of the compared engines takes; a shorter limit becomes part of the
            series.
    """
    engine = run.engine
    regime = engine.regime or "full"
    where = engine.backend if engine.device == "cpu" else f"{engine.backend} on {engine.device}"
    name = of.name if of.is_reduction else of.text
    if of.name == MADE_ELSEWHERE:
        name = f"{of.name} ({of.text})"
    kind = name if regime == "full" else f"{name} ({regime})"
    tokens = engine.max_length
    if longest and tokens and tokens < longest and of.name != "length":
        kind = f"{kind} at {tokens} tokens"
    # buckets, exit-if, the stride and threads change how an engine runs, not how far it is reduced
    variant = _variant(engine)
    buckets = "buckets" if variant.bucket_step is None else f"buckets of {variant.bucket_step} tokens"
    ways = [
        name for name, used in ((buckets, variant.buckets), ("exit-if", variant.exits == "exit-if")) if used
    ]
    ways += [] if variant.stride is None else [f"stride {variant.stride}"]
    ways += ["heads of all tasks"] if variant.multi else []
    ways += ["without padding"] if variant.unpadded else []
    ways += [] if variant.threads is None else [_threads(variant.threads)]
    return ", ".join([kind, *ways, engine.precision, where])


def _threads(number: int) -> str:
    return "1 thread" if number == 1 else f"{number} threads"


def longest(runs: Sequence[Run]) -> int | None:
    """Return how many tokens the engines take at most; None: the results do not say."""
    return max((limit for run in runs if (limit := run.engine.max_length)), default=None)


def _variant(engine: EngineRecord) -> Variant:
    return variants.parse(engine.variant)


def _removed(engine: EngineRecord) -> Technique | None:
    share = engine.weight_remaining
    if share is None or share >= 1:  # in older results ramps count as weights
        return None
    shape = engine.structure
    if shape and all(
        remaining == full
        for remaining, full in (
            *((heads, shape.full_heads) for heads in shape.heads),
            *((width, shape.full_intermediate) for width in shape.intermediate),
        )
    ):
        return Technique("layers", float(shape.layers), f"{shape.layers} layers")
    return Technique("pruned", float(share), f"{share:.0%} of weights")


def _zeroed(engine: EngineRecord) -> Technique | None:
    sparsity = engine.sparsity
    if sparsity is None or not sparsity.share:
        return None
    parts = sparsity.described
    name = "zeroed" if parts == "imp" else f"zeroed ({parts})"
    return Technique(name, 1 - float(sparsity.share), f"{sparsity.share:.0%} zeros")


def _exits(run: Run) -> Technique | None:
    if _variant(run.engine).exits is None:
        return None
    depth, exits = run.settings.mean_depth, run.engine.exits
    threshold = None if exits is None else exits.threshold
    if depth is not None:
        rule = "" if exits is None or threshold is None else f", {exits.rule} {threshold:.3g}"
        return Technique("exits", float(depth), f"depth {depth:.2f}{rule}")
    if exits is not None and threshold is not None:
        return Technique("exits", float(threshold), f"{exits.rule} {threshold:.3g}")
    return Technique("exits", None, "depth not recorded")


def _tokens(engine: EngineRecord) -> Technique | None:
    if not _variant(engine).tokens:
        return None
    shape = engine.structure
    if shape is not None and shape.tokens:
        mean_share = sum(shape.tokens) / len(shape.tokens)
        return Technique("tokens", mean_share, f"{mean_share:.0%} of tokens")
    if shape is not None and shape.token_thresholds:
        mean = sum(shape.token_thresholds) / len(shape.token_thresholds)
        return Technique("tokens", mean, f"threshold {mean:.3g}")
    return Technique("tokens", None, "share not recorded")


def _length(engine: EngineRecord) -> Technique | None:
    length = _variant(engine).length
    return None if length is None else Technique("length", float(length), f"{length} tokens")
