"""What the images hold, tried without an image: their install script in an empty environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from effx.artifacts import Checkpoint
from tests.profile.meters import fake

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "docker" / "install.sh"
START = ROOT / "docker" / "start.sh"
STAGES = {
    found[1]: stage
    for stage in re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    if (found := re.match(r"\S+ AS (\S+)", stage))
}
TARGETS = re.findall(r"^  (\w+)\) +extras=", SCRIPT.read_text(), re.MULTILINE)
FROM_BASE = ("tensorrt",)
"""What NVIDIA's base image brings, which no test here has."""
GPU = """
import ctypes
import json
from effx.doctor import machine
library = ctypes.CDLL("libnvidia-ml.so.1")
library.fake_set_trace(1, (ctypes.c_double * 1)(0.0), (ctypes.c_double * 1)(300.0))
print(json.dumps([line.to_json() for line in machine.gpu()]))
"""
"""The doctor on the fake NVML, which draws 300 W."""
FULL_BYTES = 12_000_000_000


def test_every_target_is_installed_by_the_script_and_left_by_root() -> None:
    assert set(STAGES) == {"wheel", *TARGETS}
    for name in TARGETS:
        assert f"install.sh {name} /wheel/" in STAGES[name]
        assert re.findall(r"^USER (\S+)", STAGES[name], re.MULTILINE) == ["10001"]


