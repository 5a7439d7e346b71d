"""The manifest of an engine: engine.json."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from effx.costs import Expense
from effx.manifests.common import ArtifactReference, Manifest
from effx.manifests.dynamic import ExitTarget, TokensTarget
from effx.manifests.fields import (
    MAX_LENGTH,
    MAX_ROWS,
    MAX_WIDTH,
    CheckedStructure,
    Count,
    Digest,
    Positive,
    RowsRecord,
    Seconds,
    Share,
    TaskDefinition,
    file_name,
)
from effx.manifests.pruning import LayerStrategy, TicketRecord
from effx.manifests.verification import Audit, CheckedParity, Parity, check_parity_of
from effx.records import Record
from effx.specs import backends, variants
from effx.specs.exit_rules import ExitRule
from effx.specs.measurement import BuiltFor
from effx.specs.runtime import MAX_STATIC_BATCH, GraphInterface, RuntimeSettings
from effx.specs.settings import OneOf


class CandidateRecord(Record):
    """What was built for an engine's precision; the fastest that passed its gates is the engine."""

    scheme: str
    merged_projections: bool = False
    """Whether Q, K and V of a layer are one product."""
    disabled_optimizers: tuple[str, ...] = ()
    """Graph optimizers of the runtime that were switched off."""
    static_shape: tuple[Count, Count] | None = None
    """Batch and length that a model without dynamic dimensions was compiled for."""
    part_rows: Count | None = None
    """Rows of the parts of such a batch that were computed at the same time."""
    parity: CheckedParity | None
    """None: not compared with the checkpoint, because another one was faster."""
    failure: str | None
    """Why it may not be used; None: no gate failed."""
    seconds: Seconds | None
    """Seconds per query; None: not timed."""


class HeadRecord(Record):
    """The head of another task in an engine with several."""

    task_definition: TaskDefinition
    checkpoint: ArtifactReference
    parity: CheckedParity
    gate_data: RowsRecord | None = None
    """The rows that it was compared on; None: random ids, those of the hub, or the demo's."""

    @property
    def output(self) -> str:
        """Name of the output with its logits."""
        return head_output(self.task_definition.name)


def head_output(task: str) -> str:
    """Return the name of the output with another task's logits, in an engine with several heads."""
    return f"logits_{task}"


INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids")


class EngineInput(Record):
    """An input array of an engine; shapes are [rows, tokens]."""

    name: Annotated[str, OneOf("input", INPUT_NAMES)]
    dtype: Literal["int64"]
    min: tuple[Positive, Positive]
    opt: tuple[Annotated[int, Field(ge=1, le=MAX_ROWS)], Positive]
    max: tuple[Positive | None, Annotated[int, Field(ge=1, le=MAX_LENGTH)]]
    """None: any number of rows."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        rows, tokens = self.max
        if not (self.min[0] <= self.opt[0] and self.min[1] <= self.opt[1] <= tokens) or (
            rows is not None and self.opt[0] > rows
        ):
            raise ValueError("expected min <= opt <= max")
        return self


class EncoderShape(Record):
    """The unreduced encoder of an engine, whatever its family calls these numbers."""

    width: Annotated[int, Field(ge=1, le=MAX_WIDTH)]
    """Of the hidden states."""
    heads: Positive
    """Attention heads of a layer."""
    intermediate: Positive
    """FFN neurons of a layer."""


class BuildHost(Record):
    """The machine that an engine was built on."""

    machine: str
    system: str
    cpu_count: Positive | None
    vnni: bool
    bf16: bool


def _precisions(scheme: str) -> tuple[str, ...]:
    """Return the precisions that a graph of a scheme made elsewhere may compute in."""
    if scheme.endswith("-weights"):
        return ("fp32", "fp16", "bf16")
    return (scheme.split("-")[0], "fp32")  # fp32: several kinds of products, none of them most


@dataclass(frozen=True)
class EngineExits:
    """Early exit of an engine, as results state it."""

    rule: ExitRule
    depths: tuple[int, ...]
    """Layers before each ramp and, last, before the model's head."""
    segments: int
    """Number of graphs."""

    def to_json(self) -> dict[str, Any]:
        return {**self.rule.to_json(), "depths": list(self.depths), "segments": self.segments}


