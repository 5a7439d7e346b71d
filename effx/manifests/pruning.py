"""What was removed from an encoder before or after training, or set to zero, as manifests record it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, JsonValue, model_validator

from effx.manifests.fields import MAX_LAYERS, Count, Digest, Positive, Share, check_indices
from effx.records import Record
from effx.specs import layer_reduction
from effx.specs.optimize import OneShotSettings
from effx.specs.settings import OneOf


class RemovedCounts(Record):
    """How many structures were pruned."""

    heads: Count = 0
    ffns: Count = 0
    neurons: Count = 0


class TicketRecord(Record):
    """Which ticket a checkpoint is."""

    kind: str
    level: str
    """Percentage of the heads, or of heads and FFNs, as ``20/10``."""
    importance: str
    granularity: str
    min_heads: Count
    removed: RemovedCounts
    """Without those of the checkpoint that was scored first, if it was reduced itself."""
    rounds: Annotated[int, Field(ge=1)] = 1
    """Rounds in which they were pruned, each scored anew; 1: one shot."""
    source: str | None = None
    """Where the scores are from: another task, or ``other seed``; None: the ticket's own task and seed."""


LayerStrategy = Annotated[str, OneOf("layer reduction", layer_reduction.STRATEGIES)]


class LayerReductionRecord(Record):
    """Layers that were dropped before training. Layers are by their index in the unreduced model, from 0."""

    strategy: LayerStrategy
    before: tuple[Count, ...]
    """The layers of the model before."""
    kept: Annotated[tuple[Count, ...], Field(min_length=1)]
    similarity: tuple[float, ...] | None = None
    """For ``contribution``: of each of the layers before, the mean cosine between the representations of the
    first token before and after it. None: not measured for this checkpoint, but for another, whose ticket it
    is."""
    rows: Positive | None = None
    """Training rows that it was measured on."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_indices("before", self.before, MAX_LAYERS)
        check_indices("kept", self.kept, MAX_LAYERS)
        if missing := set(self.kept) - set(self.before):
            raise ValueError(f"kept: layer {min(missing)} is not in before")
        measured = self.similarity
        if (measured is None) != (self.rows is None):
            raise ValueError("similarity and rows: expected both or neither")
        if measured is not None:
            if self.strategy != layer_reduction.CONTRIBUTION:
                raise ValueError(f"similarity: expected null, as the strategy is {self.strategy}")
            if len(measured) != len(self.before):
                raise ValueError(f"similarity: expected {len(self.before)} numbers, one per layer before")
            if not all(-1 - 1e-6 <= value <= 1 + 1e-6 for value in measured):
                raise ValueError("similarity: expected numbers from -1 to 1")
        elif self.strategy == layer_reduction.CONTRIBUTION:
            return self
        positions = layer_reduction.remaining(self.strategy, len(self.before), len(self.kept), measured)
        expected = [self.before[position] for position in positions]
        if list(self.kept) != expected:
            raise ValueError(f"kept: expected {expected}, as {self.strategy} keeps, got {list(self.kept)}")
        return self


class OneShotRecord(Record):
    """How a checkpoint was pruned without training, under a budget of measured cost."""

    settings: Mapping[str, JsonValue]
    """All settings, by name."""
    rows: Positive
    """Training rows that it was fitted and compared on."""
    predicted_s: float
    """Seconds per query by the cost table."""
    unreduced_s: float
    """Those of the unreduced engine."""
    predicted_j: float | None = None
    """Joules per query by the cost table; None: it has none."""
    unreduced_j: float | None = None
    backend: str
    scheme: str
    workload: str
    host: str
    distance: float
    """Of its predictions from those of the checkpoint that was pruned."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        OneShotSettings.from_json(self.settings)
        return self


_CHANCE = 1e-3
"""Share of weights that can be zero without having been set to zero."""


class SparsityRecord(Record):
    """Single weights that are zero."""

    share: Share
    zeros: Count
    of: Count
    """Weights of the prunable matrices."""
    objective: str | None = None
    """What the rounds trained; None: nothing, or unknown, as the mask was given as a file."""
    mask: Digest | None = None
    """SHA-256 of the mask's file; None: nothing is masked, or the mask was not written to a file."""
    kind: str | None = None
    """How the mask was found, one of :data:`effx.specs.lottery.MASK_KINDS`; None: nothing is masked, the
    mask was given as a file, or the checkpoint is older than kinds."""
    init: str = "pretrained"
    """Which weights were fine-tuned under the mask, one of :data:`effx.specs.lottery.START_WEIGHTS`."""
    rewind: Positive | None = None
    """Optimizer steps of the first fine-tuning that the weights were reset to; None: to ``init``."""
    source: str | None = None
    """Where the mask is from: another task, ``other seed`` or ``mlm``; None: the checkpoint's own task and
    seed, or a file."""

    @property
    def is_dense(self) -> bool:
        """Whether no weights were set to zero: a search for lottery tickets records its full model, too."""
        return self.share <= _CHANCE

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.zeros > self.of or abs(self.share - self.zeros / max(self.of, 1)) > 1e-6:
            raise ValueError(f"share: expected {self.zeros} / {self.of} (zeros / of), got {self.share:g}")
        return self

    @property
    def found_by(self) -> str | None:
        """How the mask was found; None: unknown, it was given as a file.

        Before kinds were recorded there was imp alone, and only a given mask had no objective.
        """
        return self.kind or (None if self.objective is None else "imp")

    @property
    def described(self) -> str:
        """How the mask was found, and to which weights it was applied, in words: ``imp, fresh weights``."""
        kind = self.found_by or "mask of a file"
        parts = [kind if self.objective in (None, "task") else f"{kind} of {self.objective}"]
        parts += [] if self.source is None else [f"mask of {self.source}"]
        parts += {"fresh": ["fresh weights"], "shuffled": ["shuffled layers"]}.get(self.init, [])
        parts += [] if self.rewind is None else [f"rewound to step {self.rewind}"]
        return ", ".join(parts)
