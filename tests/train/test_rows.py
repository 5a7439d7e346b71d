from __future__ import annotations

import numpy as np
import pytest

from effx.data import Rows
from effx.errors import UsageError
from effx.specs.tasks import TASKS
from effx.specs.training import FinetuneSettings, TrainingSettings
from effx.train.rows import check_classes, chosen


def rows(n: int) -> Rows:
    return Rows([(str(number),) for number in range(n)], np.arange(n) % 2, "generated")


@pytest.mark.parametrize(
    ("total", "counts"),
    [
        (549_367, (549, 5_493, 54_936, 549_367)),  # SNLI and SciTail: Liu et al. 2019, table 3
        (23_596, (23, 235, 2_359, 23_596)),
    ],
)
def test_shares_give_the_published_numbers_of_rows(total: int, counts: tuple[int, ...]) -> None:
    shares = ("0.1%", "1%", "10%", "100%")
    assert tuple(TrainingSettings.of(share=share).rows_of(total) for share in shares) == counts


def test_a_share_of_29_percent_of_100_rows_is_29_rows() -> None:
    assert TrainingSettings.of(share=0.29).rows_of(100) == 29


def test_draws_of_one_seed_are_nested_and_those_of_other_seeds_differ() -> None:
    source = rows(500)
    draws = [chosen(source, TrainingSettings.of(share=share, seed=3)) for share in ("1%", "10%", "100%")]
    assert [len(draw) for draw in draws] == [5, 50, 500]
    assert set(draws[0]) < set(draws[1]) < set(draws[2])
    assert all(np.array_equal(draw, np.unique(draw)) for draw in draws)
    assert set(chosen(source, TrainingSettings.of(share="10%", seed=4))) != set(draws[1])


def test_a_share_is_drawn_from_the_rows_within_the_limit() -> None:
    source = rows(500)
    limited = set(chosen(source, TrainingSettings.of(limit=100)))
    drawn = chosen(source, TrainingSettings.of(limit=100, share="20%"))
    assert len(drawn) == 20 and set(drawn) < limited


def test_a_share_without_rows_or_with_fewer_rows_than_labels_is_refused() -> None:
    with pytest.raises(UsageError, match=r"share 0.1% of 500 training rows leaves no row.*at least 0.2%"):
        chosen(rows(500), TrainingSettings.of(share="0.1%"))
    with pytest.raises(UsageError, match="leaves 2 training rows, fewer than the 3 labels of task mnli"):
        check_classes(TASKS["mnli"], 2, TrainingSettings.of(share="0.4%"))


def test_a_share_is_a_percentage_or_a_number_below_1() -> None:
    assert FinetuneSettings.of(share="0.1%").to_json()["share"] == "0.1%"
    assert FinetuneSettings.from_json({"share": "0.1%"}).training.share == 0.001
    assert FinetuneSettings.of(share="100%").replace(seed=2).training.share == 1.0
    for wrong, message in (("1", "could mean"), ("0", "expected more than 0"), (2, "could mean")):
        with pytest.raises(UsageError, match=message):
            FinetuneSettings.of(share=wrong)
