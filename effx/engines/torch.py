"""PyTorch graphs: an exported program, run eagerly or compiled; needs torch, not transformers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from effx.engines.protocol import Arrays
from effx.errors import ArtifactError


class TorchGraph:
    """A program saved by torch.export."""

    def __init__(self, path: Path, settings: Mapping[str, Any], threads: int) -> None:
        torch.set_num_threads(threads)
        self._threads, self._compiled = threads, bool(settings.get("compiled"))
        self._names = list(settings["inputs"][path.name])
        self._outputs = list(settings["outputs"][path.name])
        self._dtype = torch.bfloat16 if settings.get("precision") == "bf16" else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._module: Any = torch.export.load(path).module()
        except Exception as error:  # pickle, zip and schema errors share no base class
            reason = " ".join(str(error).split())[:200]
            raise ArtifactError(f"{path} cannot be loaded: {reason}") from error
        if self._compiled:
            self._module = torch.compile(self._module, dynamic=True)

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        with torch.inference_mode(), torch.autocast("cpu", self._dtype, enabled=self._dtype is not None):
            outs = self._module(*(torch.from_numpy(inputs[name]) for name in self._names))
        outs = outs if isinstance(outs, (tuple, list)) else (outs,)
        values = (out.float() if out.is_floating_point() else out for out in outs)
        return {name: value.numpy() for name, value in zip(self._outputs, values, strict=True)}

    def describe(self) -> dict[str, object]:
        return {"compiled": self._compiled, "threads": self._threads, "versions": versions()}

    def close(self) -> None:
        del self._module


def open(path: Path, settings: Mapping[str, Any], threads: int) -> TorchGraph:
    """Open a .pt2 file.

    Raises:
        ArtifactError: the file is damaged or of another release of torch.
    """
    return TorchGraph(path, settings, threads)


def versions() -> dict[str, str]:
    """Return torch's version."""
    return {"torch": str(torch.__version__)}
