"""Export: checkpoints become engines, each verified against its checkpoint.

The functions are loaded when they are used, so that :mod:`effx.specs.variants`, the grammar, can be
read without PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from effx import scratch
from effx.errors import need

if TYPE_CHECKING:
    from effx.export.hub import write_all as to_hub
    from effx.export.plan import export, export_all
    from effx.export.triton import write_all as to_triton
    from effx.export.verify import verify

__all__ = ["export", "export_all", "to_hub", "to_triton", "verify"]

_FUNCTIONS = {
    "export": ("plan", "export"),
    "export_all": ("plan", "export_all"),
    "to_hub": ("hub", "write_all"),
    "to_triton": ("triton", "write_all"),
    "verify": ("verify", "verify"),
}


def __getattr__(name: str) -> Any:
    """Import the function called ``name`` on first use."""
    if name not in _FUNCTIONS:
        raise AttributeError(f"module 'effx.export' has no attribute '{name}'")
    need("train", "torch", "transformers")
    need("export", "onnx", "onnxscript")
    scratch.for_torch()
    module, attribute = _FUNCTIONS[name]
    value = getattr(importlib.import_module(f"effx.export.{module}"), attribute)
    globals()[name] = value  # `verify` is a module too: the function stays
    return value
