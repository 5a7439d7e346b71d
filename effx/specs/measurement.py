"""How engines are measured: settings of ``effx profile`` and of a recipe's ``workloads``, without PyTorch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BeforeValidator, Field

from effx.errors import UsageError
from effx.specs.settings import OneOf, Parsed, Seed, Settings
from effx.specs.workloads import SCENARIOS, SELECT_ALL, SINGLE_STREAM, Workload, grid, offline

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class GridShape(NamedTuple):
    """The shape of a grid cell."""

    batch: int
    """Rows per query."""
    length: int
    """Tokens per row."""


DEFAULT_GRID = tuple(GridShape(batch, length) for batch in (1, 8, 32) for length in (32, 128))
GPU_GRID = tuple(GridShape(batch, length) for batch in (1, 8, 32, 128, 512) for length in (32, 128))
"""Up to where the arithmetic is saturated: BERT-base at 128 x 128, a small encoder at larger batches."""
_QUICK_GRID = (GridShape(1, 32), GridShape(32, 32))
_NO_GRID = "none"
_OFFLINE_BATCH = 32


def parse_shape(text: str) -> GridShape:
    """Parse ``8x32``: batch x length.

    Raises:
        UsageError: the text is not of that form.
    """
    match = re.fullmatch(r"\s*([1-9][0-9]{0,8})x([1-9][0-9]{0,8})\s*", text)
    if match is None:
        raise UsageError(f"'{text}': expected BATCHxLENGTH, e.g. 8x32.", settings="grid")
    return GridShape(int(match.group(1)), int(match.group(2)))


def built_for(text: str) -> Workload:
    """Return the workload that an engine is built for.

    Args:
        text: ``single``, single rows at their real lengths; ``BxL``, e.g. 8x32: batch x length; or
            ``offline``, batches of 32 rows of similar length.

    Raises:
        UsageError: it is none of them.
    """
    named = {"single": SINGLE_STREAM, "offline": offline(_OFFLINE_BATCH)}
    if text in named:
        return named[text]
    try:
        return grid(*parse_shape(text))
    except UsageError:
        raise UsageError(
            f"'{text}': expected single, offline or BATCHxLENGTH, e.g. 8x32.", settings="built_for"
        ) from None


def _built_for(text: str) -> str:
    built_for(text)
    return text


BUILT_FOR_GRAMMAR = "single|BxL|offline"
BuiltFor = Annotated[str, Parsed(_built_for, BUILT_FOR_GRAMMAR, "a workload, e.g. single or 8x32")]


def _shapes(value: Any) -> Any:
    """Return a grid with texts such as ``1x32,8x128`` split; ``none`` is an empty grid."""
    if value is None:
        return None
    parts: Sequence[Any] = value if isinstance(value, list | tuple) else (value,)
    split: list[Any] = []
    for part in parts:
        if not isinstance(part, str):
            pair = isinstance(part, list | tuple) and len(part) == 2
            split.append(GridShape(*part) if pair else part)
        elif part.strip() != _NO_GRID:
            split += part.split(",")
    return _once(split)


def _once(values: Sequence[Any]) -> tuple[Any, ...]:
    """Return values without duplicates; values that no setting takes, as lists, are left for validation."""
    try:
        return tuple(dict.fromkeys(values))
    except TypeError:
        return tuple(values)


def _scenarios(value: Any) -> Any:
    """Return scenarios with ``all`` expanded and single-stream first."""
    parts = tuple(value) if isinstance(value, list | tuple) else (value,)
    if SELECT_ALL in parts:
        return tuple(SCENARIOS)
    return _once((SINGLE_STREAM.scenario, *parts))


Shape = Annotated[
    GridShape, Parsed(parse_shape, "BxL", "a shape, e.g. 8x32", lambda shape: f"{shape[0]}x{shape[1]}")
]
ScenarioName = Annotated[str, OneOf("scenario", (*SCENARIOS, SELECT_ALL))]


class MeasurementPlan(Settings):
    """What is measured, and how long; the defaults give p50, p90 and p99 of single queries."""

    scenarios: Annotated[tuple[ScenarioName, ...], BeforeValidator(_scenarios)] = (SINGLE_STREAM.scenario,)
    """Scenarios to measure in addition to single-stream; ``all``: every scenario."""
    rate_per_s: Positive | None = None
    """Queries per second in the server scenario. Default: half the throughput of the slowest engine."""
    grid: Annotated[tuple[Shape, ...] | None, BeforeValidator(_shapes)] = None
    """Fixed shapes to measure, batch size x sequence length, e.g. 1x32,8x128, or none. Default: batch sizes
    1, 8, 32 (on a GPU also 128 and 512) with lengths 32 and 128, as far as the engine accepts them."""
    rounds: Annotated[int, Field(ge=3)] = 20
    """Number of rounds; in each, every engine answers one block of single queries."""
    block_queries: Count = 35
    """Queries in a block; 20 blocks of 35 are enough samples for p99."""
    block_s: NotNegative = 0.25
    """Minimum seconds of a single-stream or multi-stream block."""
    block_limit_s: Positive = 5.0
    """Maximum seconds of a block, so that a slow engine does not take hours."""
    grid_rounds: Count = 5
    """Number of rounds for each grid shape and for the offline scenario."""
    grid_queries: Count = 4
    """Queries in a block of a grid shape."""
    grid_block_s: NotNegative = 0.25
    """Minimum seconds of a block of a grid shape."""
    grid_limit_s: Positive = 2.0
    """Maximum seconds of a block of a grid shape."""
    offline_batches: Count = 16
    """Batches in a block of the offline scenario, of all lengths."""
    warmup_s: NotNegative = 1.0
    """Maximum seconds of warm-up per workload; it ends earlier once three windows agree within 10 %."""
    window_s: Positive = 10.0
    """Minimum seconds of an energy window."""
    windows: Count = 3
    """Energy windows per engine and metered workload; the last of several is twice as long, for the
    linearity gate."""
    batch_size: Count = 32
    """Rows per batch in the accuracy pass and the offline scenario."""
    resident: Count | None = None
    """Maximum number of engines loaded at once. Default: as many as fit in free memory."""
    threads: Count | None = None
    """Compute threads. Default: the processors that this process may use."""
    limit: Count | None = None
    """Maximum number of validation rows."""
    seed: Seed = 0
    """Random seed of the order of blocks and the choice of queries."""
    trust: bool = False
    """Also open engines that can run code (PyTorch programs) and were not built on this machine."""
    timeout_s: Positive = 600.0
    """Seconds without an answer after which a worker counts as hung."""

    @classmethod
    def quick(cls) -> Self:
        """Return the demo's plan: the same measurements, a smaller grid, shorter blocks."""
        return cls(grid=_QUICK_GRID, block_s=0.1, grid_block_s=0.1)
