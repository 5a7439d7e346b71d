"""What the tasks of a shared model compute, and what their training steps change."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from effx.errors import UsageError
from effx.models import families, structure, surgery
from effx.specs.distillation import DistillationSettings
from effx.specs.tasks import TASKS
from effx.structure import Layer, Structure
from effx.train.adamax import Adamax
from effx.train.adamax import groups as adamax_groups
from effx.train.multitask.sharing import HoldOthers, SharedModel, union
from tests.conftest import CONFIGS

EVERYTHING = Structure(tuple(Layer(index, (0, 1, 2, 3), 64) for index in range(3)))
# what only one of the tasks has: heads 0 and 1 of layer 0, all heads of layer 1, the FFN of layer 0,
# neurons 0 to 31 of layer 2; and the other way round
FIRST = Structure((Layer(0, (0, 1, 2), 64), Layer(1, (0, 1, 2, 3), 64), Layer(2, (1,), 32, tuple(range(32)))))
SECOND = Structure((Layer(0, (2, 3), 0), Layer(1, (), 64), Layer(2, (1, 2), 40, tuple(range(24, 64)))))
TASK_PAIR = (TASKS["sst2"], TASKS["mnli"])
OPTIMIZERS: dict[str, Callable[[torch.nn.Module], torch.optim.Optimizer]] = {
    "adamax": lambda model: Adamax(adamax_groups(model, 0.01), 1e-3),
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.01, fused=True),
}


def task_models(family: str, seed: int = 0) -> list[PreTrainedModel]:
    """One model per task of TASK_PAIR, with equal encoders, without dropout."""
    models = []
    for task in TASK_PAIR:
        torch.manual_seed(seed)
        config = AutoConfig.for_model(family, **{**CONFIGS[family], "vocab_size": 100})
        for name in vars(config):
            if "dropout" in name and isinstance(getattr(config, name), float):
                setattr(config, name, 0.0)
        config.num_labels = task.outputs
        models.append(AutoModelForSequenceClassification.from_config(config))
    torch.manual_seed(seed + 1)
    for tensor in models[0].parameters():  # also biases, which begin at zero
        tensor.data.add_(torch.randn_like(tensor) * 0.05)
    models[1].get_submodule(models[1].base_model_prefix).load_state_dict(
        models[0].get_submodule(models[0].base_model_prefix).state_dict()
    )
    return models


def shared_model(family: str, tickets: Sequence[Structure] | None) -> SharedModel:
    models = task_models(family)
    if tickets:
        for model in models:
            surgery.reduce_to(model, union(tickets))
    return SharedModel(models, TASK_PAIR, tickets)


def batch(family: str, task: int, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(6, 9, dtype=torch.int64)
    mask[0, 5:] = 0
    inputs = {"input_ids": torch.randint(5, 100, (6, 9), generator=generator), "attention_mask": mask}
    labels = torch.randint(0, TASK_PAIR[task].outputs, (6,), generator=generator)
    return {"task": task, "inputs": inputs, "labels": labels}


def step(
    model: SharedModel,
    family: str,
    task: int,
    seed: int,
    optimizer: torch.optim.Optimizer,
    hold: HoldOthers | None,
) -> None:
    """One training step, with the calls of the Trainer."""
    optimizer.zero_grad(set_to_none=True)
    model(**batch(family, task, seed))["loss"].backward()
    if hold:
        hold.on_pre_optimizer_step(None, None, None, optimizer=optimizer)
    optimizer.step()
    if hold:
        hold.on_optimizer_step(None, None, None, optimizer=optimizer)


def weights(model: SharedModel, task: int) -> list[torch.Tensor]:
    """Weights outside the ticket of a task."""
    return [
        part.parameter.data[... if part.index is None else part.index].clone() for part in model.outside[task]
    ]


def moments(
    model: SharedModel, optimizer: torch.optim.Optimizer, task: int
) -> dict[tuple[int, str], torch.Tensor]:
    """The optimizer's moments of these weights, by number of the part and name; those that are there."""
    return {
        (number, name): moment[... if part.index is None else part.index].clone()
        for number, part in enumerate(model.outside[task])
        for name, moment in optimizer.state.get(part.parameter, {}).items()
        if isinstance(moment, torch.Tensor) and moment.shape == part.parameter.shape
    }


