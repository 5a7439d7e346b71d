"""What one profiling of one engine found: ``results/ID.json``, written once.

Raw samples are stored, statistics are derived from them. ``None`` means not measured, with a
reason beside it; it never means 0. Units stand in the names: _s, _j, _w, _bytes.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from effx import files, progress
from effx.errors import ArtifactError
from effx.host import memory
from effx.host.gpus import Gpu
from effx.host.identity import Host
from effx.specs.gates import GATES
from effx.specs.workloads import SINGLE_STREAM, Workload
from effx.stats.metrics import METRICS

SCHEMA = 2
T = TypeVar("T")
EnergySource = Literal["counter", "integrated", "model", "none"]
MIN_SAMPLES = {"p50": 1, "p90": 64, "p99": 662}
"""Samples below which a percentile is refused (MLPerf Inference's early-stopping counts)."""


@dataclass(frozen=True)
class Idle:
    """Power while every engine of the session was loaded and none at work."""

    watts: float
    interval: tuple[float, float] | None
    """95 %, in watts."""
    seconds: float
    """For how long it was read, all stretches together."""


@dataclass(frozen=True)
class EnergyWindow:
    """Queries run back to back while a meter read."""

    duration_s: float
    """Seconds that the queries took."""
    examples: int
    """Examples in those seconds."""
    joules: float
    """Energy of ``seconds``."""
    seconds: float
    """The interval that ``joules`` covers, from one tick of the meter to another."""
    joules_per_example: float
    interval: tuple[float, float] | None = None
    """Bounds of ``joules_per_example`` by the meter's own uncertainty."""
    integrated_joules: float | None = None
    """Integral of sampled power over the same interval, where the meter has a counter too."""
    flags: tuple[str, ...] = ()
    """What disturbed the window: throttling, a foreign process, a short window."""
    conditions: dict[str, Any] = field(default_factory=dict)
    """What the meter recorded besides: clocks, temperatures, mean power. Keys differ by meter."""


@dataclass(frozen=True)
class Energy:
    """Joules per example of one workload, or why there are none."""

    source: EnergySource
    meter: str
    reason: str | None
    """Why there is no number; None if there is one."""
    joules_per_example: float | None = None
    interval: tuple[float, float] | None = None
    """95 %, over windows; None with fewer than two."""
    gross: float | None = None
    """Joules per example, idle power included; the primary figure."""
    net: float | None = None
    """Less the idle-with-context baseline; None where none was measured."""
    windows: list[EnergyWindow] = field(default_factory=list)
    idle: Idle | None = None
    """On which ``net`` rests."""
    net_interval: tuple[float, float] | None = None
    """95 %, from the intervals of gross and idle."""


@dataclass(frozen=True)
class WorkloadResult:
    """Raw samples of one workload and the statistics derived from them."""

    workload: Workload
    blocks_s: list[list[float]]
    """Seconds per query to the nanosecond, one list per block, in the order measured."""
    rounds: list[int]
    """Each block's round: blocks of the same round of other engines ran next to it."""
    energy: Energy
    flags: list[str] = field(default_factory=list)
    elapsed_s: list[float] | None = None
    """Seconds that each block took; None: the sum of its samples."""
    examples: list[int] | None = None
    """Examples in each block; None: ``batch`` per query."""

    @functools.cached_property
    def latency_s(self) -> dict[str, float | None]:
        """Mean and percentiles in seconds; None where there are too few samples."""
        return latency_summary(self.blocks_s)

    @property
    def throughput_per_s(self) -> float:
        """Examples per second: while queries ran back to back, or as they arrived."""
        served = self.elapsed_s if self.workload.rate_per_s else None
        elapsed = served or [sum(block) for block in self.blocks_s]  # not the time between queries
        examples = self.examples or [self.workload.batch * len(block) for block in self.blocks_s]
        return float(sum(examples) / sum(elapsed))

    def to_json(self) -> dict[str, Any]:
        identity = self.workload.to_json()
        return {
            "scenario": identity["scenario"],
            "batch": identity["batch"],
            "sequence": identity["length"],
            "timing": identity["timing"],
            "rate_per_s": identity["rate_per_s"],
            **{key: value for key, value in asdict(self).items() if key != "workload"},
            "latency_s": self.latency_s,
            "throughput_per_s": self.throughput_per_s,
        }


@dataclass(frozen=True)
class Accuracy:
    """The primary metric on the built engine, with every prediction."""

    metric: str
    value: float
    n: int
    interval: tuple[float, float]
    """95 %: Wilson's for accuracy, a bootstrap over examples otherwise."""
    metrics: dict[str, float]
    """All metrics of the task."""
    predictions: list[float]
    labels: list[float]
    source: str
    """Where the rows came from."""


@dataclass(frozen=True)
class GateResult:
    """Whether a measurement passed one gate; see :mod:`effx.specs.gates`."""

    name: str
    """The gate's slug."""
    passed: bool | None
    """None: it could not be checked; ``detail`` says why."""
    detail: str
    """What was compared, with numbers."""
    workload: str | None = None
    """Name of the workload that was checked; None: the run or its single-stream workload."""

    @property
    def label(self) -> str:
        """The gate's label, with the workload; for tables and messages."""
        label = GATES[self.name].label if self.name in GATES else self.name
        return f"{label} ({self.workload})" if self.workload else label


@dataclass(frozen=True)
class Run:
    """One profiling of one engine on one host."""

    id: str
    started: str
    engine: dict[str, Any]
    host: Host
    accuracy: Accuracy
    workloads: list[WorkloadResult]
    memory: dict[str, int | None]
    settings: dict[str, Any]
    session: str
    """Runs of one session were interleaved and may be compared block by block."""
    flags: list[str] = field(default_factory=list)
    """Slugs of the gates that failed."""
    gates: list[GateResult] = field(default_factory=list)
    """Every check of this run; see :mod:`effx.profile.gates`."""

    @property
    def name(self) -> str:
        return str(self.engine["name"])

    @property
    def task(self) -> str:
        return str(self.engine["task"])

    @property
    def host_id(self) -> str:
        return self.host.id

    def workload(self, workload: Workload) -> WorkloadResult | None:
        """Return the result of a workload, at any rate of arrivals; None if it was not measured."""
        for result in self.workloads:
            if result.workload.without_rate == workload.without_rate:
                return result
        return None

    @property
    def failed_gates(self) -> list[GateResult]:
        """Gates that were checked and did not pass."""
        return [gate for gate in self.gates if gate.passed is False]

    @property
    def host_overhead_share(self) -> float | None:
        """Share of a single query's median time that is not spent on the device; None: not timed on a GPU.

        It is the time of copies, launches and the host's work, which no reduction of the encoder shortens.
        """
        whole, device = self.workload(SINGLE_STREAM), self.workload(SINGLE_STREAM.timed_on_device())
        if whole is None or device is None:
            return None
        on_device, all_s = device.latency_s["p50"], whole.latency_s["p50"]
        return None if not on_device or not all_s else max(0.0, 1 - on_device / all_s)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            **{key: value for key, value in asdict(self).items() if key != "workloads"},
            "workloads": [workload.to_json() for workload in self.workloads],
        }

    def save(self, folder: str | Path) -> Path:
        """Write ``folder/ID.json``, whole or not at all, never over another."""
        path = Path(folder) / f"{self.id}.json"
        files.write_json(path, self.to_json(), replace=False)
        return path

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Read a result.

        Raises:
            ArtifactError: the file is missing, damaged or of another schema.
        """
        return cls.from_json(_value(Path(path)), path)

    @classmethod
    def from_json(cls, value: Any, path: str | Path) -> Run:
        """Build a result from what :meth:`to_json` gave; ``path`` is where it stood.

        Raises:
            ArtifactError: it is of another schema, or no result.
        """
        with _reading(value, path):
            run = cls(
                id=value["id"],
                started=value["started"],
                engine=value["engine"],
                host=_host(value["host"]),
                accuracy=_build(Accuracy, value["accuracy"], interval=_pair),
                workloads=[_workload_result(entry) for entry in value["workloads"]],
                memory=value["memory"],
                settings=value["settings"],
                session=value["session"],
                flags=value["flags"],
                gates=[_gate_result(gate) for gate in value.get("gates", [])],
            )
            _check(run)
        return run


@dataclass(frozen=True)
class Failure:
    """An engine that could not be profiled: a result too, in a file of its own."""

    id: str
    started: str
    engine: dict[str, Any]
    host: Host
    session: str
    failure: str
    """Why, in one line."""

    def save(self, folder: str | Path) -> Path:
        """Write ``folder/ID.json``."""
        path = Path(folder) / f"{self.id}.json"
        files.write_json(path, {"schema": SCHEMA, **asdict(self)}, replace=False)
        return path

    @classmethod
    def from_json(cls, value: Any, path: str | Path) -> Failure:
        """Build a failure from what :meth:`save` wrote; ``path`` is where it stood.

        Raises:
            ArtifactError: it is of another schema, or no failure.
        """
        with _reading(value, path):
            found = _build(cls, value, host=_host)
            _check_objects(engine=found.engine)
            check_texts(found.id, found.started, found.session, found.failure)
            check_texts(found.engine["name"], found.host.id)
        return found


def failures(folders: Sequence[Path]) -> list[Failure]:
    """Return the recorded failures in the folders, oldest first; see :func:`read`."""
    return read(folders)[1]


def find(folders: Sequence[Path]) -> list[Run]:
    """Return every result in the folders, oldest first, without recorded failures; see :func:`read`."""
    return read(folders)[0]


def read(folders: Sequence[Path]) -> tuple[list[Run], list[Failure]]:
    """Read every file of the folders once: results and recorded failures, each oldest first.

    Other JSON in a folder, such as a report's frontier.json, is passed over, and that is said.

    Raises:
        ArtifactError: a folder is missing or holds no result, or a result is damaged.
    """
    runs: dict[str, Run] = {}
    failed: dict[str, Failure] = {}
    with memory.collector_paused():
        for folder in folders:
            paths = [folder] if folder.is_file() else sorted(folder.glob("*.json"))
            found = 0
            for path in paths:
                value = _value(path)
                if isinstance(value, dict) and "failure" in value:
                    failure = Failure.from_json(value, path)
                    failed[failure.id] = failure
                elif path is folder or not _is_other(value):
                    run = Run.from_json(value, path)
                    runs[run.id] = run
                else:
                    progress.say(f"{path} is no result; passed over")
                    continue
                found += 1
            if not found:
                raise ArtifactError(f"{folder} holds no results. Make some with: effx profile engines/")
    return (
        sorted(runs.values(), key=lambda run: (run.started, run.id)),
        sorted(failed.values(), key=lambda failure: (failure.started, failure.id)),
    )


def _is_other(value: Any) -> bool:
    """Whether this is whole, and something else than a result."""
    return not isinstance(value, dict) or not {"engine", "workloads", "accuracy"} & value.keys()


def _value(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes(), parse_constant=refuse_constant)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise _damaged(path, error) from error


def refuse_constant(constant: str) -> float:
    """Refuse what Python's JSON takes beside JSON: NaN and Infinity."""
    raise ValueError(f"{constant} is no number")


