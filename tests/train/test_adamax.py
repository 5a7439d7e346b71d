from __future__ import annotations

import numpy as np
import torch

from effx.train import adamax
from tests.models import tiny


def test_steps_equal_those_of_the_published_code() -> None:
    """Written out in NumPy from module/bert_optim.py of the super tickets' code."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 4))
    parameter = torch.nn.Parameter(torch.tensor(weight))
    optimizer = adamax.Adamax([parameter], 0.01, weight_decay=0.1)
    mean, norm = np.zeros_like(weight), np.zeros_like(weight)
    for _ in range(5):
        gradient = rng.normal(size=(3, 4))
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        mean = 0.9 * mean + 0.1 * gradient
        norm = np.maximum(0.999 * norm, np.abs(gradient) + 1e-6)
        weight = weight - 0.01 * (mean / (norm + 1e-6) + 0.1 * weight)
    assert np.allclose(parameter.detach().numpy(), weight, atol=1e-12)


def test_biases_and_norms_do_not_decay_and_frozen_parts_are_left_out() -> None:
    model = tiny.model()
    model.bert.embeddings.requires_grad_(False)
    decayed, rest = adamax.groups(model, 0.01)
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.01, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert all("bias" in names[id(p)] or "LayerNorm" in names[id(p)] for p in rest["params"])
    assert all(names[id(p)].endswith("weight") and "LayerNorm" not in names[id(p)] for p in decayed["params"])
    assert not any("embeddings" in names[id(p)] for p in [*decayed["params"], *rest["params"]])
