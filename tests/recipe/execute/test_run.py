"""Running a plan: order, failures, budgets, resuming; a complete recipe on a tiny encoder."""

from __future__ import annotations

import csv
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from effx import files
from effx.analysis.techniques import Compared, kind, technique
from effx.artifacts import Checkpoint
from effx.cli import run as command
from effx.errors import StoppedError, TrainingError
from effx.recipe import load, plan, run
from effx.recipe.execute import run as runs
from effx.recipe.execute import worker
from effx.recipe.execute.executors import LocalExecutor
from effx.recipe.execute.process import WorkerProcess
from effx.recipe.execute.protocol import CellInputs, CellOutcome, CellSpec, LocalPaths
from effx.recipe.execute.store import RECORD, CellRecord, CellStore
from effx.report.groups import group_runs
from effx.results import find
from effx.specs.data import DataSource

ROOT = Path(__file__).parents[3]
QUICK = """
tasks: {{sst2: {{data: {data}}}}}
models: {{tiny: {model}}}
training: {{max_steps: 2}}
regimes: {{full: {{max_length: 32}}}}
variants: {variants}
workloads: {{grid: [], rounds: 3, block_queries: 24, window_s: 0.2, meter: "model:10"}}
budgets: {{threads: 1}}
"""


@pytest.fixture
def recipe(tmp_path: Path, encoders: dict[str, Path], rows_folder: Path) -> Path:
    path = tmp_path / "quick.yaml"
    path.write_text(QUICK.format(data=rows_folder, model=encoders["bert"], variants="[fp32]"))
    return path


class Scripted:
    """An executor that completes each cell at once, with the outcomes that it is given by name."""

    host = "here"
    threads: int | None = 1
    shows_progress, queues = False, False

    def __init__(self, slots: int = 1, **outcomes: str) -> None:
        self.slots, self._outcomes = slots, outcomes
        self.started: list[str] = []
        self.most = 0
        self._running: dict[str, CellSpec] = {}

    def start(self, spec: CellSpec) -> None:
        self.started.append(spec.id)
        self._running[spec.key] = CellSpec.from_line(spec.to_line())
        self.most = max(self.most, len(self._running))

    def poll(self) -> dict[str, CellOutcome]:
        ended = {}
        for key, spec in list(self._running.items()):
            outcome = next((o for part, o in self._outcomes.items() if part in spec.name), "done")
            if outcome == "interrupt":
                raise KeyboardInterrupt
            if outcome == "hang":
                continue
            if outcome != "failed":
                self._settle(spec, outcome)
            ended[key] = CellOutcome(outcome, outcome, 1.0)
            del self._running[key]
        return ended

    def _settle(self, spec: CellSpec, outcome: str) -> None:
        with CellStore(spec.workspace).settle(spec.key) as folder:
            (folder / spec.name).mkdir()
            (folder / spec.name / "output").write_text("x")
            record = CellRecord(
                key=spec.key, stage=spec.stage, name=spec.name, outcome=outcome, note="", digest=None,
                seconds=1.0, work=1.0, group="", started="", host="", threads=1, settings=spec.settings,
                inputs=spec.inputs, sources={source.id: source.key for source in spec.sources},
            )  # fmt: skip
            (folder / RECORD).write_text(json.dumps(record.to_json()))

    def stop(self, key: str | None = None) -> None:
        for name in [key] if key else list(self._running):
            self._running.pop(name, None)

    def close(self) -> None:
        pass


def states(result: Any) -> dict[str, str]:
    return {name: entry.state for name, entry in result.plan.entries.items()}


