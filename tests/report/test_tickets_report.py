from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from effx.cli import run
from effx.report import sections
from effx.report.sections import SectionCell
from effx.report.sheets import Sheet, SheetColumn

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "tickets"
"""Real searches: MiniLM on MRPC and on 2,000 rows of SST-2, three seeds."""


def test_a_report_on_real_searches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(["tickets", "report", str(RESULTS / "mrpc"), str(RESULTS / "sst2-2000"), "-o", str(out)]) == 0
    assert "| average |" in capsys.readouterr().out
    rows = list(csv.DictReader((out / "tasks.csv").read_text().splitlines()))
    table = json.loads((RESULTS / "mrpc" / "table.json").read_text())
    (full,) = [row for row in table["summary"] if row["kind"] == "full"]
    mean = sum(full["scores"]["rest"][metric]["mean"] for metric in ("accuracy", "f1")) / 2
    assert float(rows[0]["full, mean"]) == pytest.approx(mean)
    assert rows[0]["level"] == table["super"]["level"] and rows[0]["training rows"] == "3668"
    assert [row["task"] for row in rows] == ["mrpc", "sst2", "average"]
    for name in ("tasks", "metrics", "seeds", "phases", "agreement"):
        assert (out / f"{name}.md").read_text().startswith("**")
        assert r"\toprule" in (out / f"{name}.tex").read_text()
    for name in ("gain", "importance"):
        assert (out / f"{name}.png").stat().st_size > 5000 and "<svg" in (out / f"{name}.svg").read_text()
    (section,) = sections.read([out / "sections" / "tickets.json"])
    assert section.title == "Super tickets over tasks" and len(section.tables) == 5 and len(section.maps) == 2
    cell = section.tables[0].rows[0][4]
    assert cell == SectionCell(f"{mean:.4f}", pytest.approx(mean))  # a number to sort by, not a text


def test_the_same_searches_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert run(["tickets", "report", str(RESULTS / "mrpc"), "-o", str(tmp_path / name)]) == 0
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) > 15
    assert all((tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in files)


def test_mistakes_are_one_line_and_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mrpc = str(RESULTS / "mrpc")
    for arguments, message in (
        ([], "Missing argument 'WORKSPACE...'"),
        ([str(tmp_path)], "it has no table.json"),
        ([mrpc, mrpc], "are both searches of mrpc"),
        ([mrpc, "--level", "140"], "percentages between 1 and 100"),
    ):
        assert run(["tickets", "report", *arguments, "-o", str(tmp_path / "out")]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_cells_are_printed_rounded_and_written_exactly() -> None:
    sheet = Sheet(
        "t", "A & B", (SheetColumn("name"), SheetColumn("n"), SheetColumn("x", 2, signed=True),
                       SheetColumn("share", 3, percent=True)),
        (("=1+1|2", 1234, 0.126, 0.987), ("y", None, None, None)),
    )  # fmt: skip
    assert sheet.texts() == [["=1+1|2", "1,234", "+0.13", "98.7 %"], ["y", "–", "–", "–"]]
    assert sheet.as_csv().splitlines()[1] == "'=1+1|2,1234,0.126,0.987"
    named = Sheet("t", "T", (SheetColumn("method"), SheetColumn("=HYPERLINK(1)")), (("x", 1),))
    assert named.as_csv().splitlines()[0] == "method,'=HYPERLINK(1)"
    assert r"=1+1\|2" in sheet.markdown() and r"A \& B" in sheet.latex() and r"98.7 \%" in sheet.latex()
