"""Workloads: which queries an engine is measured with. Names and shapes as data, without torch.

Scenarios follow MLPerf Inference (Reddi et al., ISCA 2020); ``grid`` is a fixed shape, as trtexec measures,
and ``from-text`` is single-stream with the tokenizer.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Scenario = Literal["single-stream", "from-text", "multi-stream", "offline", "server", "grid"]
Timing = Literal["end-to-end", "device"]
Length = int | Literal["real"]

SCENARIOS: dict[str, str] = {
    "single-stream": "one row per query, back to back; always measured, frontiers are drawn from it",
    "from-text": "one row per query, back to back, from its text: latency includes the tokenizer",
    "multi-stream": "eight rows per query, back to back",
    "offline": "batches of rows of similar length, for throughput; the same batches for every engine",
    "server": "one row per query, Poisson arrivals; latency counts from the scheduled arrival",
}
"""Scenarios that a user selects, with their descriptions. The grid is set by its shapes."""
SELECT_ALL = "all"
"""Selects every scenario."""


@dataclass(frozen=True)
class Workload:
    """Identifies what is measured: the queries, their shape, and between which events they are timed."""

    scenario: Scenario
    batch: int
    """Rows per query."""
    length: Length
    """Tokens per row: a number, or ``real`` for the lengths of the validation rows."""
    timing: Timing = "end-to-end"
    """``end-to-end``: from host arrays (in ``from-text``, from the texts) to host arrays. ``device``: between
    GPU events, without copies."""
    rate_per_s: float | None = None
    """Scheduled arrivals per second; None: queries run back to back."""

    @property
    def name(self) -> str:
        """Name for messages and tables, such as ``grid 8x32 device``; without the rate of arrivals."""
        return f"{self.scenario} {self.batch}x{self.length}" + (" device" if self.on_device else "")

    @property
    def on_device(self) -> bool:
        """Whether only the time on the device is measured."""
        return self.timing == "device"

    @property
    def without_rate(self) -> Workload:
        """The same workload at any rate of arrivals."""
        return replace(self, rate_per_s=None)

    def timed_on_device(self) -> Workload:
        """Return the same workload, timed on the device."""
        return replace(self, timing="device")

    def to_json(self) -> dict[str, Any]:
        """Return its fields as JSON."""
        return asdict(self)


SINGLE_STREAM = Workload("single-stream", 1, "real")
FROM_TEXT = Workload("from-text", 1, "real")
MULTI_STREAM = Workload("multi-stream", 8, "real")


def offline(batch: int) -> Workload:
    """Return the offline workload with ``batch`` rows per query."""
    return Workload("offline", batch, "real")


def server(rate_per_s: float) -> Workload:
    """Return the server workload with ``rate_per_s`` scheduled arrivals per second."""
    return Workload("server", 1, "real", rate_per_s=rate_per_s)


def grid(batch: int, length: int) -> Workload:
    """Return a grid cell: ``batch`` rows of exactly ``length`` tokens."""
    return Workload("grid", batch, length)
