"""Kill and stop commands at random moments, and check that nothing is lost, half-written or left behind.

    python -m tests.kills --kills 100 --stops 50 --model MODEL --data ROWS --folder EMPTY [--seconds 600]

With ``--seconds`` it ends after that time, and the same command continues in the same folder.


SIGKILL: every visible artifact opens, what was complete before is still there, no process survives, and after
the same command has run to its end nothing temporary remains. SIGTERM and SIGINT: the exit code is 143 or 130
within 10 s, nothing is printed that looks like a traceback, and nothing temporary remains right away. They
are sent once effx handles signals. Before that, for some hundredths of a second, Python itself starts, and a
signal ends it in its own way.

Importing PyTorch and ONNX Runtime takes most of the time of a tiny command. Every fifth signal is sent to a
new process, at any moment from its start, imports included; the others to a child that a process forks which
has imported what commands import, so that most signals arrive while a command works. A stop that takes more
than 10 s may be the fault of other work on the machine: it is repeated at the same moment, and is wrong if it
takes more than 10 s three times.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import math
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from effx import results
from effx.artifacts import Checkpoint, Engine
from effx.profile.journal import FOLDER as UNFINISHED

ROOT = Path(__file__).parents[1]
RECIPE = """
tasks: {{sst2: {{data: {data}}}}}
models: {{tiny: {model}}}
training: {{max_steps: 10}}
regimes: {{full: {{max_length: 32}}}}
variants: [fp32]
workloads: {{grid: [], rounds: 3, block_queries: 24, meter: none}}
budgets: {{threads: 1}}
"""
_PROGRESS = "progress.json"
_LIMIT_S = 1800
_STOP_LIMIT_S = 10
_STOP_REPEATS = 3
_ORPHANS_S = 20
_NEW_EVERY = 5
"""Of so many signals, the first goes to a new process, the others to a forked one."""


class Command:
    """A command that runs: a new process, or a fork of :class:`Starter`."""

    def __init__(self, folder: Path, environment: dict[str, str], arguments: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "effx", *arguments],
            cwd=folder, env=environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    @property
    def number(self) -> int:
        """The process number."""
        return self._process.pid

    def wait_for_handlers(self) -> None:
        """Wait until the process handles SIGTERM, or has ended."""
        while (caught := _caught_signals(self.number)) is not None and not caught & _SIGTERM_BIT:
            time.sleep(0.005)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self, limit_s: float) -> tuple[int, str] | None:
        """Return the exit code, or minus the signal that killed it, and stderr; None: it has not ended."""
        try:
            _, reported = self._process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return None
        return self._process.returncode, reported


class ForkedCommand(Command):
    """A command in a fork of a process that has imported everything."""

    def __init__(self, starter: Starter, folder: Path, arguments: list[str]) -> None:
        self._starter, self._reported = starter, folder / "stderr.txt"
        self._number = starter.fork(arguments, self._reported)
        self._ended: tuple[int, str] | None = None

    @property
    def number(self) -> int:
        return self._number

    def send(self, number: signal.Signals) -> None:
        if self._ended is None:
            os.kill(
                self._number, number
            )  # not waited for before the starter reports its end: it still exists

    def wait(self, limit_s: float) -> tuple[int, str] | None:
        if self._ended is None and (code := self._starter.ended(limit_s)) is not None:
            self._ended = code, self._reported.read_text(errors="replace")
        return self._ended


_SIGTERM_BIT = 1 << (signal.SIGTERM - 1)
_PF_EXITING = 0x4
"""A flag of the kernel: the process has called exit; freeing its memory takes some tenths of a second."""


def _is_exiting(number: int) -> bool:
    """Whether a process has ended by itself, so that a signal no longer reaches it."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return True
    return bool(int(fields[6]) & _PF_EXITING)


def _caught_signals(number: int) -> int | None:
    """Return the mask of the signals that a process handles; None: it has ended."""
    try:
        status = Path(f"/proc/{number}/status").read_text()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return None if fields["State"].split()[0] == "Z" else int(fields["SigCgt"], 16)


