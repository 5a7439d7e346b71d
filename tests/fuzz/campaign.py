"""Run commands on damaged files, and check how they fail.

    python -m tests.fuzz.campaign OUT [--kinds result,recipe] [--shard 0/2] [--processes 50] [--seconds 600]

A command has to refuse: exit code 1 or 2, one line that begins with ``effx:``, in 10 s of processor time,
with no traceback, no control character and nothing left behind. Exit code 0 is right for what a target allows
only. Commands run in this process; every so-many-th runs in a process of its own as well, whose memory is
measured.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from effx import scratch as temporary_folders
from effx.cli import run
from effx.errors import EffxError
from effx.results import Failure, read
from tests.fuzz.targets import TARGETS, Case, Target, copied

LIMIT_S = 10
LIMIT_BYTES = 1 << 30
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True)
class Outcome:
    """What a command did with one case."""

    target: str
    case: str
    code: int
    seconds: float
    problem: str
    """Empty: it did what is right."""
    message: str


class _Hung(BaseException):
    pass


class Fuzzer:
    """Damages the folders of one target and runs its command on them."""

    def __init__(self, target: Target, scratch: Path) -> None:
        self.target, self._scratch = target, scratch
        self.folder = scratch / "valid"
        self.folder.mkdir(parents=True)
        target.write(self.folder)

    def cases(self) -> list[Case]:
        """Return all cases of the target."""
        return list(self.target.cases(self.folder))

    def valid(self) -> Outcome:
        """Run the command on the folder as it was written."""
        case = Case(self.target.name, "valid", "", "valid", lambda copy: None)
        return self.check(case, accepted=True)

    def check(self, case: Case, *, accepted: bool = False, process: bool = False) -> Outcome:
        """Run the command on one case and check what it does."""
        work = self._scratch / "work"
        shutil.rmtree(work, ignore_errors=True)
        inside = copied(self.folder, work / "inside")
        case.damage(inside)
        (work / "tmp").mkdir()
        before = _snapshot(work)
        started = _cpu_s()
        code, output, memory = (_in_process if process else _in_place)(self.target.arguments, work)
        # A process of its own imports everything first; the same case has run in this process as well.
        seconds = 0.0 if process else _cpu_s() - started
        recorded = _recorded_failures(inside / self.target.failures) if self.target.failures and code else []
        reasons = [f"{failure.name}: " for failure in recorded] or ["effx: "]
        messages = [line for line in output.splitlines() if line.startswith(tuple(reasons))]
        wrong = list(self._problems(code, output, seconds, memory, accepted or self.target.accepts(case)))
        if code and len(messages) != 1:
            wrong.append("not one line")
        left = {name for name in _snapshot(work) ^ before if not self._is_output(name, code, bool(recorded))}
        if left:
            wrong.append(f"left or changed {sorted(left)[0]}")
        message = messages[0] if messages else ""
        return Outcome(self.target.name, case.name, code, round(seconds, 2), "; ".join(wrong), message[:200])

    def _is_output(self, name: str, code: int, recorded: bool) -> bool:
        if recorded and name.startswith(f"inside/{self.target.failures}"):
            return True
        if name.startswith((f"tmp/effx-{os.getuid()} ", f"tmp/effx-{os.getuid()}/")):  # locks of the user
            return True
        return code == 0 and any(name.startswith(f"inside/{path}") for path in self.target.outputs)

    def _problems(self, code: int, output: str, seconds: float, memory: int, accepted: bool) -> Iterator[str]:
        if code not in (0, 1, 2):
            yield f"exit code {code}"
        if code == 0 and not accepted:
            yield "accepted"
        if "Traceback" in output:
            yield "traceback"
        if _CONTROL.search(output):
            yield "control character"
        if max(map(len, output.splitlines()), default=0) > 2000:
            yield "long line"
        if seconds > LIMIT_S:
            yield f"{seconds:.0f} s"
        if memory > LIMIT_BYTES:
            yield f"{memory >> 20} MiB"


def _recorded_failures(folder: Path) -> list[Failure]:
    """Return the failures in a folder; none if there is anything else in it."""
    if not folder.is_dir():
        return []
    try:
        runs, failures = read([folder])
    except EffxError:
        return []
    return [] if runs or len(failures) != len(list(folder.iterdir())) else failures


def _in_place(arguments: Sequence[str], work: Path) -> tuple[int, str, int]:
    """Run a command in this process; return its exit code, its output and 0."""

    def hung(number: int, frame: object) -> None:
        raise _Hung

    temporary_folders.of_process()  # that of this process is not a folder that the command left
    output, before, temporary = io.StringIO(), Path.cwd(), tempfile.tempdir
    os.chdir(work / "inside")
    tempfile.tempdir = str(work / "tmp")
    handler = signal.signal(signal.SIGALRM, hung)
    signal.alarm(10 * LIMIT_S)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = run(list(arguments))
    except _Hung:
        code = 124
    except BaseException as error:  # what the command line did not catch
        code = 70
        output.write(f"Traceback: {type(error).__name__}: {error}")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        os.chdir(before)
        tempfile.tempdir = temporary
    return code, output.getvalue(), 0


def _in_process(arguments: Sequence[str], work: Path) -> tuple[int, str, int]:
    """Run a command in a process of its own; return its exit code, output and peak memory in bytes."""
    code = (
        "import resource, sys; from effx.cli import run; code = run(sys.argv[1:]); "
        "print(f'peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}', file=sys.stderr); sys.exit(code)"
    )
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "TMPDIR": str(work / "tmp"), "PYTHONPATH": root}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=work / "inside", env=environment, timeout=60,
            capture_output=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 124, "", 0
    output = (done.stdout + done.stderr).decode(errors="surrogateescape")
    peak = re.search(r"^peak (\d+)$", output, re.M)
    return done.returncode, re.sub(r"^peak \d+$", "", output, flags=re.M), 1024 * int(peak[1]) if peak else 0


def _cpu_s() -> float:
    """Return processor seconds of this process and of those that it waited for: others may be at work."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _snapshot(folder: Path) -> set[str]:
    """Return name, kind and size of everything in a folder, as lines."""
    lines = set()
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        size = "" if path.is_dir() else f" {status.st_size} {status.st_mtime_ns}"
        lines.add(f"{path.relative_to(folder)} {status.st_mode:o}{size}")
    return lines


