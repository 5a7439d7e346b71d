"""Blocks of consecutive text, compared with a loop over single tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from effx import corpus
from effx.errors import UsageError
from effx.train.lottery import blocks

TEXTS = [(text,) for text in corpus.texts("train")[:2100]]


@pytest.fixture(scope="module")
def bert(encoders: dict[str, Path]) -> Any:
    return transformers.AutoTokenizer.from_pretrained(encoders["bert"])


def with_two_ends() -> Any:
    """A tokenizer of single letters that encloses a text by <s> and </s> </s>."""
    words = ["<s>", "</s>", "<pad>", "<unk>", *"abcdefgh"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s> </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def by_hand(tokenizer: Any, texts: list[tuple[str]], before: list[int], after: list[int],
            length: int) -> tuple[list[list[int]], int]:  # fmt: skip
    found: list[list[int]] = []
    current: list[int] = []
    for (text,) in texts:
        for token in tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)):
            current.append(token)
            if len(current) == length - len(before) - len(after):
                found.append([*before, *current, *after])
                current = []
    return found, len(current)


@pytest.mark.parametrize("length", [5, 32, 128])
def test_blocks_are_the_passages_one_token_after_the_other(bert: Any, length: int) -> None:
    """More passages than are encoded at once."""
    wanted, rest = by_hand(bert, TEXTS, [bert.cls_token_id], [bert.sep_token_id], length)
    found = blocks.join(bert, TEXTS, length)
    batch = found.encoded.batch(range(len(found.encoded)))
    assert batch["input_ids"].tolist() == wanted and len(wanted) > 100
    assert found.rest == rest
    assert batch["attention_mask"].all() and not batch["token_type_ids"].any()


def test_blocks_are_enclosed_as_the_tokenizer_encloses_a_text() -> None:
    tokenizer = with_two_ends()
    found = blocks.join(tokenizer, [("",), ("a b c",), ("d",), ("e f g h a",)], 7)
    ids = found.encoded.batch(range(len(found.encoded)))["input_ids"]
    words = [tokenizer.convert_ids_to_tokens(row) for row in ids]
    assert words == [["<s>", *"abcd", "</s>", "</s>"], ["<s>", *"efgh", "</s>", "</s>"]]
    assert found.rest == 1


def test_long_passages_are_not_cut_whatever_the_tokenizer_was_saved_with(bert: Any) -> None:
    bert.backend_tokenizer.enable_truncation(8)
    text = " ".join(word for (text,) in TEXTS[:50] for word in text.split())
    bert_ids = bert(text, add_special_tokens=False, truncation=False)["input_ids"]
    found = blocks.join(bert, [(text,)], 10)
    inside = np.array([row[1:-1] for row in found.encoded.batch(range(len(found.encoded)))["input_ids"]])
    assert [*inside.ravel()] == bert_ids[: inside.size] and len(bert_ids) - inside.size == found.rest < 8
    bert.backend_tokenizer.no_truncation()


@pytest.mark.parametrize("text", ["a b c d", "\t", "a"])
def test_a_text_that_does_not_fill_a_block_is_refused(text: str) -> None:
    tokenizer, tokens = with_two_ends(), len(text.split())
    for function in (blocks.join, blocks.check):
        with pytest.raises(UsageError, match=f"text has {tokens} tokens, .* a block of 8 tokens") as raised:
            function(tokenizer, [(text,)], 8)
        assert raised.value.settings == ("text", "mlm_max_length")


def test_a_text_that_fills_one_block_is_accepted() -> None:
    blocks.check(with_two_ends(), [("a b",), ("c d e",)], 8)
    found = blocks.join(with_two_ends(), [("a b",), ("c d e",)], 8)
    assert len(found.encoded) == 1 and found.rest == 0
