from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

from effx.data import Rows
from effx.errors import UsageError
from effx.manifests import RowDraw, TrainingRecord
from effx.specs.kinds import KINDS
from effx.specs.tasks import TASKS
from effx.specs.training import FinetuneSettings, TrainingSettings
from effx.train.rows import check_classes, chosen, draws_of, held_out, left_out, rows_digest, split


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


@pytest.mark.parametrize("kind", ["multi-label", "token-classification"])
def test_a_row_with_several_labels_is_enough(kind: str) -> None:
    labels = ("O", "B-a", "I-a", "B-b", "I-b")
    task = replace(TASKS["mnli"], kind=kind, labels=labels)
    check_classes(task, 1, TrainingSettings.of(limit=1))


def test_a_share_is_a_percentage_or_a_number_below_1() -> None:
    assert FinetuneSettings.of(share="0.1%").to_json()["share"] == "0.1%"
    assert FinetuneSettings.from_json({"share": "0.1%"}).training.share == 0.001
    assert FinetuneSettings.of(share="100%").replace(seed=2).training.share == 1.0
    for wrong, message in (("1", "could mean"), ("0", "expected more than 0"), (2, "could mean")):
        with pytest.raises(UsageError, match=message):
            FinetuneSettings.of(share=wrong)


def recorded(kind: Literal["finetune", "exits", "tokens"] = "finetune", **facts: Any) -> TrainingRecord:
    """The record of a checkpoint that was trained on a part of 1,200 rows."""
    settings = {name: facts.pop(name) for name in ("share", "seed", "patience") if name in facts}
    source = facts.pop("source_rows", None) or rows(1200)
    return TrainingRecord(
        kind=kind,
        regime="full",
        settings={"limit": facts.get("limit"), **settings},
        rows_digest=rows_digest(source),
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


def repeated(texts: int = 300, times: int = 4) -> Rows:
    """Every text several times, in a random order."""
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(texts), times))
    return Rows([(str(number),) for number in order], order % 2, "generated")


def texts_of(source: Rows, numbers: Iterable[int]) -> set[tuple[str, ...]]:
    return {source.texts[number] for number in numbers}


def test_equal_texts_are_held_out_together_and_count_as_seen() -> None:
    """700 rows of 1,200 are trained on; of 300 texts, few are not among them."""
    source = repeated()
    fit, held, seen = split(source, recorded(limit=700, source_rows=source), TrainingSettings())
    trained = texts_of(source, source.subset(700))
    unseen = [number for number in range(1200) if source.texts[number] not in trained]
    assert 0 < len(unseen) < 70, "else the rows are no test"
    assert set(unseen) < set(held)
    assert seen == sum(source.texts[number] in trained for number in held) == len(held) - len(unseen)
    assert not texts_of(source, held) & texts_of(source, fit)
    assert 60 <= len(held) <= 70 and len(fit) >= 620


def test_rows_without_equal_texts_are_drawn_one_by_one() -> None:
    """So that rows that older releases held out are held out again."""
    source = rows(1200)
    fit, held, _ = split(source, recorded(limit=400), TrainingSettings(seed=3))
    others = np.setdiff1d(np.arange(1200), source.subset(400))
    assert np.array_equal(held, np.sort(np.random.default_rng((3, 2)).permutation(others)[:500]))
    assert np.array_equal(fit, source.subset(400))
    expected = np.sort(np.random.default_rng((3, 1)).permutation(1200)[:120])
    assert np.array_equal(held_out(source, 3), expected)
    stopped = recorded(seed=3, held_out_rows=120, patience=1)
    for record in (stopped, stopped.model_copy(update={"held_out_in_groups": True})):
        assert np.array_equal(split(source, record, TrainingSettings())[1], expected)
    expected = np.sort(np.random.default_rng((3, 13)).permutation(others)[:90])
    assert np.array_equal(left_out(source, TrainingSettings(limit=400, seed=3), 90), expected)


def test_early_stopping_is_decided_on_texts_that_are_not_trained_on() -> None:
    source = repeated()
    held = held_out(source, 3)
    assert len(held) == 120
    assert not texts_of(source, held) & texts_of(source, np.setdiff1d(np.arange(1200), held))
    record = recorded(seed=3, held_out_rows=120, patience=1, source_rows=source)
    _, again, seen = split(source, record.model_copy(update={"held_out_in_groups": True}), TrainingSettings())
    assert np.array_equal(again, held) and seen == 0
    single = np.random.default_rng((3, 1)).permutation(1200)[:120]  # as older releases held them out
    trained = texts_of(source, np.setdiff1d(np.arange(1200), single))
    _, again, seen = split(source, record, TrainingSettings())
    assert seen == sum(source.texts[number] in trained for number in again) > 100
    with pytest.raises(UsageError, match="2 training rows with different texts, got 8 rows"):
        held_out(repeated(texts=1, times=8), 0)


def test_questions_about_one_context_are_held_out_together() -> None:
    source = Rows([(f"question {number}", f"context {number // 5}") for number in range(1000)],
                  np.zeros(1000, dtype=np.int64), "generated")  # fmt: skip
    group = KINDS["answer-span"].group
    fit, held, seen = split(source, recorded(limit=500, source_rows=source), TrainingSettings(), group=group)
    trained = {number // 5 for number in source.subset(500)}
    assert not {number // 5 for number in held} & {number // 5 for number in fit}
    assert seen == sum(number // 5 in trained for number in held) > 0
    part = held_out(source, 0, group)
    assert len(part) == 100 and len({number // 5 for number in part}) == 20


def test_rows_that_choose_have_other_texts_than_the_trained_ones_where_there_are_any() -> None:
    source, training = repeated(), TrainingSettings.of(share="40%")
    trained = texts_of(source, chosen(source, training))
    unseen = [number for number in range(1200) if source.texts[number] not in trained]
    assert 80 < len(unseen) < 300
    apart = left_out(source, training, 80)
    assert len(apart) == 80 and set(apart) < set(unseen)
    fit, held, _ = split(source, recorded(source_rows=source), training, apart)
    assert not texts_of(source, apart) & texts_of(source, [*fit, *held])
    most = left_out(source, training, 300)
    assert len(most) == 300 and set(unseen) < set(most)


def test_a_share_of_a_checkpoint_s_rows_is_drawn_within_its_limit() -> None:
    source, share = rows(1200), TrainingSettings.of(share="50%", seed=2)
    before = recorded(limit=300)
    fit, held, seen = split(source, before, share)
    assert np.array_equal(fit, chosen(source, TrainingSettings.of(limit=300, share="50%", seed=2)))
    assert len(fit) == 150 and set(fit) < set(source.subset(300))
    assert len(held) == 500 and not set(held) & set(source.subset(300)) and seen == 0
    assert draws_of(before, share) == (RowDraw(limit=300), RowDraw(limit=300, share=0.5, seed=2))
    fit, _, _ = split(source, before, share.replace(limit=100))
    assert len(fit) == 50
