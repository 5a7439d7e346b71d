"""The demo's encoder: vocabulary, reproducibility, and writing."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from effx import corpus
from effx.demo import pretraining
from effx.errors import UsageError


def test_the_vocabulary_depends_only_on_the_texts() -> None:
    texts = corpus.texts("train")[:500]
    first, second = (pretraining.tokenizer(texts) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()
    pieces = sorted(first.get_vocab(), key=first.get_vocab().get)
    assert sorted(first.get_vocab().values()) == list(range(len(pieces)))
    assert tuple(pieces[:5]) == tuple(pretraining._SPECIAL) and set(first.all_special_tokens) == set(
        pretraining._SPECIAL
    )
    assert not any(first.unk_token_id in first(text)["input_ids"] for text in texts)
    assert (
        first.decode(first("a well made story")["input_ids"], skip_special_tokens=True) == "a well made story"
    )
    assert first.tokenize("s##s") == ["s", "[UNK]", "[UNK]", "s"]  # "##s" in a text is not a word piece


def test_the_same_seed_gives_the_same_encoder(tmp_path: Path) -> None:
    first, second, other = (
        pretraining.pretrain(tmp_path / name, epochs=0.02, seed=seed)
        for name, seed in (("first", 0), ("second", 0), ("other", 1))
    )
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    one, two = (load_file(folder / "model.safetensors") for folder in (first, other))
    assert any(not one[name].equal(two[name]) for name in one)


def test_an_unwritable_folder_is_refused_before_pretraining(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(pretraining.loop, "fit", lambda *_, **__: pytest.fail("it was trained"))
    with pytest.raises(UsageError, match="cannot write"):
        pretraining.pretrain(tmp_path / "file" / "pretrained" / pretraining.NAME)


def test_an_encoder_written_by_another_process_is_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / pretraining.NAME

    def slower(*_: object, **__: object) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("theirs")

    monkeypatch.setattr(pretraining.loop, "fit", slower)
    assert pretraining.pretrain(folder) == folder
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert (folder / "config.json").read_text() == "theirs"


def test_a_failed_write_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def blocked(*_: object, **__: object) -> None:
        (tmp_path / "pretrained").write_text("")  # a file where the folder above it should be

    monkeypatch.setattr(pretraining.loop, "fit", blocked)
    with pytest.raises(UsageError, match="cannot write"):
        pretraining.pretrain(tmp_path / "pretrained" / pretraining.NAME)


def test_an_encoder_is_written_completely_and_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining.loop, "fit", lambda *_, **__: None)
    folder = pretraining.pretrain(tmp_path / pretraining.NAME)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    monkeypatch.setattr(pretraining, "tokenizer", lambda _: pytest.fail("the encoder was pretrained again"))
    assert pretraining.pretrain(folder) == folder
