"""Early exits: the result of a row does not depend on its batch, for any structure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from effx.errors import UsageError
from effx.models import add_ramps, exits, families, infer, prune, reference, structure
from effx.models.tokens import schedule
from effx.specs import exit_rules
from effx.specs.exit_rules import ExitRule
from tests.models import tiny

RULES = [
    ExitRule("entropy", 0.9),
    ExitRule("max-probability", 0.6),
    ExitRule("patience", patience=1),
    ExitRule("consecutive-entropy", 0.9, patience=2),
]


def with_ramps(family: str, seed: int, pooling: str, **shape: int) -> PreTrainedModel:
    model = add_ramps(tiny.model(family, layers=4, seed=seed, **shape), pooling=pooling)
    generator = torch.Generator().manual_seed(seed)
    for ramp in model.ramps.values():
        ramp.out.weight.data.normal_(0, 0.5, generator=generator)
    return model.eval()


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(families.FAMILIES)),
    st.sampled_from(RULES),
    st.sampled_from(exits.POOLINGS),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(1, 12), min_size=1, max_size=6),
    st.integers(0, 50),
)
def test_rows_exit_at_the_same_layer_in_a_batch_and_alone(
    family: str, rule: ExitRule, pooling: str, pruned: bool, tokens: bool, lengths: list[int], seed: int
) -> None:
    model = with_ramps(family, seed, pooling)
    if pruned:
        prune(model, heads={0: [0, 1, 2, 3], 1: [1]}, ffns=[2], neurons={3: [0, 7]})
    if tokens:
        schedule(model, shares=[0.9, 0.7, 0.5, 0.5])
    inputs = tiny.inputs(model, lengths, seed)
    together = infer(model, inputs, rule=rule)
    # one row at a time, without padding: logits of all heads, and the rule simulated over them
    for row, length in enumerate(lengths):
        alone = {name: array[row : row + 1, :length] for name, array in inputs.items()}
        heads = reference.all_heads(model, alone)
        leaves = int(exit_rules.simulate(rule, heads.numpy())[0])
        assert int(together.depth[row]) == exits.depths(model)[leaves]
        assert torch.allclose(together.logits[row], heads[leaves, 0], atol=1e-5)
        assert (together.tokens[row] > 0).sum() == together.depth[row]


@pytest.mark.parametrize("family", sorted(families.FAMILIES))
def test_a_ramp_with_the_weights_of_the_head_gives_the_same_logits(family: str) -> None:
    """A ramp on the first token has the architecture of the family's task head."""
    model = add_ramps(tiny.model(family), pooling="cls")
    names = families.of(model)
    ramp = model.ramps["2"].eval()
    assert torch.equal(ramp.dense.weight, names.pooler(model).weight)
    ramp.out.load_state_dict(model.get_submodule(names.output_path(model)).state_dict())
    if family == "modernbert":  # its head has a LayerNorm, which a ramp has not
        model.head.norm = torch.nn.Identity()
    inputs = tiny.inputs(model, [5, 9])
    from effx.models import forward

    stream = forward.embed(model, inputs)
    for position in range(3):
        stream = reference.layer(model, position, stream, prune=False)
    assert torch.allclose(exits.answer(model, ramp, stream), tiny.logits(model, inputs), atol=1e-6)


def test_mean_pooling_ignores_padding() -> None:
    model = with_ramps("bert", 0, "mean")
    narrow = reference.all_heads(model, tiny.inputs(model, [4]))
    wide = tiny.inputs(model, [4], width=11)
    wide["input_ids"][0, 4:] = 17  # any value
    assert torch.allclose(reference.all_heads(model, wide), narrow, atol=1e-6)


def test_exited_rows_are_removed_from_the_tensors() -> None:
    model = with_ramps("bert", 3, "mean")
    inputs = tiny.inputs(model, [8, 3, 12, 5, 9], 3)
    seen: list[tuple[int, int]] = []
    hooks = [
        layer.get_submodule("attention.self.query").register_forward_pre_hook(
            lambda _, args: seen.append(tuple(args[0].shape[:2]))
        )
        for layer in families.of(model).layers(model)
    ]
    heads = reference.all_heads(model, inputs)
    ramps = np.sort(exit_rules.entropy(heads[0].numpy()))
    rule = ExitRule("entropy", float(ramps[2] + ramps[1]) / 2)  # two rows exit at the first ramp
    seen.clear()
    result = infer(model, inputs, rule=rule)
    assert seen[0] == (5, 12)
    lengths = inputs["attention_mask"].sum(1)
    for layer, shape in enumerate(seen[1:], 1):
        running = result.depth > layer
        assert shape == (int(running.sum()), int(lengths[running].max()))
    for hook in hooks:
        hook.remove()


def test_wrong_exits_are_refused() -> None:
    model = tiny.model()
    with pytest.raises(UsageError, match=r"layer 3 cannot have an exit. Possible layers, from 1: 1, 2"):
        add_ramps(model, [1, 3])
    with pytest.raises(UsageError, match="unknown pooling 'max'"):
        add_ramps(model, pooling="max")
    with pytest.raises(UsageError, match="this model has no exits"):
        infer(model, tiny.inputs(model, [3]), rule=RULES[0])
    assert structure(model).exits == ()
