"""Checkpoints are loaded as saved, bit by bit; unsafe or unsuitable weights are refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from effx import corpus
from effx.encoding import Encoder
from effx.errors import ArtifactError, UsageError
from effx.models import checkpoints, families, load, pretrained, prune, save, structure
from effx.models.structure import parameters
from effx.specs.heads import HeadSettings
from effx.specs.tasks import TASKS
from tests.conftest import CONFIGS

ROWS = [(text,) for text in corpus.texts("validation")[:5]]


@pytest.mark.parametrize("name", CONFIGS)
def test_save_and_load_give_the_same_logits(name: str, encoders: dict[str, Path], tmp_path: Path) -> None:
    torch.manual_seed(1)
    model, tokenizer = pretrained(encoders[name], TASKS["sst2"])
    saved = save(model, tmp_path / name, tokenizer=tokenizer, task=TASKS["sst2"], seed=1)
    batch = Encoder(tmp_path / name, 32)(ROWS).batch(np.arange(5))
    inputs = {key: torch.from_numpy(batch[key]) for key in checkpoints.input_names(model)}
    with torch.inference_mode():
        expected = model.eval()(**inputs).logits
        assert torch.equal(load(tmp_path / name)(**inputs).logits, expected)
        plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / name).eval()
        assert torch.equal(plain(**inputs).logits, expected)
    assert saved.manifest.parameters == parameters(model)
    assert saved.manifest.weight_remaining == 1.0
    assert model.config.id2label == {0: "negative", 1: "positive"}


@pytest.mark.parametrize("name", CONFIGS)
def test_families_return_the_modules_of_each_model(name: str, encoders: dict[str, Path]) -> None:
    model, _ = pretrained(encoders[name], TASKS["stsb"])
    family = families.of(model)
    assert model.config.num_labels == 1
    assert len(families.of(model).layers(model)) == 3
    assert families.of(model).head_size(model) == 8
    for layer in families.of(model).layers(model):
        *_, out = [layer.get_submodule(matrix.path) for matrix in family.head_matrices]
        assert sum(matrix.blocks for matrix in family.head_matrices) == 4  # Q, K, V and the output
        for matrix, size in [(each, 32) for each in family.head_matrices] + [
            (each, 64) for each in family.neuron_matrices
        ]:
            weight = layer.get_submodule(matrix.path).weight
            assert weight.shape[matrix.axis] == matrix.blocks * size and weight.shape[1 - matrix.axis] == 32
            assert (layer.get_submodule(matrix.path).bias is not None) == matrix.biased
        assert layer.get_submodule(family.context_path) is out
        assert layer.get_submodule(family.ffn_output_path).weight.shape == (32, 64)
    result = structure(model)
    assert [layer.heads for layer in result.layers] == [(0, 1, 2, 3)] * 3
    assert [layer.intermediate for layer in result.layers] == [64] * 3


def test_position_limits_are_exact(encoders: dict[str, Path]) -> None:
    limits = {
        name: checkpoints.position_limit(pretrained(encoders[name], TASKS["sst2"])[0]) for name in CONFIGS
    }
    expected = {
        "bert": 66, "electra": 66, "distilbert": 66, "roberta": 65, "mpnet": 64, "modernbert": 66,
        "deberta-v2": 66, "nomic_bert": 66,
    }  # fmt: skip
    assert limits == {name: expected[name] for name in CONFIGS}
    # distances have no end; the config has the longest trained
    for name in ("modernbert", "deberta-v2", "nomic_bert"):
        limits.pop(name, None)
    for name, limit in limits.items():  # the limit is exact: one more fails
        model = pretrained(encoders[name], TASKS["sst2"])[0].eval()
        ids = torch.full((1, limit), 7)
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
        longer = torch.full((1, limit + 1), 7)
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=longer, attention_mask=torch.ones_like(longer))


def test_weights_that_run_code_are_refused(encoders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoders["bert"], tmp_path / "pickled"))
    (folder / "model.safetensors").unlink()
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (marker,)  # type: ignore[return-value]

    torch.save({"x": Bomb()}, folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match="cannot be read as weights alone .*safetensors"):
        pretrained(folder, TASKS["sst2"])
    assert not marker.exists()
    torch.save(load_file(encoders["bert"] / "model.safetensors"), folder / "pytorch_model.bin")
    torch.manual_seed(0)
    unpickled = pretrained(folder, TASKS["sst2"])[0].state_dict()
    torch.manual_seed(0)
    expected = pretrained(encoders["bert"], TASKS["sst2"])[0].state_dict()
    assert all(torch.equal(unpickled[key], expected[key]) for key in expected)


def test_wrong_models_give_a_one_line_error(
    encoders: dict[str, Path], tmp_path: Path, checkpoint: object
) -> None:
    with pytest.raises(UsageError, match=r"no folder with a config.json"):
        pretrained("./nowhere", TASKS["sst2"])
    (tmp_path / "gpt").mkdir()
    (tmp_path / "gpt/config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UsageError, match="'gpt2' is not supported. Supported: bert, "):
        pretrained(tmp_path / "gpt", TASKS["sst2"])
    (tmp_path / "gpt/config.json").write_text('{"model_type": "albert"}')
    expected = (
        "'albert' is not supported. The nearest family is bert; effx does not compute layers that share"
    )
    with pytest.raises(UsageError, match=expected):
        pretrained(tmp_path / "gpt", TASKS["sst2"])
    cut = Path(shutil.copytree(encoders["bert"], tmp_path / "cut"))
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UsageError, match="cut: model.safetensors cannot be read .Error while deserializing"):
        pretrained(cut, TASKS["sst2"])


def test_an_encoder_with_missing_weights_is_refused(encoders: dict[str, Path], tmp_path: Path) -> None:
    """Otherwise it would silently be trained from random weights."""
    from safetensors.torch import save_file

    for name, encoder_folder in encoders.items():
        pretrained(encoder_folder, TASKS["sst2"])  # its head, and any pooler, may be new
        weights = load_file(encoder_folder / "model.safetensors")
        layer = [key for key in weights if re.search(r"(^|\.)layers?\.2\.", key)]
        assert layer
        for number, remaining in enumerate((
            {f"foo.{key}": value for key, value in weights.items()},
            {key: value for key, value in weights.items() if key not in layer},
            {key: value for key, value in weights.items() if key != layer[0]},
        )):  # fmt: skip
            folder = Path(shutil.copytree(encoder_folder, tmp_path / f"{name}{number}"))
            save_file(remaining, folder / "model.safetensors", metadata={"format": "pt"})
            with pytest.raises(UsageError, match="have no use in the model|do not fit its config: "):
                pretrained(folder, TASKS["sst2"])


def _classifier(name: str, encoders: dict[str, Path], folder: Path, labels: int) -> Path:
    """A plain Hugging Face classifier with the head of another task."""
    torch.manual_seed(7)
    model = AutoModelForSequenceClassification.from_pretrained(encoders[name], num_labels=labels)
    model.save_pretrained(folder)
    for file in encoders[name].glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


def _heads(folder: Path, seed: int, **options: bool) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    model, _ = pretrained(folder, TASKS["sst2"], head=HeadSettings(**options))
    encoder = f"{model.base_model_prefix}."
    return [value for name, value in model.named_parameters()
            if not name.startswith(encoder) and value.ndim == 2]  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_a_classifier_of_another_task_gets_a_new_head_from_the_seed(
    name: str, encoders: dict[str, Path], tmp_path: Path
) -> None:
    two = _classifier(name, encoders, tmp_path / "two", 2)
    stored = [value for _, value in sorted(load_file(two / "model.safetensors").items())]
    for first, again, other, remaining in zip(
        _heads(two, 0, fresh_head=True), _heads(two, 0, fresh_head=True), _heads(two, 1, fresh_head=True),
        _heads(two, 0, keep_head=True), strict=True,
    ):  # fmt: skip
        assert torch.equal(first, again) and not torch.equal(first, other)
        assert any(value.shape == remaining.shape and torch.equal(value, remaining) for value in stored)
        assert not any(value.shape == first.shape and torch.equal(value, first) for value in stored)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_head_of_another_width_is_replaced(name: str, encoders: dict[str, Path], tmp_path: Path) -> None:
    five = _classifier(name, encoders, tmp_path / "five", 5)
    torch.manual_seed(0)
    model, _ = pretrained(five, TASKS["sst2"])
    out = model.get_submodule(families.of(model).output_path(model))
    assert out.weight.shape[0] == 2 and model.config.id2label == {0: "negative", 1: "positive"}
    assert not torch.equal(_heads(five, 0)[-1], _heads(five, 1)[-1])
    stored = families.of(model).renamed(load_file(five / "model.safetensors"))
    result = model.state_dict().items()  # norms are named otherwise in files of transformers 5.0
    matrices = {key: value for key, value in result if ".layer" in key and value.ndim == 2}
    assert matrices and all(torch.equal(value, stored[key]) for key, value in matrices.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / "tokenizer.json").unlink(),
            "the folder has no tokenizer.json or vocab.txt",
        ),
        (lambda folder: (folder / "config.json").write_text('{"a": '), "m/config.json is not JSON"),
        (
            lambda folder: (folder / "config.json").write_text(
                (folder / "config.json").read_text().replace('"vocab_size": ', '"vocab_size": 1')
            ),
            "do not fit its config: 1 of the encoder's tensors are of another shape, e.g. bert.embeddings",
        ),
    ],
    ids=["tokenizer", "json", "shape"],
)
def test_a_damaged_model_folder_gives_a_one_line_error(
    change: object, message: str, encoders: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(encoders["bert"], tmp_path / "m"))
    change(folder)  # type: ignore[operator]
    with pytest.raises(UsageError, match=message) as caught:
        pretrained(folder, TASKS["sst2"])
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="there is no folder with a config.json"):
        pretrained(encoders["bert"] / "config.json", TASKS["sst2"])


def test_saved_tokenizers_do_not_pad(
    checkpoint: object, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer

    padding = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    )
    padding.backend_tokenizer.enable_padding(length=20)
    built = save(
        load(checkpoint.folder), tmp_path / "c", tokenizer=padding, task=TASKS["sst2"], max_length=6,  # type: ignore[attr-defined]
    )  # fmt: skip
    plain = Tokenizer.from_file(str(built.folder / "tokenizer.json"))
    assert len(plain.encode("a").ids) == 3
    assert len(plain.encode("a film a film a film a film").ids) == 6


def test_a_truncated_checkpoint_is_refused(checkpoint: object, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint.folder, tmp_path / "cut"))  # type: ignore[attr-defined]
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match="truncated or changed"):
        load(folder)


def test_a_checkpoint_contains_its_tokenizer(checkpoint: object, tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = Encoder(checkpoint.folder, 32)  # type: ignore[attr-defined]
    assert encoder(ROWS).batch([0])["input_ids"][0].tolist() == tokenizer(ROWS[0][0])["input_ids"][:32]


@pytest.mark.parametrize("removed", [{"ffns": [1]}, {"heads": {2: [0, 1, 2, 3]}}, {"heads": {0: [1]}}])
@pytest.mark.parametrize("name", CONFIGS)
def test_plain_transformers_refuses_a_reduced_checkpoint(
    name: str,
    removed: dict[str, Any],
    encoders: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A layer without FFN or attention would get a random one, with a warning alone."""
    model, tokenizer = pretrained(encoders[name], TASKS["sst2"])
    prune(model, **removed)
    saved = save(model, tmp_path / "c", tokenizer=tokenizer, task=TASKS["sst2"])
    assert structure(load(saved)) == structure(model)
    for auto in (AutoModelForSequenceClassification, AutoModel, type(model)):
        caplog.clear()
        with (
            caplog.at_level("WARNING", logger="transformers"),
            pytest.raises(RuntimeError, match="ignore_mismatched_sizes"),
        ):
            auto.from_pretrained(saved.folder)
        assert "load_it_with.effx.models.load" in caplog.text
    assert save(load(saved), tmp_path / "again", tokenizer=tokenizer, task=TASKS["sst2"])


def test_a_tensor_too_many_is_refused(encoders: dict[str, Path], tmp_path: Path) -> None:
    model, tokenizer = pretrained(encoders["bert"], TASKS["sst2"])
    saved = save(model, tmp_path / "c", tokenizer=tokenizer, task=TASKS["sst2"])
    for change in ({"extra": torch.zeros(0)}, {"classifier.bias": None}):
        tensors = load_file(saved.folder / "model.safetensors") | change
        save_file({key: value for key, value in tensors.items() if value is not None},
                  tmp_path / "changed.safetensors")  # fmt: skip
        with pytest.raises(ArtifactError, match=f"{next(iter(change))} is missing or not expected"):
            checkpoints.read_weights(model, tmp_path / "changed.safetensors")
