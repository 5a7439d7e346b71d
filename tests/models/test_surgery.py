"""Pruned models equal masked models, and saved models equal loaded ones, for all families and structures."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from effx.errors import ArtifactError, UsageError
from effx.models import add_ramps, families, infer, load, masked, prune, reference, save, structure
from effx.models.structure import parameters
from effx.specs.tasks import TASKS
from tests.models import tiny

TOLERANCE = 1e-5
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass
class Case:
    """A model's shape, what to prune, and rows to compare outputs on."""

    family: str
    layers: int
    n_heads: int
    head_size: int
    n_neurons: int
    seed: int
    lengths: list[int]
    heads: dict[int, list[int]] = field(default_factory=dict)
    ffns: list[int] = field(default_factory=list)
    neurons: dict[int, list[int]] = field(default_factory=dict)
    dropped: list[int] = field(default_factory=list)

    def model(self) -> PreTrainedModel:
        return tiny.model(
            self.family, layers=self.layers, heads=self.n_heads, head_size=self.head_size,
            neurons=self.n_neurons, outputs=2, seed=self.seed,
        )  # fmt: skip


@st.composite
def cases(draw: st.DrawFn) -> Case:
    layers = draw(st.integers(1, 4))
    case = Case(
        family=draw(st.sampled_from(sorted(families.FAMILIES))),
        layers=layers,
        n_heads=draw(st.sampled_from([1, 2, 3, 4])),
        head_size=draw(st.sampled_from([2, 4, 8])),
        n_neurons=draw(st.integers(1, 12)),
        seed=draw(st.integers(0, 5)),
        lengths=draw(st.lists(st.integers(1, 12), min_size=1, max_size=4)),
    )
    for layer in range(layers):
        case.heads[layer] = draw(st.lists(st.integers(0, case.n_heads - 1), unique=True))
        case.neurons[layer] = draw(st.lists(st.integers(0, case.n_neurons - 1), unique=True))
    case.ffns = draw(st.lists(st.integers(0, layers - 1), unique=True))
    if case.family == "modernbert":  # of which only the last layers can be removed
        case.dropped = [*range(layers - 1, draw(st.integers(0, layers - 1)), -1)]
    else:
        case.dropped = draw(st.lists(st.integers(0, layers - 1), unique=True, max_size=layers - 1))
    return case