def _damaged(path: str | Path, error: Exception) -> ArtifactError:
    reason = f"{error} is missing" if isinstance(error, KeyError) else error
    return ArtifactError(f"{path} is no effx result ({reason}). Leave it out, or profile the engine again.")


@contextlib.contextmanager
def _reading(value: Any, path: str | Path) -> Iterator[None]:
    """Check the schema; what damaged JSON ends in within the block becomes one line that names the file."""
    try:
        if value["schema"] != SCHEMA:
            raise ArtifactError(
                f"{path}: schema {value['schema']} is not {SCHEMA}. Read it with the effx that wrote it."
            )
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error


_OF_ENGINE = (
    "name", "digest", "task", "variant", "precision", "scheme", "backend", "device", "parameters",
)  # fmt: skip
"""What every result says of its engine, beside its checkpoint."""
_OBJECTS_OF_ENGINE = ("structure", "exits", "sparsity", "parity")
"""What some say too, each an object of its own."""


def _check(run: Run) -> None:
    """Raise for what the readers of a result rely on, so that each of them need not.

    Ten thousand results are read for a report: of samples and predictions only sums are taken.
    """
    engine, scored = run.engine, run.accuracy
    _check_objects(engine=engine, memory=run.memory, settings=run.settings)
    _check_objects(**{key: engine[key] for key in _OBJECTS_OF_ENGINE if engine.get(key) is not None})
    parts = [("engine", engine, _OF_ENGINE), ("checkpoint", engine["checkpoint"], ("name", "digest"))]
    for what, part, keys in parts:
        if absent := [key for key in keys if key not in part]:
            raise ValueError(f"{what} without {', '.join(absent)}")
    check_texts(run.id, run.started, run.session, run.host.id, scored.source, *run.flags)
    check_texts(engine["name"], engine["task"], engine["backend"])
    if scored.metric not in METRICS:
        raise ValueError(f"metric {scored.metric!r} is none of {', '.join(METRICS)}")
    check_numbers(scored.value, scored.n, *scored.interval, sum(scored.labels), sum(scored.predictions))
    if scored.n < 1:
        raise ValueError(f"accuracy on {scored.n} rows")
    check_numbers(*_known(*scored.metrics.values(), *run.memory.values(), engine.get("size_bytes")))
    check_numbers(*_known(engine.get("weight_remaining"), engine.get("max_length"), engine["parameters"]))
    for workload in run.workloads:
        _check_workload(workload)


