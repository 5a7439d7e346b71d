from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForQuestionAnswering

from effx.models import families
from effx.train.finetune import freeze
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


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_frozen_encoder_has_nothing_to_train_but_its_pooler(family: str) -> None:
    model = tiny.model(family)
    freeze(model, 0)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    encoder, pooler = f"{model.base_model_prefix}.", families.of(model).encoder_pooler_path
    assert {name for name in trained if name.startswith(encoder)} == {
        name for name, _ in model.named_parameters() if pooler and name.startswith(f"{pooler}.")
    }
    assert {name for name, _ in model.named_parameters() if not name.startswith(encoder)} <= trained
    model = tiny.model(family)
    freeze(model, 1)
    layers = families.of(model).layers_path
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(name.startswith(f"{layers}.2.") for name in trained)
    assert not any(name.startswith((f"{layers}.0.", f"{layers}.1.")) for name in trained)


@pytest.mark.parametrize("family", [name for name, each in families.FAMILIES.items() if each.span_head])
def test_models_that_answer_questions_have_dropouts_or_none(family: str) -> None:
    config = tiny.model(family).config
    config.num_labels = 2
    model = AutoModelForQuestionAnswering.from_config(config)
    dropouts = families.of(model).head_dropouts(model)
    assert all(isinstance(module, torch.nn.Dropout) for module in dropouts)
