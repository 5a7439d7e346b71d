"""Importance scores of heads, FFNs and neurons, and their file.

:mod:`effx.train.importance` computes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effx import files, records
from effx.costs import IMPORTANCE, Expense
from effx.errors import ArtifactError, one_line
from effx.manifests.fields import CheckedStructure
from effx.records import Record

_TINY = 1e-20  # added to norms, as in the published code
_SCHEMA = 1


@dataclass(frozen=True)
class Importance:
    """Scores of the structures of a model; rows are the remaining layers, first to last."""

    heads: np.ndarray
    """float64 [layers, heads]; columns are original heads; pruned heads have the score 0."""
    ffns: np.ndarray
    """float64 [layers]"""
    neurons: np.ndarray | None = None
    """float64 [layers, neurons]; columns are original neurons; None: neurons were not scored."""

    def __add__(self, other: Importance) -> Importance:
        neurons = None
        if self.neurons is not None and other.neurons is not None:
            neurons = self.neurons + other.neurons
        return Importance(self.heads + other.heads, self.ffns + other.ffns, neurons)

    def __truediv__(self, count: float) -> Importance:
        neurons = None if self.neurons is None else self.neurons / count
        return Importance(self.heads / count, self.ffns / count, neurons)

    def normalised(self) -> Importance:
        """Return the scores divided by their norm: per layer for heads and neurons, over all for FFNs."""
        neurons = None if self.neurons is None else self.neurons / _norms(self.neurons)
        return Importance(
            self.heads / _norms(self.heads), self.ffns / (np.linalg.norm(self.ffns) + _TINY), neurons
        )

    def to_json(self) -> dict[str, Any]:
        """Return the scores as lists."""
        return {
            "heads": self.heads.tolist(),
            "ffns": self.ffns.tolist(),
            "neurons": None if self.neurons is None else self.neurons.tolist(),
        }


class ScoredEncoder(Record):
    """The encoder whose structures were scored, as the file of scores has it."""

    model: str
    """Of the checkpoint's manifest: the pretrained model's name."""
    structure: CheckedStructure
    """What remained of it; only that has scores."""


def _norms(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(values, axis=-1, keepdims=True) + _TINY)


def write(path: Path, importance: Importance, **about: Any) -> None:
    """Write scores as JSON, with ``about``: encoder, method, precision, rows, checkpoint."""
    files.write_json(path, {"schema": _SCHEMA, **about, **importance.to_json()})


def expenses(path: Path, about: Mapping[str, Any]) -> tuple[Expense, ...]:
    """Return what had to be computed to have the scores in a file.

    Args:
        path: of the file, for messages.
        about: its JSON, as :func:`read` returns it.

    Raises:
        ArtifactError: the list is damaged.
    """
    if about.get("expenses") is None:  # scores of an earlier version
        return (Expense(kind=IMPORTANCE, checkpoint=about["checkpoint"]),)
    return tuple(records.build(Expense, value, path) for value in about["expenses"])


def encoder(path: Path, about: Mapping[str, Any]) -> ScoredEncoder | None:
    """Return the encoder that was scored; None: an earlier version wrote the file, and did not record it.

    Args:
        path: of the file, for messages.
        about: its JSON, as :func:`read` returns it.

    Raises:
        ArtifactError: the record is damaged.
    """
    recorded = about.get("encoder")
    return None if recorded is None else records.build(ScoredEncoder, recorded, path)


def read(path: Path) -> tuple[Importance, dict[str, Any]]:
    """Return the scores in a file of :func:`write`, and the file's JSON.

    Raises:
        ArtifactError: the file is damaged or of another schema.
    """
    try:
        value = records.read_json(path)
        if value["schema"] != _SCHEMA:
            raise ValueError(f"schema {value['schema']}")
        neurons = value["neurons"]
        importance = Importance(
            np.array(value["heads"], dtype=float),
            np.array(value["ffns"], dtype=float),
            None if neurons is None else np.array(neurons, dtype=float),
        )
    except (ArtifactError, ValueError, KeyError, TypeError) as error:
        reason = one_line(error, None).rstrip(".")
        raise ArtifactError(
            f"{path} cannot be read ({reason}). Delete it; it is then computed again."
        ) from error
    return importance, value
