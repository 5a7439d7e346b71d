"""Models and checkpoints from others: their commands need PyTorch."""

from __future__ import annotations

from tests.fuzz.targets import Target

MODEL_TARGETS: tuple[Target, ...] = ()
