"""Python, packages and their conflicts, and runtimes, which are loaded to check them."""

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
"""Extra -> the distributions that it installs and that are reported by name."""
ONNXRUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml",
                "onnxruntime-training", "onnxruntime-qnn")  # fmt: skip
"""All of them install the module ``onnxruntime``: of two, one overwrites the files of the other."""
NVML_WRAPPERS = ("pynvml", "nvidia-ml-py3", "py3nvml")
"""``pynvml`` before 12 and ``nvidia-ml-py3`` install an outdated module ``pynvml``."""
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
    running = ".".join(map(str, info[:3]))
    if tuple(info[:2]) < LEAST_PYTHON:
        least = ".".join(map(str, LEAST_PYTHON))
        yield Finding("python", "version", "broken", f"{running}; effx needs {least} or newer",
                   f"python{least} -m venv .venv && .venv/bin/pip install effx")  # fmt: skip
    else:
        yield Finding(
            "python", "version", "ok", f"{platform.python_implementation()} {running} in {environment}"
        )


def packages(of: Versions = version) -> Iterator[Finding]:
    """Check the packages of each extra."""
    for extra, names in EXTRAS.items():
        installed = _installed(names, of)
        absent = [name for name in names if name not in installed]
        listed = _listed(installed)
        if absent:
            detail = f"{', '.join(absent)} not installed" + (f" ({listed})" if listed else "")
            yield Finding("packages", extra, "missing", detail, f"pip install 'effx[{extra}]'")
        else:
            yield Finding("packages", extra, "ok", listed)


def _installed(names: Sequence[str], of: Versions) -> dict[str, str]:
    """Return name -> version of the distributions that are installed."""
    return {name: installed for name in names if (installed := of(name))}


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def clashes(of: Versions = version) -> Iterator[Finding]:
    """Check for distributions that overwrite each other's modules."""
    runtimes = _installed(ONNXRUNTIMES, of)
    if len(runtimes) > 1:
        keep = "onnxruntime-gpu" if "onnxruntime-gpu" in runtimes else next(iter(runtimes))
        yield Finding(
            "packages", "onnxruntime", "broken",
            f"{_listed(runtimes)} are installed over each other; it is undefined which of them runs",
            f"pip uninstall -y {' '.join(runtimes)} && pip install {keep}",
        )  # fmt: skip
    elif not runtimes:
        yield Finding("packages", "onnxruntime", "missing", "no ONNX Runtime", "pip install 'effx[cpu]'")
    else:
        yield Finding("packages", "onnxruntime", "ok", _listed(runtimes))
    shadowing = {
        name: number
        for name, number in _installed(NVML_WRAPPERS, of).items()
        if not (name == "pynvml" and _major(number) >= 12)
    }
    nvml = of("nvidia-ml-py")
    if shadowing:
        verb = "shadows" if len(shadowing) == 1 else "shadow"
        yield Finding(
            "packages", "nvidia-ml-py", "broken",
            f"{_listed(shadowing)} {verb} nvidia-ml-py's module pynvml",
            f"pip uninstall -y {' '.join(shadowing)} && pip install --force-reinstall nvidia-ml-py",
        )  # fmt: skip
    elif nvml is None:
        yield Finding("packages", "nvidia-ml-py", "missing", "GPU energy cannot be read without it",
                   "pip install 'effx[nvml]'")  # fmt: skip
    else:
        yield Finding("packages", "nvidia-ml-py", "ok", nvml)


# y = Identity(x) as serialized by onnx.helper: a session with it shows whether a provider's libraries load
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
from effx.errors import one_line
onnxruntime_cuda.preload()  # CUDA and cuDNN from their wheels, as the engine does; it may print

def missing(name):  # the library that a provider cannot load; ONNX Runtime writes it only to its log
    folder = Path(onnxruntime.__file__).with_name("capi")
    short = name.removesuffix("ExecutionProvider").lower()
    try:
        ctypes.CDLL(folder / "libonnxruntime_providers_shared.so", ctypes.RTLD_GLOBAL)
        ctypes.CDLL(folder / f"libonnxruntime_providers_{{short}}.so")
    except OSError as error:
        return str(error)
    return "its libraries load"

options = onnxruntime.SessionOptions()
options.log_severity_level = 4
options.intra_op_num_threads = 1
failures = {{}}
for name in onnxruntime.get_available_providers():
    try:
        session = onnxruntime.InferenceSession(bytes.fromhex("{_IDENTITY}"), options, providers=[name])
        ok = name in session.get_providers()
        failures[name] = None if ok else f"ONNX Runtime would fall back to the CPU: {{missing(name)}}"
    except Exception as error:
        failures[name] = one_line(error)
