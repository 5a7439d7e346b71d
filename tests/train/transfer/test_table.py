from __future__ import annotations

import csv
import io
import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from effx.specs.tasks import TASKS
from effx.specs.transfer import (
    FULL,
    OTHER_SEED,
    RANDOM,
    STRUCTURED,
    UNSTRUCTURED,
    TransferRun,
    TransferSettings,
)
from effx.train.transfer import table
from effx.train.transfer.result import TransferResult

TASK_NAMES = ("sst2", "rte", "cola")
SEEDS = (0, 1, 2, 3)


def scores(seed: int = 0) -> dict[tuple[str | None, str, str], list[float]]:
    """Return (family, source, target) -> a score for every seed."""
    rng = np.random.default_rng(seed)
    result = {}
    for target in TASK_NAMES:
        result[None, FULL, target] = list(rng.normal(0.8, 0.01, len(SEEDS)))
        for family in (UNSTRUCTURED, STRUCTURED):
            for source in (*TASK_NAMES, OTHER_SEED, RANDOM):
                mean = 0.79 if source == target else 0.74 if source == RANDOM else 0.77
                result[family, source, target] = list(rng.normal(mean, 0.01, len(SEEDS)))
    return result


def built(every: dict[Any, list[float]], seeds: int = len(SEEDS)) -> dict[str, Any]:
    results = [
        TransferResult(
            TransferRun(
                cell="x", target=target, seed=seed, source=source, family=family,
                amount=None if family is None else "70" if family == UNSTRUCTURED else "40",
            ),
            5, "0" * 64, 0.3,
            dict.fromkeys(TASKS[target].metrics, values[seed]),
        )
        for seed in reversed(range(seeds))
        for (family, source, target), values in every.items()
    ]  # fmt: skip
    targets = [table.Target(TASKS[name], 100 * number) for number, name in enumerate(TASK_NAMES, 1)]
    return table.build("minilm", targets, TransferSettings.of(seeds=seeds, levels="40", sparsity=70), results)


def test_rows_are_compared_with_the_full_model_and_with_the_own_mask() -> None:
    every = scores()
    value = built(every)
    assert len(value["summary"]) == 3 + 2 * 5 * 3
    p_values: dict[str, list[float]] = {"from_full": [], "from_own": []}
    adjusted: dict[str, list[float]] = {"from_full": [], "from_own": []}
    for row in value["summary"]:
        family, source, target = row["family"], row["source"], row["target"]
        after, full = every[family, source, target], every[None, FULL, target]
        spread = row["scores"][TASKS[target].metric]
        assert spread["mean"] == pytest.approx(np.mean(after))
        assert spread["std"] == pytest.approx(np.std(after, ddof=1))
        if source == FULL:
            assert (row["from_full"], row["from_own"], row["matching"]) == (None, None, None)
            continue
        assert row["matching"] == (np.mean(after) >= np.mean(full) - np.std(full, ddof=1))
        for compared, before in (("from_full", full), ("from_own", every[family, target, target])):
            if compared == "from_own" and source == target:
                assert row[compared] is None
                continue
            test = stats.ttest_rel(after, before)
            interval = test.confidence_interval(0.95)
            found = row[compared]
            assert found["difference"] == pytest.approx(np.mean(after) - np.mean(before))
            assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
            assert found["p"] == pytest.approx(test.pvalue)
            p_values[compared].append(test.pvalue)
            adjusted[compared].append(found["p_adjusted"])
    for compared, values in p_values.items():
        assert adjusted[compared] == pytest.approx(multipletests(values, method="holm")[1])


def test_the_answers_average_over_targets_before_they_test_over_seeds() -> None:
    every = scores()
    value = built(every)
    assert [(each["sources"], each["with"]) for each in value["answers"]] == 2 * [
        ("other tasks", "own mask"), (OTHER_SEED, "own mask"), ("other tasks", OTHER_SEED),
        (RANDOM, "own mask"), ("other tasks", RANDOM),
    ]  # fmt: skip

    def mean(family: str, kind: str, seed: int) -> float:
        total = 0.0
        for target in TASK_NAMES:
            if kind == "other tasks":
                others = [name for name in TASK_NAMES if name != target]
                total += sum(every[family, name, target][seed] for name in others) / 2
            else:
                total += every[family, target if kind == "own mask" else kind, target][seed]
        return total / 3

    for answer in value["answers"]:
        after = [mean(answer["family"], answer["sources"], seed) for seed in SEEDS]
        before = [mean(answer["family"], answer["with"], seed) for seed in SEEDS]
        test = stats.ttest_rel(after, before)
        assert answer["difference"] == pytest.approx(np.mean(after) - np.mean(before))
        assert answer["p"] == pytest.approx(test.pvalue)
    adjusted = multipletests([answer["p"] for answer in value["answers"]], method="holm")[1]
    assert [answer["p_adjusted"] for answer in value["answers"]] == pytest.approx(adjusted)


