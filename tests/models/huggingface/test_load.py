"""Models as transformers saves them: its logits where they are read, one line where they are not."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
    pipeline,
)

from effx.encoding import Encoder
from effx.errors import EffxError, MissingExtraError, UsageError
from effx.models import checkpoints, evaluate, families, pretrained, prune, save, structure
from effx.models.huggingface import load
from effx.specs.heads import HeadSettings
from effx.specs.kinds import KINDS
from effx.specs.tasks import TASKS, Task
from tests.conftest import CONFIGS
from tests.models.huggingface.saved import change_config, classifier

NLI = TASKS["mnli"].labels
ROWS = [("the film was good", "it was great"), ("a dull and clumsy story about the meal", "bad")] * 4
METADATA = {"format": "pt"}


def logits(model: PreTrainedModel, folder: Path) -> np.ndarray:
    return evaluate.logits(model, Encoder(folder, 32)(ROWS))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_saved_classifier_gives_the_logits_of_transformers(
    name: str, dtype: torch.dtype, encoders: dict[str, Path], tmp_path: Path
) -> None:
    order = ("Contradiction", "ENTAILMENT", "neutral")
    expected = classifier(encoders[name], tmp_path / "m", order, dtype=dtype, max_shard_size="20KB")
    assert len(list((tmp_path / "m").glob("*.safetensors"))) > 1
    loaded = load(tmp_path / "m", TASKS["mnli"])
    assert "permuted to entailment, neutral, contradiction" in loaded.head and not loaded.fresh
    ours, theirs = logits(loaded.model, tmp_path / "m"), logits(expected, tmp_path / "m")
    np.testing.assert_array_equal(ours, theirs[:, [1, 2, 0]])
    assert loaded.model.config.id2label == {0: "ENTAILMENT", 1: "neutral", 2: "Contradiction"}


def test_a_head_of_another_task_is_not_kept(encoders: dict[str, Path], tmp_path: Path) -> None:
    saved = classifier(encoders["bert"], tmp_path / "m", ("joy", "anger", "fear"))
    loaded = load(tmp_path / "m", TASKS["mnli"])
    assert loaded.fresh and "its labels are joy, anger, fear" in loaded.head
    assert not torch.equal(loaded.model.classifier.weight, saved.classifier.weight)
    kept = load(tmp_path / "m", TASKS["mnli"], head=HeadSettings(keep_head=True))
    assert torch.equal(kept.model.classifier.weight, saved.classifier.weight)


def test_class_numbers_in_another_order_are_permuted(encoders: dict[str, Path], tmp_path: Path) -> None:
    """Rows have the classes 0, 1 and 2; the model's outputs are called 2, 0 and 1."""
    expected = classifier(encoders["bert"], tmp_path / "m", ("2", "0", "1"))
    task = Task("topics", "classification", ("sentence1", "sentence2"), ("0", "1", "2"), ("accuracy",))
    loaded = load(tmp_path / "m", task)
    assert not loaded.fresh and "permuted to 0, 1, 2" in loaded.head
    theirs = logits(expected, tmp_path / "m")
    np.testing.assert_array_equal(logits(loaded.model, tmp_path / "m"), theirs[:, [1, 2, 0]])
    assert loaded.model.config.id2label == {0: "0", 1: "1", 2: "2"}


def test_names_are_not_given_to_class_numbers(encoders: dict[str, Path], tmp_path: Path) -> None:
    """The numbers of rows may be those of other classes: the head is new, and names no classes."""
    classifier(encoders["bert"], tmp_path / "m", NLI)
    task = Task("topics", "classification", ("sentence1", "sentence2"), ("0", "1", "2"), ("accuracy",))
    loaded = load(tmp_path / "m", task)
    assert loaded.fresh and f"its labels are {', '.join(NLI)}" in loaded.head
    assert not {*loaded.model.config.id2label.values()} & {*NLI}
    kept = load(tmp_path / "m", task, head=HeadSettings(keep_head=True))
    assert not kept.fresh and tuple(kept.model.config.id2label.values()) == NLI


