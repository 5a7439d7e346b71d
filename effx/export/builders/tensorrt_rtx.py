"""Engines for TensorRT-RTX, which builds ahead of time for GPUs that are not here."""

from __future__ import annotations

from effx.export.builders.tensorrt import TensorRt

_HERE = TensorRt("tensorrt_rtx", "rtx", ("cuda", "sm80", "sm86", "sm89", "sm120", "sm121"))
DEVICES, schemes, refuse, build, audit = _HERE.devices, _HERE.schemes, _HERE.refuse, _HERE.build, _HERE.audit
