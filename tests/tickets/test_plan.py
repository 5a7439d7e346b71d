from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from effx.errors import UsageError
from effx.manifests import RemovedCounts
from effx.models import prune
from effx.models.structure import parameters, structure
from effx.specs.levels import Level, parse_levels
from effx.structure import Layer, Structure
from effx.tickets.plan import removal
from effx.tickets.scores import Importance


def full_structure(layers: int = 12, heads: int = 12, neurons: int = 8) -> Structure:
    return Structure(tuple(Layer(i, tuple(range(heads)), neurons) for i in range(layers)))


def drawn(layers: int = 12, heads: int = 12, neurons: int = 8, seed: int = 0) -> Importance:
    rng = np.random.default_rng(seed)
    return Importance(rng.random((layers, heads)), rng.random(layers), rng.random((layers, neurons)))


def pairs(by_layer: dict[int, list[int]]) -> set[tuple[int, int]]:
    return {(layer, index) for layer, gone in by_layer.items() for index in gone}


def test_numbers_of_pruned_structures_are_those_of_the_paper() -> None:
    """BERT-base: 14 to 115 heads and 1 to 8 FFNs; BERT-large: two FFNs per level."""
    base = [
        removal(drawn(), full_structure(), Level(p), "winning", min_heads=0).counts()
        for p in range(10, 90, 10)
    ]
    assert [result.heads for result in base] == [14, 28, 43, 57, 72, 86, 100, 115]
    assert [result.ffns for result in base] == [1, 2, 3, 4, 5, 6, 7, 8]
    large = removal(drawn(24, 16), full_structure(24, 16), Level(30), "winning").counts()
    assert large == RemovedCounts(heads=115, ffns=6)
    six = [removal(drawn(6), full_structure(6), Level(p), "winning").counts().ffns for p in range(10, 90, 10)]
    assert six == [0, 1, 1, 2, 2, 3, 3, 4]
    apart = removal(drawn(), full_structure(), Level(20, 50), "losing").counts()
    assert apart == RemovedCounts(heads=28, ffns=6)


def test_weights_remaining_of_bert_base_are_those_of_the_paper() -> None:
    """Liang et al. 2021, with BERT-base: 93.2 % at the first level, 44.9 % at the eighth."""
    published = [93.2, 86.4, 79.4, 72.5, 65.5, 58.7, 51.9, 44.9]
    for percent, expected in zip(range(10, 90, 10), published, strict=True):
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(BertConfig())
            before = parameters(model)
            gone = removal(drawn(), structure(model), Level(percent), "winning")
            prune(model, **gone.arguments())
        assert parameters(model) / before * 100 == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_winning_and_losing_tickets_prune_by_rank_over_all_layers(seed: int) -> None:
    result, remaining = drawn(seed=seed), full_structure()
    ranked = sorted((result.heads[layer, head], layer, head) for layer in range(12) for head in range(12))
    by_ffn = sorted((score, layer) for layer, score in enumerate(result.ffns))
    winning = removal(result, remaining, Level(40), "winning", min_heads=0)
    losing = removal(result, remaining, Level(40), "losing", min_heads=0)
    assert pairs(winning.heads) == {(layer, head) for _, layer, head in ranked[:57]}
    assert pairs(losing.heads) == {(layer, head) for _, layer, head in ranked[-57:]}
    assert winning.ffns == sorted(layer for _, layer in by_ffn[:4])
    assert losing.ffns == sorted(layer for _, layer in by_ffn[-4:])


@pytest.mark.parametrize("kind", ["winning", "random", "losing"])
@pytest.mark.parametrize("least", [0, 1, 3])
def test_min_heads_remain_in_every_layer(kind: str, least: int) -> None:
    result = drawn()
    result.heads[3] = 0.0  # pruned first
    result.heads[5] = 9.0
    gone = removal(result, full_structure(), Level(70), kind, min_heads=least)
    left = [12 - len(gone.heads.get(layer, [])) for layer in range(12)]
    assert min(left) >= least
    assert gone.counts().heads == 100
    if kind == "winning":
        assert left[3] == least
        # as in the published code: the last heads of each layer in the order of pruning are protected
        order = sorted((result.heads[i, j], i, j) for i in range(12) for j in range(12))
        free = [
            (i, j) for n, (_, i, j) in enumerate(order) if sum(o[1] == i for o in order[n + 1 :]) >= least
        ]
        assert pairs(gone.heads) == set(free[:100])


