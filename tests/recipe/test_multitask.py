"""Multi-task training in recipes: its cells, its keys, what is refused, and a whole run on a tiny encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from effx.artifacts import Checkpoint
from effx.export import export
from effx.recipe import load, plan, run
from effx.recipe.execute.stages import multitask as stage
from effx.recipe.graph.plan import CellPlan
from effx.recipe.language.schema import RecipeError
from effx.results import find
from effx.specs.multitask import MultitaskSettings
from effx.train import loop
from tests.conftest import write_rows
from tests.train.multitask.test_run import data_folders, weights

__all__ = ["data_folders"]  # a fixture

RECIPE = """
tasks:
  sst2: {{data: {data}/sst2}}
  grades: {{data: {data}/grades, limit: 40}}
models: {{tiny: {model}}}
training: {{max_steps: 3, lr: 4e-3}}
regimes: {{full: {{max_length: 16}}}}
pruned: {{ticket: {{of: full, level: 20}}}}
multitask:
  mtdnn: {{max_length: 16}}
  sharing: {{of: ticket, max_length: 16}}
further: {{single: {{of: sharing}}}}
variants: [{{variant: fp32, of: [mtdnn, single]}}]
workloads: {{grid: [], rounds: 3, block_queries: 8, window_s: 0.1, meter: "model:10"}}
"""


@pytest.fixture
def recipe(tmp_path: Path, encoders: dict[str, Path], data_folders: dict[str, Path]) -> Path:
    path = tmp_path / "tasks.yaml"
    path.write_text(RECIPE.format(data=data_folders["sst2"].parent, model=encoders["bert"]))
    return path


def planned(recipe: Path, *sets: str) -> CellPlan:
    return plan(load(recipe, sets, workspace=recipe.parent / "w"), "here")


def test_cells(recipe: Path) -> None:
    entries = planned(recipe).entries
    names = list(entries)
    assert [name for name in names if name.startswith("multitask ")] == [
        "multitask tiny-mtdnn-s0", "multitask tiny-full-ticket-sharing-s0",
    ]  # fmt: skip
    assert entries["multitask tiny-mtdnn-s0"].cell.sources == ()
    assert entries["multitask tiny-full-ticket-sharing-s0"].cell.sources == (
        "prune sst2-tiny-full-ticket-s0", "prune grades-tiny-full-ticket-s0",
    )  # fmt: skip
    settings = MultitaskSettings.of(
        lr=4e-3, max_steps=3, max_length=16, seed=0, task_limit=["grades=40"],
        precision=loop.choose_precision("auto"),
    )  # fmt: skip
    assert entries["multitask tiny-mtdnn-s0"].cell.settings.multitask == settings  # type: ignore[attr-defined]
    further = entries["further grades-tiny-full-ticket-sharing-single-s0"].cell
    assert further.sources == ("multitask-checkpoint grades-tiny-full-ticket-sharing-s0",)
    assert further.settings.finetune.training.limit == 40  # type: ignore[attr-defined]
    engines = {name.removeprefix("export ") for name in names if name.startswith("export")}
    assert engines == {
        f"{task}-tiny-{labels}-s0.fp32.onnxruntime"
        for task in ("sst2", "grades")
        for labels in ("mtdnn", "full-ticket-sharing-single")
    }
    for entry in entries.values():
        assert all(names.index(source) < names.index(entry.cell.id) for source in entry.cell.sources)
    assert names[-3:] == ["profile sst2", "profile grades", "report tasks"]


def test_rows_of_one_task_decide_the_training_of_all(
    recipe: Path, tmp_path: Path, data_folders: dict[str, Path]
) -> None:
    before = {name: entry.key for name, entry in planned(recipe).entries.items()}
    after = {name: entry.key for name, entry in planned(recipe, "tasks.grades.limit=30").entries.items()}
    same = {name for name in before if before[name] == after.get(name)}
    assert same == {"finetune sst2-tiny-full-s0", "prune sst2-tiny-full-ticket-s0"}


def test_every_seed_has_its_tickets(recipe: Path) -> None:
    entries = planned(recipe, "seeds=[0, 1]").entries
    assert entries["multitask tiny-full-ticket-sharing-s1"].cell.sources == (
        "prune sst2-tiny-full-ticket-s1", "prune grades-tiny-full-ticket-s1",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("multitask.sharing.lr=1e-3", "multitask.sharing.lr: the tickets are trained with 0.004, not 0.001"),
        ("pruned.ticket.optimizer=adamax", "the tickets are trained with adamax, not adamw"),
        ("regimes.full.lr=2e-3", "the tickets are trained with 0.002, not 0.004"),
        ("multitask.sharing.sharing=none", "none does not use tickets: remove the key 'of'"),
        ("multitask.sharing.of=full", "unknown name 'full'"),
        ("multitask.sharing.task_limit=sst2=3", "unknown key"),
        ("further.single.of=ticket", "unknown name 'ticket'"),
        ("multitask.sharing.of=[]", "expected at least one name, or no key 'of'"),
        (
            "multitask.mtdnn.task_dropout=grade=0.1",
            "'grade' is not a task of the recipe. Did you",
        ),
        ("variants=[multi]", "'multi': recipes do not build multi"),
        ("models.tiny={source: X, fresh_head: true}", "gives every task a new head"),
    ],
)
def test_mistakes(recipe: Path, encoders: dict[str, Path], assignment: str, expected: str) -> None:
    with pytest.raises(RecipeError, match=r"1 mistake") as caught:
        load(recipe, [assignment.replace("X", str(encoders["bert"]))])
    assert expected in caught.value.lines()[1]


def test_a_section_that_continues_nothing_is_refused(recipe: Path) -> None:
    text = recipe.read_text()
    recipe.write_text(text[: text.index("multitask:")] + "further: {single: {}}\n")
    with pytest.raises(
        RecipeError, match="further.single: there is nothing that it could continue"
    ) as caught:
        load(recipe)
    assert "add an entry to multitask." in str(caught.value)


def test_one_task_and_kinds_that_are_not_trained_together(recipe: Path, tmp_path: Path) -> None:
    text = recipe.read_text()
    recipe.write_text("\n".join(line for line in text.split("\n") if "grades" not in line))
    with pytest.raises(RecipeError, match="expected at least two tasks"):
        load(recipe)
    for split in ("train", "validation"):
        rows = [{"sentence1": f"a {n}", "sentence2": f"b {n}", "label": n / 2} for n in range(20)]
        write_rows(tmp_path / "pairs" / f"{split}.jsonl", rows)
    grades = next(line for line in text.split("\n") if "grades:" in line)
    pairs = f"  grades: {{data: {tmp_path / 'pairs'}, task_kind: embedding}}"
    recipe.write_text(text.replace(grades, pairs))
    with pytest.raises(RecipeError, match=r"does not support this kind of task \(embedding\)"):
        load(recipe)


def test_tickets_of_another_training_are_accepted_if_said(recipe: Path) -> None:
    sets = ["multitask.sharing.lr=1e-3", "multitask.sharing.mismatched=true"]
    assert planned(recipe, *sets).entries


def test_a_ticket_repeats_the_settings_of_its_regime(recipe: Path) -> None:
    entries = planned(recipe, "regimes.full.lr=2e-3", "multitask.sharing.mismatched=true").entries
    ticket = entries["prune sst2-tiny-full-ticket-s0"].cell.settings
    assert ticket.ticket.finetune.training.lr == 2e-3  # type: ignore[attr-defined]
    assert ticket.ticket.finetune.max_length == 16  # type: ignore[attr-defined]


def test_a_whole_run(recipe: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    result = run(load(recipe, workspace=workspace))
    states = {name: entry.state for name, entry in result.plan.entries.items()}
    assert set(states.values()) == {"done"}, states
    assert result.exit_code == 0
    sharing = [
        Checkpoint.open(workspace / f"checkpoints/{task}-tiny-full-ticket-sharing-s0")
        for task in ("sst2", "grades")
    ]
    tickets = {
        task: Checkpoint.open(workspace / f"checkpoints/{task}-tiny-full-ticket-s0").digest
        for task in ("sst2", "grades")
    }
    for checkpoint in sharing:
        shared = checkpoint.manifest.shared
        assert shared is not None and dict(shared.tickets) == tickets
        further = Checkpoint.open(
            workspace / f"checkpoints/{checkpoint.task.name}-tiny-full-ticket-sharing-single-s0"
        )
        assert further.manifest.structure == checkpoint.manifest.structure
        before, after = weights(checkpoint), weights(further)
        assert before.keys() == after.keys() and any((before[name] != after[name]).any() for name in before)
    assert sharing[1].manifest.training.rows == 40
    assert [len(find([workspace / "results" / task])) for task in ("sst2", "grades")] == [2, 2]
    engine = export(workspace / "checkpoints/sst2-tiny-mtdnn-s0", "multi", out=tmp_path / "engines")
    assert [head.checkpoint.name for head in engine.manifest.other_heads] == ["grades-tiny-mtdnn-s0"]
    again = run(load(recipe, workspace=workspace))
    assert all(entry.earlier for entry in again.plan.entries.values())


def test_training_that_was_stopped_goes_on_from_the_workspace(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned_cells = planned(recipe, "training.max_steps=20")  # of 7 in an epoch
    spec = planned_cells.spec(planned_cells.entries["multitask tiny-mtdnn-s0"], 1)
    state = Path(spec.workspace) / "paused" / spec.run_key
    fit, begun = loop.fit, []

    def stopped(*arguments: Any, **options: Any) -> Any:
        begun.append(options["segment"].begin)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return fit(*arguments, **options)

    monkeypatch.setattr(loop, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        stage.run(spec, tmp_path / "first")
    assert begun == [None, state / "1", state / "2"]
    stage.run(spec, tmp_path / "second")
    assert begun[3] == state / "2"
    assert {path.name for path in (tmp_path / "second" / spec.name).iterdir()} == {
        f"{spec.name}-{task}" for task in ("sst2", "grades")
    }
