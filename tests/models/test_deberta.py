"""DeBERTa: its forward pass against transformers, with and without buckets, and with dropped tokens."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from effx.errors import MissingExtraError, UsageError
from effx.models import forward, infer, structure, tokens
from effx.models.huggingface import load
from effx.models.stream import Stream
from effx.specs.tasks import TASKS
from tests.conftest import DEBERTA
from tests.models import tiny
from tests.models.huggingface.saved import change_config, classifier
from tests.models.test_modernbert import through_layers


def built(kind: object = AutoModelForSequenceClassification, **values: object) -> PreTrainedModel:
    """A model with random weights and the buckets of DeBERTa v3."""
    config = AutoConfig.for_model(
        "deberta-v2", vocab_size=tiny.VOCABULARY, pad_token_id=tiny.PADDING, hidden_size=32,
        num_attention_heads=4, num_hidden_layers=3, intermediate_size=24,
        **{"num_labels": 3, "max_position_embeddings": 1024, **DEBERTA, "position_buckets": 256, **values},
    )  # fmt: skip
    torch.manual_seed(0)
    model = kind.from_config(config)  # type: ignore[attr-defined]
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)
    return model.eval()


@pytest.mark.parametrize(
    "values",
    [{}, {"position_buckets": 8}, {"position_buckets": -1, "max_relative_positions": 1024},
     {"norm_rel_ebd": "none"}, {"position_biased_input": True}, {"pooler_hidden_act": "tanh"}],
)  # fmt: skip
@pytest.mark.parametrize("lengths", [[9, 4], [300, 1000]])
@torch.no_grad()
def test_logits_equal_those_of_transformers(values: dict[str, object], lengths: list[int]) -> None:
    model = built(**values)
    inputs = tiny.inputs(model, lengths)
    expected = tiny.logits(model, inputs)
    torch.testing.assert_close(infer(model, inputs).logits, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_heads_of_tokens_and_of_spans() -> None:
    tagger = built(AutoModelForTokenClassification)
    inputs = tiny.inputs(tagger, [150, 70])
    real = inputs["attention_mask"].bool()
    ours = forward.head(tagger, through_layers(tagger, inputs))
    torch.testing.assert_close(ours[real], tagger(**inputs).logits[real], atol=1e-4, rtol=0)
    answering = built(AutoModelForQuestionAnswering, num_labels=2)
    start, end = forward.spans(answering, through_layers(answering, inputs).hidden)
    expected = answering(**inputs)
    torch.testing.assert_close(start[real], expected.start_logits[real], atol=1e-4, rtol=0)
    torch.testing.assert_close(end[real], expected.end_logits[real], atol=1e-4, rtol=0)


@torch.no_grad()
def test_tokens_keep_their_distances_after_others_were_dropped() -> None:
    """Logits are the same with the dropped tokens masked, in every layer after the one that drops them."""
    model = built(position_buckets=8)
    tokens.schedule(model, shares=[0.5, 0.5, 0.5])
    inputs = tiny.inputs(model, [40])
    stream, probabilities = forward.attend(model, 0, forward.embed(model, inputs), explicit=True)
    assert probabilities is not None
    dropped = tokens.drop(structure(model), 0, stream, probabilities)
    kept = torch.zeros(1, 40, dtype=torch.bool).scatter(1, dropped.positions, True)
    hidden = forward.feed(model, 0, stream).hidden
    masked = Stream(hidden, kept, stream.lengths, stream.positions, 40, stream.bias)
    for position in (1, 2):
        masked = forward.feed(model, position, forward.attend(model, position, masked)[0])
    torch.testing.assert_close(infer(model, inputs).logits, forward.head(model, masked), atol=1e-5, rtol=0)


def test_a_pretrained_model_as_it_is_published(encoders: dict[str, Path], tmp_path: Path) -> None:
    """With the heads of its pretraining, an unused table of positions, and ``spm.model`` as tokenizer."""
    folder = Path(shutil.copytree(encoders["deberta-v2"], tmp_path / "m"))
    weights = load_file(folder / "model.safetensors")
    extra = {
        "lm_predictions.lm_head.bias": 60, "lm_predictions.lm_head.dense.weight": 32,
        "mask_predictions.dense.weight": 32, "mask_predictions.classifier.bias": 1,
        "deberta.embeddings.word_embeddings._weight": 4, "deberta.embeddings.position_embeddings.weight": 66,
    }  # fmt: skip
    renamed = {f"deberta.{name}": tensor for name, tensor in weights.items()}
    save_file(
        {**renamed, **{name: torch.ones(size) for name, size in extra.items()}},
        folder / "model.safetensors", metadata={"format": "pt"},
    )  # fmt: skip
    loaded = load(folder, TASKS["sst2"])
    assert any("head of its pretraining is not used (6 tensors" in note for note in loaded.notes)
    for name, tensor in weights.items():
        assert torch.equal(loaded.model.get_parameter(f"deberta.{name}").data, tensor)
    (folder / "tokenizer.json").rename(folder / "spm.model")
    with pytest.raises((MissingExtraError, UsageError), match="(?i)sentencepiece|tokenizer"):
        load(folder, TASKS["sst2"])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("relative_attention", False, "its attention is another one than that of the published DeBERTa"),
        ("share_att_key", False, "its attention is another one"),
        ("pos_att_type", "c2p", "its attention is another one"),
        ("conv_kernel_size", 3, "it has a convolution"),
        ("type_vocab_size", 2, "it has embeddings of token types"),
    ],
)
def test_models_that_compute_something_else_are_refused(
    key: str, value: object, message: str, encoders: dict[str, Path], tmp_path: Path
) -> None:
    classifier(encoders["deberta-v2"], tmp_path / "m", None)
    change_config(tmp_path / "m", **{key: value})
    with pytest.raises(UsageError, match=message):
        load(tmp_path / "m", TASKS["sst2"])
