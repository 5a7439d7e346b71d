"""The files by which sentence-transformers knows how a model's outputs become the vector of a text.

modules.json                         Transformer, Pooling, Normalize
1_Pooling/config.json                mean of the tokens, or the first token
sentence_bert_config.json            the maximum length
config_sentence_transformers.json    the similarity
"""

from __future__ import annotations

from typing import Any

MODULES_FILE = "modules.json"
POOLING_FILE = "1_Pooling/config.json"
LENGTH_FILE = "sentence_bert_config.json"
LENGTH_FILES = (
    LENGTH_FILE,
    *(
        f"sentence_{kind}_config.json"
        for kind in ("roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
    ),
)
"""Names of the file with the maximum length; of several, the first that is not empty counts."""
CONFIG_FILE = "config_sentence_transformers.json"
POOLING_SWITCHES = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
_TYPES = {
    "": "sentence_transformers.models.Transformer",
    "1_Pooling": "sentence_transformers.models.Pooling",
    "2_Normalize": "sentence_transformers.models.Normalize",
}
"""Path of a module -> its type, as all versions read it."""


def contents(pooling: str, width: int, max_length: int) -> dict[str, Any]:
    """Return file name -> JSON, of a model that embeds texts.

    Args:
        pooling: ``mean`` or ``cls``.
        width: of the vectors.
        max_length: tokens of a text at most.
    """
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": kind}
        for number, (path, kind) in enumerate(_TYPES.items())
    ]
    switches = {switch: mode == pooling for switch, mode in POOLING_SWITCHES.items()}
    return {
        MODULES_FILE: modules,
        POOLING_FILE: {"word_embedding_dimension": width, **switches},
        LENGTH_FILE: {"max_seq_length": max_length, "do_lower_case": False},
        CONFIG_FILE: {"model_type": "SentenceTransformer", "similarity_fn_name": "cosine"},
    }
