"""Several processes that train one model together, started by torchrun or accelerate launch.

All processes train; gradients are averaged by PyTorch's DistributedDataParallel, which the Trainer
sets up. For early stopping, all processes evaluate. At the end, the first one evaluates, writes and prints,
and the others wait for it.
"""

from __future__ import annotations

import os
from typing import Any, TypeVar

import torch
import torch.distributed

from effx.errors import UsageError

T = TypeVar("T")


def processes() -> int:
    """Return the number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Return whether this process evaluates, writes and prints."""
    return int(os.environ.get("RANK", "0")) == 0


def wait() -> None:
    """Wait until all processes call this."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def mean(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``values`` over all processes; every process must call this."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        values = values.clone()
        torch.distributed.all_reduce(values)
        values /= torch.distributed.get_world_size()
    return values


def gathered(value: T) -> list[T]:
    """Return the values of all processes, by rank; every process must call this."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        values: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(values, value)
        return values
    return [value]


def agreed(value: float, device: torch.device) -> float:
    """Return the mean of a number over all processes, so that what they decide by it is the same for all."""
    return float(mean(torch.tensor(value, dtype=torch.float64, device=device)))


def refuse(what: str) -> None:
    """Raise :class:`UsageError` if several processes were started for ``what``, which runs in one process."""
    if processes() > 1:
        raise UsageError(
            f"{what} runs in one process; use several processes for fine-tuning and multi-task training only."
        )
