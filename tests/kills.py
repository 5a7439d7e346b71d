"""Kill and stop commands at random moments, and check that nothing is lost, half-written or left behind.

    python -m tests.kills --kills 100 --stops 50 --model MODEL --data ROWS --folder EMPTY

SIGKILL: every visible artifact opens, what was complete before is still there, no process survives, and after
the same command has run to its end nothing temporary remains. SIGTERM and SIGINT: the exit code is 143 or 130
within 10 s, nothing is printed that looks like a traceback, and nothing temporary remains right away.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
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
_LIMIT_S = 600
_ORPHANS_S = 20


@dataclass
class Campaign:
    """A folder with a tiny model's artifacts, and commands that write more of them."""

    folder: Path
    model: Path
    data: Path
    rng: random.Random

    def __post_init__(self) -> None:
        self.tmp = self.folder / "tmp"
        self.tmp.mkdir(parents=True)
        self.environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.tmp), "OMP_NUM_THREADS": "1",
            "XDG_STATE_HOME": str(self.folder / "state"), "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        (self.folder / "recipe.yaml").write_text(RECIPE.format(data=self.data, model=self.model))
        self.seconds: dict[str, float] = {}

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

    def start(self, command: str) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [sys.executable, "-m", "effx", *self.arguments(command)],
            cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def complete(self, command: str) -> list[str]:
        """Run a command to its end, several times if it resumes; return what is wrong."""
        for _ in range(4):
            begin_s = time.monotonic()
            process = self.start(command)
            _, reported = process.communicate(timeout=_LIMIT_S)
            self.seconds.setdefault(command, time.monotonic() - begin_s)
            if process.returncode != 0:
                return [f"{command}: exit code {process.returncode} when run to its end: {reported[-500:]}"]
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
                with contextlib.suppress(OSError):
                    if mark in (path / "environ").read_bytes():
                        alive.append(f"process {path.name}: {(path / 'cmdline').read_bytes()[:80]!r}")
            if not alive or time.monotonic() > limit_s:
                return alive
            time.sleep(0.2)

    def kill(self, command: str) -> list[str]:
        """Send SIGKILL at a random moment; return what is wrong."""
        before = self.inventory()
        process = self.start(command)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=self.moment(command))
        process.kill()
        process.communicate()
        wrong = self.orphans() + self.broken()
        return wrong + [f"lost: {name}" for name in sorted(before - self.inventory())]

    def stop(self, command: str, number: signal.Signals) -> list[str] | None:
        """Send SIGTERM or SIGINT at a random moment; return what is wrong; None: the command had ended."""
        before = self.inventory()
        process = self.start(command)
        moment = self.moment(command)
        try:
            process.communicate(timeout=moment)
            return None
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        begin_s = time.monotonic()
        _, reported = process.communicate(timeout=_LIMIT_S)
        seconds = time.monotonic() - begin_s
        wrong = [] if process.returncode == 128 + number else [f"exit code {process.returncode}"]
        wrong += [f"{seconds:.1f} s"] if seconds > 10 else []
        wrong += ["traceback"] if "Traceback" in reported or "Exception ignored" in reported else []
        if wrong:
            wrong.append(f"at {moment:.2f} s: {reported[-400:]}")
        wrong += self.temporary() + self.orphans() + self.broken()
        return wrong + [f"lost: {name}" for name in sorted(before - self.inventory())]

    def moment(self, command: str) -> float:
        """Return when to send a signal, in seconds from the start."""
        return self.rng.uniform(0.3, max(0.5, self.seconds[command]))

    def forget(self, command: str) -> None:
        """Remove what a command would otherwise find done."""
        folder = {"tickets": "tickets", "run": "workspace"}.get(command)
        if folder is not None:
            shutil.rmtree(self.folder / folder, ignore_errors=True)


COMMANDS = ("train", "export", "profile", "report", "tickets", "run")


def campaign(
    folder: Path, model: Path, data: Path, *, kills: int, stops: int, seed: int = 0, in_a_row: int = 5
) -> tuple[Counter[str], list[str]]:
    """Return how many signals of each kind were sent to each command, and everything that was wrong."""
    work = Campaign(folder, model, data, random.Random(seed))
    counts: Counter[str] = Counter()
    wrong: list[str] = []

    def note(what: str, faults: list[str]) -> None:
        counts[what] += 1
        wrong.extend(f"{what}: {fault}" for fault in faults)
        print(
            f"{what} {counts[what]}{''.join(f'{chr(10)}    WRONG {fault}' for fault in faults)}", flush=True
        )

    for command in COMMANDS:
        note(f"complete {command}", work.complete(command))
    commands = itertools.cycle(COMMANDS)
    sent = dict.fromkeys(("KILL", "TERM", "INT"), 0)
    wanted = {"KILL": kills, "TERM": stops, "INT": stops}
    while any(sent[name] < wanted[name] for name in sent):
        command = next(commands)
        work.forget(command)
        for name in [name for name in sent if sent[name] < wanted[name]]:
            times = min(in_a_row if name == "KILL" else max(1, in_a_row // 2), wanted[name] - sent[name])
            for _ in range(times):
                faults = (
                    work.kill(command) if name == "KILL" else work.stop(command, signal.Signals[f"SIG{name}"])
                )
                if faults is not None:
                    sent[name] += 1
                    note(f"{name} {command}", faults)
                if name == "KILL" and command in ("tickets", "run") and sent[name] % 3 == 0:
                    work.forget(command)
            if name == "KILL":
                note(f"complete {command}", work.complete(command))
                work.forget(command)
        note(f"complete {command}", work.complete(command))
    return counts, wrong


def main() -> int:
    """Run a campaign and print its counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--stops", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    for name in ("model", "data", "folder"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    counts, wrong = campaign(
        given.folder.absolute(), given.model.absolute(), given.data.absolute(),
        kills=given.kills, stops=given.stops, seed=given.seed,
    )  # fmt: skip
    print(json.dumps({"counts": counts, "wrong": wrong}, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
