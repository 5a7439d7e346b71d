"""torch -> ONNX: one graph with dynamic batch and sequence, weights inside.

Eager attention is traced: without a fused kernel to aim at, the decomposed ``sdpa`` adds about 40
shape and mask nodes, and ran a sixth slower in fp32 and up to 1.7x slower in int8 on a CPU.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from transformers import PreTrainedModel

from effx.models.io import input_names, position_limit
from effx.progress import hushed

OPSET = 20
_LARGEST_PROTOBUF_BYTES = 2_000_000_000


class _Logits(torch.nn.Module):
    """The task model with its logits as the only output."""

    def __init__(self, model: PreTrainedModel, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *arrays: torch.Tensor) -> torch.Tensor:
        inputs = dict(zip(self.names, arrays, strict=True))
        return self.model(**inputs).logits  # type: ignore[no-any-return]


def write_onnx(model: PreTrainedModel, path: Path) -> None:
    """Write ``model`` to ``path``; inputs int64 [batch, sequence], output logits [batch, n]."""
    names = input_names(model)
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    batch = torch.export.Dim("batch", min=1, max=65536)
    sequence = torch.export.Dim("sequence", min=1, max=position_limit(model))
    example = tuple(torch.ones((2, 16), dtype=torch.int64) for _ in names)
    bytes_ = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    try:
        with _quiet(), torch.inference_mode():
            program = torch.onnx.export(
                _Logits(model.eval(), names),
                example,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=(tuple({0: batch, 1: sequence} for _ in names),),
                input_names=names,
                output_names=["logits"],
                external_data=bytes_ > _LARGEST_PROTOBUF_BYTES,
                verbose=False,
            )
        assert program is not None
        program.save(path, external_data=bytes_ > _LARGEST_PROTOBUF_BYTES)
    finally:
        model.set_attn_implementation(implementation)


def node_counts(path: Path) -> dict[str, int]:
    """Return how often each operator stands in a graph, most frequent first."""
    graph = onnx.load(path, load_external_data=False).graph
    counts: dict[str, int] = {}
    for node in graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's remarks about optional packages and its own progress."""
    with hushed(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
