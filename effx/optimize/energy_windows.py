"""Joules per query of many graphs, in windows that take turns.

All graphs stay loaded. In a round each of them answers the same queries for the length of a window, in a new
random order. A window that failed or was disturbed is repeated; if it fails again, no graph has energy: a
table of costs compares all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from effx import progress, signals
from effx.engines import Session
from effx.host import cpu
from effx.meters import Meter, Reading, whole_machine
from effx.meters.trace import PART_TIME, SHORT_WINDOW

_ATTEMPTS = 3
_FEWEST_QUERIES = 32


class NoEnergyError(Exception):
    """The energy could not be measured, with the reason."""


@dataclass(frozen=True)
class Windows:
    """How energy is measured."""

    meter: Meter
    count: int = 3
    """Windows of each graph."""
    length_s: float = 10.0
    """Seconds of each, at least; meters flag less than 10."""


def joules(
    sessions: Mapping[str, Session], queries: Sequence[dict[str, np.ndarray]], windows: Windows, seed: int,
    rest: Callable[[], object] = cpu.rest,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Return name -> float64 [windows], the joules per query.

    Args:
        sessions: loaded graphs, which have answered queries of every shape.
        queries: asked in turns, all of them equally often.
        windows: the meter, and how often and how long it reads.
        seed: of the order in each round.
        rest: called before each window; waits for threads of the graph before, whose joules would count.

    Raises:
        NoEnergyError: a window failed, or was disturbed, whenever it was tried.
    """
    rng, names = np.random.default_rng((seed, 10)), list(sessions)
    found = {name: np.zeros(windows.count) for name in names}
    with progress.bar("measure energy", windows.count * len(names)) as advance:
        for number in range(windows.count):
            for name in rng.permutation(names):
                found[str(name)][number] = _repeated(sessions[str(name)], str(name), queries, windows, rest)
                advance(1, str(name))
    return found


def _repeated(
    session: Session, name: str, queries: Sequence[dict[str, np.ndarray]], windows: Windows,
    rest: Callable[[], object],
) -> float:  # fmt: skip
    """Return the joules per query of a window, the first one that nothing disturbed."""
    reason = ""
    for _ in range(_ATTEMPTS):
        rest()
        try:
            return _window(session, queries, windows)
        except NoEnergyError as error:
            reason = str(error)
    raise NoEnergyError(f"{name}: {reason}")


def _window(session: Session, queries: Sequence[dict[str, np.ndarray]], windows: Windows) -> float:
    """Return the joules per query of one window."""
    windows.meter.start()
    busy_s, worked_s = cpu.busy_s(), time.process_time()
    began = now = time.monotonic()
    answered = 0
    while now - began < windows.length_s or answered < _FEWEST_QUERIES:
        for query in queries:  # all of them, so that every graph answers the same lengths
            signals.check()
            session.infer(query)
        answered += len(queries)
        now = time.monotonic()
    elapsed_s, cpu_s, busy_after_s = now - began, time.process_time() - worked_s, cpu.busy_s()
    reading = windows.meter.stop(cpu_s, (began, now))
    if reading.joules is None:
        raise NoEnergyError(reading.reason or "the meter gave no reading")
    others = None
    if busy_s is not None and busy_after_s is not None:
        others = (busy_after_s - busy_s - cpu_s) / elapsed_s
    if reason := _disturbed(windows.meter, reading, others):
        raise NoEnergyError(reason)
    # the reading's interval ends at ticks of the meter; the work went on evenly beyond them
    amount = reading.joules / (answered * (reading.seconds or elapsed_s) / elapsed_s)
    if not (np.isfinite(amount) and amount > 0):
        raise NoEnergyError(f"the meter gave {amount:g} J per query")
    return amount


def _disturbed(meter: Meter, reading: Reading, others: float | None) -> str | None:
    """Return why a window is not taken, or None.

    Args:
        meter: that read it.
        reading: what it gave.
        others: processors that other processes used, in the mean; None: unknown.
    """
    flags = [flag for flag in reading.flags if flag != SHORT_WINDOW and not flag.startswith(PART_TIME)]
    if flags:
        return "; ".join(flags)
    return whole_machine.disturbance(meter.name, others)
