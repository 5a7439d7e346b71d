"""Simulated results of one task at the shapes of a grid, with known relative costs; nothing was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from effx.results import Energy, RowGroups, Run, WorkloadResult
from effx.row_slices import Slice
from effx.specs.workloads import grid
from tests.analysis.simulated_run import simulated_run
from tests.analysis.simulated_tasks import changed

SHAPES = ((1, 32), (1, 128))
FOUR_SHAPES = (*SHAPES, (32, 32), (32, 128))
NONE = Energy("none", "none", "measured for single-stream 1xreal only")


@dataclass(frozen=True)
class Reduction:
    """A technique with known losses and costs."""

    costs: Mapping[tuple[int, int], float]
    """Shape -> cost relative to the baseline; a shape that is not in it, or not measured of the baseline, was
    not measured."""
    lost: float = 0.0
    """Share of rows that become wrong."""
    gained: float = 0.0
    lost_of_long: float = 0.0
    """Share of the longest quarter of the rows that become wrong besides."""


def everywhere(cost: float, **losses: float) -> Reduction:
    """Return a technique of one relative cost at all shapes."""
    return Reduction(dict.fromkeys(FOUR_SHAPES, cost), **losses)


def quarters(n: int) -> RowGroups:
    """Return the quarters of rows by their number of words, of which every fourth row is."""
    names = ("1 to 9", "10 to 19", "20 to 29", "30 to 60")
    return RowGroups.of([Slice("words", name, np.arange(at, n, 4)) for at, name in enumerate(names)], n)[0]


def length_runs(
    seed: int,
    techniques: Mapping[str, Reduction],
    *,
    shapes: Sequence[tuple[int, int]] = SHAPES,
    n: int = 400,
    rounds: int = 5,
    noise: float = 0.02,
    task: str = "sst2",
    **options: str,
) -> list[Run]:
    """Return the results of a task in one session: the baseline, then the techniques.

    Args:
        seed: of rows and times.
        techniques: variant -> what it loses and costs.
        shapes: batch size and length that the baseline was measured at.
        n: rows.
        rounds: of blocks.
        noise: of the logarithm of an engine's times in a round, the same for all its queries.
        task: its name.
        options: of :func:`simulated_run`.
    """
    rng = np.random.default_rng(seed)
    before = rng.random(n) < 0.1
    full = Reduction(dict.fromkeys(shapes, 1.0))
    runs = []
    drifts = {shape: np.exp(rng.normal(0, 0.1, rounds)) for shape in shapes}  # of the host, in each round
    for variant, reduction in {"fp32": full, **techniques}.items():
        wrong = changed(rng, before, reduction.lost, reduction.gained)
        long = np.arange(3, n, 4)
        wrong[long] |= rng.random(len(long)) < reduction.lost_of_long
        wrong = before if variant == "fp32" else wrong
        precision = "int8" if "int8" in variant else "fp32"
        run = simulated_run(f"{task}-e.{variant}", np.flatnonzero(wrong), precision=precision, task=task, n=n,
                            rounds=rounds, queries=3, session=f"s-{seed}", **options)  # type: ignore[arg-type]  # fmt: skip
        cells = [
            _cell(rng, shape, 1e-4 * shape[0] * shape[1] * cost, drifts[shape], noise)
            for shape, cost in reduction.costs.items()
            if shape in shapes
        ]
        groups = replace(run.quality, groups=[quarters(n)])
        runs.append(
            replace(run, engine=replace(run.engine, variant=variant), quality=groups,
                    workloads=[*run.workloads, *cells])
        )  # fmt: skip
    return runs


def _cell(
    rng: np.random.Generator, shape: tuple[int, int], seconds: float, drift: np.ndarray, noise: float
) -> WorkloadResult:
    of_rounds = seconds * drift * np.exp(rng.normal(0, noise, len(drift)))
    blocks = [(slow * rng.uniform(0.99, 1.01, 4)).tolist() for slow in of_rounds]
    cpu_s = [1.5 * sum(block) for block in blocks]
    return WorkloadResult(grid(*shape), blocks, list(range(len(blocks))), NONE, cpu_s=cpu_s)
