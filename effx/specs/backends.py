"""The runtimes that engines run on: one row of facts per backend.

Everything that effx knows about a backend without loading it is in its row. A new runtime is one row here
and two modules: ``effx/engines/NAME.py``, which opens a built file, and ``effx/export/builders/NAME.py``,
which builds it. Rows of one runtime may share modules. Nothing here imports a runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from effx.errors import UsageError, unknown
from effx.specs.variants import AUTO

Schemes = Mapping[str, Mapping[str, Sequence[str]]]
"""Device -> precision of a variant -> the schemes to build; the fastest that passes its gates is used."""

SYMMETRIC_INT8 = "int8-static-symmetric"
"""Static int8 activations without zero points: TensorRT requires it; on x86 it is slower than fp32."""
INT8_BF16 = "int8-static-bf16"
"""Static int8, and bf16 instead of fp32 in what is not quantized."""
STATIC_FP8 = "fp8-static"
RUNNABLE_DEVICES = ("cpu", "cuda")
"""Devices of this machine; the others name kinds of GPUs of other machines."""
AUTO_PRECISIONS = ("int8", "bf16", "fp16", "fp32")
"""What a variant ``auto`` tries, as far as the backend builds it."""
CALIBRATED = frozenset({"int8-static", SYMMETRIC_INT8, INT8_BF16, STATIC_FP8})
"""Schemes whose activation ranges are taken from training rows."""


@dataclass(frozen=True)
class Backend:
    """A runtime, on the devices that effx builds for."""

    name: str
    """What users write."""
    title: str
    """The runtime's name, for messages."""
    engine_module: str
    """Module in ``effx.engines`` that opens its files."""
    builder_module: str | None
    """Module in ``effx.export.builders`` that builds its files; None: its engines are not exported."""
    python_module: str
    """The module that must be importable to run it."""
    extra: str
    """The extra of the effx package that installs it."""
    packages: tuple[str, ...]
    """Distributions whose versions decide what is built and measured."""
    schemes: Schemes = field(default_factory=dict)
    """What it builds; its keys are the devices, the default one first."""
    layer_taps: str | None = None
    """How to read hidden states from a built file, see :mod:`effx.export.drift`; None: not possible."""
    triton_backend: str | None = None
    """NVIDIA Triton Inference Server's name for it; None: the server cannot run its files."""
    execution_providers: Mapping[str, str] = field(default_factory=dict)
    """Device -> ONNX Runtime's execution provider, for backends that run in ONNX Runtime."""
    strongly_typed: bool = False
    """Whether the types in the built network are binding, so that an audit must find the named precision."""
    runs_code: bool = False
    """Whether opening its files runs code that they contain, as unpickling does."""
    merges_projections: Literal["always", "single-rows"] | None = None
    """On the CPU: when Q, K and V from one product are tried; None: never."""
    disabled_optimizers: tuple[str, ...] = ()
    """On the CPU: graph optimizers of the runtime without which engines are tried, as they cost more time
    than they save on some processors."""
    compiles_static_shapes: bool = False
    """On the CPU: whether a model without dynamic dimensions is tried for a workload of one shape."""
    prepares_shapes: bool = False
    """On the CPU: whether the first query of a shape takes longer than later ones, at any length."""
    strips_weights: bool = False
    """Whether it can build a plan without weights (variant part ``stripped``)."""

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that it builds for, the default one first."""
        return tuple(self.schemes)

    @property
    def default_device(self) -> str:
        return self.devices[0]

    def device(self, name: str | None) -> str:
        """Return the device called ``name``; None: the default one.

        Raises:
            UsageError: the backend does not build for this device.
        """
        if name is not None and name not in self.devices:
            raise unknown(f"{self.name} device", name, self.devices)
        return name or self.default_device

    def device_here(self, name: str | None) -> str:
        """Return the device called ``name`` on which engines run on this machine; None: the default one.

        Raises:
            UsageError: the backend does not build for this device, or only for other machines.
        """
        device = self.device(name)
        if device not in RUNNABLE_DEVICES:
            raise UsageError(
                f"device {device}: engines have to run here: expected one of {', '.join(RUNNABLE_DEVICES)}.",
                settings="device",
            )
        return device

    def schemes_for(self, precision: str, device: str) -> tuple[str, ...]:
        """Return the schemes to build for a variant's precision; empty: not supported."""
        if precision == AUTO:
            return tuple(scheme for each in AUTO_PRECISIONS for scheme in self.schemes_for(each, device))
        return tuple(self.schemes[self.device(device)].get(precision, ()))

    def is_chosen_by_time(self, precision: str, device: str, built_for: str | None) -> bool:
        """Whether an engine is the fastest of several candidates.

        Args:
            precision: a variant's.
            device: what it is built for.
            built_for: the workload that it is built for; None: the user has not said.
        """
        alternatives = self.merges_projections or self.disabled_optimizers or self.compiles_static_shapes
        return len(self.schemes_for(precision, device)) > 1 or (
            built_for is not None and bool(alternatives) and self.device(device) == "cpu"
        )

    def refusal(self, precision: str, device: str) -> str | None:
        """Return why a precision is not supported on a device, or None."""
        if self.schemes_for(precision, device):
            return None
        known = ", ".join(self.schemes[device])
        return f"effx does not build {precision} for {self.title} on {device}; it builds {known}"


