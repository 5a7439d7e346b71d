"""Small real models and a small real pipeline run, shared by the tests."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers import (
    AutoConfig,
    AutoModel,
    PreTrainedTokenizerFast,
)

from effx import corpus
from effx.artifacts import Checkpoint
from effx.demo.pretraining import tokenizer as trained_tokenizer
from effx.doctor import software
from effx.export import export_all
from effx.profile import Plan, profile
from effx.specs.training import FinetuneSettings
from effx.train import finetune

SHARED_DATA = Path(os.environ.get("EFFX_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))

_COMMON = {"vocab_size": 0, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
           "intermediate_size": 64, "max_position_embeddings": 66, "pad_token_id": 0}  # fmt: skip
CONFIGS = {
    "bert": _COMMON,
    "roberta": {**_COMMON, "type_vocab_size": 1},
    "electra": {**_COMMON, "embedding_size": 16},
    "mpnet": _COMMON,
    "distilbert": {"vocab_size": 0, "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64,
                   "max_position_embeddings": 66, "pad_token_id": 0},
}  # fmt: skip
QUICK = Plan(
    grid=((1, 8), (4, 16)), rounds=3, block_queries=24, block_s=0.0, grid_rounds=3, grid_block_s=0.05,
    warmup_s=0.1, window_s=0.2,
)  # fmt: skip


@pytest.fixture
def without_gpu() -> None:
    """For tests of what is said where there is no GPU."""
    if software.has_driver():
        pytest.skip("there is an NVIDIA driver here")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return trained_tokenizer(corpus.texts("train")[:2000])


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> dict[str, Path]:
    """Folders of tiny pretrained encoders with random weights, one per family."""
    import torch

    folders = {}
    for model_type, values in CONFIGS.items():
        torch.manual_seed(0)
        config = AutoConfig.for_model(model_type, **{**values, "vocab_size": len(tokenizer)})
        folder = tmp_path_factory.mktemp("encoders") / model_type
        AutoModel.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders[model_type] = folder
    return folders


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="session")
def rows_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small two-class task in a folder."""
    folder = tmp_path_factory.mktemp("rows")
    for split, n in (("train", 160), ("validation", 90)):
        texts, labels = corpus.split(split)
        rows = [{"sentence": text, "label": label} for text, label in zip(texts[:n], labels[:n], strict=True)]
        write_rows(folder / f"{split}.jsonl", rows)
    return folder


@pytest.fixture(scope="session")
def checkpoint(
    tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path], rows_folder: Path
) -> Checkpoint:
    return finetune(
        "sst2",
        encoders["bert"],
        out=tmp_path_factory.mktemp("workspace") / "checkpoints",
        name="tiny",
        data_folder=rows_folder,
        settings=FinetuneSettings.of(epochs=1, max_length=32, lr=1e-3),
    )


@pytest.fixture(scope="session")
def engines_folder(checkpoint: Checkpoint) -> Path:
    folder = checkpoint.folder.parents[1] / "engines"
    engines, failures = export_all([checkpoint.folder], ["fp32", "int8"], out=folder)
    assert not failures
    assert [engine.name for engine in engines] == ["tiny.fp32.onnxruntime", "tiny.int8.onnxruntime"]
    return folder


@pytest.fixture(scope="session")
def results_folder(engines_folder: Path) -> Path:
    folder = engines_folder.parent / "results"
    runs, failures = profile([engines_folder], out=folder, plan=QUICK, meter="model:10")
    assert not failures
    assert len(runs) == 2
    return folder
