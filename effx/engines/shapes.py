"""Shapes of a graph's inputs."""

from __future__ import annotations

from collections.abc import Sequence


def filled_shape(shape: Sequence[int | str | None], batch: int, length: int) -> tuple[int, ...]:
    """Return a shape with its dynamic dimensions filled in: the first with ``batch``, others with ``length``.

    A dimension is dynamic where it is negative or a name.
    """
    return tuple(
        size if isinstance(size, int) and size >= 0 else (batch, length)[min(axis, 1)]
        for axis, size in enumerate(shape)
    )
