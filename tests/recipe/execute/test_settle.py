"""One cell and its record, with a stage function that writes two files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from effx.errors import EffxError
from effx.recipe import load
from effx.recipe import plan as plan_of
from effx.recipe.execute import settle
from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.store import CellStore
from effx.recipe.graph.plan import PlanEntry
from tests.conftest import write_rows

RECIPE = """
tasks: {{sst2: {{data: {0}/data}}}}
models: {{tiny: {0}/model}}
variants: []
workspace: {0}/w
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    for split in ("train", "validation"):
        rows = [{"sentence": f"row {number}", "label": number % 2} for number in range(40)]
        write_rows(tmp_path / "data" / f"{split}.jsonl", rows)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(tmp_path))
    CellStore(tmp_path / "w").create()
    does(monkeypatch)
    return tmp_path


def does(monkeypatch: pytest.MonkeyPatch, more: Callable[[], object] = lambda: None) -> None:
    """Let the stage function write two files, and do ``more``."""

    def run(cell: CellSpec, out: Path) -> StageOutput:
        (out / cell.name / "part").mkdir(parents=True)
        (out / cell.name / "a.txt").write_text("twelve bytes")
        (out / cell.name / "part" / "b.txt").write_text("b")
        more()
        return StageOutput(None)

    monkeypatch.setattr(settle, "function", lambda stage: run)


def entry(folder: Path) -> tuple[PlanEntry, CellSpec]:
    made = plan_of(load(folder / "recipe.yaml"), "here")
    (only,) = made.entries.values()
    return only, made.spec(only, 1)


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_an_output_that_was_copied_in_part_is_made_again(folder: Path, damage: str) -> None:
    settle.settle(entry(folder)[1])
    done, _ = entry(folder)
    assert done.state == "done" and done.record is not None
    assert done.record.sizes == {"a.txt": 12, "part/b.txt": 1}
    path = folder / "w" / "cells" / done.key / done.cell.name / "a.txt"
    if damage == "missing":
        path.unlink()
    else:
        path.write_text("twelve")
    assert entry(folder)[0].state == "todo"
    settle.settle(entry(folder)[1])
    assert entry(folder)[0].state == "done"


def test_records_without_sizes_are_complete_where_there_is_a_file(folder: Path) -> None:
    settle.settle(entry(folder)[1])
    done, _ = entry(folder)
    cell = folder / "w" / "cells" / done.key
    text = (cell / "cell.json").read_text()
    start = text.index(',\n "sizes"')
    (cell / "cell.json").write_text(text[:start] + "\n}\n")
    (cell / done.cell.name / "a.txt").unlink()
    assert entry(folder)[0].state == "done"


CHANGES: dict[str, Callable[[Path], object]] = {
    "train.jsonl": lambda folder: (folder / "data" / "train.jsonl").write_text('{"sentence": "x"}\n'),
    "no validation rows": lambda folder: (folder / "data" / "validation.jsonl").unlink(),
    "model.safetensors": lambda folder: (folder / "model" / "model.safetensors").write_bytes(b"WEIGHTS!"),
    "the list of files of its rows or model": lambda folder: (folder / "model" / "vocab.txt").write_text(
        "new"
    ),
}


@pytest.mark.parametrize(
    ("changed", "when"),
    [*((changed, "before") for changed in CHANGES), ("train.jsonl", "while"), ("model.safetensors", "while")],
)
def test_inputs_that_change_after_planning_fail_the_cell(
    folder: Path, monkeypatch: pytest.MonkeyPatch, changed: str, when: str
) -> None:
    _, spec = entry(folder)
    if when == "before":
        CHANGES[changed](folder)
    else:
        does(monkeypatch, lambda: CHANGES[changed](folder))
    with pytest.raises(EffxError, match=changed.replace(".", r"\.")):
        settle.settle(spec)
    assert CellStore(folder / "w").find(spec.key) is None


@pytest.mark.parametrize("changed", ["no validation rows", "the list of files of its rows or model"])
def test_files_that_are_gone_or_new_once_the_cell_was_done_had_no_effect(
    folder: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """A note beside the model, or a disk that was unmounted, costs no hours of training."""
    does(monkeypatch, lambda: CHANGES[changed](folder))
    assert settle.settle(entry(folder)[1]).outcome == "done"


def test_a_run_keeps_the_digests_that_it_began_with(folder: Path) -> None:
    """Cells that are planned later would otherwise learn from other rows than those before."""
    made = plan_of(load(folder / "recipe.yaml"), "here")
    before = {name: each.key for name, each in made.entries.items()}
    write_rows(folder / "data" / "train.jsonl", [{"sentence": "another", "label": n % 2} for n in range(40)])
    CHANGES["the list of files of its rows or model"](folder)
    made._outdated = True
    made.refresh()
    assert {name: each.key for name, each in made.entries.items()} == before
    (only,) = made.entries.values()
    with pytest.raises(EffxError, match="has changed since the run was planned"):
        settle.settle(made.spec(only, 1))
    assert entry(folder)[0].key != only.key


def test_a_journal_that_was_cut_within_a_character_is_read(folder: Path) -> None:
    store = CellStore(folder / "w")
    store.note("begun", "k1", "höhe")
    (path,) = (folder / "w" / "journal").glob("*.jsonl")
    path.write_bytes(path.read_bytes()[: path.read_bytes().index("ö".encode()) + 1])
    store.note("begun", "k2", "next")
    assert [line["key"] for line in store.journal()] == ["k2"]
