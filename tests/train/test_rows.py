from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from effx.data import Rows
from effx.errors import UsageError
from effx.manifests import TrainingRecord
from effx.specs.tasks import TASKS
from effx.specs.training import FinetuneSettings, TrainingSettings
from effx.train.rows import check_classes, chosen, draws_of, rows_digest, split


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


def recorded(kind: Literal["finetune", "exits", "tokens"] = "finetune", **facts: Any) -> TrainingRecord:
    """The record of a checkpoint that was trained on a part of 1,200 rows."""
    settings = {name: facts.pop(name) for name in ("share", "seed") if name in facts}
    return TrainingRecord(
        kind=kind,
        regime="full",
        settings={"limit": facts.get("limit"), **settings},
        rows_digest=rows_digest(rows(1200)),
        **facts,
    )


def further(
    before: TrainingRecord, kind: Literal["exits", "tokens"], settings: TrainingSettings
) -> TrainingRecord:
    """The record of exits or a token schedule on a checkpoint, as training writes it."""
    return recorded(kind, limit=before.limit, share=settings.to_json()["share"], seed=settings.seed,
                    draws=draws_of(before, settings))  # fmt: skip


def test_rows_of_every_training_of_a_chain_count_as_seen() -> None:
    """Fine-tuned on all rows, a token schedule on 20 % of them, then exits."""
    source = rows(1200)
    schedule = further(recorded(), "tokens", TrainingSettings.of(share="20%", seed=5))
    fit, held, seen = split(source, schedule, TrainingSettings())
    assert (len(fit), len(held), seen) == (1080, 120, 120)
    part = further(recorded(share="30%", seed=1), "tokens", TrainingSettings.of(share="20%", seed=5))
    both = {
        row
        for seed, share in ((1, "30%"), (5, "20%"))
        for row in chosen(source, TrainingSettings.of(share=share, seed=seed))
    }
    fit, held, seen = split(source, part, TrainingSettings())
    assert set(fit) == both and seen == 0
    assert len(held) == 500 and not set(held) & both


def test_a_chain_continues_on_the_rows_of_its_first_training() -> None:
    """Fine-tuned on a share, a token schedule with the default rows, then exits with the default rows."""
    source = rows(1200)
    before = recorded(share="30%", seed=1)
    schedule = further(before, "tokens", TrainingSettings.of(seed=5))
    fit, held, seen = split(source, schedule, TrainingSettings())
    assert np.array_equal(fit, chosen(source, TrainingSettings.of(share="30%", seed=1)))
    assert len(fit) == 360 and not set(fit) & set(held) and seen == 0


def test_what_older_releases_do_not_say_of_a_chain_is_unknown() -> None:
    source = rows(1200)
    assert split(source, recorded("tokens", share="20%"), TrainingSettings())[2] is None
    fit, _, seen = split(source, recorded("tokens", limit=400), TrainingSettings())
    assert len(fit) == 400 and seen == 0, "limits are nested: that of all trainings is recorded"
