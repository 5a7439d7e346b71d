"""One encoder that several task models share, each with the heads and FFNs of its ticket alone.

Ticket sharing (Liang et al. 2021, section 4 and algorithm 1): in a batch of task t, the forward pass uses the
structures of t's ticket. ``strict``: the step changes nothing else. What belongs to t:

    always                   embeddings, LayerNorms, the attention's output bias, the pooler, t's head
    a head of t's ticket     its rows of W_Q, W_K, W_V and their biases, its columns of W_O
    an FFN of t's ticket     W1, b1, W2, b2; of single neurons, their rows of W1 and b1 and columns of W2

The published code masks the forward pass only: the gradients of other structures are zero, but the optimizer
still moves them by momentum and weight decay (``published``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, TrainerCallback

from effx.errors import UsageError
from effx.models import families, masks, structure
from effx.models.families import Matrix
from effx.models.families.removal import linear
from effx.models.masks import StructureMasks
from effx.specs.distillation import DistillationSettings
from effx.specs.tasks import Task
from effx.structure import Layer, Structure
from effx.train.distillation import HeadLoss

_STEPS = "steps_of_rows"
"""Name in the state of AdamW: steps of each row of a parameter, or column, if only some tasks train it."""


def union(structures: Sequence[Structure]) -> Structure:
    """Return the structure with every head, FFN neuron and layer that one of ``structures`` has.

    Raises:
        UsageError: they have different layers.
    """
    first = structures[0]
    if any(other.numbers != first.numbers for other in structures):
        raise UsageError("the tickets have different layers: shared encoders need the same ones.")
    layers = []
    for parts in zip(*(each.layers for each in structures), strict=True):
        heads = tuple(sorted({head for part in parts for head in part.heads}))
        neurons = tuple(sorted({neuron for part in parts for neuron in part.neuron_indices}))
        complete = any(part.intermediate and part.neurons is None for part in parts)
        layers.append(
            Layer(parts[0].index, heads, len(neurons), None if complete or not neurons else neurons)
        )
    return replace(first, layers=tuple(layers))


@dataclass(frozen=True)
class Slice:
    """Some entries of a parameter."""

    parameter: nn.Parameter
    index: tuple[Any, ...] | None
    """None: all entries."""


def outside(model: PreTrainedModel, ticket: Structure) -> list[Slice]:
    """Return what a shared model has and a ticket has not; see the table above.

    Args:
        model: the shared encoder, in any of its task models.
        ticket: has the same layers, and no head or neuron that the model has not.
    """
    family = families.of(model)
    result: list[Slice] = []
    size = family.head_size(model)
    for layer, shared, part in zip(family.layers(model), structure(model).layers, ticket.layers, strict=True):
        others = [position for position, head in enumerate(shared.heads) if head not in part.heads]
        if others:
            for matrix in family.head_matrices:
                result += _slices(layer, matrix, others, size, everything=not part.heads)
        if not shared.intermediate:
            continue
        kept = set(part.neuron_indices)
        neurons = [i for i, neuron in enumerate(shared.neuron_indices) if neuron not in kept]
        if not neurons:
            continue
        for matrix in family.neuron_matrices:
            result += _slices(layer, matrix, neurons, 1, everything=not kept)
        if not kept:
            bias = layer.get_submodule(family.ffn_output_path).bias
            result += [Slice(bias, None)] if isinstance(bias, nn.Parameter) else []
    return result


def _slices(
    layer: nn.Module, matrix: Matrix, positions: Sequence[int], size: int, *, everything: bool
) -> Iterator[Slice]:
    module = linear(layer, matrix.path)
    rows = torch.tensor(matrix.indices(matrix.width(module), positions, size))
    index = (rows,) if matrix.axis == 0 else (slice(None), rows)
    for parameter in (module.weight, module.bias if matrix.axis == 0 else None):
        if isinstance(parameter, nn.Parameter):
            yield Slice(parameter, None if everything else index)


class SharedModel(nn.Module):
    """Task models around one encoder, whose structure is the union of the tickets."""

    models: tuple[PreTrainedModel, ...]
    """One for each task. Not a submodule: its encoder and heads are registered once, as such."""
    current: int
    """The task of the latest batch."""

    def __init__(
        self,
        models: Sequence[PreTrainedModel],
        tasks: Sequence[Task],
        tickets: Sequence[Structure] | None,
        distilled: Sequence[DistillationSettings | None] | None = None,
    ) -> None:
        """Let all models use the encoder of the first.

        Args:
            models: one for each task; their encoders have the same structure. They are changed in place.
            tasks: of the models.
            tickets: of the models; None: every task uses every structure.
            distilled: what each task learns from its teacher, None: it has none; None: no task has one.
        """
        super().__init__()
        prefix = models[0].base_model_prefix
        self.encoder = getattr(models[0], prefix)
        for model in models[1:]:
            setattr(model, prefix, self.encoder)
        self.heads = nn.ModuleList(
            nn.ModuleDict({name: part for name, part in model.named_children() if name != prefix})
            for model in models
        )
        self.models = tuple(models)
        self.losses = [
            HeadLoss(task, settings)
            for task, settings in zip(tasks, distilled or [None] * len(tasks), strict=True)
        ]
        self.outside: list[list[Slice]] = [[] for _ in models]
        self._masks: list[StructureMasks | None] = [None for _ in models]
        for number, (model, ticket) in enumerate(zip(models, tickets or (), strict=False)):
            if ticket.layers != structure(model).layers:
                self.outside[number], self._masks[number] = (
                    outside(model, ticket),
                    masks.leaving(model, ticket),
                )

    def train(self, mode: bool = True) -> SharedModel:
        """Set the mode of the encoder, the heads and the task models."""
        super().train(mode)
        for model in self.models:
            model.training = mode
        return self

    def forward(
        self,
        task: int,
        inputs: Mapping[str, torch.Tensor],
        labels: torch.Tensor,
        weight: float = 1.0,
        teacher_logits: torch.Tensor | None = None,
    ) -> dict[str, Any]:
        """Return the ``loss`` of a batch of one task, and its ``logits`` [batch, outputs].

        Args:
            task: number of the task.
            inputs: arrays [batch, length] by name.
            labels: [batch], or [batch, labels].
            weight: factor of the loss.
            teacher_logits: of the task's teacher, [batch, outputs]; None: it has none.
        """
        self.current = task
        with self.applied(task):
            logits = self.models[task](**inputs).logits
        loss = self.losses[task](logits, labels, teacher_logits, inputs["attention_mask"])
        return {"loss": weight * loss, "logits": logits}

    def applied(self, task: int) -> Any:
        """Return a context in which the task's model computes as if only its ticket remained."""
        factors = self._masks[task]
        if factors is None:
            return nullcontext()
        model = self.models[task]
        device, neurons = model.device, factors.neurons
        on_device = StructureMasks(
            factors.heads.to(device), factors.ffns.to(device), None if neurons is None else neurons.to(device)
        )
        return masks.applied(model, on_device)


