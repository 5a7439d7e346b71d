"""Newer families through training, reductions and every backend: each engine passes its gate."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from effx import data, engines, models
from effx.artifacts import Checkpoint
from effx.encoding import Encoder
from effx.errors import UsageError
from effx.export import export
from effx.export.source import ExportSource
from effx.host import cpu
from effx.models import evaluate, structure
from effx.specs.exits import EarlyExitSettings
from effx.specs.tickets import TicketSettings
from effx.specs.tokens import TokenPruningSettings
from effx.specs.training import FinetuneSettings
from effx.specs.variants import parse
from effx.train import exits, finetune, tokens
from effx.train.tickets.draw import draw
from tests import cache as caches
from tests.models.huggingface.saved import change_config


@pytest.fixture(scope="session", params=["modernbert", "deberta-v2", "nomic_bert"])
def trained(
    request: pytest.FixtureRequest, cache: caches.Cache, encoders: dict[str, Path], rows_folder: Path
) -> dict[str, Path]:
    """Checkpoints: full, a ticket of 40 %, with exits, with a token schedule."""

    def build(folder: Path) -> None:
        values = {"max_length": 32, "lr": 3e-3, "epochs": 8}
        encoder = encoders[request.param]
        full = finetune(
            "sst2", encoder, out=folder, name="full", data_folder=rows_folder,
            settings=FinetuneSettings.of(**values),
        )  # fmt: skip
        draw(
            full.folder, encoder, out=folder, name="ticket", data_folder=rows_folder,
            settings=TicketSettings.of(level=40, min_heads=0, **values),
        )  # fmt: skip
        exits.train(
            folder / "ticket", out=folder, name="exits", data_folder=rows_folder,
            settings=EarlyExitSettings.of(max_steps=60, depth=2.0),
        )  # fmt: skip
        tokens.train(
            full.folder, out=folder, name="tokens", data_folder=rows_folder,
            settings=TokenPruningSettings.of(max_steps=4, keep=0.5),
        )  # fmt: skip

    folder = cache.folder(request.param, build)
    return {name: folder / name for name in ("full", "ticket", "exits", "tokens")}


@pytest.mark.parametrize(
    ("name", "variant", "backend"),
    [
        ("full", "fp32", "openvino"), ("full", "seq16", "onnxruntime"), ("full", "buckets", "torch"),
        ("full", "int8-dynamic", "onnxruntime"), ("full", "int8", "openvino"),
        ("full", "int8+unpadded", "openvino"),
        ("ticket", "fp32", "onnxruntime"), ("ticket", "int8", "onnxruntime"), ("ticket", "fp32", "openvino"),
        ("exits", "exit", "onnxruntime"), ("exits", "exit-if", "onnxruntime"), ("exits", "exit", "torch"),
        ("tokens", "tokens", "onnxruntime"), ("tokens", "tokens+seq16", "torch"),
    ],
)  # fmt: skip
def test_engines_pass_their_gate(
    name: str, variant: str, backend: str, trained: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    engine = export(trained[name], variant, backend, tmp_path)
    assert engine.manifest.parity is not None and engine.manifest.parity.passed
    if engine.manifest.precision == "int8" and backend == "openvino":
        audit = engine.manifest.audit
        assert audit.integer_weight_products == audit.weight_products
    if engine.manifest.precision == "fp32" and "seq" not in variant:
        checkpoint = Checkpoint.open(trained[name])
        rows = data.load(checkpoint.task, "validation", rows_folder)
        encoded = Encoder(checkpoint.folder, 32)(rows.texts)
        model = models.load(checkpoint)
        if "exit" in variant or "tokens" in variant:
            rule = exits_rule(checkpoint) if "exit" in variant else None
            expected, _, _ = evaluate.reduced(model, encoded, rule=rule, prune_tokens="tokens" in variant)
        else:
            expected = evaluate.logits(model, encoded)
        with engines.open(engine) as session:
            for row in range(0, 90, 10):
                answer = session.infer(encoded.batch([row]))["logits"]
                np.testing.assert_allclose(answer[0], expected[row], atol=1e-4)


@pytest.mark.parametrize(
    ("variant", "length", "backend"),
    [
        ("fp32", 1200, "onnxruntime"), ("seq1100", 1200, "onnxruntime"), ("fp32", 1200, "openvino"),
        ("int8-dynamic", 1200, "onnxruntime"), ("fp32", 900, "onnxruntime"),
        ("fp32", 1200, "torch"), ("seq1100", 1200, "torch"),
    ],
)  # fmt: skip
def test_long_rows_of_modernbert(
    variant: str, length: int, backend: str, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """Local attention is computed in blocks where rows may be long; the gate has such a row."""
    encoder = Path(shutil.copytree(encoders["modernbert"], tmp_path / "encoder"))
    change_config(encoder, max_position_embeddings=1300)
    settings = FinetuneSettings.of(max_length=length, max_steps=2, lr=1e-3)
    trained = finetune("sst2", encoder, out=tmp_path, name="long", data_folder=rows_folder, settings=settings)
    source = ExportSource(trained, tmp_path)
    assert source.trace_shape(parse(variant), torch.float32).blocks == (length >= 1024)
    engine = export(trained.folder, variant, backend, tmp_path / "engines")
    assert engine.manifest.parity is not None and engine.manifest.parity.passed


def test_bf16_programs_of_pytorch_read_padding(trained: dict[str, Path], tmp_path: Path) -> None:
    """The least fp32 number, which the padding of DeBERTa had as its score, is none of bf16."""
    if not cpu.has_bf16():
        pytest.skip("this processor has no bf16")
    engine = export(trained["full"], "bf16", "torch", tmp_path)
    assert engine.manifest.parity is not None and engine.manifest.parity.passed


def exits_rule(checkpoint: Checkpoint) -> models.exits.ExitRule:
    return models.exits.rule_of(checkpoint)


def test_the_ticket_has_no_removed_part(trained: dict[str, Path]) -> None:
    ticket, full = (Checkpoint.open(trained[name]) for name in ("ticket", "full"))
    assert ticket.manifest.weight_remaining < 0.9
    assert structure(models.load(ticket)) == ticket.manifest.structure
    assert ticket.manifest.parameters < full.manifest.parameters


def test_exits_and_tokens_together_are_refused(
    trained: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    both = exits.train(
        trained["tokens"], out=tmp_path, name="both", data_folder=rows_folder,
        settings=EarlyExitSettings.of(max_steps=1, depth=2.0),
    )  # fmt: skip
    with pytest.raises(UsageError, match="relative position"):
        export(both.folder, "exit+tokens", out=tmp_path / "engines")