def test_a_multi_label_model_gives_the_probabilities_of_transformers(
    encoders: dict[str, Path], tmp_path: Path
) -> None:
    names = ("joy", "anger", "fear")
    classifier(encoders["bert"], tmp_path / "m", names, problem_type="multi_label_classification")
    task = Task("feelings", "multi-label", ("sentence",), ("anger", "fear", "joy"), ("micro_f1",))
    loaded = load(tmp_path / "m", task)
    assert "permuted to anger, fear, joy" in loaded.head and not loaded.fresh
    assert loaded.model.config.problem_type == "multi_label_classification"
    classify = pipeline("text-classification", str(tmp_path / "m"), top_k=None)
    texts = ["the film was good", "a dull and clumsy story about the meal", "it was great", "bad"]
    by_name = [{score["label"]: score["score"] for score in row} for row in classify(texts)]
    expected = [[scores[name] for name in task.labels] for scores in by_name]
    ours = evaluate.logits(loaded.model, Encoder(tmp_path / "m", 32)([(text,) for text in texts]))
    np.testing.assert_allclose(1 / (1 + np.exp(-ours)), expected, atol=1e-6)
    np.testing.assert_array_equal(task.predict(ours), np.array(expected) > 0.5)
    one_class = load(tmp_path / "m", Task("c", "classification", ("a", "b"), names, ("accuracy",)))
    assert one_class.fresh and "is not one for classification" in one_class.head
    several = load(encoders["bert"], task)
    assert several.fresh and several.model.config.problem_type == "multi_label_classification"


def test_outputs_without_names_need_labels(encoders: dict[str, Path], tmp_path: Path) -> None:
    saved = classifier(encoders["bert"], tmp_path / "m", None)
    assert "set labels" in load(tmp_path / "m", TASKS["sst2"]).head
    named = load(tmp_path / "m", TASKS["sst2"], head=HeadSettings(labels=("positive", "negative")))
    assert torch.equal(named.model.classifier.weight, saved.classifier.weight[[1, 0]])
    for given in (("good", "bad"), ("positive",), ("positive", "negative", "neutral")):
        with pytest.raises(UsageError, match="expected the labels of the task in the order"):
            load(tmp_path / "m", TASKS["sst2"], head=HeadSettings(labels=given))


def test_a_checkpoint_is_matched_by_its_labels_too(encoders: dict[str, Path], tmp_path: Path) -> None:
    model, tokenizer = pretrained(encoders["bert"], TASKS["qnli"])
    save(model, tmp_path / "c", tokenizer=tokenizer, task=TASKS["qnli"])
    assert load(tmp_path / "c", TASKS["rte"]).head == "kept: entailment, not_entailment"
    other = load(tmp_path / "c", TASKS["sst2"])
    assert other.fresh and not torch.equal(other.model.classifier.weight, model.classifier.weight)


@pytest.mark.parametrize("auto", [AutoModelForTokenClassification, AutoModelForQuestionAnswering])
def test_heads_of_other_kinds_give_way(auto: type, encoders: dict[str, Path], tmp_path: Path) -> None:
    """A token classifier's head has the name and the shape of a sequence classifier's."""
    model = auto.from_pretrained(encoders["bert"])  # type: ignore[attr-defined]
    model.save_pretrained(tmp_path / "m")
    shutil.copy(encoders["bert"] / "tokenizer.json", tmp_path / "m")
    loaded = load(tmp_path / "m", TASKS["sst2"])
    assert loaded.fresh and f"For{auto.__name__.partition('For')[2]}" in loaded.head
    assert "is not one for classification" in loaded.head


def _weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata=METADATA)

    return apply


TOKENIZER = "tokenizer_config.json"


def settings(folder: Path, **values: object) -> None:
    (folder / TOKENIZER).write_text(json.dumps(values))