def test_every_base_can_be_named_by_digest() -> None:
    text = (ROOT / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    arguments = re.findall(r"^ARG (\w+)=\S+:\S+$", text.split("FROM")[0], re.MULTILINE)
    assert set(bases) == {f"${{{name}}}" for name in arguments}


def test_an_unknown_target_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run([SCRIPT, "gpu", ROOT, tmp_path / "e"], capture_output=True, text=True)
    assert done.returncode == 2 and not (tmp_path / "e").exists()
    assert done.stderr == "docker/install.sh: no target 'gpu': cpu, profile or full\n"


def test_what_is_documented_brings_the_rows_that_engines_were_made_elsewhere_with() -> None:
    told = (ROOT / "docs" / "image.md").read_text().replace("\\\n", " ")
    commands = [line for line in told.splitlines() if re.search(r"effx:\w+ +(profile|export) ", line)]
    assert len(commands) == 3
    for command in commands:
        assert "-v $PWD/data:/data:ro" in command and "--data /data" in command
    head = (ROOT / "compose.yaml").read_text().split("services:")[0]
    for command in re.findall(r"^# +docker compose run .*", head, re.MULTILINE):
        assert command.endswith("--data /data")


def test_every_service_sees_the_rows_and_gpu_meters_see_the_hosts_processes() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert set(services) == set(TARGETS)
    for name, service in services.items():
        assert service["build"]["target"] == name
        kept = {volume.rsplit(":", 1)[-1] for volume in service["volumes"] if not volume.endswith(":ro")}
        stage = STAGES[name]
        assert kept == set(json.loads(re.findall(r"^VOLUME (.*)", stage, re.MULTILINE)[0]))
        assert f"--owner effx {' '.join(sorted(kept))}\n" in stage  # the user that runs may write there
        assert [volume for volume in service["volumes"] if volume.endswith(":/data:ro")]
        assert service.get("pid") == ("host" if "deploy" in service else None)
        assert ("deploy" in service) == ("NVIDIA_VISIBLE_DEVICES" in stage)


@dataclass(frozen=True)
class Installed:
    """A target in an environment of its own."""

    place: Path
    environment: dict[str, str]

    def run(self, *command: object, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the image does: with its environment first on the path."""
        return subprocess.run(
            [os.fspath(part) if isinstance(part, Path) else str(part) for part in command],
            capture_output=True, text=True, cwd=self.place.parent, env={**self.environment, **more},
        )  # fmt: skip

    def brings(self, module: str) -> bool:
        """Whether the environment itself, not the Python below it, has a module."""
        return any(self.place.glob(f"lib/python*/site-packages/{module}"))

    def imports(self, target: str) -> None:
        """Import what the Dockerfile imports after the install script, but for what its base brings."""
        (modules,) = re.findall(r"bin/python -c 'import ([^']+)'", STAGES[target])
        own = [module for module in modules.split(", ") if module not in FROM_BASE]
        done = self.run("python", "-c", f"import {', '.join(own)}")
        assert own and done.returncode == 0, done.stderr


def install(target: str, folder: Path) -> Installed:
    """Run the install script, or skip where no registry can be reached."""
    place = folder / "effx"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [SCRIPT, target, ROOT, place], capture_output=True, text=True, env={**clean, "PYTHON": sys.executable}
    )
    if "No matching distribution" in done.stderr or "Connection" in done.stderr:
        pytest.skip(f"packages cannot be had: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return Installed(place, {**clean, "PATH": f"{place / 'bin'}:{clean['PATH']}"})


@pytest.mark.slow
def test_the_cpu_target_profiles_without_torch(
    engines_folder: Path, rows_folder: Path, tmp_path: Path
) -> None:
    effx = install("cpu", tmp_path)
    for module in ("torch", "transformers"):
        assert effx.run("python", "-c", f"import {module}").returncode == 1
    measured = effx.run(
        START, "profile", engines_folder, "-o", tmp_path / "results", "--data", rows_folder, "--grid", "1x8",
        "--rounds", "3", "--meter", "none", "--json",
    )  # fmt: skip
    assert measured.returncode == 0, measured.stderr
    runs = json.loads(measured.stdout)
    assert {run["engine"]["name"] for run in runs} == {"tiny.fp32.onnxruntime", "tiny.int8.onnxruntime"}
    assert all(run["accuracy"]["n"] == 90 for run in runs)
    assert "CPUExecutionProvider" in effx.run(START).stdout  # without arguments: the doctor


@pytest.mark.slow
def test_the_profile_target_reads_a_gpu_and_leaves_its_runtime_to_the_base(tmp_path: Path) -> None:
    library = fake.build(tmp_path)
    if library is None:
        pytest.skip("no C compiler (cc) to build the fake NVML")
    effx = install("profile", tmp_path)
    effx.imports("profile")
    assert effx.brings("pynvml.py")
    assert not [
        module for module in ("torch", "transformers", "onnxruntime", "tensorrt") if effx.brings(module)
    ]
    done = effx.run("python", "-c", "import effx.profile, effx.engines.tensorrt")
    assert done.returncode == 0, done.stderr
    done = effx.run("python", "-c", GPU, LD_LIBRARY_PATH=os.fspath(library.parent))
    assert done.returncode == 0, done.stderr
    found = {line["name"]: line for line in json.loads(done.stdout)}
    assert found["GPU 0"]["detail"] == "Fake H200" and found["GPU 0 energy"]["state"] == "ok"
    told = effx.run(START).stdout  # without arguments: the doctor
    assert re.search(r"ok +nvidia-ml-py", told) and "tensorrt" in told


@pytest.mark.slow
@pytest.mark.network
def test_the_full_target_exports_measures_and_reports(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path
) -> None:
    if shutil.disk_usage(tmp_path).free < FULL_BYTES:
        pytest.skip(f"PyTorch's CUDA build needs {FULL_BYTES / 1e9:g} GB of disk")
    effx = install("full", tmp_path)
    effx.imports("full")
    assert effx.brings("onnxruntime_gpu-*") and not effx.brings("onnxruntime-*")
    engines, rows = tmp_path / "engines", ("--data", rows_folder)
    for command in (
        ("export", checkpoint.folder, "--variant", "fp32", "--device", "cpu", "-o", engines, *rows),
        ("profile", engines, "-o", tmp_path / "results", *rows, "--grid", "1x8", "--rounds", "3",
         "--meter", "none"),
        ("report", tmp_path / "results"),
    ):  # fmt: skip
        done = effx.run(START, *command)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "report" / "index.html").is_file()
    found = {line["name"]: line for line in json.loads(effx.run(START, "doctor", "--json").stdout)}
    # what preload_dlls prints where there is no CUDA stands before the answer
    assert found["CPUExecutionProvider"]["state"] == "ok" and "CUDAExecutionProvider" in found
