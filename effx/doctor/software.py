"""Python, packages, what they shadow of one another, and runtimes that are really loaded."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from effx.doctor.finding import Finding
from effx.specs import backends

LEAST_PYTHON = (3, 11)
EXTRAS: dict[str, tuple[str, ...]] = {
    "train": ("torch", "transformers", "accelerate", "safetensors"),
    "export": ("onnx", "onnxscript"),
    "openvino": ("openvino", "nncf"),
    "report": ("matplotlib", "jinja2"),
    "hub": ("datasets", "pyarrow"),
    "ray": ("ray",),
}
"""Extra -> the distributions that it brings and that are told of by name."""
ONNXRUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml",
                "onnxruntime-training", "onnxruntime-qnn")  # fmt: skip
"""All of them install the module ``onnxruntime``: with two, one's files lie over the other's."""
NVML_WRAPPERS = ("pynvml", "nvidia-ml-py3", "py3nvml")
"""``pynvml`` before 12 and ``nvidia-ml-py3`` install a module ``pynvml`` of their own, years old."""
_KERNEL_DRIVER = Path("/proc/driver/nvidia/version")
_DRIVERS_LIBRARY = "libcuda.so.1"
_PROBE_S = 120.0

Versions = Callable[[str], str | None]
Probe = Callable[[str], tuple[dict[str, Any] | None, str]]


def version(name: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def python(
    info: Sequence[int] = tuple(sys.version_info[:3]), environment: str = sys.prefix
) -> Iterator[Finding]:
    """Check the interpreter."""
    found = ".".join(map(str, info[:3]))
    if tuple(info[:2]) < LEAST_PYTHON:
        least = ".".join(map(str, LEAST_PYTHON))
        yield Finding("python", "version", "broken", f"{found}; effx needs {least} or newer",
                   f"python{least} -m venv .venv && .venv/bin/pip install effx")  # fmt: skip
    else:
        yield Finding(
            "python", "version", "ok", f"{platform.python_implementation()} {found} in {environment}"
        )


def packages(of: Versions = version) -> Iterator[Finding]:
    """Check what each extra brings."""
    for extra, names in EXTRAS.items():
        have = {name: found for name in names if (found := of(name))}
        absent = [name for name in names if name not in have]
        told = ", ".join(f"{name} {found}" for name, found in have.items())
        if absent:
            detail = f"{', '.join(absent)} not installed" + (f" ({told})" if told else "")
            yield Finding("packages", extra, "missing", detail, f"pip install 'effx[{extra}]'")
        else:
            yield Finding("packages", extra, "ok", told)


def clashes(of: Versions = version) -> Iterator[Finding]:
    """Check distributions that install the same module over each other."""
    runtimes = {name: found for name in ONNXRUNTIMES if (found := of(name))}
    told = ", ".join(f"{name} {found}" for name, found in runtimes.items())
    if len(runtimes) > 1:
        keep = "onnxruntime-gpu" if "onnxruntime-gpu" in runtimes else next(iter(runtimes))
        yield Finding(
            "packages", "onnxruntime", "broken",
            f"{told} are installed over each other, and which of them runs is chance",
            f"pip uninstall -y {' '.join(runtimes)} && pip install {keep}",
        )  # fmt: skip
    elif not runtimes:
        yield Finding("packages", "onnxruntime", "missing", "no ONNX Runtime", "pip install 'effx[cpu]'")
    else:
        yield Finding("packages", "onnxruntime", "ok", told)
    wrappers = {name: found for name in NVML_WRAPPERS if (found := of(name))}
    shadowing = [name for name, found in wrappers.items() if not (name == "pynvml" and _major(found) >= 12)]
    own = of("nvidia-ml-py")
    if shadowing:
        told = ", ".join(f"{name} {wrappers[name]}" for name in shadowing)
        yield Finding(
            "packages", "nvidia-ml-py", "broken",
            f"{told} {'shadows' if len(shadowing) == 1 else 'shadow'} nvidia-ml-py's module pynvml",
            f"pip uninstall -y {' '.join(shadowing)} && pip install --force-reinstall nvidia-ml-py",
        )  # fmt: skip
    elif own is None:
        yield Finding("packages", "nvidia-ml-py", "missing", "GPU energy cannot be read without it",
                   "pip install 'effx[nvml]'")  # fmt: skip
    else:
        yield Finding("packages", "nvidia-ml-py", "ok", own)


# y = Identity(x), as onnx.helper makes it: whether a provider takes it says whether its libraries load
_IDENTITY = (
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a01"
    "79120a0a08080112040a02080142040a001011"
)
_ORT_PROBE = f"""
import ctypes
import json
from pathlib import Path
import onnxruntime
from effx.engines import onnxruntime_cuda
onnxruntime_cuda.preload()  # CUDA and cuDNN from their wheels, as the engine does; it may print

