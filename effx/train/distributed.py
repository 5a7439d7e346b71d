"""Several processes that train one model together, as torchrun and accelerate launch start them.

Every process fine-tunes; the gradients are averaged (PyTorch's DistributedDataParallel, by way of the
Trainer). The first one evaluates, writes and prints; the others wait for it.
"""

from __future__ import annotations

import os

import torch.distributed

from effx.errors import UsageError


def processes() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Return whether this process is the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def wait() -> None:
    """Wait until every process is here."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def mean(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of what every process holds; all of them have to ask."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        values = values.clone()
        torch.distributed.all_reduce(values)
        values /= torch.distributed.get_world_size()
    return values


def refuse(what: str) -> None:
    """Raise :class:`UsageError` where several processes were started for what takes one."""
    if processes() > 1:
        raise UsageError(f"{what} runs in one process; torchrun is for effx train finetune.")
