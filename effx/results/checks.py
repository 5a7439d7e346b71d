"""What must agree within a result: statements with the samples and predictions that they are derived from.

Types are checked by the records; here are the relations between values. Every check raises
:class:`ValueError` with one line that names the part and both values.
"""

from __future__ import annotations

import datetime
import itertools
import math
import re
from collections.abc import Iterable, Sequence

import numpy as np

from effx.errors import EffxError, one_line
from effx.manifests import check_parity
from effx.results.records import (
    Energy,
    EnergyWindow,
    EngineRecord,
    Failure,
    Interval,
    Quality,
    Run,
    StructureSummary,
    WorkloadResult,
)
from effx.specs import backends, variants
from effx.specs.gates import GATES
from effx.specs.kinds import KINDS, TaskKind
from effx.specs.layer_reduction import STRATEGIES
from effx.specs.workloads import SINGLE_STREAM, offline
from effx.stats import intervals
from effx.stats.metrics import METRICS

_CLOSE = 1e-6
"""Relative difference up to which a stated and a derived number are equal: the order of sums differs."""
_MOST_PROCESSORS, _CPU_TICK_S = 4096, 0.1
_SHORTEST_S, _LONGEST_S = 1e-9, 1e7
"""Seconds of a query: the clock counts nanoseconds, and no block lasts for a hundred days."""
_LARGEST_POWER_W = 1e7
_LARGEST_BYTES = 1 << 60
_MOST_WEIGHT = 1.5
"""Of the full model's weights; results of the first releases count the ramps of exits."""
_MOST_TOKENS = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_DIGEST = re.compile("[0-9a-f]{64}")


def check(run: Run) -> None:
    """Raise :class:`ValueError` if a run contradicts itself.

    Ten thousand results are read for a report: the cost is about a millisecond.
    """
    _names(id=run.id, session=run.session)
    _time(run.started)
    _texts(host=run.host.id)
    _positive(**{"host.cores": run.host.cores, "host.memory_bytes": run.host.memory_bytes})
    _engine(run.engine)
    _stride(run)
    _quality(run.quality)
    if run.quality.batch_dependent and run.quality.workload != SINGLE_STREAM:
        raise ValueError(
            f"quality.workload: expected {SINGLE_STREAM.name}, as answers depend on the batch, got "
            f"{run.quality.workload.name}"
        )
    if run.quality.workload not in (SINGLE_STREAM, offline(run.quality.workload.batch)):
        raise ValueError(
            f"quality.workload: expected {SINGLE_STREAM.name} or offline, got {run.quality.workload.name}"
        )
    if run.workload(SINGLE_STREAM) is None:
        raise ValueError(f"workloads: {SINGLE_STREAM.name} is missing")
    _distinct("workload", [result.workload.without_rate.name for result in run.workloads])
    for result in run.workloads:
        try:
            _workload(result)
            _energy(result.energy)
            _quality_in(run.quality, result)
        except ValueError as error:
            raise ValueError(f"{result.workload.name}: {error}") from error
    for name, value in (("host", run.memory.host_peak_bytes), ("device", run.memory.device_peak_bytes)):
        if value is not None and not 0 < value < _LARGEST_BYTES:
            raise ValueError(f"memory: {name}_peak_bytes is {value}, expected 1 to {_LARGEST_BYTES - 1}")
    _settings(run)
    _gates(run)


def check_failure(failure: Failure) -> None:
    """Raise :class:`ValueError` if a recorded failure is not complete."""
    _names(id=failure.id, session=failure.session)
    _texts(failure=failure.failure, host=failure.host.id)
    _folder_names(engine=failure.engine.name)
    if failure.engine.digest is not None:
        _digest("engine.digest", failure.engine.digest)
    if failure.started:
        _time(failure.started)


def _texts(**values: str) -> None:
    for name, value in values.items():
        if not value.strip():
            raise ValueError(f"{name} is empty")


def _names(**values: str) -> None:
    """Raise unless values are words that can be part of a file name."""
    _texts(**values)
    for name, value in values.items():
        if not _NAME.fullmatch(value):
            raise ValueError(f"{name}: {one_line(repr(value), 60)} is not a name")


def _folder_names(**values: str) -> None:
    """Raise unless values are names of folders, without the folders that they are in."""
    _texts(**values)
    for name, value in values.items():
        if "/" in value or value in (".", ".."):
            raise ValueError(f"{name}: {one_line(repr(value), 60)} is not a name")


