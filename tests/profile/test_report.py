from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from effx import results
from effx.errors import ArtifactError, UsageError
from effx.profile.comparison import compare
from effx.profile.report import latex, page, report, sections
from effx.profile.techniques import technique
from effx.results import Energy, Run
from tests.profile import synthetic


def timed_on_device(run: Run, share: float) -> Run:
    """The run as a GPU gives it: every workload again, without ``share`` of its time and without energy."""
    none = Energy("none", "none", "measured for single-stream 1xreal only")
    again = [
        replace(one, timing="device", energy=none,
                blocks_s=[[(1 - share) * own for own in block] for block in one.blocks_s])
        for one in run.workloads
    ]  # fmt: skip
    return replace(run, workloads=[*run.workloads, *again])


def data_of(folder: Path) -> dict[str, Any]:
    """Return what the page's script reads."""
    text = (folder / "index.html").read_text()
    return json.loads(text.split('<script type="application/json" id="data">')[1].split("</script>")[0])


@pytest.fixture(scope="module")
def folder(results_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report([results_folder], tmp_path_factory.mktemp("out") / "report")[1]


def test_every_number_traces_to_a_result(folder: Path, results_folder: Path) -> None:
    runs = {run.id: run for run in results.find([results_folder])}
    content = json.loads((folder / "frontier.json").read_text())
    assert [tuple(one["objectives"]) for one in content["frontiers"]] == [
        ("accuracy", "latency"),
        ("accuracy", "energy"),
    ]
    assert ["accuracy", "size"] in [one["objectives"] for one in content["more"]]
    for one in content["frontiers"]:
        assert len(one["points"]) == 2
        for point in one["points"]:
            run = runs[point["result"]]
            single = run.workloads[0]
            assert point["values"]["accuracy"] == run.accuracy.value
            cost = one["objectives"][1]
            expected = single.latency_s["p50"] if cost == "latency" else single.energy.joules_per_example
            assert point["values"][cost] == expected
    rows = list(csv.DictReader((folder / "frontier.csv").read_text().splitlines()))
    assert {row["result"] for row in rows} == set(runs)
    for row in rows:
        assert float(row["score"]) == runs[row["result"]].accuracy.value
        assert row["energy_source"] == "model"
    text = (folder / "index.html").read_text()
    assert all(run_id in text for run_id in runs)


def test_the_page_is_whole_and_needs_no_network(folder: Path) -> None:
    text = (folder / "index.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    assert "default-src 'none'" in text

    class Balance(HTMLParser):
        open: list[str] = []

        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta", "input"):
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    assert {one["source"] for own in data_of(folder)["columns"]["energy"] for one in own} == {"model"}


def test_figures_are_there(folder: Path) -> None:
    for name in (
        "frontier-latency",
        "frontier-energy",
        "frontier-latency-p90",
        "frontier-memory",
        "frontier-size",
    ):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        svg = (folder / f"{name}.svg").read_text()
        assert "n = 90" in svg
    assert "mJ per example (model)" in (folder / "frontier-energy.svg").read_text()


def test_figures_of_techniques_and_grids(tmp_path: Path) -> None:
    synthetic.write(
        [synthetic.run(number, rounds=5, queries=20) for number in range(24)], tmp_path / "results"
    )
    _, folder = report([tmp_path / "results"])
    techniques = (folder / "techniques.svg").read_text()
    for name in ("pruned, fp32, onnxruntime", "exits, int8, onnxruntime", "not reduced, fp32, onnxruntime"):
        assert name in techniques
    assert "n = 200" in techniques
    grid = (folder / "grid.svg").read_text()
    rows = list(csv.DictReader((folder / "grid.csv").read_text().splitlines()))
    assert len(rows) == 24 * len(synthetic.SHAPES)
    assert "the first 12 of 23" in grid


def test_what_was_timed_twice_is_told_apart(tmp_path: Path) -> None:
    cpu = synthetic.run(0, rounds=5, queries=20)
    gpu = timed_on_device(synthetic.run(8, rounds=5, queries=20), 0.62)
    synthetic.write([cpu, gpu], tmp_path / "results")
    _, folder = report([tmp_path / "results"])
    rows = list(csv.DictReader((folder / "grid.csv").read_text().splitlines()))
    assert [row["timing"] for row in rows if row["engine"] == cpu.name] == ["end-to-end"] * 6
    for row in rows:
        own = (gpu if row["engine"] == gpu.name else cpu).workload(
            "grid", int(row["batch"]), int(row["length"]), row["timing"]
        )
        assert own is not None and float(row["latency_p50_s"]) == own.latency_s["p50"]
    assert len({tuple(row.values())[:7] for row in rows}) == len(rows) == 3 * len(synthetic.SHAPES)

    columns = data_of(folder)["columns"]
    assert columns["launch_share"] == [None, pytest.approx(0.62, abs=1e-5)]
    single, device = columns["others"][1]
    assert (single["timing"], device["timing"]) == ("end-to-end", "device")
    assert device["latency"]["p50"] == pytest.approx(0.38 * single["latency"]["p50"], rel=1e-4)
    assert [one["timing"] for one in columns["energy"][1]] == ["end-to-end", "device"]
    assert [one["timing"] for one in columns["others"][0] + columns["energy"][0]] == ["end-to-end"] * 2


def test_comparisons_are_those_of_the_comparison(tmp_path: Path) -> None:
    runs = [synthetic.run(number, rounds=5, queries=20) for number in range(4)]
    synthetic.write(runs, tmp_path / "results")
    _, folder = report([tmp_path / "results"])
    by_id = {run.id: run for run in runs}
    rows = list(csv.DictReader((folder / "comparisons.csv").read_text().splitlines()))
    assert len({frozenset((row["result_a"], row["result_b"])) for row in rows}) == 4 * 3 / 2 == len(rows)
    for row in rows:
        a, b = by_id[row["result_a"]], by_id[row["result_b"]]
        assert float(row["difference"]) == pytest.approx(b.accuracy.value - a.accuracy.value)
        assert row["sentence"] == compare(a, b).sentence()


def test_results_without_their_rows_are_shown_without_resampling(tmp_path: Path) -> None:
    """Result files may be shared without predictions, where the rows may not be."""
    runs = [synthetic.run(number, rounds=5, queries=20) for number in range(3)]
    bare = [replace(run, accuracy=replace(run.accuracy, predictions=[], labels=[])) for run in runs]
    synthetic.write(bare, tmp_path / "results")
    content, folder = report([tmp_path / "results"])
    assert content["frontiers"] == []
    text = (folder / "index.html").read_text()
    assert all(run.id in text for run in bare)
    assert "does not hold every prediction" in text


def test_one_figure_may_be_missing_everywhere(tmp_path: Path) -> None:
    """No p90 with few samples, no energy, no grid, one engine: still a report."""
    run = synthetic.run(0, rounds=3, queries=5, metered="none")
    synthetic.write([replace(run, workloads=run.workloads[:1])], tmp_path / "results")
    _, folder = report([tmp_path / "results"])
    assert not (folder / "grid.svg").exists()
    assert "no counters here" in (folder / "frontier-energy.svg").read_text()


@pytest.mark.parametrize("text", ["50% & more_or #less {of} $x^2$ ~ \\end", "line\nbreak"])
def test_latex_prints_names_and_obeys_none(text: str) -> None:
    found = latex.escape(text)
    bare = re.sub(
        r"\\(textbackslash|textasciicircum|textasciitilde|textless|textgreater)\{\}|\\[{}$&#%_]", "", found
    )
    assert not set(bare) & set("\\{}$&#%_^~<>\n")


def test_latex_has_a_row_per_engine(folder: Path, results_folder: Path) -> None:
    text = (folder / "tables.tex").read_text()
    body = text.split("\\midrule")[1].split("\\bottomrule")[0]
    rows = [line for line in body.splitlines() if line.strip()]
    assert len(rows) == 2
    assert all(line.count(" & ") == text.split("\\toprule")[1].splitlines()[1].count(" & ") for line in rows)
    assert "mJ/example (model)" in text


@pytest.mark.parametrize("value", ["</script><script>", "<!--", "\u2028", "\ud800", "&lt;"])
def test_embedded_data_cannot_end_its_element(value: str) -> None:
    text = page.embed({"name": value})
    assert not set("<>&") & set(text)
    text.encode()
    assert json.loads(text) == {"name": value}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 2}, "schema 2"),
        ({"title": 3}, "3 is no text"),
        ({"charts": [{"title": "t", "x": {"label": "x"}, "y": {}, "series": []}]}, "label"),
        ({"maps": [{"title": "m", "rows": ["a"], "columns": ["b", "c"], "values": [[1]]}]}, "rows x columns"),
        ({"tables": [{"title": "t", "columns": [{"label": "a"}], "rows": [[1, 2]]}]}, "one cell per column"),
    ],
)
def test_a_wrong_section_says_what_is_wrong(tmp_path: Path, change: dict[str, object], said: str) -> None:
    path = tmp_path / "tickets.json"
    path.write_text(json.dumps({"schema": 1, "title": "Tickets", **change}))
    with pytest.raises(ArtifactError, match=said) as caught:
        sections.read([path])
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("number", "name", "level"),
    [(0, "full", None), (8, "pruned", 0.9), (2, "length", 64), (4, "exits", 6.0), (14, "tokens", 0.9)],
)
def test_techniques_and_levels(number: int, name: str, level: float | None) -> None:
    found = technique(synthetic.run(number))
    assert (found.name, found.level) == (name, level)


