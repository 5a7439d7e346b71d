"""Published training settings under a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from effx.errors import UsageError, unknown
from effx.specs.lottery import LR_LOTTERY, LotterySearchSettings, MaskSearchSettings, MlmSettings
from effx.specs.training import FinetuneSettings, TrainingSettings
from effx.specs.transfer import MLM

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


MASK_PRESETS: dict[str, LotterySearchSettings] = {
    "universal": LotterySearchSettings(
        search=MaskSearchSettings(
            objective="mlm",
            mlm=MlmSettings(
                mlm_steps=10_000,
                mlm_batch_size=16,
                mlm_lr=5e-5,
                mlm_max_length=512,
                mlm_rows="blocks",
                mlm_prune="before",
            ),
        ),
        finetune=FinetuneSettings(
            epochs=3.0,
            training=TrainingSettings(lr=LR_LOTTERY, batch_size=32, weight_decay=0.0, warmup=0.0),
        ),
    ),
}
"""Preset of a search for masks -> settings.

    universal       Chen et al. 2020: the mask found by masked language modelling, which at 70 % transfers to
                    all their tasks. The search is that of the published code (LT_pretrain.py: pruned before
                    training, then every 10,000 steps; blocks of 512 tokens; the defaults of its options are
                    lr 5e-5, no weight decay, no warm-up). Tickets are fine-tuned as in its glue_trans.py,
                    with 128 tokens, the default here.
"""


def search_values(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a search for lottery tickets by a preset.

    Args:
        name: of the preset.
        given: settings that were given, by name; they override those of the preset.

    Raises:
        UsageError: no such preset, or it has no text to train on.
    """
    chosen = _mask_preset(name)
    if given.get("mask") is not None:
        raise UsageError(
            f"preset {name} searches for a mask, and one is given: leave preset or mask out.",
            settings=("preset", "mask"),
        )
    _check_text(name, given)
    return {**chosen.given(), **given}


def transfer_values(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a transfer of masks whose control mlm is searched by a preset.

    Args:
        name: of the preset.
        given: settings that were given, by name; they override those of the preset.

    Raises:
        UsageError: no such preset, no control mlm, or no text to train on.
    """
    chosen = _mask_preset(name)
    if MLM not in given.get("controls", ()):
        raise UsageError(
            f"preset {name} is for the control {MLM}: add {MLM} to controls.", settings=("preset", "controls")
        )
    _check_text(name, given)
    return {**chosen.search.mlm.given(), **chosen.finetune.given(), **given}


def _mask_preset(name: str) -> LotterySearchSettings:
    if name not in MASK_PRESETS:
        raise unknown("preset", name, MASK_PRESETS)
    return MASK_PRESETS[name]


def _check_text(name: str, given: Mapping[str, Any]) -> None:
    if given.get("text") is None:
        raise UsageError(
            f"preset {name} trains masked language modelling on a file of passages: give text.",
            settings=("text", "preset"),
        )
