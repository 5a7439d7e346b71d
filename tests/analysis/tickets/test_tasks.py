from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from effx.analysis.tickets import searches, tasks
from effx.analysis.tickets.searches import TicketSearch
from effx.errors import UsageError
from effx.report.tickets import sections, sheets
from tests.analysis.tickets.made import workspace

SCORES = {
    "rte": ((0.60, 0.64, 0.61), (0.63, 0.65, 0.65), 2_490),
    "mrpc": ((0.80, 0.82, 0.79), (0.81, 0.81, 0.80), 3_668),
    "sst2": ((0.90, 0.91, 0.92), (0.905, 0.912, 0.915), 67_349),
}


def read(folder: Path) -> list[TicketSearch]:
    return [
        searches.read(workspace(folder / task, task, full, {"40": ticket}, level="40", rows=rows))
        for task, (full, ticket, rows) in SCORES.items()
    ]


def test_averages_and_tests_equal_independent_computations(tmp_path: Path) -> None:
    table = tasks.compare(read(tmp_path))
    assert table.full == pytest.approx(np.mean([np.mean(full) for full, _, _ in SCORES.values()]))
    assert table.super == pytest.approx(np.mean([np.mean(ticket) for _, ticket, _ in SCORES.values()]))
    assert table.weight_remaining == pytest.approx(0.8)
    p_values = [stats.ttest_rel(ticket, full).pvalue for full, ticket, _ in SCORES.values()]
    assert [result.test.p for result in table.tasks] == pytest.approx(p_values)
    holm = multipletests(p_values, method="holm")[1]
    assert [result.p_adjusted for result in table.tasks] == pytest.approx(holm)
    line = stats.linregress(
        [np.log10(rows) for _, _, rows in SCORES.values()],
        [np.mean(ticket) - np.mean(full) for full, ticket, _ in SCORES.values()],
    )
    assert table.gain_trend is not None and table.gain_trend.slope == pytest.approx(line.slope)
    half = stats.t.ppf(0.975, 1) * line.stderr
    assert table.gain_trend.high - table.gain_trend.low == pytest.approx(2 * half)


def test_several_encoders_have_no_average_and_are_named(tmp_path: Path) -> None:
    """Else a larger encoder on a larger task would look like a trend with the number of rows."""
    found = [
        replace(search, model=model) for search, model in zip(read(tmp_path), ("a", "b", "b"), strict=True)
    ]
    table = tasks.compare(found)
    assert (table.full, table.super, table.weight_remaining) == (None, None, None)
    assert (table.gain_trend, table.weight_trend) == (None, None)
    assert [table.label(result) for result in table.tasks] == ["rte, a", "mrpc, b", "sst2, b"]
    p_values = [stats.ttest_rel(ticket, full).pvalue for full, ticket, _ in SCORES.values()]
    assert [each.p_adjusted for each in table.tasks] == pytest.approx(
        multipletests(p_values, method="holm")[1]
    )
    first, *others = sheets.sheets(table, [], "40")
    assert [row[:2] for row in first.rows] == [("rte", "a"), ("mrpc", "b"), ("sst2", "b")]
    assert "The searches are of several encoders, a, b: there are no averages" in first.note
    assert all(sheet.columns[1].label == "model" for sheet in others)
    page = sections.section(table, [], [first])
    assert [each.name for each in page.charts[0].series] == ["rte, a", "mrpc, b", "sst2, b"]
    one = sheets.sheets(tasks.compare(read(tmp_path / "one")), [], "40")[0]
    assert one.rows[-1][0] == "average" and one.rows[0][:2] == ("rte", "tiny")


def test_two_tasks_have_no_trend(tmp_path: Path) -> None:
    assert tasks.compare(read(tmp_path)[:2]).gain_trend is None


def test_searches_that_cannot_be_in_one_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one workspace"):
        tasks.compare([])
    rte = read(tmp_path)[0]
    again = searches.read(workspace(tmp_path / "again", "rte", (0.6,), {"20": (0.6,)}, level="20"))
    with pytest.raises(UsageError, match="are both searches of rte, tiny"):
        tasks.compare([rte, again])
    none = searches.read(workspace(tmp_path / "none", "cola", (0.6,), {}, level=None))
    with pytest.raises(UsageError, match="no winning tickets were trained"):
        tasks.compare([none])
