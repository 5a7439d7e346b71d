"""Scores of another search: those of the same encoder are accepted, others refused before training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effx.artifacts import Checkpoint
from effx.errors import UsageError
from effx.models import checkpoints, load, prune, save
from effx.specs.tickets import TicketSearchSettings
from effx.tickets import scores as score_files
from effx.tickets.scores import Importance, ScoredEncoder
from effx.train.tickets import check
from effx.train.tickets.draw import write_scores
from tests.tickets.test_plan import full_structure


def settings(granularity: str = "ffns") -> TicketSearchSettings:
    return TicketSearchSettings.of(
        levels=("40",), granularity=granularity, importance="magnitude", epochs=1, max_length=32, lr=1e-3,
        limit=16, precision="fp32",
    )  # fmt: skip


def written(path: Path, heads: int = 4, neurons: int | None = None, **about: Any) -> Path:
    """Write random scores of three layers."""
    rng = np.random.default_rng(0)
    scored = Importance(
        rng.random((3, heads)), rng.random(3), None if neurons is None else rng.random((3, neurons))
    )
    score_files.write(path, scored, checkpoint="0" * 64, layers=[0, 1, 2], **about)
    return path


def other(model: str) -> dict[str, Any]:
    encoder = ScoredEncoder(model=model, structure=full_structure(3, 4, 64))
    return {"encoder": encoder.to_json()}


@pytest.mark.parametrize(
    ("granularity", "facts", "message"),
    [
        ("ffns", {"heads": 8}, "are of 3 layers with 8 heads, but the model has 3 layers with 4 heads"),
        ("neurons", {"neurons": 32}, "are of 32 neurons per layer, but the model has 64 neurons"),
        ("neurons", {"neurons": 128}, "are of 128 neurons per layer, but the model has 64 neurons"),
        ("neurons", {"neurons": 64, **other("org/copy-of-bert")}, None),  # names tell little
        ("ffns", {"neurons": 64, **other("org/bert")}, None),
        ("neurons", {"neurons": 64}, None),
    ],
)
def test_scores_of_another_encoder_are_refused(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path, granularity: str, facts: dict[str, Any],
    message: str | None, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = written(tmp_path / "scores.json", **facts)

    def checked() -> None:
        check("sst2", str(encoders["bert"]), rows_folder, settings(granularity), scores={0: path})

    if message is None:
        checked()
        told = "are of the encoder org/copy-of-bert, and the tickets of bert"
        assert (told in capsys.readouterr().err) == ("copy-of-bert" in str(facts))
        return
    with pytest.raises(UsageError, match=f"{message}: scores must be of the same encoder"):
        checked()


@pytest.mark.parametrize(
    ("removed", "granularity", "lost"),
    [
        ({"heads": {1: [2]}}, "ffns", "head 2 of layer 1"),
        ({"ffns": [2]}, "ffns", "the FFN of layer 2"),
        ({"neurons": {0: [5, 7]}}, "neurons", "neurons of the FFN of layer 0"),
    ],
)
def test_scores_of_a_reduced_encoder_are_for_it_alone(
    checkpoint: Checkpoint, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path,
    removed: dict[str, Any], granularity: str, lost: str,
) -> None:  # fmt: skip
    model = prune(load(checkpoint), **removed)
    save(
        model, tmp_path / "less", tokenizer=checkpoints.tokenizer(checkpoint.folder), task=checkpoint.task,
        model=checkpoint.manifest.model, max_length=32,
    )  # fmt: skip
    path, search = tmp_path / "scores.json", settings(granularity)
    write_scores(tmp_path / "less", path, data_folder=rows_folder, pruning=search.pruning,
                 training=search.finetune.training)  # fmt: skip
    check("sst2", str(tmp_path / "less"), rows_folder, search, scores={0: path})
    with pytest.raises(UsageError, match=f"lack {lost} .from 0., which the scored model did not have"):
        check("sst2", str(encoders["bert"]), rows_folder, search, scores={0: path})
    if granularity == "neurons":
        return
    value = json.loads(path.read_text())  # as earlier versions wrote it
    del value["encoder"]
    path.write_text(json.dumps(value))
    with pytest.raises(UsageError, match=f"lack {lost} "):
        check("sst2", str(encoders["bert"]), rows_folder, search, scores={0: path})
