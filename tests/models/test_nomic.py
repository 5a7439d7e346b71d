"""NomicBERT: its forward pass and its files against transformers, and with dropped tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from effx.errors import UsageError
from effx.models import families, forward, infer, structure, tokens
from effx.models.huggingface import load
from effx.models.stream import Stream
from effx.specs.tasks import TASKS
from tests.conftest import CONFIGS
from tests.models import tiny
from tests.models.huggingface.saved import change_config, classifier
from tests.models.test_modernbert import through_layers

pytestmark = pytest.mark.skipif("nomic_bert" not in CONFIGS, reason="this transformers has no NomicBERT")


def built(kind: object = AutoModelForSequenceClassification, **values: object) -> PreTrainedModel:
    """A model with random weights."""
    config = AutoConfig.for_model(
        "nomic_bert", vocab_size=tiny.VOCABULARY, pad_token_id=tiny.PADDING, hidden_size=32,
        num_attention_heads=4, num_hidden_layers=3, intermediate_size=24, **{"num_labels": 3, **values},
    )  # fmt: skip
    torch.manual_seed(0)
    model = kind.from_config(config)  # type: ignore[attr-defined]
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)
    return model.eval()


@pytest.mark.parametrize(
    "values",
    [{}, {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
     {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e3, "factor": 4.0}}, {"hidden_act": "gelu"}],
)  # fmt: skip
@pytest.mark.parametrize("lengths", [[9, 4], [300, 1000]])
@torch.no_grad()
def test_logits_equal_those_of_transformers(values: dict[str, object], lengths: list[int]) -> None:
    model = built(**values)
    inputs = tiny.inputs(model, lengths)
    inputs["token_type_ids"][:, 3:] = 1
    for implementation in ("eager", "sdpa"):
        model.config._attn_implementation = implementation
        expected = tiny.logits(model, inputs)
        torch.testing.assert_close(infer(model, inputs).logits, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_logits_of_tokens() -> None:
    tagger = built(AutoModelForTokenClassification)
    inputs = tiny.inputs(tagger, [150, 70])
    real = inputs["attention_mask"].bool()
    ours = forward.head(tagger, through_layers(tagger, inputs))
    torch.testing.assert_close(ours[real], tagger(**inputs).logits[real], atol=1e-4, rtol=0)


@torch.no_grad()
def test_tokens_keep_their_positions_after_others_were_dropped() -> None:
    """Logits are the same with the dropped tokens masked, in every layer after the one that drops them."""
    model = built()
    tokens.schedule(model, shares=[0.5, 0.5, 0.5])
    inputs = tiny.inputs(model, [40])
    stream, probabilities = forward.attend(model, 0, forward.embed(model, inputs), explicit=True)
    dropped = tokens.drop(structure(model), 0, stream, probabilities)
    kept = torch.zeros(1, 40, dtype=torch.bool).scatter(1, dropped.positions, True)
    hidden = forward.feed(model, 0, stream)
    masked = Stream(hidden.hidden, kept, stream.lengths, stream.positions, 40)
    for position in (1, 2):
        masked = forward.feed(model, position, forward.attend(model, position, masked)[0])
    torch.testing.assert_close(infer(model, inputs).logits, forward.head(model, masked), atol=1e-5, rtol=0)


@pytest.mark.parametrize("original", [True, False])
@torch.no_grad()
def test_files_with_the_names_of_either_code_give_the_same_model(
    original: bool, encoders: dict[str, Path], tmp_path: Path
) -> None:
    saved = classifier(
        encoders["nomic_bert"], tmp_path / "m", ("negative", "positive"), save_original_format=original
    )
    fused = any("Wqkv" in name for name in load_file(tmp_path / "m" / "model.safetensors"))
    assert fused == original
    model = load(tmp_path / "m", TASKS["sst2"]).model.eval()
    inputs = tiny.inputs(saved, [9, 4])
    assert torch.equal(tiny.logits(model, inputs), tiny.logits(saved, inputs))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e3, "factor": 2.0}}, "of type dynamic"),
        ({"prenorm": True}, "config.json says prenorm True"),
        ({"rotary_emb_fraction": 0.5}, "config.json says rotary_emb_fraction 0.5"),
        ({"rotary_scaling_factor": 2.0}, "says rotary_scaling_factor 2.0"),
        ({"activation_function": "gelu", "moe_every_n_layers": 2}, "says moe_every_n_layers 2"),
        ({"n_head": 8}, "says n_head 8, and transformers reads num_attention_heads 4"),
        ({"rotary_emb_base": 10000}, "says rotary_emb_base 10000, and transformers reads rope_theta 1000"),
        ({"head_dim": 16}, "another width"),
    ],
)
def test_other_architectures_of_the_original_code_are_refused(
    values: dict[str, object], message: str, encoders: dict[str, Path], tmp_path: Path
) -> None:
    classifier(encoders["nomic_bert"], tmp_path / "m", None)
    change_config(tmp_path / "m", **values)
    with pytest.raises(UsageError, match=message):
        load(tmp_path / "m", TASKS["sst2"])


def test_question_answering_is_refused(encoders: dict[str, Path]) -> None:
    assert families.named("nomic_bert").span_head is None
    with pytest.raises(UsageError, match="no model for question answering of type nomic_bert"):
        load(encoders["nomic_bert"], TASKS["squad"])