def campaign(
    target: Target, scratch: Path, *, shard: tuple[int, int] = (0, 1), every: int = 50
) -> Iterator[Outcome]:
    """Yield what the command of a target does with each of its cases."""
    fuzzer = Fuzzer(target, scratch)
    valid = fuzzer.valid()
    if valid.code or valid.problem:
        raise SystemExit(f"{target.name}: the valid folder is refused: {valid.message} {valid.problem}")
    for number, case in enumerate(fuzzer.cases()):
        if number % shard[1] == shard[0]:
            yield fuzzer.check(case)
            if number // shard[1] % every == 0:
                yield fuzzer.check(case, process=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kinds", default=None)
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--processes", type=int, default=50, metavar="N", help="every Nth in its own process")
    parser.add_argument("--seconds", type=float, default=math.inf, help="end each kind after that time")
    options = parser.parse_args()
    index, count = map(int, options.shard.split("/"))
    targets = all_targets()
    names = options.kinds.split(",") if options.kinds else [target.name for target in targets]
    counts: dict[str, Counter[str]] = {}
    wrong: list[Outcome] = []
    for target in targets:
        if target.name not in names:
            continue
        with tempfile.TemporaryDirectory(prefix="effx-fuzz-") as scratch:
            kind = counts[target.name] = Counter()
            end_s = time.monotonic() + options.seconds
            for outcome in campaign(target, Path(scratch), shard=(index, count), every=options.processes):
                kind["cases"] += 1
                kind["accepted" if outcome.code == 0 else "refused"] += 1
                kind["wrong"] += bool(outcome.problem)
                if outcome.problem:
                    wrong.append(outcome)
                    print(
                        f"{outcome.target} {outcome.case}: {outcome.problem} | {outcome.message}", flush=True
                    )
                if time.monotonic() > end_s:
                    print(f"{target.name}: ended after {options.seconds:g} s", flush=True)
                    break
        print(f"{target.name}: {dict(kind)}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    summary = {
        "date": datetime.date.today().isoformat(),
        "command": f"python -m tests.fuzz.campaign OUT {' '.join(sys.argv[2:])}".strip(),
        "python": sys.version.split()[0],
        "kinds": {name: dict(kind) for name, kind in counts.items()},
        "wrong": [asdict(outcome) for outcome in wrong],
    }
    path = options.out / f"fuzz-{'-'.join(names)}-{index}.json"
    path.write_text(json.dumps(summary, indent=1) + "\n")
    return 1 if wrong else 0


def all_targets() -> tuple[Target, ...]:
    """Return the targets, those that need PyTorch included."""
    from tests.fuzz.models import MODEL_TARGETS

    return (*TARGETS, *MODEL_TARGETS)


if __name__ == "__main__":
    sys.exit(main())
