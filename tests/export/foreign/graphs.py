"""Small graphs and tokenizers as other tools write them, without training or PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = ("[PAD]", "[UNK]", "good", "bad", "fine", "dull", "film")
ROWS = (
    ("good film", "positive"),
    ("bad", "negative"),
    ("fine good film", "positive"),
    ("dull bad film dull", "negative"),
)


def classifier(
    *,
    rows: int | str = "rows",
    tokens: int | str = "tokens",
    labels: int = 2,
    embedding: int = len(WORDS),
    extra_inputs: tuple[str, ...] = (),
    scale: float = 1.0,
) -> onnx.ModelProto:
    """Return a graph whose logits are the masked sum of a row per token: [rows, labels].

    Its first label wins for "bad" and "dull", its last for "good" and "fine".
    """
    table = np.zeros((embedding, labels), dtype=np.float32)
    table[[2, 4], -1] = scale
    table[[3, 5], 0] = scale
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["vectors", "column"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["sums"], keepdims=0),
        helper.make_node("MatMul", ["sums", "identity"], ["logits"]),
    ]
    weights = {
        "table": table,
        "identity": np.eye(labels, dtype=np.float32),
        "last": np.array([2], dtype=np.int64),
        "middle": np.array([1], dtype=np.int64),
    }
    names = ("input_ids", "attention_mask", *extra_inputs)
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.INT64, [rows, tokens]) for name in names],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [rows, labels])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(
        graph, producer_name="a script", opset_imports=[helper.make_opsetid("", 17)], ir_version=10
    )


def write(folder: Path, model: onnx.ModelProto | None = None, **config: Any) -> Path:
    """Write a graph with tokenizer and config.json, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    onnx.save(classifier() if model is None else model, path)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    known = {"id2label": {"0": "NEGATIVE", "1": "POSITIVE"}, "pad_token_id": 0, "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps({**known, **config}))
    return path


def write_rows(folder: Path, copies: int = 8) -> Path:
    """Write rows that the classifier gets right, and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation"):
        lines = [json.dumps({"sentence": text, "label": label}) for text, label in ROWS * copies]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder
