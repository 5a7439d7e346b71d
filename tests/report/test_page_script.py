"""The page's script in Node.js: what is compared, drawn, ranked and sorted, from the page's data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from effx.report.comparisons import compare_groups
from effx.report.groups import group_runs
from effx.report.payload import payload
from effx.report.sections import Section, SectionColumn, SectionTable
from effx.report.sheets import NumberText, Sheet, SheetColumn
from effx.results import ReferenceEngine, Run
from tests.analysis.simulated_run import simulated_run
from tests.report import script

pytestmark = pytest.mark.skipif(script.NODE is None, reason="no node on the path")
RAPL, NVML, MODEL = ("counter", "rapl"), ("counter", "nvml"), ("model", "model:5")
Meter = tuple[str, str]
MIXED = "Energies from different sources or meters cannot be compared"
SHORT = 70
"""Queries per round, enough for p90."""


def pruned(name: str, share: float, joules: float, meter: Meter, host: str = "h", wrong: int = 22) -> Run:
    run = measured(name, joules, meter, host, seconds=0.01 * share, wrong=wrong)
    return replace(run, engine=replace(run.engine, weight_remaining=share))


def measured(
    name: str, joules: float, meter: Meter, host: str = "h", *, seconds: float = 0.01, wrong: int = 20
) -> Run:
    source, device = meter
    run = simulated_run(
        name, range(wrong), seconds, joules, precision="fp32", host=host, source=source, meter=device,
        queries=SHORT,
    )  # fmt: skip
    return replace(run, id=f"{host}-{run.id}")


def data(runs: Sequence[Run], sections: Sequence[Section] = ()) -> dict[str, Any]:
    groups = group_runs(runs)
    return payload("now", runs, groups, compare_groups(groups), [], sections)


def three_engines() -> list[Run]:
    return [
        measured("fp32", 0.02, RAPL),
        pruned("p80", 0.8, 0.017, RAPL),
        pruned("p60", 0.6, 0.01, RAPL, wrong=24),
    ]


@pytest.mark.parametrize("order", [("p80", "fp32"), ("fp32", "p80"), ("p80", "p60")])
def test_pinned_engines_have_one_letter_each_everywhere(order: tuple[str, str], tmp_path: Path) -> None:
    """In the list, at the buttons and in the chart the letters are those of the comparison."""
    seen = script.evaluate(
        data(three_engines()),
        tmp_path,
        f"""
        frontierSection(); enginesSection();
        const [first, second] = {list(order)}.map((name) => ROWS.find((row) => row.name === name));
        const chart = drawn('frontier').classed('chart')[0];
        const panel = drawn('frontier').classed('pinned-panel')[0];
        pin(rowWith(first, {{}})); // as the chart does: rows with the frontier's values
        const alone = panel.classed('pins')[0].textContent;
        pin(second);
        // a ring has the position of its point, whose letter is drawn to the right
        const letters = chart.classed('pin-name').map((node) => [node.textContent, node.attributes.x - 12]);
        const left = Object.fromEntries(letters.sort(([, one], [, other]) => one - other));
        return {{
            alone,
            buttons: rowsOf(drawn('engines').tagged('table')[0]).map((cells) => cells.slice(0, 2)),
            list: panel.classed('pins')[0].children.map((item) => item.textContent),
            caption: panel.tagged('caption')[0].textContent,
            sentence: panel.classed('sentence')[0].textContent,
            rings: Object.keys(left),
            spoken: document.getElementById('live').textContent,
        }};""",
    )
    a, b = (name for name in ("fp32", "p60", "p80") if name in order)
    assert seen["alone"].startswith(f"A {order[0]}")
    assert [item.replace("Unpin", "").split() for item in seen["list"]] == [["A", a], ["B", b]]
    assert f"A: {a}. B: {b}." in seen["caption"]
    assert seen["sentence"].startswith(f"Compared with {a}, {b} is")
    assert {name: letter for name, letter in seen["buttons"] if letter != "Pin"} == {a: "A", b: "B"}
    letters = {a: "A", b: "B"}
    assert seen["rings"] == [letters[name] for name in ("p60", "p80", "fp32") if name in order]  # by latency
    assert f"{a} and {b}" in seen["spoken"]


def test_a_third_pin_replaces_the_second(tmp_path: Path) -> None:
    """By the order of pinning, whatever the order of their comparison."""
    seen = script.evaluate(
        data(three_engines()),
        tmp_path,
        """
        frontierSection(); enginesSection();
        return ['p80', 'fp32', 'p60', 'p80', 'fp32'].map((name) => {
            pin(ROWS.find((row) => row.name === name)); return PINS.rows.map((row) => row.name);
        });""",
    )
    assert seen == [["p80"], ["fp32", "p80"], ["p60", "p80"], ["p60"], ["fp32", "p60"]]


def test_an_engine_pinned_in_the_chart_is_unpinned_in_the_table(tmp_path: Path) -> None:
    seen = script.evaluate(
        data([measured("fp32", 0.02, RAPL), pruned("p80", 0.8, 0.017, RAPL)]),
        tmp_path,
        """
        frontierSection(); enginesSection();
        pin(rowWith(ROWS[0], {})); const before = PINS.rows.length;
        pin(ROWS[0]); return [before, PINS.rows.length];""",
    )
    assert seen == [1, 0]


ENERGY_OF_LEVELS = """
    curvesSection();
    choose(drawn('reductions'), 'Cost', 'energy');
    const chart = drawn('reductions').classed('chart')[0];
    return {
        points: chart.classed('point').map((node) => ROWS[node.attributes['data-row']].name).sort(),
        lines: chart.classed('line').length, text: drawn('reductions').tagged('p')[0].textContent,
    };"""


@pytest.mark.parametrize(("base", "other", "drawn"), [
    (RAPL, RAPL, True),
    (RAPL, NVML, False),  # another meter of the same source
    (MODEL, RAPL, False),  # only the engine without a reduction is of another source
])  # fmt: skip
def test_levels_are_drawn_by_joules_of_one_meter(
    base: Meter, other: Meter, drawn: bool, tmp_path: Path
) -> None:
    runs = [
        measured("fp32", 0.02, base),
        pruned("p80", 0.8, 0.017, RAPL),
        pruned("p60", 0.6, 0.01, other, wrong=24),
    ]
    seen = script.evaluate(data(runs), tmp_path, ENERGY_OF_LEVELS)
    assert (MIXED in seen["text"]) == (not drawn)
    assert seen["points"] == (["fp32", "p60", "p80"] if drawn else [])
    assert seen["lines"] == (1 if drawn else 0)


@pytest.mark.parametrize(("other", "drawn"), [(RAPL, True), (NVML, False), (MODEL, False)])
def test_engines_without_a_frontier_are_drawn_by_joules_of_one_meter(
    other: Meter, drawn: bool, tmp_path: Path
) -> None:
    """There is no frontier of energy and latency p90, so no frontier chooses the engines of one meter."""
    runs = [measured("fp32", 0.02, RAPL), pruned("p80", 0.8, 0.017, other)]
    seen = script.evaluate(
        data(runs),
        tmp_path,
        """
        frontierSection();
        const section = drawn('frontier');
        choose(section, 'x axis', 'energy'); choose(section, 'y axis', 'latency_p90');
        const points = section.classed('chart')[0].classed('point');
        const names = points.map((node) => ROWS[node.attributes['data-row']].name);
        return { names: names.sort(), text: section.classed('about')[0].textContent };""",
    )
    assert seen["names"] == (["fp32", "p80"] if drawn else [])
    assert (MIXED in seen["text"]) == (not drawn)


HOSTS = """
    hostsSection();
    const section = drawn('hosts');
    choose(section, 'Objective', '%s');
    const text = section.classed('soft').map((node) => node.textContent).join(' ');
    return { rows: rowsOf(section.tagged('table')[0]), text };"""


def test_energies_are_ranked_within_one_meter(tmp_path: Path) -> None:
    runs = [
        measured("a", 0.03, RAPL, "h1"), measured("b", 0.02, RAPL, "h1"), measured("c", 0.001, MODEL, "h1"),
        measured("a", 0.01, NVML, "h2"), measured("b", 0.02, NVML, "h2"), measured("c", 0.03, NVML, "h2"),
    ]  # fmt: skip
    seen = script.evaluate(data(runs), tmp_path, HOSTS % "energy")
    ranks = {row[0].split()[0]: (row[2], row[4]) for row in seen["rows"]}
    assert ranks == {"a": ("2", "1 ▲1"), "b": ("1", "2 ▼1")}
    assert f"{MIXED}: 1 engine of other meters left out" in seen["text"]
    assert "counter (rapl) on h1; counter (nvml) on h2" in seen["text"]
    latency = script.evaluate(data(runs), tmp_path, HOSTS % "latency")
    assert len(latency["rows"]) == 3 and MIXED not in latency["text"]


def test_hosts_without_a_common_engine_have_no_energy_sources(tmp_path: Path) -> None:
    runs = [measured("a", 0.03, RAPL, "h1"), measured("c", 0.03, NVML, "h2")]
    seen = script.evaluate(data(runs), tmp_path, HOSTS % "energy")
    assert "among the 0 engines" in seen["text"] and "Energy sources" not in seen["text"]


@pytest.mark.parametrize(("texts", "references", "compared"), [
    (("a", "a"), (None, None), True),
    (("a", None), (None, None), True),  # texts that were not recorded differ from no other
    (("a", "b"), (None, None), False),
    (("a", "a"), ("d", "d"), True),
    (("a", "a"), ("d", "e"), False),
])  # fmt: skip
def test_scores_of_different_texts_are_not_ranked(
    texts: tuple[str | None, str | None], references: tuple[str | None, str | None], compared: bool,
    tmp_path: Path,
) -> None:  # fmt: skip
    runs = []
    for host, digest, reference in zip(("h1", "h2"), texts, references, strict=True):
        for number, name in enumerate(("fp32", "int8")):
            run = measured(name, 0.02, RAPL, host, wrong=20 + 4 * number)
            quality = replace(
                run.quality, texts_digest=None if digest is None else digest * 64,
                reference=None if reference is None else ReferenceEngine("r", reference * 64),
            )  # fmt: skip
            runs.append(replace(run, quality=quality))
    seen = script.evaluate(data(runs), tmp_path, HOSTS % "quality")
    assert ("Scored on other rows, and not compared: h2" in seen["text"]) == (not compared)
    assert {len(row) for row in seen["rows"]} == {5 if compared else 3}
    assert len(script.evaluate(data(runs), tmp_path, HOSTS % "latency")["rows"][0]) == 5


def test_tables_keep_their_order_and_sort_by_numbers(tmp_path: Path) -> None:
    """Missing values come last in both directions."""
    tested = Sheet(
        "t", "Tested", (SheetColumn("technique"), SheetColumn("p")),
        (("zeta", 0.4), ("alpha", None), ("beta", 0.001), ("gamma", 0.02)),
    )  # fmt: skip
    costs = Sheet(
        "c", "Costs", (SheetColumn("engine"), SheetColumn("training s", 0, signed=True), SheetColumn("pays")),
        (("a", 1234.0, NumberText("1,230 [900, never]", 1230.0)), ("b", 900.0, NumberText("no meter", None)),
         ("c", -5.0, NumberText("900, no interval", 900.0)), ("d", 20_000.0, "not known"), ("e", None, None)),
    )  # fmt: skip
    written = SectionTable("Written", [SectionColumn("x")], [[3.0], [None], [1.0], [2.0]])
    section = Section("S", 1, tables=[tested.section_table(), costs.printed_table(), written])
    seen = script.evaluate(
        data([], [section]),
        tmp_path,
        """
        extraSections();
        const sorted = (table, column) => {
            const sort = () => {
                table.tagged('button')[column].fire('click');
                return rowsOf(table).map((cells) => cells[0]);
            };
            return [sort(), sort()];
        };
        const tables = drawn('extra-1').tagged('table');
        const given = tables.map(rowsOf);
        const heads = tables.flatMap((table) => table.tagged('thead')[0].tagged('th'));
        return {
            given, states: heads.map((head) => head.attributes['aria-sort']),
            p: sorted(tables[0], 1), x: sorted(tables[2], 0),
            seconds: sorted(tables[1], 1), pays: sorted(tables[1], 2),
        };""",
    )
    assert [[row[0] for row in table] for table in seen["given"][:2]] == [
        ["zeta", "alpha", "beta", "gamma"],
        ["a", "b", "c", "d", "e"],
    ]
    assert set(seen["states"]) == {"none"}
    assert seen["given"][0][1] == ["alpha", "–"]
    assert [row[1] for row in seen["given"][1]] == ["+1234", "+900", "-5", "+20000", "–"]
    assert seen["p"] == [["beta", "gamma", "zeta", "alpha"], ["zeta", "gamma", "beta", "alpha"]]
    assert seen["seconds"] == [["c", "b", "a", "d", "e"], ["d", "a", "b", "c", "e"]]
    assert seen["pays"] == [["c", "a", "d", "b", "e"], ["a", "c", "d", "b", "e"]]  # texts after numbers
    assert seen["x"] == [["1", "2", "3", "–"], ["3", "2", "1", "–"]]


@pytest.mark.parametrize("log", [False, True])
def test_ticks_have_texts_that_say_their_values(log: bool, tmp_path: Path) -> None:
    ends = [
        (105e3, 148e3),
        (9e4, 1.5e5),
        (2e5, 9e5),
        (2.1e-4, 8.1e-4),
        (0.0, 3.0),
        (1e6, 1.0003e6),
        (0.9999, 1),
    ]
    ends += [(-2.2e5, 1.1e5), (1000.01, 1000.09), (1e-5, 3e6), (123_456.0, 123_456.0)]
    ends = [(low, high) for low, high in ends if not log or low > 0]
    axes = script.evaluate(
        data([]),
        tmp_path,
        f"""
        const ticksOf = (pair) => scale(pair, {str(log).lower()}, 62, 626).ticks;
        return {[list(pair) for pair in ends]}.map(ticksOf).map((ticks) => [ticks, tickTexts(ticks)]);""",
    )
    for ticks, texts in axes:
        assert len(ticks) > 1 and len(set(texts)) == len(texts) == len(ticks)
        least = min(b - a for a, b in zip(ticks, ticks[1:], strict=False))
        for tick, text in zip(ticks, texts, strict=True):
            assert float(text) == pytest.approx(tick, rel=1e-3, abs=least / 50)
            assert abs(float(text) - tick) <= least / 50
    assert set(axes[0][1]) >= {"1.1e+5", "1.2e+5", "1.3e+5"}


@pytest.mark.parametrize(("interval", "mark", "label"), [
    (None, "?", "no interval"),
    ([0.9, 1.1], "≈", "statistically indistinguishable"),
    ([0.5, 0.7], "▼", "faster"),
])  # fmt: skip
def test_marks_of_the_grid_say_whether_there_is_an_interval(
    interval: list[float] | None, mark: str, label: str, tmp_path: Path
) -> None:
    content = data([measured("fp32", 0.02, RAPL), pruned("p80", 0.8, 0.017, RAPL)])
    content["shapes"] = [[8, 32]]
    content["columns"]["grid"] = [[0.01], [0.008]]
    ratio = {"scenario": "grid", "batch": 8, "length": 32, "statistic": "p50", "value": 0.8, "paired": True}
    for pair in content["pairs"]:
        pair["latency"] = [{**ratio, "interval": interval}]
    seen = script.evaluate(
        content,
        tmp_path,
        """gridSection(); return drawn('grid').tagged('span').filter((node) => node.attributes['aria-label'])
        .map((node) => [node.textContent, node.attributes['aria-label']]);""",
    )
    assert seen == [[mark, label]]
