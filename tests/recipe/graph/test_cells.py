"""Cells of a recipe and their keys: a change of an input changes the keys of all that depends on it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from effx.errors import ArtifactError, UsageError
from effx.host import cpu
from effx.recipe import load
from effx.recipe import plan as plan_of
from effx.recipe.execute import settle
from effx.recipe.graph import build, digests, processor
from effx.recipe.graph.cells import Cell
from effx.recipe.graph.estimate import Estimates
from effx.recipe.graph.plan import CellPlan
from effx.recipe.language.schema import RecipeError
from effx.specs.levels import Level
from effx.specs.stages import STAGES, FinetuneStage
from tests.conftest import write_rows

TRAINING = {
    "adapt", "exits", "finetune", "further", "lottery", "lottery-mask", "lottery-rewind", "multitask",
    "one-shot", "pretrain", "prune", "recovery", "ticket", "tickets-full", "tickets-scores", "tokens",
}  # fmt: skip
"""Stages that train or score weights."""
TABLES = {"adaptation", "lottery-table", "tickets", "transfer-table"}
"""Stages that write a sweep's table and figures."""
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
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    rows = [{"sentence": f"row {number}", "label": number % 2} for number in range(60)]
    for split in ("train", "validation"):
        write_rows(tmp_path / "data" / f"{split}.jsonl", rows)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(data=tmp_path / "data", model=model))
    return tmp_path


def plan(folder: Path, *assignments: str, host: str = "here") -> CellPlan:
    return plan_of(load(folder / "recipe.yaml", assignments, workspace=folder / "w"), host)


