"""ModernBERT: its forward pass against transformers, beyond its windows, and with dropped tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from effx.errors import UsageError
from effx.models import families, forward, infer, prune, structure, tokens
from effx.models.huggingface import load
from effx.models.stream import Stream
from effx.models.structure import full
from effx.specs.kinds import KINDS
from effx.specs.tasks import TASKS, Task
from tests.models import tiny
from tests.models.huggingface.saved import change_config, classifier


def built(kind: object = AutoModelForSequenceClassification, **values: object) -> PreTrainedModel:
    """A model with random weights, windows of 64 tokens to each side, and layers of both kinds."""
    config = AutoConfig.for_model(
        "modernbert", vocab_size=tiny.VOCABULARY, pad_token_id=tiny.PADDING, hidden_size=32,
        num_attention_heads=4, num_hidden_layers=4, intermediate_size=24, **{"num_labels": 3, **values},
    )  # fmt: skip
    torch.manual_seed(0)
    model = kind.from_config(config)  # type: ignore[attr-defined]
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)
    return model.eval()


@torch.no_grad()
def through_layers(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> Stream:
    stream = forward.embed(model, inputs)
    for position in range(len(structure(model).layers)):
        stream = forward.feed(model, position, forward.attend(model, position, stream)[0])
    return stream


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("lengths", [[9, 4], [300, 1024]])
@torch.no_grad()
def test_logits_equal_those_of_transformers(pooling: str, biases: bool, lengths: list[int]) -> None:
    every = ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias")
    model = built(classifier_pooling=pooling, **dict.fromkeys(every, biases))
    assert structure(model).head_pooling == pooling
    inputs = tiny.inputs(model, lengths)
    for implementation in ("eager", "sdpa"):
        model.config._attn_implementation = implementation
        expected = tiny.logits(model, inputs)
        torch.testing.assert_close(infer(model, inputs).logits, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_heads_of_tokens_and_of_spans() -> None:
    tagger = built(AutoModelForTokenClassification)
    inputs = tiny.inputs(tagger, [150, 70])
    real = inputs["attention_mask"].bool()
    ours = forward.head(tagger, through_layers(tagger, inputs))
    torch.testing.assert_close(ours[real], tagger(**inputs).logits[real], atol=1e-4, rtol=0)
    answering = built(AutoModelForQuestionAnswering, num_labels=2)
    start, end = forward.spans(answering, through_layers(answering, inputs).hidden)
    expected = answering(**inputs)
    torch.testing.assert_close(start[real], expected.start_logits[real], atol=1e-4, rtol=0)
    torch.testing.assert_close(end[real], expected.end_logits[real], atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_local_layer_does_not_see_beyond_its_window() -> None:
    model = built(local_attention=8, layer_types=["sliding_attention"] * 4)
    inputs = tiny.inputs(model, [60])
    other = {name: array.clone() for name, array in inputs.items()}
    other["input_ids"][0, 20] = 2 + (other["input_ids"][0, 20] - 1) % (tiny.VOCABULARY - 2)
    changed = (through_layers(model, inputs).hidden - through_layers(model, other).hidden)[0].abs().amax(
        -1
    ) > 0
    positions = changed.nonzero()[:, 0].tolist()
    assert (min(positions), max(positions)) == (20 - 4 * 4, 20 + 4 * 4)  # four layers of four tokens


@torch.no_grad()
def test_tokens_keep_their_positions_after_others_were_dropped() -> None:
    """Logits are the same with the dropped tokens masked, in every layer after the one that drops them."""
    model = built(local_attention=8)
    tokens.schedule(model, shares=[0.5, 0.5, 0.5, 0.5])
    inputs = tiny.inputs(model, [40])
    stream = forward.embed(model, inputs)
    stream, probabilities = forward.attend(model, 0, stream, explicit=True)
    dropped = tokens.drop(structure(model), 0, stream, probabilities)
    kept = torch.zeros(1, 40, dtype=torch.bool).scatter(1, dropped.positions, True)
    hidden = forward.feed(model, 0, stream)
    masked = Stream(hidden.hidden, kept, stream.lengths, stream.positions, 40, stream.bias)
    for position in (1, 2, 3):
        masked = forward.feed(model, position, forward.attend(model, position, masked)[0])
    expected = forward.head(model, masked)
    torch.testing.assert_close(infer(model, inputs).logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("layers", [[0], [1], [0, 3], [2]])
def test_only_the_last_layers_can_be_removed_and_the_model_stays_as_it_is(layers: list[int]) -> None:
    model = built()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UsageError, match="only the last layers of ModernBERT can be removed"):
        prune(model, heads={1: [0]}, layers=layers)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert structure(model) == full(model)


@torch.no_grad()
def test_padding_far_from_all_tokens_gives_finite_numbers_in_fp16() -> None:
    model = built(local_attention=8)
    for layer in model.model.layers:  # scores far below 0, which add up to -inf with the least number
        layer.attn.Wqkv.weight.data[:64] *= 30
    model = model.half()
    for name, buffer in built(local_attention=8).named_buffers():
        model.get_submodule(name.rpartition(".")[0]).register_buffer(name.rpartition(".")[2], buffer)
    inputs = tiny.inputs(model, [60, 5])
    stream = through_layers(model, inputs)
    assert bool(torch.isfinite(stream.hidden).all())


def test_frequencies_stay_in_float32_in_graphs_of_fp16() -> None:
    from effx.export import graph

    model = built()
    traced = graph.traced(model, graph.TraceShape(dtype=torch.float16))
    inner = traced.module.model
    assert {parameter.dtype for parameter in inner.parameters()} == {torch.float16}
    for name, buffer in model.named_buffers():
        assert torch.equal(dict(inner.named_buffers())[name], buffer), name
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@torch.no_grad()
def test_an_encoder_of_sentences_pools_each_pass_by_its_own_mask(encoders: dict[str, Path]) -> None:
    task = Task("pairs", "embedding", ("sentence1", "sentence2"), (), KINDS["embedding"].metrics)
    model = load(encoders["modernbert"], task).model.eval()
    assert structure(model).head_pooling == "mean"
    one, two = tiny.inputs(model, [5, 9]), tiny.inputs(model, [16, 3], seed=1)
    expected = model(**two).logits
    model(**one)
    stream = through_layers(model, two)
    torch.testing.assert_close(forward.head(model, stream), expected, atol=1e-5, rtol=0)
    real = two["attention_mask"].bool()
    hidden = model.model(**two).last_hidden_state[real]
    torch.testing.assert_close(forward.finish(model, stream.hidden)[real], hidden, atol=1e-5, rtol=0)


def test_rotations_that_depend_on_the_length_are_refused(encoders: dict[str, Path], tmp_path: Path) -> None:
    classifier(encoders["modernbert"], tmp_path / "m", None)
    kind = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    change_config(tmp_path / "m", rope_parameters={"full_attention": kind, "sliding_attention": kind})
    with pytest.raises(UsageError, match="its rotary positions are of type dynamic; effx computes default, "):
        load(tmp_path / "m", TASKS["sst2"])


def test_types_of_remaining_layers_are_in_the_config() -> None:
    model = built()
    assert model.config.layer_types == ["full_attention", *["sliding_attention"] * 2, "full_attention"]
    prune(model, layers=[2, 3])
    assert model.config.layer_types == ["full_attention", "sliding_attention"]
    assert model.config.num_hidden_layers == 2


def test_norms_are_named_in_their_order(tmp_path: Path) -> None:
    import onnx

    from effx.export import graph

    model = prune(built(), heads={1: [0, 1, 2, 3]}, ffns=[2], layers=[3])
    names = families.of(model).norm_names(model)
    assert names == [
        "the embeddings", "layer 0 (from 0), after attention", "layer 0 (from 0), after the FFN",
        "layer 1 (from 0), after the FFN", "layer 2 (from 0), after attention", "the task head",
    ]  # fmt: skip
    graph.write(model, tmp_path / "model.onnx")
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    assert sum(node.op_type == "LayerNormalization" for node in nodes) == len(names)


@torch.no_grad()
def test_graphs_in_blocks_answer_inputs_of_every_length(tmp_path: Path) -> None:
    import onnxruntime
    import openvino

    from effx.export import graph

    model = built()
    path = tmp_path / "model.onnx"
    graph.write(model, path, graph.TraceShape(blocks=True))
    session = onnxruntime.InferenceSession(str(path))
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for lengths in ([1, 1], [5, 3], [64, 30], [65, 64], [300, 200], [600, 1024]):
        inputs = tiny.inputs(model, lengths)
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        expected = tiny.logits(model, inputs).numpy()
        for answer in (session.run(None, arrays)[0], compiled(arrays)[0]):
            np.testing.assert_allclose(answer, expected, atol=1e-4)


@torch.no_grad()
def test_a_graph_in_blocks_has_no_scores_of_all_pairs_in_local_layers(tmp_path: Path) -> None:
    import onnx

    from effx.export import graph

    model = built(layer_types=["sliding_attention"] * 4)
    path = tmp_path / "model.onnx"
    graph.write(model, path, graph.TraceShape(length=640, blocks=True))
    sizes = [
        int(np.prod([each.dim_value or 1 for each in value.type.tensor_type.shape.dim]))
        for value in onnx.shape_inference.infer_shapes(onnx.load(path)).graph.value_info
    ]
    assert max(sizes) <= 4 * 640 * 3 * 64  # heads x length x keys of three blocks, of one row


def test_long_and_short_rows_give_the_same_gradients() -> None:
    """A step on rows that are computed in blocks equals a step of transformers, which uses masks."""
    model = built(num_labels=2)
    inputs = tiny.inputs(model, [1030, 90])
    through_blocks = forward.embed(model, inputs)
    for position in range(len(structure(model).layers)):
        through_blocks = forward.feed(model, position, forward.attend(model, position, through_blocks)[0])
    weight = model.model.layers[1].attn.Wqkv.weight
    (ours,) = torch.autograd.grad(forward.head(model, through_blocks).square().sum(), weight)
    (theirs,) = torch.autograd.grad(model(**inputs).logits.square().sum(), weight)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
