"""``effx compare-lengths`` and the section that ``effx report`` shows of several lengths."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from effx import results
from effx.analysis import length_dependence
from effx.analysis.length_results import LengthDependence
from effx.cli import run
from effx.report import length_dependence as tables
from effx.report.sections import Section
from effx.results import Run
from tests.analysis.simulated_lengths import Reduction, everywhere, length_runs
from tests.cli.test_cli import fails

TECHNIQUES = {
    "int8": Reduction({(1, 32): 0.6, (1, 128): 0.3}),
    "buckets": Reduction({(1, 32): 0.4, (1, 128): 0.5}),
    "seq32": Reduction({(1, 32): 0.2}, lost_of_long=0.3),
}


def saved(runs: list[Run], folder: Path) -> Path:
    for one in runs:
        results.save(replace(one, id=f"{one.id}-{one.host_id}"), folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(length_runs(1, TECHNIQUES), tmp_path / "results")


def test_answer_is_printed_and_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(["compare-lengths", str(folder), "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "the best reduction depends on the length" in printed
    assert "'buckets' at 32 tokens; 'int8' at 128 tokens" in printed
    assert "'seq32' loses" in printed and "on rows of 30 to 60 words" in printed
    (study,) = json.loads((out / "length-dependence.json").read_text())["studies"]
    assert [length["length"] for length in study["batches"][0]["lengths"]] == [32, 128]
    assert {each["technique"]: each["cheaper_at"] for each in study["batches"][0]["changes"]} == {
        "int8": 128, "buckets": 32,
    }  # fmt: skip
    names = ("overview", "costs", "changes", "choices", "ranks", "losses")
    assert {path.name for path in out.iterdir()} == {
        "length-dependence.json", "lengths-curves.png", "lengths-curves.svg",
        *(f"lengths-{name}.{kind}" for name in names for kind in ("csv", "md", "tex")),
    }  # fmt: skip
    rows = list(csv.DictReader((out / "lengths-costs.csv").read_text().splitlines()))
    missing = [row for row in rows if not row["cost"]]
    assert [(row["technique"], row["tokens"]) for row in missing] == [("seq32", "128")]
    assert "grid 1x128 was not measured" in missing[0]["not measured"]


def test_json_is_that_of_the_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["compare-lengths", str(folder), "--objective", "cpu_time", "--max-drop", "50%", "--json"]
    assert run([*arguments, "-o", str(out)]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((out / "length-dependence.json").read_text())


def test_wrong_input_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reduced = {name: TECHNIQUES[name] for name in ("int8", "seq32")}
    runs, elsewhere = length_runs(1, reduced), length_runs(1, reduced, host="other")
    cases = {
        "length": (
            length_runs(1, TECHNIQUES, shapes=((1, 32),)),
            "profile all with a grid such as 1x32,1x128",
        ),
        "baseline": (runs[1:], "its unreduced fp32 engine was not measured with onnxruntime on h"),
        "hosts": (
            [runs[0], *elsewhere[1:]],
            "measure the unreduced engine and the techniques in one session",
        ),
    }
    for name, (members, message) in cases.items():
        assert message in fails(capsys, ["compare-lengths", str(saved(members, tmp_path / name))])
    one = str(saved(runs, tmp_path / "one"))
    for arguments, message in (
        (["--task", "sst3"], "sst2"),
        (["--objective", "size"], "latency"),
        (["--objective", "energy"], "unknown cost 'energy'"),
        (["--max-drop", "200%"], "--max-drop"),
    ):
        assert message in fails(capsys, ["compare-lengths", one, *arguments])


def test_the_report_has_the_section_where_lengths_can_be_compared(folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    assert run(["report", str(folder), "-o", str(report)]) == 0
    assert "Does the best reduction depend on the length?" in (report / "index.html").read_text()
    (study,) = json.loads((report / "lengths/length-dependence.json").read_text())["studies"]
    assert study["objective"] == "latency"
    assert (report / "lengths/lengths-curves.svg").is_file()


def test_a_report_of_two_hosts_has_a_study_of_each(tmp_path: Path) -> None:
    both = [*length_runs(1, TECHNIQUES), *length_runs(2, TECHNIQUES, host="other")]
    report = tmp_path / "report"
    assert run(["report", str(saved(both, tmp_path / "results")), "-o", str(report)]) == 0
    names = {path.name for path in (report / "lengths").iterdir() if path.is_dir()}
    assert names == {f"sst2-latency-simulated-{host}-onnxruntime-cpu" for host in ("h", "other")}


def test_a_report_of_one_length_has_no_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = saved(length_runs(1, {"int8": everywhere(0.5)}, shapes=((1, 32), (32, 32))), tmp_path / "results")
    assert run(["report", str(one), "-o", str(tmp_path / "report")]) == 0
    assert not (tmp_path / "report/lengths").exists()
    assert "lengths" not in capsys.readouterr().err


def test_a_report_is_not_lost_to_the_section(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_chance(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by chance")

    monkeypatch.setattr("effx.analysis.technique_choices.choose", by_chance)
    assert run(["report", str(folder), "-o", str(tmp_path / "report")]) == 0
    assert "lengths are not compared: ZeroDivisionError" in capsys.readouterr().err
    assert (tmp_path / "report/index.html").is_file()


def test_a_report_is_not_lost_to_a_figure_that_cannot_be_drawn(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("effx.report.length_figures.draw", full)
    assert run(["report", str(folder), "-o", str(tmp_path / "report")]) == 0
    assert "lengths: tables and figures are not written: OSError: no space left" in capsys.readouterr().err
    assert "Does the best reduction depend on the length?" in (tmp_path / "report/index.html").read_text()
    assert not (tmp_path / "report/lengths").exists()


def test_a_study_that_cannot_be_shown_does_not_remove_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = tables.section

    def section(study: LengthDependence) -> Section:
        if study.host == "other":
            raise ZeroDivisionError("by chance")
        return shown(study)

    monkeypatch.setattr(tables, "section", section)
    both = [*length_runs(1, TECHNIQUES), *length_runs(2, TECHNIQUES, host="other")]
    report = tmp_path / "report"
    assert run(["report", str(saved(both, tmp_path / "results")), "-o", str(report)]) == 0
    assert "onnxruntime, other, median latency: not shown: ZeroDivisionError" in capsys.readouterr().err
    (study,) = json.loads((report / "lengths/length-dependence.json").read_text())["studies"]
    assert study["host"] == "h"


def test_no_two_studies_are_written_to_one_folder(tmp_path: Path) -> None:
    """Names are shortened, of characters that every file system knows, and differ in more than case."""
    (study,) = length_dependence.compare(length_runs(1, {"int8": everywhere(0.5)}))
    encoders = ("org/model", "org-model", "ORG-model", "long" * 80, "long" * 80 + "er", "plain")
    tables.write([replace(study, encoder=encoder) for encoder in encoders], tmp_path)
    names = [path.name for path in tmp_path.iterdir() if path.is_dir()]
    assert len({name.casefold() for name in names}) == len(encoders)
    assert max(map(len, names)) < 120 and "sst2-latency-plain-h-onnxruntime-cpu" in names
    assert all((tmp_path / name / "lengths-costs.csv").is_file() for name in names)


def test_a_named_task_without_a_comparison_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(length_runs(1, {"int8": everywhere(0.5)}, shapes=((1, 32),), task="mrpc"), folder)
    assert run(["compare-lengths", str(folder)]) == 0
    assert "not compared, simulated, onnxruntime on cpu, h: mrpc: " in capsys.readouterr().err
    assert run(["compare-lengths", str(folder), "--task", "sst2", "--task", "mrpc"]) == 2
    assert "no lengths can be compared: mrpc: mrpc-e.fp32 and another engine" in capsys.readouterr().err