def keys(folder: Path, *assignments: str, host: str = "here") -> dict[str, str]:
    return {name: entry.key for name, entry in plan(folder, *assignments, host=host).entries.items()}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Return the cells whose keys differ."""
    return {name for name in before | after if before.get(name) != after.get(name)}


def test_a_model_is_trained_by_the_entries_that_it_names(folder: Path) -> None:
    before = keys(folder)
    second = f"models.small={{source: {folder / 'model'}, only: [full, ticket40]}}"
    after = keys(folder, second)
    new = {name for name in after if name not in before}
    assert {name.removesuffix(".openvino").removesuffix(".onnxruntime") for name in new} == {
        "finetune sst2-small-full-s0", "prune sst2-small-full-ticket40-s0",
        *(f"export sst2-small-full-s0.{variant}" for variant in ("fp32", "int8", "seq16+int8")),
        *(f"export sst2-small-full-ticket40-s0.{variant}" for variant in ("fp32", "int8")),
    }  # fmt: skip
    assert changed(before, {name: after[name] for name in before}) == {"profile sst2", "report recipe"}
    measured = plan(folder, second).entries["profile sst2"].cell.sources
    assert {f"export sst2-{model}-full-s0.int8.openvino" for model in ("small", "tiny")} <= {*measured}
    # the label of the model that is reduced may name its entries, too
    both = second.removeprefix("models.small=")
    both = f"models={{small: {both}, tiny: {{source: {folder / 'model'}, only: [zeros]}}}}"
    alone = keys(folder, both, "variants=[fp32]", "tokens={}", "exits={}", "regimes=[full]")
    assert {name for name in alone if name.startswith(("finetune", "prune", "lottery"))} == {
        "finetune sst2-small-full-s0", "prune sst2-small-full-ticket40-s0",
        *(f"lottery sst2-tiny-zeros{part}-s0" for part in ("-round0", "-round10", "")),
        *(f"lottery-mask sst2-tiny-zeros-mask{percent}-s0" for percent in (10, 20)),
    }  # fmt: skip


def test_only_models_that_need_the_level_take_part_in_the_search(folder: Path) -> None:
    search = ("tickets={levels: [40], seeds: 1, kinds: winning}", "lottery={}", "tokens={}", "exits={}",
              "variants=[fp32]", "regimes=[full]")  # fmt: skip
    second = f"models.small={{source: {folder / 'model'}, only: [full]}}"
    for level in (40, "super"):
        names = keys(folder, *search, f"pruned.ticket40.level={level}", second)
        assert {name for name in names if name.startswith("tickets-full")} == {
            "tickets-full sst2-tiny-full-s0"
        }
    names = keys(folder, *search, "pruned.ticket40.level=super", second.replace("[full]", "[full, ticket40]"))
    assert "tickets-full sst2-small-full-s0" in names


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("[ful]", "'ful': there is no such label. Did you mean 'full'?"),
        ("[]", "expected at least one entry"),
        ("[ticket40]", "'ticket40' continues full, which is missing here"),
        ("[early, full, half, taught]", "the teacher of 'taught', 'frozen', is missing here"),
    ],
)
def test_labels_that_a_model_cannot_be_trained_by_are_refused(folder: Path, only: str, message: str) -> None:
    model = f"models.small={{source: {folder / 'model'}, only: {only}}}"
    with pytest.raises(RecipeError, match=re.escape(message)) as caught:
        plan(folder, model, "regimes={full: {}, frozen: {regime: frozen}, taught: {teacher: frozen}}")
    assert "models.small.only" in str(caught.value)


def test_an_entry_that_no_model_is_trained_by_is_refused(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"regimes\.frozen: no model is trained by it"):
        plan(
            folder,
            "models.tiny={source: " + str(folder / "model") + ", only: [full, ticket40, zeros, half, early]}",
        )


def test_sizes_are_those_of_the_models_that_an_entry_trains(folder: Path, encoders: dict[str, Path]) -> None:
    models = f"models={{a: {folder / 'model'}, b: {{source: {encoders['distilbert']}, only: [full]}}}}"
    deep = "regimes={full: {}, deep: {layers: 8}}"
    rest = ("pruned={}", "lottery={}", "tokens={}", "exits={}", "variants=[fp32]")
    assert "finetune sst2-a-deep-s0" in keys(folder, models, deep, *rest)
    with pytest.raises(RecipeError, match="8: model 'b' has 3 layers"):
        plan(folder, models.replace("[full]", "[full, deep]"), deep, *rest)


def test_cells_of_a_recipe(folder: Path) -> None:
    names = list(keys(folder))
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
    assert len(set(keys(folder).values())) == len(names)


def test_a_teacher_is_a_cell_that_the_student_reads(folder: Path) -> None:
    text = (folder / "recipe.yaml").read_text()
    text = text.replace("[full, frozen]", "{full: {}, small: {layers: 2, teacher: full, temperature: 4}}")
    text = text.replace("level: 40}", "level: 40, teacher: small}")
    (folder / "recipe.yaml").write_text(text)
    cells = plan(folder).entries
    student = cells["finetune sst2-tiny-small-s0"].cell
    assert student.sources == ("finetune sst2-tiny-full-s0",)
    assert student.settings.flat()["teacher"] == "sst2-tiny-full-s0"
    assert student.settings.flat()["temperature"] == 4.0
    ticket = cells["prune sst2-tiny-full-ticket40-s0"].cell
    assert ticket.sources == ("finetune sst2-tiny-full-s0", "finetune sst2-tiny-small-s0")
    moved = changed(keys(folder), keys(folder, "regimes.full.epochs=7"))
    assert {"finetune sst2-tiny-small-s0", "prune sst2-tiny-full-ticket40-s0"} <= moved
    moved = changed(keys(folder), keys(folder, "regimes.small.temperature=3"))
    assert {"finetune sst2-tiny-small-s0", "prune sst2-tiny-full-ticket40-s0"} <= moved
    assert "finetune sst2-tiny-full-s0" not in moved


def test_keys_do_not_depend_on_where_files_are(folder: Path) -> None:
    first = keys(folder)
    (folder / "data").rename(folder / "moved")
    (folder / "recipe.yaml").write_text(RECIPE.format(data=folder / "moved", model=folder / "model"))
    assert keys(folder) == first  # the same rows elsewhere are the same rows
    assert keys(folder, "budgets.threads=1", "name=recipe") == first


def test_what_decides_a_result_of_the_processor_is_in_its_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on(*flags: str) -> None:
        monkeypatch.setattr(cpu, "this_cpu", lambda: cpu.Cpu("a processor", frozenset(flags), "x86_64"))

    monkeypatch.setattr(processor, "_may_have_gpu", lambda: False)
    fixed = ("training.precision=fp32", "backends=[onnxruntime, torch]", "pruned={}", "lottery={}",
             "tokens={}", "exits={}", "variants=[fp32, bf16, int8-dynamic]")  # fmt: skip
    on("avx512_bf16", "avx512_vnni")
    whole, before, both = keys(folder), keys(folder, *fixed), plan(folder).entries
    assert {entry.cell.settings.flat().get("precision", "bf16") for entry in both.values()} == {"bf16"}
    on("avx512_bf16")
    exports = {name for name in before if name.startswith("export")}
    ends = {"profile sst2", "report recipe"}
    assert changed(before, keys(folder, *fixed)) == ends | {
        name for name in exports if name.endswith(".int8-dynamic.onnxruntime")
    }  # fmt: skip
    on("avx512_vnni")
    built = {name for name in exports if name.endswith(".bf16.torch")}
    assert built and changed(before, keys(folder, *fixed)) == ends | built
    assert changed(whole, keys(folder)) == set(whole)  # all begin with a training whose precision is auto
    assert keys(folder) == keys(folder, "training.precision=fp32")


def test_a_change_changes_the_keys_of_all_that_depends_on_it(folder: Path) -> None:
    before = keys(folder)
    ends = {"profile sst2", "report recipe"}
    moved = changed(before, keys(folder, "exits.early.epochs=1"))
    assert moved == ends | {name for name in before if "early" in name}
    assert changed(before, keys(folder, "workloads.rounds=5")) == ends
    moved = changed(before, keys(folder, "lottery.zeros.sparsity=30"))
    reused = {"lottery sst2-tiny-zeros-round0-s0", "lottery sst2-tiny-zeros-round10-s0"}
    reused |= {"lottery-mask sst2-tiny-zeros-mask10-s0", "lottery-mask sst2-tiny-zeros-mask20-s0"}
    added = {"lottery sst2-tiny-zeros-round20-s0", "lottery-mask sst2-tiny-zeros-mask30-s0"}
    assert moved == ends | added | {name for name in before if "zeros" in name} - reused
    timed = {name for name in before if name.startswith("export") and "int8" in name}
    assert len(timed) == 12  # their scheme is chosen by time, and those of fp32 are not
    assert changed(before, keys(folder, host="elsewhere")) == ends | timed
    moved = changed(before, keys(folder, "calibration_rows=64"))
    assert moved == ends | {name for name in before if name.startswith("export")}
    moved = changed(before, keys(folder, "regimes={full: {}, frozen: {lr: 0.01}}"))
    assert moved == ends | {name for name in before if "frozen" in name}
    (folder / "model" / "model.safetensors").write_bytes(b"other")
    assert changed(before, keys(folder)) == set(before)


def test_engines_that_are_built_for_a_workload_are_of_the_host_that_times_them(folder: Path) -> None:
    assignments = ("variants=[fp32]", "exits={}", "tokens={}", "built_for=single")
    before = keys(folder, *assignments)
    moved = changed(before, keys(folder, *assignments, host="elsewhere"))
    assert {name for name in before if name.startswith("export")} <= moved


def test_changed_rows_change_every_key(folder: Path) -> None:
    before = keys(folder)
    path = folder / "data" / "train.jsonl"
    path.write_text(path.read_text().replace("row 7", "row seven"))
    moved = changed(before, keys(folder))
    assert {name for name in before if not name.startswith("pretrain")} == moved


def test_how_rows_are_read_is_part_of_every_key(folder: Path) -> None:
    before = keys(folder)
    moved = changed(before, keys(folder, "tasks.sst2.text_column=sentence"))
    assert {name for name in before if not name.startswith("pretrain")} == moved


@pytest.fixture(scope="module")
def copy_of_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("package") / "effx"
    shutil.copytree(digests._ROOT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture
def package(copy_of_package: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package, whose files may be changed; they are restored at the end of the test."""
    before = {path: path.read_bytes() for path in copy_of_package.rglob("*.*") if path.is_file()}
    monkeypatch.setattr(digests, "_ROOT", copy_of_package)
    yield copy_of_package
    for path in copy_of_package.rglob("*.*"):
        if path.is_file() and path not in before:
            path.unlink()
        elif path.is_file() and path.read_bytes() != before[path]:
            path.write_bytes(before[path])


