"""Removing input columns of a linear map with the least squared error: the optimal brain surgeon in blocks.

    E(W') = mean over tokens of ||W' x' - W x||^2 = tr((W' - W) H (W' - W)^T),   H = mean of x x^T + lambda I

Columns that are removed are zero in W'. Removing the columns S of one head or neuron costs

    tr(W_S ((H^-1)_SS)^-1 W_S^T),   and the best change of all columns is   -W_S ((H^-1)_SS)^-1 (H^-1)_S

after which S is eliminated from H^-1 and the next structure is chosen (Hassibi and Stork 1993, equation 5; in
blocks: Kurtic, Frantar and Alistarh 2023, "ZipLM", section 3.1). Each step is exact, so the weights after
several steps are the least-squares solution on the columns that remain, in whatever order the others went.

The bias is one more column, whose input is 1; it is never removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import linalg
from scipy.linalg import blas

DAMPING = 1e-3
"""lambda, as a share of the mean of H's diagonal."""
_COMPACT = 0.9  # eliminated columns are dropped once this share of the columns is left


@dataclass(frozen=True)
class Removals:
    """Structures of a linear map in the order in which they are removed."""

    order: tuple[int, ...]
    """Positions of the structures, the first to be removed first."""
    errors: np.ndarray
    """float64 [structures + 1]; E after as many removals, with the best weights; 0 at 0."""

    def remaining(self, count: int) -> list[int]:
        """Return the positions of the last ``count`` structures, rising."""
        return sorted(self.order[len(self.order) - count :])


