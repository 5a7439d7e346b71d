"""How much heads, FFNs and neurons matter to the loss: the scores that tickets are drawn by.

    I_h = mean over examples of |dL/dxi_h|     Michel et al. 2019, section 4.1; Liang et al. 2021, section 3

With xi_h multiplying the context c_h of head h, dL/dxi_h of one example is the sum over its tokens
of <dL/dc_h, c_h>. So one pass forward and one backward over the activations score every structure
for every example; the weights need no gradients, and nothing runs backward below the first
layer's contexts. FFNs (xi -> nu, c -> the FFN's output, bias included) and neurons (c -> the
activation) alike.

Scores of heads and neurons are divided by the L2 norm of their layer, those of FFNs by the norm
of all of them.

:func:`scores` is for users' own pruning; tickets take :func:`measure`, which has neurons, precision
and seeds.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from effx import files
from effx.encoding import Encoded
from effx.errors import ArtifactError, UsageError, unknown
from effx.models import families, structure
from effx.models.families import Matrix
from effx.train import loop
from effx.train.trainer import grouped_order

Batches = Iterable[Mapping[str, torch.Tensor]]
"""Inputs of the model with labels, each tensor [batch, ...]."""

_TINY = 1e-20  # added to norms, as in the published code
_SCHEMA = 1


@dataclass(frozen=True)
class Importance:
    """Scores of the structures of a model; rows are the remaining layers, first to last."""

    heads: np.ndarray
    """float64 [layers, heads]; columns are original heads, those that are gone score 0."""
    ffns: np.ndarray
    """float64 [layers]"""
    neurons: np.ndarray | None = None
    """float64 [layers, neurons]; columns are original neurons; None: not asked for."""

    def __add__(self, other: Importance) -> Importance:
        neurons = None
        if self.neurons is not None and other.neurons is not None:
            neurons = self.neurons + other.neurons
        return Importance(self.heads + other.heads, self.ffns + other.ffns, neurons)

    def __truediv__(self, count: float) -> Importance:
        neurons = None if self.neurons is None else self.neurons / count
        return Importance(self.heads / count, self.ffns / count, neurons)

    def normalised(self) -> Importance:
        """Return the scores over their norms: of each layer for heads and neurons, of all for FFNs."""
        neurons = None if self.neurons is None else self.neurons / _norms(self.neurons)
        return Importance(
            self.heads / _norms(self.heads), self.ffns / (np.linalg.norm(self.ffns) + _TINY), neurons
        )

    def to_json(self) -> dict[str, Any]:
        """Return the scores as lists."""
        return {
            "heads": self.heads.tolist(),
            "ffns": self.ffns.tolist(),
            "neurons": None if self.neurons is None else self.neurons.tolist(),
        }


def _norms(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(values, axis=-1, keepdims=True) + _TINY)


def scores(model: PreTrainedModel, batches: Batches, method: str = "taylor") -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of heads [layers, heads] and of FFNs [layers].

    Args:
        model: a task model of a supported family, in whatever mode; it is scored in eval mode.
        batches: what to score it on, labels included; each is seen once.
        method: one of :data:`METHODS`.

    Raises:
        UsageError: no such method, or no batches.
    """
    found = measure(model, batches, method)
    return found.heads, found.ffns


def measure(
    model: PreTrainedModel,
    batches: Batches,
    method: str = "taylor",
    *,
    neurons: bool = False,
    precision: str = "fp32",
    seed: int = 0,
) -> Importance:
    """Return the normalised scores of a model's structures.

    Args:
        model: a task model of a supported family; scored in eval mode, left as it was.
        batches: inputs with labels; each is seen once.
        method: one of :data:`METHODS`.
        neurons: score FFN neurons too.
        precision: ``fp32``, ``bf16`` or ``auto`` (as in training), of the passes.
        seed: of the ``random`` method.

    Raises:
        UsageError: no such method, no batches, or bf16 on a processor without it.
    """
    check_method(method)
    chosen = METHODS[method]
    if chosen.per_token is not None:
        raw = _passes(model, batches, chosen, neurons, loop.choose_precision(precision))
    elif method == "magnitude":
        raw = _magnitude(model, neurons)
    else:
        raw = _random(model, neurons, seed)
    return raw.normalised() if chosen.normalised else raw


def check_method(method: str) -> None:
    """Raise :class:`UsageError` for a method that is not in the table."""
    if method not in METHODS:
        raise unknown("importance", method, METHODS)


@dataclass(frozen=True)
class Method:
    """A way to score."""

    per_token: Callable[[torch.Tensor], torch.Tensor] | None = None
    """[batch, tokens, structures] of <dL/dc, c> -> [structures], summed over the batch; L is the sum
    of the examples' losses. None: the score needs no data."""
    accumulates: bool = False
    """The published code's sums; see :data:`METHODS`."""
    normalised: bool = True