def code_of_stages(folder: Path, *, backend: str = "onnxruntime", meter: str = "rapl") -> dict[str, str]:
    known = digests.Digests(folder / "digests.json")
    return {stage: known.code(stage, (backend,), meter) for stage in STAGES}


@pytest.mark.parametrize(
    ("file", "before", "after", "stages"),
    [
        ("train/exits.py", "_POINTS = 8", "_POINTS = 9", {"exits"}),
        ("train/adamax.py", "", "MORE = 1", TRAINING),
        ("train/tickets/figure.py", '"#0072b2"', '"#0072b3"', {"tickets"}),
        ("train/tickets/table.py", "the other", "the others", {"tickets"}),
        ("tickets/plan.py", "(seed, 3)", "(seed, 4)", {"prune", "tickets-scores", "ticket"}),
        ("train/lottery/table.py", "One seed", "A seed", {"lottery-table"}),
        ("train/lottery/figure.py", '"#444444"', '"#444445"', {"lottery-table"}),
        ("train/lottery/start.py", "(seed, 17)", "(seed, 19)", {"lottery", "lottery-rewind"}),
        ("train/lottery/language.py", "", "MORE = 1", {"lottery-mask"}),
        ("train/lottery/blocks.py", "", "MORE = 1", {"lottery-mask"}),
        ("train/tickets/halving.py", '"remaining"', '"left"', {"tickets-rung", "tickets"}),
        ("report/assets/page.css", "{", " {", {"report"}),
        ("report/assets/main.js", "", "// more", {"report"}),
        ("meters/rapl.py", "", "MORE = 1", {"costs", "profile"}),
        ("meters/nvml.py", "", "MORE = 1", set()),
        ("profile/worker.py", "", "MORE = 1", {"choosing", "profile"}),
        ("engines/openvino.py", "", "MORE = 1", set()),
        ("engines/onnxruntime.py", "", "MORE = 1", {"choosing", "costs", "export", "fastest", "profile"}),
        ("export/builders/openvino.py", "", "MORE = 1", set()),
        ("export/builders/onnxruntime.py", "", "MORE = 1", {"costs", "export"}),
        ("specs/exits.py", "mode: Annotated", "more: int = 3\n    mode: Annotated", {"exits"}),
        ("specs/backends.py", 'layer_taps="torch"', "layer_taps=None", set()),
        ("recipe/execute/stages/ticket.py", "", "MORE = 1", {"ticket"}),
        ("files.py", "", "MORE = 1", set()),
        ("formatting.py", "", "MORE = 1", {"answer", "report", *TABLES}),
        ("train/understood.py", "", "MORE = 1", set()),
        ("recipe/execute/stages/drawing.py", "", "MORE = 1", TABLES),
        ("cli/__init__.py", "", "MORE = 1", set()),
    ],
)
def test_keys_of_the_stages_that_a_changed_file_decides(
    package: Path, tmp_path: Path, file: str, before: str, after: str, stages: set[str]
) -> None:
    unchanged = code_of_stages(tmp_path)
    path = package / file
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1) if before else f"{text}\n{after}\n")
    assert changed(unchanged, code_of_stages(tmp_path)) == stages


