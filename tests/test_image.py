"""What the images hold, tried without an image: their install script in an empty environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "docker" / "install.sh"


def test_every_target_is_installed_by_the_script_and_left_by_root() -> None:
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    targets = {match[1]: stage for stage in stages if (match := re.match(r"\S+ AS (\S+)", stage))}
    assert set(targets) == {"wheel", *re.findall(r"^  (\w+)\) +extras=", SCRIPT.read_text(), re.MULTILINE)}
    for name, stage in targets.items():
        if name != "wheel":
            assert f"install.sh {name} /wheel/" in stage
            assert re.findall(r"^USER (\S+)", stage, re.MULTILINE) == ["10001"]


def test_an_unknown_target_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run([SCRIPT, "gpu", ROOT, tmp_path / "e"], capture_output=True, text=True)
    assert done.returncode == 2 and not (tmp_path / "e").exists()
    assert done.stderr == "docker/install.sh: no target 'gpu': cpu, profile or full\n"


@pytest.mark.slow
def test_the_cpu_target_profiles_without_torch(engines_folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "effx"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [SCRIPT, "cpu", ROOT, place], capture_output=True, text=True, env={**clean, "PYTHON": sys.executable}
    )
    if "No matching distribution" in done.stderr or "Connection" in done.stderr:
        pytest.skip("no package registry can be reached")
    assert done.returncode == 0, done.stderr
    python = place / "bin" / "python"
    for module in ("torch", "transformers"):
        assert subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode == 1
    measured = subprocess.run(
        [place / "bin" / "effx", "profile", engines_folder, "-o", tmp_path / "results", "--grid", "1x8",
         "--rounds", "3", "--meter", "none", "--json"],
        capture_output=True, text=True, env=clean, cwd=tmp_path,
    )  # fmt: skip
    assert measured.returncode == 0, measured.stderr
    runs = json.loads(measured.stdout)
    assert {run["engine"]["name"] for run in runs} == {"tiny.fp32.onnxruntime", "tiny.int8.onnxruntime"}
    assert all(run["accuracy"]["n"] == 90 for run in runs)