def _check_workload(result: WorkloadResult) -> None:
    workload, energy = result.workload, result.energy
    name = f"{workload.scenario} {workload.batch}x{workload.length}"
    check_texts(workload.scenario, workload.timing, energy.source, energy.meter)
    check_texts(*_known(energy.reason), *result.flags)
    lengths_ok = workload.length == "real" or isinstance(workload.length, int)
    if not isinstance(workload.batch, int) or not lengths_ok:
        raise ValueError(f"{name}: no shape")
    if not result.blocks_s or not all(result.blocks_s):
        raise ValueError(f"{name}: a block without samples")
    columns: list[tuple[str, Sequence[float]]] = [("rounds", result.rounds)]
    columns += [] if result.elapsed_s is None else [("elapsed_s", result.elapsed_s)]
    columns += [] if result.examples is None else [("examples", result.examples)]
    for what, column in columns:
        if len(column) != len(result.blocks_s):
            raise ValueError(f"{name}: {len(column)} {what} of {len(result.blocks_s)} blocks")
        check_numbers(sum(column))
    if not 0 < sum(map(sum, result.blocks_s)) < math.inf:
        raise ValueError(f"{name}: samples that are no times")
    joules = energy.joules_per_example
    if joules is not None and not 0 < joules < math.inf:
        raise ValueError(f"{name}: {joules} J per example")
    check_numbers(*_known(energy.gross, energy.net, workload.rate_per_s))