def test_ties_are_pruned_in_order_of_layer_and_head() -> None:
    result = Importance(np.ones((3, 4)), np.ones(3), np.ones((3, 8)))
    for kind in ("winning", "losing"):
        gone = removal(result, full_structure(3, 4), Level(50, 34), kind, min_heads=0)
        assert gone.heads == {0: [0, 1, 2, 3], 1: [0, 1]} and gone.ffns == [0]


def test_random_is_without_replacement_over_all_layers_and_nested() -> None:
    result, remaining = drawn(), full_structure()
    counts = np.zeros((12, 12))
    for seed in range(300):
        gone = pairs(removal(result, remaining, Level(50), "random", min_heads=0, seed=seed).heads)
        assert len(gone) == 72
        for at in gone:
            counts[at] += 1
    assert abs(counts / 300 - 0.5).max() < 0.13  # 4.5 standard errors
    few, more = (removal(result, remaining, Level(p), "random", seed=1) for p in (20, 60))
    assert pairs(few.heads) < pairs(more.heads) and set(few.ffns) < set(more.ffns)


def test_neurons_are_pruned_by_rank_and_all_neurons_of_an_ffn_may_be_pruned() -> None:
    result, remaining = drawn(3, 4, 8), full_structure(3, 4, 8)
    assert result.neurons is not None
    result.neurons[1] = -1.0
    gone = removal(result, remaining, Level(50), "winning", granularity="neurons")
    order = sorted((result.neurons[i, j], i, j) for i in range(3) for j in range(8))
    assert pairs(gone.neurons) == {(i, j) for _, i, j in order[:12]} and gone.ffns == []
    assert len(gone.neurons[1]) == 8
    assert removal(result, remaining, Level(50, 25), "winning", granularity="neurons").counts() == (
        RemovedCounts(heads=6, neurons=6)
    )


def test_only_remaining_structures_of_a_reduced_model_are_pruned() -> None:
    remaining = Structure((Layer(1, (0, 3), 0), Layer(4, (1, 2, 3), 8, None)))
    result = Importance(np.full((2, 4), 0.5), np.array([0.0, 1.0]))
    gone = removal(result, remaining, Level(60, 100), "winning", min_heads=0)
    assert gone.heads == {1: [0, 3], 4: [1]} and gone.ffns == [4]


def test_levels_are_parsed() -> None:
    assert parse_levels("10,...,80") == tuple(Level(p) for p in range(10, 90, 10))
    assert parse_levels("10,30,...,90") == tuple(Level(p) for p in (10, 30, 50, 70, 90))
    assert parse_levels(" 20/10 , 40") == (Level(20, 10), Level(40))
    assert Level(20, 10).name == "20-10" and Level(20, 10).text == "20/10"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("120", "level '120': expected percentages between 1 and 100"),
        ("0", "expected percentages between 1 and 100"),
        ("20/130", "expected percentages between 1 and 100"),
        ("ten", "level 'ten': expected a percentage, e.g. 40, or HEADS/FFNS, e.g. 20/10"),
        ("-10", "expected a percentage"),
        ("12.5", "expected a percentage"),
        ("20,20", "duplicate level 20"),
        ("...,80", "between two plain levels"),
        ("10,...", "between two plain levels"),
        ("30,20,...,80", "rise"),
    ],
)
def test_wrong_levels_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("...", r"\.\.\.")):
        parse_levels(text)


def test_unknown_kinds_and_too_high_levels_are_refused() -> None:
    with pytest.raises(UsageError, match="Did you mean 'winning'"):
        removal(drawn(), full_structure(), Level(10), "wining")
    with pytest.raises(UsageError, match="Did you mean 'neurons'"):
        removal(drawn(), full_structure(), Level(10), "winning", granularity="neuron")
    with pytest.raises(UsageError, match="level 95 prunes 136 of 144 heads, but 12 must remain"):
        removal(drawn(), full_structure(), Level(95), "winning")