_TENSORRT_SCHEMES: Mapping[str, Sequence[str]] = {
    "fp32": ["fp32"],
    "fp16": ["fp16"],
    "bf16": ["bf16"],
    "int8": [SYMMETRIC_INT8],
    "int8-static": [SYMMETRIC_INT8],
    "fp8": [STATIC_FP8],
}
_TORCH_SCHEMES: Schemes = {
    "cpu": {"fp32": ["fp32"], "bf16": ["bf16"]},
    "cuda": {"fp32": ["fp32"], "fp16": ["fp16"], "bf16": ["bf16"]},
}

_ROWS = (
    Backend(
        name="onnxruntime",
        title="ONNX Runtime",
        engine_module="onnxruntime",
        builder_module="onnxruntime",
        python_module="onnxruntime",
        extra="cpu",
        packages=("onnxruntime", "onnxruntime-gpu"),
        schemes={
            "cpu": {
                "fp32": ["fp32"],
                "int8": ["int8-dynamic", "int8-static"],
                "int8-dynamic": ["int8-dynamic"],
                "int8-static": ["int8-static"],
            },
            "cuda": {"fp32": ["fp32"], "fp16": ["fp16"]},
        },
        layer_taps="onnxruntime",
        triton_backend="onnxruntime",
        execution_providers={"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"},
        merges_projections="always",
        disabled_optimizers=("SkipLayerNormFusion",),
    ),
    Backend(
        name="onnxruntime-tensorrt",
        title="ONNX Runtime's TensorRT provider",
        engine_module="onnxruntime",
        builder_module="onnxruntime_tensorrt",
        python_module="onnxruntime",
        extra="gpu",
        packages=("onnxruntime-gpu", "tensorrt"),
        schemes={
            "cuda": {
                "fp32": ["fp32"],
                "fp16": ["fp16"],
                "int8": [SYMMETRIC_INT8],
                "int8-static": [SYMMETRIC_INT8],
            }
        },
        execution_providers={"cuda": "TensorrtExecutionProvider"},
    ),
    Backend(
        name="tensorrt",
        title="TensorRT",
        engine_module="tensorrt",
        builder_module="tensorrt",
        python_module="tensorrt",
        extra="tensorrt",
        packages=("tensorrt",),
        schemes={"cuda": _TENSORRT_SCHEMES},
        triton_backend="tensorrt",
        strongly_typed=True,
        strips_weights=True,
    ),
    Backend(
        name="tensorrt-rtx",
        title="TensorRT-RTX",
        engine_module="tensorrt",
        builder_module="tensorrt_rtx",
        python_module="tensorrt_rtx",
        extra="rtx",
        packages=("tensorrt-rtx",),
        schemes=dict.fromkeys(("cuda", "sm80", "sm86", "sm89", "sm120", "sm121"), _TENSORRT_SCHEMES),
        strongly_typed=True,
        strips_weights=True,
    ),
    Backend(
        name="openvino",
        title="OpenVINO",
        engine_module="openvino",
        builder_module="openvino",
        python_module="openvino",
        extra="openvino",
        packages=("openvino", "nncf"),
        schemes={
            "cpu": {
                "fp32": ["fp32"],
                "bf16": ["bf16"],
                "int8": ["int8-static", INT8_BF16],
                "int8-static": ["int8-static"],
            }
        },
        layer_taps="openvino",
        merges_projections="single-rows",
        compiles_static_shapes=True,
        prepares_shapes=True,
        triton_backend="openvino",
    ),
    Backend(
        name="torch",
        title="PyTorch",
        engine_module="torch",
        builder_module="torch",
        python_module="torch",
        extra="train",
        packages=("torch",),
        schemes=_TORCH_SCHEMES,
        layer_taps="torch",
        runs_code=True,
    ),
    Backend(
        name="torch-compile",
        title="compiled PyTorch",
        engine_module="torch",
        builder_module="torch_compile",
        python_module="torch",
        extra="train",
        packages=("torch",),
        schemes=_TORCH_SCHEMES,
        layer_taps="torch",
        runs_code=True,
    ),
    Backend(
        name="mock",
        title="the mock runtime",
        engine_module="mock",
        builder_module=None,
        python_module="numpy",
        extra="",
        packages=(),
        schemes={"cpu": {}},
    ),
)

BACKENDS: Mapping[str, Backend] = {row.name: row for row in _ROWS}
"""Backend -> its row, in the order that tables list them."""
BUILDABLE: tuple[str, ...] = tuple(row.name for row in _ROWS if row.builder_module is not None)
"""The backends that a user may export to."""


SCHEMES: frozenset[str] = frozenset(
    scheme
    for row in _ROWS
    for device in row.schemes.values()
    for names in device.values()
    for scheme in names
) | {"fp16-weights", "bf16-weights", "int8-weights", "int4-weights"}
"""What effx builds, and weights with fewer bits than the arithmetic, as graphs made elsewhere have them."""


def get(name: str) -> Backend:
    """Return the row of a backend.

    Raises:
        UsageError: there is no such backend; the message names the nearest.
    """
    if name not in BACKENDS:
        raise unknown("backend", name, BUILDABLE)
    return BACKENDS[name]


def builder_module(name: str) -> str:
    """Return the name of the module in ``effx.export.builders`` that builds for a backend.

    Raises:
        UsageError: there is no such backend, or its engines are not exported.
    """
    module = get(name).builder_module
    if module is None:
        raise UsageError(f"backend '{name}': cannot be exported to. Known: {', '.join(BUILDABLE)}.")
    return module
