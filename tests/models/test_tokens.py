"""Token pruning: removing tokens equals masking them, and padding has no influence."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from effx.errors import UsageError
from effx.models import families, forward, infer, prune, structure
from effx.models.tokens import counts, schedule
from tests.models import tiny

FAMILIES = sorted(families.FAMILIES)


def masked_only(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, list[list[list[int]]]]:
    """Apply the schedule at full length, row by row in plain loops; dropped tokens are masked as keys.

    Returns the logits and the kept positions of every layer and row.
    """
    remaining = structure(model)
    outs, positions = [], [[] for _ in remaining.layers]
    for row in range(len(inputs["input_ids"])):
        one = {name: array[row : row + 1] for name, array in inputs.items()}
        stream = forward.embed(model, one)
        n = int(one["attention_mask"].sum())
        alive = [position < n for position in range(stream.token_mask.shape[1])]
        for layer_position, layer in enumerate(remaining.layers):
            stream = replace(stream, token_mask=torch.tensor([alive]))
            stream, probabilities = forward.attend(model, layer_position, stream, explicit=True)
            if layer.heads:
                queries = [i for i in range(len(alive)) if alive[i]]
                received = {
                    key: np.mean([[float(probabilities[0, head, query, key]) for query in queries]
                                  for head in range(len(layer.heads))])
                    for key in queries
                }  # fmt: skip
                if remaining.tokens is not None:
                    count = max(
                        1, math.ceil(round(remaining.tokens[layer_position] * 1000) * n / 1000 - 1e-9)
                    )
                    best = sorted(queries, key=lambda key: (key != 0, -received[key]))
                    stay = set(best[: min(count, len(queries))])
                else:
                    assert remaining.token_thresholds is not None
                    stay = {
                        key for key in queries if received[key] >= remaining.token_thresholds[layer_position]
                    } | {0}
                alive = [i in stay for i in range(len(alive))]
            positions[layer_position].append([i for i in range(len(alive)) if alive[i]])
            stream = forward.feed(model, layer_position, stream)
        outs.append(forward.head(model, stream))
    return torch.cat(outs), positions


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(FAMILIES),
    st.booleans(),
    st.lists(st.floats(0.05, 1.0), min_size=3, max_size=3),
    st.lists(st.integers(1, 14), min_size=1, max_size=4),
    st.integers(0, 3),
    st.booleans(),
    st.integers(0, 100),
)
def test_removed_tokens_equal_masked_tokens(
    family: str, by_share: bool, numbers: list[float], lengths: list[int], wider: int, pruned: bool, seed: int
) -> None:
    model = tiny.model(family, seed=seed % 5)
    if pruned:
        prune(model, heads={0: [0, 3], 1: [0, 1, 2, 3]}, ffns=[0])
    if by_share:
        schedule(model, shares=list(accumulate(numbers, min)))
    else:
        schedule(model, thresholds=[number / 8 for number in numbers])
    inputs = tiny.inputs(model, lengths, seed, width=max(lengths) + wider)
    with torch.no_grad():
        expected, positions = masked_only(model, inputs)
    result = infer(model, inputs)
    assert (result.logits - expected).abs().max() <= 1e-5
    assert result.tokens.T.tolist() == [[len(row) for row in layer] for layer in positions]
    assert all(row[0] == 0 for layer in positions for row in layer)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(FAMILIES), st.lists(st.integers(1, 14), min_size=2, max_size=5), st.integers(0, 50))
def test_padding_and_other_rows_do_not_change_a_row(family: str, lengths: list[int], seed: int) -> None:
    model = schedule(tiny.model(family, seed=seed % 5), shares=[0.8, 0.6, 0.3])
    inputs = tiny.inputs(model, lengths, seed, width=20)
    other = {name: array.clone() for name, array in inputs.items()}
    other["input_ids"][other["attention_mask"] == 0] = 23
    if family not in ("roberta", "xlm-roberta", "camembert", "mpnet"):  # their positions count the padding id
        assert torch.allclose(infer(model, other).logits, infer(model, inputs).logits, atol=1e-5)
    for row, length in enumerate(lengths):
        alone = {name: array[row : row + 1, :length] for name, array in inputs.items()}
        assert torch.allclose(infer(model, alone).logits[0], infer(model, inputs).logits[row], atol=1e-5)


def test_tensors_get_shorter_and_the_order_of_tokens_remains() -> None:
    model = schedule(tiny.model("bert"), shares=[0.7, 0.5, 0.2])
    shapes: list[torch.Size] = []
    for layer in families.of(model).layers(model):
        layer.get_submodule("intermediate.dense").register_forward_pre_hook(
            lambda _, args: shapes.append(args[0].shape)
        )
    result = infer(model, tiny.inputs(model, [10, 7, 2], width=16))
    assert [tuple(shape[:2]) for shape in shapes] == [(3, 7), (3, 5), (3, 2)]
    assert result.tokens.tolist() == [[7, 5, 2], [5, 4, 2], [2, 1, 1]]

    stream = forward.embed(model, tiny.inputs(model, [10]))
    from effx.models import reference

    with torch.no_grad():
        for layer_position in range(3):
            stream = reference.layer(model, layer_position, stream, prune=True)
            remaining = stream.positions[0].tolist()
            assert remaining == sorted(remaining) and remaining[0] == 0


def test_counts_of_tokens_are_exact_despite_rounding() -> None:
    lengths = torch.tensor([10, 20, 30, 1, 128])
    assert counts(lengths, 0.7).tolist() == [7, 14, 21, 1, 90]  # ceil(0.7 * 10 in floats) would be 8
    assert counts(lengths, 0.001).tolist() == [1, 1, 1, 1, 1]
    assert counts(lengths, 1.0).tolist() == lengths.tolist()


def test_a_schedule_of_ones_changes_nothing() -> None:
    model = tiny.model("electra")
    inputs = tiny.inputs(model, [9, 4])
    before = infer(model, inputs).logits
    assert torch.equal(infer(schedule(model, shares=[1, 1, 1]), inputs).logits, before)
    assert torch.equal(infer(schedule(model, thresholds=[0, 0, 0]), inputs).logits, before)
    schedule(model, shares=[0.5, 0.5, 0.5])
    assert not torch.allclose(infer(model, inputs).logits, before, atol=1e-4)
    assert torch.equal(infer(model, inputs, prune_tokens=False).logits, before)
    assert torch.allclose(tiny.logits(model, inputs), before, atol=1e-6), "the plain forward keeps all tokens"


def test_wrong_schedules_are_refused() -> None:
    model = tiny.model()
    for wrong, message in (
        ({"shares": [1, 1]}, "expected 3 numbers, one per layer, got 2"),
        ({"shares": [1, 0.5, 0.6]}, "must not rise"),
        ({"shares": [1, 0.5, 0]}, "between 0.001 and 1"),
        ({"thresholds": [0, 0.5, 1.5]}, "expected numbers from 0 to 1"),
        ({"shares": [1, 1, 1], "thresholds": [0, 0, 0]}, "give one of them"),
    ):
        with pytest.raises(UsageError, match=message):
            schedule(model, **wrong)
    assert structure(model).tokens is None