class HoldOthers(TrainerCallback):  # type: ignore[misc]
    """Undoes what the optimizer does outside the ticket of the batch's task: to weights and to moments.

    AdamW divides its moments by a correction that depends on the number of steps, of which it counts one for
    a whole parameter. Rows that some tasks do not train have had fewer steps; theirs are counted apart, in
    the optimizer's state, and their update is that of their own number of steps (Kingma and Ba 2015,
    algorithm 1).
    """

    def __init__(self, model: SharedModel) -> None:
        self._model = model
        self._before: list[tuple[Slice, torch.Tensor, dict[str, torch.Tensor]]] = []
        self._axes = {
            part.parameter: len(part.index) - 1
            for parts in model.outside
            for part in parts
            if part.index is not None
        }
        """Parameter of which some task trains only a part -> the axis of the parts."""

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any
    ) -> None:
        """Remember the entries outside the ticket; a parameter that is outside entirely has no step."""
        self._before = []
        for part in self._model.outside[self._model.current]:
            if part.index is None:
                part.parameter.grad = None
                continue
            moments = {
                name: value[part.index].clone() for name, value in _moments(optimizer, part.parameter).items()
            }
            self._before.append((part, part.parameter.data[part.index].clone(), moments))

    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """Write the remembered entries back; moments that are new begin at zero."""
        self._correct(optimizer)
        for part, weights, moments in self._before:
            part.parameter.data[part.index] = weights
            for name, value in _moments(optimizer, part.parameter).items():
                value[part.index] = moments.get(name, torch.zeros_like(value[part.index]))
        self._before = []

    @torch.no_grad()
    def _correct(self, optimizer: Any) -> None:
        """Count the step for the rows that were trained; correct those with fewer than AdamW counted."""
        outside = {part.parameter: part.index for part, _, _ in self._before}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                moments = optimizer.state.get(parameter, {})
                axis = self._axes.get(parameter)
                if axis is None or parameter.grad is None or "exp_avg" not in moments:
                    continue  # Adamax corrects nothing
                steps = moments.setdefault(
                    _STEPS, torch.zeros(parameter.shape[axis], device=parameter.device)
                )
                trained = torch.ones_like(steps, dtype=torch.bool)
                if (index := outside.get(parameter)) is not None:
                    trained[index[axis]] = False
                steps += trained
                counted = moments["step"].to(steps.device)
                rows = (trained & (steps < counted)).nonzero().flatten()
                if not len(rows):
                    continue
                shape = [-1 if at == axis else 1 for at in range(parameter.dim())]
                mean, square = (moments[name].index_select(axis, rows) for name in ("exp_avg", "exp_avg_sq"))
                taken, due = (
                    _adam_update(mean, square, number, group["betas"], group["eps"])
                    for number in (counted, steps[rows].view(shape))
                )
                parameter.index_add_(axis, rows, taken - due, alpha=float(group["lr"]))


def _adam_update(
    mean: torch.Tensor, square: torch.Tensor, steps: torch.Tensor, betas: tuple[float, float], eps: float
) -> torch.Tensor:
    """Return what Adam subtracts at learning rate 1, from its moments after ``steps`` steps."""
    first, second = ((1 - beta ** steps.double()).to(mean.dtype) for beta in betas)
    return mean / first / ((square / second).sqrt() + eps)


def _moments(optimizer: Any, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
    """Return the optimizer's tensors with one value per entry of a parameter."""
    state = optimizer.state.get(parameter, {})
    return {
        name: value
        for name, value in state.items()
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape
    }
