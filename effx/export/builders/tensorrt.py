"""Engines for TensorRT, from the same ONNX graphs: plans for one kind of device.

Networks are strongly typed: fp16 and bf16 come from graphs that were traced in those types, int8
and fp8 from symmetric Q/DQ pairs; no builder flag changes a type (TensorRT 11 has none left). TF32 is
off, so fp32 means fp32. Each length has two optimisation profiles, for small batches and for all; buckets
have them from short to long, other dynamic lengths are one wide range.

On the GPU that it is for, a plan is checked itself and its inspector asked what runs: a plan that runs
nothing in the precision asked for is refused. Built ahead of time for another, it is checked through the
graphs that it was built from, on this machine's CPU, and the manifest's ``parity.measured_on`` says so;
the audit then reads the parsed network alone.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from effx import files
from effx.engines import cuda
from effx.engines.tensorrt import logger
from effx.errors import UsageError, need
from effx.export import fp8
from effx.export.builders import network as parsed
from effx.export.builders import onnxruntime as onnx_parts
from effx.export.builders import torch as torch_parts
from effx.export.source import Source
from effx.specs import backends
from effx.specs.backends import STATIC_FP8, SYMMETRIC_INT8, Backend
from effx.specs.variants import Variant

_NO_FP8 = ("sm75", "sm80", "sm86")
LARGEST_BATCH = 512
_BATCHES = ((1, 1, 16), (1, 128, LARGEST_BATCH))
"""Least, usual and largest batch of a length's profiles: kernels are chosen for the usual one."""


