"""INT8 for ONNX Runtime on CPUs."""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path

import onnx

from effx.progress import hushed


def dynamic(source: Path, target: Path) -> None:
    """Quantise every MatMul with constant weights: int8 weights per output channel, uint8
    activations with a scale found at run time for each tensor.

    The task head's Gemms become MatMuls and are quantised too; activation times activation (the
    attention scores) stays in fp32.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source)
    del model.graph.value_info[:]  # the exporter's shapes make the quantiser's inference fail
    with tempfile.TemporaryDirectory(prefix="effx-int8-") as scratch, hushed():
        plain = Path(scratch) / "model.onnx"
        onnx.save(model, plain)
        quantize_dynamic(
            plain,
            target,
            per_channel=True,
            reduce_range=not has_vnni(),
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul"],
            extra_options={"MatMulConstBOnly": True},
        )


def has_vnni() -> bool:
    """Whether this processor multiplies uint8 by int8 without saturating in between.

    x86 without VNNI adds pairs of products in 16 bits, which overflow; weights of 7 bits do not.
    """
    cpu = Path("/proc/cpuinfo")
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    return not cpu.is_file() or "vnni" in cpu.read_text()
