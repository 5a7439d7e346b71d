"""Ctrl-C and SIGTERM in a process of its own: exit code, time, and what is printed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BEGIN = """
import signal, sys, time
from effx import signals
# a shell starts background jobs with SIGINT ignored, and these tests may run in one
signal.signal(signal.SIGINT, signal.default_int_handler)
signals.install_until_exit()
{body}
"""
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def stopped(
    body: str, *numbers: signal.Signals, apart_s: float = 0.0, begin: str = BEGIN
) -> tuple[int, str, float]:
    """Send signals to a process that runs ``body`` once it prints; return its code, stderr and seconds."""
    code = begin.format(body=body)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    begin_s = time.monotonic()
    for number in numbers:
        process.send_signal(number)
        time.sleep(apart_s)
    _, reported = process.communicate(timeout=60)
    return process.returncode, reported, time.monotonic() - begin_s


WAY_OUT = """
try:
    work()
except KeyboardInterrupt as stop:
    signals.exit_process(signals.exit_code(stop))
"""
LOOP = """
def work():
    print("ready", flush=True)
    while True:
        signals.check()
        time.sleep(0.01)
"""
SWALLOWED = """
class Busy:
    def __del__(self):
        while not signals.requested():
            time.sleep(0.01)
        time.sleep(1.2)

def work():
    print("ready", flush=True)
    Busy()
    while True:
        time.sleep(0.01)
"""
WAITS = """
import threading
def work():
    event = threading.Event()
    print("ready", flush=True)
    with signals.interruptible():
        event.wait(60)
"""


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("body", [LOOP, SWALLOWED, WAITS], ids=["loop", "destructor", "wait"])
def test_a_signal_ends_the_process_with_its_code(body: str, number: signal.Signals) -> None:
    code, reported, seconds = stopped(body + WAY_OUT, number)
    assert code == CODES[number]
    assert reported == ""
    assert seconds < 10


ENDING = """
import atexit
def last_work():
    print("ready", flush=True)
    time.sleep(0.5)
atexit.register(last_work)
signals.exit_process(7)
"""


@pytest.mark.parametrize("number", CODES)
def test_a_signal_at_the_end_of_the_process_decides_its_exit_code(number: signal.Signals) -> None:
    code, reported, _ = stopped(ENDING, number)
    assert (code, reported) == (CODES[number], "")


def test_output_that_cannot_be_written_at_the_end_is_reported(tmp_path: Path) -> None:
    code = (
        "from effx import signals; import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); "
        "signals.install_until_exit(); print('x'); signals.exit_process(0)"
    )
    with (tmp_path / "out").open("w") as out:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
        run = subprocess.run(
            [sys.executable, "-c", code], stdout=out, stderr=subprocess.PIPE, text=True, env=environment
        )
    assert (run.returncode, run.stderr) == (2, "effx: cannot write the output: File too large.\n")


STUCK = """
def work():
    print("ready", flush=True)
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass
"""


def test_a_second_signal_ends_a_process_that_does_not_stop() -> None:
    code, reported, seconds = stopped(STUCK + WAY_OUT, signal.SIGTERM, signal.SIGINT, apart_s=0.8)
    assert code == 143
    assert reported == "effx: stopped at once (a second signal); completed work was saved.\n"
    assert seconds < 6


def test_signals_in_quick_succession_are_one(tmp_path: Path) -> None:
    """As when a terminal signals the group, and a parent passes the signal on."""
    code, reported, _ = stopped(LOOP + WAY_OUT, signal.SIGINT, signal.SIGINT)
    assert (code, reported) == (130, "")


@pytest.mark.slow
def test_a_process_that_does_not_stop_ends_after_eight_seconds() -> None:
    code, reported, seconds = stopped(STUCK + WAY_OUT, signal.SIGINT)
    assert code == 130 and "did not end within 8 s" in reported
    assert 7 < seconds < 10


def test_a_shield_lets_a_block_end() -> None:
    body = """
def work():
    print("ready", flush=True)
    with signals.shielded():
        time.sleep(1.5)
        signals.check()
        print("whole", file=sys.stderr)
    signals.check()
"""
    assert stopped(body + WAY_OUT, signal.SIGINT)[:2] == (130, "whole\n")


def test_a_child_process_does_not_get_the_terminals_ctrl_c() -> None:
    body = """
import subprocess
with signals.without_ctrl_c():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1.5); print('done')"], stderr=2)
print("ready", flush=True)
child.send_signal(2)
sys.exit(child.wait())
"""
    assert stopped(body)[:2] == (0, "")
