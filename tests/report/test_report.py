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
from effx.analysis.baseline import baseline_of
from effx.analysis.comparison import adjusted, compare
from effx.analysis.techniques import series, technique
from effx.errors import ArtifactError, UsageError
from effx.report import latex, page, payload, report, sections, sheets, tables
from effx.report.comparisons import compare_groups
from effx.report.groups import group_runs
from effx.results import Energy, FailedEngineRecord, Failure, Interruption, PeakMemory, Run
from effx.specs.workloads import SINGLE_STREAM, Workload, offline
from tests.analysis import simulated_results
from tests.analysis.simulated_run import simulated_run

OFFLINE = offline(32)


def timed_on_device(run: Run, share: float) -> Run:
    """Return the run as on a GPU: every workload also timed on the device, ``share`` faster."""
    none = Energy("none", "none", "measured for single-stream 1xreal only")
    again = [
        replace(one, workload=one.workload.timed_on_device(), energy=none,
                blocks_s=[[(1 - share) * sample for sample in block] for block in one.blocks_s])
        for one in run.workloads
    ]  # fmt: skip
    return replace(run, workloads=[*run.workloads, *again])


def data_of(folder: Path) -> dict[str, Any]:
    """Return the data that the page's script reads."""
    text = (folder / "index.html").read_text()
    return json.loads(text.split('<script type="application/json" id="data">')[1].split("</script>")[0])


