"""Tokenizers of folders that have a SentencePiece model and no tokenizer.json, as microsoft/deberta-v3-base.

transformers converts them. Its conversions for XLM-RoBERTa and CamemBERT take over how SentencePiece
normalizes texts. That for DeBERTa did so in transformers 4, but transformers 5 replaces it by NFC: no-break
spaces, full-width letters, ligatures and the character of three dots, for example, get other tokens than the
model was trained on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tokenizers import Regex, normalizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from effx import scratch
from effx.models.huggingface.folder import SENTENCEPIECE_FILES, ModelFolder

PROBES = (
    "The café’s naïve ﬁlm…", "½ of 12,000 ™", "ＡＢＣ１２３", "one\u00a0word  two\u200b", " x² + \ttabs\n",
    "“quoted” – \u3000wide",
)  # fmt: skip
"""Texts with characters that normalizers treat differently."""


def following(folder: ModelFolder, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase | None:
    """Return a tokenizer that normalizes texts as the folder's SentencePiece model does.

    That is by the model's map of characters; then no spaces remain but single ones between words.

    Args:
        folder: has a SentencePiece model and no tokenizer.json.
        tokenizer: as transformers built it.

    Returns:
        None: ``tokenizer`` does so.
    """
    from sentencepiece import sentencepiece_model_pb2

    stated = sentencepiece_model_pb2.ModelProto.FromString(_file(folder))  # type: ignore[attr-defined]
    characters = stated.normalizer_spec.precompiled_charsmap
    backend = tokenizer.backend_tokenizer
    kinds = set(_kinds(json.loads(backend.to_str())["normalizer"]))
    if ("Precompiled" in kinds) == bool(characters) and not kinds & {"NFC", "NFD", "NFKC", "NFKD"}:
        return None
    parts: list[Any] = []
    if "Lowercase" in kinds:
        parts.append(normalizers.Lowercase())
    if characters:
        parts.append(normalizers.Precompiled(characters))
    if stated.normalizer_spec.remove_extra_whitespaces:  # also those that the map of characters makes
        parts += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    backend.normalizer = normalizers.Sequence(parts)
    with scratch.folder(
        "tokenizer"
    ) as saved:  # another class, or transformers would rebuild it where it is loaded
        tokenizer.save_pretrained(saved)
        result: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(saved)
    result.name_or_path, result.model_input_names = tokenizer.name_or_path, list(tokenizer.model_input_names)
    return result


def different(folder: ModelFolder, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return one of :data:`PROBES` that SentencePiece divides into other tokens; None: there is none."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_proto=_file(folder))
    lower = "Lowercase" in set(_kinds(json.loads(tokenizer.backend_tokenizer.to_str())["normalizer"]))
    for text in PROBES:
        pieces = model.encode(text.lower() if lower else text, out_type=str)
        if tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).tokens != pieces:
            return text
    return None


def _file(folder: ModelFolder) -> bytes:
    return next(path for name in SENTENCEPIECE_FILES if (path := folder.path / name).is_file()).read_bytes()


def _kinds(normalizer: Any) -> Iterator[str]:
    """Yield the types of a normalizer and of its parts, from tokenizer.json."""
    if normalizer is not None:
        yield normalizer["type"]
        for part in normalizer.get("normalizers", ()):
            yield from _kinds(part)
