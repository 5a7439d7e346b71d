"""The tokenizer of a model: loaded by transformers, checked against the model and against effx's encoder."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import transformers
from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from effx.encoding import Encoded, Encoder
from effx.errors import MissingExtraError, one_line
from effx.models import families
from effx.models.huggingface import sentence_pieces
from effx.models.huggingface.folder import ModelFolder, building, needs_sentencepiece, wrong

_COMPARED_ROWS = 512
_FILE = "tokenizer.json"
_PARTS = {"normalizer": "the normalizer", "pre_tokenizer": "the pre-tokenizer", "model": "the model",
          "added_tokens": "added tokens"}  # fmt: skip
"""Keys of tokenizer.json that decide the ids besides the template, and their names in notes."""


_OF_SLOW_TOKENIZERS = {"do_basic_tokenize": True, "never_split": None}
"""Settings that only slow tokenizers of transformers 4 follow, and their usual values."""


@dataclass(frozen=True)
class LoadedTokenizer:
    """A model's tokenizer, and what its class in transformers would have changed."""

    tokenizer: PreTrainedTokenizerBase
    rebuilt: tuple[str, ...] = ()
    """Parts that its class builds otherwise than its files say, in words; empty: none."""
    followed: str = _FILE
    """The file that is followed instead."""
    unlike: str | None = None
    """A text that gets other tokens than its SentencePiece model gives; None: none was found."""


def load(
    folder: ModelFolder, *, trust_remote_code: bool = False, prefix_space: bool = False
) -> LoadedTokenizer:
    """Return the tokenizer of a model, as its tokenizer.json says where it has one.

    Several classes of transformers 5, as BertTokenizer and DebertaV2Tokenizer, take the vocabulary from
    tokenizer.json alone and build the rest anew, so that other ids can result than those that the model was
    trained on. As in transformers 4, the file decides here, but for what tokenizer_config.json says of the
    case, accents and Chinese characters of BERT's normalizer, and of the space before the first word of a
    byte-level tokenizer. Without that file, a SentencePiece model decides (:mod:`.sentence_pieces`).

    Args:
        folder: of the model.
        trust_remote_code: whether its own code may run.
        prefix_space: whether a byte-level tokenizer, as that of RoBERTa, takes each word of a list with a
            space before it, as within a text. Without it, each word is read as the first of a text.

    Raises:
        MissingExtraError: it needs the package sentencepiece, which is not installed.
        UsageError: it cannot be loaded, or not be saved as tokenizer.json.
    """
    if needs_sentencepiece(folder) and importlib.util.find_spec("sentencepiece") is None:
        raise MissingExtraError(
            f"model {folder.name}: its tokenizer is a SentencePiece model, and sentencepiece is not "
            "installed. Run: pip install sentencepiece protobuf"
        )
    _check_settings(folder)
    with building(folder.name, "a tokenizer", "tokenizer_config.json"):
        loaded = _read(folder, trust_remote_code)
        if prefix_space and lacks_prefix_space(loaded.tokenizer):
            loaded = _read(folder, trust_remote_code, add_prefix_space=True)
    if loaded.tokenizer.pad_token_id is None:
        raise wrong(folder.name, "its tokenizer has no padding token (pad_token in tokenizer_config.json)")
    return loaded


def _read(folder: ModelFolder, trust_remote_code: bool, **options: bool) -> LoadedTokenizer:
    # where code of the repository may run, transformers 5 reads tokenizer.json in another way
    trust = trust_remote_code and "auto_map" in folder.tokenizer_config
    built: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        folder.path, trust_remote_code=trust, **options
    )
    if not getattr(built, "is_fast", False):
        raise wrong(folder.name, "its tokenizer cannot be saved as tokenizer.json")
    if needs_sentencepiece(folder):
        if built.cls_token_id is not None and built.cls_token_id not in built("a")["input_ids"]:
            raise wrong(
                folder.name,
                f"transformers {transformers.__version__} converts its SentencePiece model without the "
                f"{built.cls_token} before each text: use another release of transformers, e.g. the newest",
            )
        following = sentence_pieces.following(folder, built)
        unlike = sentence_pieces.different(folder, following or built)
        if following is None:
            return LoadedTokenizer(built, unlike=unlike)
        return LoadedTokenizer(following, ("the normalizer",), "SentencePiece model", unlike)
    general = type(built) is PreTrainedTokenizerFast or not type(built).__module__.startswith("transformers.")
    if general or not (folder.path / _FILE).is_file():
        return LoadedTokenizer(built)
    stated = _as_stated(folder, built, options)
    types = "token_type_ids" in built.model_input_names
    rebuilt = _differences(built.backend_tokenizer, stated.backend_tokenizer, types=types)
    return LoadedTokenizer(stated, rebuilt) if rebuilt else LoadedTokenizer(built)