@dataclass(frozen=True)
class LinearProblem:
    """A linear map y = W x + b, and the second moment of its inputs."""

    weight: np.ndarray
    """float64 [outputs, inputs]"""
    bias: np.ndarray | None
    """float64 [outputs]; None: the map has none, and gets none."""
    moment: np.ndarray
    """float64 [inputs + 1, inputs + 1]; mean over tokens of [x; 1] [x; 1]^T, not damped."""
    size: int
    """Columns of one structure, which are next to each other: the width of a head, or 1 for neurons."""
    damping: float = DAMPING

    @property
    def structures(self) -> int:
        """Number of heads or neurons."""
        return int(self.weight.shape[1]) // self.size

    @cached_property
    def _full(self) -> np.ndarray:
        """W, with the bias as its last column if there is one."""
        return self.weight if self.bias is None else np.column_stack([self.weight, self.bias])

    @cached_property
    def _hessian(self) -> np.ndarray:
        """H of the columns of :attr:`_full`; the column of the bias is not damped."""
        inputs = self.weight.shape[1]
        width = inputs if self.bias is None else inputs + 1
        hessian = self.moment[:width, :width].copy()
        diagonal = np.arange(inputs)
        # an input that is always 0 has no moment: with damping, H still has an inverse
        hessian[diagonal, diagonal] += self.damping * max(float(hessian[diagonal, diagonal].mean()), 1e-12)
        return hessian

    def columns(self, positions: Sequence[int]) -> np.ndarray:
        """Return the columns of some structures, and the bias's, as :attr:`_full` counts them."""
        start = np.asarray(positions, dtype=np.int64)[:, None] * self.size
        columns = (start + np.arange(self.size)).ravel()
        return columns if self.bias is None else np.append(columns, self.weight.shape[1])

    def refitted(self, positions: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the weights and bias with which some structures replace all of them best.

        Args:
            positions: of the structures that remain, rising.

        Returns:
            float64 [outputs, len(positions) * size], and [outputs] or None.
        """
        columns = self.columns(positions)
        if not len(columns):
            return np.empty((len(self.weight), 0)), None
        factor = linalg.cho_factor(self._hessian[np.ix_(columns, columns)], lower=True)
        solved = linalg.cho_solve(factor, self._hessian[columns] @ self._full.T).T
        if self.bias is None:
            return solved, None
        return np.ascontiguousarray(solved[:, :-1]), solved[:, -1].copy()

    def spread(self, positions: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        """Return :meth:`refitted` with zeros in the columns of the structures that are missing."""
        weight, bias = self.refitted(positions)
        full = np.zeros_like(self.weight)
        columns = self.columns(positions)
        full[:, columns[columns < full.shape[1]]] = weight
        return full, bias

    @cached_property
    def removed_error(self) -> float:
        """E if nothing is left, not even the bias."""
        return float(np.einsum("oi,ij,oj->", self._full, self._hessian, self._full, optimize=True))

    def error(
        self, positions: Sequence[int], weight: np.ndarray | None = None, bias: np.ndarray | None = None
    ) -> float:
        """Return E of some structures, with given or the best weights.

        Args:
            positions: of the structures that remain, rising.
            weight: [outputs, len(positions) * size]; default: the least-squares solution.
            bias: [outputs], with ``weight``, if the map has one.
        """
        if weight is None:
            weight, bias = self.refitted(positions)
        difference = -self._full
        parts = weight if self.bias is None else np.column_stack([weight, bias])  # type: ignore[list-item]
        difference[:, self.columns(positions)] += parts
        return float(np.einsum("oi,ij,oj->", difference, self._hessian, difference, optimize=True))

    def removals(self) -> Removals:
        """Return the order in which structures are removed, always the one that costs the least next."""
        count, size = self.structures, self.size
        inverse = np.asfortranarray(linalg.inv(self._hessian))
        weight = np.asfortranarray(self._full.copy())
        left = np.arange(count)  # structures that columns of ``weight`` and ``inverse`` stand for
        gone = np.zeros(count, dtype=bool)  # of ``left``
        order: list[int] = []
        errors = np.zeros(count + 1)
        for step in range(count):
            costs = _costs(weight, inverse, len(left), size)
            costs[gone] = np.inf
            chosen = int(costs.argmin())
            _eliminate(weight, inverse, slice(chosen * size, (chosen + 1) * size))
            order.append(int(left[chosen]))
            errors[step + 1] = errors[step] + max(float(costs[chosen]), 0.0)
            gone[chosen] = True
            if (~gone).sum() < _COMPACT * len(left):
                columns = np.flatnonzero(np.repeat(~gone, size))
                if self.bias is not None:
                    columns = np.append(columns, weight.shape[1] - 1)
                weight = np.asfortranarray(weight[:, columns])
                inverse = np.asfortranarray(inverse[np.ix_(columns, columns)])
                left, gone = left[~gone], np.zeros(int((~gone).sum()), dtype=bool)
        return Removals(tuple(order), errors)


def _costs(weight: np.ndarray, inverse: np.ndarray, count: int, size: int) -> np.ndarray:
    """Return tr(W_S ((H^-1)_SS)^-1 W_S^T) of each structure, [count]; those that are gone have any value."""
    if size == 1:
        squares = np.einsum("oi,oi->i", weight[:, :count], weight[:, :count])
        diagonal = np.diagonal(inverse)[:count]
        return np.asarray(np.divide(squares, diagonal, out=np.full(count, np.inf), where=diagonal > 0))
    costs = np.full(count, np.inf)
    for structure in range(count):
        columns = slice(structure * size, (structure + 1) * size)
        block, part = inverse[columns, columns], weight[:, columns]
        if block[0, 0] > 0:
            costs[structure] = np.einsum("oi,io->", part, linalg.solve(block, part.T, assume_a="pos"))
    return costs


def _eliminate(weight: np.ndarray, inverse: np.ndarray, columns: slice) -> None:
    """Remove columns, in place: their weights become 0, the others change, H^-1 becomes that of the rest."""
    if columns.stop - columns.start == 1:
        column, part = inverse[:, columns.start].copy(), weight[:, columns.start].copy()
        scale = -1.0 / column[columns.start]
        blas.dger(scale, part, column, a=weight, overwrite_a=1)
        blas.dger(scale, column, column, a=inverse, overwrite_a=1)
    else:
        rows = inverse[columns].copy()
        solved = linalg.solve(inverse[columns, columns].copy(), rows, assume_a="pos")
        weight -= weight[:, columns].copy() @ solved
        inverse -= rows.T @ solved
    weight[:, columns] = 0.0
    inverse[columns] = 0.0
    inverse[:, columns] = 0.0
