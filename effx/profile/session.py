"""Engines under measurement: a worker process each, as many loaded at once as memory holds."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from effx import progress
from effx.artifacts import Engine
from effx.data import Rows
from effx.errors import WorkerError
from effx.host import identity, memory
from effx.profile.client import WorkerClient
from effx.profile.meters import Meter
from effx.profile.plan import Plan
from effx.results import Accuracy

SINGLE: dict[str, Any] = {"scenario": "single-stream", "batch": 1, "sequence": "real"}
_BYTES_PER_ENGINE = 400_000_000
_BYTES_PER_FILE_BYTE = 3
"""What a worker takes beside and per byte of its engine's files, from above."""
_FEWEST_WINDOW_QUERIES = 32
_ARRIVALS = 2.0
"""A block of arrivals may last so many times what they take to come; an engine behind that cannot keep up."""


@dataclass
class Samples:
    """What was measured of one workload of one engine."""

    workload: dict[str, Any]
    blocks_s: list[list[float]] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    elapsed_s: list[float] = field(default_factory=list)
    examples: list[int] = field(default_factory=list)
    windows: list[dict[str, Any]] = field(default_factory=list)
    window_reason: str | None = None
    flags: list[str] = field(default_factory=list)

    def add(self, number: int, answer: dict[str, Any]) -> None:
        """Keep a block."""
        # the clock counts nanoseconds: what floats add after them is noise, and half of a result's bytes
        self.blocks_s.append([round(sample, 9) for sample in answer["samples_s"]])
        self.rounds.append(number)
        self.elapsed_s.append(answer["elapsed_s"])
        self.examples.append(answer["examples"])


@dataclass
class Subject:
    """One engine and what was found about it."""

    engine: Engine
    rows: Rows
    started: str = ""
    described: dict[str, Any] = field(default_factory=dict)
    accuracy: Accuracy | None = None
    samples: dict[str, Samples] = field(default_factory=dict)
    host_peak_bytes: int | None = None
    device_peak_bytes: int | None = None
    checked: int = 0
    agreed: int = 0
    others_s: list[float] = field(default_factory=list)
    """Processor seconds of other processes, a figure a block."""
    watched_s: float = 0.0
    """Processor seconds that those blocks had, all processors together."""
    measured_s: float = 0.0
    failure: str | None = None

    def of(self, workload: dict[str, Any]) -> Samples:
        """Return the samples of a workload, begun if it is new."""
        return self.samples.setdefault(key(workload), Samples(workload))


class Crew:
    """Workers of the engines that are loaded now; the one idle for longest makes room."""

    def __init__(self, subjects: Sequence[Subject], plan: Plan) -> None:
        self._plan = plan
        self._most = plan.resident or affordable([subject.engine for subject in subjects])
        self._clients: dict[Path, WorkerClient] = {}
        self._subjects = {subject.engine.folder: subject for subject in subjects}
        self._warm: dict[Path, str] = {}
        """Engine -> the workload it ran last: another one may move memory, and what was recorded with it."""

    @property
    def pids(self) -> set[int]:
        """Return the process numbers of the workers that are loaded."""
        return {client.pid for client in self._clients.values()}

    def client(self, subject: Subject) -> WorkerClient:
        """Return an engine's worker, started and opened if it is not loaded."""
        folder = subject.engine.folder  # engines of one name may lie in two places
        if folder in self._clients:
            self._clients[folder] = self._clients.pop(folder)  # the last in order is the last used
            return self._clients[folder]
        while len(self._clients) >= self._most:
            self._leave(next(iter(self._clients)))
        client = self._clients[folder] = WorkerClient(subject.engine.name, self._plan.timeout_s)
        answer = client.ask(
            "open",
            folder=str(folder),
            texts=[list(texts) for texts in subject.rows.texts],
            threads=self._plan.threads,
            seed=self._plan.seed,
            predictions=subject.accuracy and subject.accuracy.predictions,
        )
        subject.described |= {**answer["describe"], "mean_tokens": float(np.mean(answer["lengths"]))}
        return client

    def warm(self, subject: Subject, workload: dict[str, Any]) -> WorkerClient:
        """Return an engine's worker after it has warmed up for a workload."""
        client = self.client(subject)
        if self._warm.get(subject.engine.folder) != key(workload):
            answer = client.ask("warm", workload=workload, limit_s=self._plan.warmup_s)
            if answer["steady"] is False:
                flags = subject.of(workload).flags
                flags.append("not steady after warm-up")
                flags[:] = dict.fromkeys(flags)
            self._warm[subject.engine.folder] = key(workload)
        return client

    def drop(self, subject: Subject) -> None:
        """Close an engine's worker without asking it anything."""
        self._warm.pop(subject.engine.folder, None)
        client = self._clients.pop(subject.engine.folder, None)
        if client:
            client.close()

    def close(self) -> None:
        """End every worker."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def memory(self, subject: Subject) -> None:
        """Note the largest size that an engine's worker has had."""
        told = self.client(subject).ask("memory")
        subject.host_peak_bytes = _larger(subject.host_peak_bytes, told["host_peak_bytes"])
        subject.device_peak_bytes = _larger(subject.device_peak_bytes, told["device_peak_bytes"])
        subject.described |= {**told["describe"], "device_memory_by": told["device_memory_by"]}

    def _leave(self, folder: Path) -> None:
        subject = self._subjects[folder]
        try:
            self.memory(subject)
        except WorkerError as error:
            subject.failure = str(error)
            progress.say(subject.failure)
        self.drop(subject)


