"""Refitted weights against brute-force least squares, and pruned models against masked ones."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effx.errors import UsageError
from effx.models import families, masks, structure
from effx.models.least_squares import LinearProblem
from effx.models.reconstruction import problems, reconstruct
from effx.structure import Structure
from tests.models import tiny

LENGTHS = [9, 4, 12, 7, 1, 10]


def random_problem(
    seed: int, structures: int, size: int, *, bias: bool, tokens: int = 200
) -> tuple[LinearProblem, np.ndarray]:
    """Return a problem with correlated inputs, and the inputs [tokens, inputs + 1]."""
    rng = np.random.default_rng(seed)
    inputs = structures * size
    x = rng.normal(size=(tokens, inputs)) @ rng.normal(size=(inputs, inputs)) + rng.normal(size=inputs)
    x = np.column_stack([x, np.ones(tokens)])
    weight = rng.normal(size=(5, inputs))
    offset = rng.normal(size=5) if bias else None
    return LinearProblem(weight, offset, x.T @ x / tokens, size), x


def brute_force(problem: LinearProblem, x: np.ndarray, positions: list[int]) -> tuple[np.ndarray, float]:
    """Return the weights (the bias last) and E, by least squares on the rows themselves.

    The damping is written as further rows: one for each input, with the square root of lambda in its column.
    """
    inputs = problem.weight.shape[1]
    width = inputs + (problem.bias is not None)
    rows = x[:, :width] / np.sqrt(len(x))
    scale = np.sqrt(problem.damping * np.mean(np.sum(rows[:, :inputs] ** 2, axis=0)))
    rows = np.vstack([rows, np.eye(width)[:inputs] * scale])
    full = problem.weight if problem.bias is None else np.column_stack([problem.weight, problem.bias])
    wanted = rows @ full.T
    columns = problem.columns(positions)
    solution = np.linalg.lstsq(rows[:, columns], wanted, rcond=None)[0]
    return solution.T, float(np.sum((rows[:, columns] @ solution - wanted) ** 2))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.sampled_from([1, 3]), st.booleans())
def test_removing_one_after_the_other_equals_least_squares(
    seed: int, structures: int, size: int, bias: bool
) -> None:
    problem, x = random_problem(seed, structures, size, bias=bias)
    removals = problem.removals()
    assert sorted(removals.order) == list(range(structures))
    for count in range(structures + 1):
        positions = removals.remaining(count)
        expected, error = brute_force(problem, x, positions)
        assert removals.errors[structures - count] == pytest.approx(error, rel=1e-4, abs=1e-8)
        weight, offset = problem.refitted(positions)
        found = weight if offset is None else np.column_stack([weight, offset])
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert problem.error(positions) == pytest.approx(error, rel=1e-4, abs=1e-8)


def test_each_step_removes_what_costs_least() -> None:
    problem, x = random_problem(7, 6, 2, bias=True)
    left = list(range(6))
    for chosen in problem.removals().order:
        costs = {one: brute_force(problem, x, [other for other in left if other != one])[1] for one in left}
        assert min(costs, key=costs.__getitem__) == chosen
        left.remove(chosen)


def test_a_copied_input_is_removed_for_nothing() -> None:
    """Two equal inputs: one takes over the weights of the other, which masking cannot do."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4))
    x[:, 3] = x[:, 0]
    x = np.column_stack([x, np.ones(300)])
    problem = LinearProblem(rng.normal(size=(3, 4)), None, x.T @ x / 300, 1, damping=1e-9)
    removals = problem.removals()
    assert removals.order[0] in (0, 3)
    assert removals.errors[1] < 1e-6 * problem.error([0, 1, 2], problem.weight[:, :3])


def test_inputs_that_are_always_zero_go_first() -> None:
    problem, x = random_problem(1, 8, 1, bias=True)
    x[:, [2, 5]] = 0.0
    problem = LinearProblem(problem.weight, problem.bias, x.T @ x / len(x), 1)
    removals = problem.removals()
    assert set(removals.order[:2]) == {2, 5}
    assert np.isfinite(removals.errors).all()


