"""The doctor on machines other than this one: other packages, a fake NVML, a fake powercap tree."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from effx.cli import run
from effx.doctor import Finding, examine, machine, software
from effx.host.cgroups import Cgroups
from effx.host.cpu import parse_cpuinfo
from tests.meters import fake
from tests.meters.test_meters import board

ROOT = Path(__file__).parents[2]
RANGE_UJ = "262143328850"


def by_name(lines: Iterator[Finding] | list[Finding]) -> dict[str, Finding]:
    return {line.name: line for line in lines}


def has(**versions: str) -> software.Versions:
    table = {name.replace("_", "-"): version for name, version in versions.items()}
    return table.get


def test_every_topic_is_checked_on_this_machine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = run(["doctor", str(tmp_path), "--json"])
    lines = json.loads(capsys.readouterr().out)
    assert {line["topic"] for line in lines} == {
        "python", "packages", "runtimes", "processor", "gpu", "energy", "limits", "disk",
    }  # fmt: skip
    assert code == any(line["state"] == "broken" for line in lines)
    assert not [line for line in lines if line["name"] == "check"]
    result = {line["name"]: line for line in lines}
    assert result["CPUExecutionProvider"]["state"] == "ok"  # a session was opened
    assert result["train"]["state"] == result["report"]["state"] == "ok"


def test_an_old_python_is_broken() -> None:
    (line,) = software.python((3, 10, 4))
    assert line.state == "broken" and "3.11" in line.detail and line.fix and line.fix.startswith("python3.11")


@pytest.mark.parametrize(
    ("versions", "name", "state", "detail"),
    [
        ({"onnxruntime": "1.31", "onnxruntime_gpu": "1.30"}, "onnxruntime", "broken", "over each other"),
        ({"onnxruntime_gpu": "1.30"}, "onnxruntime", "ok", "onnxruntime-gpu 1.30"),
        ({}, "onnxruntime", "missing", "no ONNX Runtime"),
        ({"nvidia_ml_py": "13.6", "pynvml": "11.5.3"}, "nvidia-ml-py", "broken", "pynvml 11.5.3 shadows"),
        ({"nvidia_ml_py": "13.6", "nvidia_ml_py3": "7.352"}, "nvidia-ml-py", "broken", "shadows"),
        ({"nvidia_ml_py": "13.6", "pynvml": "12.0.0"}, "nvidia-ml-py", "ok", "13.6"),  # a mere pointer
        ({}, "nvidia-ml-py", "missing", "GPU energy"),
    ],
)
def test_packages_that_shadow_each_other_are_broken(
    versions: dict[str, str], name: str, state: str, detail: str
) -> None:
    line = by_name(software.clashes(has(**versions)))[name]
    assert line.state == state and detail in line.detail
    assert (line.fix is None) == (state == "ok")
    if state == "broken":
        assert line.fix and line.fix.startswith("pip uninstall -y ")


def test_extras_name_the_packages_that_are_not_installed() -> None:
    result = by_name(software.packages(has(onnx="1.20", torch="2.9")))
    assert result["export"].detail == "onnxscript not installed (onnx 1.20)"
    assert result["train"].fix == "pip install 'effx[train]'"
    assert result["report"].state == "missing"


def test_providers_that_do_not_load_are_broken_with_a_driver() -> None:
    seen = {
        "CUDAExecutionProvider": "libcublasLt.so.12: cannot open shared object",
        "CPUExecutionProvider": None,
    }
    lines = by_name(software.providers(lambda _: (seen, ""), has(onnxruntime_gpu="1.30"), lambda: True))
    assert (
        lines["CUDAExecutionProvider"].state == "broken"
        and "libcublasLt" in lines["CUDAExecutionProvider"].detail
    )
    lines = by_name(software.providers(lambda _: (seen, ""), has(onnxruntime_gpu="1.30"), lambda: False))
    assert lines["CUDAExecutionProvider"] == Finding(
        "runtimes", "CUDAExecutionProvider", "missing", "there is no NVIDIA driver to use it"
    )
    assert lines["CPUExecutionProvider"].state == "ok"
    (line,) = software.providers(lambda _: (None, "ImportError: libonnxruntime.so"), has(onnxruntime="1.30"))
    assert line.state == "broken" and "libonnxruntime" in line.detail
    assert list(software.providers(of=has())) == []


@pytest.mark.parametrize(("driver", "fix"), [(True, True), (False, False)])
def test_gpu_packages_are_suggested_only_with_a_driver(driver: bool, fix: bool) -> None:
    def there() -> bool:
        return driver

    seen = {"CPUExecutionProvider": None}
    lines = by_name(software.providers(lambda _: (seen, ""), has(onnxruntime="1"), there))
    assert bool(lines["CUDAExecutionProvider"].fix) is fix
    absent = {"absent": True, "version": None, "error": None}
    lines = by_name(software.tensorrt(lambda _: (absent, ""), has(), there))
    assert bool(lines["tensorrt"].fix) is fix
    assert lines["tensorrt-rtx"].fix == "pip install 'effx[rtx]'"  # it builds plans without a GPU


def modules(folder: Path, monkeypatch: pytest.MonkeyPatch, **sources: str) -> None:
    """Put modules on the path of probes, before those of the environment."""
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", os.fspath(folder))


CUDA_FROM_WHEELS = """
loaded = False
def preload_dlls():
    global loaded
    loaded = True
    print("Failed to load libcudnn_engines.so")