QUERY = "bert.encoder.layer.1.attention.self.query.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: change_config(f, position_embedding_type="relative_key"), "of type relative_key"),
        (
            lambda f: change_config(
                f, auto_map={"AutoModelForSequenceClassification": "modeling_mine.MyBert"}
            ),
            "code of its own for the model .auto_map: modeling_mine.MyBert., .* remove auto_map",
        ),
        (lambda f: change_config(f, is_decoder=True), "says is_decoder: effx computes encoders only"),
        (lambda f: change_config(f, quantization_config={"bits": 4}), "weights are quantized"),
        # transformers 5.0 does not check the types of a config
        (lambda f: change_config(f, intermediate_size="x"), "expected int, got str|config.json .TypeError"),
        (lambda f: change_config(f, hidden_act="no"), "from its config.json .KeyError: 'no'"),
        (lambda f: change_config(f, dtype="no"), "from its config.json .AttributeError"),
        (lambda f: change_config(f, type_vocab_size=1 << 70), "cannot build a model from its config.json"),
        (
            lambda f: ((f / TOKENIZER).unlink(), (f / TOKENIZER).mkdir()),
            "tokenizer_config.json is not a regular file",
        ),
        (lambda f: settings(f, cls_token=5), "cannot build a tokenizer from its tokenizer_config.json"),
        (lambda f: settings(f, model_max_length="x"), "model_max_length: expected an integer >= 1, got x"),
        (lambda f: settings(f, backend="\ud800"), "half of a surrogate pair"),
        (lambda f: change_config(f, architectures=5), "architectures: expected a list, got 5"),
        (lambda f: change_config(f, hidden_dropout_prob=10**400), "hidden_dropout_prob: expected a number"),
        (lambda f: change_config(f, layer_norm_eps=-1e-12), "layer_norm_eps: expected a number from 0 to 1"),
        (lambda f: change_config(f, initializer_range=-1), "initializer_range: expected a number from 0"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "adapter .*merge_and_unload"),
        (lambda f: (f / "model.safetensors").rename(f / "tf_model.h5"), "tf_model.h5 cannot be imported"),
        (lambda f: change_config(f, id2label={"0": "a"}), "names 1 labels .a., the head has 3 outputs"),
        (
            _weights(lambda t: t.update({"bert.encoder.layer.0.adapter.weight": torch.ones(2)})),
            "1 of its tensors have no use .* bert.encoder.layer.0.adapter.weight",
        ),
        (
            _weights(lambda t: t.update({"bert.encoder.layer.3.output.dense.bias": torch.ones(32)})),
            "no use in the model",
        ),
        (_weights(lambda t: t.update({"extra.weight": torch.ones(3)})), "extra.weight"),
        (
            _weights(lambda t: t[QUERY].view(-1)[5:7].fill_(float("nan"))),
            f"2 of the 1024 values of {QUERY} are not finite",
        ),
        (_weights(lambda t: t.update({QUERY: t[QUERY].to(torch.int8)})), f"quantized .{QUERY} is int8"),
        (_weights(lambda t: t.__delitem__("classifier.bias")), "incomplete: classifier.bias"),
        (_weights(lambda t: t.__delitem__(QUERY)), f"{QUERY} is missing"),
        (
            _weights(lambda t: t.update({QUERY.removeprefix("bert."): torch.ones_like(t[QUERY])})),
            f"two of its tensors would become {QUERY}",
        ),
    ],
)  # fmt: skip
def test_what_would_be_left_out_is_refused_by_name(
    change: Callable[[Path], None], message: str, encoders: dict[str, Path], tmp_path: Path
) -> None:
    classifier(encoders["bert"], tmp_path / "m", NLI)
    change(tmp_path / "m")
    with pytest.raises(EffxError, match=message) as caught:
        load(tmp_path / "m", TASKS["mnli"])
    assert "\n" not in str(caught.value)


def test_weights_that_only_config_json_names_are_refused(encoders: dict[str, Path], tmp_path: Path) -> None:
    """transformers 5 reads the file that the config names, and effx the usual one."""
    folder = tmp_path / "m"
    saved = classifier(encoders["bert"], folder, NLI)
    classifier(encoders["bert"], tmp_path / "other", NLI, seed=6)
    shutil.copy(tmp_path / "other" / "model.safetensors", folder / "other.safetensors")
    for named in ("other.safetensors", "pytorch_model.bin", ["model.safetensors"]):
        change_config(folder, transformers_weights=named)
        with pytest.raises(UsageError, match="as its weights .transformers_weights., .* model.safetensors"):
            load(folder, TASKS["mnli"])
    for named in ("model.safetensors", "./model.safetensors", None):
        change_config(folder, transformers_weights=named)
        loaded = load(folder, TASKS["mnli"])
        assert torch.equal(loaded.model.classifier.weight, saved.classifier.weight)


def test_an_index_of_shards_may_be_named(encoders: dict[str, Path], tmp_path: Path) -> None:
    saved = classifier(encoders["bert"], tmp_path / "m", NLI, max_shard_size="20KB")
    change_config(tmp_path / "m", transformers_weights="model.safetensors.index.json")
    loaded = load(tmp_path / "m", TASKS["mnli"])
    assert torch.equal(loaded.model.classifier.weight, saved.classifier.weight)


@pytest.mark.parametrize("name", CONFIGS)
def test_an_ffn_in_parts_is_refused_where_transformers_computes_it_so(
    name: str, encoders: dict[str, Path], tmp_path: Path
) -> None:
    saved = classifier(encoders[name], tmp_path / "m", NLI)
    change_config(tmp_path / "m", chunk_size_feed_forward=2)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")
    try:
        theirs(torch.arange(3)[None])  # no multiple of 2
    except ValueError:
        with pytest.raises(UsageError, match="chunk_size_feed_forward is 2, .* set it to 0"):
            load(tmp_path / "m", TASKS["mnli"])
    else:
        load(tmp_path / "m", TASKS["mnli"])
    change_config(tmp_path / "m", chunk_size_feed_forward=0)
    loaded = load(tmp_path / "m", TASKS["mnli"])
    ours, expected = logits(loaded.model, tmp_path / "m"), logits(saved, tmp_path / "m")
    assert sorted(ours[0]) == pytest.approx(sorted(expected[0]), abs=1e-6)


@pytest.mark.parametrize("name", ["bert", "roberta", "mpnet", "distilbert"])
def test_positions_after_padding_need_its_id(name: str, encoders: dict[str, Path], tmp_path: Path) -> None:
    """A config may have no id, which is then the family's, but null is none for transformers either."""
    saved = classifier(encoders[name], tmp_path / "m", NLI)
    change_config(tmp_path / "m", pad_token_id=None)
    try:
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")(torch.arange(3)[None])
    except TypeError:
        with pytest.raises(UsageError, match="pad_token_id: expected an integer, got None: positions of"):
            load(tmp_path / "m", TASKS["mnli"])
    else:
        ours = logits(load(tmp_path / "m", TASKS["mnli"]).model, tmp_path / "m")
        assert sorted(ours[0]) == pytest.approx(sorted(logits(saved, tmp_path / "m")[0]), abs=1e-6)


@pytest.mark.parametrize("name", ["roberta", "mpnet"])
def test_a_config_without_an_id_of_padding_has_the_usual_one(
    name: str, encoders: dict[str, Path], tmp_path: Path
) -> None:
    classifier(encoders[name], tmp_path / "m", NLI)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    del config["pad_token_id"]
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    assert load(tmp_path / "m", TASKS["mnli"]).model.config.pad_token_id == 1


@pytest.mark.parametrize("named", ["BertModel", "MyBert", "BertForPair", None])
def test_a_head_that_another_class_saved_is_named(
    named: str | None, encoders: dict[str, Path], tmp_path: Path
) -> None:
    classifier(encoders["bert"], tmp_path / "m", NLI)

    def noted(**head: bool) -> list[str]:
        notes = load(tmp_path / "m", TASKS["mnli"], head=HeadSettings(**head)).notes
        return [note.partition(" of transformers")[0] for note in notes if "config.json names" in note]

    assert not noted()
    change_config(tmp_path / "m", architectures=None if named is None else [named])
    expected = f"config.json names {named}: its task head is read as that of BertForSequenceClassification"
    assert noted() == ([] if named is None else [expected])
    assert not noted(fresh_head=True)


