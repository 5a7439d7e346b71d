"""Keys of cells: what is unchanged keeps its key, what changes takes along all that depends on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from effx.recipe import load
from effx.recipe.execute.store import Workspace
from effx.recipe.graph.cells import Cell, cells
from effx.recipe.graph.digests import Digests
from effx.recipe.graph.plan import Plan
from tests.conftest import write_rows

RECIPE = """
tasks: {{sst2: {{data: {data}, limit: 40}}}}
models: {{tiny: {model}}}
regimes: [full, frozen]
pruned: {{ticket40: {{of: full, level: 40}}}}
lottery: {{zeros: {{sparsity: 20}}}}
tokens: {{half: {{of: [full, ticket40], keep: 0.5}}}}
exits: {{early: {{of: [full, half]}}}}
variants: [fp32, int8, tokens, exit+int8, tokens+exit, {{variant: seq16+int8, of: full}}]
backends: [onnxruntime, openvino]
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    rows = [{"sentence": f"row {number}", "label": number % 2} for number in range(60)]
    for split in ("train", "validation"):
        write_rows(tmp_path / "data" / f"{split}.jsonl", rows)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(data=tmp_path / "data", model=model))
    return tmp_path


def plan(place: Path, *assignments: str, host: str = "here") -> Plan:
    recipe = load(place / "recipe.yaml", assignments, workspace=place / "w")
    return Plan(cells(recipe, Digests(place / "digests.json"), host), Workspace(place / "w"))


def keys(place: Path, *assignments: str, host: str = "here") -> dict[str, str]:
    return {name: entry.key for name, entry in plan(place, *assignments, host=host).entries.items()}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before | after if before.get(name) != after.get(name)}


def test_what_a_recipe_makes(place: Path) -> None:
    names = list(keys(place))
    engines = {name.removeprefix("export sst2-tiny-") for name in names if name.endswith(".openvino")}
    assert engines == {
        "full-s0.fp32.openvino", "full-s0.int8.openvino", "full-s0.seq16+int8.openvino",
        "frozen-s0.fp32.openvino", "frozen-s0.int8.openvino", "full-half-s0.tokens.openvino",
        "full-early-s0.exit+int8.openvino", "full-half-early-s0.tokens+exit.openvino",
        "full-ticket40-s0.fp32.openvino", "full-ticket40-s0.int8.openvino",
        "zeros-s0.fp32.openvino", "zeros-s0.int8.openvino",
        "full-ticket40-half-s0.tokens.openvino", "full-ticket40-half-early-s0.tokens+exit.openvino",
    }  # fmt: skip
    assert names.index("finetune sst2-tiny-full-s0") < names.index("tokens sst2-tiny-full-half-s0")
    assert names.index("tokens sst2-tiny-full-half-s0") < names.index("exits sst2-tiny-full-half-early-s0")
    assert names[-2:] == ["profile sst2", "report recipe"]
    assert len(set(keys(place).values())) == len(names)


def test_nothing_changed_nothing_changes(place: Path) -> None:
    first = keys(place)
    (place / "data").rename(place / "moved")
    (place / "recipe.yaml").write_text(RECIPE.format(data=place / "moved", model=place / "model"))
    assert keys(place) == first  # the same rows elsewhere are the same rows
    assert keys(place, "budgets.threads=1", "name=recipe") == first


def test_a_change_takes_along_what_depends_on_it(place: Path) -> None:
    before = keys(place)
    ends = {"profile sst2", "report recipe"}
    found = changed(before, keys(place, "exits.early.epochs=1"))
    assert found == ends | {name for name in before if "early" in name}
    assert changed(before, keys(place, "workloads.rounds=5")) == ends
    found = changed(before, keys(place, "lottery.zeros.sparsity=30"))
    assert found == ends | {name for name in before if "zeros" in name}
    assert changed(before, keys(place, host="elsewhere")) == ends
    found = changed(before, keys(place, "calibration_rows=64"))
    assert found == ends | {name for name in before if name.startswith("export")}
    found = changed(before, keys(place, "regimes={full: {}, frozen: {lr: 0.01}}"))
    assert found == ends | {name for name in before if "frozen" in name}
    (place / "model" / "model.safetensors").write_bytes(b"other")
    assert changed(before, keys(place)) == set(before)


def test_rows_that_change_change_everything(place: Path) -> None:
    before = keys(place)
    path = place / "data" / "train.jsonl"
    path.write_text(path.read_text().replace("row 7", "row seven"))
    found = changed(before, keys(place))
    assert {name for name in before if not name.startswith("pretrain")} == found


