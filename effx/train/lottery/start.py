"""Other weights than the pretrained ones that a mask is applied to (Chen et al. 2020, section 3.2).

fresh       every parameter, embeddings and task head included, is initialised anew, as the class of the
            model does it
shuffled    the layers exchange their matrices (Q, K, V, attention output, FFN), by one permutation;
            biases, LayerNorms, embeddings, pooler and task head stay
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from transformers import PreTrainedModel

from effx.errors import UsageError
from effx.models import families, sparse, surgery
from effx.models.structure import full, record, structure
from effx.structure import Structure


def set_weights(model: PreTrainedModel, init: str, seed: int) -> None:
    """Replace a pretrained model's weights in place, as ``init`` names them; ``pretrained``: they stay.

    Raises:
        UsageError: the layers of the model cannot exchange their matrices.
    """
    if init == "fresh":
        initialise(model, seed)
    elif init == "shuffled":
        shuffle(model, seed)


def initialise(model: PreTrainedModel, seed: int) -> None:
    """Give every parameter of a model a new initial value; its structure does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = type(model)(copy.deepcopy(model.config))
    families.of(new).prepare(new)
    layers = zip(full(new).layers, structure(model).layers, strict=True)
    record(new, Structure(tuple(replace(layer, index=other.index) for layer, other in layers)))
    surgery.reduce_to(new, structure(model))
    initial = dict(new.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(initial[name])


def shuffle(model: PreTrainedModel, seed: int) -> list[int]:
    """Let the layers of a model exchange their matrices; return the permutation.

    Returns:
        For every layer, the position of the layer whose matrices it has now. It is drawn among all orders but
        the present one, so that single layers may keep theirs.

    Raises:
        UsageError: there is one layer, or the layers have matrices of different sizes.
    """
    check_shuffle(model)
    matrices = _matrices(model)
    order = new_order(len(matrices), seed)
    before = [{path: value.detach().clone() for path, value in layer.items()} for layer in matrices]
    with torch.no_grad():
        for layer, source in zip(matrices, order, strict=True):
            for path, value in layer.items():
                value.copy_(before[source][path])
    return order


def new_order(layers: int, seed: int) -> list[int]:
    """Return a random order of at least two layers that is not the present one."""
    rng = np.random.default_rng((seed, 17))
    while True:
        order = rng.permutation(layers).tolist()
        if order != sorted(order):
            return [int(position) for position in order]


def check_shuffle(model: PreTrainedModel) -> None:
    """Raise UsageError if the layers of a model cannot exchange their matrices."""
    shapes = [{path: value.shape for path, value in layer.items()} for layer in _matrices(model)]
    if len(shapes) < 2:
        raise UsageError("init shuffled: the model has one layer, which has no other order.", settings="init")
    if any(other != shapes[0] for other in shapes):
        raise UsageError(
            "init shuffled: the layers of the model have matrices of different sizes: use a model that is "
            "not reduced.", settings="init",
        )  # fmt: skip


def _matrices(model: PreTrainedModel) -> list[dict[str, torch.nn.Parameter]]:
    """Return the matrices of every layer, by their path in it."""
    prefix = families.of(model).layers_path
    layers: list[dict[str, torch.nn.Parameter]] = [{} for _ in structure(model).layers]
    for name, value in sparse.matrices(model).items():
        if name.startswith(f"{prefix}."):
            number, _, path = name.removeprefix(f"{prefix}.").partition(".")
            layers[int(number)][path] = value
    return layers
