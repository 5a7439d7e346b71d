from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from effx.errors import ArtifactError
from effx.specs.adaptation import AdaptationSettings
from effx.specs.tasks import TASKS
from effx.train.adaptation import table

SETTINGS = AdaptationSettings.of(shares=("1%", "100%"), draws=4)
SCORES = {
    ("plain", 0.01): (0.50, 0.55, 0.52, 0.49), ("mnli", 0.01): (0.61, 0.66, 0.60, 0.63),
    ("ticket", 0.01): (0.62, 0.60, 0.61, 0.66),
    ("plain", 1.0): (0.80, 0.81, 0.80, 0.82), ("mnli", 1.0): (0.82, 0.81, 0.83, 0.82),
    ("ticket", 1.0): (0.81, 0.82, 0.81, 0.83),
}  # fmt: skip


def built(ticket: str = "ticket") -> dict[str, Any]:
    named = {"ticket": ticket}
    results = [
        table.AdaptationResult(
            named.get(model, model),
            share,
            seed,
            10 if share < 1 else 1000,
            5,
            "0" * 64,
            1.0,
            {"accuracy": score},
        )
        for (model, share), scores in SCORES.items()
        for seed, score in reversed(list(enumerate(scores)))
    ]
    return table.build(TASKS["sst2"], 200, ("plain", "mnli", ticket), SETTINGS, results)


def test_means_and_comparisons_equal_independent_computations() -> None:
    value = built()
    for row in value["summary"]:
        scores = SCORES[row["model"], row["share"]]
        assert row["scores"]["accuracy"]["mean"] == pytest.approx(np.mean(scores))
        assert row["scores"]["accuracy"]["std"] == pytest.approx(np.std(scores, ddof=1))
    p_values = []
    for entry in value["comparisons"]:
        before, after = SCORES["plain", entry["share"]], SCORES[entry["model"], entry["share"]]
        test = stats.ttest_rel(after, before) if np.ptp(np.subtract(after, before)) > 1e-9 else None
        assert entry["difference"] == pytest.approx(np.mean(after) - np.mean(before))
        if test is None:
            assert entry["p"] is None and "same for every seed" in entry["reason"]
            continue
        interval = test.confidence_interval(0.95)
        assert (entry["low"], entry["high"]) == pytest.approx((interval.low, interval.high))
        assert entry["p"] == pytest.approx(test.pvalue)
        p_values.append(test.pvalue)
    adjusted = [entry["p_adjusted"] for entry in value["comparisons"] if entry["p"] is not None]
    assert adjusted == pytest.approx(multipletests(p_values, method="holm")[1])
    assert len(value["comparisons"]) == 4 and len(adjusted) == 3


def test_a_damaged_result_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text('{"model": "plain", "shares": 0.1}')
    with pytest.raises(ArtifactError, match="unexpected keyword .* Delete its folder; the model is then"):
        table.AdaptationResult.read(path)


def test_the_order_of_results_does_not_matter_and_nothing_in_the_table_is_a_time() -> None:
    assert [cell["seed"] for cell in built()["cells"]] == [0, 1, 2, 3] * 6
    assert "seconds" not in str(built())


def test_the_table_as_text_and_as_csv() -> None:
    value = built()
    text = table.markdown(value)
    assert "| model, accuracy | weights | 1% (10 rows) | 100% (1,000 rows) |" in text
    assert "| mnli | 100.0% | 0.6250 ± 0.0265 | 0.8200 ± 0.0082 |" in text
    assert "Holm's adjustment over 4 comparisons" in text
    lines = list(csv.DictReader(io.StringIO(table.as_csv(value))))
    assert len(lines) == 6
    assert (lines[0]["model"], lines[0]["share"], lines[0]["draws"]) == ("plain", "0.01", "4")


def test_the_name_of_a_model_breaks_no_row_and_is_no_formula() -> None:
    value = built("-a|b")
    rows = [line for line in table.markdown(value).splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) in (5, 4) for row in rows), rows
    assert sum(row.startswith(r"| -a\|b |") for row in rows) == 2
    lines = list(csv.DictReader(io.StringIO(table.as_csv(value))))
    assert [line["model"] for line in lines].count("'-a|b") == 2


def test_one_draw_has_no_interval_and_no_test() -> None:
    settings = AdaptationSettings.of(shares="10%", draws=1)
    results = [
        table.AdaptationResult(model, 0.1, 0, 20, 5, "0" * 64, 0.8, {"accuracy": score})
        for model, score in (("a", 0.5), ("b", 0.6))
    ]
    value = table.build(TASKS["sst2"], 200, ("a", "b"), settings, results)
    (entry,) = value["comparisons"]
    assert (entry["low"], entry["p"]) == (None, None)
    assert entry["difference"] == pytest.approx(0.1)
    assert "One draw." in table.markdown(value) and "Holm" not in table.markdown(value)
