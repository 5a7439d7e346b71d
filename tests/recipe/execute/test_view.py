"""The progress of a plan."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from effx.recipe.execute import view
from effx.recipe.execute.store import CellStore
from effx.recipe.graph.cells import Cell
from effx.recipe.graph.plan import CellPlan
from effx.specs.stages import ExportStage, FinetuneStage


@pytest.fixture
def plan(tmp_path: Path) -> CellPlan:
    cells = [Cell("finetune", name, FinetuneStage(task="sst2"), group="g") for name in "abc"]
    export = ExportStage(variant="fp32", backend="onnxruntime")
    cells += [Cell("export", f"{name}.fp32", export, sources=(f"finetune {name}",)) for name in "ab"]
    cell_plan = CellPlan(lambda artifacts: cells, CellStore(tmp_path))
    cell_plan.entries["finetune a"].state = "done"
    cell_plan.entries["finetune b"].state = "failed"
    cell_plan.entries["finetune b"].note = "memory ran out"
    cell_plan.entries["finetune b"].seconds = 71.0
    cell_plan.entries["finetune c"].state = "running"
    cell_plan.refresh()
    cell_plan.estimates.learn("export", "", 90.0, 1.0)
    return cell_plan


def test_the_live_view_shows_every_stage(plan: CellPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich.live.Live.start", lambda self: None)
    monkeypatch.setattr("rich.live.Live.update", lambda self, *_, **__: None)
    live = view._Live(plan, 1)
    workspace = plan.store
    workspace.create()
    entry = plan.entries["finetune c"]
    workspace.log(entry.key).write_text("train c: 160 rows\n  40% after 10 s, about 15 s left loss 0.612\n\n")
    live.tick({"finetune c": 12.0}, "")
    out = io.StringIO()
    Console(file=out, width=120).print(live._table())
    lines = out.getvalue().splitlines()
    header = lines[0].split()
    assert header == ["done", "gate", "refused", "failed", "blocked", "running", "to", "do"]
    assert [line.split() for line in lines[1:3]] == [["finetune", "1", "1", "1"], ["export", "1", "1"]]
    assert any("finetune c  12 s  40% after 10 s, about 15 s left loss 0.612" in line for line in lines)
    assert lines[-1].strip() == "about 90 s remaining"


def test_plain_lines_where_there_is_no_terminal(plan: CellPlan, capsys: pytest.CaptureFixture[str]) -> None:
    shown = view.view(plan, 1)
    shown.began(plan.entries["export a.fp32"])
    shown.ended(plan.entries["finetune b"])
    shown.ended(plan.entries["export b.fp32"])
    for _ in range(2):
        shown.tick({}, "waiting for export a.fp32, which is run by process 3 on elsewhere")
    shown.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "export a.fp32: started, about 90 s",
        "[3/5] finetune b: failed in 71 s: memory ran out",
        "[3/5] export b.fp32: blocked: needs finetune b, which is failed",
        "waiting for export a.fp32, which is run by process 3 on elsewhere",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99, "99 s"), (110, "2 min"), (3600, "60 min"), (11_100, "3 h 05 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert view.duration(seconds) == text
