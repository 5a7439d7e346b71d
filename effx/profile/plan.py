"""What is measured, as data."""

from __future__ import annotations

import re
from dataclasses import dataclass

from effx.errors import UsageError

DEFAULT_GRID = ((1, 32), (1, 128), (8, 32), (8, 128), (32, 32), (32, 128))
GPU_GRID = tuple((batch, length) for batch in (1, 8, 32, 128, 512) for length in (32, 128))
"""To where the arithmetic is saturated: an encoder of BERT-base's size at 128 x 128, a small one later."""
_QUICK_GRID = ((1, 32), (32, 32))


@dataclass(frozen=True)
class Plan:
    """How an engine is profiled; the defaults give p50, p90 and p99 of single queries."""

    scenarios: tuple[str, ...] = ("single-stream",)
    """Of :data:`effx.specs.workloads.SCENARIOS`."""
    rate_per_s: float | None = None
    """Arrivals in the server scenario; None: half of what the slowest engine answers one by one."""
    grid: tuple[tuple[int, int], ...] | None = None
    """(batch, length) pairs; None: what fits of DEFAULT_GRID, or of GPU_GRID where all run on a GPU."""
    rounds: int = 10
    """Blocks per engine of the single-stream workload, interleaved with the other engines'."""
    block_queries: int = 70
    """Queries in a block; 10 blocks of 70 are enough samples for p99."""
    block_s: float = 0.5
    """A block of single-stream or multi-stream lasts at least so long."""
    block_limit_s: float = 5.0
    """A block ends early after this long, so that a slow engine does not take hours."""
    grid_rounds: int = 5
    grid_queries: int = 4
    grid_block_s: float = 0.25
    """A block of a grid cell lasts at least so long."""
    grid_limit_s: float = 2.0
    offline_batches: int = 16
    """Batches in each of ``grid_rounds`` blocks of offline, of all lengths; ``block_limit_s`` may end one."""
    warmup_s: float = 1.0
    """Longest warm-up per workload; it ends sooner once three windows agree within 10 %."""
    window_s: float = 10.0
    """Shortest energy window."""
    windows: int = 3
    """Energy windows per engine and metered workload; of several the last is twice as long (linearity)."""
    batch_size: int = 32
    """Rows in a batch of the accuracy pass and of the offline scenario."""
    resident: int | None = None
    """Engines loaded at once; None: as many as free memory holds."""
    threads: int | None = None
    limit: int | None = None
    """Validation rows at most."""
    seed: int = 0
    """Of the order of blocks and the choice of queries."""
    timeout_s: float = 600.0
    """A worker that is silent for so long counts as hung."""

    @classmethod
    def quick(cls) -> Plan:
        """Return the demo's plan: the same measurements, a smaller grid, shorter blocks."""
        return cls(grid=_QUICK_GRID, block_s=0.1, grid_block_s=0.1)


def parse_grid(text: str) -> tuple[tuple[int, int], ...]:
    """Parse ``1x32,8x128`` (batch x length); an empty text or ``none`` is no grid.

    Raises:
        UsageError: a part is not of that form.
    """
    if text.strip() in ("", "none"):
        return ()
    pairs = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([1-9]\d*)x([1-9]\d*)\s*", part)
        if not match:
            raise UsageError(f"--grid '{part}': write BATCHxLENGTH, as 1x32,8x128.")
        pairs.append((int(match.group(1)), int(match.group(2))))
    return tuple(dict.fromkeys(pairs))
