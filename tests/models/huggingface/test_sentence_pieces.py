"""Folders with a SentencePiece model and no tokenizer.json: tokens are those that SentencePiece gives."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import processors
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from effx import corpus
from effx.encoding import Encoder
from effx.errors import UsageError
from effx.models import save
from effx.models.huggingface import load, sentence_pieces
from effx.models.huggingface.load import Loaded
from effx.specs.tasks import TASKS

sentencepiece = pytest.importorskip("sentencepiece", reason="needs the package sentencepiece")

converted = pytest.mark.skipif(
    transformers.__version__ == "5.0.0", reason="this release fails to convert SentencePiece models"
)

_FAIRSEQ = {"normalization_rule_name": "nmt_nfkc"}
"""The first ids of XLM-R and CamemBERT are those of fairseq, and transformers moves the others."""
_DEBERTA = {
    "pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "pad_piece": "[PAD]", "bos_piece": "[CLS]",
    "eos_piece": "[SEP]", "unk_piece": "[UNK]", "user_defined_symbols": ["[MASK]"],
}  # fmt: skip
FOLDERS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "deberta-v2": ("deberta-v2", "spm.model", "DebertaV2Tokenizer", _DEBERTA),
    "xlm-roberta": ("roberta", "sentencepiece.bpe.model", "XLMRobertaTokenizer", _FAIRSEQ),
    "camembert": ("roberta", "sentencepiece.bpe.model", "CamembertTokenizer", _FAIRSEQ),
}


def _folder(
    family: str, encoders: dict[str, Path], folder: Path, rule: str = "nmt_nfkc", **settings: object
) -> tuple[Path, Any]:
    """Write a model with a trained SentencePiece model; return the folder and the SentencePiece model."""
    encoder, file, tokenizer_class, options = FOLDERS[family]
    folder.mkdir()
    texts = folder.with_suffix(".txt")
    odd = ["ﬁne ﬁlm … ½ ABC 123 x2 “quoted” – café naïve TM 12,000. café’s", "1⁄2 ... fine film naïve"]
    texts.write_text("\n".join([*corpus.texts("train")[:400], *odd * 40]) + "\n")
    sentencepiece.SentencePieceTrainer.train(
        input=str(texts), model_prefix=str(folder.with_suffix("")), vocab_size=200, minloglevel=2,
        **{**options, "normalization_rule_name": rule},
    )  # fmt: skip
    trained = folder.with_suffix(".model").rename(folder / file)
    config = AutoConfig.for_model(family)
    config.update({
        **{key: value for key, value in json.loads((encoders[encoder] / "config.json").read_text()).items()
           if key not in ("model_type", "architectures")},
        "vocab_size": 210,
    })  # fmt: skip
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": tokenizer_class, **settings})
    )
    return folder, sentencepiece.SentencePieceProcessor(model_file=str(trained))


def _pieces(loaded: Loaded, text: str) -> list[str]:
    """The tokens of a text, without those at its ends."""
    tokens: list[str] = loaded.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).tokens
    return tokens


@converted
@pytest.mark.parametrize("family", FOLDERS)
def test_tokens_are_those_of_sentencepiece(family: str, encoders: dict[str, Path], tmp_path: Path) -> None:
    folder, model = _folder(family, encoders, tmp_path / "m")
    texts = [*sentence_pieces.PROBES, *corpus.texts("validation")[:20]]
    loaded = load(folder, TASKS["sst2"])
    for text in texts:
        assert _pieces(loaded, text) == model.encode(text, out_type=str)
    followed = [note for note in loaded.notes if "its SentencePiece model is followed" in note]
    assert len(followed) == (family == "deberta-v2")  # transformers converts the others as they are
    assert not [note for note in loaded.notes if "into other tokens" in note]
    if family == "deberta-v2":  # its ids are those of SentencePiece, and so after it was saved
        expected = [[1, *model.encode(text), 2] for text in texts]
        assert [loaded.tokenizer(text)["input_ids"] for text in texts] == expected
        assert "token_type_ids" in loaded.tokenizer.model_input_names
        made = save(loaded.model, tmp_path / "saved", tokenizer=loaded.tokenizer, task=TASKS["sst2"])
        for again in (load(made.folder, TASKS["sst2"]).tokenizer, AutoTokenizer.from_pretrained(made.folder)):
            assert [again(text)["input_ids"] for text in texts] == expected
            assert again.special_tokens_map == loaded.tokenizer.special_tokens_map
        encoded = Encoder(made.folder, 512)([(text,) for text in texts])
        assert encoded.ids.tolist() == [number for row in expected for number in row]


@converted
def test_a_model_that_does_not_normalize(encoders: dict[str, Path], tmp_path: Path) -> None:
    """transformers 5 composes accents; SentencePiece leaves them, if trained with the rule identity."""
    folder, model = _folder("deberta-v2", encoders, tmp_path / "m", rule="identity")
    loaded = load(folder, TASKS["sst2"])
    text = unicodedata.normalize("NFD", "a  naïve café ﬁlm")
    assert _pieces(loaded, text) == model.encode(text, out_type=str)
    assert "e\u0301" in "".join(_pieces(loaded, text))


@converted
def test_small_letters_are_a_setting_of_the_folder(encoders: dict[str, Path], tmp_path: Path) -> None:
    folder, model = _folder("deberta-v2", encoders, tmp_path / "m", do_lower_case=True)
    loaded = load(folder, TASKS["sst2"])
    assert _pieces(loaded, "The FILM\u00a0was ﬁne") == model.encode("the film was fine", out_type=str)
    assert not [note for note in loaded.notes if "into other tokens" in note]


@converted
def test_other_tokens_than_those_of_the_model_are_told(encoders: dict[str, Path], tmp_path: Path) -> None:
    folder, _ = _folder("deberta-v2", encoders, tmp_path / "m", split_by_punct=True)
    (note,) = [note for note in load(folder, TASKS["sst2"]).notes if "into other tokens" in note]
    assert "naïve ﬁlm…" in note


def test_a_conversion_without_the_first_token_is_refused(
    encoders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by transformers 5.0.0."""
    folder, _ = _folder("deberta-v2", encoders, tmp_path / "m")
    build = AutoTokenizer.from_pretrained

    def without(*arguments: Any, **options: Any) -> Any:
        tokenizer = build(*arguments, **options)
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B")
        return tokenizer

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", without)
    with pytest.raises(UsageError, match=r"without the \[CLS\] before each text: use another release"):
        load(folder, TASKS["sst2"])
