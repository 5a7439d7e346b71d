"""Engines for TensorRT, from the same ONNX graphs: plans for one kind of device.

Networks are strongly typed: fp16 and bf16 come from graphs that were traced in those types, int8
and fp8 from symmetric Q/DQ pairs; builder flags do not change types (TensorRT 11 has removed them). TF32 is
off, so fp32 means fp32. Each length has two optimization profiles, for small batches and for all; buckets
have profiles from short to long, other dynamic lengths are one wide range.

On the GPU that it is built for, the plan itself is checked, and its inspector shows what it runs: a plan
without any product in the variant's precision is refused. A plan that is built ahead of time for another
GPU is checked through the graphs that it was built from, on this machine's CPU, and ``parity.measured_on``
in the manifest says so; the audit then reads the parsed network only.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from effx import files
from effx.engines import cuda
from effx.engines.shapes import filled_shape
from effx.engines.tensorrt import logger
from effx.errors import UsageError, need
from effx.export import fp8
from effx.export import tensorrt_network as parsed
from effx.export.builders import UNPADDED_REFUSAL
from effx.export.builders import onnxruntime as onnx_parts
from effx.export.builders import torch as torch_parts
from effx.export.built import Built, StandIn
from effx.export.source import ExportSource
from effx.export.tensorrt_network import ParsedNetwork
from effx.manifests import Audit
from effx.specs import backends
from effx.specs.backends import STATIC_FP8, SYMMETRIC_INT8, Backend
from effx.specs.runtime import PlanTarget, RuntimeSettings
from effx.specs.variants import Variant

_WITHOUT_FP8 = ("sm75", "sm80", "sm86")
MAX_BATCH = 512
_BATCHES = ((1, 1, 16), (1, 128, MAX_BATCH))
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
        """Return why a variant cannot be built, or None."""
        if variant.precision == "fp8" and device in _WITHOUT_FP8:
            return f"{device} does not support fp8; sm89 and newer do"
        if variant.stripped and device != "cuda":  # TensorRT-RTX 1.7 asks for the GPU while it compiles one
            return "a plan without weights can only be built on the GPU that runs it: use device cuda"
        if variant.unpadded:
            return UNPADDED_REFUSAL
        if variant.exits == "exit-if" and variant.stripped:
            return "weights within an If cannot be put back into a plan; use exit, which runs segments"
        if variant.exits == "exit-if" and variant.tokens:
            return (
                "TensorRT does not support data-dependent shapes within an If; use exit, which runs segments"
            )
        unchecked = variant.tokens and (variant.length is None or variant.exits)
        if variant.precision == "bf16" and device != "cuda" and unchecked:
            return "bf16 with tokens can only be checked on the GPU that runs it; use seqN, or device cuda"
        return None

    def build(self, source: ExportSource, variant: Variant, scheme: str, folder: Path, device: str) -> Built:
        """Write model.plan, or segment-*.plan for staged early exit.

        Raises:
            UsageError: the package refuses a graph.
            DeviceError: there is no GPU to build for.
        """
        need(self._backend.extra, self._package)
        trt: Any = importlib.import_module(self._package)
        gpu = cuda.device() if device == "cuda" else None
        graphs = folder.parent / f"{scheme}-graphs"
        graphs.mkdir()
        onnx_runtime = self._graphs(source, variant, scheme, graphs)
        names, networks = [], []
        for name in onnx_runtime.files:
            plan, network = self._plan(graphs / name, variant, source, device)
            target = folder / f"{Path(name).stem}.plan"
            target.write_bytes(plan)
            names.append(target.name)
            networks.append(network)
        if variant.stripped:
            for file in filter(Path.is_file, graphs.iterdir()):  # graphs and, past 2 GB, their weights
                shutil.copyfile(file, folder / file.name)
        lengths = variant.lengths(source.limit) or [source.limit]
        runtime = replace(
            onnx_runtime,
            files=tuple(names),
            weight_files=dict(zip(names, onnx_runtime.files, strict=True)) if variant.stripped else {},
            variant=variant.text,
            plan=PlanTarget(
                str(trt.__version__), gpu.capability if gpu else device, gpu.name if gpu else None
            ),
            profile_batches=tuple(largest for _, _, largest in _BATCHES) * len(lengths),
            max_batch=MAX_BATCH,
        )
        stand_in = None if gpu else self._stand_in(source, variant, scheme, graphs, onnx_runtime)
        return Built(runtime, tuple(networks), stand_in)

    def audit(self, folder: Path, built: Built) -> Audit:
        """Count what is in the networks and, on the GPU that they are built for, what the plans run."""
        if built.stand_in is not None:
            return parsed.audit(built.evidence)
        from effx.engines import open_graph

        plans = []
        for name, network in zip(built.files, built.evidence, strict=True):
            graph: Any = open_graph(folder / name, self._backend.name, built.runtime)
            plans.append(parsed.executed(graph.layers(), network.products))
            graph.close()
        return parsed.audit(built.evidence, plans)

    def _graphs(self, source: ExportSource, variant: Variant, scheme: str, folder: Path) -> RuntimeSettings:
        """Write the ONNX graphs in the types that they will run in."""
        onnx_scheme = SYMMETRIC_INT8 if scheme == STATIC_FP8 else scheme
        segments = onnx_parts.parts(source, variant, onnx_scheme, folder)
        if scheme == STATIC_FP8:
            for path, original in zip(segments, source.graphs(variant), strict=True):
                fp8.from_int8(path, original)
        return onnx_parts.joined(source, variant, segments, folder, chained=True)

    def _stand_in(
        self, source: ExportSource, variant: Variant, scheme: str, folder: Path, runtime: RuntimeSettings
    ) -> StandIn:
        """Return what runs on this machine in place of the plan: the graphs in ``folder``."""
        if scheme == STATIC_FP8:  # ONNX Runtime would fuse Q/DQ into integer products, which exclude fp8
            return StandIn(folder, "onnxruntime", replace(runtime, keep_qdq=True))
        if scheme != "bf16":
            return StandIn(folder, "onnxruntime", runtime)
        # ONNX Runtime has no bf16 products on CPUs, PyTorch has; for exit-if it runs the segments
        if variant.exits:
            variant = replace(variant, exits="exit")
        inner = folder / "torch"
        inner.mkdir()
        programs = torch_parts.build(source, variant, "bf16", inner, "cuda").runtime
        return StandIn(inner, "torch", replace(programs, precision="fp32", device="cpu"))

    def _plan(
        self, path: Path, variant: Variant, source: ExportSource, device: str
    ) -> tuple[bytes, ParsedNetwork]:
        """Compile one graph; return the plan and what its network holds.

        Raises:
            UsageError: the package refuses the graph or cannot build for the device.
        """
        trt: Any = importlib.import_module(self._package)
        messages: list[str] = []
        log = logger(trt, messages)
        builder = trt.Builder(log)
        network = builder.create_network(_strongly_typed(trt))
        parser = trt.OnnxParser(network, log)
        if not parser.parse_from_file(str(path)):
            raise UsageError(
                f"{path.name}: {self._package} does not accept the graph: {parser.get_error(0).desc()}."
            )
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if variant.stripped:  # refitted with the same weights only, so that kernels may rely on their values
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
                    filled_shape(entry.shape, batch, length)
                    for batch, length in zip(batches, lengths, strict=True)
                )
                profile.set_shape(entry.name, *shapes)
            config.add_optimization_profile(profile)
        parsed_network = parsed.read(trt, network)
        with _timings(trt, self._package, config, device):
            plan = builder.build_serialized_network(network, config)
        if plan is None:
            reason = (messages or ["no reason given"])[0][:200]
            raise UsageError(f"{path.name}: {self._package} cannot build the graph for {device}: {reason}")
        return bytes(plan), parsed_network


def cache_path(package: str, version: str, device: str) -> Path:
    """Return the file of kernel timings: they are valid for one release and one model of GPU."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "effx" / f"{package}-{version}-{files.safe_name(device)}.timings"


@contextlib.contextmanager
def _timings(trt: Any, package: str, config: Any, device: str) -> Iterator[None]:
    """Give the builder the timings of earlier builds on this machine, and store those of this build.

    Builds ahead of time do not time kernels, and TensorRT-RTX times on the target: neither has a cache.
    """
    if device != "cuda" or package != "tensorrt":
        yield
        return
    path = cache_path(package, str(trt.__version__), cuda.device().name)
    known = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(
        cache, ignore_mismatch=False
    ):  # of another release, or damaged
        cache = config.create_timing_cache(b"")  # must exist until the plan is built
        config.set_timing_cache(cache, ignore_mismatch=False)
    yield
    files.write_atomic(path, bytes(config.get_timing_cache().serialize()))


def _strongly_typed(trt: Any) -> int:
    """Return the network flags: TensorRT 10 needs one for strong types; 11 has no other and ignores it."""
    flag = getattr(getattr(trt, "NetworkDefinitionCreationFlag", None), "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


_BUILDER = TensorRt(backends.get("tensorrt"))
refuse, build, audit = _BUILDER.refuse, _BUILDER.build, _BUILDER.audit