print(json.dumps(failures))
"""
_OPENVINO_PROBE = """
import json
import effx  # before openvino: it switches off reporting
import openvino
core = openvino.Core()
print(json.dumps({name: core.get_property(name, "FULL_DEVICE_NAME") for name in core.available_devices}))
"""
_TORCH_PROBE = """
import json
import torch
from effx.errors import one_line
state = {"built": torch.version.cuda, "available": torch.cuda.is_available(), "devices": [], "error": None}
if state["built"]:
    try:
        state["devices"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if state["devices"]:
            torch.ones(1, device="cuda").sum().item()
    except Exception as error:
        state["error"] = one_line(error)
print(json.dumps(state))
"""
_TENSORRT_PROBE = """
import importlib
import importlib.util
import json
state = {{"absent": importlib.util.find_spec("{module}") is None, "version": None, "error": None}}
if not state["absent"]:
    try:
        state["version"] = str(importlib.import_module("{module}").__version__)
    except Exception as error:
        lines = str(error).strip().splitlines() or ["no reason given"]
        state["error"] = f"{{type(error).__name__}}: {{lines[0]}}"[:200]
print(json.dumps(state))
"""
_FIXES = {
    "CUDAExecutionProvider": "pip install --force-reinstall 'onnxruntime-gpu[cuda,cudnn]'",
    "TensorrtExecutionProvider": "pip install 'tensorrt<11'",
}
"""Provider that needs an NVIDIA GPU -> command that repairs it."""
_REMOTE = ("AzureExecutionProvider",)  # calls a web service; nothing to load here


def has_driver() -> bool:
    """Return whether there is an NVIDIA driver; WSL and sandboxes have only its library."""
    if _KERNEL_DRIVER.exists():
        return True
    with contextlib.suppress(OSError):
        ctypes.CDLL(_DRIVERS_LIBRARY)
        return True
    return False


def providers(
    run_probe: Probe | None = None, of: Versions = version, driver: Callable[[], bool] = has_driver
) -> Iterator[Finding]:
    """Open a session with every execution provider of the installed ONNX Runtime."""
    if not any(of(name) for name in ONNXRUNTIMES):
        return
    failures, why = (run_probe or probe)(_ORT_PROBE)
    if failures is None:
        yield Finding("runtimes", "onnxruntime", "broken", why, "pip install --force-reinstall onnxruntime")
        return
    for name, reason in failures.items():
        if name in _REMOTE:
            continue
        if reason is None:
            yield Finding("runtimes", name, "ok", "a session opens")
        elif name in _FIXES and not driver():
            yield Finding("runtimes", name, "missing", "there is no NVIDIA driver to use it")
        else:
            yield Finding("runtimes", name, "broken", str(reason), _FIXES.get(name))
    if "CUDAExecutionProvider" not in failures:
        have = driver()
        detail = "this build of ONNX Runtime does not have it" + (
            "" if have else ", and there is no NVIDIA driver to use it"
        )
        fix = "pip uninstall -y onnxruntime && pip install 'effx[gpu]'" if have else None
        yield Finding("runtimes", "CUDAExecutionProvider", "missing", detail, fix)


def openvino(run_probe: Probe | None = None, of: Versions = version) -> Iterator[Finding]:
    """Check OpenVINO and its devices."""
    if of("openvino") is None:
        return
    devices, why = (run_probe or probe)(_OPENVINO_PROBE)
    if not devices:
        yield Finding(
            "runtimes", "openvino", "broken", why or "no device", "pip install --force-reinstall openvino"
        )
        return
    yield Finding(
        "runtimes", "openvino", "ok", ", ".join(f"{name}: {what}" for name, what in devices.items())
    )


def torch(run_probe: Probe | None = None, of: Versions = version) -> Iterator[Finding]:
    """Check PyTorch and its devices."""
    if of("torch") is None:
        return
    state, why = (run_probe or probe)(_TORCH_PROBE)
    fix = "pip install --force-reinstall torch"
    if state is None:
        yield Finding("runtimes", "torch", "broken", why, fix)
    elif state["error"]:
        yield Finding("runtimes", "torch", "broken", f"CUDA {state['built']}: {state['error']}", fix)
    elif state["devices"]:
        names = ", ".join(map(str, state["devices"]))
        yield Finding("runtimes", "torch", "ok", f"{of('torch')}, CUDA {state['built']} on {names}")
    else:
        built = f"built for CUDA {state['built']}, but there is no GPU" if state["built"] else "CPU build"
        yield Finding("runtimes", "torch", "ok", f"{of('torch')}, {built}")


def tensorrt(
    run_probe: Probe | None = None, of: Versions = version, driver: Callable[[], bool] = has_driver
) -> Iterator[Finding]:
    """Import TensorRT and TensorRT-RTX: their wheels may be installed without the libraries that they wrap.

    TensorRT can be used only with a GPU, so its installation is suggested only if there is a driver;
    TensorRT-RTX builds plans ahead of time on any machine.
    """
    for name in ("tensorrt", "tensorrt-rtx"):
        row = backends.get(name)
        ahead_of_time = row.devices != ("cuda",)
        extra = row.extra if ahead_of_time or driver() else None
        installed = of(name)
        state, why = (run_probe or probe)(_TENSORRT_PROBE.format(module=row.python_module))
        if state and state["version"]:
            yield Finding("runtimes", name, "ok", f"{state['version']}, its libraries load")
        elif state and state["absent"] and installed is None:
            fix = f"pip install 'effx[{extra}]'" if extra else None
            yield Finding("runtimes", name, "missing", "not installed", fix)
        else:
            reason = why if not state else state["error"] or "installed, but the module is missing"
            # the same release, because plans run with no other; no cache, which may contain the broken wheel
            exactly = f"{name}=={installed}" if installed else name
            fix = f"pip install --force-reinstall --no-cache-dir {exactly}"
            yield Finding("runtimes", name, "broken", reason, fix)


def _major(text: str) -> int:
    head = text.split(".")[0]
    return int(head) if head.isdigit() else 0


def probe(code: str) -> tuple[dict[str, Any] | None, str]:
    """Run Python code in a separate process, because a broken library may crash it.

    Returns:
        The JSON object that it printed, and ``""``; or None and the reason.
    """
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