def test_dropped_layers_are_no_ticket_and_two_reductions_are_combined() -> None:
    run = synthetic.run(8)
    shape = {**run.engine["structure"], "layers": 3, "heads": [12] * 3, "intermediate": [1536] * 3}
    layers = replace(run, engine={**run.engine, "structure": shape})
    assert (technique(layers).name, technique(layers).level) == ("layers", 3.0)
    both = replace(run, engine={**run.engine, "variant": "seq64+int8"})
    assert technique(both).name == "combined"
    assert technique(both).text == "pruned 90% of weights + length 64 tokens"


def test_a_killed_report_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.write(
        [synthetic.run(number, rounds=5, queries=20) for number in range(2)], tmp_path / "results"
    )
    _, folder = report([tmp_path / "results"])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(payload: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(page, "render", fail)
    with pytest.raises(KeyboardInterrupt):
        report([tmp_path / "results"])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_a_report_is_replaced_and_nothing_else_is(results_folder: Path, tmp_path: Path) -> None:
    report([results_folder], tmp_path / "r")
    report([results_folder], tmp_path / "r")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("do not lose me")
    with pytest.raises(UsageError, match="exists already"):
        report([results_folder], tmp_path / "mine")
    assert (tmp_path / "mine/thesis.tex").read_text() == "do not lose me"
