"""Imports run one way, and the light parts stay light."""

from __future__ import annotations

import ast
import graphlib
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import effx

ROOT = Path(effx.__file__).parent


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_runtimes_report_to_nobody(tmp_path: Path, runtime: str) -> None:
    """ONNX Runtime from 1.29 on, and OpenVINO, begin a session of telemetry, and a file, when imported."""
    code = f"import effx, {runtime}"
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    environment |= {"TMPDIR": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": str(ROOT.parent)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert list(tmp_path.iterdir()) == []


FLOORS: dict[str, set[str]] = {
    "errors": set(),
    "progress": {"errors"},
    "quiet": set(),
    "signals": set(),
    "scratch": {"errors", "files", "signals"},
    "corpus": set(),
    "files": {"errors", "signals"},
    "formatting": set(),
    "stats": {"errors"},
    "specs": {"errors", "stats"},
    "host": {"errors", "files", "progress", "signals"},
    "encoding": {"errors", "records", "specs"},
    "structure": {"errors"},
    "data": {"corpus", "errors", "files", "formatting", "host", "progress", "records", "specs"},
    "records": {"errors"},
    "model_files": {"errors", "records", "specs"},
    "costs": {"records", "specs"},
    "row_slices": {"specs"},
    "manifests": {"costs", "errors", "records", "specs", "stats", "structure"},
    "tickets": {"costs", "errors", "files", "manifests", "records", "specs", "structure"},
    "artifacts": {"costs", "errors", "files", "manifests", "records", "specs"},
    "meters": {"costs", "errors", "host", "records", "results", "specs"},
    "results": {
        "costs",
        "errors",
        "files",
        "host",
        "manifests",
        "progress",
        "records",
        "row_slices",
        "specs",
        "stats",
    },
}
"""Ground floor: what each part may import, all of it without PyTorch."""
BASE = set(FLOORS)
MEASURE = BASE | {"engines", "profile"}
ANSWER = BASE | {"analysis", "report"}
MAKE = BASE | {"models", "train", "engines", "export"}
MAY_IMPORT = {
    **FLOORS,
    "models": BASE,
    "train": BASE | {"models"},
    "engines": BASE,
    "export": BASE | {"models", "engines"},
    "profile": BASE | {"engines"},
    "analysis": BASE,
    "report": ANSWER,
    "demo": MAKE | MEASURE | ANSWER,
    "optimize": MAKE | MEASURE | ANSWER,
    "recipe": MAKE | MEASURE | ANSWER | {"demo", "optimize"},
    "doctor": MEASURE,
    "cli": MAKE | MEASURE | ANSWER | {"demo", "optimize", "recipe", "doctor"},
}
TORCH_FREE = MEASURE | ANSWER
TORCH = {"torch", "transformers", "accelerate", "safetensors", "onnxscript"}


_IN_STRINGS = re.compile(r"^effx(?:\.\w+)+$|(?:import|from|-m) (effx(?:\.\w+)+)")


def modules() -> list[Path]:
    return [path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem[:2] != "__"]


def imported(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = {match[1] or match[0] for match in _IN_STRINGS.finditer(node.value)}
            modules |= {name for name in named if name.split(".")[1] in MAY_IMPORT}  # not effx.json
    return modules


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    names = imported(path)
    ours = {name.split(".")[1] for name in names if name.startswith("effx.")}
    ours -= {"__version__"}
    allowed = MAY_IMPORT[part] | {part}
    assert ours <= allowed, f"{path} may not import {ours - allowed}"
    if part in TORCH_FREE and path.name != "torch.py":  # the engine that is a PyTorch program
        assert not {name.split(".")[0] for name in names} & TORCH


def runtime_imports(path: Path) -> set[str]:
    """What a module imports when it runs, in functions too; imports for type checking alone are left out."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_no_module_imports_itself_through_others() -> None:
    named = {
        ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in ROOT.rglob("*.py")
    }
    graph = {name: (runtime_imports(path) & named.keys()) - {name} for name, path in named.items()}
    packages = {name for name, path in named.items() if path.name == "__init__.py"}
    for (
        name,
        imports,
    ) in graph.items():  # `from effx.a import b`, b a module: the package itself is no dependency
        graph[name] = {
            other
            for other in imports
            if other not in packages or not any(more.startswith(f"{other}.") for more in imports)
        }
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, with the cycle


def test_no_package_has_a_fifth_of_the_lines() -> None:
    lines = Counter[str]()
    for path in ROOT.rglob("*.py"):
        lines[path.relative_to(ROOT).parts[0]] += len(path.read_text().splitlines())
    assert max(lines.values()) < 0.2 * lines.total(), lines.most_common(3)


@pytest.mark.parametrize(
    "code",
    [
        "import effx",
        "import effx.profile",
        "import effx.analysis",
        "import effx.report",
        "import effx.cli as c; c.run(['--help'])",
    ],
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
