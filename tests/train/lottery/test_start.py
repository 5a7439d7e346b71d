"""Weights that masks are applied to instead of the pretrained ones."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from effx.errors import UsageError
from effx.models import families, prune, sparse, structure
from effx.train.lottery import start
from tests.models import tiny


def trained(family: str = "bert") -> PreTrainedModel:
    """A model none of whose values is an initial one: not even of biases and norms."""
    model = tiny.model(family)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 + 0.1 * torch.rand(parameter.shape))
    return model


def values(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("family", families.FAMILIES)
def test_layers_exchange_their_matrices_and_nothing_else(family: str) -> None:
    model = trained(family)
    before = values(model)
    order = start.shuffle(model, seed=3)
    after = values(model)
    assert sorted(order) == list(range(len(order))) and order != sorted(order)
    prefix = families.of(model).layers_path
    of_layers = {name for name in sparse.matrices(model) if name.startswith(f"{prefix}.")}
    assert len(of_layers) >= 4 * len(order)
    moved = 0
    for name, value in after.items():
        source = name
        if name in of_layers:
            number, _, path = name.removeprefix(f"{prefix}.").partition(".")
            source = f"{prefix}.{order[int(number)]}.{path}"
        moved += source != name
        assert torch.equal(value, before[source]), name
    assert moved > 0
    assert all(after[name].dim() == 2 for name in of_layers)


def test_the_order_of_layers_is_never_the_present_one_and_depends_on_the_seed() -> None:
    assert all(start.new_order(2, seed) == [1, 0] for seed in range(20))
    orders = {tuple(start.new_order(3, seed)) for seed in range(60)}
    assert orders == {(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)}
    assert start.new_order(12, 5) == start.new_order(12, 5) != start.new_order(12, 6)


def test_layers_that_cannot_exchange_their_matrices_are_refused() -> None:
    model = trained()
    prune(model, layers=[0, 1])
    with pytest.raises(UsageError, match="the model has one layer"):
        start.shuffle(model, 0)
    model = trained()
    prune(model, heads={0: [1]})
    with pytest.raises(UsageError, match="matrices of different sizes"):
        start.shuffle(model, 0)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_fresh_weights_have_nothing_of_the_pretrained_ones(family: str) -> None:
    model = trained(family)
    before = values(model)
    random_numbers = torch.get_rng_state()
    start.set_weights(model, "fresh", seed=5)
    assert torch.equal(torch.get_rng_state(), random_numbers)  # of who calls it
    after = values(model)
    assert after.keys() == before.keys()
    for name in before:
        assert not torch.equal(after[name], before[name]), name
        assert (after[name] != before[name]).all(), name
    again, other = trained(family), trained(family)
    start.set_weights(again, "fresh", seed=5)
    start.set_weights(other, "fresh", seed=6)
    assert all(torch.equal(value, after[name]) for name, value in values(again).items())
    for name, matrix in sparse.matrices(other).items():
        assert not torch.equal(matrix, after[name])
        assert 0.2 < matrix.std() / model.config.initializer_range < 2  # some families scale it


def test_fresh_weights_have_the_structure_of_a_reduced_model() -> None:
    model = trained()
    prune(model, heads={0: [1]}, ffns=[2], layers=[1])
    remaining, before = structure(model), values(model)
    start.set_weights(model, "fresh", seed=0)
    assert structure(model) == remaining
    assert {name: value.shape for name, value in values(model).items()} == {
        name: value.shape for name, value in before.items()
    }
    assert not any(torch.equal(value, before[name]) for name, value in values(model).items())


def test_pretrained_weights_stay() -> None:
    model = trained()
    before = values(model)
    start.set_weights(model, "pretrained", seed=0)
    assert all(torch.equal(value, before[name]) for name, value in values(model).items())
