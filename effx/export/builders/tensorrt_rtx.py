"""Engines for TensorRT-RTX, which builds ahead of time for GPUs that need not be in this machine."""

from __future__ import annotations

from effx.export.builders.tensorrt import TensorRt
from effx.specs import backends

_BUILDER = TensorRt(backends.get("tensorrt-rtx"))
refuse, build, audit = _BUILDER.refuse, _BUILDER.build, _BUILDER.audit
