"""The records of a result file: a run or a failure, and what they consist of.

Raw samples are stored, statistics are derived from them. ``None`` means not measured, and a reason is given
next to it; it never means 0. Units are in the names: _s, _j, _w, _bytes.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from typing import Any, ClassVar, TypeGuard

import numpy as np
from pydantic import ConfigDict, JsonValue, TypeAdapter

from effx.costs import Expense
from effx.host.identity import Host
from effx.manifests import ArtifactReference, CheckpointOrigin, Parity, SparsityRecord
from effx.records import StoredLabel
from effx.row_slices import Slice
from effx.specs.gates import GATES, Concern
from effx.specs.kinds import KINDS
from effx.specs.measurement import MeasurementPlan
from effx.specs.meters import EnergySource
from effx.specs.workloads import SINGLE_STREAM, Workload, offline

SCHEMA = 5
Interval = tuple[float, float]
"""Low and high end, 95 % unless another share is named."""
Fact = None | bool | int | float | str | list[int] | list[float] | list[str] | dict[str, float]
Facts = Mapping[str, Fact]
"""What a runtime, meter or device reports about itself; keys differ by kind."""
_SCORED_BATCH = 32
MOST_LOAD = 0.9
"""Share of the time in which an engine works, above which the queue of its queries grows for longer than is
measured: its latencies are not shown."""
MIN_SAMPLES = {"p50": 1, "p90": 64, "p99": 662}
"""Samples below which a percentile is refused (MLPerf Inference's early-stopping counts)."""
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants")
"""How files are read: no conversion of types, no unknown keys, finite numbers. Nested records inherit it."""


@dataclass(frozen=True)
class StructureSummary:
    """What remains of an encoder, in counts."""

    layers: int
    heads: list[int]
    """Attention heads of each layer."""
    intermediate: list[int]
    """FFN neurons of each layer."""
    full_heads: int | None
    """Heads of a layer before pruning; None: not known."""
    full_intermediate: int | None
    exits: list[int] = field(default_factory=list)
    """Layers with an early exit after them, by their number in the unreduced model, from 1."""
    tokens: list[float] | None = None
    """Share of tokens that each layer keeps."""
    token_thresholds: list[float] | None = None
    """Attention below which each layer drops a token."""
    numbers: list[int] | None = None
    """The remaining layers by their number in the unreduced model, from 1; None: not known."""


@dataclass(frozen=True)
class ExitSettings:
    """When rows leave an early-exit engine."""

    rule: str
    threshold: float | None
    patience: int
    depths: list[int]
    """Layers before each ramp and, last, before the model's head."""
    segments: int
    """Graphs that the engine consists of."""


@dataclass(frozen=True)
class EngineRecord:
    """The engine that was measured."""

    name: str
    digest: str
    """Of its manifest."""
    task: str
    variant: str
    precision: str
    scheme: str
    backend: str
    device: str
    checkpoint: ArtifactReference
    parameters: int
    made_elsewhere: str | None = None
    """The program that wrote the graph; None: effx built the engine."""
    model: str | None = None
    """The pretrained model."""
    regime: str | None = None
    """How the checkpoint was fine-tuned."""
    drop_layers: list[str] = field(default_factory=list)
    """By which strategies layers were dropped before training, in order."""
    origin: CheckpointOrigin | None = None
    """How the checkpoint was made, with its seed; None: made elsewhere, or by an earlier version."""
    weight_remaining: float | None = None
    """Share of the full model's weights, without early-exit ramps."""
    sparsity: SparsityRecord | None = None
    size_bytes: int | None = None
    """Of graphs and weights on disk."""
    max_length: int | None = None
    """Tokens of an example at most."""
    structure: StructureSummary | None = None
    exits: ExitSettings | None = None
    parity: Parity | None = None
    expenses: tuple[Expense, ...] | None = None
    """What had to be computed to have the checkpoint; None: unknown."""


@dataclass(frozen=True)
class RuntimeRecord:
    """How an engine ran."""

    threads: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the packages that ran it."""
    details: Facts = field(default_factory=dict)
    """What else the runtime reports, such as execution providers or whether CUDA graphs were used."""


@dataclass(frozen=True)
class MeterRecord:
    """What measured the energy."""

    name: str
    details: Facts = field(default_factory=dict)
    """What it reads, how and how finely, and why it was chosen."""


@dataclass(frozen=True)
class Interruption:
    """A gap in a session: its process ended, and a later one measured the remaining rounds."""

    stopped: str
    """Time in UTC of the last thing that was measured before the gap."""
    resumed: str
    """Time in UTC at which measuring went on."""
    rounds: int
    """Rounds of blocks and energy windows, of all workloads, that were measured before the gap."""


@dataclass(frozen=True)
class MeasurementRecord:
    """How a run was measured."""

    plan: MeasurementPlan
    runtime: RuntimeRecord
    meter: MeterRecord
    mean_tokens: float
    """Tokens of a row, mean."""
    mean_depth: float | None = None
    """Layers that a row ran through, mean; None: the engine has no early exits."""
    device_memory_by: str | None = None
    """How the device's peak memory was obtained, or why there is none."""
    load_average: float | None = None
    """Of the host, over one minute, at the end."""
    session_wall_s: float | None = None
    session_measured_s: float | None = None
    """Seconds in which an engine of the session was at work."""
    interruptions: list[Interruption] = field(default_factory=list)
    """Gaps in the session."""


@dataclass(frozen=True)
class Idle:
    """Power while every engine of the session was loaded and none was running."""

    watts: float
    interval: Interval | None
    """95 %, in watts."""
    seconds: float
    """How long power was read, all readings together."""


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
    interval: Interval | None = None
    """Bounds of ``joules_per_example`` by the uncertainty of the meter."""
    integrated_joules: float | None = None
    """What sampled power gives for the same interval, where the meter has a counter too."""
    flags: tuple[str, ...] = ()
    """What disturbed the window: throttling, other processes, a short window."""
    conditions: Facts = field(default_factory=dict)
    """What else the meter recorded: clocks, temperatures, mean power."""
    interval_without_gain: Interval | None = None
    """``interval`` without the tolerance that all windows of one meter share; for ratios."""
    unchecked: tuple[str, ...] = ()
    """Why it could not be checked whether something disturbed the window; empty: it was checked."""


@dataclass(frozen=True)
class Energy:
    """Joules per example of one workload, or why there are none."""

    source: EnergySource
    meter: str
    reason: str | None
    """Why there is no number; None if there is one."""
    joules_per_example: float | None = None
    interval: Interval | None = None
    """95 %, over windows; None with fewer than two."""
    gross: float | None = None
    """Joules per example, idle power included; the primary figure."""
    net: float | None = None
    """Without the idle power of the loaded engines; None where that was not measured."""
    windows: list[EnergyWindow] = field(default_factory=list)
    idle: Idle | None = None
    """Basis of ``net``."""
    net_interval: Interval | None = None
    """95 %, from the intervals of gross and idle."""
    interval_without_gain: Interval | None = None
    """``interval`` without the tolerance that all energies of one meter share; for ratios."""
    net_reason: str | None = None
    """Why there is no net energy although idle power was measured."""


@dataclass(frozen=True)
class Statistics:
    """What follows from the samples of a workload; for readers of the file."""

    latency_s: dict[str, float | None]
    """Mean and percentiles in seconds; None where there are too few samples."""
    throughput_per_s: float
    """Examples per second."""


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
    quality: Quality | None = None
    """The score in this workload's batches, where the engine's answers depend on them; None: the run's."""
    elapsed_s: list[float] | None = None
    """Seconds that each block took; None: the sum of its samples."""
    examples: list[int] | None = None
    """Examples in each block; None: ``batch`` per query."""
    cpu_s: list[float] | None = None
    """Processor seconds of the engine's process in each block, all its threads together, as the operating
    system counts them; None: not recorded, as while queries arrive at a rate."""
    load: float | None = None
    """While queries arrive at a rate: that times the mean time in which the engine answers one; None: not
    recorded, as in results of earlier versions."""
    statistics: InitVar[Statistics | None] = None
    """What a file states about the samples. It is not stored: it must agree with them."""

    def __post_init__(self, statistics: Statistics | None) -> None:
        if statistics is not None and self.blocks_s and all(self.blocks_s):
            self._check(statistics)

    def _check(self, stated: Statistics) -> None:
        """Raise :class:`ValueError` if stated statistics are not those of the samples."""
        if stated.latency_s.keys() != self.latency_s.keys():
            raise ValueError(f"{self.workload.name}: expected latency_s of {', '.join(self.latency_s)}")
        pairs = {
            f"{name} of latency_s": (stated.latency_s[name], self.latency_s[name]) for name in self.latency_s
        }
        pairs["throughput_per_s"] = (stated.throughput_per_s, self.throughput_per_s)
        for name, (value, derived) in pairs.items():
            if value != derived and (value is None or derived is None or not math.isclose(value, derived)):
                raise ValueError(f"{self.workload.name}: {name} is {value}, but its samples give {derived}")

    @functools.cached_property
    def latency_s(self) -> dict[str, float | None]:
        """Mean and percentiles in seconds; None where there are too few samples, and of an engine that is
        slower than its queries arrive (:data:`MOST_LOAD`).
        """
        summary = latency_summary(self.blocks_s)
        return dict.fromkeys(summary) if self.load is not None and self.load >= MOST_LOAD else summary

    @property
    def throughput_per_s(self) -> float:
        """Examples per second: while queries ran back to back, or as they arrived."""
        served = self.elapsed_s if self.workload.rate_per_s else None
        elapsed = served or [sum(block) for block in self.blocks_s]  # not the time between queries
        return float(sum(self.examples_of_blocks) / sum(elapsed))

    @property
    def cpu_s_per_example(self) -> float | None:
        """Processor seconds per example; None where they were not recorded."""
        return None if self.cpu_s is None else sum(self.cpu_s) / sum(self.examples_of_blocks)

    @property
    def examples_of_blocks(self) -> list[int]:
        """Examples in each block."""
        return self.examples or [self.workload.batch * len(block) for block in self.blocks_s]


@dataclass(frozen=True)
class ReferenceEngine:
    """The engine whose predictions are used as labels, if the rows have none."""

    name: str
    digest: str
    """Of its manifest."""


@dataclass(frozen=True)
class RowGroups:
    """Parts of the scored rows of one kind, none of which have a row in common."""

    group: str
    """What the rows are divided by: ``label``, ``words``, ``negation``, ``overlap``."""
    names: list[str]
    """Of the parts."""
    of_rows: list[int]
    """The number of each row's part, -1: it is in none."""

    @classmethod
    def of(cls, slices: Sequence[Slice], rows: int) -> list[RowGroups]:
        """Return slices of so many rows by their groups."""
        groups: dict[str, list[Slice]] = {}
        for each in slices:
            groups.setdefault(each.group, []).append(each)
        found = []
        for group, members in groups.items():
            numbers = np.full(rows, -1)
            for number, member in enumerate(members):
                numbers[member.rows] = number
            found.append(cls(group, [member.name for member in members], numbers.tolist()))
        return found

    def slices(self) -> list[Slice]:
        """Return the parts."""
        numbers = np.array(self.of_rows)
        return [
            Slice(self.group, name, np.flatnonzero(numbers == index)) for index, name in enumerate(self.names)
        ]


@dataclass(frozen=True)
class Quality:
    """The primary metric of the built engine, with every prediction.

    It is a metric of the task, from the labels of the rows; or, where these have none, how far the engine's
    predictions agree with those of a reference engine, which says nothing about how many are right.
    """

    metric: str
    """A key of :data:`effx.stats.metrics.METRICS`; ``of_reference`` if and only if there is a reference."""
    value: float
    n: int
    interval: Interval
    """95 %: Wilson's for accuracy and agreement, a bootstrap over examples otherwise."""
    metrics: dict[str, float]
    """All metrics."""
    predictions: list[StoredLabel]
    """Of every row: a class, a number, the numbers of its labels or tags, or an answer as text; empty, as
    ``labels``, in results that are shared without their rows."""
    labels: list[StoredLabel]
    """Of every row; for answers lists of the accepted ones; with a reference its predictions."""
    source: str
    """Where the rows came from."""
    label_names: list[str] | None = None
    """Names of the labels if ``kind`` is given; None: a row has a class or a number."""
    kind: str | None = None
    """Kind of the task if a row has several labels, or an answer; None: it has a class or a number."""
    reference: ReferenceEngine | None = None
    """None: the rows have labels."""
    workload: Workload = field(default_factory=lambda: offline(_SCORED_BATCH))
    """In whose queries the rows were scored."""
    batch_dependent: bool | None = None
    """Whether an answer depends on the other rows of its batch, as with dynamic int8 scales; None: unknown.
    The run's score is then that of single queries."""
    texts_digest: str | None = None
    """SHA-256 of the rows' texts, in their order, and of the documents that queries are compared with;
    None: a result of an earlier version."""
    groups: list[RowGroups] = field(default_factory=list)
    """Parts of the rows, whose losses are compared; empty: a result of an earlier version, or shared without
    its rows."""

    def __post_init__(self) -> None:
        if (self.kind is None) != (self.label_names is None):
            raise ValueError("expected both kind and label_names, or neither")
        if self.kind is not None and (self.kind not in KINDS or KINDS[self.kind].one_value):
            known = ", ".join(name for name in KINDS if not KINDS[name].one_value)
            raise ValueError(f"kind: expected {known}, got {self.kind[:40]!r}")

    @property
    def described(self) -> str:
        """The primary metric for texts and tables: ``accuracy``, or ``agreement with NAME``."""
        return self.metric if self.reference is None else f"{self.metric} with {self.reference.name}"

    @functools.cached_property
    def prediction_array(self) -> np.ndarray:
        """The predictions as metrics take them: float64 [n] classes or numbers, bool [n, labels], int64 [n,
        words], or of answers their scores, float64 [n, 2].
        """
        return self._arrays[1]

    @functools.cached_property
    def label_array(self) -> np.ndarray:
        """The labels, as :attr:`prediction_array`."""
        return self._arrays[0]

    @property
    def label_f1(self) -> dict[str, float | None] | None:
        """F1 of each label, or type of entities, by its name, None for one that no row has; None: rows have
        one label, or labels are not stored or known.
        """
        if self.kind is None or self.label_names is None or not self.labels or self.reference is not None:
            return None
        scores = KINDS[self.kind].label_scores
        return (
            None
            if scores is None
            else scores(self.label_array, self.prediction_array, tuple(self.label_names))
        )

    @functools.cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        if self.kind is None or self.label_names is None:
            return np.array(self.labels, dtype=float), np.array(self.predictions, dtype=float)
        kind, names = KINDS[self.kind], tuple(self.label_names)
        return kind.numbers(kind.restore(self.labels, names), kind.restore(self.predictions, names))


@dataclass(frozen=True)
class PeakMemory:
    """The most memory that an engine's process used."""

    host_peak_bytes: int | None
    device_peak_bytes: int | None


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
    """One measurement of one engine on one host."""

    id: str
    started: str
    engine: EngineRecord
    host: Host
    quality: Quality
    workloads: list[WorkloadResult]
    memory: PeakMemory
    settings: MeasurementRecord
    session: str
    """Runs of one session were interleaved and may be compared block by block."""
    flags: list[str] = field(default_factory=list)
    """Slugs of the gates that failed."""
    gates: list[GateResult] = field(default_factory=list)
    """Every check of this run; see :mod:`effx.profile.gates`."""
    schema: InitVar[int] = SCHEMA

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    @property
    def name(self) -> str:
        """The engine's name."""
        return self.engine.name

    @property
    def task(self) -> str:
        return self.engine.task

    @property
    def made_elsewhere(self) -> str | None:
        """The program that wrote the engine's graph; None: effx built it."""
        return self.engine.made_elsewhere

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

    def quality_in(self, workload: Workload) -> Quality | None:
        """Return the score of the answers that a workload's queries get; None: they were not scored."""
        result = self.workload(workload)
        if result is not None and result.quality is not None:
            return result.quality
        return self.quality if workload.batch == 1 or not self.quality.batch_dependent else None

    def scored_in(self, workload: Workload) -> Run | None:
        """Return this run with the score of a workload; None: there is none."""
        quality = self.quality_in(workload)
        if quality is None or quality is self.quality:
            return None if quality is None else self
        return replace(self, quality=quality)

    def withdrawn(self, concern: Concern, workload: Workload = SINGLE_STREAM) -> str | None:
        """Return why numbers of a workload are unavailable: a hard gate failed; None: none did.

        Args:
            concern: which numbers.
            workload: whose; of the quality there is one for all workloads.
        """
        for gate in self.failed_gates:
            spec = GATES.get(gate.name)
            same = concern == "quality" or (gate.workload or SINGLE_STREAM.name) == workload.name
            if spec is not None and spec.hard and spec.concerns == concern and same:
                return f"gate failed: {gate.label}: {gate.detail}"
        return None

    def energy_of(self, result: WorkloadResult) -> Energy:
        """Return the energy of a workload of this run; without a number if a hard gate failed."""
        reason = self.withdrawn("energy", result.workload)
        if reason is None or result.energy.source == "none":
            return result.energy
        return Energy("none", "none", reason)

    @property
    def host_overhead_share(self) -> float | None:
        """Share of a single query's median time that is not spent on the device; None: not timed on a GPU.

        It is the time of copies, launches and the host's work, which no reduction of the encoder shortens.
        """
        end_to_end, device = self.workload(SINGLE_STREAM), self.workload(SINGLE_STREAM.timed_on_device())
        if end_to_end is None or device is None:
            return None
        on_device_s, total_s = device.latency_s["p50"], end_to_end.latency_s["p50"]
        return None if not on_device_s or not total_s else max(0.0, 1 - on_device_s / total_s)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the run as its file has it."""
        value: dict[str, Any] = _adapter(Run).dump_python(self, mode="json", warnings=False)
        for entry, result in zip(value["workloads"], self.workloads, strict=True):
            entry["statistics"] = {
                "latency_s": result.latency_s, "throughput_per_s": result.throughput_per_s,
            }  # fmt: skip
        return {"schema": SCHEMA, **value}

    @classmethod
    def from_json(cls, text: bytes) -> Run:
        """Return the run of a file's text.

        Raises:
            pydantic.ValidationError: it is not JSON, or a part is missing, unknown or of another type.
        """
        run: Run = _adapter(cls).validate_json(text)
        return run


_ID_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d(?:\.\d+)?)-")


@dataclass(frozen=True)
class FailedEngineRecord:
    """An engine that could not be measured, as far as its manifest could be read."""

    name: str
    task: str | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Failure:
    """An engine that could not be measured: also a result, in a separate file."""

    id: str
    started: str
    """Time in UTC when its measurement began, or failed before that; empty in files of earlier versions."""
    engine: FailedEngineRecord
    host: Host
    session: str
    failure: str
    """Why, in one line."""
    schema: InitVar[int] = SCHEMA

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    @property
    def name(self) -> str:
        """The engine's name."""
        return self.engine.name

    @property
    def time(self) -> str:
        """When it was measured, or failed before: ``started``, or the time in the id.

        A failure that has neither counts as the latest.
        """
        match = _ID_TIME.match(self.id)
        return self.started or ("{}-{}-{}T{}:{}:{}+00:00".format(*match.groups()) if match else "9999")

    def to_json(self) -> dict[str, JsonValue]:
        """Return the failure as its file has it."""
        return {"schema": SCHEMA, **_adapter(Failure).dump_python(self, mode="json", warnings=False)}

    @classmethod
    def from_json(cls, text: bytes) -> Failure:
        """Return the failure of a file's text.

        Raises:
            pydantic.ValidationError: it is not JSON, or a part is missing, unknown or of another type.
        """
        failure: Failure = _adapter(cls).validate_json(text)
        return failure


_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)  # on first use: it takes longer than the import of this module
    return _ADAPTERS[kind]


def facts(reported: Mapping[str, object]) -> Facts:
    """Return what something reports about itself as facts; what is not one becomes text."""
    return {str(name): _fact(value) for name, value in reported.items()}


def _fact(value: object) -> Fact:
    if isinstance(value, dict) and all(_is_number(item) for item in value.values()):
        return {str(name): float(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        for kinds in ((int,), (int, float)):
            if all(_is_number(item) and isinstance(item, kinds) for item in value):
                return list(value)
        return [str(item) for item in value]
    return value if value is None or isinstance(value, bool | str) or _is_number(value) else str(value)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def latency_summary(blocks_s: Sequence[Sequence[float]]) -> dict[str, float | None]:
    """Return mean, p50, p90 and p99 in seconds; a percentile with too few samples is None."""
    samples = np.sort(np.concatenate([np.asarray(block, dtype=float) for block in blocks_s]))
    summary: dict[str, float | None] = {"mean": float(samples.mean())}
    for name, least in MIN_SAMPLES.items():
        # the smallest sample that the share does not exceed: a latency that was seen
        index = -(-len(samples) * int(name[1:]) // 100) - 1
        summary[name] = float(samples[index]) if len(samples) >= least else None
    return summary
