from __future__ import annotations

from dataclasses import replace

import pytest

from effx.analysis import majority
from effx.analysis.recommend import recommend
from effx.analysis.recommendation import Recommendation
from tests.analysis.simulated_run import simulated_run


def test_an_engine_that_always_gives_the_most_frequent_class_is_remarked() -> None:
    constant = simulated_run("constant", wrong=range(1, 200, 2), n=200)
    assert majority.majority_score(constant) == pytest.approx(0.5)
    text = majority.remark(constant)
    assert text == (
        "constant is not better than always predicting the most frequent class: accuracy 0.5000, constant "
        "prediction 0.5000"
    )
    (answer,) = recommend([constant])
    assert isinstance(answer, Recommendation) and text in answer.remarks


def test_a_better_engine_is_not_remarked() -> None:
    assert majority.remark(simulated_run("better", wrong=range(1, 100, 2), n=200)) is None


def test_numbers_and_results_without_rows_have_no_majority() -> None:
    measured = simulated_run("x", wrong=[0], n=10)
    without_rows = replace(measured, quality=replace(measured.quality, labels=[], predictions=[]))
    assert majority.majority_score(without_rows) is None
    numbers = replace(measured, quality=replace(measured.quality, metric="pearson"))
    assert majority.majority_score(numbers) is None
