"""What a cell's result depends on of the processor, beyond its settings. It is decided when a run is planned.

training with precision auto     bf16 where this machine computes it in hardware, else fp32
engines of int8 on the CPU       whether it has VNNI: without it, 8-bit weights overflow, and 7 are used
engines of bf16 on the CPU       whether it multiplies bf16: without it, they are refused
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path

from effx.host import cpu
from effx.specs import backends, variants
from effx.specs.backends import INT8_BF16
from effx.specs.settings import Settings, leaves
from effx.specs.stages import STAGES

_GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""At least one exists on a Linux machine with a GPU that PyTorch may use."""


def trained(stage: str, settings: Settings) -> Settings:
    """Return a cell's settings; if it trains with precision auto, with the one that this machine chooses."""
    names = {leaf.name for leaf in leaves(type(settings))}
    if not STAGES[stage].gpu or "precision" not in names or settings.flat()["precision"] != "auto":
        return settings
    return settings.replace(precision="bf16" if _trains_in_bf16() else "fp32")


def of_engine(variant: str, backend: str, device: str | None) -> dict[str, bool]:
    """Return the settings of an export that say what it needs to know of the processor.

    Args:
        variant: its name.
        backend: that builds it.
        device: that it is built for; None: the backend's own.
    """
    row = backends.get(backend)
    device = row.device(device)
    if device != "cpu":
        return {}
    schemes = row.schemes_for(variants.parse(variant).scheme, device)
    known: dict[str, bool] = {}
    if any(scheme.startswith("int8") for scheme in schemes):
        known["vnni"] = cpu.has_vnni()
    if {"bf16", INT8_BF16} & {*schemes}:
        known["bf16"] = cpu.has_bf16()
    return known


def _trains_in_bf16() -> bool:
    """Whether a training on this machine computes in bf16; PyTorch is asked only if there may be a GPU."""
    return _gpu_trains_in_bf16() if _may_have_gpu() else cpu.has_bf16()


def _may_have_gpu() -> bool:
    return platform.system() == "Windows" or any(Path(file).exists() for file in _GPU_FILES)


@functools.cache
def _gpu_trains_in_bf16() -> bool:
    from effx.train.loop import has_bf16

    return has_bf16()