class Starter:
    """A process that has imported what commands import, and forks one child at a time for a command."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kills", "--starter"], cwd=folder,
            env={**environment, _COMPILER_FOLDER: str(folder / "compiler")}, bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.number = self._process.pid
        self._line()  # it has imported everything

    def fork(self, arguments: list[str], stderr: Path) -> int:
        """Start a command; return its process number."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([arguments, str(stderr)]).encode() + b"\n")
        return int(self._line())

    def ended(self, limit_s: float) -> int | None:
        """Return the exit code, or minus the signal that killed the command; None: it has not ended."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], limit_s)[0]:
            return None
        return int(self._line())

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = bytearray()
        while not line.endswith(b"\n"):
            byte = self._process.stdout.read(1)
            if not byte:
                raise RuntimeError("the starter ended")
            line += byte
        return bytes(line)

    def end(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


_COMPILER_FOLDER = "TORCHINDUCTOR_CACHE_DIR"
"""PyTorch creates it, in TMPDIR by default, when it is imported."""
_IMPORTED = (
    "torch", "transformers.models.auto.modeling_auto", "transformers.models.bert.modeling_bert", "onnx",
    "onnxruntime", "effx.cli.finetune", "effx.cli.tickets", "effx.cli.export", "effx.cli.profile",
    "effx.cli.report", "effx.cli.recipe", "effx.train.finetune", "effx.train.tickets", "effx.export.build",
    "effx.profile.run", "effx.report", "effx.recipe",
)  # fmt: skip


def serve_forks() -> None:
    """Import everything, then fork a child for each line of stdin: arguments and a file for stderr."""
    for name in _IMPORTED:
        importlib.import_module(name)
    del os.environ[_COMPILER_FOLDER]  # commands choose it themselves
    report = os.fdopen(os.dup(1), "wb", buffering=0)
    report.write(b"ready\n")
    for line in sys.stdin.buffer:
        arguments, stderr = json.loads(line)
        number = os.fork()
        if number == 0:
            _run_command(arguments, stderr)
        report.write(f"{number}\n".encode())
        _, status = os.waitpid(number, 0)
        report.write(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _run_command(arguments: list[str], stderr: str) -> None:
    """Run a command in a forked child as ``python -m effx`` does, then end it."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
    sys.argv[1:] = arguments
    from effx.__main__ import main as run_effx

    run_effx()
    sys.exit(0)