def _digest(name: str, value: str) -> None:
    if not _DIGEST.fullmatch(value):
        raise ValueError(f"{name}: {one_line(repr(value), 80)} is not a SHA-256")


def _time(text: str) -> None:
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"started: '{text[:40]}' is not a time in ISO 8601") from None
    if time.utcoffset() != datetime.timedelta(0):
        raise ValueError(f"started: '{text}' is not in UTC")


def _distinct(noun: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"duplicate {noun} {name}")


def _agree(name: str, stated: float | None, derived: float | None, *, from_: str) -> None:
    """Raise unless a stated number is the derived one."""
    same = stated is None and derived is None
    if stated is not None and derived is not None:
        same = math.isclose(stated, derived, rel_tol=_CLOSE, abs_tol=1e-12)
    if not same:
        raise ValueError(f"{name} is {stated}, but {from_} give {derived}")


def _contains(name: str, interval: Interval | None, value: float | None) -> None:
    """Raise unless an interval contains its value."""
    if interval is None:
        return
    low, high = interval
    slack = _CLOSE * max(abs(low), abs(high))
    if value is None or not low - slack <= value <= high + slack:
        raise ValueError(f"the interval {low} to {high} of {name} does not contain its value, {value}")


def _positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} is {value}, expected a positive number")


