"""The callback that shortens a training to the steps that fit into a time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from effx.specs.training import FinetuneSettings
from effx.train import finetune, trainer
from effx.train.trainer import TimeLimit


@pytest.mark.parametrize(("limit_s", "steps"), [(100.0, 100), (500.0, 300), (10.0, 40)])
def test_as_many_steps_are_left_as_fit(monkeypatch: pytest.MonkeyPatch, limit_s: float, steps: int) -> None:
    """A step takes a second; 300 are planned."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(trainer.time, "monotonic", lambda: clock.now)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = LambdaLR(optimizer, lambda step: 1.0)
    state, callback = SimpleNamespace(global_step=0, max_steps=300), TimeLimit(limit_s, warmup=0.1)
    callback.on_train_begin(None, state, None)
    for step in range(1, 60):
        clock.now, state.global_step = float(step), step
        callback.on_step_end(None, state, None, lr_scheduler=scheduler)
    assert state.max_steps == steps
    share = scheduler.lr_lambdas[0]
    if steps == 300:
        assert share(299) == 1.0  # the schedule is left as it is
        return
    assert share(steps) == 0.0
    assert share(steps // 10) == 1.0
    assert share(steps // 20) == pytest.approx(0.5)


def test_a_training_ends_when_its_time_is_over(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    settings = FinetuneSettings.of(epochs=40, batch_size=8, max_length=32)
    trained = finetune(
        "sst2", encoders["bert"], out=tmp_path, data_folder=rows_folder, settings=settings, limit_s=1e-3
    )
    steps = trained.manifest.training.stages[0].steps
    assert 40 <= steps <= 42  # of 800: those that were timed
