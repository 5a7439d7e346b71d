"""The table over seeds, compared with NumPy, SciPy and statsmodels."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from effx.errors import ArtifactError
from effx.specs.lottery import LotterySearchSettings
from effx.specs.tasks import TASKS
from effx.train.lottery import figure, table
from effx.train.lottery.result import LotteryResult

SETTINGS = LotterySearchSettings.of(
    kind=("imp", "random"), init=("pretrained", "fresh"), sparsity=(50, 70), seeds=3, seed=4
)
SCORES = {
    ("full model", "full", "pretrained", 0): (0.80, 0.82, 0.81),
    ("imp", "imp", "pretrained", 50): (0.80, 0.80, 0.811),
    ("imp", "imp", "pretrained", 70): (0.80, 0.79, 0.799),
    ("imp, fresh weights", "imp", "fresh", 70): (0.60, 0.63, 0.58),
    ("random", "random", "pretrained", 50): (0.71, 0.73, 0.72),
    ("random", "random", "pretrained", 70): (0.66, 0.64, 0.69),
}


def results(seeds: int = 3) -> list[LotteryResult]:
    return [
        LotteryResult(
            f"{label}{percent}-s{seed}", label, kind, None if kind in ("full", "random") else "task", init,
            None, percent, seed + 4, 9, "0" * 64, percent / 100, {"accuracy": score},
        )
        for (label, kind, init, percent), scores in reversed(SCORES.items())
        for seed, score in list(enumerate(scores))[:seeds]
    ]  # fmt: skip


def built(seeds: int = 3) -> dict[str, Any]:
    return table.build(TASKS["sst2"], 100, "bert", SETTINGS.replace(seeds=seeds), results(seeds))


def test_rows_equal_independent_computations() -> None:
    value = built()
    assert value["seeds"] == [4, 5, 6]
    full = SCORES["full model", "full", "pretrained", 0]
    assert [(row["label"], row["kind"], row["init"], row["percent"]) for row in value["summary"]] == [*SCORES]
    p_values = []
    for row, scores in zip(value["summary"], SCORES.values(), strict=True):
        spread = row["scores"]["accuracy"]
        assert spread["mean"] == pytest.approx(np.mean(scores))
        assert spread["std"] == pytest.approx(np.std(scores, ddof=1))
        if row["kind"] == "full":
            assert row["difference"] is None and row["matching"] is None
            continue
        assert row["difference"] == pytest.approx(np.mean(scores) - np.mean(full))
        assert row["matching"] is bool(np.mean(scores) >= np.mean(full) - np.std(full, ddof=1))
        difference = np.subtract(scores, full)
        if np.ptp(difference) < 1e-9:
            assert row["p"] is None and "same for every seed" in row["reason"]
            continue
        test = stats.ttest_1samp(difference, 0)
        interval = test.confidence_interval(0.95)
        assert (row["difference_low"], row["difference_high"]) == pytest.approx((interval.low, interval.high))
        assert row["p"] == pytest.approx(test.pvalue)
        p_values.append(test.pvalue)
    adjusted = [row["p_adjusted"] for row in value["summary"] if row["p"] is not None]
    assert adjusted == pytest.approx(multipletests(p_values, method="holm")[1])
    assert len(adjusted) == 4


def test_matching_is_one_standard_deviation_of_the_full_model_below_its_mean() -> None:
    """0.81 - 0.01 = 0.8: not the tickets' deviation, nor that with n in the denominator (0.0082)."""
    value = built()
    assert value["matching"]["threshold"] == pytest.approx(0.80)
    assert [row["matching"] for row in value["summary"]] == [None, True, False, False, False, False]
    assert [(line["label"], line["percent"]) for line in value["matching"]["highest"]] == [
        ("imp", 50), ("imp, fresh weights", None), ("random", None),
    ]  # fmt: skip


def test_the_table_as_text_and_as_csv() -> None:
    value = built()
    text = table.markdown(value)
    assert "| ticket | zeros | accuracy | accuracy minus full model | matching |" in text
    assert "| full model | 0 % | 0.8100 ± 0.0100 |  |  |" in text
    assert "| imp | 50 % | 0.8037 ± 0.0064 | -0.0063 [" in text
    assert "minus one standard deviation of the full model over the seeds" in text
    assert "imp: 50 %; imp, fresh weights: none matches; random: none matches." in text
    lines = list(csv.DictReader(io.StringIO(table.as_csv(value))))
    assert len(lines) == 6 and lines[1]["matching"] == "True" and lines[0]["difference"] == ""
    assert "seconds" not in str(value) and "text" not in value["settings"]


def test_other_zeros_than_the_percentage_are_shown() -> None:
    """As of a model that was sparse before, or one whose pooler is not masked."""
    found = [replace(result, zeros=(1 + result.zeros) / 2) for result in results()]
    text = table.markdown(table.build(TASKS["sst2"], 100, "bert", SETTINGS, found))
    assert "| full model | 0 % (50.0 % are zero) | 0.8100" in text
    assert "| imp | 50 % (75.0 % are zero) | 0.8037" in text


def test_one_seed_tests_nothing() -> None:
    value = built(1)
    assert value["matching"] is None
    for row in value["summary"][1:]:
        assert row["matching"] is row["p"] is row["p_adjusted"] is row["difference_low"] is None
        assert row["difference"] is not None
    text = table.markdown(value)
    assert "| imp | 50 % | 0.8000 | +0.0000 |" in text
    assert "cannot be tested whether tickets match the full model: use two or more seeds" in text


def test_the_figure_has_a_line_for_each_kind_of_ticket(tmp_path: Path) -> None:
    figure.scores(built(), tmp_path / "f.svg")
    drawn = (tmp_path / "f.svg").read_text()
    assert all(f">{label}<" in drawn for label in ("full model", "imp", "imp, fresh weights", "random"))
    figure.scores(built(), tmp_path / "g.svg")
    assert drawn == (tmp_path / "g.svg").read_text()


def test_a_damaged_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"kind": "imp"}')
    with pytest.raises(ArtifactError, match="the ticket is then trained again"):
        LotteryResult.read(tmp_path / "result.json")