def _check_objects(**values: Any) -> None:
    for name, value in values.items():
        if not isinstance(value, dict):
            raise TypeError(f"{name} {value!r} is no object")


def _known(*values: Any) -> list[Any]:
    return [value for value in values if value is not None]


def check_texts(*values: Any) -> None:
    """Raise :class:`TypeError` for a value that is no text."""
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"{value!r} is no text")


def check_numbers(*values: Any) -> None:
    """Raise :class:`TypeError` for a value that is no finite number."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise TypeError(f"{value!r} is no number")


def latency_summary(blocks_s: Sequence[Sequence[float]]) -> dict[str, float | None]:
    """Return mean, p50, p90 and p99 in seconds; a percentile with too few samples is None."""
    samples = np.sort(np.concatenate([np.asarray(block, dtype=float) for block in blocks_s]))
    summary: dict[str, float | None] = {"mean": float(samples.mean())}
    for name, least in MIN_SAMPLES.items():
        # the smallest sample that the share does not exceed: a latency that was seen
        place = -(-len(samples) * int(name[1:]) // 100) - 1
        summary[name] = float(samples[place]) if len(samples) >= least else None
    return summary


def _window(value: Mapping[str, Any]) -> EnergyWindow:
    return _build(EnergyWindow, value, interval=_pair, flags=tuple)


def _workload_result(value: Mapping[str, Any]) -> WorkloadResult:
    energy = _build(
        Energy, value["energy"], interval=_pair, net_interval=_pair,
        windows=lambda windows: [_window(window) for window in windows],
        idle=lambda own: own and _build(Idle, own, interval=_pair),
    )  # fmt: skip
    workload = Workload(
        value["scenario"], value["batch"], value["sequence"], value["timing"], value.get("rate_per_s")
    )
    return _build(WorkloadResult, {**value, "workload": workload, "energy": energy})


def _host(value: Any) -> Host:
    _check_objects(host=value)
    gpus = value.get("gpu")
    listed = None if gpus is None else tuple(_build(Gpu, gpu) for gpu in gpus)
    return _build(Host, {**value, "id": value["id"], "gpu": listed})


def _gate_result(value: Mapping[str, Any]) -> GateResult:
    if absent := [key for key in ("name", "passed", "detail") if key not in value]:
        raise ValueError(f"gate without {', '.join(absent)}")
    return _build(GateResult, value)


def _pair(value: Sequence[float] | None) -> tuple[float, float] | None:
    if value is None:
        return None
    if len(value) != 2:
        raise ValueError(f"{value} is no interval")
    check_numbers(*value)
    return value[0], value[1]


def _build(kind: type[T], value: Mapping[str, Any], **convert: Any) -> T:
    """Fill a dataclass from JSON; keys that it does not know are left out."""
    known = {
        key: convert.get(key, lambda item: item)(value[key])
        for key in kind.__dataclass_fields__  # type: ignore[attr-defined]
        if key in value
    }
    return kind(**known)
