"""Imports run one way, and the light parts stay light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import effx

ROOT = Path(effx.__file__).parent


def test_runtimes_report_to_nobody(tmp_path: Path) -> None:
    """ONNX Runtime from 1.29 on begins a session of telemetry, and a file, when it is imported."""
    code = "import effx, onnxruntime; print(onnxruntime.__version__)"
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    environment |= {"TMPDIR": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": str(ROOT.parent)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert list(tmp_path.iterdir()) == []


BASE = {
    "errors",
    "files",
    "memory",
    "artifacts",
    "results",
    "tasks",
    "metrics",
    "data",
    "encoding",
    "corpus",
    "progress",
    "exit_rules",
    "levels",
    "locks",
}
MAY_IMPORT = {
    **dict.fromkeys(BASE, BASE),
    "models": BASE | {"models"},
    "train": BASE | {"models", "train"},
    "engines": BASE | {"engines"},
    "export": BASE | {"models", "engines", "train", "export"},
    "profile": BASE | {"engines", "profile"},
    "demo": BASE | {"models", "train", "export", "engines", "profile"},
    "recipe": BASE | {"models", "train", "export", "engines", "profile", "recipe"},
    "doctor": BASE | {"profile", "doctor"},
    "cli": BASE | {"models", "train", "export", "engines", "profile", "demo", "recipe", "doctor", "cli"},
}
TORCH_FREE = BASE | {"engines", "profile"}
TORCH = {"torch", "transformers", "accelerate", "safetensors", "onnxscript"}


def modules() -> list[Path]:
    return [path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem[:2] != "__"]


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    names = imported(path)
    ours = {name.split(".")[1] for name in names if name.startswith("effx.")}
    ours -= {"__version__"}
    assert ours <= MAY_IMPORT[part], f"{path} may not import {ours - MAY_IMPORT[part]}"
    if part in TORCH_FREE and path.name != "torch.py":  # the engine that is a PyTorch program
        assert not {name.split(".")[0] for name in names} & TORCH


@pytest.mark.parametrize(
    "code", ["import effx", "import effx.profile", "import effx.cli as c; c.run(['--help'])"]
)
def test_light_imports_load_no_torch(code: str) -> None:
    check = "import sys; bad = {'torch', 'transformers'} & set(sys.modules); assert not bad, bad"
    subprocess.run([sys.executable, "-c", f"{code}\n{check}"], check=True, capture_output=True)


def test_help_is_quick() -> None:
    """Processor time, not wall time, and far from the limit of half a second."""
    code = (
        "import resource, subprocess, sys; "
        "subprocess.run([sys.executable, '-m', 'effx', '--help'], check=True, stdout=subprocess.DEVNULL); "
        "use = resource.getrusage(resource.RUSAGE_CHILDREN); print(use.ru_utime + use.ru_stime)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(done.stdout) < 0.5


def test_public_names_exist() -> None:
    import effx.engines
    import effx.export
    import effx.models
    import effx.profile
    import effx.train

    for module in (effx.engines, effx.export, effx.models, effx.profile, effx.train):
        for name in module.__all__:
            assert hasattr(module, name), f"{module.__name__}.{name}"