def get_available_providers():
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]
class SessionOptions: pass
class InferenceSession:
    def __init__(self, graph, options, providers):
        self.providers = providers if loaded or providers == ["CPUExecutionProvider"] else []
    def get_providers(self):
        return self.providers
"""


def test_cuda_libraries_are_preloaded_from_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules(tmp_path, monkeypatch, onnxruntime=CUDA_FROM_WHEELS)
    lines = by_name(software.providers(of=has(onnxruntime_gpu="1.30")))
    assert {name: line.state for name, line in lines.items()} == {
        "CUDAExecutionProvider": "ok", "CPUExecutionProvider": "ok",
    }  # fmt: skip


def test_the_library_that_a_provider_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules(tmp_path, monkeypatch, onnxruntime=CUDA_FROM_WHEELS.replace("loaded = True", "pass"))
    lines = by_name(software.providers(of=has(onnxruntime_gpu="1.30"), driver=lambda: True))
    assert lines["CUDAExecutionProvider"].state == "broken"
    assert "libonnxruntime_providers_shared.so: cannot open" in lines["CUDAExecutionProvider"].detail


def test_tensorrt_is_imported_not_only_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = "import types; __version__ = '10.9.0'; print('a library talks')"
    stub = "import ctypes\nctypes.CDLL('libnvinfer_not_here.so.10')"
    modules(tmp_path, monkeypatch, tensorrt=whole, tensorrt_rtx=stub)
    lines = by_name(software.tensorrt(of=has(tensorrt="10.9.0", tensorrt_rtx="1.5.0")))
    assert lines["tensorrt"] == Finding("runtimes", "tensorrt", "ok", "10.9.0, its libraries load")
    broken = lines["tensorrt-rtx"]
    assert broken.state == "broken"
    assert broken.detail.startswith("OSError: libnvinfer_not_here.so.10: cannot open shared object file")
    assert broken.fix == "pip install --force-reinstall --no-cache-dir tensorrt-rtx==1.5.0"


@pytest.mark.parametrize(
    ("source", "detail"),
    [
        (None, "installed, but the module is missing"),
        ("raise RuntimeError('no libraries\\nhere is a long story')", "RuntimeError: no libraries"),
        ("import os; os.abort()", "the process ended with -6"),
        ("", "AttributeError: module 'tensorrt' has no attribute '__version__'"),
    ],
)
def test_tensorrt_that_does_not_load_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | None, detail: str
) -> None:
    if source is None and importlib.util.find_spec("tensorrt"):
        pytest.skip("tensorrt is installed here")
    modules(tmp_path, monkeypatch, **({} if source is None else {"tensorrt": source}))
    line = by_name(software.tensorrt(of=has(tensorrt="10.9.0")))["tensorrt"]
    assert (line.state, line.detail) == ("broken", detail)
    assert line.fix == "pip install --force-reinstall --no-cache-dir tensorrt==10.9.0"


def test_installed_tensorrt_rtx_loads() -> None:
    installed = software.version("tensorrt-rtx")
    if installed is None:
        pytest.skip("tensorrt-rtx is not installed: pip install 'effx[rtx]'")
    line = by_name(software.tensorrt())["tensorrt-rtx"]
    assert (line.state, line.detail) == ("ok", f"{installed}, its libraries load")


def test_a_crash_in_a_probe_is_reported() -> None:
    assert software.probe("print('{\"a\": 1}')") == ({"a": 1}, "")
    assert software.probe("import nothing_of_that_name")[1].startswith("ModuleNotFoundError")
    assert "-6" in software.probe("import os; os.abort()")[1]


def test_torch_with_a_failing_gpu_is_broken() -> None:
    broken = {"built": "12.8", "available": True, "devices": ["H200"], "error": "no kernel image"}
    (line,) = software.torch(lambda _: (broken, ""), has(torch="2.9"))
    assert line.state == "broken" and "no kernel image" in line.detail


@pytest.mark.parametrize(
    ("text", "states"),
    [
        ("model name\t: X\nflags\t: avx2 avx512f avx512_vnni amx_tile amx_bf16 hypervisor",
         {"AVX2": "ok", "AVX-512": "ok", "VNNI (int8)": "ok", "BF16": "ok", "AMX": "ok"}),
        ("model name\t: Y\nflags\t: avx2 avx_vnni",
         {"AVX-512": "missing", "VNNI (int8)": "ok", "BF16": "missing"}),
        ("Features\t: asimd asimddp bf16", {"VNNI (int8)": "ok", "BF16": "ok"}),
        ("", {"instructions": "missing"}),
    ],
)  # fmt: skip
def test_missing_instructions_of_a_processor_are_reported(text: str, states: dict[str, str]) -> None:
    result = by_name(machine.processor(parse_cpuinfo(text)))
    assert {name: result[name].state for name in states} == states


def powercap(root: Path, mode: int = 0o644) -> Path:
    for folder, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0/intel-rapl:0:0", "dram")):
        directory = root / folder.split("/")[-1]
        directory.mkdir(parents=True)
        (directory / "name").write_text(name)
        (directory / "max_energy_range_uj").write_text(RANGE_UJ)
        (directory / "energy_uj").write_text("100")
        (directory / "energy_uj").chmod(mode)
    return root


def test_energy_counters_are_ok_missing_or_broken(tmp_path: Path) -> None:
    (line,) = machine.powercap(powercap(tmp_path / "good"))
    assert line.state == "ok" and line.detail == "package-0, package-0/dram"
    (line,) = machine.powercap(tmp_path / "none", tmp_path / "no board")
    assert line.state == "missing" and "virtual machines" in line.detail
    assert line.fix and "model:WATTS" in line.fix
    broken = powercap(tmp_path / "broken")
    (broken / "intel-rapl:0" / "energy_uj").write_text("nonsense")
    (line,) = machine.powercap(broken)
    assert line.state == "broken" and "cannot be read" in line.detail


def as_unprivileged_user(check: str, root: Path) -> dict[str, Any]:
    """Return the only finding of a check of ``root`` by a user without permissions."""
    code = f"""
