"""What the variants of a checkpoint share: fp32 graphs, traced once per shape, and rows, read once."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from effx import data
from effx.artifacts import Checkpoint
from effx.data import Rows, UnlabelledRows
from effx.encoding import Encoded, Encoder
from effx.errors import DataError, MissingExtraError, UsageError
from effx.export import graph, merged_projections, parity, shared_encoder
from effx.export.graph import TraceShape
from effx.export.parity import Reference
from effx.manifests import head_output
from effx.models import checkpoints, evaluate, exits, families
from effx.models.attention import pays_in_blocks
from effx.models.exits import rule_of
from effx.models.structure import parameters
from effx.specs.data import DataLocation, DataSource
from effx.specs.exit_rules import ExitRule
from effx.specs.runtime import RuntimeSettings, StagedExits
from effx.specs.variants import CALIBRATION_ROWS, Variant

_PARITY_ROWS = 256
"""Rows of the parity gate for float precisions, and for all precisions of large encoders."""
_QUANTIZED_PARITY_ROWS = 1000
"""Rows of the parity gate for quantized precisions (int8, fp8): their lost accuracy is gated, and its
confidence interval is wide on few rows."""
_PARITY_DOCUMENTS = 1000
"""Documents of the parity gate, those that are relevant for its queries included: each runs several times."""
_LARGE_PARAMETERS = 200_000_000
"""From this size on, the gate on 1000 rows would take longer than the build."""


@dataclass
class ExportSource:
    """A checkpoint, its model, its fp32 graphs, and rows to compare engines on."""

    checkpoint: Checkpoint
    scratch: Path
    data_folder: DataLocation = None
    calibration_rows: int = CALIBRATION_ROWS
    programs: dict[Any, Path] = field(default_factory=dict)
    """Programs that the PyTorch builder exported, in ``scratch``, by what they depend on."""
    _separate: ExportSource | None = None
    """The source whose graphs these are, with merged projections; None: they are graphs as traced."""
    _graphs: dict[tuple[TraceShape, bool, bool, bool], list[Path]] = field(default_factory=dict)
    _references: dict[Any, Reference] = field(default_factory=dict)

    @cached_property
    def model(self) -> PreTrainedModel:
        """The checkpoint's model, in eval mode."""
        return checkpoints.load(self.checkpoint)

    @cached_property
    def others(self) -> dict[str, ExportSource]:
        """Output -> checkpoint of another task with the same encoder.

        Raises:
            UsageError: the checkpoint is not of multi-task training, or the tasks' structures differ.
            ArtifactError: a checkpoint is damaged or missing.
        """
        return {
            head_output(other.task.name): ExportSource(other, self.scratch, None, self.calibration_rows)
            for other in shared_encoder.others(self.checkpoint)
        }

    def forget_model(self) -> None:
        """Free the model's memory; it is loaded again when it is needed."""
        self.__dict__.pop("model", None)

    @cached_property
    def other_models(self) -> dict[str, PreTrainedModel]:
        """Output -> model of another task, with the encoder of ``model``."""
        return {
            output: shared_encoder.on_encoder_of(self.model, other.checkpoint)
            for output, other in self.others.items()
        }

    @property
    def limit(self) -> int:
        """Tokens that the model accepts at most."""
        return checkpoints.position_limit(self.model)

    def trace_shape(self, variant: Variant, dtype: torch.dtype) -> TraceShape:
        """Return what the graphs of a variant are traced for, with weights of type ``dtype``."""
        blocks = pays_in_blocks(self.max_length(variant), families.of(self.model).reach(self.model))
        return TraceShape(variant.length, variant.tokens, dtype, blocks, variant.unpadded)

    def graphs(self, variant: Variant, dtype: torch.dtype = torch.float32) -> list[Path]:
        """Return the ONNX files of a variant: one, or its early-exit segments in order."""
        shape, split = self.trace_shape(variant, dtype), variant.exits is not None
        key = (shape, split, variant.multi, self._separate is None)
        if key not in self._graphs:
            folder = Path(tempfile.mkdtemp(prefix="graph-", dir=self.scratch))
            if self._separate is None:
                self._graphs[key] = self._traced(shape, split, variant.multi, folder)
            else:
                self._graphs[key] = _merged(self._separate.graphs(variant, dtype), folder)
        return self._graphs[key]

    def _traced(self, shape: TraceShape, split: bool, multi: bool, folder: Path) -> list[Path]:
        paths = []
        parts: list[range | None] = [*graph.segments(self.model)] if split else [None]
        for number, layers in enumerate(parts):
            subfolder = folder / str(number)  # weights past 2 GB are files in the folder of their graph
            subfolder.mkdir(parents=True)
            name = f"segment-{number}.onnx" if split else "model.onnx"
            others = self.other_models if multi else None
            graph.write(self.model, subfolder / name, shape, layers, others)
            paths.append(subfolder / name)
        return paths

    def with_merged_projections(self, variant: Variant) -> ExportSource | None:
        """Return the same source whose graphs compute Q, K and V of a layer as one product.

        None: the variant's graphs have no layers that can.
        """
        source = copy.copy(self)
        source._separate = self
        return source if source.graphs(variant) else None

    def rule(self) -> ExitRule:
        """Return the exit rule that the checkpoint was calibrated with."""
        return rule_of(self.checkpoint)

    def runtime(self, variant: Variant, files: Sequence[str]) -> RuntimeSettings:
        """Return what the runtime must know to run ``files`` as a variant of the checkpoint."""
        lengths = variant.lengths(self.limit)
        return RuntimeSettings(
            files=tuple(files),
            precision=variant.precision,
            lengths=None if lengths is None else tuple(lengths),
            pad_id=Encoder(self.checkpoint.folder, 8).pad_id,
            threads=variant.threads,
            token_pruning=variant.tokens,
            exits=StagedExits(self.rule(), tuple(exits.depths(self.model))) if variant.exits else None,
        )

    @cached_property
    def _data(self) -> DataSource | None:
        return data.locate(self.data_folder, self.checkpoint.task, self.checkpoint.data)

    @cached_property
    def rows(self) -> Rows | UnlabelledRows | None:
        """Validation rows, at most those of the parity gate; None where there are none."""
        large = parameters(self.model) >= _LARGE_PARAMETERS
        limit = _PARITY_ROWS if large else _QUANTIZED_PARITY_ROWS
        try:
            rows = data.load_to_measure(self.checkpoint.task, self._data).limit(limit)
        except (DataError, MissingExtraError):
            if self.data_folder is not None:
                raise
            return None
        return rows.with_fewer_documents(_PARITY_DOCUMENTS) if isinstance(rows, Rows) else rows

    def max_length(self, variant: Variant) -> int:
        """Return how many tokens of a row the variant reads."""
        known = self.checkpoint.max_length
        return known if variant.length is None else min(known, variant.length)

    def _encoder(self, variant: Variant) -> Encoder:
        form = self.checkpoint.task.behavior.form
        return Encoder(self.checkpoint.folder, self.max_length(variant), form=form, stride=variant.stride)

    def parity_rows(self, variant: Variant) -> tuple[Encoded, np.ndarray | None, str]:
        """Return the encoded rows of the parity gate, their labels, and ``task`` or ``random``.

        They end with a row that fills the length limit, which has no label.
        """
        encoder = self._encoder(variant)
        limit = variant.length or self.limit
        if self.rows is None:
            random = parity.random_rows(
                _PARITY_ROWS, self.model.config.vocab_size, encoder.max_length, encoder.pad_id,
                form=encoder.form,
            )  # fmt: skip
            return parity.with_longest(random, limit), None, "random"
        rows = self.rows if variant.is_quantized else self.rows.limit(_PARITY_ROWS)
        labels = rows.labels if isinstance(rows, Rows) else None
        encoded = encoder(rows.texts, rows.documents)
        return parity.with_longest(encoded, limit), labels, "task"

    def encoded_differently(self, folder: Path, variant: Variant, *, types: bool = True) -> str | None:
        """Return a text that the tokenizer in ``folder`` encodes unlike the checkpoint's; None: no text.

        The parity gate runs engines on the checkpoint's ids, so it says nothing about another tokenizer.

        Args:
            folder: with tokenizer.json and config.json.
            variant: of the engine; both tokenizers cut at its maximum length.
            types: whether token types are compared too; False: the engine does not take any.
        """
        own = self._encoder(variant)
        other = Encoder(folder, own.max_length, form=own.form, stride=own.stride)
        if self.rows is not None:
            documents = () if self.rows.documents is None else self.rows.documents.texts
            texts = [*self.rows.texts, *((text,) for text in documents)]
        else:  # texts of random words, which are rows of each form
            encoded, _, _ = self.parity_rows(variant)
            chosen = [own.text(encoded.take([row]).ids) for row in range(encoded.row_count)]
            texts = list(zip(chosen[::2], chosen[1::2], strict=False))
        for text, before, after in zip(
            texts, *(_by_row(encoder(texts)) for encoder in (own, other)), strict=True
        ):
            if before[0] != after[0] or (types and before[1] != after[1]):
                return " | ".join(text)
        return None

    def reference(self, variant: Variant) -> Reference:
        """Return the checkpoint's logits on the rows of the parity gate, reduced as the variant is."""
        rule = self.rule() if variant.exits else None
        encoded, labels, inputs = self.parity_rows(variant)
        key = (len(encoded), self.max_length(variant), variant.length, rule, variant.tokens, variant.stride)
        if key not in self._references:
            task = self.checkpoint.task
            if task.behavior.of_tokens:
                of_tokens = evaluate.token_logits(self.model, encoded, task)
                reference = Reference(encoded, of_tokens, None, labels, inputs)
            elif rule is None and not variant.tokens:
                encoded = evaluate.with_documents(self.model, encoded)
                reference = Reference(encoded, evaluate.logits(self.model, encoded), None, labels, inputs)
            else:
                logits, depth, _ = evaluate.reduced(
                    self.model, encoded, rule=rule, prune_tokens=variant.tokens
                )
                depth_of = depth if rule else None
                reference = Reference(encoded, logits, depth_of, labels, inputs, discrete=True)
            self._references[key] = reference
        return self._references[key]

    @cached_property
    def training_rows(self) -> Rows | UnlabelledRows:
        """The rows that static int8 takes its activation ranges from.

        Raises:
            UsageError: there are none.
        """
        try:
            return data.load_to_measure(self.checkpoint.task, self._data, "train")
        except (DataError, MissingExtraError, UsageError) as error:
            reason = str(error)
            if "split" in error.settings and self._data is not None:
                reason = (
                    f"{self._data.path} has only rows to measure on; to divide them into training and "
                    "validation rows, set split to the share to train on, e.g. 0.8"
                )
            raise UsageError(f"calibration needs training rows: {reason}", settings=error.settings) from error

    @property
    def has_training_rows(self) -> bool:
        """Whether there are rows that static int8 can be calibrated on."""
        try:
            _ = self.training_rows
        except UsageError:
            return False
        return True

    def calibration(self, variant: Variant) -> list[dict[str, np.ndarray]]:
        """Return single sequences of training rows, from which static int8 takes its activation ranges.

        With the heads of several tasks, every task has an equal part of the rows.

        Raises:
            UsageError: there are no training rows, or fewer than a ``calibration_rows`` that is not the
                default.
        """
        if variant.multi:
            each = [self, *self.others.values()]
            return [row for source in each for row in source._calibration(variant, len(each))]
        return self._calibration(variant, 1)

    def _calibration(self, variant: Variant, tasks: int) -> list[dict[str, np.ndarray]]:
        """Return the sequences of this task, which has an equal part of the rows for all ``tasks``."""
        encoder = self._encoder(variant)
        rows, count = self.training_rows, max(1, self.calibration_rows // tasks)
        if self.calibration_rows == CALIBRATION_ROWS:  # the default: as many as there are
            count = min(count, len(rows))
        if len(rows) < count:
            raise UsageError(
                f"calibration_rows {count}: expected at most the {len(rows)} training rows.",
                settings="calibration_rows",
            )
        documents = rows.documents.texts if isinstance(rows, Rows) and rows.documents is not None else ()
        queries = count - min(count // 2, len(documents))  # a half are documents, which are longer
        texts = [*rows.limit(queries).texts, *((text,) for text in documents[: count - queries])]
        encoded = encoder(texts)
        names = checkpoints.input_names(self.model)
        chosen = np.linspace(0, len(encoded) - 1, count).astype(int)  # rows may have several sequences
        arrays = [encoded.batch([sequence], variant.length) for sequence in chosen]
        return [{name: array[name] for name in names} for array in arrays]


def _by_row(encoded: Encoded) -> Iterator[tuple[list[list[int]], list[list[int]]]]:
    """Yield the ids and the token types of each row, by its sequences."""
    parts = np.split(encoded.ids, encoded.offsets[1:-1]), np.split(encoded.types, encoded.offsets[1:-1])
    for row in range(encoded.row_count):
        of_row = encoded.sequences([row]).tolist()
        ids, types = ([part[sequence].tolist() for sequence in of_row] for part in parts)
        yield ids, types


def _merged(separate: Sequence[Path], folder: Path) -> list[Path]:
    """Write graphs with merged projections; return them, or nothing where no layer's can be merged."""
    paths, layers = [], 0
    for number, path in enumerate(separate):
        (folder / str(number)).mkdir()
        target = folder / str(number) / path.name
        merged_here = merged_projections.write(path, target)
        paths.append(target if merged_here else path)
        layers += merged_here
    return paths if layers else []