METHODS: dict[str, Method] = {
    "taylor": Method(lambda tokens: tokens.sum(1).abs().sum(0)),
    "fisher": Method(lambda tokens: tokens.sum(1).square().sum(0)),
    "published": Method(lambda tokens: tokens.abs().sum((0, 1)), accumulates=True),
    "magnitude": Method(),
    "random": Method(normalised=False),
}
"""Method -> how it scores.

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
    """Sum a gradient method's scores over the batches, each run forward and backward once."""
    assert method.per_token is not None
    running = total = _zeros(model, neurons)
    count = examples = 0
    device = model.device
    with _scoring(model), _Contributions(model, method.per_token, neurons) as found:
        for batch in batches:
            size = len(batch["labels"])
            inputs = {name: value.to(device) for name, value in batch.items()}
            found.start()
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                loss = model(**inputs).loss
            loss = loss.float()
            (loss if method.accumulates else loss * size).backward()
            here = found.read()
            running = running + here
            total = total + running if method.accumulates else running
            count, examples = count + 1, examples + size
    if not count:
        raise UsageError("importance: there are no rows to score on.")
    return total / (count if method.accumulates else examples)


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
    """Put ``model`` into eval mode, with no weight asking for a gradient, for a ``with`` block."""
    training = model.training
    asked = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    model.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)
        model.train(training)


class _Contributions:
    """Takes <dL/dc, c> where contexts, activations and FFN outputs pass, as the loss runs backward."""

    def __init__(
        self, model: PreTrainedModel, per_token: Callable[[torch.Tensor], torch.Tensor], neurons: bool
    ) -> None:
        self._model, self._per_token, self._neurons = model, per_token, neurons
        self._handles: list[Any] = []
        self._sums: dict[tuple[str, int], torch.Tensor] = {}

    def __enter__(self) -> _Contributions:
        family = families.of(self._model)
        size, layers = family.head_size(self._model), family.layers(self._model)
        for position, (kept, layer) in enumerate(zip(structure(self._model).layers, layers, strict=True)):
            if kept.heads:
                self._watch_input(layer.get_submodule(family.context_path), ("heads", position), size)
            if kept.intermediate:
                output = layer.get_submodule(family.ffn_output_path)
                if self._neurons:
                    self._watch_input(output, ("neurons", position), 1)
                self._watch_output(output, ("ffns", position))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def start(self) -> None:
        """Forget the batch before."""
        self._sums = {}

    def read(self) -> Importance:
        """Return what the last backward pass gave."""
        result = _zeros(self._model, self._neurons)
        for position, kept in enumerate(structure(self._model).layers):
            if kept.heads:
                result.heads[position, list(kept.heads)] = self._sums["heads", position].cpu().numpy()
            if kept.intermediate:
                result.ffns[position] = float(self._sums["ffns", position])
                if result.neurons is not None:
                    columns = list(kept.neuron_indices)
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
        """Return ``values`` [batch, tokens, structures * width], whose gradient will be looked at."""
        if not values.requires_grad:  # the first of them: below it nothing runs backward
            values = values.detach().requires_grad_(True)

        # not values: a tensor and its own hook would hold each other for ever, with all that was computed
        own = values.detach()

        def look(gradient: torch.Tensor) -> None:
            products = gradient.float() * own.float()
            tokens = products.view(*products.shape[:2], -1, width).sum(3) if width > 1 else products
            self._sums[key] = self._per_token(tokens).double()

        values.register_hook(look)  # type: ignore[no-untyped-call]
        return values


def _magnitude(model: PreTrainedModel, neurons: bool) -> Importance:
    """L2 norms: of a head's rows of W_Q, W_K, W_V and columns of W_O; of an FFN's or a neuron's W1 and W2."""
    family = families.of(model)
    size, result = family.head_size(model), _zeros(model, neurons)
    layers = zip(structure(model).layers, family.layers(model), strict=True)
    for position, (kept, layer) in enumerate(layers):
        if kept.heads:
            squares = _squares(layer, family.head_matrices).reshape(-1, size).sum(1)
            result.heads[position, list(kept.heads)] = np.sqrt(squares)
        if kept.intermediate:
            squares = _squares(layer, family.neuron_matrices)
            result.ffns[position] = np.sqrt(squares.sum())
            if result.neurons is not None:
                result.neurons[position, list(kept.neuron_indices)] = np.sqrt(squares)
    return result


def _squares(layer: nn.Module, matrices: Sequence[Matrix]) -> np.ndarray:
    """Return the sum of squares of each row or column over ``matrices``, [rows or columns]."""
    # columns first: a sum of floats depends on the order, and scores have always been summed in this one
    total = np.zeros(1)
    for matrix in sorted(matrices, key=lambda matrix: -matrix.axis):
        weight = layer.get_parameter(f"{matrix.path}.weight").detach().cpu().double()
        total = total + weight.square().numpy().sum(1 - matrix.axis)
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
    """Yield rows in batches of like length, in a random order of batches.

    The order matters to the ``published`` method alone.
    """
    collate = loop.labelled(encoded, labels, names)
    order = grouped_order(encoded.lengths, batch_size, np.random.default_rng((seed, 5)))
    for start in range(0, len(order), batch_size):
        yield collate(order[start : start + batch_size].tolist())


def write(path: Path, found: Importance, **about: Any) -> None:
    """Write scores as JSON, with what they are scores of: method, precision, rows, checkpoint."""
    files.write_json(path, {"schema": _SCHEMA, **about, **found.to_json()})


def read(path: Path) -> tuple[Importance, dict[str, Any]]:
    """Return scores that were written, and all that stands in the file.

    Raises:
        ArtifactError: the file is damaged or of another schema.
    """
    try:
        value = json.loads(path.read_bytes())
        if value["schema"] != _SCHEMA:
            raise ValueError(f"schema {value['schema']}")
        neurons = value["neurons"]
        found = Importance(
            np.array(value["heads"], dtype=float),
            np.array(value["ffns"], dtype=float),
            None if neurons is None else np.array(neurons, dtype=float),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}). Delete it to have it made again.") from error
    return found, value
