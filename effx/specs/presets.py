"""Published training settings under a name."""

from __future__ import annotations

from effx.errors import unknown
from effx.specs.training import FinetuneSettings, TrainingSettings

PRESETS: dict[str, FinetuneSettings] = {
    "super-tickets": FinetuneSettings(
        epochs=6.0,
        patience=2,
        max_length=512,
        head_dropout=0.1,
        training=TrainingSettings(optimizer="adamax", lr=1e-4, batch_size=32, weight_decay=0.01, warmup=0.1),
    ),
}
"""Preset -> settings.

    super-tickets   Liang et al. 2021, section 4.1 and appendix: Adamax, up to 6 epochs with early
                    stopping. The paper searches lr in {5e-5, 1e-4, 2e-4} and batch sizes in {8, 16, 32}
                    for every task; these are the middle and the largest. Its patience is not given.
"""
_HEAD_DROPOUT = {"mnli": 0.3, "cola": 0.05}


def preset(name: str, task: str) -> FinetuneSettings:
    """Return a preset's settings for a task.

    Raises:
        UsageError: no such preset.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    chosen = PRESETS[name]
    if name == "super-tickets" and task in _HEAD_DROPOUT:
        return chosen.replace(head_dropout=_HEAD_DROPOUT[task])
    return chosen
