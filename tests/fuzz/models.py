"""Models and checkpoints from others: their commands need PyTorch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from effx.artifacts import Checkpoint
from effx.specs.training import FinetuneSettings
from tests.fuzz.targets import (
    _NOT_STATED,
    _OTHER_WORDS,
    Case,
    Target,
    _allow,
    _digest,
    _folder_cases,
    _write_rows,
    file_cases,
    json_cases,
)  # fmt: skip

_SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
          "max_position_embeddings": 40, "pad_token_id": 0}  # fmt: skip


def _write_model(folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from effx import corpus
    from effx.demo.pretraining import tokenizer as trained_tokenizer

    _write_rows(folder)
    tokenizer = trained_tokenizer(corpus.texts("train")[:300])
    torch.manual_seed(0)
    config = AutoConfig.for_model("bert", vocab_size=len(tokenizer), num_labels=2, **_SIZES)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")


def _write_checkpoint(folder: Path) -> None:
    from effx.train import finetune

    _write_model(folder)
    finetune(
        "sst2", folder / "model", out=folder / "checkpoints", name="c", data_folder=folder / "rows",
        settings=FinetuneSettings.of(max_length=32, max_steps=1, limit=20, patience=1),
        keep_predictions=True,
    )  # fmt: skip


def _model_cases(folder: Path) -> Iterator[Case]:
    yield from json_cases("model", folder, "model/config.json")
    yield from json_cases("model", folder, "model/tokenizer_config.json")
    for name in ("tokenizer.json", "model.safetensors"):
        yield from file_cases("model", folder, f"model/{name}")
    for rule, names in {
        "parent": ["../model.safetensors"], "absolute": ["/etc/passwd"], "5": [5], "list": [["a"]],
        "empty": [""], "NUL": ["a\0b"], "missing": ["none.safetensors"], "none": [],
    }.items():  # fmt: skip
        yield Case(
            "model", f"index names {rule}", "index", rule, lambda copy, names=names: _index(copy, names)
        )


def _index(copy: Path, names: list[object]) -> None:
    (copy / "model" / "model.safetensors").rename(copy / "model.safetensors")
    weights = {f"w{number}": name for number, name in enumerate(names)}
    (copy / "model" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))


def _checkpoint_cases(folder: Path) -> Iterator[Case]:
    seal = _digest(Checkpoint.not_in_digest)
    yield from json_cases("checkpoint", folder, "checkpoints/c/effx.json", seal)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        yield from file_cases("checkpoint", folder, f"checkpoints/c/{name}")
    yield from _folder_cases("checkpoint", "checkpoints/c")


_CHECKPOINT_ALLOWS = {
    **_NOT_STATED,
    **_allow("a description: nothing else states it", _OTHER_WORDS, "name", "model", "versions.*",
             "validation_source"),
    **_allow("a class name; the model answers with numbers", _OTHER_WORDS[1:], "task_definition.labels.#"),
    **_allow("a name of a column; which columns are read is printed", _OTHER_WORDS[1:],
             "task_definition.columns.#"),
    **_allow("another column to read: it is printed, and rows without it are refused", ("one more",),
             "task_definition.columns"),
    **_allow("a name for people; rows are identified by their digest", ("empty", "unknown"), "data.name"),
    **_allow("fewer or repeated facts", ("emptied", "one less", "one more"), "versions", "training",
             "training.settings", "training.stages"),
    **_allow("a description: nothing else states it", _OTHER_WORDS, "training.head", "training.source",
             "training.host", "baseline.answer"),
    **_allow("counted once: nothing else states it", ("large", "5"), "training.settings.layers",
             "training.settings.batch_size", "training.settings.max_steps", "training.settings.patience",
             "training.stages.#.*", "training.learning_rate", "training.processes"),
    **_allow("the same number", ("float",), "predictions.#"),
    **_allow("more or fewer scores to compute", ("one more", "one less"), "task_definition.metrics"),
}  # fmt: skip


_MODEL_ALLOWS = {
    **_allow("transformers reads the last of two values, and has a default", ("twice", "missing"), "*"),
    **_allow("neither transformers nor effx reads it", ("*",), "transformers_version", "bos_token_id",
             "eos_token_id", "architectures", "architectures.#", "backend", "tokenizer_class"),
    **_allow("null is as missing", ("null",), "*"),
    **_allow("special tokens are those of tokenizer.json", ("empty",), "*_token"),
    **_allow("longer than the model reads", ("large", "huge integer", "beyond 64 bits", "float"),
             "model_max_length"),
}  # fmt: skip


MODEL_TARGETS: tuple[Target, ...] = (
    Target(
        "model", _write_model,
        ("import", "model", "--task", "sst2", "--labels", "negative,positive", "--data", "rows", "-o", "out"),
        _model_cases, outputs=("out",), allowed=_MODEL_ALLOWS,
    ),
    Target(
        "checkpoint", _write_checkpoint,
        ("train", "finetune", "sst2", "--model", "checkpoints/c", "--data", "rows", "--max-steps", "1",
         "--max-length", "16", "-o", "out"),
        _checkpoint_cases, outputs=("out",), allowed=_CHECKPOINT_ALLOWS,
    ),
)  # fmt: skip