def test_code_of_other_files_is_no_code_of_the_model(encoders: dict[str, Path], tmp_path: Path) -> None:
    classifier(encoders["bert"], tmp_path / "m", NLI)
    change_config(tmp_path / "m", auto_map={"AutoConfig": "configuration_mine.MyConfig"})
    assert not load(tmp_path / "m", TASKS["mnli"]).fresh


def test_harmless_tensors_are_left_out_and_named(encoders: dict[str, Path], tmp_path: Path) -> None:
    expected = classifier(encoders["roberta"], tmp_path / "m", NLI)
    _weights(lambda t: t.update({
        "roberta.embeddings.position_ids": torch.arange(66)[None],
        "roberta.pooler.dense.weight": torch.ones(32, 32),
        "lm_head.bias": torch.ones(8),
    }))(tmp_path / "m")  # fmt: skip
    loaded = load(tmp_path / "m", TASKS["mnli"])
    np.testing.assert_array_equal(logits(loaded.model, tmp_path / "m"), logits(expected, tmp_path / "m"))
    assert [note[:22] for note in loaded.notes] == ["the head of its pretra", "its pooler is not used"]


def _as_pickle(folder: Path, compression: int = zipfile.ZIP_STORED, **more: torch.Tensor) -> None:
    """Replace the weights by pytorch_model.bin."""
    tensors = {**load_file(folder / "model.safetensors"), **more}
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "stored.bin")
    with (
        zipfile.ZipFile(folder / "stored.bin") as before,
        zipfile.ZipFile(folder / "pytorch_model.bin", "w", compression) as after,
    ):
        for name in before.namelist():
            after.writestr(name, before.read(name))


def test_pickles_that_expand_are_refused(encoders: dict[str, Path], tmp_path: Path) -> None:
    expected = classifier(encoders["bert"], tmp_path / "stored", NLI)
    for name in ("deflated", "repeated"):
        shutil.copytree(tmp_path / "stored", tmp_path / name)
    _as_pickle(tmp_path / "stored")
    loaded = load(tmp_path / "stored", TASKS["mnli"])
    np.testing.assert_array_equal(
        logits(loaded.model, tmp_path / "stored"), logits(expected, tmp_path / "stored")
    )
    _as_pickle(tmp_path / "deflated", zipfile.ZIP_DEFLATED)
    with pytest.raises(UsageError, match="pytorch_model.bin is compressed: save it with torch.save"):
        load(tmp_path / "deflated", TASKS["mnli"])
    _as_pickle(tmp_path / "repeated", **{"lm_head.weight": torch.zeros(1).expand(1 << 20)})
    with pytest.raises(UsageError, match="lm_head.weight has more values than the file"):
        load(tmp_path / "repeated", TASKS["mnli"])


