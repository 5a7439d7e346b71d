"""All measurements on a GPU, in steps that can be interrupted and resumed.

    python benchmarks/gpu_suite.py OUT --dry-run                     what would be run; needs no GPU
    python benchmarks/gpu_suite.py OUT                               all steps
    python benchmarks/gpu_suite.py OUT --seconds 580                 stop by then
    python benchmarks/gpu_suite.py OUT --steps traces,bert-base-half-build,bert-base-half
    python benchmarks/gpu_suite.py OUT --encoder MINILM --data DATA  also the steps that train
    python benchmarks/gpu_suite.py OUT --device cpu --size tiny      the same steps, without a GPU

First come encoders with the shapes of BERT-base and MiniLM-L6 and random weights: their accuracies mean
nothing; time, energy and memory are measured. With ``--encoder`` and ``--data`` (a folder per task), a real
encoder is trained: a frontier on SST-2, tickets of rte, mrpc, cola, stsb and sst2, several tasks together,
``effx optimize``, and pruning by measured costs. docs/gpu.md describes the steps and what they need.

Each step is a process of its own, of at most ten minutes. A step that fails does not stop the others, and
is not repeated unless it is named or ``--retry`` is given; a step that was stopped is continued. Exit code 0:
all steps are done whose inputs are here; 1: a step failed, or a named one lacks an input; 2: nothing could be
run; 3: steps remain, run it again. Use one OUT per GPU model.

    OUT/results/STEP/*.json  OUT/traces/*.json  OUT/frontier/  OUT/tickets/TASK/  OUT/multitask/
    OUT/optimize/  OUT/prune/  OUT/steps/STEP.json  OUT/logs/STEP.log  OUT/summary.json  OUT/README.md
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import math
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import gpu_plan
from gpu_plan import ROOT, Command, Input, Plan, Step

GRACE_S = 15.0
"""Seconds that a command that is stopped has to save its work."""
LEFT_OUT = ("engines", "checkpoints", "rows", "words")
WEIGHTS = (".safetensors", ".onnx", ".pt2", ".plan", ".data", ".bin", ".pt", ".xml")
"""What the archive leaves out: what can be built again, and is large."""
DONE, FAILED, UNFINISHED, LACKING, LEFT = "done", "failed", "unfinished", "lacks an input", "not started"


class Stopped(Exception):  # noqa: N818
    """The suite got a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by signal {number}")
        self.number = number


@dataclass
class Record:
    """What is known about a step; OUT/steps/STEP.json."""

    step: str
    state: str
    seconds: float = 0.0
    """Of all attempts."""
    attempts: int = 0
    reason: str | None = None
    ended: str | None = None

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """Return the record of a file; None: there is none, or it was cut off."""
        try:
            return cls(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, json.dumps(vars(self), indent=1))