def _not_negative(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and value < 0:
            raise ValueError(f"{name} is {value}, expected at least 0")


def _stride(run: Run) -> None:
    """Raise unless only a task whose rows are divided into windows has an engine with a stride."""
    divides = run.quality.kind is not None and KINDS[run.quality.kind].form == "windows"
    variant = variants.parse(run.engine.variant)
    if reason := variant.stride_refusal(run.engine.max_length, divides=divides):
        raise ValueError(f"engine.variant: {run.engine.variant}: {reason}")


def _engine(engine: EngineRecord) -> None:
    _folder_names(**{"engine.name": engine.name, "engine.checkpoint.name": engine.checkpoint.name})
    _names(**{"engine.task": engine.task})
    _digest("engine.digest", engine.digest)
    try:
        variant = variants.parse(engine.variant)
    except EffxError as error:
        raise ValueError(f"engine.variant: {error}") from error
    try:
        row = backends.get(engine.backend)
        schemes = row.schemes_for(variant.scheme, row.device(engine.device))
    except EffxError as error:
        raise ValueError(f"engine: {error}") from error
    foreign = engine.made_elsewhere is not None  # its scheme may be one that effx does not build
    if row.builder_module is not None and not foreign and engine.scheme not in schemes:
        raise ValueError(f"engine: {engine.backend} does not build {engine.variant} as {engine.scheme!r}")
    if variant.precision not in (variants.AUTO, engine.precision):
        raise ValueError(f"engine.precision is {engine.precision}, but its variant is {engine.variant}")
    _not_negative(parameters=engine.parameters)
    _positive(size_bytes=engine.size_bytes, max_length=engine.max_length)
    if engine.weight_remaining is not None:
        _within("engine.weight_remaining", engine.weight_remaining, _MOST_WEIGHT)
    if engine.max_length is not None and engine.max_length > _MOST_TOKENS:
        raise ValueError(f"engine.max_length is {engine.max_length}, expected at most {_MOST_TOKENS}")
    for name, number in (("parameters", engine.parameters), ("size_bytes", engine.size_bytes or 0)):
        if number >= _LARGEST_BYTES:
            raise ValueError(f"engine.{name} is {number}, expected less than {_LARGEST_BYTES}")
    if structure := engine.structure:
        _structure(structure)
    if unknown := set(engine.drop_layers) - set(STRATEGIES):
        raise ValueError(f"engine.drop_layers: unknown strategy {min(unknown)[:40]!r}")
    if parity := engine.parity:
        try:
            check_parity(parity)
        except ValueError as error:
            raise ValueError(f"engine.parity: {error}") from error
        _within("engine.parity.label_agreement", parity.label_agreement, 1.0)


def _structure(structure: StructureSummary) -> None:
    counts = {"heads": structure.heads, "intermediate": structure.intermediate}
    for name, values in {
        **counts,
        "tokens": structure.tokens,
        "token_thresholds": structure.token_thresholds,
    }.items():
        if values is not None and len(values) != structure.layers:
            raise ValueError(
                f"engine.structure.{name}: expected {structure.layers} numbers, one per layer, got "
                f"{len(values)}"
            )
    for name, of_layers, full in (
        ("heads", structure.heads, structure.full_heads),
        ("intermediate", structure.intermediate, structure.full_intermediate),
    ):
        if full is not None and not 0 < full <= _MOST_TOKENS:
            raise ValueError(f"engine.structure.full_{name} is {full}, expected 1 to {_MOST_TOKENS}")
        if any(count < 0 or (full is not None and count > full) for count in of_layers):
            raise ValueError(f"engine.structure.{name}: expected 0 to {full} per layer, got {of_layers}")
    numbers = structure.numbers
    if numbers is not None:
        rising = all(before < after for before, after in itertools.pairwise((0, *numbers)))
        if len(numbers) != structure.layers or not rising:
            raise ValueError(
                f"engine.structure.numbers: expected {structure.layers} rising numbers from 1, got {numbers}"
            )
    # without numbers, the layers of a result are the first ones
    if unknown := set(structure.exits) - set(numbers or range(1, structure.layers + 1)):
        raise ValueError(f"engine.structure.exits: the engine has no layer {min(unknown)}")
    if any(not 0 < share <= 1 for share in structure.tokens or ()):
        raise ValueError(f"engine.structure.tokens: expected shares of at most 1, got {structure.tokens}")


def _within(name: str, value: float, high: float, low: float = 0.0) -> None:
    if not low - _CLOSE <= value <= high + _CLOSE:
        raise ValueError(f"{name} is {value}, expected {low:g} to {high:g}")


def _quality(scored: Quality) -> None:
    if scored.n < 1:
        raise ValueError(f"quality.n is {scored.n}, expected at least 1")
    _positive(**{"quality.workload.batch": scored.workload.batch})
    for name, value in {scored.metric: scored.value, **scored.metrics}.items():
        if name not in METRICS:
            raise ValueError(f"quality: unknown metric '{name}'. Known: {', '.join(METRICS)}")
        _within(f"quality: {name}", value, 1.0, METRICS[name].least)
        if METRICS[name].of_reference != (scored.reference is not None):
            problem = "needs a" if scored.reference is None else "has no"
            raise ValueError(f"quality: {name} {problem} reference")
    if scored.reference is not None:
        _folder_names(**{"quality.reference.name": scored.reference.name})
        _digest("quality.reference.digest", scored.reference.digest)
    if scored.metric not in scored.metrics:
        raise ValueError(f"quality.metrics: {scored.metric} is missing")
    _agree("quality.value", scored.value, scored.metrics[scored.metric], from_="its metrics")
    _contains("quality", scored.interval, scored.value)
    for each in scored.groups:
        if len(each.of_rows) != scored.n or not all(-1 <= row < len(each.names) for row in each.of_rows):
            last = len(each.names) - 1
            raise ValueError(
                f"quality.groups: expected {scored.n} numbers from -1 to {last} for {each.group}"
            )
    if scored.predictions or scored.labels:
        _predictions(scored)
    if METRICS[scored.metric].is_share:
        _share(scored)


def _quality_in(primary: Quality, result: WorkloadResult) -> None:
    """Raise unless a workload's score is of its batches, and of the run's rows."""
    scored = result.quality
    if scored is None:
        return
    if not primary.batch_dependent or not scored.batch_dependent:
        raise ValueError("quality: expected none, as the answers do not depend on the batch")
    if scored.workload != result.workload:
        raise ValueError(f"quality.workload: expected {result.workload.name}, got {scored.workload.name}")
    of_rows = [(each.metric, each.n, each.source, each.labels) for each in (primary, scored)]
    if of_rows[0] != of_rows[1]:
        raise ValueError("quality: expected the metric and rows of the run's quality")
    _quality(scored)


def _predictions(scored: Quality) -> None:
    """Raise unless the metrics are those of the predictions and labels."""
    for name, values in (("predictions", scored.predictions), ("labels", scored.labels)):
        if len(values) != scored.n:
            raise ValueError(f"quality: {len(values)} {name} of {scored.n} rows")
    if scored.label_names is None:
        if any(isinstance(value, list) for value in (*scored.predictions, *scored.labels)):
            raise ValueError("quality: several labels per row without label_names")
        if any(isinstance(value, str) for value in (*scored.predictions, *scored.labels)):
            raise ValueError("quality: texts as predictions or labels without a kind")
        if of_scores := [name for name in scored.metrics if METRICS[name].of_scores]:
            raise ValueError(
                f"quality: {of_scores[0]} is a metric of answers or rankings, and rows have one class or "
                "number"
            )
        if of_tags := [name for name in scored.metrics if METRICS[name].of_tags]:
            raise ValueError(f"quality: {of_tags[0]} is a metric of tags of words, and rows have one label")
    elif scored.kind and (unsuited := set(scored.metrics) - _metrics_of(KINDS[scored.kind])):
        raise ValueError(f"quality: {min(unsuited)} is not a metric of several labels per row")
    try:
        predictions, labels = scored.prediction_array, scored.label_array
    except ValueError as error:
        raise ValueError(f"quality: predictions or labels: {error}") from error
    if scored.label_names is None and METRICS[scored.metric].of_classes:
        for name, array in (("predictions", predictions), ("labels", labels)):
            if array.min() < 0 or np.any(array != np.floor(array)):
                raise ValueError(f"quality: {name} are not classes")
    elif scored.label_names is None and max(np.abs(predictions).max(), np.abs(labels).max()) > 1e100:
        raise ValueError("quality: predictions or labels are too large")
    of_words = scored.kind is not None and KINDS[scored.kind].of_words
    if of_words and list(map(len, scored.predictions)) != list(map(len, scored.labels)):
        raise ValueError("quality: predictions and labels have different numbers of words")
    for name, value in scored.metrics.items():
        derived = METRICS[name](labels, predictions)
        if not math.isclose(value, derived, rel_tol=_CLOSE, abs_tol=_CLOSE):
            raise ValueError(f"quality: {name} is {value}, but its predictions and labels give {derived}")


def _metrics_of(kind: TaskKind) -> set[str]:
    return {*kind.metrics, *kind.agreement_metrics}


def _share(scored: Quality) -> None:
    """Raise unless a value is a share of the rows, with Wilson's interval."""
    right = scored.value * scored.n
    if abs(right - round(right)) > 1e-6 * scored.n:
        raise ValueError(f"quality.value is {scored.value}, which is not a share of {scored.n} rows")
    for stated, derived in zip(scored.interval, intervals.wilson(round(right), scored.n), strict=True):
        _agree(f"an end of the interval of {scored.metric}", stated, derived, from_=f"{scored.n} rows")


def _workload(result: WorkloadResult) -> None:
    workload = result.workload
    _positive(batch=workload.batch, rate_per_s=workload.rate_per_s)
    _positive(length=None if workload.length == "real" else workload.length)
    if workload.length != "real" and workload.length > _MOST_TOKENS:
        raise ValueError(f"length is {workload.length}, expected at most {_MOST_TOKENS}")
    if (workload.rate_per_s is not None) != (workload.scenario == "server"):
        raise ValueError(f"rate_per_s is {workload.rate_per_s}, but the scenario is {workload.scenario}")
    _positive(load=result.load)
    if result.load is not None and workload.rate_per_s is None:
        raise ValueError(f"load is {result.load}, but the scenario is {workload.scenario}")
    blocks = result.blocks_s
    if not blocks or not all(blocks):
        raise ValueError("a block has no samples")
    shortest, longest = min(map(min, blocks)), max(map(max, blocks))
    if shortest < _SHORTEST_S or longest > _LONGEST_S:
        raise ValueError(
            f"latencies from {shortest} to {longest} s: expected {_SHORTEST_S:g} to {_LONGEST_S:g} s"
        )
    for name, column in (
        ("rounds", result.rounds),
        ("elapsed_s", result.elapsed_s),
        ("examples", result.examples),
        ("cpu_s", result.cpu_s),
    ):
        if column is not None and len(column) != len(blocks):
            raise ValueError(f"{name}: expected {len(blocks)} entries, one per block, got {len(column)}")
    if result.rounds[0] < 0 or any(b <= a for a, b in zip(result.rounds, result.rounds[1:], strict=False)):
        raise ValueError(f"rounds: expected rising numbers from 0, got {result.rounds}")
    for block, elapsed in zip(blocks, result.elapsed_s or (), strict=False):
        least = max(block) if workload.scenario == "server" else sum(block)  # queries wait together
        if not least * (1 - _CLOSE) - _SHORTEST_S * len(block) <= elapsed <= _LONGEST_S:
            raise ValueError(f"elapsed_s of a block is {elapsed}, but its samples took {least} s")
    spent = result.elapsed_s or [sum(block) for block in blocks]
    for used, elapsed in zip(result.cpu_s or (), spent, strict=False):
        if not 0 <= used <= _MOST_PROCESSORS * elapsed + _CPU_TICK_S:
            raise ValueError(f"cpu_s of a block is {used}, but it took {elapsed} s")
    for block, examples in zip(blocks, result.examples or (), strict=False):
        most = workload.batch * len(block)
        if not (most if workload.scenario == "grid" else len(block)) <= examples <= most:
            raise ValueError(
                f"a block has {examples} examples, but {len(block)} queries of {workload.batch} rows"
            )


def _energy(energy: Energy) -> None:
    if energy.source == "none":
        if not energy.reason:
            raise ValueError("energy: expected a reason, as its source is none")
        stated = (
            energy.joules_per_example,
            energy.interval,
            energy.interval_without_gain,
            energy.gross,
            energy.net,
            energy.net_interval,
        )
        if any(value is not None for value in stated) or energy.windows:
            raise ValueError("energy: expected no values and windows, as its source is none")
        return
    if energy.joules_per_example is None or energy.reason is not None:
        raise ValueError(
            f"energy: expected joules_per_example and no reason, as its source is {energy.source}"
        )
    _texts(meter=energy.meter)
    if not energy.windows:
        raise ValueError("energy needs windows")
    for window in energy.windows:
        _window(window)
    joules = float(np.mean([window.joules_per_example for window in energy.windows]))
    _positive(joules_per_example=energy.joules_per_example)
    _agree("joules_per_example", energy.joules_per_example, joules, from_="its windows")
    _agree("gross energy", energy.gross, joules, from_="its windows")
    _contains("joules_per_example", energy.interval, energy.joules_per_example)
    _contains("joules_per_example", energy.interval_without_gain, energy.joules_per_example)
    if idle := energy.idle:
        _positive(seconds=idle.seconds)
        _not_negative(watts=idle.watts)
        _contains("idle power", idle.interval, idle.watts)
    if energy.net is not None:
        if energy.net_reason is not None:
            raise ValueError(
                f"net energy is {energy.net}, but there is a reason why it is missing: {energy.net_reason}"
            )
        if idle is None:
            raise ValueError("net energy needs idle power")
        seconds = float(np.mean([window.duration_s / window.examples for window in energy.windows]))
        _agree("net energy", energy.net, joules - idle.watts * seconds, from_="its windows and idle power")
    _contains("net energy", energy.net_interval, energy.net)


def _window(window: EnergyWindow) -> None:
    _positive(duration_s=window.duration_s, examples=window.examples, seconds=window.seconds)
    _not_negative(joules=window.joules, integrated_joules=window.integrated_joules)
    if window.joules > _LARGEST_POWER_W * window.seconds:
        raise ValueError(
            f"a window has {window.joules} J in {window.seconds} s: more than {_LARGEST_POWER_W:g} W"
        )
    examples = window.examples * window.seconds / window.duration_s
    _agree(
        "joules_per_example of a window",
        window.joules_per_example,
        window.joules / examples,
        from_="its joules",
    )
    for interval in (window.interval, window.interval_without_gain):
        _contains("joules_per_example of a window", interval, window.joules_per_example)


def _settings(run: Run) -> None:
    settings = run.settings
    _positive(mean_tokens=settings.mean_tokens, threads=settings.runtime.threads)
    _not_negative(
        load_average=settings.load_average, session_wall_s=settings.session_wall_s,
        session_measured_s=settings.session_measured_s,
    )  # fmt: skip
    if settings.mean_depth is not None:
        structure = run.engine.structure
        _within("mean_depth", settings.mean_depth, structure.layers if structure else math.inf)


def _gates(run: Run) -> None:
    workloads = {result.workload.name for result in run.workloads}
    _distinct("gate", [f"{gate.name} of {gate.workload or 'the run'}" for gate in run.gates])
    for gate in run.gates:
        if gate.name not in GATES:
            raise ValueError(f"unknown gate '{gate.name}'. Known: {', '.join(GATES)}")
        if gate.workload is not None and gate.workload not in workloads:
            raise ValueError(f"gate {gate.name} is of workload {gate.workload}, which was not measured")
    failed = _unique(gate.name for gate in run.failed_gates)
    if run.flags != failed:
        raise ValueError(f"flags are {run.flags}, but the failed gates are {failed}")


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