def test_a_new_meter_changes_no_key(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metered = code_of_stages(tmp_path, meter="auto")
    (package / "meters/shunt.py").write_text((package / "meters/model.py").read_text())
    table = package / "specs/meters.py"
    row = '        MeterSpec("replay", '
    text = table.read_text().replace(row, f'        MeterSpec("shunt", "a shunt"),\n{row}')
    assert "a shunt" in text
    table.write_text(text)
    monkeypatch.setitem(digests.METERS, "shunt", digests.METERS["model"])  # type: ignore[index]
    assert code_of_stages(tmp_path, meter="auto") == metered


def test_comments_and_docstrings_change_no_key(package: Path, tmp_path: Path) -> None:
    unchanged = code_of_stages(tmp_path)
    path = package / "train" / "exits.py"
    path.write_text("# a comment\n" + path.read_text().replace('"""Early exits', '"""Early  exits', 1))
    assert code_of_stages(tmp_path) == unchanged


def test_a_change_of_code_changes_the_keys_of_its_cells_and_of_what_reads_them(
    folder: Path, package: Path
) -> None:
    before = keys(folder)
    path = package / "train" / "exits.py"
    path.write_text(path.read_text().replace("_POINTS = 8", "_POINTS = 9"))
    assert changed(before, keys(folder)) == {name for name in before if "early" in name} | {
        "profile sst2", "report recipe",
    }  # fmt: skip


@pytest.mark.parametrize("change", [("_ROWS = 64", "_ROWS = 1"), ("_BATCH = 16", "_BATCH = 1")])
def test_the_queries_in_which_candidates_are_timed_are_in_the_key(
    folder: Path, package: Path, change: tuple[str, str]
) -> None:
    before = code_of_stages(folder)
    path = package / "export" / "fastest.py"
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(*change))
    assert "export" in changed(before, code_of_stages(folder))


