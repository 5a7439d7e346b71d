"""Which heads, FFNs or neurons a ticket loses: levels, kinds and the order of removal.

Levels are those of :mod:`effx.specs.levels`. Heads are ranked over the whole network, FFNs apart from
them. Of equal scores the lower layer and head goes first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effx.errors import UsageError, unknown
from effx.specs.levels import Level
from effx.specs.training import GRANULARITIES
from effx.structure import Structure
from effx.train.importance import Importance

KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "winning": lambda scores, rng: np.argsort(scores, kind="stable"),
    "random": lambda scores, rng: rng.permutation(len(scores)),
    "losing": lambda scores, rng: np.argsort(-scores, kind="stable"),
}
"""Kind of ticket -> the order in which structures with these scores [n] go: the lowest first, any
without replacement, the highest first."""


@dataclass(frozen=True)
class Removal:
    """What a ticket loses; all indices are those of the unreduced model."""

    heads: dict[int, list[int]]
    ffns: list[int]
    neurons: dict[int, list[int]]

    def counts(self) -> dict[str, int]:
        """Return how many heads, FFNs and neurons go."""
        return {
            "heads": sum(map(len, self.heads.values())),
            "ffns": len(self.ffns),
            "neurons": sum(map(len, self.neurons.values())),
        }

    def arguments(self) -> dict[str, Any]:
        """Return what :func:`effx.models.prune` takes."""
        return {"heads": self.heads, "ffns": self.ffns, "neurons": self.neurons}


def removal(
    scored: Importance,
    kept: Structure,
    level: Level,
    kind: str,
    *,
    min_heads: int = 1,
    granularity: str = "ffns",
    seed: int = 0,
) -> Removal:
    """Return what the ticket of a kind and level loses.

    Args:
        scored: scores; rows are the layers of ``kept``, columns original heads and neurons.
        kept: what the model has.
        level: how much goes; percentages are of what ``kept`` has.
        kind: one of :data:`KINDS`.
        min_heads: heads that each layer keeps at least; FFNs have no such guard.
        granularity: one of :data:`effx.specs.training.GRANULARITIES`.
        seed: of the ``random`` kind's order; levels of one seed are nested.

    Raises:
        UsageError: no such kind or granularity, or the guard keeps more heads than the level leaves.
    """
    if kind not in KINDS:
        raise unknown("kind of ticket", kind, KINDS)
    if granularity not in GRANULARITIES:
        raise unknown("granularity", granularity, GRANULARITIES)
    check(kept, level, min_heads, granularity)
    rng = np.random.default_rng((seed, 3))
    order = KINDS[kind]
    heads = [(position, head) for position, layer in enumerate(kept.layers) for head in layer.heads]
    ranked = [heads[i] for i in order(np.array([scored.heads[at] for at in heads]), rng)]
    heads_going, others_going = _counts(kept, level, granularity)
    gone = _guarded(ranked, kept, heads_going, min_heads)
    ffns = [position for position, layer in enumerate(kept.layers) if layer.intermediate]
    if granularity == "ffns":
        ranked_ffns = [ffns[i] for i in order(scored.ffns[ffns], rng)]
        lost = sorted(ranked_ffns[:others_going])
        return Removal(_by_layer(gone, kept), [kept.layers[position].index for position in lost], {})
    if scored.neurons is None:
        raise AssertionError("neurons were not scored")
    neurons = [
        (position, neuron)
        for position in ffns
        for neuron in kept.layers[position].neurons or range(kept.layers[position].intermediate)
    ]
    ranked_neurons = order(np.array([scored.neurons[at] for at in neurons]), rng)
    few = [neurons[i] for i in ranked_neurons[:others_going]]
    return Removal(_by_layer(gone, kept), [], _by_layer(few, kept))


def check(kept: Structure, level: Level, min_heads: int, granularity: str) -> None:
    """Raise :class:`UsageError` for a level that takes nothing, or heads that the guard keeps."""
    heads, others = _counts(kept, level, granularity)
    total = sum(len(layer.heads) for layer in kept.layers)
    guarded = sum(min(len(layer.heads), min_heads) for layer in kept.layers)
    if heads > total - guarded:
        raise UsageError(
            f"level {level.text} removes {heads} of {total} heads, but min_heads {min_heads} keeps "
            f"{guarded}: lower one of them.",
            settings=("levels", "min_heads"),
        )
    if not heads + others:
        raise UsageError(f"level {level.text} removes nothing of a model with {total} heads: raise it.")


def _counts(kept: Structure, level: Level, granularity: str) -> tuple[int, int]:
    """Return how many heads a level takes, and how many FFNs or neurons."""
    heads = level.heads * sum(len(layer.heads) for layer in kept.layers) // 100
    if granularity == "neurons":
        percent = level.heads if level.ffns is None else level.ffns
        return heads, percent * sum(layer.intermediate for layer in kept.layers) // 100
    here = sum(layer.intermediate > 0 for layer in kept.layers)
    if level.ffns is not None:
        return heads, level.ffns * here // 100
    return heads, min(here, level.heads * len(kept.layers) // 120)


def _guarded(
    ranked: Sequence[tuple[int, int]], kept: Structure, count: int, min_heads: int
) -> list[tuple[int, int]]:
    """Return the first ``count`` heads whose going leaves their layer ``min_heads``."""
    left = [len(layer.heads) for layer in kept.layers]
    gone: list[tuple[int, int]] = []
    for position, head in ranked:
        if len(gone) == count:
            break
        if left[position] > min_heads:
            left[position] -= 1
            gone.append((position, head))
    return gone


def _by_layer(parts: Sequence[tuple[int, int]], kept: Structure) -> dict[int, list[int]]:
    result: dict[int, list[int]] = {}
    for position, index in sorted(parts):
        result.setdefault(kept.layers[position].index, []).append(index)
    return result
