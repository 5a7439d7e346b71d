from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from effx.analysis.tickets import searches, structures
from effx.analysis.tickets.searches import TicketSearch
from effx.errors import UsageError
from tests.analysis.tickets.made import workspace


def two(folder: Path) -> list[TicketSearch]:
    return [
        searches.read(workspace(folder / task, task, (0.8, 0.8), {"40": (0.8, 0.8)}, level="40", seed=number))
        for number, task in enumerate(("rte", "mrpc"))
    ]


def test_importance_and_shares_follow_their_definitions(tmp_path: Path) -> None:
    a, b = two(tmp_path)
    shared = structures.shared_importance([a, b], "heads")
    scores = np.stack([np.mean([s.importance[seed].heads.ravel() for seed in (0, 1)], 0) for s in (a, b)])
    order = np.argsort(-scores.mean(0))
    assert shared.importance == pytest.approx(scores.mean(0)[order])
    assert shared.share == pytest.approx((scores / scores.sum(0))[:, order])
    assert shared.share.sum(0) == pytest.approx(np.ones(16))
    layer, head = divmod(int(order[0]), 4)
    assert shared.names[0] == f"layer {layer + 1} head {head + 1}"


def test_agreement_of_tasks_and_of_seeds(tmp_path: Path) -> None:
    a, b = two(tmp_path)
    found = {(part.a, part.b): part for part in structures.agreements([a, b], "heads", "40")}
    assert set(found) == {("rte", "rte"), ("mrpc", "mrpc"), ("rte", "mrpc")}
    ranks = [
        stats.spearmanr(a.importance[one].heads.ravel(), b.importance[other].heads.ravel()).statistic
        for one in (0, 1)
        for other in (0, 1)
    ]
    assert found["rte", "mrpc"].spearman == pytest.approx(np.mean(ranks))
    sets = [
        {(layer, head) for layer, heads in a.removed("40", seed).heads.items() for head in heads}
        for seed in (0, 1)
    ]
    assert found["rte", "rte"].overlap == pytest.approx(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))


def test_overlap_by_chance_equals_the_mean_over_all_sets() -> None:
    first = {0, 1, 2}
    every = [len(first & set(second)) / len(first | set(second)) for second in combinations(range(6), 2)]
    assert structures.chance_overlap(6, 3, 2) == pytest.approx(np.mean(every))
    assert structures.chance_overlap(4, 4, 4) == pytest.approx(1.0)


def test_a_level_without_ffns_has_no_overlap_of_ffns(tmp_path: Path) -> None:
    (part,) = structures.agreements(two(tmp_path)[:1], "FFNs", "20/0")
    assert part.overlap is None and part.overlap_by_chance is None


def test_searches_of_other_encoders_or_without_scores_are_not_compared(tmp_path: Path) -> None:
    a, _ = two(tmp_path)
    other = searches.read(workspace(tmp_path / "o", "cola", (0.8,), {}, level=None, shape=(2, 2), model="x"))
    with pytest.raises(UsageError, match="have the same encoder"):
        structures.check_same_encoder([a, other])
    folder = workspace(tmp_path / "w", "cola", (0.8,), {}, level=None)
    (folder / "importance-s0.json").unlink()
    with pytest.raises(UsageError, match=r"has no importance-sSEED.json"):
        structures.check_same_encoder([searches.read(folder)])