def test_a_missing_shard_is_named(encoders: dict[str, Path], tmp_path: Path) -> None:
    classifier(encoders["bert"], tmp_path / "m", NLI, max_shard_size="20KB")
    shard = sorted((tmp_path / "m").glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(
        UsageError, match=f"the shard {shard.name} of model.safetensors.index.json is missing"
    ):
        load(tmp_path / "m", TASKS["mnli"])


def test_a_sentencepiece_tokenizer_names_the_package(
    encoders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    folder = tmp_path / "m"
    classifier(encoders["roberta"], folder, NLI)
    (folder / "tokenizer.json").rename(folder / "sentencepiece.bpe.model")
    with pytest.raises(MissingExtraError, match="pip install sentencepiece protobuf"):
        load(folder, TASKS["mnli"])


# reduced models


def _reduced(
    name: str, encoders: dict[str, Path], folder: Path, *, record: bool
) -> tuple[PreTrainedModel, Path]:
    """Save a model with heads and neurons removed as transformers 4 and TextPruner do: smaller tensors."""
    classifier(encoders[name], folder, NLI)
    model, _ = pretrained(folder, TASKS["mnli"])
    heads = {0: [0, 2], 2: [3]}
    prune(model, heads=heads, neurons={0: range(20), 1: range(30, 64)})
    save_file({key: value.contiguous() for key, value in model.state_dict().items()},
              folder / "model.safetensors", metadata=METADATA)  # fmt: skip
    if record:
        change_config(folder, pruned_heads={str(layer): removed for layer, removed in heads.items()})
    return model, folder


@pytest.mark.parametrize("name", CONFIGS)
def test_a_reduced_model_is_read_from_its_shapes(
    name: str, encoders: dict[str, Path], tmp_path: Path
) -> None:
    expected, folder = _reduced(name, encoders, tmp_path / "m", record=True)
    loaded = load(folder, TASKS["mnli"])
    kept = structure(loaded.model)
    assert [layer.heads for layer in kept.layers] == [(1, 3), (0, 1, 2, 3), (0, 1, 2)]
    assert [layer.intermediate for layer in kept.layers] == [44, 30, 64]
    assert any("heads per layer 2, 4, 3 of 4" in note for note in loaded.notes)
    np.testing.assert_allclose(logits(loaded.model, folder), logits(expected, folder), atol=1e-6)
    made = save(loaded.model, tmp_path / "c", tokenizer=loaded.tokenizer, task=TASKS["mnli"])
    assert structure(checkpoints.load(made)) == kept
    assert "pruned_heads" not in (made.folder / "config.json").read_text()


def test_heads_may_be_unnamed_unless_they_differ_in_positions(
    encoders: dict[str, Path], tmp_path: Path
) -> None:
    expected, folder = _reduced("bert", encoders, tmp_path / "bert", record=False)
    loaded = load(folder, TASKS["mnli"])
    np.testing.assert_allclose(logits(loaded.model, folder), logits(expected, folder), atol=1e-6)
    _, folder = _reduced("mpnet", encoders, tmp_path / "mpnet", record=False)
    with pytest.raises(UsageError, match="relative position bias differs between heads"):
        load(folder, TASKS["mnli"])


def test_an_ffn_without_neurons_keeps_its_output_bias(encoders: dict[str, Path], tmp_path: Path) -> None:
    """As TextPruner leaves it: y = LN2(a + b2)."""
    model = classifier(encoders["bert"], tmp_path / "m", NLI)
    layer = "bert.encoder.layer.1."

    def empty(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{layer}intermediate.dense.weight"] = torch.zeros(0, 32)
        tensors[f"{layer}intermediate.dense.bias"] = torch.zeros(0)
        tensors[f"{layer}output.dense.weight"] = torch.zeros(32, 0)

    _weights(empty)(tmp_path / "m")
    with torch.no_grad():
        families.of(model).layers(model)[1].output.dense.weight.zero_()
    loaded = load(tmp_path / "m", TASKS["mnli"])
    np.testing.assert_allclose(logits(loaded.model, tmp_path / "m"), logits(model, tmp_path / "m"), atol=1e-6)


def _layer(index: int, change: Callable[[str, torch.Tensor], torch.Tensor | None]) -> Callable[[Path], None]:
    def apply(tensors: dict[str, torch.Tensor]) -> None:
        prefix = f"bert.encoder.layer.{index}."
        for key in [key for key in tensors if key.startswith(prefix)]:
            value = change(key.removeprefix(prefix), tensors.pop(key))
            if value is not None:
                tensors[key] = value.contiguous()

    return _weights(apply)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _layer(1, lambda key, value: None if "attention" in key else value),
            "bert.encoder.layer.1 has no weights for its attention heads: .*CoFi",
        ),
        (_layer(1, lambda key, value: None if "dense" in key and "att" not in key else value), "its FFN"),
        (
            _layer(1, lambda key, value: value[:12] if ".self.query" in key else value),
            r"contradict one another: \[12, 32\]",
        ),
        (
            _layer(1, lambda key, value: (value[:12] if ".self." in key else value[:, :12])
                   if ".self." in key or key == "attention.output.dense.weight" else value),
            "layer 1 have 12 rows; expected a multiple of 8, at most 32",
        ),
        (lambda f: change_config(f, pruned_heads={"1": [0]}), "layer 1 has 3 heads; by its tensors, 4"),
    ],
)  # fmt: skip
def test_an_ambiguous_structure_is_refused(
    change: Callable[[Path], None], message: str, encoders: dict[str, Path], tmp_path: Path
) -> None:
    classifier(encoders["bert"], tmp_path / "m", NLI)
    change(tmp_path / "m")
    with pytest.raises(UsageError, match=message):
        load(tmp_path / "m", TASKS["mnli"])


