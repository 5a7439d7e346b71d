"""A training run in segments ends with the same weights as the run without pauses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from effx.artifacts import Checkpoint
from effx.errors import ArtifactError, UsageError
from effx.models import prune
from effx.specs.training import FinetuneSettings
from effx.train import finetune
from effx.train.segment import PausedState, RunSegment

RUN = FinetuneSettings.of(
    epochs=3, limit=96, batch_size=16, max_length=32, lr=1e-3, seed=3
)  # 6 steps per epoch
SLOW = RUN.replace(lr=1e-9, patience=1, epochs=5)  # the score does not improve: early stopping ends it


def weights(trained: Checkpoint) -> dict[str, torch.Tensor]:
    return load_file(trained.folder / "model.safetensors")


@pytest.mark.parametrize(
    ("settings", "stops", "steps"),
    [
        (RUN, (1, 6, 8), 18),  # pauses within warm-up, between epochs, within an epoch
        (RUN.replace(optimizer="adamax"), (7,), 18),
        (RUN.replace(max_steps=5), (2,), 5),
        (RUN.replace(patience=3), (4, 6, 10), 18),  # pauses within an epoch, at its end, within an epoch
        (SLOW, (3, 14, 20), 12),  # early stopping ends the run before the last two pauses
    ],
    ids=["adamw", "adamax", "max_steps", "patience", "ended"],
)
def test_segments_end_with_the_weights_of_the_run_without_pauses(
    settings: FinetuneSettings,
    stops: tuple[int, ...],
    steps: int,
    encoders: dict[str, Path],
    rows_folder: Path,
    tmp_path: Path,
) -> None:
    def run(name: str, segment: RunSegment | None = None) -> Checkpoint:
        return finetune(
            "sst2", encoders["bert"], out=tmp_path, name=name, data_folder=rows_folder, settings=settings,
            reduce=lambda model: prune(model, heads={0: [1]}, ffns=[1]), keep_predictions=True,
            segment=segment,
        )  # fmt: skip

    unpaused = run("unpaused")
    assert unpaused.manifest.training.steps == steps
    begin: Path | None = None
    for stop in stops:
        state = tmp_path / f"at{stop}"
        part = run(f"until{stop}", RunSegment(begin, stop, state))
        assert part.manifest.training.steps == PausedState.read(state).steps == min(stop, steps)
        assert PausedState.read(state).finished == (settings is SLOW and stop >= steps)
        begin = state
    last = run("last", RunSegment(begin))
    assert last.manifest.predictions == unpaused.manifest.predictions
    assert last.manifest.training.steps == steps
    assert last.manifest.training.loss == pytest.approx(unpaused.manifest.training.loss, abs=2e-6)
    result, expected = weights(last), weights(unpaused)
    assert result.keys() == expected.keys()
    assert all(torch.equal(result[key], expected[key]) for key in expected)


def test_a_paused_run_uses_the_schedule_of_the_complete_run(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """Not that of a shorter run, whose learning rate would have decayed to zero at the pause."""

    def run(
        name: str, settings: FinetuneSettings, segment: RunSegment | None = None
    ) -> dict[str, torch.Tensor]:
        return weights(
            finetune(
                "sst2", encoders["bert"], out=tmp_path, name=name, data_folder=rows_folder,
                settings=settings, segment=segment,
            )
        )  # fmt: skip

    paused = run("paused", RUN, RunSegment(until=6, state=tmp_path / "state"))
    short = run("short", RUN.replace(max_steps=6))
    assert any(not torch.equal(paused[key], short[key]) for key in paused)


def test_a_run_does_not_continue_in_another_precision(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another machine, with precision auto."""

    def run(name: str, segment: RunSegment, bf16: bool) -> Checkpoint:
        monkeypatch.setattr("effx.train.loop.has_bf16", lambda: bf16)
        return finetune("sst2", encoders["bert"], out=tmp_path, name=name, data_folder=rows_folder,
                        settings=RUN, segment=segment)  # fmt: skip

    state = tmp_path / "state"
    run("first", RunSegment(None, 2, state), False)
    assert PausedState.read(state).precision == "fp32"
    with pytest.raises(UsageError, match="paused in fp32 cannot continue in bf16, which this machine"):
        run("second", RunSegment(state), True)
    assert not (tmp_path / "second").exists()
    assert run("third", RunSegment(state), False).manifest.training.steps == 18


def test_a_damaged_state_is_refused(encoders: dict[str, Path], rows_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/state.json").write_text('{"steps": 3')
    with pytest.raises(ArtifactError, match="cannot be read .* Delete the folder to train the run again"):
        finetune(
            "sst2", encoders["bert"], out=tmp_path, name="n", data_folder=rows_folder, settings=RUN,
            segment=RunSegment(tmp_path / "state"),
        )  # fmt: skip
    assert not (tmp_path / "n").exists()