def test_without_a_difference_few_tables_find_that_the_source_matters() -> None:
    """Of 300 tables in which masks differ by chance alone, at most 5 % (and chance) have a significant one.

    A mask is as good or bad for every score that uses it: for its own seed, and as another seed's.
    """
    settings = TransferSettings.of(seeds=len(SEEDS))
    found = 0
    for number in range(300):
        rng = np.random.default_rng((1, number))
        keys = itertools.product((UNSTRUCTURED, STRUCTURED), TASK_NAMES, SEEDS)
        masks = {key: rng.normal(0, 0.02) for key in keys}
        every = {}
        for family, source, target in scores():
            values = rng.normal(0.8, 0.01, len(SEEDS))
            for seed in SEEDS:
                if source in TASK_NAMES:
                    values[seed] += masks[family, source, seed]
                elif source == OTHER_SEED:
                    values[seed] += masks[family, target, settings.other_seed(seed)]
                elif family is not None:
                    values[seed] += rng.normal(0, 0.02)
            every[family, source, target] = list(values)
        found += any(answer["p_adjusted"] < 0.05 for answer in built(every)["answers"])
    assert found <= stats.binom.ppf(0.999, 300, 0.05)


def test_every_mask_is_one_other_seeds_mask() -> None:
    settings = TransferSettings.of(seeds=5, seed=3)
    others = [settings.other_seed(seed) for seed in settings.every_seed]
    assert others == [7, 3, 4, 5, 6]
    assert TransferSettings.of(seeds=1).other_seed(0) is None


def test_chance_is_the_spread_between_masks_of_two_seeds() -> None:
    every = scores()
    (chance, _) = built(every)["chance"]
    differences = [
        every[UNSTRUCTURED, OTHER_SEED, target][seed] - every[UNSTRUCTURED, target, target][seed]
        for target in TASK_NAMES
        for seed in SEEDS
    ]
    assert (chance["family"], chance["n"]) == (UNSTRUCTURED, 12)
    assert chance["std"] == pytest.approx(np.std(differences, ddof=1))


def test_a_mask_with_fewer_zeros_than_its_matrix_says_so() -> None:
    value = built(scores())
    row = next(row for row in value["summary"] if (row["source"], row["target"]) == ("rte", "sst2"))
    row["weight_remaining"] = 0.32
    text = table.markdown(value)
    assert text.count("(32.0% remain)") == 1 and "without a pooler" in text


def test_the_order_of_results_does_not_matter_and_nothing_is_a_time() -> None:
    value = built(scores())
    assert "seconds" not in str(value)
    assert value["tasks"]["rte"] == {"metric": "accuracy", "metrics": ["accuracy"], "validation_rows": 200}


def test_the_table_as_text_and_as_csv() -> None:
    every = {key: [0.5 + 0.1 * (seed % 2) for seed in SEEDS] for key in scores()}
    every[UNSTRUCTURED, "rte", "sst2"] = [0.3, 0.31, 0.3, 0.32]
    value = built(every)
    text = table.markdown(value)
    assert "### 70 % of the weights zero" in text and "### Heads and FFNs pruned, level 40" in text
    assert "| mask of | sst2 (accuracy) | rte (accuracy) | cola (matthews) |" in text
    assert "| full model | 0.5500 ± 0.0577 | 0.5500 ± 0.0577 | 0.5500 ± 0.0577 |" in text
    rte = next(line for line in text.splitlines() if line.startswith("| rte | 0.3075"))
    assert "(0.5500 ± 0.0577 =)" in rte and "=" not in rte.split("|")[2]
    assert "no p-value: the difference is the same for every seed" in text
    lines = list(csv.DictReader(io.StringIO(table.as_csv(value))))
    metrics = sum(len(TASKS[name].metrics) for name in TASK_NAMES)
    assert len(lines) == metrics * (1 + 2 * 5)
    assert lines[0]["source"] == FULL and lines[0]["from_full_difference"] == ""


def test_one_seed_has_no_test_and_no_matching() -> None:
    every = {key: values for key, values in scores().items() if key[1] != OTHER_SEED}
    value = built(every, seeds=1)
    assert {row["matching"] for row in value["summary"]} == {None}
    assert {answer["p"] for answer in value["answers"]} == {None} and value["chance"] == []
    text = table.markdown(value)
    assert "One seed: nothing can be tested." in text and "p =" not in text