class TensorRt:
    """A builder for one of the packages, whose Python interfaces are nearly the same."""

    def __init__(self, backend: Backend) -> None:
        """Args:
        backend: the row of ``tensorrt`` or ``tensorrt-rtx``. Its device ``cuda`` is the GPU of this machine;
            ``smNN`` builds for a GPU that need not be here.
        """
        self._backend, self._package = backend, backend.python_module

    def refuse(self, variant: Variant, device: str) -> str | None:
        """Say why a variant cannot be built."""
        if variant.precision == "fp8" and device in _NO_FP8:
            return f"{device} has no fp8 arithmetic; sm89 and newer have"
        if variant.stripped and device != "cuda":  # TensorRT-RTX 1.7 asks for the GPU while it compiles one
            return "a plan that takes weights later is built on its own GPU only: use device cuda"
        if variant.exits == "exit-if" and variant.stripped:
            return "weights within an If cannot be put back into a plan; use exit, which runs segments"
        if variant.exits == "exit-if" and variant.tokens:
            return "TensorRT has no shapes that depend on data within an If; use exit, which runs segments"
        unchecked = variant.tokens and (variant.length is None or variant.exits)
        if variant.precision == "bf16" and device != "cuda" and unchecked:
            return "bf16 with tokens can be checked on its own GPU only; use seqN, or device cuda"
        return None

    def build(
        self, source: Source, variant: Variant, scheme: str, folder: Path, device: str
    ) -> dict[str, Any]:
        """Write model.plan, or segment-*.plan for staged early exit, and say what to check them by.

        Raises:
            UsageError: the package refuses a graph, or there is no GPU to build for.
        """
        need(self._backend.extra, self._package)
        trt: Any = importlib.import_module(self._package)
        here = cuda.device() if device == "cuda" else None
        capability = here.capability if here else device
        place = folder.parent / f"{scheme}-graphs"
        place.mkdir()
        session = self._graphs(source, variant, scheme, place)
        names, networks = [], []
        for name in session["files"]:
            plan, seen = self._plan(place / name, variant, source, device)
            target = folder / f"{Path(name).stem}.plan"
            target.write_bytes(plan)
            names.append(target.name)
            networks.append(seen)
        kept = session["files"] if variant.stripped else []
        for file in place.iterdir() if kept else ():  # graphs and, past 2 GB, their weights
            if file.is_file():
                shutil.copyfile(file, folder / file.name)
        made = {
            **session,
            "files": names,
            "weights": dict(zip(names, kept, strict=False)),
            "variant": variant.text,
            "plan": {
                "version": str(trt.__version__),
                "capability": capability,
                "device": here and here.name,
            },
            "profiles": [most for _, _, most in _BATCHES]
            * len(variant.lengths(source.limit) or [source.limit]),
            "largest_batch": LARGEST_BATCH,
            "tf32": False,
            "cuda_graph": True,
            "network": networks,
        }
        if device != "cuda":
            made["stand_in"] = self._stand_in(source, variant, scheme, place, session)
        return made

    def audit(self, folder: Path, session: dict[str, Any]) -> dict[str, Any]:
        """Count what is in the networks, and on their own GPU what the plans run."""
        networks = session["network"]
        found = parsed.total(networks)
        if "stand_in" in session:
            return found
        from effx.engines import open_graph

        plans = []
        for name, network in zip(session["files"], networks, strict=True):
            graph: Any = open_graph(folder / name, self._backend.name, session)
            plans.append(parsed.ran(graph.layers(), network["products"]))
            graph.close()
        return {**found, "plan": parsed.total_ran(plans)}

    def _graphs(self, source: Source, variant: Variant, scheme: str, place: Path) -> dict[str, Any]:
        """Write the ONNX graphs in the types that they will run in."""
        made = onnx_parts.parts(source, variant, SYMMETRIC_INT8 if scheme == STATIC_FP8 else scheme, place)
        if scheme == STATIC_FP8:
            for path, original in zip(made, source.graphs(variant), strict=True):
                fp8.from_int8(path, original)
        return onnx_parts.joined(source, variant, made, place, chained=True)

    def _stand_in(
        self, source: Source, variant: Variant, scheme: str, place: Path, session: dict[str, Any]
    ) -> tuple[Path, str, dict[str, Any]]:
        """Return what runs here in the plan's place: folder, backend, session."""
        if scheme == STATIC_FP8:  # it would fuse Q/DQ into integer products, which have no fp8
            return place, "onnxruntime", {**session, "keep_qdq": True}
        if scheme != "bf16":
            return place, "onnxruntime", session
        # ONNX Runtime has no bf16 products on CPUs, PyTorch has them on all; of exit-if it has the segments
        if variant.exits:
            variant = replace(variant, exits="exit")
        inner = place / "torch"
        inner.mkdir()
        programs = torch_parts.build(source, variant, "bf16", inner, "cuda")
        return inner, "torch", {**programs, "precision": "fp32", "device": "cpu"}

    def _plan(
        self, path: Path, variant: Variant, source: Source, device: str
    ) -> tuple[bytes, dict[str, Any]]:
        """Compile one graph; return the plan and what its network holds.

        Raises:
            UsageError: the package refuses it, or there is no such device.
        """
        trt: Any = importlib.import_module(self._package)
        said: list[str] = []
        log = logger(trt, said)
        builder = trt.Builder(log)
        network = builder.create_network(_strongly_typed(trt))
        parser = trt.OnnxParser(network, log)
        if not parser.parse_from_file(str(path)):
            raise UsageError(f"{path.name}: {self._package} does not take it: {parser.get_error(0).desc()}.")
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if variant.stripped:  # to be refitted with the same weights alone, so that kernels may rely on them
            config.set_flag(trt.BuilderFlag.STRIP_PLAN)
            config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)
        if device != "cuda":
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(trt.ComputeCapability, device.upper()), 0)
        limit = variant.length or source.limit
        for longest, batches in product(variant.lengths(source.limit) or [limit], _BATCHES):
            profile = builder.create_optimization_profile()
            lengths = (1, min(longest, source.max_length(variant)), longest)
            for number in range(network.num_inputs):
                entry = network.get_input(number)
                shapes = (
                    _shape(entry.shape, batch, length) for batch, length in zip(batches, lengths, strict=True)
                )
                profile.set_shape(entry.name, *shapes)
            config.add_optimization_profile(profile)
        seen = parsed.read(trt, network)
        with _timings(trt, self._package, config, device):
            plan = builder.build_serialized_network(network, config)
        if plan is None:
            reason = (said or ["no reason given"])[0][:200]
            raise UsageError(f"{path.name}: {self._package} cannot build it for {device}: {reason}")
        return bytes(plan), seen


def cache_path(package: str, version: str, device: str) -> Path:
    """Return where kernel timings are kept: they hold for one release and one model of GPU only."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "effx" / f"{package}-{version}-{files.safe_name(device)}.timings"


@contextlib.contextmanager
def _timings(trt: Any, package: str, config: Any, device: str) -> Iterator[None]:
    """Give the builder the timings of earlier builds here, and keep those of this one.

    Ahead of time nothing is timed, and TensorRT-RTX times on the target: neither has a cache.
    """
    if device != "cuda" or package != "tensorrt":
        yield
        return
    path = cache_path(package, str(trt.__version__), cuda.device().name)
    known = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):  # another's, or damaged
        cache = config.create_timing_cache(b"")  # has to live until the plan is built
        config.set_timing_cache(cache, ignore_mismatch=False)
    yield
    files.write_atomic(path, bytes(config.get_timing_cache().serialize()))


def _strongly_typed(trt: Any) -> int:
    """Return the network flags: 10 has to be asked for strong types, later releases have no other."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _shape(shape: Sequence[int], batch: int, length: int) -> tuple[int, ...]:
    """Return a shape with its open dimensions, batch and then length, filled in."""
    return tuple(size if size >= 0 else (batch, length)[min(place, 1)] for place, size in enumerate(shape))


_BUILDER = TensorRt(backends.get("tensorrt"))
refuse, build, audit = _BUILDER.refuse, _BUILDER.build, _BUILDER.audit
