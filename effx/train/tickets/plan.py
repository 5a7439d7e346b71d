"""Which heads, FFNs or neurons a ticket loses: levels, kinds and the order of removal.

    level 40       floor(40 % of the heads), and 40 / 10 of every twelve FFNs: the published grid
                   (Liang et al. 2021, section 4): 57 heads and 4 FFNs of BERT-base
    level 20/10    floor(20 % of the heads), floor(10 % of the FFNs)

Heads are ranked over the whole network, FFNs apart from them. Of equal scores the lower layer and
head goes first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effx.errors import UsageError, unknown
from effx.models.structure import Structure
from effx.train.importance import Importance

GRANULARITIES = ("ffns", "neurons")
"""What goes beside heads: whole FFNs, or neurons of any FFN."""

KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "winning": lambda scores, rng: np.argsort(scores, kind="stable"),
    "random": lambda scores, rng: rng.permutation(len(scores)),
    "losing": lambda scores, rng: np.argsort(-scores, kind="stable"),
}
"""Kind of ticket -> the order in which structures with these scores [n] go: the lowest first, any
without replacement, the highest first."""


@dataclass(frozen=True)
class Level:
    """How much a ticket loses, in percent."""

    heads: int
    ffns: int | None = None
    """Of the FFNs or neurons; None: the published grid's share, or as many percent of the neurons."""

    @property
    def text(self) -> str:
        """The level as a person writes it."""
        return str(self.heads) if self.ffns is None else f"{self.heads}/{self.ffns}"

    @property
    def name(self) -> str:
        """The level within a file's name."""
        return self.text.replace("/", "-")

    @classmethod
    def parse(cls, text: str) -> Level:
        """Return the level that ``text`` means: ``40``, or ``20/10`` for heads and FFNs apart.

        Raises:
            UsageError: it is no level, or out of range.
        """
        match = re.fullmatch(r"(\d+)(?:/(\d+))?", text.strip())
        if not match:
            raise UsageError(f"level '{text}': a whole percentage as 40, or heads/FFNs as 20/10, is needed.")
        heads, ffns = int(match[1]), None if match[2] is None else int(match[2])
        highest = max(heads, ffns or 0)
        if highest > 100 or highest == 0:
            raise UsageError(f"level '{text}' is out of range: percentages go from 1 to 100.")
        return cls(heads, ffns)


def parse_levels(text: str) -> tuple[Level, ...]:
    """Return levels from ``10,20,40``, ``20/10,40`` or ``10,...,80`` (steps as between the two before).

    Raises:
        UsageError: one is no level, out of range, given twice, or ``...`` stands where it says nothing.
    """
    parts = [part.strip() for part in text.split(",")]
    levels: list[Level] = []
    for place, part in enumerate(parts):
        if part not in ("...", "…"):
            levels.append(Level.parse(part))
            continue
        last = Level.parse(parts[place + 1]) if place + 1 < len(parts) else None
        before = levels[-1] if levels else None
        if before is None or last is None or before.ffns is not None or last.ffns is not None:
            raise UsageError(f"levels '{text}': '...' stands between two plain levels, as in 10,...,80.")
        step = before.heads - levels[-2].heads if len(levels) > 1 else before.heads
        if step < 1:
            raise UsageError(f"levels '{text}': levels before '...' rise.")
        levels += [Level(value) for value in range(before.heads + step, last.heads, step)]
    if double := next((level for level in levels if levels.count(level) > 1), None):
        raise UsageError(f"levels '{text}': {double.text} stands twice.")
    return tuple(levels)


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
    found: Importance,
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
        found: scores; rows are the layers of ``kept``, columns original heads and neurons.
        kept: what the model has.
        level: how much goes; percentages are of what ``kept`` has.
        kind: one of :data:`KINDS`.
        min_heads: heads that each layer keeps at least; FFNs have no such guard.
        granularity: one of :data:`GRANULARITIES`.
        seed: of the ``random`` kind's order; levels of one seed are nested.

    Raises:
        UsageError: no such kind or granularity, or the guard keeps more heads than the level leaves.
    """
    if kind not in KINDS:
        raise unknown("kind of ticket", kind, KINDS)
    if granularity not in GRANULARITIES:
        raise unknown("granularity", granularity, GRANULARITIES)
    rng = np.random.default_rng((seed, 3))
    order = KINDS[kind]
    heads = [(place, head) for place, layer in enumerate(kept.layers) for head in layer.heads]
    ranked = [heads[i] for i in order(np.array([found.heads[at] for at in heads]), rng)]
    gone = _guarded(ranked, kept, check_heads(kept, level, min_heads), min_heads)
    ffns = [place for place, layer in enumerate(kept.layers) if layer.intermediate]
    if granularity == "ffns":
        ranked_ffns = [ffns[i] for i in order(found.ffns[ffns], rng)]
        lost = sorted(ranked_ffns[: _ffns(level, len(kept.layers), len(ffns))])
        return Removal(_by_layer(gone, kept), [kept.layers[place].index for place in lost], {})
    if found.neurons is None:
        raise AssertionError("neurons were not scored")
    neurons = [
        (place, neuron)
        for place in ffns
        for neuron in kept.layers[place].neurons or range(kept.layers[place].intermediate)
    ]
    ranked_neurons = order(np.array([found.neurons[at] for at in neurons]), rng)
    percent = level.heads if level.ffns is None else level.ffns
    few = [neurons[i] for i in ranked_neurons[: percent * len(neurons) // 100]]
    return Removal(_by_layer(gone, kept), [], _by_layer(few, kept))


def check_heads(kept: Structure, level: Level, min_heads: int) -> int:
    """Return how many heads a level removes.

    Raises:
        UsageError: so many cannot go with ``min_heads`` in every layer.
    """
    total = sum(len(layer.heads) for layer in kept.layers)
    wanted = level.heads * total // 100
    guarded = sum(min(len(layer.heads), min_heads) for layer in kept.layers)
    if wanted > total - guarded:
        raise UsageError(
            f"level {level.text} removes {wanted} of {total} heads, but --min-heads {min_heads} keeps "
            f"{guarded}: lower the level or the guard."
        )
    return wanted


def _ffns(level: Level, layers: int, here: int) -> int:
    if level.ffns is not None:
        return level.ffns * here // 100
    return min(here, level.heads * layers // 120)


def _guarded(
    ranked: Sequence[tuple[int, int]], kept: Structure, count: int, min_heads: int
) -> list[tuple[int, int]]:
    """Return the first ``count`` heads whose going leaves their layer ``min_heads``."""
    left = [len(layer.heads) for layer in kept.layers]
    gone: list[tuple[int, int]] = []
    for place, head in ranked:
        if len(gone) == count:
            break
        if left[place] > min_heads:
            left[place] -= 1
            gone.append((place, head))
    return gone


def _by_layer(parts: Sequence[tuple[int, int]], kept: Structure) -> dict[int, list[int]]:
    result: dict[int, list[int]] = {}
    for place, index in sorted(parts):
        result.setdefault(kept.layers[place].index, []).append(index)
    return result
