"""What the processor of this machine can compute."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
_KEYS = ("flags", "features")
_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}
_VNNI = {"avx512_vnni", "avx_vnni"}


def flags(text: str) -> frozenset[str]:
    """Return the instruction set flags in the text of /proc/cpuinfo (``flags`` on x86, ``Features`` on Arm).

    They are those of the first processor; empty where the kernel lists none.
    """
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in _KEYS:
            return frozenset(value.split())
    return frozenset()


@functools.cache
def features() -> frozenset[str]:
    """Return the instruction set flags of this machine's processor; empty where there is no /proc/cpuinfo."""
    return flags(CPUINFO.read_text()) if CPUINFO.is_file() else frozenset()


def has_bf16() -> bool:
    """Return whether the processor multiplies bf16 matrices in hardware (AVX-512, AMX or Armv8.6)."""
    return bool(features() & _BF16)


def has_vnni() -> bool:
    """Return whether the processor multiplies uint8 by int8 without saturating intermediate sums.

    x86 without VNNI adds pairs of products in 16 bits, which overflow; 7-bit weights do not. Other
    architectures do not have this limit.
    """
    return platform.machine().lower() not in ("x86_64", "amd64") or bool(features() & _VNNI)