def _larger(one: int | None, other: int | None) -> int | None:
    return max(filter(None, (one, other)), default=None)


def affordable(engines: Sequence[Engine]) -> int:
    """Return how many of the engines free memory holds at once, at least one."""
    largest = max(engine.size_bytes for engine in engines)
    need = _BYTES_PER_ENGINE + _BYTES_PER_FILE_BYTE * largest
    return max(1, min(len(engines), memory.free_bytes() // need))


def block(
    crew: Crew, subject: Subject, workload: dict[str, Any], number: int, rounds: int, limits: Limits
) -> None:
    """Measure one block of a workload, of so many rounds: they begin evenly spread over the queries."""
    client = crew.warm(subject, workload)
    answer = client.ask(
        "block",
        workload=workload,
        place=number / rounds,
        queries=limits.queries,
        least_s=limits.least_s,
        limit_s=limits.limit_s,
    )
    if answer["others_s"] is not None:
        subject.others_s.append(answer["others_s"])
        subject.watched_s += answer["elapsed_s"] * identity.processors()
    subject.of(workload).add(number, answer)
    subject.checked += answer["checked"]
    subject.agreed += answer["agreed"]
    subject.measured_s += answer["elapsed_s"]


def serve(crew: Crew, subject: Subject, rate_per_s: float, number: int, rounds: int, limits: Limits) -> None:
    """Measure one block of the server scenario."""
    client = crew.warm(subject, SINGLE)
    limit_s = max(limits.limit_s, _ARRIVALS * limits.queries / rate_per_s)
    answer = client.ask(
        "serve",
        lasting_s=limit_s,
        rate_per_s=rate_per_s,
        place=number / rounds,
        queries=limits.queries,
        limit_s=limit_s,
        seed=number,
    )
    subject.of(server(rate_per_s)).add(number, answer)
    subject.measured_s += answer["elapsed_s"]


def window(
    crew: Crew, subject: Subject, workload: dict[str, Any], place: float, meter: Meter, length_s: float
) -> None:
    """Run a workload for one energy window, from a place in its queries on."""
    client, samples = crew.warm(subject, workload), subject.of(workload)
    meter.start()
    answer = client.ask(
        "block",
        lasting_s=length_s,
        workload=workload,
        place=place,
        queries=_FEWEST_WINDOW_QUERIES,
        least_s=length_s,
        limit_s=10 * length_s,
    )
    reading = meter.stop(answer["cpu_s"])
    subject.measured_s += answer["elapsed_s"]
    if reading.joules is None:
        samples.window_reason = reading.reason
        return
    # the meter's stretch ends at its own ticks; the work went on evenly beyond them
    seconds = reading.seconds or answer["elapsed_s"]
    examples = answer["examples"] * seconds / answer["elapsed_s"]
    samples.windows.append(
        {
            "duration_s": answer["elapsed_s"],
            "examples": answer["examples"],
            "joules": reading.joules,
            "seconds": seconds,
            "joules_per_example": reading.joules / examples,
            "interval": reading.interval and [bound / examples for bound in reading.interval],
            "integrated_joules": reading.integrated_joules,
            "flags": list(reading.flags),
            "conditions": reading.conditions,
        }
    )


@dataclass(frozen=True)
class Limits:
    """How much a block measures: so many queries and seconds at least, so many seconds at most."""

    queries: int
    least_s: float
    limit_s: float


def server(rate_per_s: float) -> dict[str, Any]:
    """Return the server scenario's workload."""
    return {"scenario": "server", "batch": 1, "sequence": "real", "rate_per_s": rate_per_s}


def key(workload: dict[str, Any]) -> str:
    """Return a workload's name."""
    timing = " device" if workload.get("timing") == "device" else ""
    return f"{workload['scenario']} {workload['batch']}x{workload['sequence']}{timing}"


def timestamp() -> str:
    """Return the time in UTC with milliseconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
