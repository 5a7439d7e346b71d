"""Whatever the settings of a tokenizer: effx reads a text as transformers does, or says that it cannot."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers import trainers as tokenizer_trainers
from transformers import AutoModelForTokenClassification, AutoTokenizer, RobertaConfig, RobertaTokenizer

from effx import corpus
from effx.encoding import Encoder
from effx.errors import UsageError
from effx.models import pretrained, save
from effx.models.huggingface import check_encoded, load
from effx.models.huggingface.load import Loaded
from effx.specs.heads import HeadSettings
from effx.specs.kinds import KINDS
from effx.specs.tasks import TASKS, Task
from effx.train.finetune import checked_encoder
from tests.models.huggingface.saved import change_config, classifier

NLI = TASKS["mnli"].labels
TEXTS = corpus.texts("validation")[:12]
ROWS = [*((text,) for text in TEXTS)]
LONG_PAIRS = [(" ".join(TEXTS[i : i + 3]), " ".join(TEXTS[j : j + 2])) for i in range(4) for j in range(4)]


def _random_settings(rng: random.Random) -> dict[str, object]:
    """Settings as authors of models write them into tokenizer_config.json."""
    choices: dict[str, list[object]] = {
        "truncation_side": ["left", "right", None],
        "padding_side": ["left", "right", None],
        "model_input_names": [["input_ids", "attention_mask"], None,
                              ["input_ids", "token_type_ids", "attention_mask"]],
        "do_lower_case": [True, False, None],
        "split_special_tokens": [True, False, None],
        "model_max_length": [12, 512, None],
        "strip_accents": [True, False, None],
        "tokenizer_class": ["BertTokenizer", "TokenizersBackend", "PreTrainedTokenizerFast"],
    }  # fmt: skip
    drawn = {key: rng.choice(values) for key, values in choices.items()}
    return {key: value for key, value in drawn.items() if value is not None}


@pytest.mark.parametrize("seed", range(25))
def test_random_settings_are_read_as_transformers_reads_them(
    seed: int, encoders: dict[str, Path], tmp_path: Path
) -> None:
    rng = random.Random(seed)
    folder = tmp_path / "m"
    classifier(encoders["bert"], folder, NLI)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    settings = _random_settings(rng)
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, **settings}))
    if rng.random() < 0.5:  # what a tokenizer was last called with is saved too
        stored = json.loads((folder / "tokenizer.json").read_text())
        stored["truncation"] = {"direction": rng.choice(["Left", "Right"]), "max_length": 9,
                             "strategy": "LongestFirst", "stride": 0,
                             "pad_to_multiple_of": None, "pad_type_id": 0,
                             "pad_token": "[PAD]"}  # fmt: skip
        stored["padding"] = {"strategy": {"Fixed": 20}, "direction": "Right", "pad_id": 0,
                             "pad_to_multiple_of": None, "pad_type_id": 0, "pad_token": "[PAD]"}  # fmt: skip
        (folder / "tokenizer.json").write_text(json.dumps(stored))
    loaded = load(folder, TASKS["mnli"])
    made = save(loaded.model, tmp_path / "c", tokenizer=loaded.tokenizer, task=TASKS["mnli"], max_length=24)
    encoder = Encoder(made.folder, made.max_length)
    theirs = AutoTokenizer.from_pretrained(folder)
    pairs = [*LONG_PAIRS, ("the [SEP] was [MASK]", "Été [CLS]")]
    for rows in ([(text,) for text, _ in pairs], pairs):
        second = [row[1] for row in rows] if len(rows[0]) > 1 else None
        expected = theirs([row[0] for row in rows], second, truncation=True, max_length=24)
        encoded = encoder(rows)
        types = expected.get("token_type_ids")
        for row in range(len(rows)):
            part = slice(encoded.offsets[row], encoded.offsets[row + 1])
            assert encoded.ids[part].tolist() == expected["input_ids"][row], settings
            assert encoded.types[part].tolist() == (types[row] if types else [0] * len(encoded.types[part]))


def test_the_saved_tokenizer_alone_cuts_the_same_end(encoders: dict[str, Path], tmp_path: Path) -> None:
    """Other clients of an engine read tokenizer.json, not tokenizer_config.json."""
    folder = tmp_path / "m"
    classifier(encoders["bert"], folder, NLI)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "truncation_side": "left"}))
    loaded = load(folder, TASKS["mnli"])
    assert any("lose their beginning" in note for note in loaded.notes)
    made = save(loaded.model, tmp_path / "c", tokenizer=loaded.tokenizer, task=TASKS["mnli"], max_length=8)
    alone = Tokenizer.from_file(str(made.folder / "tokenizer.json")).encode(LONG_PAIRS[0][0])
    assert alone.ids == Encoder(made.folder, 8)([(LONG_PAIRS[0][0],)]).ids.tolist()
    assert (
        alone.ids
        == AutoTokenizer.from_pretrained(folder)(LONG_PAIRS[0][0], truncation=True, max_length=8).input_ids
    )


def test_added_tokens_without_embeddings_are_refused(encoders: dict[str, Path], tmp_path: Path) -> None:
    classifier(encoders["bert"], tmp_path / "m", NLI)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    tokenizer.add_tokens(["<brand>", "<place>"])
    tokenizer.save_pretrained(tmp_path / "m")
    with pytest.raises(UsageError, match="has 2 tokens that the embeddings have no row for, e.g. '<brand>'"):
        pretrained(tmp_path / "m", TASKS["mnli"])


def test_pairs_need_two_token_types(encoders: dict[str, Path], rows_folder: Path, tmp_path: Path) -> None:

    folder = tmp_path / "m"
    model = classifier(encoders["bert"], folder, NLI)
    model.bert.embeddings.token_type_embeddings = type(model.bert.embeddings.token_type_embeddings)(1, 32)
    model.config.type_vocab_size = 1
    model.save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    names = ["input_ids", "token_type_ids", "attention_mask"]
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_input_names": names}))
    loaded = load(folder, TASKS["mnli"])
    encoder = checked_encoder("m", loaded.model, loaded.tokenizer, 16, LONG_PAIRS, form="texts")
    check_encoded("m", encoder(ROWS), loaded.model)
    with pytest.raises(UsageError, match="pairs the token type 1, and the model has 1"):
        check_encoded("m", encoder(LONG_PAIRS), loaded.model)


def test_token_types_that_a_family_does_not_compute_are_refused(
    encoders: dict[str, Path], tmp_path: Path
) -> None:
    """A RoBERTa with two token types and the tokenizer of a BERT; single texts have type 0."""
    folder = tmp_path / "m"
    classifier(encoders["roberta"], folder, None)
    change_config(folder, type_vocab_size=2)
    weights = load_file(folder / "model.safetensors")
    name = "roberta.embeddings.token_type_embeddings.weight"
    weights[name] = torch.cat([weights[name][:1], weights[name][:1] + 1])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for file in encoders["bert"].glob("tokenizer*"):
        shutil.copy(file, folder)
    loaded = load(folder, TASKS["mrpc"])
    encoder = Encoder(folder, 32)
    check_encoded("m", encoder([("a film",), ("a book",)]), loaded.model)
    with pytest.raises(UsageError, match="token type 1, and models of the type roberta are computed without"):
        check_encoded("m", encoder([("a film", "a book")]), loaded.model)


def test_an_encoder_that_differs_from_transformers_is_refused(
    encoders: dict[str, Path], tmp_path: Path
) -> None:
    from effx.models.huggingface import check_equal

    classifier(encoders["bert"], tmp_path / "m", NLI)
    loaded = load(tmp_path / "m", TASKS["mnli"])
    loaded.tokenizer.save_pretrained(tmp_path / "t")
    change_config(tmp_path / "m", pad_token_id=0)
    (tmp_path / "t/config.json").write_text("{}")
    encoder = Encoder(tmp_path / "t", 16)
    check_equal("m", loaded.tokenizer, encoder, LONG_PAIRS, token_types=True)
    loaded.tokenizer.truncation_side = "left"
    with pytest.raises(UsageError, match="encoded differently from transformers"):
        check_equal("m", loaded.tokenizer, encoder, LONG_PAIRS, token_types=True)


def byte_level_encoder(folder: Path, labels: tuple[str, ...]) -> Path:
    """A tiny RoBERTa, as transformers saves it, whose tokenizer has no ``add_prefix_space``."""
    folder.mkdir()
    trained = ByteLevelBPETokenizer()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(corpus.texts("train")[:500], vocab_size=600, special_tokens=specials)
    trained.save_model(str(folder))
    tokenizer = RobertaTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=66, type_vocab_size=1, num_labels=len(labels),
        id2label=dict(enumerate(labels)), label2id={label: number for number, label in enumerate(labels)},
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForTokenClassification.from_config(config).save_pretrained(folder)
    return folder


def test_words_of_a_byte_level_tokenizer_have_a_space_before_them(tmp_path: Path) -> None:
    labels = ("O", "B-thing", "I-thing")
    folder = byte_level_encoder(tmp_path / "roberta", labels)
    task = Task("things", "token-classification", ("tokens",), labels, KINDS["token-classification"].metrics)
    words = ("what", "a", "warm", "film")
    fine_tuned = load(str(folder), task)
    assert [note for note in fine_tuned.notes if "add_prefix_space is false" in note]
    anew = load(str(folder), task, head=HeadSettings(fresh_head=True))
    assert not [note for note in anew.notes if "add_prefix_space" in note]
    for loaded, text in ((anew, " what a warm film"), (fine_tuned, None)):
        path = tmp_path / f"saved-{text is None}"
        saved = save(loaded.model, path, tokenizer=loaded.tokenizer, task=task, max_length=32)
        ids = Encoder(saved.folder, 32, form="words")([words]).ids.tolist()
        plain = AutoTokenizer.from_pretrained(folder)
        if text is None:
            assert ids == plain(list(words), is_split_into_words=True)["input_ids"]
        else:  # as the words of a text that begins with a space
            assert ids == plain(text)["input_ids"]
            reloaded = AutoTokenizer.from_pretrained(saved.folder)
            assert ids == reloaded(list(words), is_split_into_words=True)["input_ids"]


def _replaced(stored: dict[str, Any]) -> None:
    underscore = {"type": "Replace", "pattern": {"String": "_"}, "content": " "}
    stored["normalizer"] = {"type": "Sequence", "normalizers": [underscore, stored["normalizer"]]}


def _split_at_spaces(stored: dict[str, Any]) -> None:
    stored["pre_tokenizer"] = {"type": "WhitespaceSplit"}


def _without_end(stored: dict[str, Any]) -> None:
    for template in ("single", "pair"):
        del stored["post_processor"][template][-1]


def _short_words(stored: dict[str, Any]) -> None:
    stored["model"]["max_input_chars_per_word"] = 5


FOREIGN_TEXTS = ("it_was a (warm) film", "undeniably_good \u00a0 story", "²ﬁ", "<brand> film <brand>.")


def _expected(path: Path, texts: tuple[str, ...]) -> list[list[int]]:
    """Ids by the tokenizers library alone."""
    plain = Tokenizer.from_file(str(path))
    plain.no_padding()
    plain.no_truncation()
    return [encoding.ids for encoding in plain.encode_batch(list(texts))]


def _assert_read_as_stated(loaded: Loaded, expected: list[list[int]], folder: Path) -> None:
    made = save(loaded.model, folder, tokenizer=loaded.tokenizer, task=TASKS["mnli"], max_length=32)
    encoded = Encoder(made.folder, 32)([(text,) for text in FOREIGN_TEXTS])
    parts = [encoded.ids[encoded.offsets[row] : encoded.offsets[row + 1]] for row in range(len(encoded))]
    assert [part.tolist() for part in parts] == expected
    assert loaded.tokenizer(list(FOREIGN_TEXTS))["input_ids"] == expected
    assert AutoTokenizer.from_pretrained(made.folder)(list(FOREIGN_TEXTS))["input_ids"] == expected
    again = load(made.folder, TASKS["mnli"])
    assert again.tokenizer(list(FOREIGN_TEXTS))["input_ids"] == expected
    settings = json.loads((made.folder / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"  # transformers 4 has no other name for it


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_replaced, "the normalizer"),
        (_split_at_spaces, "the pre-tokenizer"),
        (_without_end, "the template"),
        (_short_words, "the model"),
    ],
)
@pytest.mark.parametrize("tokenizer_class", ["BertTokenizerFast", "BertTokenizer", None])
def test_tokenizer_json_is_followed_where_transformers_would_rebuild_it(
    change: Callable[[dict[str, Any]], None],
    words: str,
    tokenizer_class: str | None,
    encoders: dict[str, Path],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "m"
    classifier(encoders["bert"], folder, NLI)
    stored = json.loads((folder / "tokenizer.json").read_text())
    change(stored)
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings = {**settings, "tokenizer_class": tokenizer_class}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({key: value for key, value in settings.items() if value is not None})
    )
    loaded = load(folder, TASKS["mnli"])
    assert [note for note in loaded.notes if "tokenizer.json is followed" in note and words in note]
    _assert_read_as_stated(loaded, _expected(folder / "tokenizer.json", FOREIGN_TEXTS), tmp_path / "c")


@pytest.mark.parametrize("lower_case", [True, False])
def test_case_is_a_setting_of_tokenizer_config(
    lower_case: bool, encoders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    classifier(encoders["bert"], folder, NLI)
    stored = json.loads((folder / "tokenizer.json").read_text())
    _short_words(stored)
    stored["normalizer"]["lowercase"] = not lower_case
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings = {**settings, "tokenizer_class": "BertTokenizerFast", "do_lower_case": lower_case}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    stored["normalizer"]["lowercase"] = lower_case
    (tmp_path / "expected.json").write_text(json.dumps(stored))
    texts = ("It Was A Film", "ÜBER")
    loaded = load(folder, TASKS["mnli"])
    assert loaded.tokenizer(list(texts))["input_ids"] == _expected(tmp_path / "expected.json", texts)


def test_settings_of_slow_tokenizers_are_said_to_have_no_effect(
    encoders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    classifier(encoders["bert"], folder, NLI)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)) + "\n")

    def told(**settings: object) -> list[str]:
        config = {"tokenizer_class": "BertTokenizer", **settings}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        return [note for note in load(folder, TASKS["mnli"]).notes if "has no effect" in note]

    assert told(do_basic_tokenize=False) == []  # tokenizer.json says how texts are divided
    (folder / "tokenizer.json").unlink()
    (note,) = told(do_basic_tokenize=False)
    assert "do_basic_tokenize" in note
    assert ["never_split" in note for note in told(never_split=["<brand>"], do_basic_tokenize=True)] == [True]
    assert told(never_split=None, do_basic_tokenize=True) == told(never_split=[]) == told() == []


@pytest.mark.parametrize("model", ["unigram", "bpe"])
@pytest.mark.parametrize("tokenizer_class", ["BertTokenizerFast", None])
def test_a_bert_with_another_model_of_tokens(
    model: str, tokenizer_class: str | None, encoders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trained = Tokenizer(models.Unigram() if model == "unigram" else models.BPE(unk_token="[UNK]"))
    trained.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer: Any = (
        tokenizer_trainers.UnigramTrainer(vocab_size=300, special_tokens=specials, unk_token="[UNK]")
        if model == "unigram"
        else tokenizer_trainers.BpeTrainer(vocab_size=300, special_tokens=specials, show_progress=False)
    )
    trained.train_from_iterator(corpus.texts("train")[:500], trainer)
    trained.add_tokens(["<brand>"])
    trained.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    classifier(encoders["bert"], folder, NLI)
    trained.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": tokenizer_class} if tokenizer_class else {}
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    given = dict(zip(names, specials, strict=True)) if tokenizer_class else {}  # else those of BertTokenizer
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **given}))
    expected = _expected(folder / "tokenizer.json", FOREIGN_TEXTS)
    assert max(ids.count(1) / len(ids) for ids in expected[:2]) < 0.5  # most tokens are known
    loaded = load(folder, TASKS["mnli"])
    assert loaded.tokenizer.pad_token == "[PAD]" and loaded.tokenizer.sep_token == "[SEP]"
    _assert_read_as_stated(loaded, expected, tmp_path / "c")


def test_a_tokenizer_that_transformers_keeps_stays_as_it_is(
    encoders: dict[str, Path], tmp_path: Path
) -> None:
    classifier(encoders["bert"], tmp_path / "m", NLI)
    loaded = load(tmp_path / "m", TASKS["mnli"])
    assert not [note for note in loaded.notes if "tokenizer.json" in note]
    assert type(loaded.tokenizer) is type(AutoTokenizer.from_pretrained(tmp_path / "m"))