def test_an_unknown_backend_has_no_key(tmp_path: Path) -> None:
    known = digests.Digests(tmp_path / "digests.json")
    for question in (known.code, known.versions):
        with pytest.raises(UsageError, match="unknown backend 'openvinno'.*Did you mean 'openvino'"):
            question("export", ("openvinno",))


def test_every_stage_has_code_and_a_function() -> None:
    for stage, row in STAGES.items():
        assert callable(settle.function(stage))
        for pattern in (*row.code, *row.assets):
            assert list(digests._ROOT.glob(pattern)), f"{stage}: no file at {pattern}"
        assert set(row.follows) <= set(STAGES)


def test_a_profile_reads_the_engines_that_were_built(folder: Path) -> None:
    planned = plan(folder)
    entries = planned.entries
    before = entries["profile sst2"].key
    for name, entry in entries.items():
        if name.startswith(("finetune", "prune", "lottery", "tokens", "exits")):
            entry.state = "done"
        elif name.startswith("export"):
            entry.state = "gate" if "openvino" in name else "done"
    planned.refresh()
    after = entries["profile sst2"]
    assert after.state == "todo" and after.key != before
    names = [source.name for source in planned.spec(after, 1).sources]
    assert len(names) == 14 and all("onnxruntime" in name for name in names)
    assert [entry.cell.id for entry in planned.ready()] == ["profile sst2"]


def test_cells_that_read_a_failed_one_are_blocked(folder: Path) -> None:
    planned = plan(folder)
    planned.entries["finetune sst2-tiny-full-s0"].state = "failed"
    planned.refresh()
    blocked = {name for name, entry in planned.entries.items() if entry.state == "blocked"}
    assert blocked == {name for name in planned.entries if "tiny-full" in name} - {
        "finetune sst2-tiny-full-s0"
    }
    note = planned.entries["tokens sst2-tiny-full-half-s0"].note
    assert note == "needs finetune sst2-tiny-full-s0, which is failed"


LOTTERY = """
tasks: {{sst2: {{data: {data}, limit: 40}}}}
models: {{tiny: {model}}}
training: {{batch_size: 8, epochs: 1}}
lottery:
  zeros30: {{sparsity: 30}}
  fresh20: {{sparsity: 20, init: fresh}}
  slow10: {{sparsity: 10, lr: 0.1}}
  zeros10: {{sparsity: 10}}
  random30: {{sparsity: 30, kind: random}}
  standard20: {{sparsity: 20, kind: standard}}
  late20: {{sparsity: 20, rewind: 3}}
variants: [fp32]
backends: [onnxruntime]
"""


