from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from effx import results
from effx.errors import UsageError
from effx.profile.report import report


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
    assert "<script" not in text

    class Balance(HTMLParser):
        open: list[str] = []

        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta", "img"):
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    assert "energy source: model" in text


def test_figures_are_there(folder: Path) -> None:
    for name in ("frontier-latency", "frontier-energy"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        svg = (folder / f"{name}.svg").read_text()
        assert "n = 90" in svg
    assert "mJ per example (model)" in (folder / "frontier-energy.svg").read_text()


def test_a_report_is_replaced_and_nothing_else_is(results_folder: Path, tmp_path: Path) -> None:
    report([results_folder], tmp_path / "r")
    report([results_folder], tmp_path / "r")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("do not lose me")
    with pytest.raises(UsageError, match="exists already"):
        report([results_folder], tmp_path / "mine")
    assert (tmp_path / "mine/thesis.tex").read_text() == "do not lose me"
