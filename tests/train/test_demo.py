"""The demo's encoder: where it is written, and what is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from effx.errors import UsageError
from effx.train import demo


def test_a_place_that_takes_nothing_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(demo.loop, "fit", lambda *_, **__: pytest.fail("it was trained"))
    with pytest.raises(UsageError, match="cannot write"):
        demo.pretrain(tmp_path / "file" / "pretrained" / demo.NAME)


def test_an_encoder_that_another_process_wrote_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / demo.NAME

    def slower(*_: object, **__: object) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("theirs")

    monkeypatch.setattr(demo.loop, "fit", slower)
    assert demo.pretrain(folder) == folder
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert (folder / "config.json").read_text() == "theirs"


def test_a_write_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def blocked(*_: object, **__: object) -> None:
        (tmp_path / "pretrained").write_text("")  # a file where the folder above it should be

    monkeypatch.setattr(demo.loop, "fit", blocked)
    with pytest.raises(UsageError, match="cannot write"):
        demo.pretrain(tmp_path / "pretrained" / demo.NAME)


def test_an_encoder_is_written_whole_and_then_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.loop, "fit", lambda *_, **__: None)
    folder = demo.pretrain(tmp_path / demo.NAME)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    monkeypatch.setattr(demo, "tokenizer", lambda _: pytest.fail("it was made again"))
    assert demo.pretrain(folder) == folder
