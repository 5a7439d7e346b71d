"""``effx check`` as the shell script of a CI pipeline uses it, on results of real engines."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

import effx
from effx import results
from effx.cli import run
from effx.results import find
from tests.analysis.simulated_run import simulated_run
from tests.cli.test_cli import fails

FP32, INT8 = "tiny.fp32.onnxruntime", "tiny.int8.onnxruntime"
GATES = "--ignore-gates host-idle,steady-rounds,energy-linearity,energy-floor"
"""Of a session of a second on a machine that runs other tests; none of them is about predictions."""


@pytest.fixture
def folder(results_folder: Path, engines_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(results_folder, tmp_path / "results")
    (tmp_path / "engines").symlink_to(engines_folder)
    return tmp_path


def script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a script as ``set -eu`` runs it: the first command that fails ends it."""
    preamble = f'set -eu\neffx() {{ "{sys.executable}" -m effx "$@"; }}\n'
    environment = {**os.environ, "PYTHONPATH": str(Path(effx.__file__).parents[1])}
    return subprocess.run(
        ["bash", "-c", preamble + text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_pipeline_passes_fails_and_is_inconclusive(folder: Path) -> None:
    done = script(
        folder,
        f"""
        effx check engines/{INT8} --baseline {FP32} --max-drop 50% --max-size 1GB --max-p90 10s {GATES} \\
            --junit check.xml --markdown check.md
        echo deployed
        """,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("passed: every limit holds with 95 % confidence\ndeployed\n")
    suite = ElementTree.parse(folder / "check.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("4", "0")
    assert (folder / "check.md").read_text().startswith("### effx check: passed\n")

    done = script(folder, f"effx check {INT8} --max-size 1kB --max-p90 1us {GATES}\necho deployed")
    assert done.returncode == 1
    assert "deployed" not in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()[1:3]] == ["violated", "violated"]

    # 90 rows cannot show that at most 0.1 % of accuracy is lost
    done = script(folder, f"effx check {INT8} --baseline {FP32} --max-drop 0.1% {GATES}\necho deployed")
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if "--max-drop" in line]
    assert line.split()[0] == "inconclusive"
    assert "rows are needed to decide" in line or "cannot be decided" in line

    # a script can tell what failed from what could not be checked
    done = script(folder, f"effx check {INT8} --baseline {INT8} --max-drop 1% || test $? = 2 && echo refused")
    assert done.stdout == "refused\n"
    assert "is the engine itself" in done.stderr


def test_an_engine_that_was_built_again_needs_a_result_of_its_own(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for path in (folder / "results").glob("*.json"):
        value = json.loads(path.read_bytes())
        value["engine"]["digest"] = 64 * "b"
        path.write_text(json.dumps(value))
    line = fails(capsys, ["check", f"engines/{INT8}", "--max-size", "1GB"], code=2)
    assert "no result of" in line
    assert "no result of the current build of " in line and ": profile it" in line


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    results.save(simulated_run("fp32", range(40), precision="fp32"), tmp_path / "main")
    results.save(simulated_run("int8", range(42)), tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_report_of_two_folders_of_results(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    baseline, subject = (next((here / name).glob("*.json")) for name in ("main", "results"))
    arguments = ["check", str(subject), "--baseline", str(baseline), "--max-drop", "2%"]
    assert run([*arguments, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["passed"], value["engine"], value["baseline"]) == (True, "int8", "fp32")
    assert run(["check", "int8", "results", "main", "--baseline", "fp32", "--max-drop", "2%"]) == 0
    assert run([*arguments, "--markdown", "-"]) == 0
    assert capsys.readouterr().out.rpartition("###")[2].startswith(" effx check: passed\n")


def test_errors_name_the_options(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in (
        (["--max-drop", "1"], "write 0.01 or 1%"),
        (["--max-drop", "1%"], "--max-drop, --baseline"),
        ([], "there is nothing to check"),
        (["--max-joules", "5"], "'5' has no unit. Units: J, mJ"),
        (["--max-size", "1GB", "--host", "x"], "on host 'x'"),
    ):
        assert expected in fails(capsys, ["check", "int8", *arguments], code=2)
    (result,) = find([here / "results"])
    results.save(
        replace(
            result, id="elsewhere", host=replace(result.host, id="g"), started="2020-01-01T00:00:00+00:00"
        ),
        here / "results",
    )
    assert "2 hosts: g, h. Choose one. (option --host)" in fails(
        capsys, ["check", "int8", "--max-size", "1GB"], code=2
    )
