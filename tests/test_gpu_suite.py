"""The GPU suite: its plan, its command lines, and tiny steps on the CPU."""

from __future__ import annotations

import importlib
import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from effx import models, recipe
from effx.artifacts import Checkpoint
from effx.cli import cli
from effx.encoding import Encoded
from effx.errors import EffxError
from effx.meters import replay
from effx.models import evaluate
from effx.specs.data import DataSource
from effx.specs.measurement import MeasurementPlan
from effx.specs.optimize import OptimizeSettings
from effx.specs.tickets import TicketSearchSettings
from tests.conftest import write_rows
from tests.meters import fake

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
SUITE = [sys.executable, str(BENCHMARKS / "gpu_suite.py")]
ALL_BACKENDS = ("torch", "torch-compile", "onnxruntime", "tensorrt")


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, Any]]:
    """The scripts, as modules."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        names = ("gpu_plan", "gpu_suite", "gpu_steps")
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(BENCHMARKS))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SUITE, *arguments], capture_output=True, text=True, timeout=1500)


def plans(modules: dict[str, Any], folder: Path, encoder: Path = Path("encoder")) -> list[Any]:
    plan = modules["gpu_plan"].Plan
    common = {"out": folder / "out", "encoder": str(encoder), "data": folder / "data"}
    return [
        plan(device="cuda", backends=ALL_BACKENDS, **common),
        plan(device="cuda", backends=("torch", "torch-compile"), **common),
        plan(device="cpu", tiny=True, backends=ALL_BACKENDS[:3], **common),
    ]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[str]], tuple[str, dict[str, Any]]]:
    """Parse an effx command line; returns the name of the command and what it would be called with."""
    found: list[tuple[str, dict[str, Any]]] = []

    def record(command: click.Command, context: click.Context) -> None:
        if not isinstance(command, click.Group):
            found.append((str(command.name), dict(context.params)))

    monkeypatch.setattr(click.Command, "invoke", record)

    def parse(arguments: Sequence[str]) -> tuple[str, dict[str, Any]]:
        found.clear()
        cli.main(list(arguments), prog_name="effx", standalone_mode=False, obj={})
        (one,) = found
        return one

    return parse


def test_every_command_line_is_understood(
    modules: dict[str, Any],
    tmp_path: Path,
    encoders: dict[str, Path],
    parsed: Callable[[Sequence[str]], tuple[str, dict[str, Any]]],
) -> None:
    """Each is parsed by the real parser; settings that are checked later are checked here, too."""
    seen = set()
    (tmp_path / "out").mkdir()
    for task in modules["gpu_plan"].TICKET_TASKS:
        pair = task not in ("sst2", "cola")
        texts = {"sentence1": "a", "sentence2": "b"} if pair else {"sentence": "a"}
        for split in ("train", "validation"):
            rows = [{**texts, "label": n % 2 + 0.0 if task == "stsb" else n % 2} for n in range(4)]
            write_rows(tmp_path / "data" / task / f"{split}.jsonl", rows)
    encoder = Path(shutil.copytree(encoders["bert"], tmp_path / "encoder"))
    config = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 512}))
    for plan in plans(modules, tmp_path, encoder):
        for step in plan.steps():
            for command in step.commands:
                first, *rest = command.arguments
                if first == "-m" and rest[0] == "effx":
                    name, values = parsed(rest[1:])
                    seen.add(name)
                    check(name, values)
                elif first == "-m":
                    assert rest[:3] == ["pytest", "-m", "gpu"]
                else:
                    assert Path(first) == BENCHMARKS / "gpu_steps.py"
                    options = modules["gpu_steps"].arguments().parse_args(rest)
                    assert (options.step, options.device) == (step.name, plan.device)
    assert seen == {
        "doctor", "run", "recommend", "tickets", "compare", "finetune", "optimize", "cost-table", "prune",
    }  # fmt: skip


def check(name: str, values: dict[str, Any]) -> None:
    """Check what a command checks before its work."""
    if name == "run":
        loaded = recipe.load(values["recipe"], values["assignments"], workspace=values["out"])
        assert recipe.plan(loaded, "host").entries
    if name in ("optimize", "tickets"):
        kind = {"optimize": OptimizeSettings, "tickets": TicketSearchSettings}[name]
        known = {key: value for key, value in values.items() if value is not None}
        defaults = kind().to_json() if name == "optimize" else {}
        kind.of(**{key: value for key, value in known.items() if key in defaults})
    if "data_path" in values and values["data_path"] is not None:
        DataSource(str(values["data_path"]))


def test_steps_cover_what_is_to_be_measured_in_this_order(modules: dict[str, Any], tmp_path: Path) -> None:
    full, without, _ = plans(modules, tmp_path)
    names = [step.name for step in full.steps()]
    assert len(names) == len(set(names))
    ordered = [
        "environment", "tests", "bert-base-half", "traces", "minilm-l6-exits-tokens", "frontier",
        *(f"tickets-{task}" for task in ("rte", "mrpc", "cola", "stsb", "sst2")), "multitask",
        "optimize-latency", "prune",
    ]  # fmt: skip
    assert [name for name in names if name in ordered] == ordered
    for model in ("bert-base", "minilm-l6"):
        sets = {each.name.removeprefix(f"{model}-"): each for each in full.comparisons(model)}
        built = {
            (backend, variant)
            for each in sets.values() for backend, variants in each.wanted.items() for variant in variants
        }  # fmt: skip
        for backend in ("torch", "tensorrt"):
            assert {(backend, precision) for precision in ("fp32", "fp16", "bf16")} <= built
        assert {("onnxruntime", "fp32"), ("onnxruntime", "fp16"), ("torch-compile", "bf16")} <= built
        assert {"ticket-20", "ticket-40", "ticket-50", "ticket-60", "full"} == set(
            sets["tickets-torch-compile"].checkpoints
        )
        assert {("torch", "fp16+seq128+exit"), ("torch", "fp16+seq128+tokens")} <= built
        assert all(each.wanted for each in without.comparisons(model))
    assert all("tensorrt" not in step.name for step in without.steps())
    assert all(step.expected_s <= step.limit_s or step.resumes for step in without.steps())


def test_the_gpu_tests_are_all_in_the_files_of_their_step(modules: dict[str, Any]) -> None:
    """With one file named, pytest does not collect the other tests, which need more packages."""
    marked = [path for path in (ROOT / "tests").rglob("*.py") if "pytest.mark.gpu" in path.read_text()]
    marked = [path for path in marked if path != Path(__file__)]
    assert [str(path.relative_to(ROOT)) for path in marked] == [modules["gpu_plan"].GPU_TESTS]


def test_packages_are_those_of_the_project(modules: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    plan = modules["gpu_plan"]
    required = plan.required()
    assert {"pydantic", "ruamel.yaml", "torch", "onnx", "nvidia-ml-py", "matplotlib"} <= set(required)
    assert not {"openvino", "effx", "py-cpuinfo", "tensorrt"} & set(required)
    versions = {"onnxruntime-gpu": "1.31", "torch": "2.11"}
    monkeypatch.setattr(plan, "installed", versions.get)
    assert plan.lacking(["torch", "onnxruntime", "pydantic"]) == ["pydantic"]
    assert plan.available("cuda") == ("torch", "torch-compile", "onnxruntime")


def test_a_dry_run_lists_steps_minutes_and_inputs(tmp_path: Path, encoders: dict[str, Path]) -> None:
    data = tmp_path / "data"
    (data / "rte").mkdir(parents=True)
    listed = run(
        str(tmp_path / "out"), "--dry-run", "--json", "--encoder", str(encoders["bert"]), "--data", str(data)
    )
    assert listed.returncode == 0, listed.stderr
    found = json.loads(listed.stdout)
    steps = {step["step"]: step for step in found["steps"]}
    assert all(step["expected_min"] > 0 and step["commands"] for step in steps.values())
    assert steps["tickets-rte"]["lacks"] == []
    assert steps["tickets-mrpc"]["lacks"] == [f"rows {data / 'mrpc'} (--data)"]
    assert steps["prune"]["lacks"][0] == "step optimize-finetune"
    assert steps["tickets-rte"]["needs"][0] == {"kind": "encoder", "name": str(encoders["bert"])}
    assert steps["tests"]["without"] == ["package onnxruntime-gpu", "package tensorrt"]
    assert found["packages"]["pydantic"] and found["lacking"] == ["nvidia-ml-py"][: len(found["lacking"])]
    assert not (tmp_path / "out").exists()
    text = run(str(tmp_path / "out"), "--dry-run", "--steps", "traces").stdout
    assert "traces: power and energy counter" in text and "needs: package nvidia-ml-py" in text
    assert "bert-base" not in text


def test_an_unknown_step_is_refused(
    modules: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("sys.argv", [SUITE[1], str(tmp_path / "o"), "--device", "cpu", "--steps", "tracs"])
    assert modules["gpu_suite"].main() == 2
    assert "unknown step tracs: choose from environment, tests, bert-base-half" in capsys.readouterr().err


class Scripted:
    """A suite whose steps run short Python programs."""

    def __init__(self, modules: dict[str, Any], out: Path, steps: dict[str, Any]) -> None:
        plan = modules["gpu_plan"]

        class Planned(plan.Plan):  # type: ignore[misc, name-defined]
            def steps(self) -> list[Any]:
                return [self.one(name, values) for name, values in steps.items()]

            def one(self, name: str, values: dict[str, Any]) -> Any:
                programs = values.pop("programs") if "programs" in values else []
                answers, copies = values.pop("answers", ()), values.pop("copies", 1)
                commands = tuple(plan.Command(("-c", text), copies, answers) for text in programs)
                return plan.Step(name, name, commands, **{"expected_s": 0.1, **values})

        self.out, self.archive = out, out.parent / "out.tar.gz"
        out.mkdir(parents=True, exist_ok=True)
        self.suite = modules["gpu_suite"].Suite(
            Planned(out), archive=self.archive, command="gpu_suite.py OUT"
        )

    def run(self, seconds: float = 60.0, selected: tuple[str, ...] = (), *, retry: bool = False) -> int:
        return int(self.suite.run(seconds, selected, retry=retry))

    def states(self) -> dict[str, str]:
        return {each["step"]: each["state"] for each in self.read()}

    def read(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.out / "summary.json").read_bytes())["steps"]
        return found


def test_a_step_that_fails_does_not_stop_the_others(modules: dict[str, Any], tmp_path: Path) -> None:
    plan, out = modules["gpu_plan"], tmp_path / "out"
    count = f"open({str(out / 'runs')!r}, 'a').write('x'); raise ValueError('no kernel image')"
    steps = {
        "fails": {"programs": [count, "print('never')"]},
        "crashes": {"programs": ["import os; os.abort()"]},
        "lacks": {"programs": ["print()"], "needs": plan.packages(["no-such-package"])},
        "after": {"programs": ["print()"], "needs": (plan.Input("step", "fails"),)},
        "answers": {"programs": ["raise SystemExit(1)", "print('second')"], "answers": (1,)},
    }
    scripted = Scripted(modules, out, {name: dict(values) for name, values in steps.items()})
    assert scripted.run() == 1
    assert scripted.states() == {
        "fails": "failed", "crashes": "failed", "lacks": "lacks an input", "after": "lacks an input",
        "answers": "done",
    }  # fmt: skip
    reasons = {each["step"]: each["reason"] for each in scripted.read()}
    assert reasons["fails"] == "exit code 1 (logs/fails.log): ValueError: no kernel image"
    assert reasons["lacks"] == "package no-such-package" and reasons["after"] == "step fails"
    assert "never" not in (out / "logs/fails.log").read_text().split("$")[1].split("\n", 1)[1]
    again = Scripted(modules, out, {name: dict(values) for name, values in steps.items()})
    assert again.run() == 1 and (out / "runs").read_text() == "x"  # a failed step is not repeated
    assert again.run(retry=True) == 1 and (out / "runs").read_text() == "xx"
    assert again.run(selected=("fails",)) == 1 and (out / "runs").read_text() == "xxx"


def test_what_is_stopped_continues_and_what_has_no_time_is_not_started(
    modules: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    waits = (
        "import pathlib, signal, sys, time\n"
        f"mark = pathlib.Path({str(out / 'mark')!r})\n"
        "if mark.exists(): sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, lambda *_: (mark.write_text('saved'), sys.exit(143)))\n"
        "time.sleep(60)\n"
    )
    steps = {
        "sweep": {"programs": [waits], "resumes": True},
        "long": {"programs": ["print()"], "expected_s": 1000.0},
    }
    scripted = Scripted(modules, out, {name: dict(values) for name, values in steps.items()})
    assert scripted.run(3.0) == 3
    assert scripted.states() == {"sweep": "unfinished", "long": "not started"}
    assert (out / "mark").read_text() == "saved"
    again = Scripted(modules, out, {name: dict(values) for name, values in steps.items()})
    assert again.run(2000.0) == 0
    assert again.states() == {"sweep": "done", "long": "done"}
    assert [each["attempts"] for each in again.read()] == [2, 1]


def test_copies_of_a_command_divide_the_work(modules: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = f"import os, pathlib; pathlib.Path({str(out)!r}, str(os.getpid())).touch()"
    scripted = Scripted(modules, out, {"sweep": {"programs": [program], "copies": 3}})
    assert scripted.run() == 0
    assert len([path for path in out.iterdir() if path.name.isdigit()]) == 3


def test_the_archive_has_results_and_no_weights(modules: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    scripted = Scripted(modules, out, {"step": {"programs": ["print('hello')"]}})
    for name in ("results/a/r.json", "engines/e/model.onnx", "optimize/cells/k/m/model.safetensors",
                 "optimize/cells/k/cell.json", "optimize/checkpoints/full/config.json"):  # fmt: skip
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("{}")
    assert scripted.run() == 0
    with tarfile.open(scripted.archive) as archive:
        files = {entry.name for entry in archive if entry.isfile()}
    assert files == {"results/a/r.json", "optimize/cells/k/cell.json", "steps/step.json", "logs/step.log",
                     "summary.json"}  # fmt: skip


def test_a_signal_ends_the_running_command_and_leaves_a_summary(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*SUITE, str(out), "--device", "cpu", "--size", "tiny", "--steps", "minilm-l6-others-build"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert "minilm-l6-others-build: expected" in process.stderr.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    process.stderr.close()
    entries = json.loads((out / "summary.json").read_bytes())["steps"]
    assert {each["step"]: each["state"] for each in entries}["minilm-l6-others-build"] == "unfinished"


def test_encoders_with_random_weights_have_the_shapes_of_their_reductions(
    modules: dict[str, Any], tmp_path: Path
) -> None:
    steps = modules["gpu_steps"].Steps(tmp_path, "cpu", True, 0.1)
    made = {name: Checkpoint.open(steps.checkpoint("minilm-l6-half", name))
            for name in ("full", "ticket-50", "reduced")}  # fmt: skip
    sizes = {
        name: [(len(layer.heads), layer.intermediate) for layer in each.manifest.structure.layers]
        for name, each in made.items()
    }
    assert sizes == {"full": [(4, 128)] * 3, "ticket-50": [(2, 64)] * 3, "reduced": [(4, 128)] * 3}
    assert made["full"].manifest.exits is None and made["full"].max_length == 32
    reduced = made["reduced"].manifest
    assert reduced.structure.exits == (1, 2) and reduced.structure.prunes_tokens
    model = models.load(made["reduced"].folder)
    rng = np.random.default_rng(1)
    ids = rng.integers(5, model.config.vocab_size, (64, 32))
    rows = Encoded(ids.reshape(-1), np.zeros(64 * 32, np.int8), np.arange(65) * 32, 0)
    assert reduced.exits is not None
    _, depth, _ = evaluate.reduced(model, rows, rule=reduced.exits.rule)
    assert set(depth) <= {1, 2, 3}
    assert reduced.exits.calibration.mean_depth <= 0.5 * 1 + 0.5 * 3  # half leave after the first layer
    assert {path.name for path in (tmp_path / "rows").iterdir()} == {"train.jsonl", "validation.jsonl"}


def test_traces_are_recorded_and_can_be_replayed(tmp_path: Path) -> None:
    """Beside a fake GPU that draws 300 W: what is replayed has the joules of that power over its time."""
    library = fake.build(tmp_path)
    if library is None:
        pytest.skip("no C compiler (cc) to build the fake NVML")
    done = subprocess.run(
        [sys.executable, "-m", "tests.meters.run_beside_gpu", str(BENCHMARKS / "gpu_steps.py"),
         str(tmp_path / "out"), "traces", "--device", "cpu", "--size", "tiny"],
        cwd=ROOT, env=fake.environment(library), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = {path.stem: path for path in (tmp_path / "out/traces").iterdir()}
    assert {*files} == {"idle", "steady", "bursts-200ms", "bursts-25ms"}
    for path in files.values():
        trace = json.loads(path.read_bytes())
        assert len(trace["t_s"]) == len(trace["power_w"]) == len(trace["counter_j"]) > 10
        assert trace["power_w"] == pytest.approx([300.0] * len(trace["power_w"]), abs=0.1)
        # the fake GPU's clock follows the real one, on a busy machine some time later
        assert trace["counter_j"] == sorted(trace["counter_j"])
        assert trace["counter_j"][-1] == pytest.approx(300.0 * trace["t_s"][-1], abs=300.0 * 0.5)
        replay.open(str(path)).close()


def test_traces_need_a_gpu(
    modules: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_gpu: None
) -> None:
    with pytest.raises(EffxError, match="no traces: "):
        modules["gpu_steps"].Steps(tmp_path, "cuda", False, 10.0).run("traces")


@pytest.mark.slow
def test_interrupted_steps_are_resumed(tmp_path: Path, encoders: dict[str, Path]) -> None:
    out = tmp_path / "out"
    tiny = (str(out), "--device", "cpu", "--size", "tiny", "--window-s", "0.2")
    steps = ["environment", "minilm-l6-exits-tokens-build", "minilm-l6-exits-tokens"]
    first = run(*tiny, "--steps", ",".join(steps), "--seconds", "220")
    assert first.returncode == 3 and "steps remain" in first.stderr, first.stderr
    second = run(*tiny, "--steps", ",".join(steps))
    assert second.returncode == 0, second.stderr
    assert "environment: done" in first.stderr and "environment: done" not in second.stderr
    page = (out / "README.md").read_text()
    for reduction in ("", "+exit", "+exit-if", "+tokens"):
        assert f"| minilm-l6-reduced.fp32+seq32{reduction}.onnxruntime |" in page
    assert "| minilm-l6-exits-tokens | done |" in page
    facts = json.loads((out / "environment.json").read_bytes())
    facts["host"] |= {"gpu": None, "cpu": "Another"}
    (out / "environment.json").write_text(json.dumps(facts))
    refused = run(*tiny, "--steps", steps[0])
    assert refused.returncode == 2 and "has results of Another" in refused.stderr


@pytest.mark.slow
def test_tickets_of_a_real_encoder_are_trained_and_resumed_from_the_archive(
    tmp_path: Path, encoders: dict[str, Path]
) -> None:
    out, data = tmp_path / "out", tmp_path / "data"
    rows = [{"sentence1": f"a {n}", "sentence2": f"b {n % 3}", "label": n % 2} for n in range(40)]
    for split in ("train", "validation"):
        write_rows(data / "mrpc" / f"{split}.jsonl", rows)
    options = ("--device", "cpu", "--size", "tiny", "--steps", "tickets-mrpc", "--encoder",
               str(encoders["bert"]), "--data", str(data), "--workers", "2")  # fmt: skip
    done = run(str(out), *options, "--archive", str(tmp_path / "a.tar.gz"))
    assert done.returncode == 0, done.stderr
    table = json.loads((out / "tickets/mrpc/table.json").read_bytes())
    assert {cell["kind"] for cell in table["cells"]} == {"full", "winning", "random", "losing"}
    assert not [*(out / "tickets/mrpc").rglob("model.safetensors")]
    elsewhere = tmp_path / "elsewhere"
    with tarfile.open(tmp_path / "a.tar.gz") as archive:
        archive.extractall(elsewhere, filter="data")
    (elsewhere / "steps/tickets-mrpc.json").unlink()
    again = run(str(elsewhere), *options)
    assert again.returncode == 0, again.stderr
    found = json.loads((elsewhere / "tickets/mrpc/table.json").read_bytes())
    assert found["cells"] == table["cells"]  # to the last digit and second: nothing was trained again


def test_measurements_have_the_scenarios_and_shapes_of_the_page(
    modules: dict[str, Any], tmp_path: Path
) -> None:
    steps = modules["gpu_steps"].Steps(tmp_path, "cuda", False, 10.0)
    (first, *_) = modules["gpu_plan"].Plan(tmp_path).comparisons("bert-base")
    plan: MeasurementPlan = steps.measurement(first)
    assert (128, 128) in plan.grid and plan.scenarios == ("single-stream", "offline")
    assert plan.window_s == 10.0 and plan.windows == 2