@pytest.fixture(scope="module")
def folder(results_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report([results_folder], tmp_path_factory.mktemp("out") / "report")[1]


def test_every_number_is_that_of_a_result(folder: Path, results_folder: Path) -> None:
    runs = {run.id: run for run in results.find([results_folder])}
    content = json.loads((folder / "frontier.json").read_text())
    assert [tuple(one["objectives"]) for one in content["frontiers"]] == [
        ("quality", "latency"),
        ("quality", "energy"),
    ]
    assert ["quality", "size"] in [one["objectives"] for one in content["other_frontiers"]]
    for one in content["frontiers"]:
        assert len(one["points"]) == 2
        for point in one["points"]:
            run = runs[point["result"]]
            single = run.workloads[0]
            assert point["values"]["quality"] == run.quality.value
            cost = one["objectives"][1]
            expected = single.latency_s["p50"] if cost == "latency" else single.energy.joules_per_example
            assert point["values"][cost] == expected
    rows = list(csv.DictReader((folder / "frontier.csv").read_text().splitlines()))
    assert {row["result"] for row in rows} == set(runs)
    for row in rows:
        assert float(row["score"]) == runs[row["result"]].quality.value
        assert row["energy_source"] == "model"
    text = (folder / "index.html").read_text()
    assert all(run_id in text for run_id in runs)


def test_the_page_is_complete_and_needs_no_network(folder: Path) -> None:
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
    assert {one["source"] for row in data_of(folder)["columns"]["energy"] for one in row} == {"model"}


def test_a_frontier_is_drawn_for_every_cost(folder: Path) -> None:
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
    assert "mJ/example (model)" in (folder / "frontier-energy.svg").read_text()


def test_techniques_and_grids_are_drawn(tmp_path: Path) -> None:
    simulated_results.write(
        [simulated_results.run(number, rounds=5, queries=20) for number in range(24)], tmp_path / "results"
    )
    _, folder = report([tmp_path / "results"])
    techniques = (folder / "techniques.svg").read_text()
    for name in ("pruned, fp32, onnxruntime", "exits, int8, onnxruntime", "not reduced, fp32, onnxruntime"):
        assert name in techniques
    assert "n = 200" in techniques
    grid = (folder / "grid.svg").read_text()
    rows = list(csv.DictReader((folder / "grid.csv").read_text().splitlines()))
    assert len(rows) == 24 * len(simulated_results.SHAPES)
    assert "first 12 of 23" in grid


def test_end_to_end_and_device_timings_are_separate(tmp_path: Path) -> None:
    cpu = simulated_results.run(0, rounds=5, queries=20)
    gpu = timed_on_device(simulated_results.run(8, rounds=5, queries=20), 0.62)
    simulated_results.write([cpu, gpu], tmp_path / "results")
    _, folder = report([tmp_path / "results"])
    rows = list(csv.DictReader((folder / "grid.csv").read_text().splitlines()))
    assert [row["timing"] for row in rows if row["engine"] == cpu.name] == ["end-to-end"] * 6
    for row in rows:
        workload = (gpu if row["engine"] == gpu.name else cpu).workload(
            Workload("grid", int(row["batch"]), int(row["length"]), row["timing"])  # type: ignore[arg-type]
        )
        assert workload is not None and float(row["latency_p50_s"]) == workload.latency_s["p50"]
    assert len({tuple(row.values())[:7] for row in rows}) == len(rows) == 3 * len(simulated_results.SHAPES)

    columns = data_of(folder)["columns"]
    assert columns["host_overhead_share"] == [None, pytest.approx(0.62, abs=1e-5)]
    single, device = columns["others"][1]
    assert (single["timing"], device["timing"]) == ("end-to-end", "device")
    assert device["latency_s"]["p50"] == pytest.approx(0.38 * single["latency_s"]["p50"], rel=1e-4)
    assert [one["timing"] for one in columns["energy"][1]] == ["end-to-end", "device"]
    assert [one["timing"] for one in columns["others"][0] + columns["energy"][0]] == ["end-to-end"] * 2


def test_comparisons_csv_holds_the_paired_comparisons(tmp_path: Path) -> None:
    runs = [simulated_results.run(number, rounds=5, queries=20) for number in range(4)]
    simulated_results.write(runs, tmp_path / "results")
    _, folder = report([tmp_path / "results"])
    by_id = {run.id: run for run in runs}
    rows = list(csv.DictReader((folder / "comparisons.csv").read_text().splitlines()))
    assert len({frozenset((row["result_a"], row["result_b"])) for row in rows}) == 4 * 3 / 2 == len(rows)
    base = baseline_of(runs)
    others = [by_id[row["result_b"]] for row in rows if row["result_a"] == base.id]
    assert len(others) == 3
    with_baseline = {one.b: one for one in adjusted([compare(base, other) for other in others])}
    for row in rows:
        a, b = by_id[row["result_a"]], by_id[row["result_b"]]
        expected = with_baseline[b.name] if a is base else compare(a, b)
        assert float(row["score_difference"]) == pytest.approx(b.quality.value - a.quality.value)
        assert row["sentence"] == expected.sentence()
        assert float(row["p"]) == expected.p_value
        assert row["p_adjusted"] == ("" if expected.p_adjusted is None else str(expected.p_adjusted))
        assert (a is base) == (expected.p_adjusted is not None)


def test_p_values_against_the_baseline_are_adjusted_for_their_number(tmp_path: Path) -> None:
    """Six variants each lose significantly if tested alone, and not if adjusted for six tests."""
    base = simulated_run("fp32", precision="fp32", queries=70)
    losing = [simulated_run(f"v{number}", range(6), 0.005, queries=70) for number in range(6)]
    odd = simulated_run("odd", range(6), queries=70)
    turned = replace(odd, quality=replace(odd.quality, labels=[1 - label for label in odd.quality.labels]))
    comparisons, refused = compare_groups(group_runs([base, *losing, turned]))
    with_baseline = [each for each in comparisons if each.a == "fp32"]
    assert sorted(each.b for each in with_baseline) == [run.name for run in losing]
    for each in with_baseline:
        assert each.p_value == pytest.approx(2 * 0.5**6)  # below 0.05
        assert each.p_adjusted == pytest.approx(6 * each.p_value)
        assert "not distinguishable once adjusted for the number of comparisons" in each.sentence()
    assert (base.id, odd.id) in {(pair.a, pair.b) for pair in refused}  # the others are compared
    assert {each.p_adjusted for each in comparisons if each.a != "fp32"} == {None}
    simulated_results.write([base, *losing], tmp_path / "results")
    data = data_of(report([tmp_path / "results"])[1])
    names = data["columns"]["name"]
    listed = {names[one["b"]]: one["p_adjusted"] for one in data["pairs"] if names[one["a"]] == "fp32"}
    assert listed == {run.name: pytest.approx(6 * 2 * 0.5**6) for run in losing}


@pytest.mark.parametrize("left", [0, 1, 4, 7])
def test_the_number_of_comparisons_is_limited(left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effx.report.comparisons.AT_MOST", left)
    base = simulated_run("fp32", precision="fp32")
    groups = group_runs([base, *(simulated_run(f"v{number}", range(6)) for number in range(4))])
    comparisons, refused = compare_groups(groups)
    assert (len(comparisons), refused) == (left, [])
    with_baseline = [each for each in comparisons if each.a == "fp32"]
    assert len(with_baseline) == min(left, 4)
    for each in with_baseline:
        assert each.p_adjusted == pytest.approx(len(with_baseline) * each.p_value)


def test_results_without_predictions_are_shown_without_resampling(tmp_path: Path) -> None:
    """Result files may be shared without predictions where the rows may not be shared."""
    runs = [simulated_results.run(number, rounds=5, queries=20) for number in range(3)]
    bare = [replace(run, quality=replace(run.quality, predictions=[], labels=[])) for run in runs]
    simulated_results.write(bare, tmp_path / "results")
    content, folder = report([tmp_path / "results"])
    assert content.frontiers == []
    text = (folder / "index.html").read_text()
    assert all(run.id in text for run in bare)
    assert "does not contain all predictions" in text


def test_fields_that_a_result_lacks_are_empty(tmp_path: Path) -> None:
    runs = [simulated_results.run(number, rounds=5, queries=20) for number in range(2)]
    bare = replace(
        runs[0].engine, regime=None, model=None, weight_remaining=None, size_bytes=None, max_length=None,
        structure=None, exits=None, parity=None,
    )  # fmt: skip
    old = replace(runs[0], engine=bare, memory=PeakMemory(None, None))
    simulated_results.write([old, runs[1]], tmp_path / "results")
    _, folder = report([tmp_path / "results"])
    row = next(
        row
        for row in csv.DictReader((folder / "frontier.csv").read_text().splitlines())
        if row["result"] == old.id
    )
    assert [
        row[key] for key in ("model", "regime", "weight_remaining", "size_bytes", "host_peak_memory_bytes")
    ] == [""] * 5
    assert " & -- & -- & " in (folder / "tables.tex").read_text()


def test_gaps_of_a_session_are_shown(tmp_path: Path) -> None:
    """A session that was stopped and resumed is reported, and its gaps are said."""
    gap = Interruption("2026-11-28T10:00:00+00:00", "2026-11-28T11:00:00+00:00", 3)
    runs = [simulated_results.run(number, rounds=5, queries=20) for number in range(2)]
    stopped = replace(runs[0], settings=replace(runs[0].settings, interruptions=[gap]))
    simulated_results.write([stopped, runs[1]], tmp_path / "results")
    _, folder = report([tmp_path / "results"])
    gaps = [settings["interruptions"] for settings in data_of(folder)["settings"]]
    assert [f"{gap.stopped} to {gap.resumed}, after 3 rounds"] in gaps
    assert [] in gaps


def failed(run: Run, started: str, failure: str = "it died") -> Failure:
    failure_ = Failure(
        f"f-{started}",
        started,
        FailedEngineRecord(run.name, run.task),
        run.host,
        "s",
        f"{run.name}: {failure}",
    )
    return replace(failure_, id=re.sub(r"[:+]", "", f"{failure_.id}-{run.host_id}-{run.task}"))


def test_a_failure_before_a_later_success_is_not_listed(tmp_path: Path) -> None:
    run, other = (simulated_results.run(number, rounds=5, queries=20) for number in range(2))
    before, after = "2026-11-20T00:00:00+00:00", "2026-12-01T00:00:00+00:00"
    elsewhere = replace(run, host=simulated_results.host(1))
    of_another_task = replace(run, engine=replace(run.engine, task="rte"))
    gone, stay = (
        [failed(run, before, "gone")],
        [failed(run, after, "later"), failed(run, "", "no time"), failed(elsewhere, before, "other host"),
         failed(of_another_task, before, "other task")],
    )  # fmt: skip
    simulated_results.write([run, other], tmp_path / "results")
    for one in (*gone, *stay):
        results.save(one, tmp_path / "results")
    content, folder = report([tmp_path / "results"])
    listed = sorted(failure.failure for failure in content.failures)
    assert listed == sorted(one.failure for one in stay)
    assert sorted(one["failure"] for one in data_of(folder)["failures"]) == listed


def test_names_and_reasons_are_printed_without_markup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Brackets and colons are not markup."""
    run = simulated_results.run(0, rounds=5, queries=20, name="a[b][red]:warning:")
    why = "cannot open [/dev/nvidia0] [/b] [enforce fail at alloc] :x:"
    simulated_results.write([run], tmp_path / "results")
    results.save(failed(simulated_results.run(1), "2026-11-29T00:00:00+00:00", why), tmp_path / "results")
    content, _ = report([tmp_path / "results"])
    tables.print_frontiers(content.to_json())
    tables.print_runs([run])
    out = capsys.readouterr().out
    assert f"not measured: demo-e00001.int8.onnxruntime: {why}" in out
    assert out.count("a[b][red]:warning:") == 3  # on two frontiers and in the table of runs


def test_energies_of_two_sources_are_labelled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As with engines on a GPU and on the CPU in one session."""
    runs = [
        simulated_results.run(0, rounds=5, queries=20),
        simulated_results.run(1, rounds=5, queries=20, metered="model"),
        simulated_results.run(8, rounds=5, queries=20, metered="none"),
    ]
    simulated_results.write(runs, tmp_path / "results")
    tables.print_runs(runs)
    printed = capsys.readouterr().out
    latex_ = (report([tmp_path / "results"])[1] / "tables.tex").read_text()
    for text in (printed, latex_):
        assert "mJ/example (counter, model)" in text
        assert re.search(r"e00000.*\d \(counter\)", text)
        assert re.search(r"e00001.*\d \(model\)", text)
        assert not re.search(r"e00008.*\(", text)
    tables.print_runs(runs[:1])
    assert "(counter)" in (alone := capsys.readouterr().out)
    assert alone.count("(counter)") == 1


def test_a_report_without_p90_energy_and_grid(tmp_path: Path) -> None:
    """No p90 with few samples, no energy, no grid, one engine: still a report."""
    run = simulated_results.run(0, rounds=3, queries=5, metered="none")
    simulated_results.write([replace(run, workloads=run.workloads[:1])], tmp_path / "results")
    _, folder = report([tmp_path / "results"])
    assert not (folder / "grid.svg").exists()
    assert "no counters here" in (folder / "frontier-energy.svg").read_text()


@pytest.mark.parametrize("text", ["50% & more_or #less {of} $x^2$ ~ \\end", "line\nbreak"])
def test_latex_prints_names_literally(text: str) -> None:
    escaped = latex.escape(text)
    bare = re.sub(
        r"\\(textbackslash|textasciicircum|textasciitilde|textless|textgreater)\{\}|\\[{}$&#%_]", "", escaped
    )
    assert not set(bare) & set("\\{}$&#%_^~<>\n")


def test_the_page_draws_a_frontier_with_the_scores_it_was_computed_with() -> None:
    """Batches of a lose more rows than its single queries, and those of b fewer."""
    runs = []
    for name, alone, together, per_s in (("a", 4, 40, 100), ("b", 30, 8, 90)):
        run = simulated_run(name, range(alone), offline_per_s=per_s)
        quality = replace(run.quality, batch_dependent=True, workload=SINGLE_STREAM)
        of_batches = replace(
            simulated_run(name, range(together)).quality, batch_dependent=True, workload=OFFLINE
        )
        workloads = [
            replace(each, quality=of_batches) if each.workload == OFFLINE else each for each in run.workloads
        ]
        runs.append(replace(run, quality=quality, workloads=workloads))
    groups = group_runs(runs)
    shown = payload.payload("now", runs, groups, ([], []), [], [])
    checked = 0
    for frontier, computed in zip(shown["groups"][0]["frontiers"], groups[0].frontiers, strict=True):
        for row, other, point in zip(frontier["members"], frontier["other"], computed.points, strict=True):
            for name, value in point.values.items():
                drawn = other[name][0] if name in other else shown["columns"][f"{name}.value"][row]
                assert drawn == pytest.approx(value, rel=1e-5)
                checked += name in other
    assert checked == 2


def test_names_of_metrics_are_printed_literally() -> None:
    (group,) = group_runs([simulated_run("a"), simulated_run("b", range(4))])
    cohort = replace(group.cohort, metric="macro_f1")
    table = latex._table(replace(group, cohort=cohort))
    assert r"macro\_f1" in table
    assert not re.search(r"(?<!\\)_f1", table)


def test_a_row_of_a_sheet_is_one_line() -> None:
    columns = (sheets.SheetColumn("text"), sheets.SheetColumn("n"))
    sheet = sheets.Sheet("t", "texts", columns, (("a\nb | c", 1),))
    assert "| a b \\| c | 1 |" in sheet.markdown()


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
    ("change", "message"),
    [
        ({"schema": 2}, "schema: expected 1"),
        ({"schema": 1.0}, "expected schema 1, got 1.0"),
        ({"title": 3}, "title: expected a valid string"),
        ({"charts": [{"title": "t", "x": {"label": "x"}, "y": {}, "series": []}]}, "label"),
        ({"maps": [{"title": "m", "rows": ["a"], "columns": ["b", "c"], "values": [[1]]}]}, "rows x columns"),
        (
            {"tables": [{"title": "t", "columns": [{"label": "a"}], "rows": [[1, 2]]}]},
            "one cell per column",
        ),
    ],
)
def test_a_damaged_section_is_named_with_the_fault(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "tickets.json"
    path.write_text(json.dumps({"schema": 1, "title": "Tickets", **change}))
    with pytest.raises(ArtifactError, match=message) as caught:
        sections.read([path])
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("number", "name", "level"),
    [(0, "full", None), (8, "pruned", 0.9), (2, "length", 64), (4, "exits", 6.0), (14, "tokens", 0.9)],
)
def test_techniques_and_levels(number: int, name: str, level: float | None) -> None:
    reduction = technique(simulated_results.run(number))
    assert (reduction.name, reduction.level) == (name, level)


def test_dropped_layers_are_not_pruning_and_two_reductions_are_combined() -> None:
    run = simulated_results.run(8)
    shape = replace(run.engine.structure, layers=3, heads=[12] * 3, intermediate=[1536] * 3)
    layers = replace(run, engine=replace(run.engine, structure=shape))
    assert (technique(layers).name, technique(layers).level) == ("layers", 3.0)
    both = replace(run, engine=replace(run.engine, variant="seq64+int8"))
    assert technique(both).name == "combined"
    assert technique(both).text == "pruned 90% of weights + length 64 tokens"


@pytest.mark.parametrize(
    ("numbers", "drop_layers", "name", "text"),
    [
        (None, [], "layers", "3 layers"),
        ([1, 2, 3], [], "layers", "first 3 layers"),
        ([1, 2, 3], ["top"], "layers", "first 3 layers"),
        ([1, 2, 6], [], "layers", "layers 1, 2, 6"),
        ([1, 2, 6], ["symmetric"], "layers (symmetric)", "3 layers, symmetric"),
        ([2, 4, 6], ["odd-alternate"], "layers (odd-alternate)", "3 layers, odd-alternate"),
        ([1, 2, 6], ["contribution"], "layers (contribution)", "3 layers, contribution"),
        ([4, 5, 6], ["bottom", "top"], "layers (bottom, top)", "3 layers, bottom, top"),
    ],
)
def test_engines_with_other_layers_are_other_techniques(
    numbers: list[int] | None, drop_layers: list[str], name: str, text: str
) -> None:
    run = simulated_results.run(8)
    shape = replace(run.engine.structure, layers=3, heads=[12] * 3, intermediate=[1536] * 3, numbers=numbers)
    whole = replace(run, engine=replace(run.engine, structure=shape, drop_layers=drop_layers))
    assert (technique(whole).name, technique(whole).level, technique(whole).text) == (name, 3.0, text)
    assert series(whole, technique(whole)).startswith(f"{name}, ")
    short = replace(whole, engine=replace(whole.engine, variant="seq64+int8"))
    assert technique(short).text == f"{text} + length 64 tokens"
    ticket = replace(whole, engine=replace(whole.engine, structure=replace(shape, heads=[12, 11, 12])))
    expected = name.replace("layers (", "pruned (layers: ") if "(" in name else "pruned"
    assert technique(ticket).name == expected and technique(ticket).level == 0.9


def test_an_interrupted_report_leaves_the_previous_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated_results.write(
        [simulated_results.run(number, rounds=5, queries=20) for number in range(2)], tmp_path / "results"
    )
    _, folder = report([tmp_path / "results"])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def fail(payload: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(page, "render", fail)
    with pytest.raises(KeyboardInterrupt):
        report([tmp_path / "results"])
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_only_a_report_is_replaced(results_folder: Path, tmp_path: Path) -> None:
    report([results_folder], tmp_path / "r")
    report([results_folder], tmp_path / "r")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("do not lose me")
    with pytest.raises(UsageError, match="exists already and is not a report"):
        report([results_folder], tmp_path / "mine")
    assert (tmp_path / "mine/thesis.tex").read_text() == "do not lose me"


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_cells_are_not_formulas(start: str, tmp_path: Path) -> None:
    run = simulated_results.run(0, rounds=5, queries=20, name=f"{start}cmd()")
    simulated_results.write([run], tmp_path / "results")
    _, folder = report([tmp_path / "results"])
    for name in ("frontier.csv", "grid.csv"):
        rows = list(csv.DictReader((folder / name).read_text().splitlines()))
        assert {row["engine"] for row in rows} == {f"'{start}cmd()"}