def test_a_failure_blocks_only_the_cells_that_depend_on_it(recipe: Path, tmp_path: Path) -> None:
    sets = ["regimes={full: {}, frozen: {}}", "variants=[fp32, int8, bf16]"]
    read = load(recipe, sets, workspace=tmp_path / "w")
    result = run(read, executor=Scripted(frozen="failed", int8="gate", bf16="refused"))
    state_of = states(result)
    assert state_of["finetune sst2-tiny-frozen-s0"] == "failed"
    assert state_of["export sst2-tiny-frozen-s0.fp32.onnxruntime"] == "blocked"
    assert state_of["export sst2-tiny-full-s0.int8.onnxruntime"] == "gate"
    assert state_of["profile sst2"] == state_of["report quick"] == "done"
    assert result.exit_code == 2
    again = Scripted()
    result = run(read, executor=again)  # the gate's outcome stays; what failed is tried again, with the rest
    assert "finetune sst2-tiny-frozen-s0" in again.started
    assert not any(name.startswith("export sst2-tiny-full") for name in again.started)
    assert again.started[-2:] == ["profile sst2", "report quick"]  # there are engines that it had not
    assert result.exit_code == 1
    last = Scripted()
    assert run(read, executor=last).exit_code == 1
    assert last.started == []


def test_a_run_in_which_nothing_could_be_built_has_not_succeeded(recipe: Path, tmp_path: Path) -> None:
    read = load(recipe, workspace=tmp_path / "w")
    result = run(read, executor=Scripted(fp32="refused"))
    assert states(result)["profile sst2"] == states(result)["report quick"] == "blocked"
    assert result.exit_code == 1


