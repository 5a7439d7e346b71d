"""Importance scores of heads, FFNs and neurons, by which tickets are pruned.

    I_h = mean over examples of |dL/dxi_h|     Michel et al. 2019, section 4.1; Liang et al. 2021, section 3

With xi_h multiplying the context c_h of head h, dL/dxi_h of one example is the sum over its tokens
of <dL/dc_h, c_h>. One forward and one backward pass over the activations therefore score every
structure for every example. The weights need no gradients, and the backward pass ends at the first
layer's contexts. FFNs (xi -> nu, c -> the FFN's output, bias included) and neurons (c -> the
activation) are scored in the same way.

Scores of heads and neurons are divided by the L2 norm of the scores of their layer, scores of FFNs by the
norm over all layers.

:func:`scores` is the public function; tickets use :func:`measure`, which also scores neurons and takes
precision and seed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from effx.encoding import Encoded
from effx.errors import UsageError, unknown
from effx.models import families, structure
from effx.models.families import Matrix
from effx.models.losses import IGNORED
from effx.tickets.scores import Importance
from effx.train import loop
from effx.train.trainer import grouped_order

Batches = Iterable[Mapping[str, torch.Tensor]]
"""Inputs of the model with labels, each tensor [batch, ...]."""


def scores(model: PreTrainedModel, batches: Batches, method: str = "taylor") -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of heads [layers, heads] and of FFNs [layers].

    Args:
        model: a task model of a supported family; scored in eval mode, its mode is restored afterwards.
        batches: inputs with labels; each batch is used once.
        method: one of :data:`METHODS`.

    Raises:
        UsageError: unknown method, or no batches.
    """
    importance = measure(model, batches, method)
    return importance.heads, importance.ffns


def measure(
    model: PreTrainedModel,
    batches: Batches,
    method: str = "taylor",
    *,
    neurons: bool = False,
    precision: str = "fp32",
    seed: int = 0,
    normalised: bool = True,
) -> Importance:
    """Return the scores of a model's structures, divided by their norms where the method does that.

    Args:
        model: a task model of a supported family; scored in eval mode, its mode is restored afterwards.
        batches: inputs with labels; each batch is used once.
        method: one of :data:`METHODS`.
        neurons: score FFN neurons too.
        precision: ``fp32``, ``bf16`` or ``auto`` (as in training), of the passes.
        seed: of the ``random`` method.
        normalised: False: as they are, so that heads, neurons and layers can be compared with each other.

    Raises:
        UsageError: unknown method, no batches, or bf16 on a processor without it.
    """
    check_method(method)
    chosen = METHODS[method]
    if chosen.per_token is not None:
        raw = _passes(model, batches, chosen, neurons, loop.choose_precision(precision))
    elif method == "magnitude":
        raw = _magnitude(model, neurons)
    else:
        raw = _random(model, neurons, seed)
    return raw.normalised() if normalised and chosen.normalised else raw


def check_method(method: str) -> None:
    """Raise :class:`UsageError` for a method that is not in the table."""
    if method not in METHODS:
        raise unknown("importance", method, METHODS)


@dataclass(frozen=True)
class Method:
    """An importance method: a row of :data:`METHODS`."""

    per_token: Callable[[torch.Tensor], torch.Tensor] | None = None
    """[batch, tokens, structures] of <dL/dc, c> -> [structures], summed over the batch; L is the sum
    of the examples' losses. None: the score needs no data."""
    accumulates: bool = False
    """Whether gradients are summed over batches as in the published code; see :data:`METHODS`."""
    normalised: bool = True
    """Whether scores are divided by their norms."""