def test_code_counts_and_comments_do_not(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from effx.recipe.graph import digests

    copy = tmp_path / "effx"
    shutil.copytree(digests._ROOT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(digests, "_ROOT", copy)
    before = keys(place)
    path = copy / "train" / "exits.py"
    path.write_text(path.read_text().replace('"""Early exits:', '# a remark\n"""Early  exits:'))
    assert changed(before, keys(place)) == set()
    path.write_text(path.read_text().replace("_POINTS = 8", "_POINTS = 9"))
    found = changed(before, keys(place))
    assert found == {name for name in before if "early" in name} | {"profile sst2", "report recipe"}


def test_a_profile_is_of_the_engines_that_worked_out(place: Path) -> None:
    made = plan(place)
    entries = made.entries
    before = entries["profile sst2"].key
    for name, entry in entries.items():
        if name.startswith(("finetune", "prune", "lottery", "tokens", "exits")):
            entry.state = "done"
        elif name.startswith("export"):
            entry.state = "gate" if "openvino" in name else "done"
    made.refresh()
    after = entries["profile sst2"]
    assert after.state == "todo" and after.key != before
    read = made.spec(after, 1)["read"]
    assert len(read) == 14 and all("onnxruntime" in path for path in read)
    assert [entry.cell.id for entry in made.ready()] == ["profile sst2"]


def test_what_cannot_be_done_is_blocked(place: Path) -> None:
    made = plan(place)
    made.entries["finetune sst2-tiny-full-s0"].state = "failed"
    made.refresh()
    blocked = {name for name, entry in made.entries.items() if entry.state == "blocked"}
    assert blocked == {name for name in made.entries if "tiny-full" in name} - {"finetune sst2-tiny-full-s0"}
    note = made.entries["tokens sst2-tiny-full-half-s0"].note
    assert note == "needs finetune sst2-tiny-full-s0, which is failed"


def test_estimates_go_with_the_work() -> None:
    from effx.recipe.graph.estimate import Estimates

    found = Estimates([])
    one = Cell("finetune", "a", {}, work=1000.0, group="minilm full")
    assert found.seconds(one) is None
    found.learn("finetune", "minilm full", 10.0, 500.0)
    found.learn("finetune", "minilm frozen", 2.0, 500.0)
    assert found.seconds(one) == pytest.approx(20.0)
    assert found.seconds(Cell("finetune", "b", {}, work=1000.0, group="new")) == pytest.approx(12.0)


def test_every_kind_of_cell_is_known_everywhere() -> None:
    from effx.recipe.execute import kinds
    from effx.recipe.graph import digests

    assert set(kinds.KINDS) == set(digests._ENTRIES) == set(digests._PACKAGES)
    for kind, patterns in digests._ENTRIES.items():
        for pattern in patterns:
            assert list(digests._ROOT.glob(pattern)), f"{kind}: no code at {pattern}"


def test_a_sweep_for_tickets(place: Path) -> None:
    text = (place / "recipe.yaml").read_text().split("regimes")[0]
    (place / "recipe.yaml").write_text(
        text + 'tickets: {levels: ["20,...,60"], kinds: [winning, random], seeds: 2}\n'
    )
    names = list(keys(place))
    assert len(names) == 2 * (1 + 3 * 2) + 1
    assert names[0] == "tickets-full sst2-tiny-full-s0" and names[-1] == "tickets sst2-tiny"
    before = keys(place)
    found = changed(before, keys(place, "tickets.levels=[20, 40, 60, 80]"))  # a level more: the others stay
    added = {f"ticket sst2-tiny-{kind}80-s{seed}" for kind in ("winning", "random") for seed in (0, 1)}
    assert found == added | {"tickets sst2-tiny"}
    assert changed(before, keys(place, "tickets.importance=magnitude")) == set(before)
    assert list(keys(place, "tickets.search=halving")) == ["tickets sst2-tiny"]


def test_a_preset_goes_before_training_and_after_the_sweep_s_own(place: Path) -> None:
    from effx.recipe.graph import tickets

    text = (place / "recipe.yaml").read_text().split("regimes")[0]
    (place / "recipe.yaml").write_text(
        text
        + "training: {lr: 0.5, epochs: 1, max_steps: 7}\ntickets: {levels: [20], preset: super-tickets}\n"
    )

    def settings(*assignments: str, cell: str = "ticket sst2-tiny-winning20-s0") -> tuple[object, ...]:
        made = plan(place, *assignments)
        found = tickets._settings(made.spec(made.entries[cell], None))
        return found.lr, found.epochs, found.max_steps, found.limit

    for cell in ("tickets-full sst2-tiny-full-s0", "ticket sst2-tiny-winning20-s0", "tickets sst2-tiny"):
        assert settings(cell=cell) == (1e-4, 6.0, 7, 40)
    assert settings("tickets.epochs=2") == (1e-4, 2.0, 7, 40)
    assert settings("tickets.preset=") == (0.5, 1.0, 7, 40)
    before = keys(place)
    assert changed(before, keys(place, "training.weight_decay=0.1")) == set(before)


def test_an_engine_that_two_variants_ask_for_is_built_once(place: Path) -> None:
    made = plan(place, "variants=[fp32, {variant: fp32, of: full}, tokens, exit+int8, tokens+exit]")
    needs = made.entries["profile sst2"].cell.needs
    assert "export sst2-tiny-full-s0.fp32.openvino" in needs and len(set(needs)) == len(needs)
