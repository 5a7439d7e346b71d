"""The GPU suite, with tiny steps on the CPU."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import write_rows

ROOT = Path(__file__).parents[1]
SUITE = [sys.executable, str(ROOT / "benchmarks" / "gpu_suite.py")]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([*SUITE, *arguments], capture_output=True, text=True, env=environment, timeout=1500)


def test_an_unknown_step_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, which has imported PyTorch already."""
    script = SUITE[1]
    monkeypatch.setattr(
        "sys.argv", [script, str(tmp_path / "o"), "--device", "cpu", "--size", "tiny", "--steps", "tracs"]
    )
    monkeypatch.syspath_prepend(str(Path(script).parent))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    assert ended.value.code == 2
    assert "unknown step tracs: choose from bert-base-half-build" in capsys.readouterr().err


@pytest.mark.slow
def test_interrupted_steps_are_resumed(tmp_path: Path, encoders: dict[str, Path]) -> None:
    out = tmp_path / "out"
    tiny = (str(out), "--device", "cpu", "--size", "tiny", "--window-s", "0.2")
    steps = ["bert-base-tickets-onnxruntime-build", "minilm-l6-exits-tokens-build", "minilm-l6-exits-tokens"]
    first = run(*tiny, "--steps", ",".join(steps), "--seconds", "0")
    assert first.returncode == 3 and "2 steps remain" in first.stderr, first.stderr
    second = run(*tiny, "--steps", ",".join(steps))
    assert second.returncode == 0, second.stderr
    assert f"{steps[0]}: done" in first.stderr and f"{steps[0]}: done" not in second.stderr
    page = (out / "README.md").read_text()
    for reduction in ("", "+exit", "+exit-if", "+tokens"):
        assert f"| minilm-l6-reduced.fp32+seq32{reduction}.onnxruntime |" in page
    assert len(list((out / "engines" / "bert-base-tickets-onnxruntime").iterdir())) == 5
    facts = json.loads((out / "environment.json").read_bytes())
    facts["host"] |= {"gpu": None, "cpu": "Another"}
    (out / "environment.json").write_text(json.dumps(facts))
    refused = run(*tiny, "--steps", steps[0])
    assert refused.returncode == 2 and "has results of Another" in refused.stderr


@pytest.mark.slow
def test_tickets_of_a_real_encoder_are_trained(tmp_path: Path, encoders: dict[str, Path]) -> None:
    out, data = tmp_path / "out", tmp_path / "data"
    rows = [{"sentence1": f"a {n}", "sentence2": f"b {n % 3}", "label": n % 2} for n in range(40)]
    for split in ("train", "validation"):
        write_rows(data / "mrpc" / f"{split}.jsonl", rows)
    done = run(
        str(out), "--device", "cpu", "--size", "tiny", "--steps", "tickets-mrpc",
        "--encoder", str(encoders["bert"]), "--data", str(data),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = json.loads((out / "tickets/mrpc/table.json").read_bytes())
    assert {cell["kind"] for cell in table["cells"]} == {"full", "winning", "random", "losing"}
    assert not [path for path in (out / "tickets/mrpc/checkpoints").iterdir() if path.is_dir()]
