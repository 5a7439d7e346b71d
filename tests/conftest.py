"""Small real models and a small real pipeline run, shared by the tests.

What takes seconds to build is built once for all workers and runs of the same code: see tests/cache.py.
Those folders are for reading; a test that changes something copies it first.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from effx import corpus
from effx.artifacts import Checkpoint, Engine
from effx.doctor import software
from effx.profile import profile
from effx.specs.measurement import MeasurementPlan
from tests import cache as caches

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def _in_transformers(model_type: str) -> bool:
    """Whether the installed transformers has a type of models, without importing it."""
    spec = importlib.util.find_spec("transformers")
    places = spec.submodule_search_locations or () if spec else ()
    return any((Path(place) / "models" / model_type.replace("-", "_")).is_dir() for place in places)


SHARED_DATA = Path(os.environ.get("EFFX_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))

_COMMON = {"vocab_size": 0, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
           "intermediate_size": 64, "max_position_embeddings": 66, "pad_token_id": 0}  # fmt: skip
DEBERTA = {
    "relative_attention": True, "share_att_key": True, "pos_att_type": "p2c|c2p", "position_buckets": 8,
    "norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0,
}  # fmt: skip
"""As in DeBERTa v3, with fewer buckets."""
CONFIGS = {
    "bert": _COMMON,
    "roberta": {**_COMMON, "type_vocab_size": 1},
    "electra": {**_COMMON, "embedding_size": 16},
    "mpnet": _COMMON,
    "distilbert": {"vocab_size": 0, "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64,
                   "max_position_embeddings": 66, "pad_token_id": 0},
    "modernbert": {**_COMMON, "local_attention": 16},
    "deberta-v2": {**_COMMON, **DEBERTA},
    "nomic_bert": _COMMON,
}  # fmt: skip
CONFIGS = {name: values for name, values in CONFIGS.items() if _in_transformers(name)}
REDUCED_VARIANTS = ["fp32", "exit", "exit-if", "tokens", "exit+tokens", "exit-if+tokens", "seq16", "buckets",
                    "exit+seq16", "exit+buckets", "tokens+seq16", "exit+tokens+buckets"]  # fmt: skip
QUICK = MeasurementPlan(
    grid=((1, 8), (4, 16)), rounds=3, block_queries=24, block_s=0.0, grid_rounds=3, grid_block_s=0.05,
    warmup_s=0.1, window_s=0.2,
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """What effx remembers of the engines that it built is kept with the cached engines, not in the home."""
    os.environ["XDG_STATE_HOME"] = str(caches.FOLDER.absolute() / caches.key() / "state")


def pytest_sessionstart(session: pytest.Session) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        caches.prune()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A slow test may take longer than the limit of pyproject.toml."""
    for item in items:
        if item.get_closest_marker("slow") or item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(scope="session", autouse=True)
def lock_of_these_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Measurements of other tests at the same time do not delay these: they are not compared with any."""
    folder = tmp_path_factory.mktemp("host-lock")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("effx.host.locks.parent_folder", lambda: folder)
        yield


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seed NumPy and torch, so that unseeded random numbers do not depend on the order of the tests."""
    random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture
def without_gpu() -> None:
    """For tests of messages on machines without a GPU."""
    if software.has_driver():
        pytest.skip("there is an NVIDIA driver here")


@pytest.fixture(scope="session")
def cache() -> Iterator[caches.Cache]:
    opened = caches.open_cache()
    yield opened
    assert not opened.changed(), "a test has changed a shared folder: it should work on a copy"


@pytest.fixture(scope="session")
def graphs_converted_once(cache: caches.Cache) -> Iterator[None]:
    """The conversion of one module to ONNX, seconds of CPU, is done once for all tests of the same code."""
    with pytest.MonkeyPatch.context() as patch:
        caches.convert_once(cache, patch)
        yield


@pytest.fixture(scope="session")
def tokenizer(encoders: dict[str, Path]) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(encoders["bert"])