def test_a_share_is_of_the_limited_rows_in_every_stage(folder: Path) -> None:
    def limits(*assignments: str) -> dict[str, object]:
        cells = (entry.cell for entry in plan(folder, *assignments).entries.values())
        return {cell.stage: cell.settings.flat()["limit"] for cell in cells
                if cell.stage in ("finetune", "tokens", "exits")}  # fmt: skip

    assert limits("training.share=50%") == {"finetune": 40, "tokens": 40, "exits": 40}
    assert limits() == {"finetune": 40, "tokens": None, "exits": None}, "as the checkpoint before"
    assert limits("exits.early.share=50%") == {"finetune": 40, "tokens": None, "exits": 40}


def test_lottery_tickets_share_their_rounds_and_masks(folder: Path) -> None:
    text = LOTTERY.format(data=folder / "data", model=folder / "model")
    (folder / "recipe.yaml").write_text(text)
    entries = plan(folder).entries
    sources = {name: entry.cell.sources for name, entry in entries.items() if name.startswith("lottery")}

    def tuned(name: str) -> str:
        return f"lottery sst2-tiny-{name}-s0"

    def mask(name: str) -> str:
        return f"lottery-mask sst2-tiny-{name}-s0"

    state = "lottery-rewind sst2-tiny-late20-rewind-s0"
    full = tuned("zeros30-round0")
    assert sources == {
        full: (),
        mask("zeros30-mask10"): (full,),
        tuned("zeros10"): (mask("zeros30-mask10"),),  # a round of zeros30, with the name of its own ticket
        mask("zeros30-mask20"): (tuned("zeros10"),),
        tuned("zeros30-round20"): (mask("zeros30-mask20"),),
        mask("zeros30-mask30"): (tuned("zeros30-round20"),),
        tuned("zeros30"): (mask("zeros30-mask30"),),
        tuned("fresh20"): (mask("zeros30-mask20"),),
        tuned("slow10-round0"): (),  # another learning rate
        mask("slow10-mask10"): (tuned("slow10-round0"),),
        tuned("slow10"): (mask("slow10-mask10"),),
        mask("random30-mask30"): (),
        tuned("random30"): (mask("random30-mask30"),),
        mask("standard20-mask10"): (full,),
        tuned("standard20-round10"): (mask("standard20-mask10"), full),
        mask("standard20-mask20"): (tuned("standard20-round10"),),
        tuned("standard20"): (mask("standard20-mask20"), tuned("standard20-round10")),
        state: (),
        tuned("late20-round10"): (mask("zeros30-mask10"), state),
        mask("late20-mask20"): (tuned("late20-round10"),),
        tuned("late20"): (mask("late20-mask20"), state),
    }
    kept = {name for name in sources if entries[name].cell.keep}
    tickets = ("zeros10", "zeros30", "fresh20", "slow10", "random30", "standard20", "late20")
    assert kept == {name for name in sources if name.startswith("lottery-mask")} | set(map(tuned, tickets))
    engines = {name for name in entries if name.startswith("export")}
    assert engines == {f"export sst2-tiny-{name}-s0.fp32.onnxruntime" for name in ("full", *tickets)}
    (folder / "recipe.yaml").write_text(text.replace("rewind: 3", "rewind: 5"))
    with pytest.raises(
        RecipeError, match=r"line 12: lottery.late20.rewind: task 'sst2': rewind 5: .* 5 steps"
    ):
        plan(folder)


