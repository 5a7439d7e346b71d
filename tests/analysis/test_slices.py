"""What engines lose on parts of the rows: slices, tests, and what is flagged."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from effx import results, row_slices
from effx.analysis import batches, majority, slices
from effx.cli import run
from effx.errors import UsageError
from effx.report import payload
from effx.report import slices as tables
from effx.report.groups import group_runs
from effx.results import GateResult, RowGroups, Run
from effx.row_slices import Slice
from effx.specs.tasks import TASKS
from effx.stats import intervals
from tests.analysis.simulated_run import simulated_run

N = 1000


def engine(name: str, wrong: Iterable[int], n: int = N) -> Run:
    precision = "fp32" if name == "fp32" else "int8"
    return simulated_run(name, list(wrong), n=n, rounds=3, queries=1, precision=precision)


def test_a_planted_slice_is_found_and_only_that() -> None:
    rng = np.random.default_rng(0)
    wrong = rng.choice(N, 50, replace=False)
    planted = np.arange(0, N, 10)
    lost = np.union1d(wrong, planted[:40])  # 40 of its 100 rows
    parts = [Slice("label", "planted", planted), *(
        Slice("other", str(number), np.sort(rng.choice(N, 200, replace=False))) for number in range(5)
    )]  # fmt: skip
    report = slices.measure([engine("fp32", wrong), engine("int8", lost)], parts)
    assert [each.slice for each in report.losses if each.flagged] == ["label: planted"]
    found = report.losses[0]
    new = set(lost.tolist()) - set(wrong.tolist())
    assert found.loss == pytest.approx(len(new & set(planted.tolist())) / 100)
    assert found.excess == pytest.approx(found.loss - len(new - set(planted.tolist())) / 900)
    assert {row.row for row in report.lost} == new
    assert all("label: planted" in row.slices for row in report.lost)
    line = tables.lines(report)[0]
    assert (
        line.startswith("int8 loses more on label: planted (") and "points instead of 0.0 on 100 rows" in line
    )


def test_without_a_difference_at_most_5_percent_of_studies_flag_anything() -> None:
    """An engine that loses at random: any flag is wrong."""
    rng, studies, flagged = np.random.default_rng(1), 150, 0
    for _ in range(studies):
        wrong = rng.choice(400, 40, replace=False)
        worse = np.union1d(wrong, rng.choice(400, 40, replace=False))
        parts = [
            Slice("other", str(number), np.sort(rng.choice(400, 100, replace=False))) for number in range(6)
        ]
        report = slices.measure([engine("fp32", wrong, 400), engine("int8", worse, 400)], parts)
        flagged += any(each.flagged for each in report.losses)
    assert flagged / studies <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / studies)


def test_the_p_value_is_that_of_every_set_of_rows() -> None:
    losses = np.array([1.0, 0, 0, 1, -1, 0, 0, 0, 1, 0])
    inside = np.zeros(10, dtype=bool)
    inside[[0, 3, 5]] = True
    sums = [losses[list(part)].sum() for part in itertools.combinations(range(10), 3)]
    exact = np.mean(np.array(sums) >= losses[inside].sum())
    assert slices.p_values(losses, [np.flatnonzero(inside)])[0] == pytest.approx(exact, abs=0.015)
    spread = losses + np.arange(10) / 100  # all different: sets are drawn row by row
    sums = [spread[list(part)].sum() for part in itertools.combinations(range(10), 3)]
    exact = np.mean(np.array(sums) >= spread[inside].sum() - 1e-12)
    assert slices.p_values(spread, [np.flatnonzero(inside)])[0] == pytest.approx(exact, abs=0.015)
    assert slices.p_values(np.zeros(10), [np.arange(3)] * 2) == [1.0, 1.0]


def test_one_slice_can_be_shown_among_any_number() -> None:
    lost = np.arange(40)
    parts = [Slice("label", "planted", lost)]
    parts += [Slice("class", str(number), np.arange(40 + number, 1000 - number)) for number in range(400)]
    runs = [engine("fp32", []), engine("a", lost), engine("b", [])]
    report = slices.measure(runs, parts)
    assert [(each.engine, each.slice) for each in report.losses if each.flagged] == [("a", "label: planted")]


def test_losses_have_tangos_interval() -> None:
    wrong = np.arange(30)
    part = Slice("label", "a", np.arange(0, N, 4))
    report = slices.measure([engine("fp32", wrong), engine("int8", np.arange(60))], [part])
    before, after = (np.isin(part.rows, rows, invert=True) for rows in (wrong, np.arange(60)))
    low, high = intervals.paired_accuracy_interval(before, after)
    assert report.losses[0].interval == pytest.approx((-high, -low))
    assert report.losses[0].before == pytest.approx(before.mean())


def test_small_slices_are_left_out_and_one_engine_is_refused() -> None:
    parts = [
        Slice("a", "few", np.arange(19)),
        Slice("a", "all", np.arange(N)),
        Slice("a", "b", np.arange(20)),
    ]
    report = slices.measure([engine("fp32", []), engine("int8", range(5))], parts)
    assert [each.name for each in report.slices] == ["b"]
    with pytest.raises(UsageError, match="only fp32 was measured: expected at least two engines"):
        slices.measure([engine("fp32", [])], parts)


GATE = GateResult("prediction-agreement", False, "700 of 1000 timed predictions differ", None)


def test_an_engine_whose_quality_was_withdrawn_is_left_out() -> None:
    """It has no scores, and the tests of the others are not adjusted for it."""
    planted = np.arange(0, N, 10)
    parts = [Slice("label", "planted", planted)]
    base, able = engine("fp32", []), engine("int8", planted[:6])
    bad = replace(engine("bad", range(600)), gates=[GATE])
    alone, report = slices.measure([base, able], parts), slices.measure([base, able, bad], parts)
    assert (report.losses, report.lost) == (alone.losses, alone.lost)
    assert [each.engine for each in report.left_out] == ["bad"] and alone.left_out == ()
    told = (
        "bad is left out: its quality is unavailable: gate failed: timed predictions match the accuracy pass"
    )
    assert told in tables.table(report).markdown() and told in (tables.section(report).text or "")
    assert tables.to_json(report)["left_out"][0]["engine"] == "bad"
    with pytest.raises(
        UsageError, match="only fp32 can be compared: .*The quality of bad is unavailable: gate"
    ):
        slices.measure([base, bad], parts)


def test_a_baseline_whose_quality_was_withdrawn_is_refused() -> None:
    parts = [Slice("label", "a", np.arange(0, N, 10))]
    base, others = replace(engine("fp32", []), gates=[GATE]), [engine("int8", []), engine("b", range(9))]
    for named in (None, base):
        with pytest.raises(UsageError, match="the baseline fp32: its quality is unavailable") as error:
            slices.measure([base, *others], parts, named)
        assert error.value.settings == ("baseline",)
    assert slices.of_results([with_groups(run, parts) for run in others], with_groups(base, parts)) is None
    assert slices.measure([base, *others], parts, others[0]).baseline == "int8"


def test_remarks_tell_no_score_that_was_withdrawn() -> None:
    constant = engine("int8", range(1, N, 2))  # as good as one class for all rows
    constant = replace(constant, quality=replace(constant.quality, batch_dependent=True))
    failed = replace(constant, gates=[GATE])
    for told in (majority.remark, batches.remark):
        assert "0.5000" in str(told(constant))
        assert told(failed) is None
    flags = payload.payload("now", [failed], group_runs([failed]), ([], []), [], [])["columns"]["flags"]
    assert not [flag for flag in flags[0] if "0.5000" in flag]


def test_slices_of_texts() -> None:
    texts = [("a good film",), ("It isn't good, at all",), ("nobody liked it",), ("notable knots",)] * 10
    training = [("a good film it isn t at all nobody liked notable",)] * 3
    found = {each.title: each.rows for each in row_slices.of_texts(texts, training, pairs=False)}
    assert found["negation: yes"].tolist() == [index for index in range(40) if index % 4 in (1, 2)]
    assert found["rare words: fewer than 3 times in the training rows"].tolist() == list(range(3, 40, 4))
    by_words = [rows for title, rows in found.items() if title.startswith("words: ")]
    assert sorted(np.concatenate(by_words).tolist()) == list(range(40))
    assert found["words: 2 to 2"].tolist() == list(range(3, 40, 4))
    pairs = [("a b c", "a b"), ("a b c", "x y"), ("", "")] * 10
    overlap = {each.title: len(each.rows) for each in row_slices.of_texts(pairs, [], pairs=True)}
    assert overlap["overlap: 1 to 1"] == 10 and overlap["overlap: 0 to 0"] == 20
    assert not any(title.startswith("rare") for title in overlap)


def test_columns_are_values_or_quartiles_of_numbers() -> None:
    of_values = row_slices.of_column("country", ["de", "at", "de", "ch"])
    assert [(each.title, each.rows.tolist()) for each in of_values] == [
        ("country: at", [1]), ("country: ch", [3]), ("country: de", [0, 2])
    ]  # fmt: skip
    numbers = row_slices.of_column("age", [str(value) for value in range(100)])
    assert [len(each.rows) for each in numbers] == [25, 25, 25, 25]
    assert numbers[0].title == "age: 0 to 24"
    words = row_slices.of_column("id", [f"x{value}" for value in range(100)])
    assert len(words) == 20
    years = row_slices.of_column("year", [str(1990 + value % 40) for value in range(200)] + ["", " "])
    names = ["1990 to 1999", "2000 to 2009", "2010 to 2019", "2020 to 2029", "missing"]
    assert [each.name for each in years] == names
    assert years[-1].rows.tolist() == [200, 201]
    close = row_slices.of_column("share", [f"{0.5 + value / 1e6:.6f}" for value in range(100)])
    assert len({each.name for each in close}) == 4


def test_the_tables_hold_every_loss(tmp_path: object) -> None:
    report = slices.measure(
        [engine("fp32", []), engine("int8", range(20, 60)), engine("small", range(100))],
        [Slice("label", "a", np.arange(20, 60)), Slice("label", "b", np.arange(500, 700))],
    )
    sheet = tables.table(report)
    assert len(sheet.rows) == 4
    flagged = [row for row in sheet.rows if row[-1] == "yes"]
    assert sheet.rows[: len(flagged)] == tuple(flagged)
    assert flagged[0][:3] == ("int8", "label: a", 40)
    section = tables.section(report)
    assert section.title == "Who is lost: sst2" and len(section.tables[0].rows) == 4


def with_groups(run: Run, parts: list[Slice]) -> Run:
    return replace(run, quality=replace(run.quality, groups=RowGroups.of(parts, run.quality.n)))


def test_groups_of_rows_in_a_result_are_the_slices() -> None:
    texts = [("not good",), ("a b c d e",), ("fine",), ("never one two",)]
    labels = np.array([0, 1, 1, 0])
    found = row_slices.of_task(texts, labels, TASKS["sst2"])
    groups = RowGroups.of(found, 4)
    assert [each.group for each in groups] == ["label", "words", "negation"]
    back = [part for each in groups for part in each.slices()]
    assert [(part.title, part.rows.tolist()) for part in back] == [
        (part.title, part.rows.tolist()) for part in found
    ]
    assert groups[0].names == list(TASKS["sst2"].labels) and groups[0].of_rows == [0, 1, 1, 0]
    assert groups[2].of_rows == [0, -1, -1, 0]
    without = row_slices.of_task(texts, None, TASKS["sst2"])
    assert {part.group for part in without} == {"words", "negation"}


@pytest.mark.parametrize("planted", [True, False])
def test_compare_recommend_and_report_name_a_slice_that_loses_more(
    planted: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(3)
    wrong = rng.choice(N, 50, replace=False)
    rows = np.arange(0, N, 10)
    lost = rows[:30] if planted else rng.choice(N, 30, replace=False)
    parts = [Slice("negation", "yes", rows)]
    smaller = engine("int8", np.union1d(wrong, lost))
    smaller = replace(smaller, engine=replace(smaller.engine, size_bytes=1_000))
    for one in (engine("fp32", wrong), smaller):
        results.save(with_groups(one, parts), tmp_path / "results")
    folder = str(tmp_path / "results")
    assert run(["compare", "fp32", "int8", folder]) == 0
    compared = capsys.readouterr().out
    assert run(["recommend", folder, "--objective", "size", "--max-drop", "0.1"]) == 0
    recommended = capsys.readouterr().out
    assert run(["report", folder, "-o", str(tmp_path / "page")]) == 0
    shown = (tmp_path / "page" / "index.html").read_text()
    told = "int8 loses more than on the other rows on negation: yes ("
    assert (told in compared, "Who is lost: sst2" in shown) == (planted, planted)
    assert ("deploy int8" in recommended) and (told in recommended) == planted


def test_a_choice_among_many_is_tested_for_all_of_them() -> None:
    rng = np.random.default_rng(5)
    wrong = rng.choice(N, 50, replace=False)
    part = Slice("negation", "yes", np.arange(0, N, 10))
    runs = [engine("fp32", wrong), engine("int8", np.union1d(wrong, part.rows[:18]))]
    alone, among = (slices.measure(runs, [part], chosen_from=count).losses[0] for count in (1, 50))
    assert among.p == pytest.approx(alone.p, abs=2e-4)
    assert among.p_adjusted == pytest.approx(min(1.0, 50 * among.p))


def test_an_engine_that_only_gains_is_not_said_to_lose() -> None:
    rng = np.random.default_rng(7)
    part = Slice("negation", "yes", np.arange(0, N, 5))
    outside = np.setdiff1d(np.arange(N), part.rows)
    wrong = rng.choice(outside, 300, replace=False)
    runs = [with_groups(one, [part]) for one in (engine("fp32", wrong), engine("int8", []))]
    report = slices.of_results([runs[1]], runs[0])
    assert report is not None and report.losses[0].flagged and report.losses[0].loss == 0
    assert slices.remarks(report, "int8") == []
    assert "loses more, or gains less, on negation" in tables.lines(report)[0]


def test_few_rows_have_no_slices() -> None:
    """Of losses with many values too, as those of numbers."""
    assert slices.p_values(np.linspace(0, 1, 30), []) == []
    small = [with_groups(engine(name, [], 60), [Slice("label", "a", np.arange(10))])
             for name in ("fp32", "int8")]  # fmt: skip
    assert slices.of_results(small, small[0]) is None
    assert slices.measure(small, [Slice("label", "a", np.arange(10))]).losses == ()


def test_groups_that_do_not_fit_the_rows_are_refused() -> None:
    one = with_groups(engine("fp32", []), [Slice("negation", "yes", np.arange(30))])
    results.check(one)
    for numbers in ([0] * (N - 1), [1] * N, [-2] * N):
        groups = [RowGroups("negation", ["yes"], numbers)]
        with pytest.raises(ValueError, match="expected 1000 numbers from -1 to 0 for negation"):
            results.check(replace(one, quality=replace(one.quality, groups=groups)))
