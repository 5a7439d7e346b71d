"""The journal of a session: everything that was measured so far, so that an interruption loses nothing.

    OUT/unfinished/SESSION.jsonl    line 1: SessionHeader, then a JournalEntry for everything measured

An entry is appended as soon as something is measured; the file is removed once all results are saved. A line
that was cut short by SIGKILL is dropped. Engines are compared round by round, so that only complete rounds of
all engines count when a session is resumed.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from effx import progress, records
from effx.errors import ArtifactError, one_line
from effx.host.identity import Host
from effx.profile.protocol import Block
from effx.results import EnergyWindow, Idle, Quality, RuntimeRecord
from effx.specs.measurement import MeasurementPlan
from effx.specs.workloads import Workload

FOLDER = "unfinished"
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
Kind = Literal["block", "window"]
Round = tuple[Kind, Workload, int]
"""One round of blocks or energy windows of a workload."""


@dataclass(frozen=True)
class JournaledEngine:
    """An engine of a session, and the rows that it answers."""

    folder: str
    """Absolute."""
    digest: str
    rows: str
    """SHA-256 of texts and labels."""


@dataclass(frozen=True)
class SessionHeader:
    """What is measured, where, and how; a session can only be resumed if all of it is the same."""

    session: str
    host: Host
    plan: MeasurementPlan
    meter: str
    """As requested."""
    meters: list[str]
    """Those that were opened."""
    data: dict[str, Any] | None
    """Where the rows are, as :meth:`effx.specs.data.DataSource.to_json`; None: as recorded in the engines."""
    engines: list[JournaledEngine]
    reference: str | None = None
    """As requested: what engines are compared with on rows without labels; None: by default."""
    gpu: str | None = None
    """UUID of the GPU that engines run on; None: they run on none, or it is not known."""
    metered: list[str | None] | None = None
    """UUIDs of what the meters read, None for one that has none; None: a journal of an earlier version."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def differences(self, other: SessionHeader) -> list[str]:
        """Return what differs in another session, in words; empty: its rounds may be added to these."""
        differing = [
            f"{name} ({_shown(before)}, now {_shown(after)})"
            for name in vars(self.host)
            if name != "hostname"  # of a container, new in each run
            and (before := getattr(self.host, name)) != (after := getattr(other.host, name))
            and not (name == "effx_commit" and None in (before, after))  # git does not answer in time
        ]
        plans = (self.plan.replace(trust=False), other.plan.replace(trust=False))
        if plans[0] != plans[1]:
            differing.append("settings")
        if self.reference != other.reference:
            differing.append("reference")
        if self.meters != other.meters:
            differing.append(f"meters ({', '.join(self.meters)}, now {', '.join(other.meters)})")
        elif self.metered is not None and self.metered != other.metered:
            differing.append(
                f"metered GPU ({_all_shown(self.metered)}, now {_all_shown(other.metered or [])})"
            )
        if self.gpu is not None and self.gpu != other.gpu:
            differing.append(f"GPU of the engines ({self.gpu}, now {_shown(other.gpu)})")
        if [engine.digest for engine in self.engines] != [engine.digest for engine in other.engines]:
            differing.append("engines")
        elif [engine.rows for engine in self.engines] != [engine.rows for engine in other.engines]:
            differing.append("rows")
        return differing


@dataclass(frozen=True)
class JournalEntry:
    """Something that was measured, or the end of a round; what does not apply is None."""

    step: Literal["scored", "block", "window", "round", "idle", "saved", "failed", "resumed"]
    at: str = field(default_factory=lambda: timestamp())
    """Time in UTC."""
    engine: int | None = None
    """Index in the header."""
    started: str | None = None
    quality: Quality | None = None
    in_batches: list[Quality] | None = None
    """Scores in the batches of other workloads."""
    mean_depth: float | None = None
    workload: Workload | None = None
    round: int | None = None
    kind: Kind | None = None
    """Of a round."""
    block: Block | None = None
    window: EnergyWindow | None = None
    reason: str | None = None
    """Why a window or the engine failed."""
    flags: list[str] | None = None
    """Of the engine's samples of the workload."""
    on_gpu: bool | None = None
    idle: Idle | None = None
    result: str | None = None
    """Id of the result that was saved."""
    runtime: RuntimeRecord | None = None
    host_peak_bytes: int | None = None
    """Of the engine's workers so far."""
    device_peak_bytes: int | None = None
    device_memory_by: str | None = None
    measured_s: float | None = None
    quota_periods: int | None = None
    throttled_periods: int | None = None

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT


class Journal:
    """A file of a header and entries, to which entries are appended."""

    def __init__(
        self,
        path: Path,
        header: SessionHeader,
        entries: Sequence[JournalEntry] = (),
        complete_bytes: int = 0,
    ) -> None:
        self.path, self.header = path, header
        self.entries = list(entries)
        """Those of earlier processes."""
        self._complete_bytes = complete_bytes
        """Where the last complete line of the file ends; 0: there is none yet."""
        self._failed = False

    def begin(self) -> None:
        """Write the header, or go on after the last complete entry of an earlier process."""
        with self._guarded():
            if self._complete_bytes:
                os.truncate(self.path, self._complete_bytes)
            else:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._append(_line(self.header), os.O_TRUNC)
        if self.entries:
            self.add(JournalEntry("resumed"))

    def add(self, entry: JournalEntry) -> None:
        """Append an entry; a full disk costs the journal, not the session."""
        if not self._failed:
            with self._guarded():
                self._append(_line(entry), os.O_APPEND)

    def remove(self) -> None:
        """Remove the file: all results are saved."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            self.path.parent.rmdir()  # other sessions may be unfinished

    def _append(self, data: bytes, mode: int) -> None:
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | mode, 0o666)
        try:
            while data:
                data = data[os.write(handle, data) :]
            os.fsync(handle)
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failed = True
            progress.say(
                f"cannot write {self.path}: {error.strerror}. Measuring continues, but after an interruption "
                "it cannot be resumed from here."
            )

    @property
    def resumable(self) -> bool:
        """Whether the file has what was measured."""
        return not self._failed and self.path.exists()


def read(path: Path) -> Journal:
    """Read the journal of a session that was interrupted.

    Raises:
        ArtifactError: it is missing or damaged, other than at its end.
    """
    complete, _, _ = records.read_regular(path).rpartition(b"\n")
    lines = complete.split(b"\n")
    try:
        header: SessionHeader = _adapter(SessionHeader).validate_json(lines[0])
        entries = [_adapter(JournalEntry).validate_json(line) for line in lines[1:]]
    except ValidationError as error:
        raise ArtifactError(f"{path} is not the journal of a session ({one_line(error, 200)}).") from error
    return Journal(path, header, entries, len(complete) + 1)


def timestamp() -> str:
    """Return the time in UTC with milliseconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _line(value: SessionHeader | JournalEntry) -> bytes:
    text: bytes = _adapter(type(value)).dump_json(
        value, exclude_none=isinstance(value, JournalEntry), warnings=False
    )
    return text + b"\n"


_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def _all_shown(values: Sequence[object]) -> str:
    return ", ".join(map(_shown, values))


def _shown(value: object) -> str:
    return "unknown" if value is None else str(value)