def all_equal(before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("family", CONFIGS)
def test_logits_with_a_ticket_are_those_of_the_pruned_model(family: str) -> None:
    shared = shared_model(family, (FIRST, SECOND)).eval()
    for task, ticket in enumerate((FIRST, SECOND)):
        inputs = batch(family, task, 3)["inputs"]
        with torch.inference_mode():
            with shared.applied(task):
                masked = shared.models[task](**inputs).logits
            pruned = surgery.reduce_to(copy.deepcopy(shared.models[task]), ticket)
            assert structure(pruned).layers == ticket.layers
            torch.testing.assert_close(pruned(**inputs).logits, masked, atol=1e-5, rtol=0)
            assert not torch.allclose(shared.models[task](**inputs).logits, masked, atol=2e-4)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("family", CONFIGS)
def test_a_strict_step_changes_nothing_outside_the_ticket(family: str, optimizer: str) -> None:
    """Neither before nor after steps of the other task gave those weights moments."""
    shared = shared_model(family, (FIRST, SECOND)).train()
    optimizing, hold = OPTIMIZERS[optimizer](shared), HoldOthers(shared)
    for number, task in enumerate((0, 1, 1, 0, 0, 1, 0)):
        outside, before = weights(shared, task), moments(shared, optimizing, task)
        inside = {name: value.clone() for name, value in shared.encoder.state_dict().items()}
        step(shared, family, task, number, optimizing, hold)
        assert outside
        assert all_equal(outside, weights(shared, task))
        for key, moment in moments(shared, optimizing, task).items():
            assert torch.equal(moment, before.get(key, torch.zeros_like(moment)))
        later = shared.encoder.state_dict()
        moved = sum(not torch.equal(value, later[name]) for name, value in inside.items())
        assert moved >= min(21, 0.8 * len(inside))


def test_a_published_step_moves_weights_outside_the_ticket() -> None:
    """By momentum and weight decay; so the test before can fail."""
    shared = shared_model("bert", (FIRST, SECOND)).train()
    optimizing = OPTIMIZERS["adamax"](shared)
    step(shared, "bert", 0, 0, optimizing, None)
    before = weights(shared, 1)
    step(shared, "bert", 1, 1, optimizing, None)
    assert not all_equal(before, weights(shared, 1))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("family", CONFIGS)
def test_disjoint_tickets_train_as_separate_models(family: str, optimizer: str) -> None:
    """With what all tasks share frozen: embeddings, norms, output biases and poolers.

    The second task begins late and has few batches: its moments are young where the other's are old.
    """
    order = (0,) * 20 + (1, 0, 1, 0, 0, 1)
    one = Structure(tuple(Layer(i, (0, 1), 64 if i == 0 else 0) for i in range(3)))
    other = Structure(tuple(Layer(i, (2, 3), 64 if i == 1 else 0) for i in range(3)))

    def frozen(model: PreTrainedModel) -> PreTrainedModel:
        family_of = families.of(model)
        model.requires_grad_(False)
        for layer in family_of.layers(model):
            for matrix in (*family_of.head_matrices, *family_of.neuron_matrices):
                module = layer.get_submodule(matrix.path) if _has(layer, matrix.path) else None
                if isinstance(module, torch.nn.Linear):
                    module.weight.requires_grad_(True)
                    if matrix.axis == 0 and matrix.biased:
                        module.bias.requires_grad_(True)
        return model

    shared = shared_model(family, (one, other)).train().double()
    for model in shared.models:
        frozen(model)
    optimizing, hold = OPTIMIZERS[optimizer](shared), HoldOthers(shared)
    separate = []
    for task, ticket in enumerate((one, other)):
        model = surgery.reduce_to(copy.deepcopy(task_models(family)[task]), ticket)
        separate.append(SharedModel([frozen(model)], [TASK_PAIR[task]], None).train().double())
    for number, task in enumerate(order):
        step(shared, family, task, number, optimizing, hold)
    for task, ticket in enumerate((one, other)):
        alone = separate[task]
        its_own = OPTIMIZERS[optimizer](alone)
        for number, this in enumerate(order):
            if this == task:
                its_own.zero_grad(set_to_none=True)
                alone(**{**batch(family, task, number), "task": 0})["loss"].backward()
                its_own.step()
        pruned = surgery.reduce_to(copy.deepcopy(shared.models[task]), ticket)
        expected = alone.models[0].state_dict()
        began = surgery.reduce_to(task_models(family)[task], ticket).double().state_dict()
        moved = [name for name in expected if not torch.equal(expected[name], began[name])]
        matrices = (
            *families.of(shared.models[0]).head_matrices,
            *families.of(shared.models[0]).neuron_matrices,
        )
        assert len(moved) >= (14 if matrices[0].biased else 8)
        for name, value in pruned.state_dict().items():
            torch.testing.assert_close(value, expected[name], atol=1e-9, rtol=0, msg=name)


def test_steps_of_single_heads_are_in_the_state_of_the_optimizer() -> None:
    """So that training that was stopped ends with the same weights."""

    def trained(stopped_after: int | None) -> dict[str, torch.Tensor]:
        shared = shared_model("bert", (FIRST, SECOND)).train()
        optimizing, hold = OPTIMIZERS["adamw"](shared), HoldOthers(shared)
        for number, task in enumerate((0, 0, 0, 1, 0, 1, 0)):
            if number == stopped_after:
                saved = io.BytesIO()
                torch.save(optimizing.state_dict(), saved)
                saved.seek(0)
                optimizing, hold = OPTIMIZERS["adamw"](shared), HoldOthers(shared)
                optimizing.load_state_dict(torch.load(saved, weights_only=True))
            step(shared, "bert", task, number, optimizing, hold)
        return shared.state_dict()

    expected = trained(None)
    for name, value in trained(4).items():
        assert torch.equal(value, expected[name]), name


def _has(module: torch.nn.Module, path: str) -> bool:
    try:
        module.get_submodule(path)
    except AttributeError:
        return False
    return True


def test_the_encoder_is_one_and_counted_once() -> None:
    shared = shared_model("bert", None)
    first, second = (model.get_submodule("bert") for model in shared.models)
    assert first is second is shared.encoder
    heads = sum(model.classifier.weight.numel() + model.classifier.bias.numel() for model in shared.models)
    assert sum(p.numel() for p in shared.parameters()) == sum(p.numel() for p in first.parameters()) + heads


def test_the_union_has_every_part_of_a_ticket_once() -> None:
    both = union((FIRST, SECOND))
    assert [layer.heads for layer in both.layers] == [(0, 1, 2, 3), (0, 1, 2, 3), (1, 2)]
    assert [layer.intermediate for layer in both.layers] == [64, 64, 64]
    assert both.layers[2].neurons == tuple(range(64))
    nothing = Structure(tuple(Layer(i, (), 0) for i in range(3)))
    assert union((nothing, nothing)).layers == nothing.layers
    assert union((EVERYTHING, SECOND)).layers == EVERYTHING.layers


def test_tickets_of_other_layers_have_no_union() -> None:
    with pytest.raises(UsageError, match="different layers"):
        union((EVERYTHING, Structure(EVERYTHING.layers[:2])))


def test_the_loss_of_a_distilled_task_is_that_of_hinton() -> None:
    """a L + b T^2 KL(teacher || student), times the batch's weight; of a task without teacher, L alone."""
    settings = DistillationSettings(temperature=3.0, label_weight=0.25, logit_weight=0.5)
    shared = SharedModel(task_models("bert"), TASK_PAIR, None, [settings, None]).eval()
    rows, teacher = batch("bert", 0, seed=3), torch.randn(6, 2)
    with torch.no_grad():
        found = shared(**rows, weight=0.5, teacher_logits=teacher)
        plain = shared(**batch("bert", 1, seed=3))
    student = found["logits"]
    soft, ours = (teacher / 3).softmax(-1), (student / 3).log_softmax(-1)
    divergence = (soft * (soft.log() - ours)).sum(-1).mean()
    entropy = nn.functional.cross_entropy(student, rows["labels"])
    assert float(found["loss"]) == pytest.approx(float(0.5 * (0.25 * entropy + 0.5 * 9 * divergence)))
    expected = nn.functional.cross_entropy(plain["logits"], batch("bert", 1, seed=3)["labels"])
    assert float(plain["loss"]) == pytest.approx(float(expected))
