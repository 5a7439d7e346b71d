"""INT8 for ONNX Runtime on CPUs."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic


def dynamic(source: Path, target: Path) -> None:
    """Quantise every MatMul with constant weights: int8 weights per output channel, uint8
    activations with a scale found at run time for each tensor.

    The task head's Gemms become MatMuls and are quantised too; activation times activation (the
    attention scores) stays in fp32.
    """
    model = onnx.load(source)
    del model.graph.value_info[:]  # the exporter's shapes make the quantiser's inference fail
    with tempfile.TemporaryDirectory(prefix="effx-int8-") as scratch, _quiet():
        plain = Path(scratch) / "model.onnx"
        onnx.save(model, plain)
        quantize_dynamic(
            plain,
            target,
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul"],
            extra_options={"MatMulConstBOnly": True},
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the advice to preprocess a model that the exporter has already folded."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)
