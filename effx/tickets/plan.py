"""Which heads, FFNs or neurons of a ticket are pruned.

Levels are those of :mod:`effx.specs.levels`. Heads are ranked over all layers, FFNs separately. On a tie of
scores, the lower layer and head is pruned first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from effx.errors import UsageError, unknown
from effx.manifests import RemovedCounts
from effx.specs.levels import Level
from effx.specs.tickets import GRANULARITIES
from effx.structure import Structure
from effx.tickets.scores import Importance

KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "winning": lambda scores, rng: np.argsort(scores, kind="stable"),
    "random": lambda scores, rng: rng.permutation(len(scores)),
    "losing": lambda scores, rng: np.argsort(-scores, kind="stable"),
}
"""Kind of ticket -> function of scores [n] that returns the order of pruning, as indices [n]: lowest score
first, random, highest score first."""


@dataclass(frozen=True)
class Removal:
    """The structures to prune; all indices are those of the unreduced model."""

    heads: dict[int, list[int]]
    ffns: list[int]
    neurons: dict[int, list[int]]

    def counts(self) -> RemovedCounts:
        """Return the numbers of heads, FFNs and neurons."""
        return RemovedCounts(
            heads=sum(map(len, self.heads.values())),
            ffns=len(self.ffns),
            neurons=sum(map(len, self.neurons.values())),
        )

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of :func:`effx.models.prune`."""
        return {"heads": self.heads, "ffns": self.ffns, "neurons": self.neurons}


def removal(
    scored: Importance,
    available: Structure,
    level: Level,
    kind: str,
    *,
    min_heads: int = 1,
    granularity: str = "ffns",
    seed: int = 0,
    counts: tuple[int, int] | None = None,
) -> Removal:
    """Return the structures to prune for the ticket of a kind and level.

    Args:
        scored: scores; rows are the layers of ``available``, columns original heads and neurons.
        available: the model's structure before pruning.
        level: how much is pruned, in percent of ``available``.
        kind: one of :data:`KINDS`.
        min_heads: minimum number of heads that remain in each layer; FFNs have no such limit.
        granularity: one of :data:`effx.specs.tickets.GRANULARITIES`.
        seed: of the order of kind ``random``; a lower level of the same seed prunes a subset.
        counts: how many heads, and FFNs or neurons, are pruned, instead of the level's; see :func:`rounds`.

    Raises:
        UsageError: unknown kind or granularity, or the level leaves fewer heads than ``min_heads`` requires.
    """
    if kind not in KINDS:
        raise unknown("kind of ticket", kind, KINDS)
    if granularity not in GRANULARITIES:
        raise unknown("granularity", granularity, GRANULARITIES)
    if counts is None:
        check(available, level, min_heads, granularity)
    rng = np.random.default_rng((seed, 3))
    order = KINDS[kind]
    heads = [(position, head) for position, layer in enumerate(available.layers) for head in layer.heads]
    ranked = [heads[i] for i in order(np.array([scored.heads[at] for at in heads]), rng)]
    n_heads, n_others = counts or _counts(available, level, granularity)
    pruned_heads = _first_allowed(ranked, available, n_heads, min_heads)
    ffns = [position for position, layer in enumerate(available.layers) if layer.intermediate]
    if granularity == "ffns":
        ranked_ffns = [ffns[i] for i in order(scored.ffns[ffns], rng)]
        positions = sorted(ranked_ffns[:n_others])
        return Removal(
            _by_layer(pruned_heads, available),
            [available.layers[position].index for position in positions],
            {},
        )
    if scored.neurons is None:
        raise AssertionError("neurons were not scored")
    neurons = [
        (position, neuron)
        for position in ffns
        for neuron in available.layers[position].neurons or range(available.layers[position].intermediate)
    ]
    ranked_neurons = order(np.array([scored.neurons[at] for at in neurons]), rng)
    pruned_neurons = [neurons[i] for i in ranked_neurons[:n_others]]
    return Removal(_by_layer(pruned_heads, available), [], _by_layer(pruned_neurons, available))


def rounds(available: Structure, level: Level, granularity: str, n: int) -> list[tuple[int, int]]:
    """Return how many heads, and FFNs or neurons, each of ``n`` rounds prunes to reach a level.

    The parts are as equal as whole numbers can be; a round that would prune nothing is left out.

    Args:
        available: the model's structure before the first round.
        level: how much is pruned, in percent of ``available``.
        granularity: one of :data:`effx.specs.tickets.GRANULARITIES`.
        n: rounds, at least 1.
    """
    heads, others = _counts(available, level, granularity)
    until = [(heads * number // n, others * number // n) for number in range(n + 1)]
    parts = [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(until)]
    return [part for part in parts if any(part)]


def check(available: Structure, level: Level, min_heads: int, granularity: str) -> None:
    """Raise :class:`UsageError` if a level prunes nothing, or more heads than ``min_heads`` allows."""
    heads, others = _counts(available, level, granularity)
    total = sum(len(layer.heads) for layer in available.layers)
    protected = sum(min(len(layer.heads), min_heads) for layer in available.layers)
    if heads > total - protected:
        raise UsageError(
            f"level {level.text} prunes {heads} of {total} heads, but {protected} must remain with min_heads "
            f"{min_heads}: lower one of them.",
            settings=("levels", "min_heads"),
        )
    if not heads + others:
        raise UsageError(
            f"level {level.text} prunes nothing of a model with {total} heads: raise it.", settings="levels"
        )


def _counts(available: Structure, level: Level, granularity: str) -> tuple[int, int]:
    """Return how many heads, and how many FFNs or neurons, a level prunes."""
    heads = level.heads * sum(len(layer.heads) for layer in available.layers) // 100
    if granularity == "neurons":
        percent = level.heads if level.ffns is None else level.ffns
        return heads, percent * sum(layer.intermediate for layer in available.layers) // 100
    ffns = sum(layer.intermediate > 0 for layer in available.layers)
    if level.ffns is not None:
        return heads, level.ffns * ffns // 100
    return heads, min(ffns, level.heads * len(available.layers) // 120)


def _first_allowed(
    ranked: Sequence[tuple[int, int]], available: Structure, count: int, min_heads: int
) -> list[tuple[int, int]]:
    """Return the first ``count`` heads that can be pruned with ``min_heads`` left in their layer."""
    left = [len(layer.heads) for layer in available.layers]
    pruned: list[tuple[int, int]] = []
    for position, head in ranked:
        if len(pruned) == count:
            break
        if left[position] > min_heads:
            left[position] -= 1
            pruned.append((position, head))
    return pruned


def _by_layer(parts: Sequence[tuple[int, int]], available: Structure) -> dict[int, list[int]]:
    result: dict[int, list[int]] = {}
    for position, index in sorted(parts):
        result.setdefault(available.layers[position].index, []).append(index)
    return result