METHODS: dict[str, Method] = {
    "taylor": Method(lambda tokens: tokens.sum(1).abs().sum(0)),
    "fisher": Method(lambda tokens: tokens.sum(1).square().sum(0)),
    "published": Method(lambda tokens: tokens.abs().sum((0, 1)), accumulates=True),
    "magnitude": Method(),
    "random": Method(normalised=False),
}
"""Name -> method.

    taylor      mean over examples of |dL/dxi|
    fisher      mean over examples of (dL/dxi)^2
    published   what the code of Liang et al. 2021 computes: the absolute value is taken per token, of
                the batch's mean loss, and gradients are not reset between batches, so that batch j
                of N weighs (N - j + 1) / N
    magnitude   L2 norm of the structure's weights; no data
    random      uniform; no data
"""


def _passes(
    model: PreTrainedModel, batches: Batches, method: Method, neurons: bool, precision: str
) -> Importance:
    """Return a gradient method's scores over the batches, with one forward and backward pass each."""
    assert method.per_token is not None
    running = total = _zeros(model, neurons)
    count = examples = 0
    device = model.device
    with _scoring(model), _Contributions(model, method.per_token, neurons) as contributions:
        for batch in batches:
            size = len(batch.get("labels", batch["input_ids"]))
            terms = _loss_terms(batch)
            inputs = {name: value.to(device) for name, value in batch.items()}
            contributions.start()
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                loss = model(**inputs).loss
            loss = loss.float()
            (loss if method.accumulates else loss * terms).backward()
            running = running + contributions.read()
            total = total + running if method.accumulates else running
            count, examples = count + 1, examples + size
    if not count:
        raise UsageError("importance: there are no rows to score on.")
    return total / (count if method.accumulates else examples)


def _loss_terms(batch: Mapping[str, torch.Tensor]) -> int:
    """Return over how many terms a batch's loss is a mean: its rows, its windows, or the words of its rows.

    The loss of pairs that are encoded apart compares the pairs of a batch: it counts as their mean.

    The loss of an example is then the mean of its row or window, or the sum over its words, in whatever batch
    it is.
    """
    labels = batch.get("labels")
    if labels is not None and labels.dim() == 2 and not labels.is_floating_point():
        return int((labels != IGNORED).sum())
    return len(batch["input_ids"] if labels is None else labels)


def _zeros(model: PreTrainedModel, neurons: bool) -> Importance:
    family = families.of(model)
    layers = len(family.layers(model))
    return Importance(
        np.zeros((layers, family.heads(model))),
        np.zeros(layers),
        np.zeros((layers, family.neurons(model))) if neurons else None,
    )


@contextlib.contextmanager
def _scoring(model: PreTrainedModel) -> Iterator[None]:
    """Put ``model`` into eval mode, without gradients of weights, for a ``with`` block."""
    training = model.training
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    model.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        model.train(training)


