"""Heads that read the mean of the tokens: in transformers, layer by layer, and in saved models."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from effx.errors import UsageError
from effx.models import families, forward, infer, load, prune, save, structure
from effx.models.huggingface.pooling import own_pooling
from effx.models.pooling import set_pooling
from effx.specs.tasks import TASKS
from tests.conftest import CONFIGS
from tests.models import tiny

FAMILIES = tuple(CONFIGS)


@torch.no_grad()
def by_hand(model: tiny.PreTrainedModel, arrays: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits of the head on the mean of each row's hidden states, row by row."""
    stream = forward.embed(model, arrays)
    for position in range(len(structure(model).layers)):
        stream = forward.feed(model, position, forward.attend(model, position, stream)[0])
    outs = []
    finished = forward.finish(model, stream.hidden)
    for hidden, length in zip(finished, arrays["attention_mask"].sum(1).tolist(), strict=True):
        mean = torch.stack(list(hidden[:length])).sum(0) / length
        outs.append(families.of(model).head(model, mean[None, None])[0])
    return torch.stack(outs)


@pytest.mark.parametrize("family", FAMILIES)
def test_both_forward_passes_read_the_mean_of_the_real_tokens(family: str) -> None:
    model = tiny.model(family)
    arrays = tiny.inputs(model, [9, 4, 1, 7])
    first_token = tiny.logits(model, arrays)
    set_pooling(model, "mean")
    expected = by_hand(model, arrays)
    assert torch.allclose(tiny.logits(model, arrays), expected, atol=1e-5)
    assert torch.allclose(infer(model, arrays).logits, expected, atol=1e-5)
    assert torch.allclose(tiny.logits(copy.deepcopy(model), arrays), expected, atol=1e-5)
    assert not torch.allclose(expected, first_token, atol=1e-4)
    set_pooling(model, "cls")
    assert torch.equal(tiny.logits(model, arrays), first_token)


def test_the_mean_is_read_after_the_last_layer_that_remains() -> None:
    model = tiny.model("bert")
    set_pooling(model, "mean")
    prune(model, layers=[2], heads={0: [1]})
    arrays = tiny.inputs(model, [9, 4])
    assert structure(model).head_pooling == "mean"
    assert torch.allclose(tiny.logits(model, arrays), by_hand(model, arrays), atol=1e-5)


@pytest.mark.parametrize("pruned", [False, True])
def test_a_saved_model_reads_the_mean_and_plain_transformers_refuses_it(
    pruned: bool, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = tiny.model("bert", outputs=2)
    set_pooling(model, "mean")
    if pruned:
        prune(model, ffns=[1])
    arrays = tiny.inputs(model, [9, 4])
    expected = tiny.logits(model, arrays)
    save(model, tmp_path / "m", tokenizer=tokenizer, task=TASKS["sst2"], max_length=32)
    loaded = load(tmp_path / "m")
    assert structure(loaded).head_pooling == "mean"
    assert torch.equal(tiny.logits(loaded, arrays), expected)
    with pytest.raises(RuntimeError, match="size mismatch|mismatched"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown pooling 'max'"):
        set_pooling(tiny.model("bert"), "max")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, None),
        ({"pooling_mode_max_tokens": True}, None),
        ({"pooling_mode": "lasttoken"}, None),
        (None, None),
    ],
)
def test_the_pooling_of_an_encoder_is_read_from_its_folder(
    config: dict[str, object] | None, expected: str | None, tmp_path: Path
) -> None:
    if config is not None:
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(config))
    assert own_pooling(tmp_path) == expected
