"""The images' install script, run in an empty environment without building an image."""

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
from tests.meters import fake

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "docker" / "install.sh"
START = ROOT / "docker" / "start.sh"
STAGES = {
    matched[1]: stage
    for stage in re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    if (matched := re.match(r"\S+ AS (\S+)", stage))
}
TARGETS = re.findall(r"^  (\w+)\) +extras=", SCRIPT.read_text(), re.MULTILINE)
FROM_BASE = ("tensorrt",)
"""Modules of NVIDIA's base image, which the tests do not have."""
GPU = """
import ctypes
import json
from effx.doctor import machine
library = ctypes.CDLL("libnvidia-ml.so.1")
library.fake_set_trace(1, (ctypes.c_double * 1)(0.0), (ctypes.c_double * 1)(300.0))
print(json.dumps([line.to_json() for line in machine.gpu()]))
"""
"""Runs the doctor on the fake NVML, which reports 300 W."""
FULL_BYTES = 12_000_000_000


def test_every_target_is_installed_by_the_script_and_runs_without_root() -> None:
    assert set(STAGES) == {"wheel", *TARGETS}
    for name in TARGETS:
        assert f"install.sh {name} /wheel/" in STAGES[name]
        assert re.findall(r"^USER (\S+)", STAGES[name], re.MULTILINE) == ["10001"]


def test_every_base_image_can_be_pinned_by_digest() -> None:
    text = (ROOT / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    arguments = re.findall(r"^ARG (\w+)=\S+:\S+$", text.split("FROM")[0], re.MULTILINE)
    assert set(bases) == {f"${{{name}}}" for name in arguments}


def test_an_unknown_target_gives_a_message_of_one_line(tmp_path: Path) -> None:
    done = subprocess.run([SCRIPT, "gpu", ROOT, tmp_path / "e"], capture_output=True, text=True)
    assert done.returncode == 2 and not (tmp_path / "e").exists()
    assert done.stderr == "docker/install.sh: unknown target 'gpu': choose cpu, profile or full\n"


def test_documented_commands_mount_the_rows() -> None:
    text = (ROOT / "docs" / "image.md").read_text().replace("\\\n", " ")
    commands = [line for line in text.splitlines() if re.search(r"effx:\w+ +(profile|export) ", line)]
    assert len(commands) == 3
    for command in commands:
        assert "-v $PWD/data:/data:ro" in command and "--data /data" in command
    head = (ROOT / "compose.yaml").read_text().split("services:")[0]
    for command in re.findall(r"^# +docker compose run .*", head, re.MULTILINE):
        assert command.endswith("--data /data")


def test_every_service_mounts_the_rows_and_gpu_services_share_the_hosts_processes() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert set(services) == set(TARGETS)
    for name, service in services.items():
        assert service["build"]["target"] == name
        written = {volume.rsplit(":", 1)[-1] for volume in service["volumes"] if not volume.endswith(":ro")}
        stage = STAGES[name]
        assert written == set(json.loads(re.findall(r"^VOLUME (.*)", stage, re.MULTILINE)[0]))
        assert f"--owner effx {' '.join(sorted(written))}\n" in stage  # the user of the image may write there
        assert [volume for volume in service["volumes"] if volume.endswith(":/data:ro")]
        assert service.get("pid") == ("host" if "deploy" in service else None)
        assert ("deploy" in service) == ("NVIDIA_VISIBLE_DEVICES" in stage)


@dataclass(frozen=True)
class Installed:
    """A target in a separate environment."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: object, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the image does, with the environment first on the path."""
        return subprocess.run(
            [os.fspath(part) if isinstance(part, Path) else str(part) for part in command],
            capture_output=True, text=True, cwd=self.folder.parent, env={**self.environment, **more},
        )  # fmt: skip

    def has(self, module: str) -> bool:
        """Return whether a module is installed in the environment itself, not in the base Python."""
        return any(self.folder.glob(f"lib/python*/site-packages/{module}"))

    def imports(self, target: str) -> None:
        """Import the modules that the Dockerfile imports, except those of its base image."""
        (modules,) = re.findall(r"bin/python -c 'import ([^']+)'", STAGES[target])
        modules_here = [module for module in modules.split(", ") if module not in FROM_BASE]
        done = self.run("python", "-c", f"import {', '.join(modules_here)}")
        assert modules_here and done.returncode == 0, done.stderr


def install(target: str, folder: Path) -> Installed:
    """Run the install script, or skip without access to a package registry."""
    environment_folder = folder / "effx"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [SCRIPT, target, ROOT, environment_folder],
        capture_output=True,
        text=True,
        env={**clean, "PYTHON": sys.executable},
    )
    if "No matching distribution" in done.stderr or "Connection" in done.stderr:
        pytest.skip(f"packages cannot be downloaded: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return Installed(environment_folder, {**clean, "PATH": f"{environment_folder / 'bin'}:{clean['PATH']}"})


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
    assert all(run["quality"]["n"] == 90 for run in runs)
    assert "CPUExecutionProvider" in effx.run(START).stdout  # without arguments: the doctor


@pytest.mark.slow
def test_the_profile_target_reads_a_gpu_without_installing_a_runtime(tmp_path: Path) -> None:
    library = fake.build(tmp_path)
    if library is None:
        pytest.skip("no C compiler (cc) to build the fake NVML")
    effx = install("profile", tmp_path)
    effx.imports("profile")
    assert effx.has("pynvml.py")
    assert not [module for module in ("torch", "transformers", "onnxruntime", "tensorrt") if effx.has(module)]
    done = effx.run("python", "-c", "import effx.profile, effx.engines.tensorrt")
    assert done.returncode == 0, done.stderr
    done = effx.run("python", "-c", GPU, LD_LIBRARY_PATH=os.fspath(library.parent))
    assert done.returncode == 0, done.stderr
    lines = {line["name"]: line for line in json.loads(done.stdout)}
    assert lines["GPU 0"]["detail"] == "Fake H200" and lines["GPU 0 energy"]["state"] == "ok"
    doctor = effx.run(START).stdout  # without arguments: the doctor
    assert re.search(r"ok +nvidia-ml-py", doctor) and "tensorrt" in doctor


@pytest.mark.slow
@pytest.mark.network
def test_the_full_target_exports_measures_and_reports(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path
) -> None:
    if shutil.disk_usage(tmp_path).free < FULL_BYTES:
        pytest.skip(f"PyTorch's CUDA build needs {FULL_BYTES / 1e9:g} GB of disk space")
    effx = install("full", tmp_path)
    effx.imports("full")
    assert effx.has("onnxruntime_gpu-*") and not effx.has("onnxruntime-*")
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
    lines = {line["name"]: line for line in json.loads(effx.run(START, "doctor", "--json").stdout)}
    assert lines["CPUExecutionProvider"]["state"] == "ok" and "CUDAExecutionProvider" in lines
