from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from effx.manifests import RemovedCounts
from effx.specs import halving
from effx.specs.kinds.answer_span import Answers
from effx.specs.levels import Level
from effx.specs.tasks import TASKS
from effx.train.tickets.halving import RungDecision
from effx.train.tickets.result import TicketResult
from effx.train.tickets.selection import FOLDS, Candidate, best, cross_fitted, folds, phases, ranked, split


def search(
    levels: list[Level], plan: list[halving.Rung], run: Callable[[Level, int], Candidate]
) -> tuple[Level, list[dict]]:
    """Return the level that remains after all rungs, and the table's entry of each."""
    left, entries = list(levels), []
    for rung in plan:
        decision = RungDecision(rung.steps, tuple(ranked([run(level, rung.steps) for level in left])), ())
        entries.append(decision.table_entry())
        left = list(decision.remaining)
    return left[0], entries


LEVELS = [Level(percent) for percent in (10, 20, 30, 40)]


@pytest.mark.parametrize(("n", "share"), [(872, 0.5), (3, 0.01), (2, 0.99), (408, 0.3)])
def test_the_split_is_seeded_disjoint_and_complete(n: int, share: float) -> None:
    chosen, rest = split(n, share, 0)
    assert sorted([*chosen, *rest]) == list(range(n)) and len(chosen) and len(rest)
    assert np.array_equal(chosen, split(n, share, 0)[0])
    if n > 100:
        assert len(chosen) == round(n * share) and not np.array_equal(chosen, split(n, share, 1)[0])


def test_the_best_mean_wins_and_on_a_tie_the_smaller_model() -> None:
    result = [
        Candidate(Level(10), 0.9, (0.8, 0.6)),
        Candidate(Level(20), 0.8, (0.5, 0.9)),
        Candidate(Level(30), 0.7, (0.7, 0.7)),
        Candidate(Level(40), 0.6, (0.69, 0.69)),
    ]
    assert best(result).level == Level(30)


def test_phases_follow_their_rule() -> None:
    full = [0.80, 0.82]
    winning = {
        LEVELS[0]: [0.81, 0.82],
        LEVELS[1]: [0.80, 0.81],
        LEVELS[2]: [0.75, 0.76],
        LEVELS[3]: [0.5, 0.5],
    }
    random = {LEVELS[0]: [0.79, 0.8], LEVELS[1]: [0.7, 0.71], LEVELS[2]: [0.6, 0.61], LEVELS[3]: [0.49, 0.52]}
    result = phases(LEVELS, full, winning, random)
    # level 20 is worse by 0.005 with standard error 0.005; level 40 beats random by less than its error
    assert (result["I"], result["II"], result["III"]) == (["10", "20"], ["30"], ["40"])
    assert phases(LEVELS, full, winning, None)["III"] is None
    none = {level: [0.1, 0.1] for level in LEVELS}
    assert phases(LEVELS, full, none, random)["I"] == []
    assert phases(LEVELS, full, none, random)["III"] == ["10", "20", "30", "40"]


