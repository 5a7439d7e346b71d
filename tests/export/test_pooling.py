"""Engines of a checkpoint whose head reads the mean of the tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from effx import data, engines
from effx.encoding import Encoder
from effx.export import export_all
from effx.models import evaluate, load
from effx.specs.training import FinetuneSettings
from effx.train import finetune


def test_an_engine_reads_the_mean_of_the_tokens(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    settings = FinetuneSettings.of(max_steps=2, max_length=32, lr=1e-2, head_pooling="mean")
    trained = finetune("sst2", encoders["bert"], out=tmp_path, data_folder=rows_folder, settings=settings)
    built, failures = export_all([trained.folder], ["fp32"], out=tmp_path / "engines")
    assert not failures and built[0].manifest.structure is not None
    assert built[0].manifest.structure.head_pooling == "mean"
    encoded = Encoder(trained.folder, 32)(data.load(trained.task, "validation", rows_folder).texts[:20])
    expected = evaluate.logits(load(trained.folder), encoded)
    with engines.open(built[0]) as session:
        answers = session.infer(encoded.batch(range(20)))["logits"]
    assert np.allclose(answers, expected, atol=1e-4)
