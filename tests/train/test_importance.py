from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from effx.errors import UsageError
from effx.models import families, masks, prune, structure
from effx.train import importance
from tests.models import tiny

LENGTHS = [[7, 3, 5], [9, 2], [4, 6, 8, 5]]


def batches(model: PreTrainedModel) -> list[dict[str, torch.Tensor]]:
    trained = []
    for seed, lengths in enumerate(LENGTHS):
        labels = torch.randint(0, 3, (len(lengths),), generator=torch.Generator().manual_seed(seed))
        trained.append({**tiny.inputs(model, lengths, seed), "labels": labels})
    return trained


def rows_of(batch: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Return single rows without padding."""
    rows = []
    for i, n in enumerate(batch["attention_mask"].sum(1).tolist()):
        rows.append({k: v[i : i + 1] if v.dim() == 1 else v[i : i + 1, :n] for k, v in batch.items()})
    return rows


def gradients(model: PreTrainedModel, row: dict[str, torch.Tensor]) -> list[np.ndarray]:
    """dL/dxi, dL/dnu and dL/dm of one example, by autograd through mask variables."""
    ones = masks.ones(model, neurons=True, requires_grad=True)
    with masks.applied(model, ones):
        loss = model(**row).loss
    assert ones.neurons is not None
    wanted = [ones.heads, ones.ffns, ones.neurons]
    return [result.double().numpy() for result in torch.autograd.grad(loss, wanted)]


def layerwise(values: np.ndarray) -> np.ndarray:
    return values / np.sqrt((values**2).sum(1, keepdims=True))


@pytest.mark.parametrize("family", families.FAMILIES)
@pytest.mark.parametrize(("method", "power"), [("taylor", 1), ("fisher", 2)])
def test_scores_equal_means_over_per_example_gradients(family: str, method: str, power: int) -> None:
    model = tiny.model(family)
    rows = [row for batch in batches(model) for row in rows_of(batch)]
    result = [gradients(model, row) for row in rows]
    heads, ffns, neurons = (np.mean([np.abs(g[i]) ** power for g in result], 0) for i in range(3))
    got = importance.measure(model, batches(model), method, neurons=True)
    assert got.neurons is not None
    assert np.allclose(got.heads, layerwise(heads), atol=1e-6, rtol=0)
    assert np.allclose(got.ffns, ffns / np.sqrt((ffns**2).sum()), atol=1e-6, rtol=0)
    assert np.allclose(got.neurons, layerwise(neurons), atol=1e-6, rtol=0)
    two = importance.scores(model, batches(model), method)
    assert np.array_equal(two[0], got.heads) and np.array_equal(two[1], got.ffns)
    if family == "bert":  # the absolute value is inside the mean: outside it, other scores follow
        outside = layerwise(np.abs(np.mean([g[0] for g in result], 0)))
        assert not np.allclose(got.heads, outside, atol=1e-2)


def test_scores_of_pruned_models_have_original_indices() -> None:
    model = prune(tiny.model(), heads={0: range(4), 1: [0, 2]}, ffns=[0], neurons={1: [0, 5]}, layers=[2])
    result = importance.measure(model, batches(model), neurons=True)
    assert result.neurons is not None
    rows = [row for batch in batches(model) for row in rows_of(batch)]
    heads = np.mean([np.abs(gradients(model, row)[0]) for row in rows], 0)
    assert result.heads.shape == (2, 4) and not result.heads[0].any() and result.ffns[0] == 0
    assert np.allclose(result.heads[1], heads[1] / np.linalg.norm(heads[1]), atol=1e-6)
    assert not result.neurons[1, [0, 5]].any() and not result.neurons[0].any()


def test_method_published_weights_batches_as_the_published_code() -> None:
    """|<g, c>| per token of the batch's mean loss; batch j of N weighs (N - j + 1) / N."""
    model, size = tiny.model(), 8
    layer = families.of(model).layers(model)[1]
    n, expected_head, expected_ffn = len(LENGTHS), np.zeros(4), 0.0
    for j, batch in enumerate(batches(model), 1):
        seen: dict[str, torch.Tensor] = {}

        def keep(name: str, value: torch.Tensor, seen: dict[str, torch.Tensor] = seen) -> None:
            value.retain_grad()
            seen[name] = value

        hooks = [
            layer.attention.output.dense.register_forward_pre_hook(lambda _, x, keep=keep: keep("c", x[0])),
            layer.output.dense.register_forward_hook(lambda _, __, y, keep=keep: keep("f", y)),
        ]
        model(**batch).loss.backward()
        for hook in hooks:
            hook.remove()
        c, f = seen["c"], seen["f"]
        per_token = (c.grad * c).detach().unflatten(2, (4, size)).sum(3).abs()
        expected_head += per_token.sum((0, 1)).double().numpy() * (n - j + 1) / n
        expected_ffn += float((f.grad * f).detach().sum(2).abs().sum()) * (n - j + 1) / n
    got = importance._passes(model, batches(model), importance.METHODS["published"], False, "fp32")
    assert np.allclose(got.heads[1], expected_head, rtol=1e-5)
    assert got.ffns[1] == pytest.approx(expected_ffn, rel=1e-5)
    normal = importance.measure(model, batches(model), "published")
    assert np.allclose(np.linalg.norm(normal.heads, axis=1), 1) and np.linalg.norm(
        normal.ffns
    ) == pytest.approx(1)


def test_magnitude_and_random_need_no_rows() -> None:
    model = tiny.model()
    got = importance.measure(model, [], "magnitude", neurons=True)
    layer = families.of(model).layers(model)[2]
    rows = slice(8, 16)
    squares = (
        sum(
            (linear.weight[rows].detach().numpy() ** 2).sum()
            for linear in (layer.attention.self.query, layer.attention.self.key, layer.attention.self.value)
        )
        + (layer.attention.output.dense.weight[:, rows].detach().numpy() ** 2).sum()
    )
    raw = importance._magnitude(model, True)
    assert raw.heads[2, 1] == pytest.approx(np.sqrt(squares), rel=1e-5)
    assert raw.neurons is not None and got.neurons is not None
    assert raw.ffns[2] == pytest.approx(np.sqrt((raw.neurons[2] ** 2).sum()))
    assert np.allclose((got.heads**2).sum(1), 1)
    one, same, other = (importance.measure(model, [], "random", seed=seed).heads for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_mode_gradients_and_hooks_are_restored() -> None:
    model = tiny.model().train()
    model.classifier.weight.requires_grad_(False)
    importance.scores(model, batches(model))
    assert model.training and not model.classifier.weight.requires_grad
    assert model.bert.pooler.dense.weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert structure(model) == structure(tiny.model())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_graph_of_a_batch_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook that refers to its tensor keeps the graph of every batch: 13 GB over SST-2's training rows."""
    watched = importance._Contributions._watched
    seen: list[weakref.ref[torch.Tensor]] = []

    def noted(self: object, values: torch.Tensor, key: tuple[str, int], width: int) -> torch.Tensor:
        result = watched(self, values, key, width)  # type: ignore[arg-type]
        seen.append(weakref.ref(result))
        return result

    monkeypatch.setattr(importance._Contributions, "_watched", noted)
    model = tiny.model()
    importance.measure(model, batches(model), neurons=True)
    gc.collect()
    assert len(seen) > 10 and not [reference for reference in seen if reference() is not None]


def test_wrong_input() -> None:
    with pytest.raises(UsageError, match="Did you mean 'taylor'"):
        importance.scores(tiny.model(), [], "tailor")
    with pytest.raises(UsageError, match="no rows"):
        importance.scores(tiny.model(), [])