def test_rounds_are_not_those_of_entries_that_a_model_does_not_train(folder: Path) -> None:
    other = Path(shutil.copytree(folder / "model", folder / "other"))
    (other / "model.safetensors").write_bytes(b"other weights")
    models = f"{{source: {folder / 'model'}, only: [zeros30]}}, all: {other}"
    text = LOTTERY.format(data=folder / "data", model=models)
    text = text.replace("  fresh20:", "  zeros20: {sparsity: 20}\n  fresh20:")
    (folder / "recipe.yaml").write_text(text)
    entries = plan(folder).entries
    kept = {name: entries[name].cell.keep for name in entries if name.startswith("lottery sst2-tiny")}
    assert kept == {
        "lottery sst2-tiny-zeros30-round0-s0": False,
        "lottery sst2-tiny-zeros30-round10-s0": False,
        "lottery sst2-tiny-zeros30-round20-s0": False,
        "lottery sst2-tiny-zeros30-s0": True,
    }
    assert entries["lottery sst2-all-zeros10-s0"].cell.keep


def test_untrained_masks_are_of_the_layers_that_remain(folder: Path) -> None:
    text = LOTTERY.format(data=folder / "data", model=folder / "model")
    text = text.replace("{sparsity: 30, kind: random}",
                        "{sparsity: 30, kind: one-shot, layers: 2, drop_layers: bottom}")  # fmt: skip
    (folder / "recipe.yaml").write_text(text)
    settings = plan(folder).entries["lottery-mask sst2-tiny-random30-mask30-s0"].cell.settings
    given = {name: value for name, value in settings.finetune.given().items() if name != "precision"}
    assert given == {"layers": 2, "drop_layers": "bottom", "seed": 0}


def test_estimates_are_proportional_to_work() -> None:
    estimates = Estimates([])

    def cell(name: str, group: str) -> Cell:
        return Cell("finetune", name, FinetuneStage(task="sst2"), work=1000.0, group=group)

    assert estimates.seconds(cell("a", "minilm full")) is None
    estimates.learn("finetune", "minilm full", 10.0, 500.0)
    estimates.learn("finetune", "minilm frozen", 2.0, 500.0)
    assert estimates.seconds(cell("a", "minilm full")) == pytest.approx(20.0)
    assert estimates.seconds(cell("b", "new")) == pytest.approx(12.0)


def test_cells_of_a_search_for_tickets(folder: Path) -> None:
    text = (folder / "recipe.yaml").read_text().split("regimes")[0]
    (folder / "recipe.yaml").write_text(
        text + 'tickets: {levels: ["20,...,60"], kinds: [winning, random], seeds: 2}\n'
    )
    names = list(keys(folder))
    assert len(names) == 2 * (2 + 3 * 2) + 1
    assert names[0] == "tickets-full sst2-tiny-full-s0" and names[-1] == "tickets sst2-tiny"
    before = keys(folder)
    moved = changed(before, keys(folder, "tickets.levels=[20, 40, 60, 80]"))  # one more level
    added = {f"ticket sst2-tiny-{kind}80-s{seed}" for kind in ("winning", "random") for seed in (0, 1)}
    assert moved == added | {"tickets sst2-tiny"}
    full = {name for name in before if name.startswith("tickets-full")}
    assert changed(before, keys(folder, "tickets.importance=magnitude")) == set(before) - full
    assert changed(before, keys(folder, "tickets.selection=0.4")) == {"tickets sst2-tiny"}
    halving = list(keys(folder, "tickets.search=halving"))
    assert [name for name in halving if name.startswith("tickets-rung")] == ["tickets-rung sst2-tiny-rung1"]
    assert len([name for name in halving if name.startswith("ticket ")]) == 3  # each level begins


def test_a_preset_overrides_training_and_the_search_overrides_the_preset(folder: Path) -> None:
    text = (folder / "recipe.yaml").read_text().split("regimes")[0]
    (folder / "recipe.yaml").write_text(
        text
        + "training: {lr: 0.5, epochs: 1, max_steps: 7}\ntickets: {levels: [20], preset: super-tickets}\n"
    )

    def settings(*assignments: str, cell: str = "ticket sst2-tiny-winning20-s0") -> tuple[object, ...]:
        values = plan(folder, *assignments).entries[cell].cell.settings.flat()
        return values["lr"], values["epochs"], values["max_steps"], values["limit"]

    for cell in ("tickets-full sst2-tiny-full-s0", "ticket sst2-tiny-winning20-s0", "tickets sst2-tiny"):
        assert settings(cell=cell) == (1e-4, 6.0, 7, 40)
    assert settings("tickets.epochs=2") == (1e-4, 2.0, 7, 40)
    assert settings("tickets.preset=") == (0.5, 1.0, 7, 40)
    before = keys(folder)
    assert changed(before, keys(folder, "training.max_steps=8")) == set(before)
    assert changed(before, keys(folder, "training.weight_decay=0.1")) == set()  # the preset sets it


