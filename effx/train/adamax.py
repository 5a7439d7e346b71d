"""Adamax as in the code of MT-DNN and of super tickets (Liang et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class Adamax(torch.optim.Optimizer):
    """Adamax (Kingma and Ba 2015, section 7.1) with decoupled weight decay and without bias correction.

        m = b1 m + (1 - b1) g
        u = max(b2 u, |g| + eps)
        w = w - lr (m / (u + eps) + decay w)

    ``torch.optim.Adamax`` adds the decay to g and corrects the bias of m; here warm-up replaces the
    correction.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step on the parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            gradients = [weight.grad for weight in weights]
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight] = {"m": torch.zeros_like(weight), "u": torch.zeros_like(weight)}
            means = [self.state[weight]["m"] for weight in weights]
            norms = [self.state[weight]["u"] for weight in weights]
            beta1, beta2 = group["betas"]
            torch._foreach_lerp_(means, gradients, 1 - beta1)
            sizes = torch._foreach_abs(gradients)
            torch._foreach_add_(sizes, group["eps"])
            torch._foreach_mul_(norms, beta2)
            torch._foreach_maximum_(norms, sizes)
            updates = torch._foreach_div(means, torch._foreach_add(norms, group["eps"]))
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(weights, updates, alpha=-group["lr"])
        return loss


def groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return two groups of the trained parameters: matrices, and biases and norms without decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
