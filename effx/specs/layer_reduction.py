"""Which layers of an encoder remain when some are dropped before training.

Sajjad et al. 2020, "On the Effect of Dropping Layers of Pre-trained Transformer Models", section 3. Of 12
layers, counted from 1:

    strategy         6 remain              8 remain                  10 remain
    top              1 2 3 4 5 6           1 2 3 4 5 6 7 8           1 2 3 4 5 6 7 8 9 10
    bottom           7 8 9 10 11 12        5 6 7 8 9 10 11 12        3 4 5 6 7 8 9 10 11 12
    odd-alternate    2 4 6 8 10 12         1 2 3 4 6 8 10 12         1 2 3 4 5 6 7 8 10 12
    even-alternate   1 3 5 7 9 11          1 2 3 4 5 7 9 11          1 2 3 4 5 6 7 8 9 11
    symmetric        1 2 3 10 11 12        1 2 3 4 9 10 11 12        1 2 3 4 5 8 9 10 11 12
    contribution     those that change the first token's representation the most

For other numbers: an alternate strategy that has dropped every odd (even) layer counts the remaining ones
from 1 again and goes on; symmetric keeps one layer more at the bottom than at the top if an odd number
remains. For contribution, the paper drops layers whose similarity is above a threshold; here the number of
remaining layers is given, and the layers with the highest similarity are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

CONTRIBUTION = "contribution"
TOP = "top"


def _top(layers: int, keep: int) -> list[int]:
    return list(range(keep))


def _bottom(layers: int, keep: int) -> list[int]:
    return list(range(layers - keep, layers))


def _odd(layers: int, keep: int) -> list[int]:
    return _alternate(layers, keep, 0)


def _even(layers: int, keep: int) -> list[int]:
    return _alternate(layers, keep, 1)


def _alternate(layers: int, keep: int, first: int) -> list[int]:
    """Drop every second position from ``first`` on, the last ones first, again and again."""
    remaining = list(range(layers))
    while len(remaining) > keep:
        dropped = remaining[first::2][-(len(remaining) - keep) :]
        remaining = [position for position in remaining if position not in dropped]
    return remaining


def _symmetric(layers: int, keep: int) -> list[int]:
    last = keep // 2
    return [*range(keep - last), *range(layers - last, layers)]


_BY_POSITION: Mapping[str, Callable[[int, int], list[int]]] = {
    TOP: _top,
    "bottom": _bottom,
    "odd-alternate": _odd,
    "even-alternate": _even,
    "symmetric": _symmetric,
}
STRATEGIES = (*_BY_POSITION, CONTRIBUTION)
"""What is dropped, by the paper's names."""


def remaining(strategy: str, layers: int, keep: int, similarity: Sequence[float] | None = None) -> list[int]:
    """Return the positions of the layers that remain, from 0, rising.

    Args:
        strategy: one of :data:`STRATEGIES`.
        layers: of the model.
        keep: how many remain, from 1 to ``layers``.
        similarity: for ``contribution``: of each layer, the mean cosine between the representations of the
            first token before and after it. Of two layers with the same similarity, the upper one is dropped.
    """
    if strategy != CONTRIBUTION:
        return _BY_POSITION[strategy](layers, keep)
    assert similarity is not None and len(similarity) == layers
    by_change = sorted(range(layers), key=lambda position: (similarity[position], position))
    return sorted(by_change[:keep])
