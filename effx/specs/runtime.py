"""What a runtime must know about an engine besides its files: ``runtime`` in engine.json.

:class:`effx.manifests.EngineManifest` reads, writes and checks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from effx.specs.exit_rules import ExitRule

MAX_STATIC_BATCH = 4096
"""Rows of a model that is compiled for one shape at most: its memory is reserved when it is opened."""


@dataclass(frozen=True)
class StagedExits:
    """Early exit: the rule, and where its ramps are."""

    rule: ExitRule
    depths: tuple[int, ...]
    """Layers before each ramp and, last, before the model's head."""


@dataclass(frozen=True)
class PlanTarget:
    """The release and the GPU that a TensorRT plan was built for; it runs on no other."""

    version: str
    """Of TensorRT or TensorRT-RTX."""
    capability: str
    """Kind of GPU, as ``sm90``."""
    device: str | None = None
    """Name of the GPU; None: built ahead of time for every GPU of this kind."""


@dataclass(frozen=True)
class GraphInterface:
    """How a graph that was made elsewhere names its inputs and outputs."""

    inputs: Mapping[str, str]
    """Input of the graph -> the array that it takes, such as ``input_ids``."""
    dtypes: Mapping[str, str]
    """Input of the graph -> its type, ``int64`` or ``int32``."""
    outputs: Mapping[str, str]
    """Array -> output of the graph, such as ``logits``."""
    label_order: tuple[int, ...] | None = None
    """For each label of the task, the number of its logit; None: they are in the task's order."""


@dataclass(frozen=True)
class RuntimeSettings:
    """How to open and run an engine's files.

    Several files are early-exit segments, in order.
    """

    files: tuple[str, ...]
    """Graphs, in order; several are early-exit segments."""
    precision: str = "fp32"
    """Of the arithmetic: fp32, fp16, bf16, int8 or fp8."""
    device: str = "cpu"
    """The device it was built for."""
    threads: int | None = None
    """Threads of the CPU at most; None: as many as the user says, or processors that the process may use."""
    unquantized_precision: str | None = None
    """Of what int8 leaves unquantized; None: fp32, or ``precision`` where nothing is quantized."""
    lengths: tuple[int, ...] | None = None
    """Sequence lengths that inputs are padded to; None: inputs keep their length."""
    pad_id: int = 0
    """The token id of padding."""
    token_pruning: bool = False
    """Whether tokens are dropped between layers."""
    exits: StagedExits | None = None
    """Early exit; None: every row runs through all layers."""
    variant: str | None = None
    """The variant that a plan was built as, for the message of how to build it again."""
    cuda_graph: bool = True
    """On a GPU: whether each shape is recorded as a CUDA graph."""
    tf32: bool = False
    """On a GPU: whether fp32 products may run in TF32."""
    keep_qdq: bool = False
    """ONNX Runtime on the CPU: whether Q/DQ pairs run as written instead of fused."""
    disabled_optimizers: tuple[str, ...] = ()
    """ONNX Runtime on the CPU: graph optimizers that are switched off."""
    static_shape: tuple[int, int] | None = None
    """OpenVINO: batch and length whose queries run in a model without dynamic dimensions; None: none have."""
    part_rows: int | None = None
    """OpenVINO: rows of the parts into which a query of ``static_shape`` is divided, computed at the same
    time, each by its share of the threads; None: undivided."""
    compiled: bool = False
    """PyTorch: whether the program is compiled."""
    input_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """PyTorch: file -> names of its inputs, in order."""
    output_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """PyTorch: file -> names of its outputs, in order."""
    max_length: int | None = None
    """ONNX Runtime's TensorRT provider: tokens of its optimization profile at most."""
    max_batch: int | None = None
    """Rows of the optimization profiles at most; None: not limited."""
    profile_batches: tuple[int, ...] = ()
    """TensorRT plans: the largest batch of each optimization profile."""
    weight_files: Mapping[str, str] = field(default_factory=dict)
    """TensorRT plans without weights: plan -> the ONNX file that has them."""
    plan: PlanTarget | None = None
    """TensorRT plans: what they were built for."""
    interface: GraphInterface | None = None
    """Graphs made elsewhere: their inputs and outputs; None: they are named as effx names them."""

    @property
    def dynamic_length(self) -> bool:
        """Whether the sequence length may change from call to call."""
        return self.lengths is None

    @property
    def is_staged(self) -> bool:
        """Whether the host decides between early-exit segments."""
        return self.exits is not None and len(self.files) > 1

    def with_exit_rule(self, rule: ExitRule) -> RuntimeSettings:
        """Return the same settings with another exit rule.

        Raises:
            ValueError: the engine has no exits.
        """
        if self.exits is None:
            raise ValueError("the engine has no exits")
        return replace(self, exits=replace(self.exits, rule=rule))