def test_equally_narrow_layers_do_not_say_how_large_a_head_is(
    encoders: dict[str, Path], tmp_path: Path
) -> None:
    """16 rows may be 2 of 4 heads of 8, or 4 heads of 4."""
    classifier(encoders["bert"], tmp_path / "m", NLI)
    for index in range(3):
        narrow = _layer(index, lambda key, value: value[:16] if ".self." in key
                        else value[:, :16] if key == "attention.output.dense.weight" else value)  # fmt: skip
        narrow(tmp_path / "m")
    with pytest.raises(UsageError, match="2 heads of 8, or 4 of 4"):
        load(tmp_path / "m", TASKS["mnli"])
    change_config(tmp_path / "m", pruned_heads={str(index): [2, 3] for index in range(3)})
    assert structure(load(tmp_path / "m", TASKS["mnli"]).model).layers[0].heads == (0, 1)


IDENTITY, SIGMOID = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"


@pytest.mark.parametrize("task", ["stsb", "ranked"])
@pytest.mark.parametrize(
    ("stated", "fresh", "expected"),
    [
        (None, False, IDENTITY),
        (IDENTITY, False, IDENTITY),
        (SIGMOID, False, SIGMOID),
        (SIGMOID, True, IDENTITY),
    ],
)
@pytest.mark.parametrize("file", ["config.json", "config_sentence_transformers.json"])
def test_a_single_output_names_the_function_that_a_cross_encoder_applies(
    file: str,
    stated: str | None,
    fresh: bool,
    expected: str,
    task: str,
    encoders: dict[str, Path],
    tmp_path: Path,
) -> None:
    """Without a name, sentence-transformers applies a sigmoid to a single output."""
    folder = tmp_path / "m"
    classifier(encoders["bert"], folder, ("LABEL_0",), problem_type="regression")
    if stated is not None:
        change_config(folder, sentence_transformers={"activation_fn": stated, "version": "5.0.0"})
    if stated is not None and file != "config.json":
        change_config(folder, sentence_transformers=None)
        settings = {"model_type": "CrossEncoder", "activation_fn": stated}
        (folder / file).write_text(json.dumps(settings))
    ranked = Task("ranked", "ranking", ("query", "passage"), (), KINDS["ranking"].metrics)
    chosen = ranked if task == "ranked" else TASKS["stsb"]
    loaded = load(folder, chosen, head=HeadSettings(fresh_head=fresh))
    made = save(loaded.model, tmp_path / "c", tokenizer=loaded.tokenizer, task=chosen)
    config = json.loads((made.folder / "config.json").read_text())
    assert config["sentence_transformers"]["activation_fn"] == expected
    again = load(made.folder, chosen, head=HeadSettings(fresh_head=fresh))
    assert again.model.config.sentence_transformers["activation_fn"] == expected


def test_several_outputs_name_no_function(encoders: dict[str, Path], tmp_path: Path) -> None:
    classifier(encoders["bert"], tmp_path / "m", NLI)
    assert not hasattr(load(tmp_path / "m", TASKS["mnli"]).model.config, "sentence_transformers")
