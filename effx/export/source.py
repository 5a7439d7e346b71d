"""A checkpoint on its way to engines: what its variants share, made once.

fp32 graphs are traced once per shape; rows are read once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from effx import data
from effx.artifacts import Checkpoint
from effx.data import Rows
from effx.encoding import Encoded, Encoder
from effx.errors import DataError, MissingExtraError, UsageError
from effx.export import graph, parity
from effx.export.graph import Shape
from effx.export.parity import Reference
from effx.models import checkpoints, evaluate, exits
from effx.models.exits import rule_of
from effx.models.structure import parameters
from effx.specs.exit_rules import ExitRule
from effx.specs.variants import Variant

_PARITY_ROWS = 256
_GATE_ROWS = 1000
_LARGE_PARAMETERS = 200_000_000
"""Encoders from here on are tried on as few rows as any, or the gate would outlast the building."""


@dataclass
class Source:
    """A checkpoint, its model, its fp32 graphs and rows to try engines on."""

    checkpoint: Checkpoint
    scratch: Path
    data_folder: str | Path | None = None
    calibration_rows: int = 128
    _graphs: dict[tuple[Shape, bool], list[Path]] = field(default_factory=dict)
    _references: dict[Any, Reference] = field(default_factory=dict)

    @cached_property
    def model(self) -> PreTrainedModel:
        """The checkpoint's model, in eval mode."""
        return checkpoints.load(self.checkpoint)

    @property
    def limit(self) -> int:
        """Tokens that the model reads at most."""
        return checkpoints.position_limit(self.model)

    def graphs(self, variant: Variant, dtype: torch.dtype = torch.float32) -> list[Path]:
        """Return the ONNX files of a variant: one, or its early-exit segments in order."""
        shape, split = Shape(variant.length, variant.tokens, dtype), variant.exits is not None
        if (shape, split) not in self._graphs:
            folder = self.scratch / f"graph-{len(self._graphs)}"
            paths = []
            parts: list[range | None] = [*graph.segments(self.model)] if split else [None]
            for number, places in enumerate(parts):
                place = folder / str(number)  # a folder each: weights past 2 GB lie beside their graph
                place.mkdir(parents=True)
                name = f"segment-{number}.onnx" if split else "model.onnx"
                graph.write(self.model, place / name, shape, places)
                paths.append(place / name)
            self._graphs[shape, split] = paths
        return self._graphs[shape, split]

    def rule(self) -> ExitRule:
        """Return the exit rule that the checkpoint was calibrated with."""
        return rule_of(self.checkpoint)

    def session(self, variant: Variant, files: list[str], **more: Any) -> dict[str, Any]:
        """Return what a session must know (see :mod:`effx.engines`)."""
        pad_id = Encoder(self.checkpoint.folder, 8).pad_id
        settings: dict[str, Any] = {
            "files": files,
            "precision": variant.precision,
            "lengths": variant.lengths(self.limit),
            "pad_id": pad_id,
            "tokens": variant.tokens,
            "exits": None,
        }
        if variant.exits:
            settings["exits"] = {**self.rule().to_json(), "depths": exits.depths(self.model)}
        return {**settings, **more}

    @cached_property
    def rows(self) -> Rows | None:
        """Labelled validation rows, at most a thousand; None where there are none."""
        most = _GATE_ROWS if parameters(self.model) < _LARGE_PARAMETERS else _PARITY_ROWS
        try:
            folder = self.data_folder or self.checkpoint.data
            return data.load(self.checkpoint.task, "validation", folder).limit(most)
        except (DataError, MissingExtraError):
            if self.data_folder is not None:
                raise
            return None

    def max_length(self, variant: Variant) -> int:
        """Return how many tokens of a row the variant reads."""
        known = self.checkpoint.max_length
        return known if variant.length is None else min(known, variant.length)

    def parity_rows(self, variant: Variant) -> tuple[Encoded, np.ndarray | None, str]:
        """Return rows spread over the lengths and one that fills the limit, labels, and their kind."""
        encoder = Encoder(self.checkpoint.folder, self.max_length(variant))
        limit = variant.length or self.limit
        if self.rows is None:
            random = parity.random_rows(
                _PARITY_ROWS, self.model.config.vocab_size, encoder.max_length, encoder.pad_id
            )
            return parity.with_longest(random, limit), None, "random"
        rows = self.rows if variant.precision == "int8" else self.rows.limit(_PARITY_ROWS)
        return parity.with_longest(encoder(rows.texts), limit), rows.labels, "task"

    def reference(self, variant: Variant) -> Reference:
        """Return what the checkpoint says where the variant's engine is asked."""
        rule = self.rule() if variant.exits else None
        encoded, labels, inputs = self.parity_rows(variant)
        key = (len(encoded), self.max_length(variant), variant.length, rule, variant.tokens)
        if key not in self._references:
            if self.checkpoint.task.kind == "answer-span":
                made = Reference(encoded, evaluate.span_logits(self.model, encoded), None, None, inputs)
            elif rule is None and not variant.tokens:
                made = Reference(encoded, evaluate.logits(self.model, encoded), None, labels, inputs)
            else:
                logits, depth, _ = evaluate.reduced(
                    self.model, encoded, rule=rule, prune_tokens=variant.tokens
                )
                depth_of = depth if rule else None
                made = Reference(encoded, logits, depth_of, labels, inputs, discrete=True)
            self._references[key] = made
        return self._references[key]

    def calibration(self, variant: Variant) -> list[dict[str, np.ndarray]]:
        """Return single training rows as inputs: what static int8 takes its ranges from.

        Raises:
            UsageError: there are fewer rows than asked for, or none.
        """
        encoder = Encoder(self.checkpoint.folder, self.max_length(variant))
        wanted = self.calibration_rows
        try:
            rows = data.load(self.checkpoint.task, "train", self.data_folder or self.checkpoint.data)
        except (DataError, MissingExtraError) as error:
            raise UsageError(f"static int8 is calibrated on training rows: {error}") from error
        if len(rows) < wanted:
            raise UsageError(f"--calibration {wanted}: there are {len(rows)} training rows. Ask for fewer.")
        encoded = encoder(rows.limit(wanted).texts)
        names = checkpoints.input_names(self.model)
        arrays = [encoded.batch([row], variant.length) for row in range(wanted)]
        return [{name: array[name] for name in names} for array in arrays]