import json, os
from pathlib import Path
from effx.doctor import machine
if os.geteuid() == 0:
    os.setgroups([]); os.setegid(65534); os.seteuid(65534)
print(json.dumps([line.to_json() for line in machine.{check}(Path({str(root)!r}))]))
"""
    for parent in (root, *root.parents):
        if Path(tempfile.gettempdir()) in parent.parents:
            parent.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = json.loads(done.stdout)
    assert isinstance(line, dict)
    return line


def test_counters_without_read_permission_are_broken_with_the_command(tmp_path: Path) -> None:
    root = powercap(tmp_path / "locked", 0o000)
    line = as_unprivileged_user("powercap", root)
    assert line["state"] == "broken"
    assert line["fix"].startswith(f"sudo chmod a+r {root}/intel-rapl:")


def test_power_rails_of_a_board_are_listed(tmp_path: Path) -> None:
    tree = board(tmp_path / "board", {"VDD_IN": (5000, 2000), "VDD_SOC": (5000, 400)})
    (line,) = machine.powercap(tmp_path / "none", tree)
    assert line.state == "missing" and line.fix == "effx profile --meter hwmon"
    (line,) = machine.power_rails(tree)
    assert line == Finding("energy", "power rails", "ok", "VDD_IN, read by effx profile --meter hwmon")
    assert list(machine.power_rails(tmp_path / "no board")) == []


def test_power_rails_of_unknown_boards_and_without_permission(tmp_path: Path) -> None:
    (line,) = machine.power_rails(board(tmp_path / "unknown", {"OTHER": (5000, 100)}))
    assert line.state == "missing" and "OTHER" in line.detail
    assert line.fix == "effx profile --meter hwmon:RAIL"
    tree = board(tmp_path / "broken", {"VDD_IN": (5000, 2000)})
    next(tree.glob("*/hwmon/hwmon*/curr1_input")).write_text("nonsense")
    (line,) = machine.power_rails(tree)
    assert line.state == "broken" and "cannot be read" in line.detail and line.fix is None
    next(tree.glob("*/hwmon/hwmon*/curr1_input")).chmod(0o000)
    locked = as_unprivileged_user("power_rails", tree)
    assert locked["state"] == "broken" and locked["fix"].startswith(f"sudo chmod a+r {tree}/")


NVML = """
import json
from tests.meters.fake import Fake
from effx.doctor import machine
from effx.host.identity import host
fake, results = Fake(), {}
for mode in ("ok", "forbidden", "unsupported", "lost"):
    fake.reset()
    fake.mode(mode)
    results[mode] = [finding.to_json() for finding in machine.gpu()]
