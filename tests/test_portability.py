"""What is given to others says nothing about the machine that it was made on, and a rebuild is the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from effx import data
from effx.artifacts import Checkpoint, Engine
from effx.errors import DataError
from effx.report import report
from effx.specs.tasks import TASKS
from tests.cache import FOLDER, ROOT

SST2 = TASKS["sst2"]


def files_with(texts: list[str], *folders: Path) -> Iterator[str]:
    """Yield ``FILE: TEXT`` for each file that contains one of the texts."""
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                yield from (f"{path}: {text}" for text in texts if text.encode() in content)


def test_no_artifact_result_or_report_contains_a_path_of_this_machine(
    checkpoint: Checkpoint,
    reduced_checkpoint: Checkpoint,
    engines_folder: Path,
    results_folder: Path,
    tmp_path: Path,
) -> None:
    report([results_folder], tmp_path / "report")
    paths = [str(ROOT), str(FOLDER.absolute()), str(tmp_path), str(Path.home()), sys.prefix]
    folders = [checkpoint.folder, reduced_checkpoint.folder, engines_folder, results_folder, tmp_path]
    assert not list(files_with(paths, *folders))


def export_elsewhere(checkpoint: Checkpoint, folder: Path, *options: str) -> list[Engine]:
    """Export a copy of a checkpoint as another user in another folder."""
    (folder / "home").mkdir(parents=True)
    shutil.copytree(checkpoint.folder, folder / "ck" / checkpoint.name)
    environment = {**os.environ, "HOME": str(folder / "home"), "PYTHONHASHSEED": "5", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "effx", "export", f"ck/{checkpoint.name}", "-o", "e", *options]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return [Engine.open(path) for path in Engine.find(folder / "e")]


def test_a_rebuild_in_another_folder_by_another_user_is_identical(
    checkpoint: Checkpoint, engines_folder: Path, tmp_path: Path
) -> None:
    first = Engine.open(engines_folder / "tiny.fp32.onnxruntime")
    (second,) = export_elsewhere(checkpoint, tmp_path / "elsewhere")
    assert second.manifest.files == first.manifest.files
    assert second.digest == first.digest
    assert second.manifest.created != first.manifest.created


@pytest.mark.slow
def test_rebuilds_of_every_cpu_runtime_are_identical(checkpoint: Checkpoint, tmp_path: Path) -> None:
    options = ["--variant", "fp32", "--variant", "int8-static"]
    for backend in ("onnxruntime", "openvino"):
        options += ["--backend", backend]
    first = export_elsewhere(checkpoint, tmp_path / "a", *options)
    second = export_elsewhere(checkpoint, tmp_path / "b" / "deep", *options)
    first += export_elsewhere(checkpoint, tmp_path / "c", "--backend", "torch")
    second += export_elsewhere(checkpoint, tmp_path / "d" / "deep", "--backend", "torch")
    assert [engine.digest for engine in first] == [engine.digest for engine in second]
    assert not list(files_with([str(tmp_path), str(ROOT), sys.prefix], *(engine.folder for engine in first)))


def test_rows_are_where_they_were_on_this_machine_and_unknown_on_others(
    rows_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(rows_folder, tmp_path / "rows"))
    record = data.recorded(SST2, folder)
    assert record is not None
    assert str(tmp_path) not in str(record.to_json())
    source = data.locate(None, SST2, record)
    assert source is not None and Path(source.path) == folder
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    with pytest.raises(DataError, match="the rows are those of the folder 'rows'") as caught:
        data.locate(None, SST2, record)
    assert caught.value.settings == ("data",)


def test_rows_that_have_changed_are_reported(
    rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(rows_folder, tmp_path / "rows"))
    record = data.recorded(SST2, folder)
    text = (folder / "validation.jsonl").read_text()
    (folder / "validation.jsonl").write_text(text.replace("the", "a"))
    data.locate(None, SST2, record)
    assert "has changed since it was recorded" in capsys.readouterr().err


def test_an_unwritable_state_folder_is_not_an_error(
    rows_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert data.recorded(SST2, rows_folder) is not None
