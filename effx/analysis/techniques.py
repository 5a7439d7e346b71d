"""The reduction that was applied to an engine, and how much is left, read from its result.

    precision   what the weights are: fp32, int8, ...
    layers      some layers were dropped, the last ones or by an unknown strategy; with another strategy,
                ``layers (STRATEGY)``                            level: layers left
    pruned      heads, FFNs or neurons were removed (tickets)    level: share of the weights left
    zeroed      single weights are zero (lottery tickets)        level: share that is not zero
                other masks than those of iterative magnitude pruning on the task with rewinding to the
                pretrained weights are named: zeroed (random), zeroed (imp, fresh weights), ...
    exits       rows leave early                                 level: mean depth, else the threshold
    tokens      tokens are dropped between layers                level: mean share of tokens that remain
    length      inputs are cut                                   level: tokens at most
    combined    several of the last six
    made elsewhere    effx did not build it, so what was reduced is not known

A ticket of a model whose layers were dropped is ``pruned``; with another strategy than the last ones,
``pruned (layers: STRATEGY)``.

A series is a technique at one precision, backend and device: its engines differ in level alone. Another
encoder, such as a distilled one, is a technique too: where engines of several encoders are compared, the
names of series and kinds begin with the encoder's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from effx.results import EngineRecord, Run, StructureSummary
from effx.specs import variants
from effx.specs.layer_reduction import TOP
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
    part: str | None = None
    """The label among those of other techniques; None: name and text."""

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
    return Technique(
        "combined", None, " + ".join(each.part or f"{each.name} {each.text}" for each in applied)
    )


@dataclass(frozen=True)
class Compared:
    """What decides which facts the names of compared engines contain."""

    longest: int | None = None
    """Tokens that the longest of the engines takes; a shorter limit is part of the name. None: not known."""
    several_encoders: bool = False
    """Whether they are of several encoders, so that the encoder is part of the name."""

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Compared:
        """Return what the engines have in common."""
        longest = max((limit for run in runs if (limit := run.engine.max_length)), default=None)
        return cls(longest, len({run.engine.model for run in runs if run.engine.model}) > 1)

    def named(self, run: Run, name: str) -> str:
        """Return a name with that of the encoder before it, where there are several."""
        return f"{run.engine.model}: {name}" if self.several_encoders and run.engine.model else name


def kind(run: Run, compared: Compared) -> str:
    """Return a technique's name for legends."""
    name = technique(run).name
    return compared.named(run, "not reduced" if name == "full" else name)


def series(run: Run, of: Technique, compared: Compared | None = None) -> str:
    """Return what has to be equal for engines to differ in their level alone.

    Args:
        run: the engine's result.
        of: its technique.
        compared: the engines that it is compared with; None: it is alone.
    """
    engine, compared = run.engine, compared or Compared()
    regime = engine.regime or "full"
    where = engine.backend if engine.device == "cpu" else f"{engine.backend} on {engine.device}"
    name = of.name if of.is_reduction else of.text
    if of.name == MADE_ELSEWHERE:
        name = f"{of.name} ({of.text})"
    reduced = name if regime == "full" else f"{name} ({regime})"
    tokens = engine.max_length
    longest = compared.longest
    if longest and tokens and tokens < longest and of.name != "length":
        reduced = f"{reduced} at {tokens} tokens"
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
    return ", ".join([compared.named(run, reduced), *ways, engine.precision, where])


def _threads(number: int) -> str:
    return "1 thread" if number == 1 else f"{number} threads"


def _variant(engine: EngineRecord) -> Variant:
    return variants.parse(engine.variant)


def _removed(engine: EngineRecord) -> Technique | None:
    share = engine.weight_remaining
    if share is None or share >= 1:  # in older results ramps count as weights
        return None
    shape, strategy = engine.structure, _strategy(engine)
    if shape and all(
        remaining == full
        for remaining, full in (
            *((heads, shape.full_heads) for heads in shape.heads),
            *((width, shape.full_intermediate) for width in shape.intermediate),
        )
    ):
        text = _layers(shape, strategy)
        return Technique(f"layers ({strategy})" if strategy else "layers", float(shape.layers), text, text)
    name = f"pruned (layers: {strategy})" if strategy else "pruned"
    return Technique(name, float(share), f"{share:.0%} of weights")


def _strategy(engine: EngineRecord) -> str | None:
    """Return by which strategies layers were dropped; None: only the last ones were, or it is unknown."""
    strategies = list(dict.fromkeys(engine.drop_layers))
    return None if strategies in ([], [TOP]) else ", ".join(strategies)


def _layers(shape: StructureSummary, strategy: str | None) -> str:
    """Return which layers remain, as ``first 4 layers``, ``4 layers, symmetric`` or ``layers 1, 3, 4``."""
    count = "1 layer" if shape.layers == 1 else f"{shape.layers} layers"
    if strategy:
        return f"{count}, {strategy}"
    if shape.numbers is None:
        return count
    if shape.numbers == list(range(1, shape.layers + 1)):
        return "first layer" if shape.layers == 1 else f"first {count}"
    return f"layer{'' if shape.layers == 1 else 's'} {', '.join(map(str, shape.numbers))}"


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
