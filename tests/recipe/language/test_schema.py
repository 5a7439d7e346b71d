"""Reading recipes: every mistake at once, each with its line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from effx.cli import run as command
from effx.errors import UsageError
from effx.models import tokens as schedules
from effx.recipe import Recipe, RecipeError, load
from effx.recipe.language import limits
from effx.recipe.language.document import dump
from effx.recipe.language.recipe import ENTRIES, TicketsEntry, TrainingDefaults
from effx.specs import tokens
from effx.specs.data import DataSettings, DataSource
from effx.specs.levels import Level, parse_levels
from effx.specs.settings import leaves
from effx.specs.training import FinetuneSettings
from tests.conftest import CONFIGS, write_rows
from tests.models import tiny

RECIPES = Path(__file__).parents[3] / "recipes"
GOOD = """
tasks: [demo]
models: {tiny: demo}
"""
TEN = """\
name: ten
taks: [demo]
tasks:
  sst3:
models:
  tiny: ./nowhere
regimes:
  full:
  half: {regime: haf}
  full: {epochs: 1}
tokens:
  t60: {of: fill, keep: 0.6}
exits:
  early: {rule: entropi, depth: 3}
variants: [fp32, int7]
backends: [onnx]
workloads: {rounds: 2}
"""


def read(tmp_path: Path, text: str, *assignments: str) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return load(path, assignments)


def mistakes(tmp_path: Path, text: str, *assignments: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, text, *assignments)
    return str(caught.value).splitlines()[1:]


def test_ten_mistakes_are_ten_messages_with_their_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ten.yaml"
    path.write_text(TEN)
    assert command(["run", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    first, *lines = captured.err.splitlines()
    assert first == f"effx: {path}: 10 mistakes; nothing was started."
    expected = [
        ("line 2: taks", "Did you mean 'tasks'"),
        ("line 4: tasks.sst3", "Did you mean 'sst2'"),
        ("line 6: models.tiny", "there is no folder"),
        ("line 9: regimes.half.regime", "Known: full, frozen, last-K"),
        ("line 10: regimes.full", "duplicate key, first on line 8"),
        ("line 12: tokens.t60.of", "Did you mean 'full'"),
        ("line 14: exits.early.rule", "Did you mean 'entropy'"),
        ("line 15: variants.1", "Did you mean 'int8'"),
        ("line 16: backends.0", "Did you mean 'onnxruntime'"),
        ("line 17: workloads.rounds", "expected an integer >= 3, got 2"),
    ]
    assert len(lines) == len(expected)
    for line, (where, text) in zip(lines, expected, strict=True):
        assert line.startswith(where + ": ") and text in line
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks: [demo\n", "line 2: not valid YAML"),
        ("- a\n", "line 1: expected a mapping with name, workspace"),
        ("", "line 1: the key 'tasks' is missing"),
        (GOOD + "seeds: [0, one]\n", "line 4: seeds.1: expected a list of integers >= 0, got 'one'"),
        (GOOD + "seeds: [0, 0]\n", "line 4: seeds: duplicate seed 0"),
        (
            GOOD + "backends: [torch, onnxruntime, {backend: torch}]\n",
            "line 4: backends.2: duplicate backend 'torch'",
        ),
        (
            GOOD + "regimes:\n  1: {lr: 1e-3}\n  '1': {lr: 1e-5}\n",
            "line 6: regimes.1: duplicate key, first on line 5.",
        ),
        (
            GOOD + "regimes:\n  a: {}\n  0.10: {lr: 1e-3}\n",
            "line 6: regimes: YAML reads the key as the number 0.1: write it in quotes.",
        ),
        (GOOD + "regimes:\n  010: {}\n", "line 5: regimes: YAML reads the key as the number 10: write"),
        (GOOD + "regimes: {1e3: {}}\n", "line 4: regimes: YAML reads the key as the number 1000.0: write"),
        (
            GOOD + "regimes: {true: {}}\n",
            "line 4: regimes: YAML reads the key as the truth value true: write",
        ),
        (GOOD + "backends: []\n", "line 4: backends: expected at least one entry."),
        (GOOD + "tickets:\n", "line 4: tickets: has no value: write tickets: {} for a search"),
        (GOOD + "seeds: true\n", "line 4: seeds: expected a list of integers"),
        (GOOD + "training: 3\n", "line 4: training: expected a mapping, got 3"),
        (GOOD + "training: {lr: .nan}\n", "line 4: training.lr: expected a number > 0, got nan"),
        (GOOD + "regimes: [full, lats-2]\n", "line 4: regimes.lats-2: unknown regime"),
        (GOOD + "regimes: {a/b: {regime: full}}\n", "names are letters"),
        (GOOD + "tokens: {full: {}}\nvariants: [tokens]\n", "the name is already used by regimes.full"),
        (GOOD + "exits: {e: {depth: 2, max_drop: 0.1}}\nvariants: [exit]\n", "exclude each other"),
        (
            GOOD + "lottery: {zeros: {sparsity: 75}}\n",
            "lottery.zeros.sparsity: sparsity 75: expected a multiple of 10",
        ),
        (
            GOOD + "tokens: {t: {schedule: [0.5, 0.6]}}\nvariants: [tokens]\n",
            "line 4: tokens.t.schedule: token shares must not rise",
        ),
        (
            GOOD + "tokens:\n  t:\n    schedule: [1, 0]\nvariants: [tokens]\n",
            "line 6: tokens.t.schedule: token shares must be between",
        ),
        (
            GOOD + "tokens: {t: {rule: threshold, schedule: [0.1, 2]}}\nvariants: [tokens]\n",
            "line 4: tokens.t.schedule.1: expected a list of numbers >= 0 and <= 1, got 2",
        ),
        (
            "tasks: [demo, stsb]\nmodels: {tiny: demo}\nexits: {e: {}}\nvariants: [exit]\n",
            "line 3: exits.e.rule: task 'stsb' (regression): exit rule entropy does not support this "
            "kind of task: set rule to patience",
        ),
        (
            "tasks: [stsb]\nmodels: {m: demo}\nexits:\n  e:\n    rule: max-probability\nvariants: [exit]\n",
            "line 5: exits.e.rule: task 'stsb' (regression): exit rule max-probability",
        ),
        (GOOD + "pruned: {half: {}}\n", "line 4: pruned.half: the key 'level' is missing: expected a level"),
        (GOOD + "pruned: {half: {level: 101}}\n", "line 4: pruned.half.level: level '101'"),
        (
            GOOD + "pruned: {half: {level: '10,20'}}\n",
            "line 4: pruned.half.level: level '10,20': expected a percentage",
        ),
        (
            GOOD + "regimes: {a: {layers: 2, teacher: full}, full: {}}\n",
            "line 4: regimes.a.teacher: unknown name 'full'",
        ),
        (
            GOOD + "regimes: [full]\npruned: {half: {level: 50, teacher: half}}\n",
            "line 5: pruned.half.teacher: unknown name 'half'. Known here: full.",
        ),
        (
            GOOD + "regimes: {a: {temperature: 3}}\n",
            "line 4: regimes.a.temperature: temperature has no effect without a teacher: add teacher.",
        ),
        (
            GOOD + "lottery:\n  z:\n    kind: standard\n    init: fresh\n",
            "line 7: lottery.z.init: init fresh needs a mask",
        ),
        (
            GOOD + "lottery: {z: {kind: random, rewind: 5}}\n",
            "line 4: lottery.z.rewind: rewind: kind random does not rewind",
        ),
        (
            GOOD + "training: {max_steps: 5}\nlottery: {z: {rewind: 5}}\n",
            "line 5: lottery.z.rewind: rewind 5: expected fewer than the 5 steps of a round",
        ),
        (
            GOOD + "lottery:\n  z:\n    sparsity: 30\n    mlm_steps: 5\n",
            "line 7: lottery.z.mlm_steps: mlm_steps is used only with objective mlm",
        ),
        (
            GOOD + "lottery: {z: {objective: mlm, mlm_rows: blocks}}\n",
            "line 4: lottery.z.mlm_rows: unknown key",
        ),
        (GOOD + "lottery: {z: {mask: m}}\n", "line 4: lottery.z.mask: unknown key"),
        (GOOD + "lottery: {z: {teacher: full}}\n", "line 4: lottery.z.teacher: unknown key"),
        (
            GOOD + "exits: {e: {teacher: full, hidden_weight: 2}}\nvariants: [exit]\n",
            "line 4: exits.e.hidden_weight: unknown key",
        ),
        (GOOD + "tickets: {kinds: [losing, losing]}\n", "line 4: tickets.kinds: duplicate kind losing"),
        (
            GOOD + "tickets: {levels: [10, '10']}\n",
            "line 4: tickets.levels: duplicate level 10",
        ),
        (GOOD + "tickets: {selection: 1}\n", "tickets.selection: expected a number > 0 and < 1, got 1"),
        (GOOD + "exits: {e: {}}\n", "line 4: exits.e: no variant of the recipe is built from it"),
        (GOOD + "variants: [int8+stride8]\n", "variants.0: 'int8+stride8': task 'demo': its rows"),
        (GOOD + "variants: [exit]\n", "line 4: variants.0: 'exit' cannot be built from any checkpoint"),
        (GOOD + "variants: [{variant: seq32, of: ful}]\n", "variants.0.of: unknown name 'ful'"),
        (GOOD + "variants: [{of: full}]\n", "the key 'variant' is missing"),
        (
            GOOD + "workloads: {grid: [1x32, 8-128]}\n",
            "workloads.grid.1: '8-128': expected BATCHxLENGTH",
        ),
        (GOOD + "workloads: {meter: rapll}\n", "Did you mean 'rapl'"),
        ("tasks: {mine: {data: ./nowhere}}\nmodels: {tiny: demo}\n", "line 1: tasks.mine.data: ./nowhere"),
        (
            "tasks: []\nmodels: [demo]\n",
            "line 1: tasks: expected at least one entry.",
        ),
        ("tasks: [demo]\nmodels: {}\n", "line 2: models: expected at least one entry."),
        ("a: " + "[" * 70 + "]" * 70 + GOOD, "line 1: not valid YAML: nested too deeply"),
        ("a: &a {b: *a}\n" + GOOD, "line 1: a: unknown key"),
    ],
)
def test_each_mistake_has_its_line_and_key(tmp_path: Path, text: str, message: str) -> None:
    assert any(message in line for line in mistakes(tmp_path, text))


def test_valid_schedules_and_exit_rules_are_accepted(tmp_path: Path) -> None:
    text = "models: {tiny: demo}\nregimes: [full]\nvariants: [exit, tokens]\n"
    stages = "tokens: {t: {rule: threshold, schedule: [0, 0.2]}}\nexits: {e: {of: full, rule: patience}}\n"
    recipe = read(tmp_path, "tasks: [stsb]\n" + text + stages)
    assert recipe.tokens[0].settings.schedule == (0.0, 0.2)
    stages = "tokens: {t: {schedule: [1, 0.5, 0.5004]}}\nexits: {e: {of: full}}\n"
    assert read(tmp_path, "tasks: [demo]\n" + text + stages).tokens[0].settings.schedule[0] == 1.0


def test_exit_rules_are_checked_against_the_users_rows(tmp_path: Path) -> None:
    recipe = f"tasks:\n  near: {{data: {tmp_path}}}\nmodels: [demo]\nexits: {{e: {{}}}}\nvariants: [exit]\n"
    rows = [{"sentence": "x", "label": label} for label in (0.5, 1.5)]
    write_rows(tmp_path / "train.jsonl", rows)
    (line,) = mistakes(tmp_path, recipe)
    assert line.startswith("line 4: exits.e.rule: task 'near' (regression): exit rule entropy")
    write_rows(tmp_path / "train.jsonl", [*rows, {"sentence": "x"}])
    (line,) = mistakes(tmp_path, recipe)
    assert line.startswith("line 2: tasks.near.data: ") and "row 3: column 'label' is missing" in line
    write_rows(tmp_path / "train.jsonl", [{"sentence": "x", "label": label} for label in ("near", "far")])
    assert read(tmp_path, recipe).exits


def test_numbers_are_read_as_the_type_of_their_setting(tmp_path: Path) -> None:
    recipe = read(tmp_path, GOOD + "lottery: {zeros: {sparsity: 70.0}}\n")
    sparsity = recipe.lottery[0].settings.sparsity
    assert (sparsity, type(sparsity)) == (70, int)


@pytest.mark.parametrize("value", ["300", "3e2", "300.0", "'300'"])
def test_the_limit_of_the_recipe_is_that_of_its_tasks_however_it_is_written(
    tmp_path: Path, value: str
) -> None:
    text = "tasks: {demo: {}, sst2: {limit: 7}}\nmodels: {tiny: demo}\n"
    for recipe in (read(tmp_path, f"{text}limit: {value}\n"), read(tmp_path, text, f"limit={value}")):
        assert [task.limit for task in recipe.tasks] == [300, 7]
        assert read(tmp_path, dump(recipe.resolved())) == recipe
    for wrong in ("0", "1.5", "true", "many"):
        (line,) = mistakes(tmp_path, f"{text}limit: {wrong}\n")
        assert line.startswith("line 3: limit: expected an integer >= 1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks: {mine: {data: 7}}\nmodels: [demo]\n", "line 1: tasks.mine.data: "),
        ("tasks: {mine: {data: [rows]}}\nmodels: [demo]\n", "line 1: tasks.mine.data: "),
        (GOOD + "name: true\n", "line 4: name: "),
    ],
)
def test_values_of_another_type_are_not_read_as_text(tmp_path: Path, text: str, message: str) -> None:
    assert any(line.startswith(message) for line in mistakes(tmp_path, text))


def test_a_label_that_is_a_regime_is_that_regime_whatever_else_is_set(tmp_path: Path) -> None:
    def regimes(text: str, *assignments: str) -> dict[str, tuple[str, float]]:
        recipe = read(tmp_path, f"{GOOD}regimes: {text}\n", *assignments)
        assert read(tmp_path, dump(recipe.resolved())) == recipe
        return {
            entry.label: (entry.settings.regime, entry.settings.learning_rate) for entry in recipe.regimes
        }

    whole = FinetuneSettings().learning_rate
    head = FinetuneSettings.of(regime="frozen").learning_rate
    assert regimes("{frozen: , last-2: {}, full: }", "regimes.frozen.epochs=5") == {
        "frozen": ("frozen", head), "last-2": ("last-2", whole), "full": ("full", whole),
    }  # fmt: skip
    assert regimes("{last-1: {lr: 1e-3}, frozen: {regime: full, epochs: 1}, other: {epochs: 1}}") == {
        "last-1": ("last-1", 1e-3), "frozen": ("full", whole), "other": ("full", whole),
    }  # fmt: skip


def test_overrides_change_entries_that_there_are_and_add_whole_ones(tmp_path: Path) -> None:
    text = GOOD + "regimes: {full: , last-1: {max_length: 32}}\n"
    (line,) = mistakes(tmp_path, text, "regimes.last1.lr=1e-3")
    assert line.startswith("--set regimes.last1.lr=1e-3: regimes.last1: there is no such entry. Did you mean")
    added = read(tmp_path, text, "regimes.frozen={lr: 1e-3}", "regimes.frozen.epochs=1")
    assert added.regimes[-1].settings.given() == {"regime": "frozen", "lr": 1e-3, "epochs": 1.0}
    assert read(tmp_path, GOOD, "regimes.frozen.epochs=1").regimes[0].settings.regime == "frozen"


def test_whole_numbers_and_quoted_numbers_are_labels(tmp_path: Path) -> None:
    recipe = read(tmp_path, GOOD + "regimes: {1: {lr: 1e-3}, '010': {lr: 1e-4}, '0.10': {lr: 1e-5}}\n")
    assert [entry.label for entry in recipe.regimes] == ["1", "010", "0.10"]


def test_a_recipe_without_variants_is_written_as_one(tmp_path: Path) -> None:
    tickets = "tickets: {levels: [20]}\n"
    trained = "tasks: [demo]\nmodels: {m: bert-base-uncased}\n"
    for text in (GOOD + "variants: []\n", trained + tickets):
        recipe = read(tmp_path, text)
        again = read(tmp_path, dump(recipe.resolved()))
        assert again == recipe and again.variants == ()
    assert read(tmp_path, trained + tickets, "tickets=").tickets is None


def test_what_becomes_of_a_models_head_is_set_for_the_model(tmp_path: Path) -> None:
    text = "tasks: [sst2]\nmodels:\n  m: {source: org/model, labels: [positive, negative]}\n  n: org/other\n"
    recipe = read(tmp_path, text)
    assert [model.head.labels for model in recipe.models] == [("positive", "negative"), None]
    assert read(tmp_path, dump(recipe.resolved())).models == recipe.models
    (line,) = mistakes(tmp_path, text.replace("labels:", "fresh_head: true, labels:"))
    assert line.startswith("line 3: models.m") and "fresh_head replaces the head" in line
    (line,) = mistakes(tmp_path, text.replace("labels:", "label_names:"))
    assert "unknown key. Did you mean 'labels'" in line, line


CLASH = """\
tasks: [demo, sst2]
models: {tiny: demo}
regimes:
  full: {max_length: 32}
  full-small: {layers: 2}
