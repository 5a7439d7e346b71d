"""The file of what engines predict for the rows that choose, see :mod:`effx.optimize.choosing`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from effx import files, records
from effx.analysis.fixed_sequence import ChoosingRows
from effx.records import Record, StoredLabel
from effx.specs.kinds import KINDS


class ChoosingPredictions(Record):
    """Labels and predictions of the rows that choose."""

    schema_: Literal[1] = Field(1, alias="schema")
    kind: str
    label_names: tuple[str, ...]
    labels: tuple[StoredLabel, ...]
    predictions: Mapping[str, tuple[StoredLabel, ...]]
    """Engine -> one for each row."""
    unseen: tuple[str, ...] = ()
    """Engines whose last training left the rows out."""

    def as_rows(self) -> ChoosingRows:
        """Return labels and each engine's predictions as metrics take them."""
        kind, names = KINDS[self.kind], self.label_names
        labels, found = np.zeros(0), {}
        for engine, predictions in self.predictions.items():
            labels, found[engine] = kind.numbers(
                kind.restore(self.labels, names), kind.restore(predictions, names)
            )
        return ChoosingRows(labels, found, self.unseen)

    @classmethod
    def read(cls, path: Path) -> ChoosingPredictions:
        """Read the file of :meth:`write`.

        Raises:
            ArtifactError: it is damaged.
        """
        return records.build(cls, records.read_json(path), path)

    def write(self, path: Path) -> None:
        """Write them as JSON."""
        files.write_json(path, self.model_dump(mode="json", by_alias=True))