@pytest.mark.parametrize("epochs", [3, 6])
@pytest.mark.parametrize("seeds", [3, 5, 20])
def test_halving_spends_a_third_of_eight_levels(epochs: int, seeds: int) -> None:
    steps = 63 * epochs
    plan = halving.rungs(8, seeds, steps, steps // 10)
    grid = 9 * seeds * steps
    spent = seeds * steps + halving.cost(plan, seeds * steps)
    assert 0.9 * grid / 3 < spent <= grid / 3
    assert [rung.levels for rung in plan] == [8, 4, 2]
    reached = [rung.steps for rung in plan]
    assert reached == sorted(reached) and reached[-1] <= seeds * steps
    assert all(n <= steps or n % steps == 0 for n in reached)  # complete runs, or a part of the first
    # by hand: each level's steps are those of the last rung that it was in; the last level takes all steps
    by_hand = 4 * reached[0] + 2 * reached[1] + 1 * reached[2] + seeds * steps
    assert halving.cost(plan, seeds * steps) == by_hand


@pytest.mark.parametrize("levels", [1, 2, 3, 5, 8, 13])
def test_halving_ends_with_one_level(levels: int) -> None:
    every = [Level(percent) for percent in range(1, levels + 1)]
    plan = halving.rungs(levels, 3, 100, 10)
    runs: list[tuple[Level, int]] = []

    def run(level: Level, steps: int) -> Candidate:
        runs.append((level, steps))
        return Candidate(level, 1 - level.heads / 100, (-abs(level.heads - 2.0),))

    result, seen = search(every, plan, run)
    assert result == every[min(1, levels - 1)]
    assert [len(rung["levels"]) for rung in seen] == [rung.levels for rung in plan]
    assert len(runs) == sum(rung.levels for rung in plan)
    assert all(rung.steps >= 20 for rung in plan)  # past the warm-up


def test_halving_ends_near_the_best_level_on_noisy_learning_curves() -> None:
    """Scores increase with the steps, their noise decreases; levels differ by twice the final noise.

    Each run has one noise value for all its steps, as a real training run.
    """
    steps, epoch, std = 378, 63, 0.01
    levels = [Level(percent) for percent in range(10, 90, 10)]
    quality = {level: 0.9 - 2 * std * abs(level.heads - 30) / 10 for level in levels}
    plan = halving.rungs(8, 3, steps, steps // 10)
    near = 0
    for trial in range(200):
        noise = np.random.default_rng(trial).normal(size=(8, 3))

        def run(level: Level, taken: int, noise: np.ndarray = noise) -> Candidate:
            complete, part = divmod(taken, steps)
            lengths = [steps] * complete + ([part] if part else [])
            level_noise = noise[levels.index(level)]
            scores = [
                quality[level] * (1 - 0.3 * np.exp(-length / epoch))
                + std * np.sqrt(steps / length) * level_noise[seed]
                for seed, length in enumerate(lengths)
            ]
            return Candidate(level, 1 - level.heads / 100, tuple(scores))

        result, _ = search(levels, plan, run)
        near += abs(result.heads - 30) <= 10
    assert near >= 170


def result_of(level: Level, seed: int, predictions: np.ndarray) -> TicketResult:
    return TicketResult(
        f"{level.text}-s{seed}", "winning", level, seed, None, "", 1, 1.0, 1, 1 - level.heads / 100,
        RemovedCounts(), {}, predictions,
    )  # fmt: skip


def test_cross_fitting_answers_each_fold_by_the_level_that_is_best_on_the_others() -> None:
    rng, task = np.random.default_rng(0), TASKS["sst2"]
    labels = rng.integers(0, 2, 60)
    answers = {
        (level, seed): np.where(rng.random(60) < 0.7, labels, 1 - labels)
        for level in LEVELS
        for seed in (0, 1)
    }
    winning = [result_of(level, seed, each) for (level, seed), each in answers.items()]
    found = cross_fitted(LEVELS, winning, task, labels, 3)
    assert found is not None and sum(found.levels.values()) == FOLDS
    right, chosen = np.zeros((2, 60)), []
    for rows in folds(60, 3):
        others = np.ones(60, dtype=bool)
        others[rows] = False
        means = [
            np.mean([(answers[level, seed] == labels)[others].mean() for seed in (0, 1)]) for level in LEVELS
        ]
        # on a tie, the level with fewer weights
        level = max(zip(means, LEVELS, strict=True), key=lambda pair: (pair[0], pair[1].heads))[1]
        chosen.append(level)
        for seed in (0, 1):
            right[seed, rows] = (answers[level, seed] == labels)[rows]
    assert found.levels == {level: chosen.count(level) for level in chosen}
    assert [scores["accuracy"] for scores in found.scores] == pytest.approx(right.mean(axis=1))
    assert sorted(np.concatenate(folds(60, 3))) == list(range(60))
    assert cross_fitted(LEVELS, winning, task, labels[:9], 3) is None


def test_cross_fitting_does_not_cut_texts_of_other_levels() -> None:
    task = TASKS["squad"]
    labels, texts = np.empty(20, dtype=object), [f"the answer number {number}" for number in range(20)]
    for number, text in enumerate(texts):
        labels[number] = Answers((text,), (0,))
    short, right = np.array(["no"] * 20), np.array(texts)
    restored = [
        TicketResult.from_json(result_of(level, 0, predictions).to_json())
        for level, predictions in ((LEVELS[0], short), (LEVELS[1], right))
    ]
    for winning in (restored, [result_of(LEVELS[0], 0, short), result_of(LEVELS[1], 0, right)]):
        found = cross_fitted(LEVELS[:2], winning, task, labels, 0)
        assert found is not None and found.levels == {LEVELS[1]: FOLDS}
        assert found.scores[0]["answer_f1"] == 1.0


def test_cross_fitting_has_no_optimism_where_levels_are_equal() -> None:
    """The best of eight equal levels looks better than it is on the rows that chose it."""
    rng, task = np.random.default_rng(1), TASKS["sst2"]
    levels = [Level(percent) for percent in range(10, 90, 10)]
    labels = np.zeros(150, dtype=np.int64)
    fitted, naive = [], []
    for trial in range(300):
        winning = [result_of(level, 0, (rng.random(150) < 0.3).astype(np.int64)) for level in levels]
        found = cross_fitted(levels, winning, task, labels, trial)
        assert found is not None
        fitted.append(found.scores[0]["accuracy"])
        naive.append(max(float(np.mean(result.predictions == 0)) for result in winning))
    error = np.std(fitted) / np.sqrt(len(fitted))
    assert abs(np.mean(fitted) - 0.7) < 4 * error < 0.02
    assert np.mean(naive) > 0.7 + 0.03