class Suite:
    """Runs the steps of a plan and records them."""

    def __init__(self, plan: Plan, *, archive: Path | None, command: str) -> None:
        self.plan, self.out = plan, plan.out
        self._steps, self._archive, self._command = plan.steps(), archive, command

    def run(self, seconds: float, selected: Sequence[str], *, retry: bool) -> int:
        """Run steps until all are done or the time is over; return the exit code."""
        end = time.monotonic() + seconds
        code = 0
        try:
            for step in self._steps:
                if (selected and step.name not in selected) or not self._is_open(step, selected, retry=retry):
                    continue
                left = end - time.monotonic()
                if left < min(step.least_s, step.expected_s):
                    continue
                self._save(self._attempt(step, min(step.limit_s, left)))
        except Stopped as stop:
            code = 128 + stop.number
        finally:
            states = self.summary()
        wanted = [state for step, state in states.items() if not selected or step in selected]
        if code:
            return code
        if UNFINISHED in wanted or LEFT in wanted:
            count = wanted.count(UNFINISHED) + wanted.count(LEFT)
            print(f"{count} steps remain: run the same command again", file=sys.stderr)
            return 3
        return int(FAILED in wanted or bool(selected and LACKING in wanted))

    def record(self, name: str) -> Record | None:
        """Return what is known about a step."""
        return Record.read(self._path(name))

    def missing(self, inputs: Sequence[Input]) -> list[str]:
        """Return which inputs are not here, for a message."""
        return [text for each in inputs if (text := self._why_missing(each))]

    def summary(self) -> dict[str, str]:
        """Write summary.json, README.md and the archive; return step -> state."""
        entries, states = [], {}
        for step in self._steps:
            record = self.record(step.name)
            if record is None:
                without = self.missing(step.needs)
                record = Record(step.name, LACKING if without else LEFT, reason="; ".join(without) or None)
            states[step.name] = record.state
            facts = {name: value for name, value in vars(record).items() if name != "step"}
            entries.append({**step.to_json(), **facts, "without": self.missing(step.uses)})
        _write(self.out / "summary.json", json.dumps({"command": self._command, "steps": entries}, indent=1))
        self._write_page()
        if self._archive is not None:
            pack(self.out, self._archive)
        return states

    def _is_open(self, step: Step, selected: Sequence[str], *, retry: bool) -> bool:
        record = self.record(step.name)
        if record is None or record.state in (UNFINISHED, LACKING):
            return True
        if record.state == FAILED:
            return retry or step.name in selected
        return step.creates is not None and not step.creates.exists()

    def _attempt(self, step: Step, limit_s: float) -> Record:
        """Run a step's commands, and return its new record."""
        before = self.record(step.name) or Record(step.name, LEFT)
        if without := self.missing(step.needs):
            reason = "; ".join(without)
            print(f"{step.name}: skipped: {reason}", file=sys.stderr)
            return Record(step.name, LACKING, before.seconds, before.attempts, reason, _now())
        print(f"{step.name}: expected {step.expected_s / 60:.1f} min", file=sys.stderr, flush=True)
        began = time.monotonic()
        state, reason = DONE, None
        try:
            for command in step.commands:
                state, reason = self._execute(step, command, limit_s - (time.monotonic() - began))
                if state != DONE:
                    break
        except Stopped as stop:
            self._save(self._of(step, before, began, UNFINISHED, str(stop)))
            raise
        if state == UNFINISHED and not step.resumes and limit_s >= step.limit_s:
            state = FAILED  # the next attempt would end in the same way
        return self._of(step, before, began, state, reason)

    def _execute(self, step: Step, command: Command, limit_s: float) -> tuple[str, str | None]:
        """Run a command line and return the state and why."""
        log = self.out / "logs" / f"{step.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        if command.copies > 1:
            threads = max(1, (os.cpu_count() or 1) // command.copies)
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        with log.open("ab") as stream:
            stream.write(f"\n$ {command}\n".encode())
            stream.flush()
            processes = [
                subprocess.Popen(
                    [sys.executable, *command.arguments], stdin=subprocess.DEVNULL, stdout=stream,
                    stderr=subprocess.STDOUT, env=environment, cwd=ROOT, start_new_session=True,
                )
                for _ in range(command.copies)
            ]  # fmt: skip
            try:
                in_time = _wait(processes, limit_s)
            finally:
                _stop(processes)
        if not in_time:
            return UNFINISHED, f"stopped after {limit_s:.0f} s"
        codes = [process.returncode for process in processes]
        wrong = [code for code in codes if code and code not in command.answers]
        if not wrong:
            return DONE, None
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        return FAILED, f"exit code {wrong[0]} ({log.relative_to(self.out)}): {''.join(last)[:300]}"

    def _of(self, step: Step, before: Record, began: float, state: str, reason: str | None) -> Record:
        seconds = round(before.seconds + time.monotonic() - began, 1)
        return Record(step.name, state, seconds, before.attempts + 1, reason, _now())

    def _save(self, record: Record) -> None:
        record.write(self._path(record.step))
        if record.state != LACKING:
            said = f": {record.reason}" if record.reason else ""
            print(
                f"{record.step}: {record.state} ({record.seconds:.1f} s){said}", file=sys.stderr, flush=True
            )
            self.summary()

    def _write_page(self) -> None:
        if not (self.out / "environment.json").is_file():
            return
        try:
            import gpu_page

            gpu_page.write(self.out, self._command)
        except Exception as error:  # the results are what counts, and the page can be written again
            print(f"README.md was not written: {type(error).__name__}: {error}", file=sys.stderr)

    def _why_missing(self, wanted: Input) -> str | None:
        name = wanted.name
        if wanted.kind == "package":
            return f"package {name}" if gpu_plan.lacking([name]) else None
        if wanted.kind == "step":
            step = next(each for each in self._steps if each.name == name)
            record = self.record(name)
            done = record is not None and record.state == DONE
            return None if done and (step.creates is None or step.creates.exists()) else f"step {name}"
        if wanted.kind == "rows":
            return None if self.plan.data and Path(name).exists() else f"rows {name} (--data)"
        return None if self.plan.encoder else "encoder (--encoder)"

    def _path(self, name: str) -> Path:
        return self.out / "steps" / f"{name}.json"


def pack(out: Path, archive: Path) -> None:
    """Write what was measured and recorded, without weights, as .tar.gz."""

    def wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        parts = Path(entry.name).parts
        of_weights = bool({*parts} & {*LEFT_OUT}) or entry.name.endswith(WEIGHTS)
        return None if of_weights or any(part.endswith(".tmp") for part in parts) else entry

    archive.parent.mkdir(parents=True, exist_ok=True)
    fresh = archive.with_name(f".{archive.name}.tmp")
    with tarfile.open(fresh, "w:gz") as stream:
        for path in sorted(out.iterdir()):
            if path.resolve() not in (archive.resolve(), fresh.resolve()):
                stream.add(path, path.name, filter=wanted)
    fresh.replace(archive)


def _wait(processes: Sequence[subprocess.Popen[bytes]], limit_s: float) -> bool:
    """Wait until all processes have ended; return whether that was in time."""
    end = time.monotonic() + limit_s
    for process in processes:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
    return True


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes with their children: they are asked to save their work first."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        _signal(process, signal.SIGTERM)
    _wait(running, GRACE_S)
    for process in running:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def _write(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.tmp")
    fresh.write_text(text + "\n")
    fresh.replace(path)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def has_gpu() -> bool:
    """Whether the NVIDIA driver answers."""
    try:
        return int(ctypes.CDLL("libcuda.so.1").cuInit(0)) == 0
    except OSError:
        return False


def other_machine(out: Path) -> str | None:
    """Return the GPU or processor that OUT has results of, if it is not that of this machine."""
    import gpu_page

    from effx.host import identity

    path = out / "environment.json"
    if not path.is_file():
        return None
    before = gpu_page.where(json.loads(path.read_bytes())["host"])
    return None if before == gpu_page.where(identity.host().to_json()) else before


def print_plan(suite: Suite, steps: Sequence[Step], lacking: Sequence[str], *, as_json: bool) -> None:
    """Print steps with their expected minutes, inputs and commands."""
    if as_json:
        required = {name: gpu_plan.installed(name) for name in gpu_plan.required()}
        entries = [
            {**step.to_json(), "lacks": suite.missing(step.needs), "without": suite.missing(step.uses)}
            for step in steps
        ]
        print(json.dumps({"packages": required, "lacking": lacking, "steps": entries}, indent=1))
        return
    total = 0.0
    for step in steps:
        total += step.expected_s
        print(f"{step.name}: {step.title}")
        print(f"    about {step.expected_s / 60:.1f} min ({total / 60:.0f} min with those before), "
              f"{'continues' if step.resumes else 'starts again'} if stopped")  # fmt: skip
        for text, inputs in (("needs", step.needs), ("measures more with", step.uses)):
            if inputs:
                absent = suite.missing(inputs)
                names = [f"{each.kind} {each.name}" for each in inputs]
                print(
                    f"    {text}: {', '.join(names)}" + (f"; not here: {', '.join(absent)}" if absent else "")
                )
        for command in step.commands:
            print(f"    $ {command}")
    print(f"packages that every step needs: {', '.join(gpu_plan.required())}")
    if lacking:
        print(f"not installed: {', '.join(lacking)}")


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--seconds", type=float, default=math.inf, help="start no step that is expected to "
                        "end later, and stop what is running then")  # fmt: skip
    parser.add_argument("--steps", default="", help="names of steps to run, separated by commas")
    parser.add_argument("--window-s", type=float, default=gpu_plan.WINDOW_S,
                        help="minimum length of an energy window, s")  # fmt: skip
    parser.add_argument("--encoder", help="folder or name of an encoder, for the steps that train")
    parser.add_argument("--data", type=Path, help="folder with a folder of rows per task, for --encoder")
    parser.add_argument("--workers", type=int, default=max(1, min(8, (os.cpu_count() or 1) // 2)),
                        help="processes that share a sweep of fine-tunings")  # fmt: skip
    parser.add_argument("--retry", action="store_true", help="repeat steps that failed")
    parser.add_argument("--dry-run", action="store_true", help="print the plan")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.add_argument("--archive", type=Path, help="after every step, also write OUT without weights and "
                        "engines to this .tar.gz; unpacked into a new OUT, it resumes the suite")  # fmt: skip
    return parser


def main() -> int:
    sys.path.insert(0, str(ROOT))  # effx itself need not be installed
    options = arguments().parse_args()
    encoder = options.encoder
    if encoder and Path(encoder).exists():
        encoder = str(Path(encoder).resolve())
    plan = Plan(
        options.out.resolve(), options.device, options.size == "tiny", options.window_s, encoder,
        options.data and options.data.resolve(), max(1, options.workers), gpu_plan.available(options.device),
    )  # fmt: skip
    command = " ".join(["python", "benchmarks/gpu_suite.py", *sys.argv[1:]])
    suite = Suite(plan, archive=options.archive and options.archive.resolve(), command=command)
    steps = plan.steps()
    selected = [name for name in options.steps.split(",") if name]
    if wrong := {*selected} - {step.name for step in steps}:
        known = ", ".join(step.name for step in steps)
        print(f"unknown step {', '.join(sorted(wrong))}: choose from {known}", file=sys.stderr)
        return 2
    lacking = gpu_plan.lacking(gpu_plan.required())
    if options.dry_run:
        wanted = [step for step in steps if not selected or step.name in selected]
        print_plan(suite, wanted, lacking, as_json=options.json)
        return 0
    if lacking:
        print(f"not installed: {', '.join(lacking)}. Run: pip install {' '.join(lacking)}", file=sys.stderr)
        return 2
    if options.device == "cuda" and not has_gpu():
        print("no GPU available; --device cpu --size tiny runs the steps without one", file=sys.stderr)
        return 2
    if (before := other_machine(options.out)) is not None:
        print(
            f"{options.out} has results of {before}, not of this machine: use another OUT.", file=sys.stderr
        )
        return 2
    options.out.mkdir(parents=True, exist_ok=True)

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return suite.run(options.seconds, selected, retry=options.retry)


if __name__ == "__main__":
    sys.exit(main())