@contextmanager
def skipped(model: PreTrainedModel, layers: list[int]) -> Iterator[None]:
    """Replace complete layers by the identity: y = x."""

    def identity(_: object, args: tuple[torch.Tensor, ...], output: object) -> object:
        return (args[0], *output[1:]) if isinstance(output, tuple) else args[0]

    modules = families.of(model).layers(model)
    handles = [modules[layer].register_forward_hook(identity) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@SLOW
@given(cases())
def test_removed_equals_masked(case: Case) -> None:
    model = case.model()
    inputs = tiny.inputs(model, case.lengths, case.seed)
    untouched = tiny.logits(model, inputs)
    with masked(model, case.heads, case.ffns, case.neurons), skipped(model, case.dropped):
        expected = tiny.logits(model, inputs)
    assert torch.equal(tiny.logits(model, inputs), untouched), "the masks left something behind"

    pruned = prune(copy.deepcopy(model), case.heads, case.ffns, case.neurons, case.dropped)
    assert (tiny.logits(pruned, inputs) - expected).abs().max() <= TOLERANCE
    assert (infer(pruned, inputs).logits - expected).abs().max() <= TOLERANCE

    # exactly the chosen structures were removed
    remaining = structure(pruned)
    gone = set(case.dropped)
    assert [layer.index for layer in remaining.layers] == [i for i in range(case.layers) if i not in gone]
    names = families.of(model)
    for layer, module in zip(remaining.layers, families.of(pruned).layers(pruned), strict=True):
        assert set(layer.heads) == set(range(case.n_heads)) - set(case.heads[layer.index])
        width = len(layer.heads) * case.head_size
        paths = {path for path, _ in module.named_parameters()}
        for matrix in names.head_matrices:
            if width:
                weight = module.get_submodule(matrix.path).weight
                assert weight.shape[matrix.axis] == matrix.blocks * width
            else:
                assert f"{matrix.path}.weight" not in paths
        assert (f"{names.context_path}.bias" in paths) == names.head_matrices[-1].biased
        neurons = case.n_neurons - len(case.neurons[layer.index])
        assert layer.intermediate == (0 if layer.index in case.ffns else neurons)
        if layer.intermediate:
            for matrix in names.neuron_matrices:
                weight = module.get_submodule(matrix.path).weight
                assert weight.shape[matrix.axis] == matrix.blocks * layer.intermediate
        else:
            assert not paths & {f"{matrix.path}.weight" for matrix in names.neuron_matrices}
            assert f"{names.ffn_output_path}.bias" not in paths
        assert all(parameter.numel() > 0 for parameter in module.parameters())


@SLOW
@given(case=cases())
def test_saved_models_load_equal_and_have_the_counted_parameters(
    tokenizer: PreTrainedTokenizerFast, case: Case
) -> None:
    model = case.model()
    before = sum(parameter.numel() for parameter in model.parameters())
    inputs = tiny.inputs(model, case.lengths, case.seed)
    prune(model, case.heads, case.ffns, case.neurons, case.dropped)
    with tempfile.TemporaryDirectory() as scratch:
        saved = save(model, Path(scratch) / "it", tokenizer=tokenizer, task=TASKS["sst2"])
        loaded = load(saved.folder)
        assert torch.equal(tiny.logits(loaded, inputs), tiny.logits(model, inputs))
        assert structure(loaded) == structure(model)
        counted = sum(tensor.numel() for tensor in load_file(saved.folder / "model.safetensors").values())
        assert saved.manifest.parameters == counted == parameters(loaded)
        assert saved.manifest.weight_remaining == counted / before
        # a loaded model can be reduced and saved again
        again = prune(loaded, ffns=[layer.index for layer in structure(loaded).layers])
        twice = save(again, Path(scratch) / "again", tokenizer=tokenizer, task=TASKS["sst2"])
        assert torch.equal(tiny.logits(load(twice.folder), inputs), tiny.logits(again, inputs))
        assert twice.manifest.weight_remaining == twice.manifest.parameters / before


@SLOW
@given(cases())
def test_pruning_in_steps_equals_pruning_at_once(case: Case) -> None:
    at_once = prune(case.model(), case.heads, case.ffns, case.neurons, case.dropped)
    in_steps = case.model()
    prune(in_steps, heads={layer: heads[::2] for layer, heads in case.heads.items()})
    prune(in_steps, neurons={layer: gone[1::2] for layer, gone in case.neurons.items()}, ffns=case.ffns[1:])
    prune(in_steps, layers=case.dropped[:1])
    left = [layer for layer in range(case.layers) if layer not in case.dropped[:1]]
    prune(
        in_steps,
        heads={layer: case.heads[layer] for layer in left},  # some of these are already pruned
        neurons={layer: case.neurons[layer] for layer in left},
        ffns=[layer for layer in case.ffns if layer in left],
        layers=case.dropped[1:],
    )
    assert structure(in_steps) == structure(at_once)
    first, second = at_once.state_dict(), in_steps.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("family", sorted(families.FAMILIES))
def test_masks_are_differentiable(family: str) -> None:
    """Gradients of every mask equal finite differences in float64."""
    from effx.models import masks

    model = tiny.model(family, layers=2, heads=2, neurons=3).double()
    inputs = tiny.inputs(model, [5, 3])
    mine = masks.ones(model, neurons=True)
    mine.heads, mine.ffns = mine.heads.double(), mine.ffns.double()
    assert mine.neurons is not None
    mine.neurons = mine.neurons.double()

    def loss(heads: torch.Tensor, ffns: torch.Tensor, neurons: torch.Tensor) -> torch.Tensor:
        with masks.applied(model, masks.StructureMasks(heads, ffns, neurons)):
            if family == "modernbert":  # transformers rotates in float32
                return reference.heads_of(model, inputs)[-1].square().sum()
            return model(**inputs).logits.square().sum()

    values = [value.requires_grad_() for value in (mine.heads, mine.ffns, mine.neurons)]
    assert torch.autograd.gradcheck(loss, values, eps=1e-6, atol=1e-6)


def test_masks_with_a_batch_dimension_give_one_gradient_per_example() -> None:
    from effx.models import masks

    model = tiny.model("roberta")
    inputs = tiny.inputs(model, [7, 4, 2])
    together = masks.ones(model, batch=3, neurons=True, requires_grad=True)
    with masks.applied(model, together):
        model(**inputs).logits.square().sum().backward()
    for row in range(3):
        alone = masks.ones(model, neurons=True, requires_grad=True)
        with masks.applied(model, alone):
            model(
                **{name: array[row : row + 1] for name, array in inputs.items()}
            ).logits.square().sum().backward()
        for many, one in ((together.heads, alone.heads), (together.ffns, alone.ffns),
                          (together.neurons, alone.neurons)):  # fmt: skip
            assert torch.allclose(many.grad[row], one.grad, atol=1e-5)


@pytest.mark.parametrize("family", sorted(families.FAMILIES))
def test_a_pruned_model_trains(family: str) -> None:
    model = prune(tiny.model(family), heads={0: [0, 1, 2, 3], 1: [2]}, ffns=[1], neurons={2: [0, 5]})
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(**tiny.inputs(model, [6, 4]), labels=torch.tensor([0, 2])).loss.backward()
    optimizer.step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    layer = families.of(model).layers_path
    if families.of(model).head_matrices[-1].biased:  # the bias of the attention that was removed
        assert any(f"{layer}.0" in key and "bias" in key for key in moved)
    assert all(parameter.grad is not None for name, parameter in model.named_parameters()
               if "embeddings" not in name)  # fmt: skip


def test_wrong_parts_are_refused_without_changing_the_model() -> None:
    model = tiny.model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for wrong, message in (
        ({"heads": {0: [4]}}, "layer 0 has no head 4: expected 0 to 3"),
        ({"heads": {0: [0], 3: [0]}}, "this model has no layer 3. Layers, from 0: 0, 1, 2"),
        ({"neurons": {1: [24]}}, "layer 1 has no neuron 24"),
        ({"ffns": [-1]}, "this model has no layer -1"),
        ({"layers": [0, 1, 2]}, "no layer would remain"),
    ):
        with pytest.raises(UsageError, match=message):
            prune(model, **wrong)
        assert structure(model).layers[0].heads == (0, 1, 2, 3)
    assert before.keys() == model.state_dict().keys()
    with pytest.raises(UsageError, match="no head 9"), masked(model, heads={1: [9]}):
        pass


def test_removing_a_layer_removes_its_ramp_and_other_ramps_keep_their_numbers(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = add_ramps(tiny.model(layers=4))
    prune(model, layers=[1])
    assert structure(model).exits == (1, 3)
    assert sorted(model.ramps) == ["1", "3"]
    prune(model, layers=[3], heads={2: [0]})  # layer 3 is now the last, where the task head is
    assert structure(model).exits == (1,)
    saved = save(model, tmp_path / "it", tokenizer=tokenizer, task=TASKS["mnli"])
    loaded = load(saved.folder)
    assert structure(loaded) == structure(model)
    assert torch.equal(loaded.ramps["1"].out.weight, model.ramps["1"].out.weight)
    with pytest.raises(UsageError, match="this model has no layer 1"):
        prune(loaded, heads={1: [0]})


def test_layer_reduction_alone_loads_in_plain_transformers(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = prune(tiny.model("distilbert", layers=4), layers=[2, 3])
    saved = save(model, tmp_path / "it", tokenizer=tokenizer, task=TASKS["mnli"])
    plain = AutoModelForSequenceClassification.from_pretrained(saved.folder).eval()
    inputs = tiny.inputs(model, [9, 3])
    assert torch.equal(tiny.logits(plain, inputs), tiny.logits(model, inputs))


def test_weights_that_do_not_fit_their_structure_are_refused(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = prune(tiny.model(), heads={0: [1]})
    wrong = structure(model).without(heads={1: [0]})
    saved = save(model, tmp_path / "it", tokenizer=tokenizer, task=TASKS["mnli"], structure=wrong)
    with pytest.raises(ArtifactError, match="size mismatch"):
        load(saved.folder)
