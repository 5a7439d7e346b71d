"""INT8 for ONNX Runtime on CPUs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from effx import scratch
from effx.export import folding, graph
from effx.host import cpu
from effx.quiet import quiet


def dynamic(source: Path, target: Path) -> None:
    """Quantize every MatMul with constant weights: int8 weights per output channel, uint8
    activations with a scale per tensor, computed at run time.

    The task head's Gemms become MatMuls and are quantized too; activation times activation (the
    attention scores) and queries times a constant table of positions for each head stay in fp32.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with scratch.folder("int8") as folder, quiet():
        plain, large, excluded = _prepared(source, folder)
        quantize_dynamic(
            plain,
            target,
            per_channel=True,
            reduce_range=not cpu.has_vnni(),
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=excluded,
            use_external_data_format=large,
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
        )


def static(
    source: Path, target: Path, rows: Sequence[dict[str, np.ndarray]], *, symmetric: bool = False
) -> None:
    """Quantize as :func:`dynamic`, activations with fixed ranges: the extremes seen on ``rows``.

    uint8 activations by int8 weights, per output channel, as Q/DQ pairs that ONNX Runtime fuses:
    int8 by int8 is slower than fp32 on x86. ``symmetric``: int8 by int8 without zero points, in
    full range, as TensorRT requires.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with scratch.folder("int8") as folder, quiet():
        plain, large, excluded = _prepared(source, folder)
        quantize_static(
            plain,
            target,
            _CalibrationReader(rows),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=not symmetric and not cpu.has_vnni(),
            activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=excluded,
            calibrate_method=CalibrationMethod.MinMax,
            use_external_data_format=large,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT, "ActivationSymmetric": symmetric},
        )


class _CalibrationReader:
    """Calibration rows, in the interface of ONNX Runtime's calibrator."""

    def __init__(self, rows: Sequence[dict[str, np.ndarray]]) -> None:
        self._rows: Iterator[Any] = iter(rows)

    def get_next(self) -> Any:
        return next(self._rows, None)


def _prepared(source: Path, folder: Path) -> tuple[Path, bool, list[str]]:
    """Write ``source`` with named nodes and folded constants, without the shapes, on which inference fails.

    Returns:
        The file; whether its weights are in another one; and the names of products without a weight matrix:
        of two activations, or with a constant of another rank, which would be quantized along a wrong axis.
    """
    model = onnx.load(source)
    for inner in graph.graphs(model.graph):
        del inner.value_info[:]
    folding.fold(model)
    folding.separate_gemm_weights(model)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{number}"
    matrices = {entry.name for entry in model.graph.initializer if len(entry.dims) == 2}
    excluded = [
        node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[1] not in matrices
    ]
    plain = folder / "model.onnx"
    return plain, graph.save(model, plain), excluded