def batches(model: object) -> list[dict[str, torch.Tensor]]:
    return [tiny.inputs(model, LENGTHS, seed=seed, width=13) for seed in range(6)]  # type: ignore[arg-type]


def some_structure(model: object) -> Structure:
    """Return a structure in which a layer loses heads, one all heads and neurons, and one its FFN."""
    full = structure(model)  # type: ignore[arg-type]
    return full.without(heads={0: [1], 1: [0, 1, 2, 3]}, neurons={0: [3, 5, 7], 1: [0, 23]}, ffns=[2])


@pytest.mark.parametrize("family", sorted(families.FAMILIES))
def test_without_refitting_it_equals_masking(family: str) -> None:
    model = tiny.model(family)
    target = some_structure(model)
    inputs = batches(model)
    with masks.applied(model, masks.leaving(model, target)):
        expected = tiny.logits(model, inputs[0])
    reconstruct(model, target, problems(model, inputs), update=False)
    assert tiny.logits(model, inputs[0]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("family", sorted(families.FAMILIES))
def test_refitted_outputs_are_nearer_to_the_full_models(family: str) -> None:
    """Of the first layer's attention, whose inputs do not change: the error is the predicted one."""
    model = tiny.model(family)
    inputs = batches(model)
    layers = problems(model, inputs)
    target = structure(model).without(heads={0: [1, 2]}, neurons={0: [3, 5, 7]})
    path = families.of(model).context_path

    def outputs(built: object) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        module = families.of(built).layers(built)[0].get_submodule(path)  # type: ignore[arg-type]
        handle = module.register_forward_hook(lambda _m, _i, output: seen.append(output.detach()))
        for batch in inputs:
            tiny.logits(built, batch)  # type: ignore[arg-type]
        handle.remove()
        real = [batch["attention_mask"].bool() for batch in inputs]
        return torch.cat([output[mask] for output, mask in zip(seen, real, strict=True)])

    full = outputs(model)
    masked = outputs(reconstruct(copy.deepcopy(model), target, layers, update=False))
    refitted = outputs(reconstruct(copy.deepcopy(model), target, layers))

    def error(found: torch.Tensor) -> float:
        return float((found - full).square().sum(1).mean())

    assert error(refitted) < 0.9 * error(masked)
    problem = layers[0].heads
    assert problem is not None
    assert problem.error([0, 3]) >= error(refitted) * (1 - 1e-4)  # the predicted one includes the damping
    assert problem.error([0, 3]) <= error(masked)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_padding_counts_for_nothing(family: str) -> None:
    model = tiny.model(family)
    wide = problems(model, [tiny.inputs(model, LENGTHS, width=20)])
    apart = problems(model, [
        {name: value[row : row + 1, :length] for name, value in tiny.inputs(model, LENGTHS, width=20).items()}
        for row, length in enumerate(LENGTHS)
    ])  # fmt: skip
    for together, alone in zip(wide, apart, strict=True):
        for part in ("heads", "neurons"):
            moment = getattr(together, part).moment
            assert moment == pytest.approx(getattr(alone, part).moment, rel=1e-4, abs=1e-5)


def test_layers_without_heads_or_ffn_have_no_problem() -> None:
    model = tiny.model("bert")
    reconstruct(model, some_structure(model), problems(model, batches(model)))
    found = problems(model, batches(model))
    assert [layer.heads is None for layer in found] == [False, True, False]
    assert [layer.neurons is None for layer in found] == [False, False, True]


def test_a_refused_structure_changes_nothing() -> None:
    model = tiny.model("bert")
    layers = problems(model, batches(model))
    reconstruct(model, structure(model).without(heads={0: [1]}), layers)
    before = copy.deepcopy(model.state_dict())
    layers = problems(model, batches(model))
    grown = tiny.model("bert")
    with pytest.raises(UsageError, match="head 1 of layer 0 was removed before"):
        reconstruct(model, structure(grown).without(heads={0: [2]}), layers)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_no_rows_is_an_error() -> None:
    with pytest.raises(UsageError, match="there are no rows"):
        problems(tiny.model("bert"), [])
