"""Settings of pruning under a budget of measured cost, without PyTorch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from effx.specs.settings import Seed, Settings


class OneShotSettings(Settings):
    """Pruning without training."""

    speedup: Annotated[float, Field(gt=1)] = 2.0
    """How many times as fast the pruned engine is to be, by the cost table."""
    rows: Annotated[int, Field(ge=8)] = 1024
    """Training rows that layers are measured on (three quarters), and whole models compared on (a quarter);
    their labels are not used."""
    candidates: Annotated[int, Field(ge=1)] = 200
    """Number of structures that are compared."""
    seed: Seed = 0
    """Random seed of the rows and of the search."""