def test_an_engine_that_two_variants_name_is_built_once(folder: Path) -> None:
    planned = plan(folder, "variants=[fp32, {variant: fp32, of: full}, tokens, exit+int8, tokens+exit]")
    needs = planned.entries["profile sst2"].cell.sources
    assert "export sst2-tiny-full-s0.fp32.openvino" in needs and len(set(needs)) == len(needs)
    planned = plan(folder, "tokens={}", "exits={}", "variants=[seq16 + int8, int8+seq16, seq16+int8]")
    needs = planned.entries["profile sst2"].cell.sources
    exports = [need for need in needs if need.startswith("export sst2-tiny-full-s0.")]
    assert exports and all(".seq16+int8." in export for export in exports)


SUPER = """
tasks: {{sst2: {{data: {data}, limit: 40}}}}
models: {{tiny: {model}}}
regimes: [full]
tickets: {{levels: [20, 40, 60], seeds: 2, kinds: [winning]}}
pruned: {{best: {{of: full, level: super}}}}
tokens: {{half: {{of: best, keep: 0.5}}}}
variants: [fp32, tokens]
"""


def test_a_ticket_of_the_level_that_the_search_chose(folder: Path) -> None:
    sources = {"data": folder / "data", "model": folder / "model"}
    (folder / "recipe.yaml").write_text(SUPER.format(**sources))
    recipe = load(folder / "recipe.yaml", workspace=folder / "w")

    def known(artifacts: Callable[[str], Path | None]) -> dict[str, Cell]:
        cells = build.cells(recipe, digests.Digests(folder / "digests.json"), "here", artifacts)
        return {cell.id: cell for cell in cells}

    before = known(lambda cell: None)
    assert "tickets sst2-tiny" in before and "export sst2-tiny-full-s0.fp32.onnxruntime" in before
    assert not [name for name in before if "best" in name or name.startswith(("profile", "report"))]
    found = folder / "found"
    found.mkdir()
    for level in ("40", "60"):
        (found / "table.json").write_text(json.dumps({"super": {"level": level}}))
        after = known(lambda cell: found if cell == "tickets sst2-tiny" else None)
        assert set(before) < set(after) and list(after)[-2:] == ["profile sst2", "report recipe"]
        assert after["prune sst2-tiny-full-best-s0"].settings.flat()["level"] == Level.parse(level)
        assert "export sst2-tiny-full-best-half-s0.tokens.onnxruntime" in after["profile sst2"].sources
    (found / "table.json").write_text("{}")
    with pytest.raises(ArtifactError, match="it has no level of the super ticket"):
        known(lambda cell: found if cell == "tickets sst2-tiny" else None)


def test_the_level_of_a_search_needs_a_search(folder: Path) -> None:
    text = SUPER.format(data=folder / "data", model=folder / "model")
    for before, after, message in (
        ("tickets: {levels: [20, 40, 60], seeds: 2, kinds: [winning]}", "", "add the section tickets"),
        ("kinds: [winning]", "kinds: [random]", "the search in tickets trains no winning tickets"),
        ("level: super", "level: best", "level 'best': expected a percentage"),
        ("level: super", "level: super, granularity: neurons", "granularity and min_heads as in tickets"),
    ):
        (folder / "recipe.yaml").write_text(text.replace(before, after))
        with pytest.raises(RecipeError, match=message):
            load(folder / "recipe.yaml", workspace=folder / "w")
