"""torch -> ONNX: graphs with dynamic batch and sequence, weights inside.

    complete  ids -> layers (with token pruning, or without padding, if that is the variant) -> logits
    segments  ids -> layers up to a ramp -> hidden, mask, logits | hidden, mask -> ... -> logits

What is traced is :mod:`effx.models.forward`, the pass written out layer by layer: attention is
explicit, with each layer's true head count, so nothing in the graph depends on a config; the mask
is one Where over [batch, 1, 1, length].
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
import onnx_ir.passes.common
import torch
from torch import nn
from transformers import PreTrainedModel

from effx.models import exits, families, forward, reference
from effx.models.attention import local_blocks
from effx.models.checkpoints import input_names, position_limit
from effx.models.stream import Stream
from effx.models.structure import structure
from effx.quiet import quiet

OPSET = 20
LARGEST_PROTOBUF_BYTES = 2_000_000_000
_EXAMPLE_LENGTH = 16
_LONG_EXAMPLE_LENGTH = 500
"""Some blocks of local attention, and not a multiple of usual block lengths: neither is taken for granted."""


@dataclass(frozen=True)
class TraceShape:
    """What a graph is traced for."""

    length: int | None = None
    """A fixed sequence length; None: dynamic."""
    tokens: bool = False
    """Drop tokens by the model's schedule."""
    dtype: torch.dtype = torch.float32
    """Of weights and activations; ids, logits and what flows between segments keep their types."""
    blocks: bool = False
    """Compute local attention in blocks."""
    unpadded: bool = False
    """Leave padding out of everything but attention."""


