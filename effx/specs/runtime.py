"""What a runtime must know about an engine besides its files: ``runtime`` in engine.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from effx.specs.exit_rules import ExitRule


@dataclass(frozen=True)
class StagedExits:
    """Early exit: the rule, and where its ramps are."""

    rule: ExitRule
    depths: tuple[int, ...]
    """Layers before each ramp and, last, before the model's head."""

    def to_json(self) -> dict[str, Any]:
        return {**self.rule.to_json(), "depths": list(self.depths)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StagedExits:
        return cls(ExitRule.from_json(value), tuple(int(depth) for depth in value["depths"]))


@dataclass(frozen=True)
class PlanTarget:
    """The release and the GPU that a TensorRT plan was built for; it runs on no other."""

    version: str
    """Of TensorRT or TensorRT-RTX."""
    capability: str
    """Kind of GPU, as ``sm90``."""
    device: str | None = None
    """Name of the GPU; None: built ahead of time for every GPU of this kind."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


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

    def to_json(self) -> dict[str, Any]:
        """Return the settings as engine.json has them, every field by its name."""
        value = {key: getattr(self, key) for key in self.__dataclass_fields__}
        return {
            **value,
            "files": list(self.files),
            "lengths": None if self.lengths is None else list(self.lengths),
            "exits": self.exits and self.exits.to_json(),
            "input_names": {name: list(names) for name, names in self.input_names.items()},
            "output_names": {name: list(names) for name, names in self.output_names.items()},
            "profile_batches": list(self.profile_batches),
            "weight_files": dict(self.weight_files),
            "plan": self.plan and self.plan.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RuntimeSettings:
        """Rebuild settings from engine.json; fields that are missing have their defaults."""
        fields = {key: value[key] for key in cls.__dataclass_fields__ if key in value}
        lengths, exits, plan = (fields.get(key) for key in ("lengths", "exits", "plan"))
        return cls(
            **{
                **fields,
                "files": tuple(fields["files"]),
                "lengths": None if lengths is None else tuple(lengths),
                "exits": None if exits is None else StagedExits.from_json(exits),
                "input_names": _names(fields.get("input_names", {})),
                "output_names": _names(fields.get("output_names", {})),
                "profile_batches": tuple(fields.get("profile_batches", ())),
                "plan": None if plan is None else PlanTarget(**plan),
            }
        )


def _names(value: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {file: tuple(names) for file, names in value.items()}