fake.reset()
results["host"] = host().to_json()
print(json.dumps(results))
"""


def test_gpu_findings_on_a_fake_nvml(tmp_path: Path) -> None:
    library = fake.build(tmp_path)
    if library is None:
        pytest.skip("no C compiler (cc) to build the fake NVML")
    environment = {**fake.environment(library), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", NVML], env=environment, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["host"]["driver"] == "999.99"
    assert [gpu["name"] for gpu in result["host"]["gpu"]] == ["Fake H200"] * 2
    good = {line["name"]: line for line in result["ok"]}
    assert good["driver"]["detail"].startswith("999.99")
    assert good["GPU 0"]["detail"] == good["GPU 1"]["detail"] == "Fake H200"
    assert good["GPU 0 power"]["state"] == good["GPU 1 energy"]["state"] == "ok"
    assert good["GPU 0 power"]["detail"] == "300.0 W now"
    refused = {line["name"]: line for line in result["forbidden"]}
    assert refused["GPU 0 energy"]["state"] == "broken"
    assert refused["GPU 0 energy"]["fix"] == "sudo nvidia-smi -acp UNRESTRICTED"
    assert {line["name"]: line["state"] for line in result["unsupported"]}["GPU 0 energy"] == "missing"
    assert any(line["state"] != "ok" for line in result["lost"])


@pytest.mark.usefixtures("without_gpu")
def test_nvml_is_missing_without_a_driver_and_broken_with_one(tmp_path: Path) -> None:
    (line,) = machine.gpu(tmp_path / "none")
    assert line.state == "missing"
    (tmp_path / "version").write_text("NVRM version: 570")
    (line,) = machine.gpu(tmp_path / "version")
    assert line.state == "broken" and line.fix and "--gpus all" in line.fix


def container(root: Path, **values: str) -> Cgroups:
    folder = root / "fs" / "pod"
    folder.mkdir(parents=True)
    for name, value in values.items():
        (folder / name.replace("_", ".")).write_text(value)
    (root / "cgroup").write_text("0::/pod/box\n")
    return Cgroups(root / "fs", root / "cgroup")


def test_limits_of_a_container(tmp_path: Path) -> None:
    limited = container(tmp_path, cpu_max="50000 100000", memory_max="2000000000")
    result = by_name(machine.limits(limited, 16_384_000_000, parse_cpuinfo("flags : avx2 hypervisor")))
    assert result["processors"].state == "broken" and "the time of 0.5" in result["processors"].detail
    assert result["processors"].fix == "effx profile --threads 1"
    assert result["memory"].state == "broken" and "2.0 GB by the container's limit" in result["memory"].detail
    assert "virtual machine" in result
    free = container(tmp_path / "free", cpu_max="max 100000", memory_max="max")
    result = by_name(machine.limits(free, 16_384_000_000, parse_cpuinfo("flags : avx2")))
    assert result["processors"].state == "ok"
    assert result["memory"].detail == "16.4 GB"
    assert "virtual machine" not in result


def test_a_failing_check_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def strange() -> Iterator[Finding]:
        raise ValueError("an unexpected error")
        yield

    for name in ("providers", "openvino", "torch", "tensorrt"):
        monkeypatch.setattr(software, name, lambda: iter(()))
    monkeypatch.setattr(machine, "processor", strange)
    lines = examine()
    assert [line.detail for line in lines if line.name == "check"] == ["ValueError: an unexpected error"]
    assert lines[-1].topic == "disk"