@dataclass
class Campaign:
    """A folder with a tiny model's artifacts, and commands that write more of them."""

    folder: Path
    model: Path
    data: Path
    rng: random.Random

    def __post_init__(self) -> None:
        self.tmp = self.folder / "tmp"
        self.tmp.mkdir(parents=True, exist_ok=True)
        self.environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.tmp), "OMP_NUM_THREADS": "1",
            "XDG_STATE_HOME": str(self.folder / "state"), "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        (self.folder / "recipe.yaml").write_text(RECIPE.format(data=self.data, model=self.model))
        self.seconds: dict[str, float] = {}
        """Command -> seconds that it takes in a fork."""
        self.signals = 0
        """How many signals were sent."""
        self.repeated = 0
        """How many stops took more than 10 s and were repeated."""
        begin_s = time.monotonic()
        self.starter = Starter(self.folder, self.environment)
        self.import_s = time.monotonic() - begin_s

    def arguments(self, command: str) -> list[str]:
        """Return the command line of one of the commands."""
        train = ["--model", str(self.model), "--data", str(self.data), "--max-length", "32", "--max-steps"]
        lines = {
            "train": ["train", "finetune", "sst2", *train, "20", "--name", "a", "--overwrite"],
            "tickets": ["train", "tickets", "sst2", *train, "3", "--levels", "40", "--kinds", "winning",
                        "--seeds", "1", "-o", "tickets"],
            "export": ["export", "checkpoints/a", "--variant", "fp32", "--overwrite", "--jobs", "1"],
            "profile": ["profile", "engines", "--rounds", "3", "--grid", "none", "--meter", "none"],
            "report": ["report", "results", "-o", "report"],
            "run": ["run", "recipe.yaml", "-o", "workspace"],
        }  # fmt: skip
        if command == "profile" and (left := sorted((self.folder / "results" / UNFINISHED).glob("*.jsonl"))):
            return ["profile", "--resume", left[0].stem]
        return lines[command]

    def start(self, command: str) -> Command:
        """Start a command: every so-many-th in a new process, the others forked."""
        if self.new_process:
            return Command(self.folder, self.environment, self.arguments(command))
        return ForkedCommand(self.starter, self.folder, self.arguments(command))

    @property
    def new_process(self) -> bool:
        """Whether the next command is started in a new process."""
        return self.signals % _NEW_EVERY == 0

    def complete(self, command: str) -> list[str]:
        """Run a command to its end, several times if it resumes; return what is wrong."""
        for attempt in range(4):
            begin_s = time.monotonic()
            ended = ForkedCommand(self.starter, self.folder, self.arguments(command)).wait(_LIMIT_S)
            if ended is None or ended[0] != 0:
                code, reported = ended or ("none", "")
                return [f"{command}: exit code {code} when run to its end: {reported[-500:]}"]
            if attempt == 0:
                self.seconds[command] = time.monotonic() - begin_s
            if not (self.folder / "results" / UNFINISHED).exists():
                break
        return self.temporary()

    def temporary(self) -> list[str]:
        """Return what is left of temporary files."""
        left = [path for path in self.tmp.iterdir() if path.name != f"effx-{os.getuid()}"]
        left += [
            path for path in self.folder.rglob(".*") if "tmp" in path.name and self.tmp not in path.parents
        ]
        return [f"left behind: {path.relative_to(self.folder)}" for path in left]

    def broken(self) -> list[str]:
        """Return which artifacts do not open."""
        wrong: list[str] = []

        def check(what: Path, opens: Callable[[], object]) -> None:
            try:
                opens()
            except Exception as error:
                wrong.append(f"{what.relative_to(self.folder)}: {type(error).__name__}: {error}")

        for path in self.visible("checkpoints", "tickets/checkpoints", "workspace/checkpoints"):
            check(path, lambda path=path: Checkpoint.open(path))  # type: ignore[misc]
        for path in self.visible("engines", "workspace/engines"):
            check(path, lambda path=path: Engine.open(path))  # type: ignore[misc]
        for path in self.visible("results", "workspace/results"):
            if path.suffix == ".json":
                check(path, lambda path=path: results.open_run(path))  # type: ignore[misc]
        for path in (
            *self.folder.glob("*/cells/[0-9a-f]*/cell.json"),
            *self.folder.glob("report/frontier.json"),
        ):
            check(path, lambda path=path: json.loads(path.read_bytes()))  # type: ignore[misc]
        for path in self.visible("report"):
            if path.stat().st_size == 0:
                wrong.append(f"report/{path.name}: empty")
        return wrong

    def visible(self, *folders: str) -> list[Path]:
        """Return what is in some folders, hidden files aside."""
        return [
            path for name in folders if (self.folder / name).is_dir()
            for path in sorted((self.folder / name).iterdir())
            if not path.name.startswith(".") and path.name not in ("report", UNFINISHED)
        ]  # fmt: skip

    def inventory(self) -> set[str]:
        """Return the artifacts that are complete."""
        return {
            str(path.relative_to(self.folder)) for path in self.visible("checkpoints", "engines", "results")
        }

    def orphans(self) -> list[str]:
        """Return processes of the campaign that outlive their command."""
        mark = f"TMPDIR={self.tmp}".encode()
        limit_s = time.monotonic() + _ORPHANS_S
        while True:
            alive = []
            for path in Path("/proc").glob("[0-9]*"):
                if path.name == str(self.starter.number):
                    continue
                with contextlib.suppress(OSError):
                    if mark in (path / "environ").read_bytes():
                        alive.append(f"process {path.name}: {(path / 'cmdline').read_bytes()[:80]!r}")
            if not alive or time.monotonic() > limit_s:
                return alive
            time.sleep(0.2)

    def kill(self, command: str) -> list[str] | None:
        """Send SIGKILL at a random moment; return what is wrong; None: the command had ended."""
        before = self.inventory()
        process = self.start(command)
        if process.wait(self.moment(command)) is not None:
            return None
        process.send(signal.SIGKILL)
        ended = process.wait(_LIMIT_S)
        wrong = self.orphans() + self.broken()
        if ended is None or ended[0] not in (0, -signal.SIGKILL):
            wrong.append(f"ended by itself: {ended}")
        return wrong + [f"lost: {name}" for name in sorted(before - self.inventory())]

    def stop(self, command: str, number: signal.Signals) -> list[str] | None:
        """Send SIGTERM or SIGINT at a random moment; return what is wrong; None: the command had ended."""
        moment = self.moment(command)
        for _ in range(_STOP_REPEATS):
            before = self.inventory()
            process = self.start(command)
            process.wait_for_handlers()
            if process.wait(moment) is not None:
                return None
            if _is_exiting(process.number):
                process.wait(_LIMIT_S)
                return None
            process.send(number)
            begin_s = time.monotonic()
            code, reported = process.wait(_LIMIT_S) or (None, "")
            seconds = time.monotonic() - begin_s
            wrong = [] if code == 128 + number else [f"exit code {code}"]
            wrong += ["traceback"] if "Traceback" in reported or "Exception ignored" in reported else []
            if wrong:
                wrong.append(f"at {moment:.2f} s: {reported[-400:]}")
            wrong += self.temporary() + self.orphans() + self.broken()
            wrong += [f"lost: {name}" for name in sorted(before - self.inventory())]
            if wrong or seconds <= _STOP_LIMIT_S:
                return wrong
            self.repeated += 1
            print(f"ended {seconds:.1f} s after the signal at {moment:.2f} s: repeated", flush=True)
        return [f"ended more than {_STOP_LIMIT_S} s after the signal, {_STOP_REPEATS} times"]

    def moment(self, command: str) -> float:
        """Return when to send a signal, in seconds from the start."""
        imports_s = self.import_s if self.new_process else 0.0
        return self.rng.uniform(0.0, imports_s + self.seconds[command])

    def forget(self, command: str) -> None:
        """Remove what a command would otherwise find done."""
        folder = {"tickets": "tickets", "run": "workspace"}.get(command)
        if folder is not None:
            shutil.rmtree(self.folder / folder, ignore_errors=True)