class _Contributions:
    """Hooks that compute <dL/dc, c> of contexts, activations and FFN outputs in the backward pass."""

    def __init__(
        self, model: PreTrainedModel, per_token: Callable[[torch.Tensor], torch.Tensor], neurons: bool
    ) -> None:
        self._model, self._per_token, self._neurons = model, per_token, neurons
        self._handles: list[Any] = []
        self._sums: dict[tuple[str, int], torch.Tensor] = {}

    def __enter__(self) -> _Contributions:
        family = families.of(self._model)
        size, layers = family.head_size(self._model), family.layers(self._model)
        shapes = structure(self._model).layers
        for position, (shape, layer) in enumerate(zip(shapes, layers, strict=True)):
            if shape.heads:
                self._watch_input(layer.get_submodule(family.context_path), ("heads", position), size)
            if shape.intermediate:
                output = layer.get_submodule(family.ffn_output_path)
                if self._neurons:
                    self._watch_input(output, ("neurons", position), 1)
                self._watch_output(output, ("ffns", position))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def start(self) -> None:
        """Discard the values of the previous batch."""
        self._sums = {}

    def read(self) -> Importance:
        """Return the scores of the last backward pass."""
        result = _zeros(self._model, self._neurons)
        for position, shape in enumerate(structure(self._model).layers):
            if shape.heads:
                result.heads[position, list(shape.heads)] = self._sums["heads", position].cpu().numpy()
            if shape.intermediate:
                result.ffns[position] = float(self._sums["ffns", position])
                if result.neurons is not None:
                    columns = list(shape.neuron_indices)
                    result.neurons[position, columns] = self._sums["neurons", position].cpu().numpy()
        return result

    def _watch_input(self, module: nn.Module, key: tuple[str, int], width: int) -> None:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            return (self._watched(inputs[0], key, width), *inputs[1:])

        self._handles.append(module.register_forward_pre_hook(hook))

    def _watch_output(self, module: nn.Module, key: tuple[str, int]) -> None:
        def hook(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
            return self._watched(output, key, output.shape[-1])

        self._handles.append(module.register_forward_hook(hook))

    def _watched(self, values: torch.Tensor, key: tuple[str, int], width: int) -> torch.Tensor:
        """Return ``values`` [batch, tokens, structures * width] with a hook on their gradient."""
        if not values.requires_grad:  # the first hooked tensor: the backward pass ends here
            values = values.detach().requires_grad_(True)

        # the hook must not refer to ``values``: such a cycle would keep the graph of the batch in memory
        detached = values.detach()

        def accumulate(gradient: torch.Tensor) -> None:
            products = gradient.float() * detached.float()
            tokens = products.view(*products.shape[:2], -1, width).sum(3) if width > 1 else products
            self._sums[key] = self._per_token(tokens).double()

        values.register_hook(accumulate)  # type: ignore[no-untyped-call]
        return values


def _magnitude(model: PreTrainedModel, neurons: bool) -> Importance:
    """Return L2 norms: heads: rows of W_Q, W_K, W_V and columns of W_O; FFNs and neurons: W1 and W2."""
    family = families.of(model)
    size, result = family.head_size(model), _zeros(model, neurons)
    layers = zip(structure(model).layers, family.layers(model), strict=True)
    for position, (shape, layer) in enumerate(layers):
        if shape.heads:
            squares = _squares(layer, family.head_matrices).reshape(-1, size).sum(1)
            result.heads[position, list(shape.heads)] = np.sqrt(squares)
        if shape.intermediate:
            squares = _squares(layer, family.neuron_matrices)
            result.ffns[position] = np.sqrt(squares.sum())
            if result.neurons is not None:
                result.neurons[position, list(shape.neuron_indices)] = np.sqrt(squares)
    return result


def _squares(layer: nn.Module, matrices: Sequence[Matrix]) -> np.ndarray:
    """Return the sum of squares of each row or column over ``matrices``, [rows or columns]."""
    # columns first: the order changes the floating-point sum, and committed tickets were scored in this order
    total = np.zeros(1)
    for matrix in sorted(matrices, key=lambda matrix: -matrix.axis):
        weight = layer.get_parameter(f"{matrix.path}.weight").detach().cpu().double()
        sums = weight.square().numpy().sum(1 - matrix.axis)
        total = total + (sums if matrix.blocks == 1 else sums.reshape(matrix.blocks, -1).sum(0))
    return total


def _random(model: PreTrainedModel, neurons: bool, seed: int) -> Importance:
    rng = np.random.default_rng((seed, 4))
    shapes = _zeros(model, neurons)
    drawn = [None if part is None else rng.random(part.shape) for part in
             (shapes.heads, shapes.ffns, shapes.neurons)]  # fmt: skip
    assert drawn[0] is not None and drawn[1] is not None
    return Importance(drawn[0], drawn[1], drawn[2])


def batches_of(
    encoded: Encoded, labels: np.ndarray, names: list[str], batch_size: int, seed: int
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches of rows of similar length, in random order.

    Only the scores of the method ``published`` depend on the order.
    """
    collate = loop.labelled(encoded, labels, names)
    items, lengths = loop.items(encoded, labels, np.arange(encoded.row_count))
    order = items[grouped_order(lengths, batch_size, np.random.default_rng((seed, 5)))]
    for start in range(0, len(order), batch_size):
        yield collate(order[start : start + batch_size].tolist())