def test_a_dry_run_reads_a_workspace_that_cannot_be_written(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(load(recipe, workspace=tmp_path / "w"), executor=Scripted())
    (tmp_path / "w" / ".digests.json").unlink(missing_ok=True)

    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise files.cannot_write(path, OSError(errno.EROFS, "Read-only file system"))

    monkeypatch.setattr(files, "write_atomic", refuse)
    assert command(["run", str(recipe), "-o", str(tmp_path / "w"), "--dry-run"]) == 0
    assert "4 cells in " in capsys.readouterr().out
    assert command(["run", str(recipe), "-o", str(tmp_path / "w")]) == 2
    assert "Read-only file system" in capsys.readouterr().err


def test_a_failed_cell_has_the_time_that_it_took(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(spec: CellSpec) -> CellOutcome:
        clock.append(clock[-1] + 71.0)
        raise TrainingError("it diverged")

    clock = [5.0]
    monkeypatch.setattr(worker, "settle", fail)
    monkeypatch.setattr(worker, "_log_to", lambda spec: None)
    monkeypatch.setattr(worker.time, "perf_counter", lambda: clock[-1])
    spec = CellSpec(str(tmp_path), "key", "finetune", "a", {}, LocalPaths(), CellInputs())
    assert worker._attempt(spec) == CellOutcome("failed", "it diverged", 71.0)


def test_independent_cells_run_at_once(recipe: Path, tmp_path: Path) -> None:
    executor = Scripted(slots=3)
    assert run(load(recipe, ["seeds=[0, 1, 2, 3]"], workspace=tmp_path), executor=executor).exit_code == 0
    assert executor.most == 3
    assert Counter(executor.started).most_common(1)[0][1] == 1


def test_budgets(recipe: Path, tmp_path: Path) -> None:
    read = load(recipe, ["budgets.total_s=1e-9"], workspace=tmp_path / "a")
    result = run(read, executor=Scripted())
    assert set(states(result).values()) == {"todo"} and result.exit_code == 1 and result.not_begun == 4
    read = load(recipe, ["budgets.cell_s=0.3"], workspace=tmp_path / "b")
    result = run(read, executor=Scripted(full="hang"))
    assert states(result)["finetune sst2-tiny-full-s0"] == "failed"
    assert result.plan.entries["finetune sst2-tiny-full-s0"].note == "took longer than budgets.cell_s = 0.3"


class Queue(Scripted):
    """Takes all cells at once, and does one after the other: as a cluster with one GPU."""

    queues = True

    def __init__(self, clock: list[float], took: dict[str, float]) -> None:
        super().__init__(slots=3)
        self._clock, self._took = clock, took
        self._ends: float | None = None

    def poll(self) -> dict[str, CellOutcome]:
        for key, spec in self._running.items():
            seconds = next(value for part, value in self._took.items() if part in spec.name)
            if self._ends is None:
                CellStore(spec.workspace).note("begun", key, spec.id)
                self._ends = self._clock[-1] + seconds
            if self._clock[-1] < self._ends:
                return {}
            self._ends = None
            self._settle(spec, "done")
            del self._running[key]
            return {key: CellOutcome("done", "", seconds)}
        return {}

    def stop(self, key: str | None = None) -> None:
        super().stop(key)
        self._ends = None


def test_the_time_in_a_queue_is_not_that_of_a_cell(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    passes = SimpleNamespace(monotonic=lambda: clock[-1], sleep=lambda s: clock.append(clock[-1] + s))
    monkeypatch.setattr(runs, "time", passes)
    sets = ["seeds=[0, 1, 2]", "variants=[]", "budgets.cell_s=15"]
    read = load(recipe, sets, workspace=tmp_path / "a")
    result = run(read, executor=Queue(clock, {"full": 10.0}))
    assert set(states(result).values()) == {"done"}  # the third began after 20 s
    assert clock[-1] >= 130
    read = load(recipe, sets, workspace=tmp_path / "b")
    result = run(read, executor=Queue(clock, {"s1": 40.0, "full": 10.0}))
    assert [states(result)[f"finetune sst2-tiny-full-s{seed}"] for seed in range(3)] == [
        "done", "failed", "done",
    ]  # fmt: skip
    failed = result.plan.entries["finetune sst2-tiny-full-s1"]
    assert failed.note == "took longer than budgets.cell_s = 15"
    assert failed.seconds is not None and 15 < failed.seconds < 17


def test_ctrl_c_keeps_completed_cells(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read = load(recipe, workspace=tmp_path / "w")
    with pytest.raises(StoppedError, match="1 of 4 cells are done"):
        run(read, executor=Scripted(fp32="interrupt"))
    assert (tmp_path / "w" / "checkpoints" / "sst2-tiny-full-s0" / "output").exists()
    executor = Scripted()
    assert run(read, executor=executor).exit_code == 0
    assert "finetune sst2-tiny-full-s0" not in executor.started


def test_a_cell_whose_artifact_is_damaged_is_done_again(recipe: Path, tmp_path: Path) -> None:
    read = load(recipe, workspace=tmp_path)
    result = run(read, executor=Scripted())
    cell_folder = CellStore(tmp_path).cell(result.plan.entries["profile sst2"].key)
    (cell_folder / "sst2" / "output").unlink()
    executor = Scripted()
    run(read, executor=executor)
    assert executor.started == ["profile sst2"]


def test_a_recipe_from_dry_run_to_report(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["run", str(recipe), "-o", "w"]
    assert command([*arguments, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "4 cells in w: 4 to do; no estimate" in out
    assert not Path("w").exists()
    assert command([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert {cell["state"] for cell in json.loads(captured.out)} == {"done"}
    assert "[4/4] report quick: done" in captured.err
    assert Checkpoint.open("w/checkpoints/sst2-tiny-full-s0").manifest.training.settings["max_steps"] == 2
    (result,) = find([Path("w/results/sst2")])
    assert result.name == "sst2-tiny-full-s0.fp32.onnxruntime"
    assert Path("w/report/index.html").is_file()
    resolved = load("w/results/quick.yaml", workspace="w")
    assert resolved.training.given() == {"max_steps": 2}
    assert command(arguments) == 0
    captured = capsys.readouterr()
    assert "4 cells in w: 4 done" in captured.out and "started" not in captured.err
    assert Counter(line["event"] for line in CellStore("w").journal()) == {"begun": 4, "done": 4}
    assert command([*arguments, "--dry-run", "--set", "variants=[fp32, int8]"]) == 0
    out = capsys.readouterr().out
    assert "6 cells" not in out and "5 cells in w: 2 done, 3 to do; about" in out


@pytest.mark.slow
def test_a_report_tells_after_how_many_queries_a_ticket_has_paid(recipe: Path, tmp_path: Path) -> None:
    """By the estimate of the recipe's meter, which measures trainings and queries alike."""
    workspace = tmp_path / "w"
    ticket = ["--set", "pruned={t: {of: full, level: 50}}"]
    assert command(["run", str(recipe), "-o", str(workspace), *ticket]) == 0
    runs = {found.name.partition("-s0")[0]: found for found in find([workspace / "results" / "sst2"])}
    full, reduced = runs["sst2-tiny-full"], runs["sst2-tiny-full-t"]
    kinds = [expense.kind for expense in reduced.engine.expenses or ()]
    assert kinds == ["training", "importance", "training"]
    assert reduced.engine.expenses is not None and full.engine.expenses is not None
    assert reduced.engine.expenses[0] == full.engine.expenses[0]
    extra = 0.0
    for expense in reduced.engine.expenses[1:]:
        assert expense.cost is not None and expense.cost.energy.joules is not None
        assert expense.cost.energy.source == "model"
        assert expense.cost.energy.joules == pytest.approx(10 * expense.cost.cpu_s, abs=0.02)
        extra += expense.cost.energy.joules
    with (workspace / "report" / "training-costs.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["engine"] == reduced.name and row["compared with"] == full.name
    assert float(row["training J"]) == pytest.approx(extra)
    assert row["source"] == "model (model:10)"


def test_a_plain_encoder_is_compared_with_reduced_ones_of_another(
    recipe: Path, tmp_path: Path, encoders: dict[str, Path]
) -> None:
    both = f"models={{big: {encoders['bert']}, small: {{source: {encoders['distilbert']}, only: [full]}}}}"
    sets = [both, "regimes.fewer={layers: 2, drop_layers: symmetric, max_length: 32}"]
    assert run(load(recipe, sets, workspace=tmp_path / "w")).exit_code == 0
    results = find([tmp_path / "w/results/sst2"])
    assert {result.name.removesuffix("-s0.fp32.onnxruntime") for result in results} == {
        "sst2-big-full", "sst2-big-fewer", "sst2-small-full",
    }  # fmt: skip
    assert len({result.session for result in results}) == 1
    (group,) = group_runs(results)
    compared = Compared.of(group.runs)
    assert {kind(result, compared): technique(result).text for result in group.runs} == {
        "bert: not reduced": "not reduced", "distilbert: not reduced": "not reduced",
        "bert: layers (symmetric)": "2 layers, symmetric",
    }  # fmt: skip
    frontier = next(each for each in group.frontiers if each.objectives == ("quality", "latency"))
    assert len(frontier.points) == 3
    (reduced,) = (result for result in results if "fewer" in result.name)
    assert reduced.engine.structure is not None and reduced.engine.structure.numbers == [1, 3]
    assert "distilbert: not reduced" in (tmp_path / "w/report/frontier-latency.svg").read_text()


def spec_of(folder: Path, name: str, **settings: Any) -> CellSpec:
    """A fine-tuning of two steps."""
    return CellSpec(
        workspace=str(folder / "w"), key=f"key-{name}", stage="finetune", name=name,
        settings={"task": "sst2", "max_steps": 2, "max_length": 32, **settings},
        local_paths=LocalPaths(DataSource(str(folder / "rows")), str(folder / "encoder")),
        inputs=CellInputs(), run_key=f"key-{name}", threads=1,
    )  # fmt: skip


def test_a_worker_does_several_cells_one_after_the_other(
    tmp_path: Path, encoders: dict[str, Path], rows_folder: Path
) -> None:
    (tmp_path / "rows").symlink_to(rows_folder)
    (tmp_path / "encoder").symlink_to(encoders["bert"])
    store = CellStore(tmp_path / "w")
    store.create()
    worker = WorkerProcess(spec_of(tmp_path, "a"))
    try:
        outcomes = [worker.wait()]
        for spec in (spec_of(tmp_path, "bad", layers=99), spec_of(tmp_path, "b"), spec_of(tmp_path, "a")):
            worker.give(spec)
            outcomes.append(worker.wait())
        assert [outcome.outcome for outcome in outcomes] == ["done", "failed", "done", "done"]
        assert "layers" in outcomes[1].note and outcomes[3].already_done
        assert "train b: 160 rows" in store.log("key-b").read_text()
        assert "train b" not in store.log("key-a").read_text()
        first, second = (Checkpoint.open(store.cell(f"key-{name}") / name) for name in "ab")
        assert first.manifest.metrics == second.manifest.metrics
        worker.give(spec_of(tmp_path, "c", max_steps=100_000))
        while not store.log("key-c").exists() or "train c" not in store.log("key-c").read_text():
            assert worker.poll() is None
            time.sleep(0.05)
    finally:
        worker.stop()
    assert not worker.alive
    assert sorted(path.name for path in (store.folder / "cells").iterdir()) == ["key-a", "key-b"]
    assert [path for path in (store.folder / "locks").iterdir() if path.name != ".guard"] == []


def start(recipe: Path, workspace: Path, *more: str, stderr: int | None = None) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "effx", "run", str(recipe), "-o", str(workspace), *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(arguments, cwd=workspace.parent, env=environment, stdout=subprocess.DEVNULL,
                            stderr=stderr, preexec_fn=_heed_ctrl_c)  # fmt: skip


def _heed_ctrl_c() -> None:
    """A shell starts background jobs with SIGINT ignored, and these tests may run in one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def twice(workspace: Path) -> list[str]:
    """Return the cells that were begun again after they were done."""
    done: set[str] = set()
    repeated = []
    for line in CellStore(workspace).journal():
        if line["event"] == "begun" and line["key"] in done:
            repeated.append(line["cell"])
        if line["event"] == "done":
            done.add(line["key"])
    return repeated


@pytest.mark.slow
def test_a_run_killed_at_random_moments_is_completed_by_the_next(recipe: Path, tmp_path: Path) -> None:
    workspace, rng = tmp_path / "w", random.Random(0)
    sets = ["--set", "variants=[fp32, int8]"]
    for _ in range(5):
        process = start(recipe, workspace, *sets)
        time.sleep(rng.uniform(1, 12))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(recipe, workspace, *sets).wait(300) == 0
    read = load(recipe, ["variants=[fp32, int8]"], workspace=workspace)
    planned = plan(read, LocalExecutor(read.budgets).host)
    assert {entry.state for entry in planned.entries.values()} == {"done"}
    assert twice(workspace) == []
    assert len(list((workspace / "cells").iterdir())) == len(planned.entries)


@pytest.mark.slow
def test_two_runs_at_once_share_the_cells(recipe: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    sets = ["--set", "variants=[fp32, int8]"]
    assert [process.wait(300) for process in [start(recipe, workspace, *sets) for _ in range(2)]] == [0, 0]
    events = Counter((line["event"], line["key"]) for line in CellStore(workspace).journal())
    assert set(events.values()) == {1}


@pytest.mark.slow
def test_a_signal_stops_a_run_in_order(recipe: Path, tmp_path: Path) -> None:
    with start(recipe, tmp_path / "w", "--set", "seeds=[0]", stderr=subprocess.PIPE) as process:
        store, until = CellStore(tmp_path / "w"), time.monotonic() + 120
        while not any(line["event"] == "begun" for line in store.journal()) and time.monotonic() < until:
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        last = process.stderr.read().decode().splitlines()[-1]
        assert process.wait(60) == 130
    assert last.startswith("effx: stopped; ")
    assert last.endswith(f"To resume: effx run {recipe} --set 'seeds=[0]' -o {tmp_path / 'w'}")
    assert not list((tmp_path / "w" / "cells").glob(".*"))
    assert not list((tmp_path / "w" / "locks").glob("[0-9a-f]*"))
    assert start(recipe, tmp_path / "w").wait(300) == 0
    assert twice(tmp_path / "w") == []