COMMANDS = ("train", "export", "profile", "report", "tickets", "run")


@dataclass
class Progress:
    """What a campaign has done so far, kept in its folder."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Command -> seconds that it takes in a fork."""
    sent: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("KILL", "TERM", "INT"), 0))
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    turns: int = 0
    """How many times a command had its turn."""

    @classmethod
    def of(cls, folder: Path) -> Progress:
        """Return that of an earlier call, or none."""
        if not (folder / _PROGRESS).exists():
            return cls()
        value = json.loads((folder / _PROGRESS).read_bytes())
        return cls(**{**value, "counts": Counter(value["counts"])})

    def save(self, folder: Path) -> None:
        """Write it into the campaign's folder."""
        (folder / _PROGRESS).write_text(json.dumps(vars(self)))

    def note(self, what: str, faults: list[str]) -> None:
        """Count and print something that was done, and what was wrong with it."""
        self.counts[what] += 1
        self.wrong.extend(f"{what}: {fault}" for fault in faults)
        lines = "".join(f"\n    WRONG {fault}" for fault in faults)
        print(f"{what} {self.counts[what]}{lines}", flush=True)


def campaign(
    folder: Path,
    model: Path,
    data: Path,
    *,
    kills: int,
    stops: int,
    seed: int = 0,
    in_a_row: int = 5,
    seconds: float = math.inf,
) -> Progress:
    """Send signals until all are sent or the time is over; return what was done, earlier calls included."""
    end_s = time.monotonic() + seconds
    done = Progress.of(folder)
    work = Campaign(folder, model, data, random.Random(f"{seed} {sum(done.sent.values())}"))
    work.seconds, work.signals = done.seconds, sum(done.sent.values())
    wanted = {"KILL": kills, "TERM": stops, "INT": stops}
    for command in COMMANDS:
        if command not in done.seconds and time.monotonic() < end_s:
            done.note(f"complete {command}", work.complete(command))
            done.save(folder)
    while any(done.sent[name] < wanted[name] for name in wanted) and time.monotonic() < end_s:
        command = COMMANDS[done.turns % len(COMMANDS)]
        done.turns += 1
        work.forget(command)
        for name in [name for name in wanted if done.sent[name] < wanted[name]]:
            times = min(in_a_row if name == "KILL" else max(1, in_a_row // 2), wanted[name] - done.sent[name])
            for _ in range(times):
                if time.monotonic() > end_s:
                    break
                _send_one(work, done, command, name)
                done.save(folder)
            if name == "KILL":
                done.note(f"complete {command}", work.complete(command))
                work.forget(command)
        done.note(f"complete {command}", work.complete(command))
        done.save(folder)
    work.starter.end()
    return done


def _send_one(work: Campaign, done: Progress, command: str, name: str) -> None:
    """Send one signal to one command, unless it ends before its moment."""
    faults = work.kill(command) if name == "KILL" else work.stop(command, signal.Signals[f"SIG{name}"])
    if faults is not None:
        done.sent[name] += 1
        done.counts[f"{'new' if work.new_process else 'forked'} process"] += 1
        done.note(f"{name} {command}", faults)
        work.signals += 1
        done.counts["repeated stops"] += work.repeated
        work.repeated = 0
    if name == "KILL" and command in ("tickets", "run") and done.sent[name] % 3 == 0:
        work.forget(command)


def main() -> int:
    """Run a campaign and print its counts."""
    if sys.argv[1:2] == ["--starter"]:
        serve_forks()
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--stops", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=math.inf)
    for name in ("model", "data", "folder"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    # A shell starts background jobs with SIGINT ignored; children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    done = campaign(
        given.folder.absolute(), given.model.absolute(), given.data.absolute(),
        kills=given.kills, stops=given.stops, seed=given.seed, seconds=given.seconds,
    )  # fmt: skip
    print(json.dumps({"sent": done.sent, "counts": done.counts, "wrong": done.wrong}, indent=1))
    return 1 if done.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