class ForeignGraph(Record):
    """A graph that effx did not build."""

    producer: str
    """The program that wrote it, as it says."""
    weights_per_token: Count
    """Elements of the matrices that tokens are multiplied with, those of pooler and head among them."""


class CheckpointOrigin(Record):
    """How an engine's checkpoint was made: what tells seeds of one method and one method on several tasks."""

    seed: Count
    settings: Digest
    """Of everything that was set for the checkpoint but the seed: training and its rows, ticket, exits,
    tokens, teacher's settings and name, zeros, a mask that was given, pretrained model, maximum length."""
    trained_further: bool
    """Whether it was made from another checkpoint, or has the structure of one, whose settings ``settings``
    does not include."""
    unrecorded: bool = False
    """Whether something else of how it was made is not in ``settings``: how its teacher was trained, or the
    text on which its mask was found by masked language modelling."""
    distilled: bool = False
    """Whether it learned from a teacher."""
    quantization_aware: bool = False
    """Whether its last training rounded as int8 engines do."""
    ticket: TicketRecord | None = None
    speedup: float | None = None
    """What it was pruned to without training; None: it was not."""
    exits: ExitTarget | None = None
    tokens: TokensTarget | None = None


class EngineManifest(Manifest):
    """What engine.json holds."""

    variant: str
    precision: str
    scheme: str
    backend: str
    device: str
    checkpoint: ArtifactReference
    """Made elsewhere and not compared with a checkpoint: the graph's folder, and the digest of its file."""
    made_elsewhere: ForeignGraph | None = None
    """None: effx built it."""
    structure: CheckedStructure | None
    """None: made elsewhere."""
    weight_remaining: Share | None
    """Share of the full model's parameters that remain, ramps excluded; None: made elsewhere."""
    inputs: Annotated[tuple[EngineInput, ...], Field(min_length=2, max_length=3)]
    parameters_removed: Count = 0
    model: str | None = None
    """Short name of the pretrained model."""
    regime: str | None = None
    drop_layers: tuple[LayerStrategy, ...] = ()
    """By which strategies layers were dropped before training, in order; empty: none were, or by an older
    release."""
    origin: CheckpointOrigin | None = None
    """How the checkpoint was made; None: made elsewhere, or by an earlier version."""
    encoder: EncoderShape | None = None
    """None: unknown."""
    parity: CheckedParity | None
    """None: made elsewhere, and not compared with a checkpoint."""
    audit: Audit | None = None
    candidates: tuple[CandidateRecord, ...] | None = None
    """What was compared; None: there was one."""
    built_for: BuiltFor | None = None
    """The workload that the fastest candidate was chosen in; None: single rows and batches of 16."""
    merged_projections: bool = False
    """Whether Q, K and V of a layer are one product."""
    other_heads: tuple[HeadRecord, ...] = ()
    """Heads of other tasks, each of which is an output of its own; the engine's task has ``logits``."""
    gate_data: RowsRecord | None = None
    """The rows of the parity gate and of calibration; None: random ids, those of the hub, or the demo's."""
    calibration_rows: Count | None = None
    """Training rows that activation ranges were to be taken from; None: made elsewhere."""
    runtime: RuntimeSettings
    expenses: tuple[Expense, ...] | None = None
    """What had to be computed to have its checkpoint; None: unknown."""
    build_s: Seconds | None = None
    built_on: BuildHost | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        runtime = self.runtime
        if self.encoder is not None:
            self._check_encoder(self.encoder)
        row = backends.get(self.backend)
        row.device(self.device)
        if self.made_elsewhere is None and None in (self.structure, self.weight_remaining, self.parity):
            raise ValueError("structure, weight_remaining or parity is missing, but effx built the engine")
        if self.made_elsewhere is None and runtime.interface is not None:
            raise ValueError("runtime.interface: expected none, effx built the engine")
        variant = variants.parse(self.variant)
        if variant.precision not in (variants.AUTO, self.precision) or runtime.precision != self.precision:
            raise ValueError(f"precision: {self.precision!r} is not that of variant and runtime")
        self._check_schemes(row.schemes_for(variant.scheme, self.device))
        if variant.scheme == variants.AUTO and self.scheme not in row.schemes_for(
            self.precision, self.device
        ):
            raise ValueError(f"scheme: {self.scheme!r} does not compute in {self.precision}")
        divides = self.task_definition.behavior.form == "windows"
        if reason := variant.stride_refusal(self.max_length, divides=divides):
            raise ValueError(f"variant: {self.variant!r}: {reason}")
        if runtime.variant not in (None, self.variant):
            raise ValueError(
                f"runtime.variant: expected {self.variant!r}, as variant, got {runtime.variant!r}"
            )
        if runtime.device != self.device:
            raise ValueError(f"runtime.device: expected {self.device!r}, as device, got {runtime.device!r}")
        names = [entry.name for entry in self.inputs]
        if len(set(names)) < len(names) or names[:2] != ["input_ids", "attention_mask"]:
            raise ValueError("inputs: expected input_ids, attention_mask and perhaps token_type_ids")
        if len({entry.max for entry in self.inputs}) > 1:
            raise ValueError("inputs: expected the same max for all")
        if self.max_length > self.longest_input:
            raise ValueError(
                f"max_length: expected at most {self.longest_input}, as inputs, got {self.max_length}"
            )
        if self.parity is not None:
            check_parity_of(self.parity, self.task_definition, "parity")
        for number, head in enumerate(self.other_heads):
            check_parity_of(head.parity, head.task_definition, f"other_heads[{number}].parity")
        names = [self.task_definition.name, *(head.task_definition.name for head in self.other_heads)]
        if len(set(names)) < len(names) or variant.multi != bool(self.other_heads):
            raise ValueError("other_heads: expected one for each other task of a variant with multi")
        self._check_runtime()
        return self

    def _check_schemes(self, built: tuple[str, ...]) -> None:
        """Check the scheme; ``built``: those that effx builds of the variant."""
        if self.candidates is not None and len(self.candidates) < 2:
            raise ValueError(f"candidates: expected several or null, got {len(self.candidates)}")
        row, scheme, unquantized = backends.get(self.backend), self.scheme, self.runtime.unquantized_precision
        if scheme not in backends.SCHEMES:
            raise ValueError(f"scheme: unknown scheme {scheme[:40]!r}")
        if row.builder_module is not None and self.made_elsewhere is None and scheme not in built:
            raise ValueError(f"scheme: {self.backend} does not build {self.variant} as {scheme!r}")
        if self.made_elsewhere is not None and self.precision not in _precisions(scheme):
            raise ValueError(f"scheme: {scheme!r} does not compute in {self.precision}")
        if unknown := {candidate.scheme for candidate in self.candidates or ()} - {*built}:
            raise ValueError(f"candidates: {self.backend} does not build {min(unknown)[:40]!r}")
        if unquantized != ("bf16" if scheme == backends.INT8_BF16 else None):
            raise ValueError(f"runtime.unquantized_precision: {unquantized!r}, but the scheme is {scheme}")

    def _check_encoder(self, encoder: EncoderShape) -> None:
        layers = () if self.structure is None else self.structure.layers
        if any(max(layer.heads, default=-1) >= encoder.heads for layer in layers):
            raise ValueError(f"encoder.heads: {encoder.heads}, fewer than in structure")
        if any(layer.intermediate > encoder.intermediate for layer in layers):
            raise ValueError(f"encoder.intermediate: {encoder.intermediate}, fewer than in structure")
        if encoder.width % encoder.heads:
            raise ValueError(f"encoder.width: {encoder.width} is not a multiple of heads")
        if self.weight_remaining == 1 and any(
            len(layer.heads) < encoder.heads or layer.intermediate < encoder.intermediate for layer in layers
        ):
            raise ValueError("weight_remaining: 1, but structure has layers with fewer heads or neurons")

    def _check_runtime(self) -> None:
        runtime = self.runtime
        if not runtime.files or len(set(runtime.files)) < len(runtime.files):
            raise ValueError("runtime.files: expected at least one file, each once")
        for name in (*runtime.files, *runtime.weight_files.values()):
            file_name(name)
        for key in ("input_names", "output_names", "weight_files"):
            if unknown := set(getattr(runtime, key)) - set(runtime.files):
                raise ValueError(f"runtime.{key}: {min(unknown)!r} is not in runtime.files")
        lengths = runtime.lengths
        if lengths is not None and (
            not lengths
            or any(after <= before for before, after in itertools.pairwise((0, *lengths)))
            or lengths[-1] > self.longest_input
        ):
            raise ValueError(f"runtime.lengths: expected rising numbers from 1 to {self.longest_input}")
        if runtime.pad_id < 0:
            raise ValueError(f"runtime.pad_id: expected an integer >= 0, got {runtime.pad_id}")
        if runtime.max_batch != self.inputs[0].max[0]:
            raise ValueError("runtime.max_batch: expected the rows of the inputs' max")
        if runtime.max_length not in (None, self.longest_input):
            raise ValueError(f"runtime.max_length: expected {self.longest_input}, as inputs, or null")
        if runtime.threads != variants.parse(self.variant).threads:
            raise ValueError(f"runtime.threads: {runtime.threads}, but the variant is {self.variant!r}")
        if unknown := set(runtime.disabled_optimizers) - {*backends.get(self.backend).disabled_optimizers}:
            raise ValueError(f"runtime.disabled_optimizers: unknown optimizer {min(unknown)[:40]!r}")
        if runtime.static_shape is not None:
            self._check_static_shape(runtime.static_shape)
        if (rows := runtime.part_rows) is not None:
            batch = 0 if runtime.static_shape is None else runtime.static_shape[0]
            if not 1 <= rows < batch or batch % rows or runtime.exits is not None:
                raise ValueError(
                    "runtime.part_rows: expected a divisor of the rows of runtime.static_shape, without exits"
                )
        if runtime.interface is not None:
            self._check_interface(runtime.interface)
        exits = runtime.exits
        layers = 0 if self.structure is None else len(self.structure.layers)
        if exits is None:
            if len(runtime.files) > 1:
                raise ValueError(f"runtime.files: expected one file without exits, got {len(runtime.files)}")
            return
        if any(after <= before for before, after in itertools.pairwise((0, *exits.depths))):
            raise ValueError("runtime.exits.depths: expected rising numbers >= 1")
        if not exits.depths or exits.depths[-1] != layers:
            raise ValueError(f"runtime.exits.depths: expected {layers} as the last, the number of layers")
        if len(runtime.files) not in (1, len(exits.depths)):
            raise ValueError(f"runtime.files: expected 1 or {len(exits.depths)}, one per exit and head")

    def _check_static_shape(self, shape: tuple[int, int]) -> None:
        if not backends.get(self.backend).compiles_static_shapes:
            raise ValueError(f"runtime.static_shape: {self.backend} does not compile one")
        if not (1 <= shape[0] <= MAX_STATIC_BATCH and 1 <= shape[1] <= self.longest_input):
            raise ValueError(
                f"runtime.static_shape: expected 1 to {MAX_STATIC_BATCH} rows and 1 to {self.longest_input} "
                "tokens"
            )

    def _check_interface(self, interface: GraphInterface) -> None:
        if unknown := set(interface.inputs.values()) - {entry.name for entry in self.inputs}:
            raise ValueError(f"runtime.interface.inputs: {min(unknown)!r} is not in inputs")
        if interface.dtypes.keys() != interface.inputs.keys() or not set(interface.dtypes.values()) <= {
            "int64",
            "int32",
        }:
            raise ValueError("runtime.interface.dtypes: expected int64 or int32 for every input")
        order = interface.label_order
        if order is not None and sorted(order) != list(range(len(self.task_definition.labels))):
            raise ValueError("runtime.interface.label_order: expected each label once")

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the logits; empty for regression."""
        return self.task_definition.labels

    @property
    def worst_parity(self) -> Parity | None:
        """The first comparison that failed; else that of the engine's own task, which may be None."""
        failed = (head.parity for head in self.other_heads if not head.parity.passed)
        if self.parity is None or not self.parity.passed:
            return self.parity
        return next(failed, self.parity)

    @property
    def longest_input(self) -> int:
        """The most tokens per row that the engine accepts."""
        return self.inputs[0].max[1]

    @property
    def largest_batch(self) -> int | None:
        """The most rows that the engine accepts at a time; None: any number."""
        return self.inputs[0].max[0]

    @property
    def exits(self) -> EngineExits | None:
        """Early exit; None: every row runs through all layers."""
        exits = self.runtime.exits
        return None if exits is None else EngineExits(exits.rule, exits.depths, len(self.runtime.files))