class CompleteModel(nn.Module):
    """Ids to the outputs of a model: logits, start and end logits, or a vector with the hidden states."""

    def __init__(
        self, model: PreTrainedModel, shape: TraceShape, others: Sequence[PreTrainedModel] = ()
    ) -> None:
        """Args:
        model: the task model.
        shape: what the graph is traced for.
        others: models of other tasks with the same encoder, which add their logits.
        """
        super().__init__()
        self.model, self.shape, self.names = model, shape, input_names(model)
        self.others = nn.ModuleList(others)

    def forward(self, *arrays: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Return logits [batch, outputs], of each task if there are several; start and end logits, each
        [batch, length]; or vectors [batch, width] and hidden states [batch, length, width], which
        sentence-transformers pools itself.
        """
        stream = forward.embed(self.model, dict(zip(self.names, arrays, strict=True)))
        if self.shape.unpadded:
            stream = stream.without_padding()
        for index in range(len(structure(self.model).layers)):
            stream = reference.layer(self.model, index, stream, prune=self.shape.tokens)
        stream = stream.with_padding()
        if families.of(self.model).answers_spans(self.model):
            start, end = forward.spans(self.model, stream.hidden)
            return start.float(), end.float()
        if families.of(self.model).embeds(self.model):
            return forward.head(self.model, stream), forward.finish(self.model, stream.hidden).float()
        if self.others:
            return tuple(forward.head(model, stream).float() for model in (self.model, *self.others))
        return forward.head(self.model, stream).float()


class Segment(nn.Module):
    """The layers between two ramps, with the ramp or head that follows them.

    Between segments flow ``hidden`` [batch, tokens, width], ``token_mask`` int64 [batch, tokens] (1: neither
    padding nor pruned) and ``attention_mask`` int64 [batch, length] of the input.
    """

    def __init__(self, model: PreTrainedModel, shape: TraceShape, layers: range) -> None:
        super().__init__()
        self.model, self.shape, self.layers, self.names = (
            _only(model, layers),
            shape,
            layers,
            input_names(model),
        )

    def forward(self, *arrays: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return logits [batch, outputs] and, before the last segment, hidden and token_mask."""
        if self.layers.start == 0:
            stream = forward.embed(self.model, dict(zip(self.names, arrays, strict=True)))
        else:
            mask, hidden, token_mask = arrays
            if not self.shape.tokens:  # without token pruning all segments compute the same values from
                token_mask = mask  # the mask; composing the segments then merges them
            positions = torch.arange(hidden.shape[1], device=hidden.device).expand(hidden.shape[:2])
            hidden = hidden.to(self.shape.dtype)
            stream = Stream(hidden, token_mask.bool(), mask.sum(1), positions, mask.shape[1])
            stream = forward.with_bias(self.model, stream)
        for index in self.layers:
            stream = reference.layer(self.model, index, stream, prune=self.shape.tokens)
        ramp = exits.ramp_after(self.model, self.layers[-1])
        if ramp is None:
            return (forward.head(self.model, stream).float(),)
        return exits.answer(self.model, ramp, stream).float(), stream.hidden.float(), stream.token_mask.long()


def save(model: onnx.ModelProto, path: Path) -> bool:
    """Write a graph; return whether its weights are in a second file, as they are past 2 GB."""
    large = sum(entry.ByteSize() for entry in model.graph.initializer) > LARGEST_PROTOBUF_BYTES
    onnx.save(model, path, save_as_external_data=large, location=f"{path.name}.data")
    return bool(large)


def _only(model: PreTrainedModel, layers: range) -> PreTrainedModel:
    """Return a copy of ``model`` without the weights that a segment does not use."""
    remaining = structure(model)
    others = [layer for index, layer in enumerate(families.of(model).layers(model)) if index not in layers]
    others += [] if layers.start == 0 else families.of(model).embeddings(model)
    others += [
        ramp for number, ramp in model.ramps.items() if remaining.position(int(number) - 1) + 1 != layers.stop
    ]
    memo: dict[int, Any] = {id(module): nn.Identity() for module in others}
    return copy.deepcopy(model, memo)


def segments(model: PreTrainedModel) -> list[range]:
    """Return the layers of each segment, as positions among the remaining layers."""
    ends = [0, *exits.depths(model)]
    return [range(start, end) for start, end in zip(ends, ends[1:], strict=False)]


@dataclass(frozen=True)
class Traced:
    """What an exporter needs to know."""

    module: nn.Module
    example: tuple[torch.Tensor, ...]
    inputs: list[str]
    outputs: list[str]
    axes: list[dict[int, Any]]
    """Dynamic dimensions of each input."""


def traced(
    model: PreTrainedModel,
    shape: TraceShape,
    layers: range | None = None,
    others: Mapping[str, PreTrainedModel] | None = None,
) -> Traced:
    """Return the complete model (``layers`` None) or one segment, ready for an exporter.

    Complete: inputs int64 [batch, sequence], output logits; start_logits and end_logits; or
    sentence_embedding and last_hidden_state. ``others``, output -> model with the same encoder, add outputs.
    Segment: outputs logits and, before the last segment, hidden_out and token_mask_out.
    """
    limit = position_limit(model)
    others = others or {}
    if shape.dtype != torch.float32:
        model, *converted = copy.deepcopy([model, *others.values()])  # at once: they share the encoder
        for each in (model, *converted):  # not its buffers: frequencies of rotary positions need float32
            for parameter in each.parameters():
                parameter.data = parameter.data.to(shape.dtype)
        others = dict(zip(others, converted, strict=True))
    batch = torch.export.Dim("batch", min=1, max=65536)
    sequence = torch.export.Dim("sequence", min=1, max=limit)
    tokens = torch.export.Dim("tokens", min=1, max=limit)
    length = shape.length or (_LONG_EXAMPLE_LENGTH if shape.blocks else _EXAMPLE_LENGTH)
    ones = torch.ones((2, length), dtype=torch.int64)
    fixed: dict[int, Any] = {0: batch}
    axes = fixed if shape.length else {0: batch, 1: sequence}
    if layers is None or layers.start == 0:
        inputs = input_names(model)
        module: nn.Module
        if layers is None:
            module = CompleteModel(model, shape, [*others.values()])
        else:
            module = Segment(model, shape, layers)
        # separate tensors: exporters merge inputs that are the same tensor
        example, dims = tuple(ones.clone() for _ in inputs), [axes for _ in inputs]
    else:
        inputs = ["attention_mask", "hidden", "token_mask"]  # exporters name dimensions after the first input
        width = max(2, length // 2) if shape.tokens else length
        module = Segment(model, shape, layers)
        example = (ones, torch.zeros((2, width, model.config.hidden_size)), ones[:, :width].clone())
        inner = {0: batch, 1: tokens} if shape.tokens else axes
        dims = [axes, inner, inner]
    last = layers is None or layers.stop == len(structure(model).layers)
    outputs = ["logits", *others] if last else ["logits", "hidden_out", "token_mask_out"]
    if families.of(model).answers_spans(model):
        outputs = ["start_logits", "end_logits"]
    if families.of(model).embeds(model):
        outputs = ["sentence_embedding", "last_hidden_state"]
    return Traced(module.eval(), example, inputs, outputs, dims)


def write(
    model: PreTrainedModel,
    path: Path,
    shape: TraceShape | None = None,
    layers: range | None = None,
    others: Mapping[str, PreTrainedModel] | None = None,
) -> None:
    """Write the complete model, or the segment of ``layers``, as ONNX; see :func:`traced`."""
    shape = shape or TraceShape()
    program_source = traced(model, shape, layers, others)
    bytes_ = sum(
        parameter.numel() * parameter.element_size() for parameter in program_source.module.parameters()
    )
    external = bytes_ > LARGEST_PROTOBUF_BYTES
    with quiet(output=True), torch.inference_mode(), local_blocks(shape.blocks):
        program = torch.onnx.export(
            program_source.module,
            program_source.example,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=(tuple(program_source.axes),),
            input_names=program_source.inputs,
            output_names=program_source.outputs,
            external_data=external,
            verbose=False,
        )
    assert program is not None
    _clear_metadata(program.model)
    program.save(path, external_data=external)


def _clear_metadata(model: onnx_ir.Model) -> None:
    """Remove what the exporter notes on each node and value: stack traces, so paths of this machine."""
    onnx_ir.passes.common.ClearMetadataAndDocStringPass()(model)
    for graph in model.graphs():
        produced = (output for node in graph for output in node.outputs)
        for value in (*graph.inputs, *graph.initializers.values(), *produced):
            value.metadata_props.clear()
            value.doc_string = None
    model.metadata_props.clear()
    model.doc_string = None


def nodes(outer: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph and of the graphs inside them."""
    for graph in graphs(outer):
        yield from graph.node


def graphs(outer: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and the graphs inside its nodes."""
    yield outer
    for node in outer.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs(attribute.g)
