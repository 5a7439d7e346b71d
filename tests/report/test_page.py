"""The page in a real Chromium, opened as a file; the tests check what a person sees."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effx import formatting, results
from effx.analysis.baseline import baseline_of
from effx.analysis.comparison import compare
from effx.report import report
from effx.specs.workloads import SINGLE_STREAM
from tests.analysis import simulated_results
from tests.report import browser
from tests.report.test_report import timed_on_device

pytestmark = pytest.mark.skipif(
    browser.executable() is None, reason="no chromium on the path, and EFFX_CHROMIUM names none"
)
HOSTILE = 'demo-<img src=x onerror="window.hurt=1">&amp;<!--.fp32.onnxruntime'
DIED = 'it died </script><img src=x onerror="window.hurt=1">'  # names cannot contain a slash
ENGINES = 20
TABLE = "section[aria-labelledby=engines]"
CHART = "section[aria-labelledby=frontier]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on two hosts, one with a meter; the name of one engine contains markup."""
    scratch = tmp_path_factory.mktemp("page")
    runs = [simulated_results.run(number, rounds=5, queries=40) for number in range(ENGINES)]
    runs += [
        simulated_results.run(number, rounds=5, queries=40, on=1, metered="none") for number in range(10)
    ]
    runs.append(simulated_results.run(24, rounds=5, queries=40, name=HOSTILE))
    simulated_results.write(runs, scratch / "results")
    failed = results.Failure(
        "failed-1",
        "2026-11-21T00:00:00+00:00",
        results.FailedEngineRecord("demo-dead"),
        simulated_results.host(),
        "s",
        DIED,
    )
    results.save(failed, scratch / "results")
    (scratch / "results/sections").mkdir()
    (scratch / "results/sections/tickets.json").write_text(json.dumps(SECTION))
    return report([scratch / "results"])[1]


SECTION = {
    "schema": 1,
    "title": "Tickets",
    "charts": [
        {
            "title": "Accuracy by level",
            "interval": "one standard deviation",
            "x": {"label": "weights left", "unit": "%"},
            "y": {"label": "accuracy"},
            "series": [
                {
                    "name": "winning",
                    "points": [{"x": 20, "y": 0.8, "low": 0.78, "high": 0.82}, {"x": 60, "y": 0.9}],
                }
            ],
        }
    ],
    "maps": [
        {"title": "Importance", "rows": ["1", "2"], "columns": ["a", "b"], "values": [[0.1, 0.9], [None, 0]]}
    ],
}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.launch() as chromium_:
        yield chromium_


@pytest.fixture
def tab(chromium: Any, folder: Path) -> Iterator[Any]:
    yield from _open(chromium, folder, viewport={"width": 1280, "height": 900}, color_scheme="light")


