from __future__ import annotations

import pytest
import torch

from effx.models import families
from tests.models import tiny


@pytest.mark.parametrize("family", families.FAMILIES)
def test_head_dropouts_do_not_include_those_of_the_encoder(family: str) -> None:
    model = tiny.model(family).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for name in ("attention_dropout", "dropout_prob", "dropout"):  # some families keep it as a number
        for module in families.of(model).encoder(model).modules():
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    inputs = tiny.inputs(model, [5, 7])
    assert torch.equal(tiny.logits(model, inputs), tiny.logits(model, inputs))
    result = families.of(model).head_dropouts(model)
    assert result
    for module in result:
        module.p = 0.9
    assert not torch.equal(tiny.logits(model, inputs), tiny.logits(model, inputs))
