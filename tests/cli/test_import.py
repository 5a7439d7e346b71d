"""Models of transformers on the command line: effx import, and commands that import them first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from effx.artifacts import Checkpoint, Engine
from effx.cli import run
from tests.models.huggingface.saved import classifier


@pytest.fixture
def model(encoders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``./m``: a classifier with the task's labels in another order."""
    monkeypatch.chdir(tmp_path)
    classifier(encoders["bert"], tmp_path / "m", ("positive", "negative"))
    return Path("m")


def test_import_prints_what_was_understood_and_the_score(
    model: Path, rows_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["import", "m", "--task", "sst2", "--data", str(rows_folder), "--name", "mine"]) == 0
    printed = capsys.readouterr()
    made = Checkpoint.open("checkpoints/mine")
    accuracy = made.manifest.metrics["accuracy"]
    assert printed.out == f"checkpoints/mine: accuracy {accuracy:.4f} on 90 validation rows\n"
    assert "head kept: positive, negative, permuted to negative, positive" in printed.err
    assert run(["import", "m", "--task", "sst2", "--data", str(rows_folder), "--name", "mine"]) == 2
    assert "(options --name, --overwrite)" in capsys.readouterr().err


def test_errors_name_the_options(model: Path, rows_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["m"], "what does the model predict? Name its task, or the folder with its rows (options --task"),
        (["m", "--task", "sst2", "--data", str(rows_folder), "--labels", "a,b"], "option --labels)"),
        (["no", "--task", "sst2"], "model no: "),
        (["./no", "--task", "sst2"], "model ./no: there is no folder with a config.json"),
    ):
        assert run(["import", *arguments]) == 2
        (*_, line) = capsys.readouterr().err.splitlines()
        assert line.startswith("effx: ") and message in line, line


def test_export_takes_a_folder_of_transformers(
    model: Path, rows_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", "m", "--task", "sst2", "--data", str(rows_folder), "--jobs", "1"]
    assert run(command) == 0
    engine = Engine.open("engines/sst2-m.fp32.onnxruntime")
    assert engine.manifest.checkpoint.digest == Checkpoint.open("checkpoints/sst2-m").digest
    assert json.loads((engine.folder / "config.json").read_text())["label2id"] == {
        "negative": 0,
        "positive": 1,
    }
    capsys.readouterr()
    assert run(command) == 0
    assert "was imported from m before" in (printed := capsys.readouterr().err) and "up to date" in printed


@pytest.mark.parametrize("command", ["exits", "tokens"])
def test_exits_and_tokens_continue_from_a_folder_of_transformers(
    command: str, model: Path, rows_folder: Path, tmp_path: Path
) -> None:
    options = ["--task", "sst2", "--data", str(rows_folder), "--max-length", "32", "--max-steps", "2"]
    assert run(["train", command, "m", *options, "--name", "reduced"]) == 0
    reduced, imported = (Checkpoint.open(f"checkpoints/{name}") for name in ("reduced", "sst2-m"))
    assert reduced.manifest.parent == imported.digest and imported.max_length == 32
    assert getattr(reduced.manifest, command) is not None