def _open(chromium: Any, folder: Path, **options: Any) -> Iterator[Any]:
    """Open the page; afterwards check that there were no requests and no messages on the console."""
    context = chromium.new_context(**options)
    page = context.new_page()
    console_messages: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: console_messages.append(message.text))
    page.on("pageerror", lambda error: console_messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((folder / "index.html").as_uri())
    page.wait_for_selector("#hosts")
    yield page
    assert console_messages == []
    assert requests == [(folder / "index.html").as_uri()]
    context.close()


def _until(page: Any, condition: str) -> None:
    """Wait for a condition; the page's content security policy forbids Playwright's wait_for_function."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    raise AssertionError(condition)


def _names(page: Any) -> list[str]:
    return page.eval_on_selector_all(f"{TABLE} tbody th", "cells => cells.map(cell => cell.textContent)")


def _point(page: Any, engine: str) -> dict[str, float]:
    """Return the position of an engine of the first host in the frontier chart."""
    return page.evaluate(
        """name => { const data = JSON.parse(document.getElementById('data').textContent);
        const {name: names, host} = data.columns;
        const row = names.findIndex((other, index) => other === name && host[index].startsWith('host0'));
        const point = document.querySelector(`.point[data-row="${row}"]`);
        point.closest('.chart').scrollIntoView({block: 'center'});
        const box = point.getBoundingClientRect();
        return {x: box.x + box.width / 2, y: box.y + box.height / 2}; }""",
        engine,
    )


def _best(folder: Path) -> list[str]:
    content = json.loads((folder / "frontier.json").read_text())
    (latency,) = [
        frontier for frontier in content["frontiers"]
        if frontier["objectives"] == ["quality", "latency"] and frontier["host"].startswith("host0")
    ]  # fmt: skip
    return [point["engine"] for point in latency["points"] if point["non_dominated"]]


def test_hovering_a_point_shows_the_details_of_its_engine(tab: Any, folder: Path) -> None:
    runs = {run.name: run for run in results.find([folder.parent]) if run.host_id.startswith("host0")}
    for name in _best(folder):
        position = _point(tab, name)
        tab.mouse.move(position["x"], position["y"])
        text = tab.inner_text(f"{CHART} .panel")
        run = runs[name]
        single = run.workload(SINGLE_STREAM)
        assert single is not None and single.energy.joules_per_example is not None
        for expected in (
            name, f"{run.quality.value:.4f}", f"n = {run.quality.n}", run.engine.variant, "onnxruntime",
            f"{1e3 * single.latency_s['p50']:#.3g} ms", "source: counter", "on the frontier",
            "P(frontier) = ",
            f"{run.engine.size_bytes / 2**20:#.3g} MiB",
        ):  # fmt: skip
            assert expected in text, expected
        tab.click(f"{CHART} .panel summary")
        provenance = tab.inner_text(f"{CHART} .panel .provenance")
        assert f"{run.id}.json" in provenance
        assert run.engine.digest in provenance
        assert run.engine.checkpoint.digest in provenance


def test_host_overhead_is_shown(chromium: Any, tmp_path: Path) -> None:
    gpu = timed_on_device(simulated_results.run(8, rounds=5, queries=40), 0.62)
    cpu = simulated_results.run(0, rounds=5, queries=40)
    simulated_results.write([cpu, gpu], tmp_path / "results")
    for page in _open(chromium, report([tmp_path / "results"])[1]):
        texts = []
        for run in (gpu, cpu):
            page.locator(TABLE).get_by_role("button", name=run.name, exact=True).click()
            texts.append(page.locator(f"{TABLE} .panel").inner_text())
            assert "source: counter" in texts[-1]
        assert "Host overhead: 62 % of the time of a single query is not spent on the device." in texts[0]
        for timing in ("end-to-end", "device"):
            single = gpu.workload(replace(SINGLE_STREAM, timing=timing))
            assert single is not None
            line = texts[0].split(f"single queries, {timing}, ms")[1].split("samples")[0]
            assert f"p50 {1e3 * single.latency_s['p50']:#.3g}, p90" in line and line.endswith("; 200 ")
        assert "Host overhead" not in texts[1] and "single queries, " not in texts[1]


def test_failed_gates_and_failures_are_listed(tab: Any) -> None:
    position = _point(tab, "demo-e00003.seq32+int8.onnxruntime")
    tab.mouse.move(position["x"], position["y"])
    assert "failed: host otherwise idle: other processes took 12.0%" in tab.inner_text(".panel .failed")
    doubts = tab.inner_text("section[aria-labelledby=limitations]")
    assert "demo-dead" in doubts and DIED in doubts
    assert "no counters here" in doubts


def test_columns_sort_in_both_directions(tab: Any, folder: Path) -> None:
    runs = {(run.name, run.host_id): run for run in results.find([folder.parent])}
    by_latency = sorted(runs.values(), key=lambda run: run.workloads[0].latency_s["p50"] or 0.0)
    button = tab.get_by_role("region", name="All results").get_by_role("button", name="p50, ms")
    button.click()
    assert _names(tab) == [run.name for run in by_latency][:25]
    head = tab.locator(f"{TABLE} th", has_text="p50, ms")
    assert head.get_attribute("aria-sort") == "ascending"
    tab.keyboard.press("Enter")  # the button keeps the focus
    assert head.get_attribute("aria-sort") == "descending"
    assert _names(tab) == [run.name for run in reversed(by_latency)][:25]
    tab.get_by_role("button", name="Next").first.click()
    assert _names(tab) == [run.name for run in reversed(by_latency)][25:]


def test_rows_are_filtered_by_text_and_technique(tab: Any, folder: Path) -> None:
    tab.fill(f"{TABLE} input[type=search]", "demo TOKENS+int8")
    _until(
        tab,
        f"document.querySelector('{TABLE} .status').textContent.includes('of 31 rows')",
    )
    shown = _names(tab)
    assert shown and all("tokens+int8" in name for name in shown)
    tab.fill(f"{TABLE} input[type=search]", "no such engine")
    tab.wait_for_selector("text=No row matches the filter.")
    tab.fill(f"{TABLE} input[type=search]", "")
    tab.get_by_label("Reduction", exact=True).select_option("length")
    _until(
        tab,
        f"document.querySelector('{TABLE} tbody th')?.textContent.includes('seq')",
    )
    expected = [run.name for run in results.find([folder.parent]) if "seq" in run.engine.variant]
    assert sorted(_names(tab)) == sorted(expected)


def test_two_pinned_engines_show_their_paired_comparison(tab: Any, folder: Path) -> None:
    runs = {run.name: run for run in results.find([folder.parent]) if run.host_id.startswith("host0")}
    base = _best(folder)[0]
    other = next(name for name in runs if name.endswith(".fp32.onnxruntime") and name != base)
    for name in (base, other):
        position = _point(tab, name)
        tab.mouse.click(position["x"], position["y"])
    panel = tab.inner_text(".pinned-panel")
    assert any(compare(runs[a], runs[b]).sentence() in panel for a, b in ((base, other), (other, base)))
    assert "McNemar" in panel and "energy per example (source: counter)" in panel
    tab.get_by_role("button", name=f"Unpin {base}").click()
    assert "Pin a second engine" in tab.inner_text(".pinned-panel")


def test_p_values_against_the_baseline_are_shown_with_adjustment(tab: Any, folder: Path) -> None:
    runs = [run for run in results.find([folder.parent]) if run.host_id.startswith("host0")]
    base = baseline_of(runs)
    by_loss = sorted((run for run in runs if run is not base), key=lambda run: run.quality.value)
    for pinned, adjusted in (((base, by_loss[0]), True), (by_loss[:2], False)):
        for run in pinned:
            position = _point(tab, run.name)
            tab.mouse.click(position["x"], position["y"])
        panel = tab.inner_text(".pinned-panel")
        p = compare(*pinned).p_value
        assert p is not None and f"McNemar: {formatting.p_value(p)}" in panel
        both = re.search(r"McNemar: p = (\S+), p = (\S+) adjusted for all comparisons with the base", panel)
        assert (both is not None) == adjusted
        if both is not None:
            assert float(both[1]) < float(both[2]) <= 1
        for run in pinned:
            tab.get_by_role("button", name=f"Unpin {run.name}").click()


def test_engines_of_two_hosts_are_not_compared(tab: Any) -> None:
    tab.fill(f"{TABLE} input[type=search]", "e00000.fp32")
    _until(tab, f"document.querySelectorAll('{TABLE} tbody tr').length === 2")
    for _ in range(2):
        tab.locator(f"{TABLE} button.pin[aria-pressed=false]").first.click()
    assert "different hosts, so they cannot be paired" in tab.inner_text(".pinned-panel")


def test_the_keyboard_selects_and_pins_points(tab: Any) -> None:
    tab.focus(f"{CHART} .chart")
    tab.keyboard.press("Home")
    first = tab.inner_text(f"{CHART} .panel h3")
    tab.keyboard.press("Enter")
    tab.keyboard.press("ArrowRight")
    second = tab.inner_text(f"{CHART} .panel h3")
    assert first != second
    tab.keyboard.press("Enter")
    pins = tab.inner_text(".pinned-panel .pins")
    assert first in pins and second in pins
    assert "compared" in tab.inner_text("#live")


def test_every_control_has_a_name_and_a_visible_focus(tab: Any) -> None:
    unnamed = tab.evaluate(
        """() => [...document.querySelectorAll('button, select, input, [tabindex="0"]')].filter(node =>
        !node.textContent.trim() && !node.getAttribute('aria-label') && !node.labels?.length).length"""
    )
    assert unnamed == 0
    for _ in range(12):
        tab.keyboard.press("Tab")
        width = tab.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)")
        assert width >= 2, tab.evaluate("document.activeElement.outerHTML")


def test_axes_can_be_chosen_and_have_unit_n_and_source(tab: Any) -> None:
    tab.get_by_label("x axis", exact=True).select_option("energy")
    texts = tab.text_content(f"{CHART} .chart svg")
    label = tab.get_attribute(f"{CHART} .chart", "aria-label")
    assert "n = 200" in label and "mJ/example" in label and "source: counter" in label
    assert "mJ/example" in texts
    before = tab.eval_on_selector_all(".axes text", "all => all.map(text => text.textContent).join()")
    tab.get_by_label("logarithmic x axis").check()
    after = tab.eval_on_selector_all(".axes text", "all => all.map(text => text.textContent).join()")
    assert before != after and ", logarithmic" in after
    tab.get_by_label("y axis", exact=True).select_option("size")
    assert "size on disk, MiB" in tab.get_attribute(f"{CHART} .chart", "aria-label")


def test_markup_in_a_name_is_shown_as_text(tab: Any) -> None:
    assert tab.evaluate("window.hurt") is None
    tab.fill(f"{TABLE} input[type=search]", "onerror")
    _until(tab, f"document.querySelectorAll('{TABLE} tbody tr').length === 1")
    assert _names(tab) == [HOSTILE]
    assert tab.locator("img").count() == 0


def test_hosts_are_compared_by_ranks(tab: Any, folder: Path) -> None:
    text = tab.inner_text("section[aria-labelledby=hosts]")
    assert "among the 10 engines measured on every host" in text
    runs = [run for run in results.find([folder.parent]) if int(run.id.split(".")[1][:5]) < 10]
    order = {
        host: sorted(
            (run for run in runs if run.host_id.startswith(host)),
            key=lambda run: run.workloads[0].latency_s["p50"] or 0,
        )
        for host in ("host0", "host1")
    }
    ranks = {
        host: {run.name: rank for rank, run in enumerate(sorted_runs, 1)}
        for host, sorted_runs in order.items()
    }
    moved = {name: ranks["host0"][name] - ranks["host1"][name] for name in ranks["host0"]}
    assert any(moved.values())  # else the test would show nothing
    for row in tab.locator("section[aria-labelledby=hosts] tbody tr").all():
        cells = row.locator("th, td").all_inner_texts()
        name = cells[0].strip()
        arrow = f" ▲{moved[name]}" if moved[name] > 0 else f" ▼{-moved[name]}" if moved[name] < 0 else ""
        assert cells[2] == str(ranks["host0"][name])
        assert cells[4] == f"{ranks['host1'][name]}{arrow}"


def test_the_grid_shows_the_paired_ratios(tab: Any, folder: Path) -> None:
    runs = {run.name: run for run in results.find([folder.parent]) if run.host_id.startswith("host0")}
    baseline = max(
        (run for run in runs.values() if (run.engine.variant, run.engine.weight_remaining) == ("fp32", 1)),
        key=lambda run: run.quality.value,
    )
    figure = tab.locator(".heat", has_text="demo-e00001.int8.onnxruntime")
    expected = next(
        one for one in compare(baseline, runs["demo-e00001.int8.onnxruntime"]).latency
        if (one.scenario, one.batch, one.length, one.statistic) == ("grid", 8, 32, "p50")
    )  # fmt: skip
    assert expected.interval is not None and expected.interval[1] < 1
    assert (
        figure.locator("tbody tr").nth(1).locator("td").first.inner_text()
        == f"{formatting.times(expected.value)}x ▼"
    )


def test_further_sections_are_drawn(tab: Any) -> None:
    section = tab.locator("section", has=tab.get_by_role("heading", name="Tickets"))
    assert section.locator(".chart .point").count() == 2
    assert "one standard deviation" in section.inner_text()
    assert section.locator("table.map td").all_inner_texts() == ["0.100", "0.900", "–", "0"]


def test_the_page_formats_numbers_as_python_does(chromium: Any) -> None:
    rng = np.random.default_rng(0)
    values = [*(10 ** rng.uniform(-7, 9, 400)), *rng.integers(-2000, 2000, 200) / 8, 0.0, 999.5, 9.995, 1e7]
    values = [float(value) for value in values]
    expected = {
        "significant": [formatting.significant(value) for value in values],
        "fixed": [formatting.fixed(value, 2) for value in values],
        "percent": [formatting.percent(value % 1) for value in values],
        "percentagePoints": [formatting.points(value % 2 - 1) for value in values],
        "pValue": [formatting.p_value(value % 1) for value in values],
        "ratioNumber": [formatting.times(abs(value)) for value in values],
        **{f"inColumn {unit}": [formatting.in_column(value, unit) for value in values]
           for unit in formatting.UNITS},
    }  # fmt: skip
    units = json.dumps({unit: [entry.factor, entry.symbol] for unit, entry in formatting.UNITS.items()})
    script = (resources.files("effx.report") / "assets" / "base.js").read_text()
    page = chromium.new_page()
    shown = page.evaluate(
        f"""values => {{ const DATA = {{units: {units}}}; {script}
        const python = (value, modulus) => ((value % modulus) + modulus) % modulus;
        const result = {{
          significant: values.map((value) => significant(value)),
          fixed: values.map((value) => fixed(value, 2)),
          percent: values.map((value) => percent(python(value, 1))),
          percentagePoints: values.map((value) => percentagePoints(python(value, 2) - 1)),
          pValue: values.map((value) => pValue(python(value, 1))),
          ratioNumber: values.map((value) => ratioNumber(Math.abs(value))) }};
        for (const unit of Object.keys(DATA.units)) {{
          result[`inColumn ${{unit}}`] = values.map((value) => inColumn(value, unit)); }}
        return result; }}""",
        values,
    )
    page.close()
    for name, texts in expected.items():
        differing = [pair for pair in zip(values, texts, shown[name], strict=True) if pair[1] != pair[2]]
        assert not differing, (name, differing[:5])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_schemes(chromium: Any, folder: Path, scheme: str) -> None:
    for page in _open(chromium, folder, viewport={"width": 1280, "height": 900}, color_scheme=scheme):
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (_luminance(background) > 0.5) == (scheme == "light")
        pairs = page.evaluate(CONTRAST)
        assert len(pairs) > 10
        for text, back, sample in pairs:
            assert _contrast(text, back) >= 4.5, (text, back, sample)
        page.click("#theme")
        other = page.evaluate("document.documentElement.dataset.theme")
        assert other == "light"
        assert _luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) > 0.5


CONTRAST = """() => { const pairs = new Map();
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || element.disabled) continue;
  if (element.closest('.hidden, svg, script, style, noscript, option')) continue;
  let at = element, back = 'rgba(0, 0, 0, 0)';
  while (at && /, 0\\)$|transparent/.test(back)) {
    back = getComputedStyle(at).backgroundColor;
    at = at.parentElement;
  }
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  canvas.fillStyle = back; canvas.fillRect(0, 0, 1, 1);
  const pixel = canvas.getImageData(0, 0, 1, 1).data;
  back = `rgb(${pixel[0]}, ${pixel[1]}, ${pixel[2]})`;
  const text = getComputedStyle(element).color;
  pairs.set(text + back, [text, back, walker.currentNode.textContent.slice(0, 40)]);
}
return [...pairs.values()]; }"""


def _luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    shares = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_on_a_phone_the_page_scrolls_vertically_only(chromium: Any, folder: Path) -> None:
    for page in _open(
        chromium, folder, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True
    ):
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        position = _point(page, _best(folder)[0])
        page.touchscreen.tap(position["x"], position["y"])
        assert _best(folder)[0] in page.inner_text(".pinned-panel")
        page.locator(f"{TABLE} button.link").first.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
