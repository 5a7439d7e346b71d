"""Engines for TensorRT, from the same ONNX graphs: plans for one kind of device.

Networks are strongly typed: fp16 and bf16 come from graphs that were traced in those types, int8
from symmetric Q/DQ pairs; no builder flag changes a type (TensorRT 11 has none left). Buckets get an
optimisation profile each, other dynamic lengths one wide profile.

A plan runs on its device alone. It is checked through the graphs that it was built from, on this
machine's CPU, and the manifest's ``parity.measured_on`` says so.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effx.errors import UsageError, need
from effx.export.builders import onnxruntime as onnx_parts
from effx.export.source import Source
from effx.export.variants import Variant

_SCHEMES = {
    "fp32": ["fp32"],
    "fp16": ["fp16"],
    "int8": [onnx_parts.SYMMETRIC],
    "int8-static": [onnx_parts.SYMMETRIC],
}
_LARGEST_BATCH = 128
_USUAL_BATCH = 8


class TensorRt:
    """A builder for one of the packages, whose Python interfaces are nearly the same."""

    def __init__(self, package: str, extra: str, devices: tuple[str, ...]) -> None:
        """Args:
        package: the module's name.
        extra: what brings it.
        devices: ``cuda`` for the GPU that is here, ``smNN`` to build for one that is not.
        """
        self._package, self._extra, self.devices = package, extra, devices

    def schemes(self, precision: str, device: str) -> Sequence[str]:
        """Return the schemes to try for a precision."""
        return _SCHEMES.get(precision, [])

    def refuse(self, variant: Variant, device: str) -> str | None:
        """Say why a variant cannot be built."""
        if self.schemes(variant.scheme, device):
            return None
        return f"effx has no {variant.scheme} for TensorRT (it has {', '.join(_SCHEMES)})"

    def build(
        self, source: Source, variant: Variant, scheme: str, folder: Path, device: str
    ) -> dict[str, Any]:
        """Write model.plan, or segment-*.plan for staged early exit, and say what to check them by."""
        need(self._extra, self._package)
        place = folder.parent / f"{scheme}-graphs"
        place.mkdir()
        session = onnx_parts.build(source, variant, scheme, place, "cpu")
        files = []
        for name in session["files"]:
            plan = self._plan(place / name, variant, source, device)
            target = folder / f"{Path(name).stem}.plan"
            target.write_bytes(plan)
            files.append(target.name)
        return {**session, "files": files, "stand_in": (place, "onnxruntime", session)}

    def audit(self, folder: Path, session: dict[str, Any]) -> dict[str, Any]:
        """Count what is in the graphs that the plans were built from."""
        place, _, inner = session["stand_in"]
        return onnx_parts.audit(place, inner)

    def _plan(self, path: Path, variant: Variant, source: Source, device: str) -> bytes:
        """Compile one graph.

        Raises:
            UsageError: the package refuses it, or there is no such device.
        """
        trt: Any = importlib.import_module(self._package)
        said: list[str] = []

        class Errors(trt.ILogger):  # type: ignore[misc]
            def log(self, severity: Any, message: str) -> None:
                if severity <= trt.ILogger.ERROR:
                    said.append(" ".join(message.split()))

        logger = Errors()
        builder = trt.Builder(logger)
        network = builder.create_network(_strongly_typed(trt))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse_from_file(str(path)):
            raise UsageError(f"{path.name}: {self._package} does not take it: {parser.get_error(0).desc()}.")
        config = builder.create_builder_config()
        if device != "cuda":
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(trt.ComputeCapability, device.upper()), 0)
        limit = variant.length or source.limit
        shortest = 1
        for longest in variant.lengths(source.limit) or [limit]:
            profile = builder.create_optimization_profile()
            usual = min(longest, source.max_length(variant))
            for number in range(network.num_inputs):
                entry = network.get_input(number)
                shapes = (
                    _shape(entry.shape, batch, length)
                    for batch, length in ((1, shortest), (_USUAL_BATCH, usual), (_LARGEST_BATCH, longest))
                )
                profile.set_shape(entry.name, *shapes)
            config.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            reason = (said or ["no reason given"])[0][:200]
            raise UsageError(f"{path.name}: {self._package} cannot build it for {device}: {reason}")
        return bytes(plan)


def _strongly_typed(trt: Any) -> int:
    """Return the network flags: 10 has to be asked for strong types, later releases have no other."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _shape(shape: Sequence[int], batch: int, length: int) -> tuple[int, ...]:
    """Return a shape with its open dimensions, batch and then length, filled in."""
    return tuple(size if size >= 0 else (batch, length)[min(place, 1)] for place, size in enumerate(shape))


_HERE = TensorRt("tensorrt", "tensorrt", ("cuda",))
DEVICES, schemes, refuse, build, audit = _HERE.devices, _HERE.schemes, _HERE.refuse, _HERE.build, _HERE.audit