def _as_stated(
    folder: ModelFolder, built: PreTrainedTokenizerBase, options: Mapping[str, bool]
) -> PreTrainedTokenizerBase:
    """Return the tokenizer of tokenizer.json, with the settings that ``built`` has from elsewhere."""
    stated: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(folder.path, **options)
    vocabulary = stated.get_vocab()
    defaults = {
        name: token
        for name, token in built.special_tokens_map.items()
        if isinstance(token, str) and getattr(stated, name, None) is None and token in vocabulary
    }
    stated.add_special_tokens(defaults)
    stated.model_input_names = list(built.model_input_names)
    backend, normalizer = stated.backend_tokenizer, built.backend_tokenizer.normalizer
    if isinstance(backend.normalizer, BertNormalizer) and isinstance(normalizer, BertNormalizer):
        backend.normalizer.lowercase = normalizer.lowercase
        backend.normalizer.strip_accents = normalizer.strip_accents
        backend.normalizer.handle_chinese_chars = normalizer.handle_chinese_chars
    if isinstance(backend.pre_tokenizer, ByteLevel):
        settings = {**folder.tokenizer_config, **options}
        backend.pre_tokenizer.add_prefix_space = settings.get("add_prefix_space") is True
    return stated


def _differences(built: Tokenizer, stated: Tokenizer, *, types: bool) -> tuple[str, ...]:
    """Return in which parts two tokenizers differ, in words; empty: they give the same ids.

    Args:
        built: by a class of transformers.
        stated: by tokenizer.json.
        types: whether token types are used.
    """
    ours, theirs = (_parts(tokenizer) for tokenizer in (built, stated))
    different = [words for key, words in _PARTS.items() if ours[key] != theirs[key]]
    if not different:  # the same template can be written in several ways
        for pair in (("a",), ("a", "a")):
            left, right = (tokenizer.encode(*pair) for tokenizer in (built, stated))
            if left.ids != right.ids or (types and left.type_ids != right.type_ids):
                return ("the template",)
    return tuple(different)


def _parts(tokenizer: Tokenizer) -> dict[str, Any]:
    parts: dict[str, Any] = json.loads(tokenizer.to_str())
    model = parts["model"]
    if model["type"] == "Unigram":  # scores are rounded on the way through JSON
        model["vocab"] = [token for token, _ in model["vocab"]]
    return parts


