"""Pruning without training: heads and neurons are removed, and the weights that read the others are refitted.

The matrices that follow heads and neurons (W_O and W2) are linear maps of contexts and activations. On some
rows, without labels, the second moments of these inputs are measured; :mod:`effx.models.least_squares` then
says which structures are missed least, and with which weights the others replace them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from effx import signals
from effx.errors import UsageError
from effx.models import families
from effx.models.families.removal import linear
from effx.models.least_squares import DAMPING, LinearProblem
from effx.models.structure import structure
from effx.models.surgery import reduce_to
from effx.structure import Structure

Inputs = Mapping[str, torch.Tensor]
"""input_ids, attention_mask and, where the family takes them, token_type_ids, each int64 [batch, length]."""


@dataclass(frozen=True)
class LayerProblems:
    """The linear maps of a layer that read heads and neurons; None: the layer has no such part."""

    heads: LinearProblem | None
    neurons: LinearProblem | None


@torch.inference_mode()
def problems(
    model: PreTrainedModel, batches: Iterable[Inputs], *, damping: float = DAMPING
) -> list[LayerProblems]:
    """Return the maps of every layer with the moments of their inputs over the real tokens of some rows.

    Args:
        model: a task model of a supported family, in eval mode.
        batches: rows; labels are not needed.
        damping: lambda, as a share of the mean second moment of an input.

    Raises:
        UsageError: there are no rows.
    """
    family = families.of(model)
    sums = _Moments(model)
    with sums.watching():
        for batch in batches:
            signals.check()
            sums.mask = batch["attention_mask"].bool().to(model.device)
            model(**{name: value.to(model.device) for name, value in batch.items()})
    if not sums.tokens:
        raise UsageError("reconstruction: there are no rows to measure inputs on.")

    def problem(position: int, path: str, size: int) -> LinearProblem | None:
        total = sums.totals.get((position, path))
        if total is None:
            return None
        module = linear(family.layers(model)[position], path)
        weight = module.weight.detach().cpu().double().numpy()
        bias = None if module.bias is None else module.bias.detach().cpu().double().numpy()
        return LinearProblem(weight, bias, total / sums.tokens, size, damping)

    return [
        LayerProblems(
            problem(position, family.context_path, family.head_size(model)),
            problem(position, family.ffn_output_path, 1),
        )
        for position in range(len(family.layers(model)))
    ]


class _Moments:
    """Sums over tokens of [x; 1] [x; 1]^T of the inputs of every layer's maps."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self.mask = torch.empty(0)
        """bool [batch, length] of the batch that is being run."""
        self.totals: dict[tuple[int, str], np.ndarray] = {}
        self.tokens = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Add up the inputs of all forward passes inside the ``with`` block."""
        family, handles = families.of(self._model), []
        shapes = structure(self._model).layers
        for position, (shape, layer) in enumerate(zip(shapes, family.layers(self._model), strict=True)):
            parts = {family.context_path: shape.heads, family.ffn_output_path: shape.intermediate}
            for path, present in parts.items():
                if present:
                    handles.append(
                        layer.get_submodule(path).register_forward_pre_hook(self._hook(position, path))
                    )
        count = self._model.register_forward_pre_hook(self._count)
        try:
            yield
        finally:
            for handle in (*handles, count):
                handle.remove()

    def _count(self, *_: Any) -> None:
        self.tokens += int(self.mask.sum())

    def _hook(self, position: int, path: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            x = inputs[0][self.mask].float()
            x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
            moment = (x.T @ x).double().cpu().numpy()
            self.totals[position, path] = self.totals.get((position, path), 0.0) + moment

        return hook


def reconstruct(
    model: PreTrainedModel, target: Structure, layers: list[LayerProblems], *, update: bool = True
) -> PreTrainedModel:
    """Reduce a model to a structure, in place, and let what remains replace what was removed.

    Args:
        model: the model that ``layers`` were measured on.
        target: heads, neurons and layers that remain.
        layers: of :func:`problems`, one for each layer of the model.
        update: False: only remove, without refitting any weight, which equals masking.

    Raises:
        UsageError: ``target`` keeps something that the model does not have.
    """
    family, before = families.of(model), structure(model)
    remaining = {layer.index: layer for layer in target.layers}
    refits: list[tuple[nn.Linear, list[int], LinearProblem]] = []
    for shape, module, parts in zip(before.layers, family.layers(model), layers, strict=True):
        after = remaining.get(shape.index)
        if after is None or not update:
            continue
        if parts.heads is not None and after.heads != shape.heads:
            kept = [shape.heads.index(head) for head in after.heads if head in shape.heads]
            refits.append((linear(module, family.context_path), kept, parts.heads))
        # an FFN that is removed leaves no bias behind
        if parts.neurons is not None and 0 < after.intermediate < shape.intermediate:
            position = {neuron: number for number, neuron in enumerate(shape.neuron_indices)}
            kept = [position[neuron] for neuron in after.neuron_indices if neuron in position]
            refits.append((linear(module, family.ffn_output_path), kept, parts.neurons))
    solved = [(module, *problem.spread(kept)) for module, kept, problem in refits]
    originals = [(module, module.weight.data, None if module.bias is None else module.bias.data)
                 for module, *_ in solved]  # fmt: skip
    for module, weight, bias in solved:
        module.weight.data = torch.from_numpy(weight).to(module.weight)
        if bias is not None:
            module.bias.data = torch.from_numpy(bias).to(module.bias)
    try:
        return reduce_to(model, target)
    except UsageError:
        for module, old_weight, old_bias in originals:
            module.weight.data = old_weight
            if old_bias is not None:
                module.bias.data = old_bias
        raise
