"""Result files: ``results/ID.json``, what one measurement of one engine gave.

records    the types: a run with its engine, host, accuracy, workloads, energy, memory, gates; a failure
checks     what must agree within a result
storage    files: written once, checked when they are read
"""

from effx.results.checks import check
from effx.results.records import (
    MIN_SAMPLES,
    MOST_LOAD,
    SCHEMA,
    Energy,
    EnergyWindow,
    EngineRecord,
    ExitSettings,
    Facts,
    FailedEngineRecord,
    Failure,
    GateResult,
    Idle,
    Interruption,
    Interval,
    MeasurementRecord,
    MeterRecord,
    PeakMemory,
    Quality,
    ReferenceEngine,
    RowGroups,
    Run,
    RuntimeRecord,
    Statistics,
    StructureSummary,
    WorkloadResult,
    facts,
    latency_summary,
)
from effx.results.storage import failures, find, open_run, read, save

__all__ = [
    "MIN_SAMPLES", "MOST_LOAD", "SCHEMA", "Energy", "EnergyWindow",
    "EngineRecord", "ExitSettings", "Facts", "FailedEngineRecord", "Failure", "GateResult",
    "Idle", "Interruption", "Interval", "MeasurementRecord", "MeterRecord", "PeakMemory", "Quality",
    "ReferenceEngine", "RowGroups", "Run",
    "RuntimeRecord", "Statistics", "StructureSummary", "WorkloadResult", "check", "facts", "failures", "find",
    "latency_summary", "open_run", "read", "save",
]  # fmt: skip