def lacks_prefix_space(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a word of a list gets other tokens than the same word within a text."""
    words = ["a", "warm", "film"]
    within = tokenizer(" ".join(words))["input_ids"]
    return bool(tokenizer(words, is_split_into_words=True)["input_ids"] != within)


def _check_settings(folder: ModelFolder) -> None:
    settings = folder.tokenizer_config
    try:
        json.dumps(settings, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise wrong(
            folder.name, "tokenizer_config.json has half of a surrogate pair: it is not text"
        ) from None
    length = settings.get("model_max_length")
    number = isinstance(length, int | float) and not isinstance(length, bool)
    if length is not None and not (number and 1 <= length < float("inf") and length % 1 == 0):
        raise wrong(
            folder.name,
            f"tokenizer_config.json: model_max_length: expected an integer >= 1, got {one_line(length, 40)}",
        )


def notes(tokenizer: PreTrainedTokenizerBase, *, token_types: bool, of_words: bool = False) -> list[str]:
    """Return what is unusual about a tokenizer, in words.

    Args:
        tokenizer: of the model.
        token_types: whether the model takes token types.
        of_words: whether rows are lists of words.
    """
    unusual = []
    if of_words and lacks_prefix_space(tokenizer):
        unusual.append(
            "words of a list are tokenized without the space before them (add_prefix_space is false): "
            "right only if the model was trained in the same way"
        )
    if tokenizer.truncation_side != "right":
        unusual.append(f"long texts lose their beginning (truncation_side {tokenizer.truncation_side})")
    if tokenizer.padding_side != "right":
        unusual.append(
            f"padding_side {tokenizer.padding_side} is replaced by right: the first token of a padded row "
            "is then the first of its text"
        )
    if token_types and "token_type_ids" not in tokenizer.model_input_names:
        unusual.append("both texts of a pair have token type 0 (model_input_names has no token_type_ids)")
    return unusual


def without_effect(folder: ModelFolder) -> list[str]:
    """Return which settings of a vocab.txt are not followed, in words.

    The slow tokenizers of transformers 4 followed them; its fast ones, and those of transformers 5, do not.
    """
    if (folder.path / _FILE).is_file():
        return []
    settings = folder.tokenizer_config
    found = [
        name for name, usual in _OF_SLOW_TOKENIZERS.items() if settings.get(name, usual) not in (usual, [])
    ]
    return [
        f"tokenizer_config.json: {name} has no effect, as with fast tokenizers of transformers: right only "
        "if the model was trained in the same way"
        for name in found
    ]


def check_vocabulary(name: str, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Raise for tokens that the embeddings have no row for.

    Args:
        name: of the model.
        tokenizer: of the model.
        rows: of the token embeddings.

    Raises:
        UsageError: the tokenizer has such tokens.
    """
    beyond = sorted((number, token) for token, number in tokenizer.get_vocab().items() if number >= rows)
    if beyond:
        number, token = beyond[0]
        raise wrong(
            name,
            f"its tokenizer has {len(beyond)} tokens that the embeddings have no row for, e.g. '{token}' "
            f"({number} of {rows} rows): call model.resize_token_embeddings(len(tokenizer)), save again",
        )


def check_encoded(name: str, encoded: Encoded, model: PreTrainedModel) -> None:
    """Raise for rows with token ids or token types that the embeddings have no row for.

    Args:
        name: of the model.
        encoded: rows.
        model: with the embeddings.

    Raises:
        UsageError: an id or a type is out of range.
    """
    ids = int(encoded.ids.max(initial=0))
    rows = int(model.get_input_embeddings().num_embeddings)
    if ids >= rows:
        raise wrong(name, f"its tokenizer gives the id {ids}, and the embeddings have {rows} rows")
    types = int(encoded.types.max(initial=0))
    kinds = int(getattr(model.config, "type_vocab_size", 0))
    if types and kinds > 1 and not families.of(model).token_types:
        raise wrong(
            name,
            f"its tokenizer gives the second text of a pair token type {types}, and models of the type "
            f"{model.config.model_type} are computed without token types: they would all be 0",
        )
    if families.of(model).token_types and types >= kinds:
        raise wrong(
            name,
            f"its tokenizer gives pairs the token type {types}, and the model has {kinds} (type_vocab_size): "
            "it does not support pairs of texts",
        )


def ignores_case(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer gives the same ids for capital and small letters."""
    return bool(tokenizer("The Office Ünder")["input_ids"] == tokenizer("the office ünder")["input_ids"])


def check_equal(
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    encoder: Encoder,
    texts: Sequence[tuple[str, ...]],
    *,
    token_types: bool,
) -> None:
    """Raise where effx encodes rows differently from transformers.

    Args:
        name: of the model.
        tokenizer: of transformers.
        encoder: of effx, for the same model.
        texts: rows; the first 512 are compared.
        token_types: whether the model takes token types; without any it takes them as 0.

    Raises:
        UsageError: ids or token types of a row differ.
    """
    chosen = list(texts[:_COMPARED_ROWS])
    if not chosen:
        return
    words = encoder.form == "words"
    apart = encoder.form == "separate"
    firsts: list[Any] = [list(row) if words else row[0] for row in chosen]
    if encoder.form == "documents":
        chosen = [row[:1] for row in chosen]
    if apart:
        firsts = [text for row in chosen for text in row]
    seconds = [row[1] for row in chosen] if len(chosen[0]) > 1 and not words and not apart else None
    if encoder.form == "candidates":
        firsts = [row[0] for row in chosen for _ in row[1:]]
        seconds = [candidate for row in chosen for candidate in row[1:]]
    options: dict[str, Any] = {"truncation": True}
    if encoder.form == "windows":
        firsts = [encoder.question(question) for question in firsts]
        options = {
            "truncation": "only_second", "stride": encoder.stride, "return_overflowing_tokens": True,
        }  # fmt: skip
    reference = tokenizer(
        firsts,
        seconds,
        max_length=encoder.max_length,
        padding=False,
        is_split_into_words=words,
        **options,
    )
    encoded = encoder(chosen)
    types = reference.get("token_type_ids") or [[0] * len(ids) for ids in reference["input_ids"]]
    row_of = range(len(chosen)) if encoded.row_of is None else encoded.row_of
    if len(encoded) != len(reference["input_ids"]):
        raise wrong(name, "effx divides contexts differently from transformers. Please report the model")
    for row in range(len(encoded)):
        text = chosen[row_of[row]]
        part = slice(encoded.offsets[row], encoded.offsets[row + 1])
        same = encoded.ids[part].tolist() == list(reference["input_ids"][row])
        if token_types:
            same = same and bool(np.array_equal(encoded.types[part], types[row]))
        if not same:
            raise wrong(
                name,
                f"effx cannot keep a setting of its tokenizer: '{' '.join(text)[:40]}' is encoded "
                "differently from transformers. Please report the model",
            )