pruned:
  small: {of: [full], level: 40}
tokens: {t: {of: [full-small, small], keep: 0.5}}
variants: [fp32, tokens]
"""


def test_labels_that_lead_to_the_same_name_are_reported_once(tmp_path: Path) -> None:
    assert mistakes(tmp_path, CLASH) == [
        "line 5: regimes.full-small: 'demo-tiny-full-small' would be the name of regimes.full-small and of "
        "regimes.full with pruned.small: the second would replace the first. Rename 'full-small'."
    ]
    assert len(mistakes(tmp_path, CLASH, "variants=[fp32, tokens, exit]")) == 2
    renamed = read(tmp_path, CLASH.replace("full-small", "short"))
    assert len(renamed.regimes) == 2


def test_models_and_tasks_that_lead_to_the_same_name_are_reported(tmp_path: Path, rows_folder: Path) -> None:
    models = "models:\n  a: bert-base-uncased\n  a-b: roberta-base\n"
    regimes = "regimes: {full: {}, b-full: {regime: full}}\n"
    (line,) = mistakes(tmp_path, "tasks: [demo]\n" + models + regimes)
    assert line == (
        "line 4: models.a-b: 'demo-a-b-full' would be the name of models.a with regimes.b-full and of "
        "models.a-b with regimes.full: the second would replace the first. Rename 'a-b'."
    )
    tasks = "".join(f"  {task}: {{data: {rows_folder}}}\n" for task in ("mine", "mine-a"))
    models = "models: {a-b: bert-base-uncased, b: roberta-base}\n"
    (line,) = mistakes(tmp_path, f"tasks:\n{tasks}{models}tickets: {{levels: [20]}}\n")
    assert line.startswith(
        "line 3: tasks.mine-a: 'mine-a-b' would be the name of tasks.mine with models.a-b and "
    )


def test_a_ticket_search_and_a_checkpoint_may_share_a_stem(tmp_path: Path) -> None:
    text = "tasks: [demo]\nmodels: {a: bert-base-uncased, a-full: roberta-base}\nregimes: [full]\n"
    assert read(tmp_path, text + "tickets: {levels: [20]}\n").tickets


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("seeds", "expected KEY=VALUE"),
        ("sedes=1", "--set sedes=1: sedes: unknown key. Did you mean 'seeds'"),
        ("seeds=x", "--set seeds=x: seeds: expected a list of integers"),
        ("tasks.0.limit=3", "'demo' is not a mapping"),
        ("tasks.4=demo", "the list has 1 entries"),
        ("training=[", "not valid YAML"),
    ],
)
def test_mistakes_in_overrides_name_the_option(tmp_path: Path, assignment: str, message: str) -> None:
    (line,) = mistakes(tmp_path, GOOD, assignment)[:1]
    assert message in line


def test_overrides_replace_values_and_exponents_are_numbers(tmp_path: Path) -> None:
    text = GOOD + "training: &all {lr: 1e-3, epochs: 2}\nregimes:\n  a: {<<: *all, regime: full, epochs: 1}\n"
    sets = ["seeds=[3, 4]", "training.epochs=0.5", "limit=7", "tasks={demo: {limit: 9}}",
            "budgets.total_s=60", "variants=[int8]", "training.epochs=0.25"]  # fmt: skip
    recipe = read(tmp_path, text, *sets)
    assert recipe.training.given() == {"lr": 1e-3, "epochs": 0.25}
    assert recipe.regimes[0].settings == FinetuneSettings.of(lr=1e-3, regime="full", epochs=1.0)
    assert recipe.seeds == (3, 4)
    assert recipe.tasks[0].limit == 9
    assert recipe.budgets.total_s == 60
    assert [variant.text for variant in recipe.variants] == ["int8"]
    assert recipe.workspace == "effx-recipe"


def test_a_workspace_may_be_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path, home = tmp_path / "recipe.yaml", tmp_path / "home"
    path.write_text(GOOD + "workspace: ~/w\n")
    assert load(path).folder == home / "w"
    assert load(path).resolved()["workspace"] == str(home / "w")
    assert load(path, ["workspace=~/set"]).folder == home / "set"
    assert load(path, workspace=Path("~/given")).folder == home / "given"
    assert load(path, workspace="a/~b").folder == Path("a/~b")


def test_a_resolved_recipe_reads_as_itself(tmp_path: Path) -> None:
    text = (RECIPES / "demo.yaml").read_text() + "budgets: {cell_s: 9}\nseeds: [1]\n"
    first = read(tmp_path, text)
    again = read(tmp_path, dump(first.resolved()))
    assert again == first
    first = read(tmp_path, GOOD + "regimes: {full: {}, b: {layers: 1, teacher: full, hidden_weight: 0}}\n")
    assert read(tmp_path, dump(first.resolved())) == first
    first = load(RECIPES / "super-tickets.yaml")
    again = read(tmp_path, dump(first.resolved()))
    assert again == first
    assert again.tickets is not None and again.tickets.tickets.levels[-1] == Level(80)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_of_the_repository_are_valid(path: Path, tmp_path: Path, rows_folder: Path) -> None:
    text = path.read_text()
    sets = [f"tasks.{task}.data={rows_folder}" for task in re.findall(r"^  ([\w-]+): \{data:", text, re.M)]
    recipe = load(path, sets)
    assert recipe.name == path.stem


@pytest.mark.parametrize("section", sorted({*ENTRIES, "training", "tickets"}))
def test_sections_take_every_setting_but_those_that_the_recipe_sets(section: str, tmp_path: Path) -> None:
    text = f"{section}: {{x: {{nonsense: 1}}}}\n" if section in ENTRIES else f"{section}: {{nonsense: 1}}\n"
    (line,) = [line for line in mistakes(tmp_path, GOOD + text) if "nonsense" in line]
    entry = {**ENTRIES, "training": TrainingDefaults, "tickets": TicketsEntry}[section]
    known = re.search(r"unknown key.*Known: (.*)\.$", line)
    assert known is not None
    names = {leaf.field.alias or leaf.name for leaf in leaves(entry)} - entry.HIDDEN - {"label"}
    assert set(known.group(1).split(", ")) >= names - {"settings"}
    assert not {"seed", "limit", "label"} & set(known.group(1).split(", "))
    for name in ("seed", "limit"):
        inner = f"{{{name}: 3}}" if section not in ENTRIES else f"{{x: {{{name}: 3}}}}"
        assert any("unknown key" in line for line in mistakes(tmp_path, GOOD + f"{section}: {inner}\n"))


def test_schedules_are_those_of_the_code() -> None:
    def refusal(function: Any, *values: Any, **named: Any) -> str | None:
        try:
            function(*values, **named)
        except UsageError as error:
            return str(error)
        return None

    model = tiny.model("bert")
    refusals = []
    for shares in ((1, 0.5, 0.5), (0.5, 0.6, 0.1), (1.5, 1, 1), (1, 1, 0), (1, 1, 4e-4), (0.5, 0.5004, 0.1)):
        refusals.append(refusal(tokens.check_shares, shares))
        assert refusal(schedules.schedule, model, shares=shares) == refusals[-1]
    assert [message is None for message in refusals] == [True, False, False, False, False, True]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["10,...,40"], ("10", "20", "30", "40")),
        ([10, "20/10"], ("10", "20/10")),
        (["10", "20", "...", "50"], ("10", "20", "30", "40", "50")),
        ([5], ("5",)),
    ],
)
def test_levels_are_a_list_or_one_text(parts: list[Any], expected: tuple[str, ...]) -> None:
    assert tuple(level.text for level in parse_levels(",".join(map(str, parts)))) == expected


@pytest.mark.parametrize("parts", [[0], [101], [10, "10"], ["...,20"], ["ten"], [50, "...", 80]])
def test_wrong_levels_are_refused(parts: list[Any]) -> None:
    with pytest.raises(UsageError):
        parse_levels(",".join(map(str, parts)))


def test_how_rows_are_read_is_set_at_the_task(tmp_path: Path) -> None:
    path = tmp_path / "tickets.csv"
    path.write_text("body;kind\n" + "".join(f"text {index};{'ab'[index % 2]}\n" for index in range(20)))
    keys = "split: 0.8, text_column: body, label_column: kind"
    text = f"tasks:\n  tickets: {{data: {path}, {keys}}}\nmodels: [demo]\n"
    recipe = read(tmp_path, text)
    (task,) = recipe.tasks
    assert task.source == DataSource(
        str(path), DataSettings.of(split=0.8, text_column="body", label_column="kind")
    )
    assert recipe.resolved()["tasks"]["tickets"] == {
        "data": str(path), "limit": None, "split": 0.8, "text_column": "body", "label_column": "kind",
    }  # fmt: skip
    (line,) = mistakes(tmp_path, text, "tasks.tickets.split=2")
    assert "tasks.tickets.split" in line and "expected a number > 0 and < 1, got 2" in line
    (line,) = mistakes(tmp_path, "tasks: {sst2: {text_column: body}}\nmodels: [demo]\n")
    assert "text_column says how local files are read: add data" in line
    (line,) = mistakes(tmp_path, text, "tasks.tickets.txt_column=body")
    assert "unknown key. Did you mean 'text_column'?" in line and "task_kind" in line


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("regimes: {a: {layers: 99}}", "regimes.a.layers: 99: model 'm' has 3 layers."),
        ("regimes: {a: {drop_layers: bottom}}", "regimes.a.drop_layers: drop_layers has no effect without"),
        ("regimes: {a: {layers: 2, drop_layers: botom}}", "'botom'. Did you mean 'bottom'?"),
        ("pruned: {a: {level: 40, drop_layers: bottom}}", "pruned.a.drop_layers: unknown key"),
        (
            "regimes: {a: {max_length: 9999}}",
            "regimes.a.max_length: 9999: model 'm' reads at most 66 tokens.",
        ),
        (
            "lottery: {a: {objective: mlm, mlm_max_length: 9999}}",
            "lottery.a.mlm_max_length: 9999: model 'm' reads at most 66 tokens.",
        ),
        ("backends: [{backend: onnxruntime, device: zz}]", "unknown onnxruntime device 'zz'"),
        ("backends: [{backend: torch, device: 1e400}]", "unknown torch device 'inf'"),
        ("workloads: {grid: [1x99999]}", "workloads.grid: 1x99999: the models read at most 66 tokens."),
        ("variants: [seq67]", "variants.0: 'seq67': the models read at most 66 tokens."),
        ("variants: [seq99999999999999999999]", "unknown variant 'seq99999999999999999999'"),
        ("training: {<<: 5}", "not valid YAML"),
    ],
)
def test_sizes_and_devices_are_checked_before_anything_runs(
    line: str, message: str, encoders: dict[str, Path], tmp_path: Path
) -> None:
    text = f"tasks: [demo]\nmodels: {{m: {encoders['bert']}}}\n{line}\n"
    (mistake,) = mistakes(tmp_path, text)
    assert mistake.startswith("line 3: ") and message in mistake


@pytest.mark.skipif("modernbert" not in CONFIGS, reason="this transformers has no ModernBERT")
@pytest.mark.parametrize("section", ["regimes: {a: {", "tickets: {"])
def test_other_layers_than_the_last_of_some_families_are_refused(
    section: str, encoders: dict[str, Path], tmp_path: Path
) -> None:
    values = "layers: 2, drop_layers: contribution}" + "}" * section.startswith("regimes")
    text = f"tasks: [sst2]\nmodels: {{m: {encoders['modernbert']}}}\n{section}{values}\n"
    (mistake,) = mistakes(tmp_path, text)
    assert mistake.startswith("line 3: ") and "drop_layers: contribution: only the last layers" in mistake
    assert read(tmp_path, text.replace("contribution", "top")).models[0].label == "m"


def test_positions_of_roberta_are_counted_from_the_padding(encoders: dict[str, Path]) -> None:
    assert limits.of_model(str(encoders["roberta"])) == limits.ModelLimits(3, 65)
    assert limits.of_model(str(encoders["distilbert"])) == limits.ModelLimits(3, 66)
    assert limits.of_model("bert-base-uncased") == limits.ModelLimits()


def test_aliases_that_multiply_are_refused(tmp_path: Path) -> None:
    lists = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    names = "abcdefghij"
    for before, name in zip(names, names[1:], strict=False):
        lists.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    found = mistakes(tmp_path, GOOD + "\n".join(lists))
    assert any("more than 100,000 values after expanding aliases" in line for line in found)


@pytest.mark.parametrize("arguments", [["--on", "magic"], ["-o", "/dev/null/x"]])
def test_a_dry_run_refuses_what_a_run_would_refuse(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD)
    assert command(["run", str(path), "--dry-run", *arguments]) == 2
    assert "unknown executor 'magic'" in (err := capsys.readouterr().err) or "cannot write /dev/null" in err


def test_tasks_that_are_not_trained_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "corpus.jsonl", [{"_id": "d", "text": "a"}])
    write_rows(tmp_path / "queries.jsonl", [{"_id": "q", "text": "a"}])
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    (line,) = mistakes(
        tmp_path, f"tasks:\n  search: {{data: {tmp_path}}}\nmodels: [demo]\nvariants: [fp32]\n"
    )
    assert line.startswith("line 2: tasks.search: models that find documents are trained on pairs of texts")


SHUFFLED = """
tasks: [sst2]
models: {{big: {big}, small: {{source: {small}, only: {only}}}}}
regimes: [full]
lottery: {{shuf: {{sparsity: 30, init: shuffled{more}}}}}
"""


def _folder(path: Path, heads: list[int]) -> Path:
    """A model of 4 heads of 2 in which the layers have this many; weights as safetensors writes them."""
    path.mkdir()
    (path / "config.json").write_text(f'{{"model_type": "bert", "num_hidden_layers": {len(heads)}}}')
    weights = {"embeddings.word_embeddings.weight": np.zeros((9, 8), dtype=np.float32)}
    for number, count in enumerate(heads):
        layer = f"encoder.layer.{number}"
        weights[f"{layer}.attention.self.query.weight"] = np.zeros((2 * count, 8), dtype=np.float32)
        weights[f"{layer}.attention.self.query.bias"] = np.zeros(2 * count, dtype=np.float32)
    save_file(weights, path / "model.safetensors")
    return path


@pytest.mark.parametrize(
    ("heads", "more", "message"),
    [
        ([4], "", "shuffled: model 'small' has one layer"),
        ([4, 4, 3], "", "shuffled: model 'small' has layers with matrices of different sizes"),
        ([4, 4, 3], ", layers: 2, drop_layers: bottom", "has layers with matrices of different sizes"),
        ([4, 4, 3], ", layers: 2", None),
        ([3, 3, 3], "", None),
    ],
)
def test_layers_that_cannot_be_shuffled_are_refused_before_any_round(
    heads: list[int], more: str, message: str | None, tmp_path: Path
) -> None:
    places = {"big": _folder(tmp_path / "big", [4, 4, 4]), "small": _folder(tmp_path / "small", heads)}
    read(tmp_path, SHUFFLED.format(only="[full]", more=more, **places))  # the other model is not shuffled
    text = SHUFFLED.format(only="[shuf]", more=more, **places)
    if message is None:
        read(tmp_path, text)
        return
    (mistake,) = mistakes(tmp_path, text)
    assert mistake.startswith("line 5: lottery.shuf.init: ") and message in mistake


def test_sizes_of_damaged_weights_are_unknown(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "m", [4, 3])
    assert limits.layers_differ(str(folder), FinetuneSettings())
    for content in (b"", b"weights", (5).to_bytes(8, "little") + b"[1,2]", b"\xff" * 16):
        (folder / "model.safetensors").write_bytes(content)
        assert not limits.layers_differ(str(folder), FinetuneSettings())
    assert not limits.layers_differ("bert-base-uncased", FinetuneSettings())


def test_a_search_that_no_model_takes_part_in_is_refused(tmp_path: Path) -> None:
    text = "tasks: [sst2]\nmodels: {m: {source: org/m, only: [full]}}\nregimes: [full]\n"
    text += "tickets: {levels: [20]}\n"
    (mistake,) = mistakes(tmp_path, text)
    assert mistake.startswith("line 4: tickets: no model is searched")
    read(tmp_path, text.replace("{source: org/m, only: [full]}", "org/m"))
    read(tmp_path, text.replace("only: [full]}", "only: [full]}, n: org/n"))
