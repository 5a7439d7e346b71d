from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from effx import data
from effx.artifacts import Checkpoint
from effx.encoding import Encoder
from effx.errors import UsageError
from effx.models import evaluate, families, load, pretrained
from effx.specs.tasks import TASKS
from effx.specs.training import FinetuneSettings, TrainingSettings, trained_layers
from effx.train import finetune
from effx.train.finetune import freeze
from effx.train.trainer import grouped_order
from tests.conftest import CONFIGS, write_rows

SHORT = FinetuneSettings.of(epochs=1, max_length=32, max_steps=3)


def test_the_same_seed_gives_the_same_weights(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    def weights(name: str, seed: int) -> dict[str, torch.Tensor]:
        settings = FinetuneSettings.of(epochs=1, max_length=32, max_steps=3, seed=seed)
        trained = finetune(
            "sst2", encoders["bert"], out=tmp_path, name=name, data_folder=rows_folder, settings=settings
        )
        return load_file(trained.folder / "model.safetensors")

    first, again, other = weights("a", 1), weights("b", 1), weights("c", 2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("regime", ["full", "frozen", "last-1"])
def test_each_regime_trains_only_its_parameters(
    name: str, regime: str, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    settings = FinetuneSettings.of(
        regime=regime, max_steps=2, max_length=32, lr=1e-2, precision="fp32", warmup=0
    )
    trained = finetune("sst2", encoders[name], out=tmp_path, data_folder=rows_folder, settings=settings)
    before, after = pretrained(encoders[name], TASKS["sst2"])[0], load(trained.folder)

    def moved(first: torch.nn.Module, second: torch.nn.Module) -> bool:
        pairs = zip(first.parameters(), second.parameters(), strict=True)
        return any(not torch.equal(a, b) for a, b in pairs)

    family = families.of(after)
    layers = [moved(a, b) for a, b in zip(family.layers(before), family.layers(after), strict=True)]
    embeddings = any(
        moved(a, b) for a, b in zip(family.embeddings(before), family.embeddings(after), strict=True)
    )
    expected = {"full": [True] * 3, "frozen": [False] * 3, "last-1": [False, False, True]}
    assert layers == expected[regime]
    assert embeddings == (regime == "full")
    assert moved(before.classifier, after.classifier)


def test_manifest_metrics_are_those_of_the_saved_weights(checkpoint: Checkpoint, rows_folder: Path) -> None:
    """Not those of the bf16 model in memory, which could not be reproduced from the files."""
    rows = data.load(checkpoint.task, "validation", rows_folder)
    model = load(checkpoint.folder)
    logits = evaluate.logits(model, Encoder(checkpoint.folder, checkpoint.max_length)(rows.texts))
    assert np.mean(np.argmax(logits, 1) == rows.labels) == checkpoint.manifest.metrics["accuracy"]
    assert "forward" not in model.__dict__


def test_autocast_is_removed_from_the_model_after_training(
    encoders: dict[str, Path], rows_folder: Path
) -> None:
    from effx.train import loop

    model, _ = pretrained(encoders["bert"], TASKS["sst2"])
    rows = data.load(TASKS["sst2"], "train", rows_folder)
    encoded = Encoder(encoders["bert"], 32)(rows.texts)
    collate = loop.labelled(encoded, rows.labels, ["input_ids", "attention_mask"])
    settings = TrainingSettings(batch_size=8, max_steps=1)
    result = loop.fit(model, encoded.lengths, collate, settings, epochs=1, lr=1e-3, description="test")
    assert result.steps == 1
    assert "forward" not in model.__dict__


def test_pairs_and_regression_train(encoders: dict[str, Path], tmp_path: Path) -> None:
    rows = [
        {"sentence1": f"the film was {a}", "sentence2": f"the plot was {b}", "label": float(a == b) * 5}
        for a in ("good", "bad", "dull") for b in ("good", "bad", "dull")
    ]  # fmt: skip
    write_rows(tmp_path / "d/train.jsonl", rows)
    write_rows(tmp_path / "d/validation.jsonl", rows)
    trained = finetune("stsb", encoders["bert"], out=tmp_path, data_folder=tmp_path / "d", settings=SHORT)
    assert set(trained.manifest.metrics) >= {"pearson", "spearman"}
    assert load(trained.folder).config.num_labels == 1


def test_early_stopping_holds_rows_out_of_training(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    settings = FinetuneSettings.of(epochs=4, max_length=32, patience=1, lr=1e-3)
    trained = finetune("sst2", encoders["bert"], out=tmp_path, data_folder=rows_folder, settings=settings)
    training = trained.manifest.training
    assert (training.rows, training.held_out_rows) == (144, 16)
    assert training.steps <= 4 * 5


def test_grouped_order_is_a_permutation_with_similar_lengths_per_batch() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 1000)
    order = grouped_order(lengths, 16, np.random.default_rng(1))
    assert sorted(order.tolist()) == list(range(1000))
    spans = [np.ptp(lengths[order[i : i + 16]]) for i in range(0, 992, 16)]
    assert np.mean(spans) < 5
    firsts = lengths[order[::16]]
    assert abs(np.corrcoef(np.arange(len(firsts)), firsts)[0, 1]) < 0.4  # not longest first


@pytest.mark.parametrize("regime", ["Full", "last-0", "last-", "last", "frozen-2"])
def test_unknown_regimes_are_refused(regime: str) -> None:
    with pytest.raises(UsageError, match="Known: full, frozen, last-K"):
        trained_layers(regime)


def test_wrong_settings_are_refused_without_writing_files(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    model, _ = pretrained(encoders["bert"], TASKS["sst2"])
    with pytest.raises(UsageError, match="the model has 3 layers"):
        freeze(model, 4)
    for settings in (FinetuneSettings.of(max_length=67), FinetuneSettings.of(regime="last-9")):
        with pytest.raises(UsageError):
            finetune("sst2", encoders["bert"], out=tmp_path, data_folder=rows_folder, settings=settings)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_training_writes_no_checkpoint(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "checkpoints"
    command = [sys.executable, "-m", "effx", "train", "finetune", "sst2", "--model", str(encoders["bert"]),
               "--data", str(rows_folder), "--epochs", "500", "-o", str(out)]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("train "):
                break
        time.sleep(1)
        process.kill()
    assert Checkpoint.find(out) == []


@pytest.mark.parametrize(
    ("requested", "own", "expected"),
    [("auto", True, "mean"), ("auto", False, "cls"), ("cls", True, "cls"), ("mean", False, "mean")],
)
def test_a_new_head_reads_what_the_encoder_was_trained_with(
    requested: str, own: bool, expected: str, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    encoder = Path(shutil.copytree(encoders["bert"], tmp_path / "encoder"))
    if own:
        (encoder / "1_Pooling").mkdir()
        (encoder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    settings = SHORT.replace(head_pooling=requested)
    trained = finetune("sst2", encoder, out=tmp_path, data_folder=rows_folder, settings=settings)
    assert trained.manifest.structure.head_pooling == expected
    again = finetune(
        "sst2", trained.folder, out=tmp_path, name="again", data_folder=rows_folder, settings=SHORT
    )
    assert again.manifest.structure.head_pooling == expected  # its head was kept
