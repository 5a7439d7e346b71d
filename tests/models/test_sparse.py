from __future__ import annotations

import numpy as np
import pytest
import torch

from effx.models import families, prune, sparse, structure
from tests.models import tiny


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_matrices_are_those_of_the_layers_and_the_pooler(family: str) -> None:
    model = tiny.model(family)
    result = sparse.matrices(model)
    every = dict(model.named_parameters())
    assert all(result[name] is every[name] for name in result)
    names = families.of(model)
    pooler = {f"{model.base_model_prefix}.pooler.dense.weight"} & set(every)
    in_layers = {name for name in every if f"{names.layers_path}." in name and every[name].dim() == 2}
    assert set(result) == {name for name in in_layers if "bias" not in name} | pooler


def test_the_smallest_weights_are_chosen_over_all_matrices() -> None:
    weights = {
        "a": torch.tensor([[0.1, -5.0], [0.3, -0.2]]),
        "b": torch.tensor([0.05, 2.0, -0.25, 1.0, 3.0, 4.0]),
    }
    masks = sparse.smallest(weights, 0.3)
    assert masks["a"].tolist() == [[False, True], [True, False]]
    assert masks["b"].tolist() == [False, True, True, True, True, True]
    generator = torch.Generator().manual_seed(0)
    large = {name: torch.randn(37, 11, generator=generator) for name in "abc"}
    flat = np.sort(np.abs(np.concatenate([value.numpy().ravel() for value in large.values()])))
    for tenth in range(11):
        masks = sparse.smallest(large, tenth / 10)
        gone = sum(int((~mask).sum()) for mask in masks.values())
        assert gone == 37 * 11 * 3 * tenth // 10
        remaining = [large[name][masks[name]].abs().min() for name in large if masks[name].any()]
        if 0 < tenth < 10:
            assert min(remaining) == flat[gone]
    ties = sparse.smallest({"a": torch.zeros(4), "b": torch.ones(4)}, 0.25)
    assert ties["a"].tolist() == [False, False, True, True] and ties["b"].all()


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_masked_weights_stay_zero_while_others_train(decay: float) -> None:
    model = tiny.model().train()
    masks = sparse.smallest(sparse.matrices(model), 0.5)
    before = {name: value.detach().clone() for name, value in sparse.matrices(model).items()}
    handles = sparse.hold(model, masks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=decay)
    for seed in range(4):
        batch = {**tiny.inputs(model, [5, 7], seed), "labels": torch.tensor([0, 2])}
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    for name, value in sparse.matrices(model).items():
        assert not value[~masks[name]].any()
        assert not torch.equal(value[masks[name]], before[name][masks[name]])
    result = sparse.counts(model)
    zeros, total = result.zeros, result.of
    assert result.share == zeros / total
    assert zeros == total // 2
    for handle in handles:
        handle.remove()


def test_zeros_of_reduced_models_are_counted_over_remaining_weights() -> None:
    model = prune(tiny.model(), heads={0: range(4)}, ffns=[1], layers=[2])
    names = set(sparse.matrices(model))
    assert len(names) == 2 + 4 + 1 and structure(model).layers[0].heads == ()