@pytest.fixture(scope="session")
def encoders(cache: caches.Cache, graphs_converted_once: None) -> dict[str, Path]:
    """Folders of tiny pretrained encoders with random weights, one per family."""

    def build(folder: Path) -> None:
        import torch
        from transformers import AutoConfig, AutoModel

        from effx.demo.pretraining import tokenizer as trained_tokenizer

        tokenizer = trained_tokenizer(corpus.texts("train")[:2000])
        for model_type, values in CONFIGS.items():
            torch.manual_seed(0)
            config = AutoConfig.for_model(model_type, **{**values, "vocab_size": len(tokenizer)})
            AutoModel.from_config(config).save_pretrained(folder / model_type)
            tokenizer.save_pretrained(folder / model_type)

    folder = cache.folder("encoders", build)
    return {model_type: folder / model_type for model_type in CONFIGS}


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="session")
def rows_folder(cache: caches.Cache) -> Path:
    """A small two-class task in a folder."""

    def build(folder: Path) -> None:
        for split, n in (("train", 160), ("validation", 90)):
            texts, labels = corpus.split(split)
            rows = [
                {"sentence": text, "label": label} for text, label in zip(texts[:n], labels[:n], strict=True)
            ]
            write_rows(folder / f"{split}.jsonl", rows)

    return cache.folder("rows", build)


@pytest.fixture(scope="session")
def checkpoint(cache: caches.Cache, encoders: dict[str, Path], rows_folder: Path) -> Checkpoint:
    """``tiny``: the BERT encoder, fine-tuned for one epoch."""

    def build(folder: Path) -> None:
        from effx.specs.training import FinetuneSettings
        from effx.train import finetune

        settings = FinetuneSettings.of(epochs=1, max_length=32, lr=1e-3)
        finetune(
            "sst2", encoders["bert"], out=folder, name="tiny", data_folder=rows_folder, settings=settings
        )

    return Checkpoint.open(cache.folder("checkpoints", build) / "tiny")


@pytest.fixture(scope="session")
def reduced_checkpoint(cache: caches.Cache, checkpoint: Checkpoint) -> Checkpoint:
    """``te``: ``tiny`` with a token schedule and two early exits, of which rows take several."""

    def build(folder: Path) -> None:
        from effx.specs.exits import EarlyExitSettings
        from effx.specs.tokens import TokenPruningSettings
        from effx.train import exits, tokens

        schedule = TokenPruningSettings.of(schedule=(0.9, 0.6, 0.4), epochs=1, lr=1e-3)
        short = tokens.train(checkpoint.folder, out=folder, name="t", settings=schedule)
        # ramps that are sure of themselves: where all rows are near the threshold, rounding decides
        ramps = EarlyExitSettings.of(epochs=3, depth=2.0, rule="max-probability", lr=0.03)
        exits.train(short.folder, out=folder, name="te", settings=ramps)

    return Checkpoint.open(cache.folder("reduced", build) / "te")


@pytest.fixture(scope="session")
def engines_folder(cache: caches.Cache, checkpoint: Checkpoint) -> Path:
    """``tiny`` in fp32 and int8 on ONNX Runtime."""

    def build(folder: Path) -> None:
        from effx.export import export_all

        engines, failures = export_all([checkpoint.folder], ["fp32", "int8"], out=folder)
        assert not failures
        assert [engine.name for engine in engines] == ["tiny.fp32.onnxruntime", "tiny.int8.onnxruntime"]

    return cache.folder("engines", build)


@pytest.fixture
def engines_copy(engines_folder: Path, tmp_path: Path) -> Path:
    """``engines_folder`` for a test that exports into it."""
    return Path(shutil.copytree(engines_folder, tmp_path / "engines-copy"))


@pytest.fixture(scope="session")
def reduced_engines(cache: caches.Cache, reduced_checkpoint: Checkpoint) -> dict[str, Engine]:
    """``te`` in every variant of REDUCED_VARIANTS on ONNX Runtime, by variant."""

    def build(folder: Path) -> None:
        from effx.export import export_all

        _, failures = export_all([reduced_checkpoint.folder], REDUCED_VARIANTS, out=folder)
        assert not failures

    engines = [Engine.open(path) for path in cache.folder("reduced-engines", build).iterdir()]
    by_variant = {engine.variant: engine for engine in engines}
    return {variant: by_variant[variant] for variant in REDUCED_VARIANTS}


@pytest.fixture(scope="session")
def results_folder(cache: caches.Cache, engines_folder: Path) -> Path:
    """A profile of ``engines_folder``."""

    def build(folder: Path) -> None:
        runs, failures = profile([engines_folder], out=folder, plan=QUICK, meter="model:10")
        assert not failures
        assert len(runs) == 2

    return cache.folder("results", build)