def missing(name):  # ONNX Runtime says it on its log alone: the library that the provider's own does not find
    place = Path(onnxruntime.__file__).with_name("capi")
    try:
        ctypes.CDLL(place / "libonnxruntime_providers_shared.so", ctypes.RTLD_GLOBAL)
        ctypes.CDLL(place / f"libonnxruntime_providers_{{name.removesuffix('ExecutionProvider').lower()}}.so")
    except OSError as error:
        return str(error)
    return "its libraries load"

options = onnxruntime.SessionOptions()
options.log_severity_level = 4
options.intra_op_num_threads = 1
found = {{}}
for name in onnxruntime.get_available_providers():
    try:
        session = onnxruntime.InferenceSession(bytes.fromhex("{_IDENTITY}"), options, providers=[name])
        ok = name in session.get_providers()
        found[name] = None if ok else f"ONNX Runtime would fall back to the CPU: {{missing(name)}}"
    except Exception as error:
        found[name] = " ".join(str(error).split())[:200]
print(json.dumps(found))
"""
_OPENVINO_PROBE = """
import json
import openvino
core = openvino.Core()
print(json.dumps({name: core.get_property(name, "FULL_DEVICE_NAME") for name in core.available_devices}))
"""
_TORCH_PROBE = """
import json
import torch
found = {"built": torch.version.cuda, "available": torch.cuda.is_available(), "devices": [], "error": None}
if found["built"]:
    try:
        found["devices"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if found["devices"]:
            torch.ones(1, device="cuda").sum().item()
    except Exception as error:
        found["error"] = " ".join(str(error).split())[:200]
print(json.dumps(found))
"""
_TENSORRT_PROBE = """
import importlib
import importlib.util
import json
found = {{"absent": importlib.util.find_spec("{module}") is None, "version": None, "error": None}}
if not found["absent"]:
    try:
        found["version"] = str(importlib.import_module("{module}").__version__)
    except Exception as error:
        told = str(error).strip().splitlines() or ["no reason given"]
        found["error"] = f"{{type(error).__name__}}: {{told[0]}}"[:200]
print(json.dumps(found))
"""
_FIXES = {
    "CUDAExecutionProvider": "pip install --force-reinstall 'onnxruntime-gpu[cuda,cudnn]'",
    "TensorrtExecutionProvider": "pip install 'tensorrt<11'",
}
"""Of the providers that need an NVIDIA GPU."""
_REMOTE = ("AzureExecutionProvider",)  # calls a web service; nothing to load here


def has_driver() -> bool:
    """Return whether there is an NVIDIA driver: WSL and sandboxes have its library alone."""
    if _KERNEL_DRIVER.exists():
        return True
    with contextlib.suppress(OSError):
        ctypes.CDLL(_DRIVERS_LIBRARY)
        return True
    return False


def providers(
    ask: Probe | None = None, of: Versions = version, driver: Callable[[], bool] = has_driver
) -> Iterator[Finding]:
    """Open a session on every provider that ONNX Runtime says it has."""
    if not any(of(name) for name in ONNXRUNTIMES):
        return
    found, why = (ask or probe)(_ORT_PROBE)
    if found is None:
        yield Finding("runtimes", "onnxruntime", "broken", why, "pip install --force-reinstall onnxruntime")
        return
    for name, reason in found.items():
        if name in _REMOTE:
            continue
        if reason is None:
            yield Finding("runtimes", name, "ok", "a session opens")
        elif name in _FIXES and not driver():
            yield Finding("runtimes", name, "missing", "there is no NVIDIA driver to use it")
        else:
            yield Finding("runtimes", name, "broken", str(reason), _FIXES.get(name))
    if "CUDAExecutionProvider" not in found:
        have = driver()
        detail = "this ONNX Runtime has none" + ("" if have else ", and there is no NVIDIA driver to use it")
        fix = "pip uninstall -y onnxruntime && pip install 'effx[gpu]'" if have else None
        yield Finding("runtimes", "CUDAExecutionProvider", "missing", detail, fix)


def openvino(ask: Probe | None = None, of: Versions = version) -> Iterator[Finding]:
    """Ask OpenVINO for its devices."""
    if of("openvino") is None:
        return
    found, why = (ask or probe)(_OPENVINO_PROBE)
    if not found:
        yield Finding(
            "runtimes", "openvino", "broken", why or "no device", "pip install --force-reinstall openvino"
        )
        return
    yield Finding("runtimes", "openvino", "ok", ", ".join(f"{name}: {what}" for name, what in found.items()))


def torch(ask: Probe | None = None, of: Versions = version) -> Iterator[Finding]:
    """Ask PyTorch what it computes on."""
    if of("torch") is None:
        return
    found, why = (ask or probe)(_TORCH_PROBE)
    fix = "pip install --force-reinstall torch"
    if found is None:
        yield Finding("runtimes", "torch", "broken", why, fix)
    elif found["error"]:
        yield Finding("runtimes", "torch", "broken", f"CUDA {found['built']}: {found['error']}", fix)
    elif found["devices"]:
        names = ", ".join(map(str, found["devices"]))
        yield Finding("runtimes", "torch", "ok", f"{of('torch')}, CUDA {found['built']} on {names}")
    else:
        built = f"built for CUDA {found['built']}, but sees no GPU" if found["built"] else "the CPU's build"
        yield Finding("runtimes", "torch", "ok", f"{of('torch')}, {built}")


def tensorrt(
    ask: Probe | None = None, of: Versions = version, driver: Callable[[], bool] = has_driver
) -> Iterator[Finding]:
    """Import TensorRT and TensorRT-RTX: their wheels may be there without the libraries that they wrap.

    TensorRT itself is of use on a GPU alone, so installing it is advised where there is a driver;
    TensorRT-RTX builds plans ahead of time anywhere.
    """
    for name in ("tensorrt", "tensorrt-rtx"):
        row = backends.get(name)
        ahead_of_time = row.devices != ("cuda",)
        extra = row.extra if ahead_of_time or driver() else None
        installed = of(name)
        found, why = (ask or probe)(_TENSORRT_PROBE.format(module=row.python_module))
        if found and found["version"]:
            yield Finding("runtimes", name, "ok", f"{found['version']}, its libraries load")
        elif found and found["absent"] and installed is None:
            fix = f"pip install 'effx[{extra}]'" if extra else None
            yield Finding("runtimes", name, "missing", "not installed", fix)
        else:
            told = why if not found else found["error"] or "installed, but there is no such module"
            # the same release, for plans run on no other; no cache, which may hold the wheel that is broken
            exactly = f"{name}=={installed}" if installed else name
            fix = f"pip install --force-reinstall --no-cache-dir {exactly}"
            yield Finding("runtimes", name, "broken", told, fix)


def _major(text: str) -> int:
    head = text.split(".")[0]
    return int(head) if head.isdigit() else 0


def probe(code: str) -> tuple[dict[str, Any] | None, str]:
    """Run Python in a process of its own, for a broken library may end it; return its JSON, or why not."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=_PROBE_S
        )
    except subprocess.TimeoutExpired:
        return None, f"it did not answer in {_PROBE_S:g} s"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"]
        return None, lines[-1][:200]
    return json.loads(done.stdout.strip().splitlines()[-1]), ""
