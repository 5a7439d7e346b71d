"""The keys of a recipe, read all at once: every mistake is told with its line, key and nearest name.

file -> nodes (with lines) -> --set -> rules -> cross checks -> Recipe
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from effx import data, files
from effx.errors import EffxError, UsageError, nearest
from effx.recipe.graph.chains import built, chains, clashes
from effx.recipe.language.nodes import Node, Problem, override, parse
from effx.recipe.language.recipe import (
    DEMO_MODEL,
    BackendOf,
    Budgets,
    ModelOf,
    Recipe,
    Stage,
    TaskOf,
    VariantOf,
)
from effx.recipe.language.rules import (
    WRONG,
    Notes,
    Rule,
    choice,
    each,
    flag,
    labelled,
    parsed,
    section,
    text,
    whole,
)
from effx.recipe.language.tables import (
    BUDGETS,
    EXIT_RULE,
    EXITS,
    KEYS,
    LOTTERY,
    PRUNED,
    REGIME,
    TICKETS,
    TOKEN_RULE,
    TOKENS,
    TRAINING,
    WORKLOADS,
    regime,
)
from effx.specs import variants
from effx.specs.backends import BUILDABLE
from effx.specs.levels import parse_levels
from effx.specs.tasks import TASKS
from effx.specs.training import TICKET_KINDS, check_shares


class RecipeError(UsageError):
    """A recipe with mistakes; the message has one line each."""

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        super().__init__("\n".join([f"{path}: {count}; nothing was started.", *map(str, problems)]))


def load(path: str | Path, assignments: Sequence[str] = (), *, workspace: str | Path | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the YAML file. Paths in it are relative to the working directory, as on the command line.
        assignments: ``key=value`` with dotted keys, laid over the file.
        workspace: instead of the recipe's own.

    Raises:
        RecipeError: with every mistake in it.
        UsageError: the file cannot be read.
    """
    path = Path(path)
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text in UTF-8.") from error
    root, problems = parse(content)
    if problems and not root.mapping:  # no YAML: what else is missing is nobody's mistake
        raise RecipeError(path, problems)
    problems += override(root, assignments)
    notes = Notes(problems)
    recipe = _Reader(notes, root, path).read(workspace)
    if notes.problems:
        raise RecipeError(path, sorted(notes.problems, key=_order))
    return recipe


def _order(problem: Problem) -> tuple[int, str]:
    line = re.fullmatch(r"line (\d+)", problem.where)
    return (int(line.group(1)) if line else 1_000_000_000, problem.where)


class _Reader:
    """Reads the top level; labels that were read serve the checks of those that refer to them."""

    def __init__(self, notes: Notes, root: Node, path: Path) -> None:
        self._notes, self._path = notes, path
        if root.mapping is None:
            notes.wrong(root.where, "", f"a recipe is a mapping with {', '.join(KEYS)}; this is {root.kind}.")
            root = Node(root.where, mapping={})
        self._root = root
        self._labels: dict[str, str] = {}
        self._where: dict[str, str] = {}

    def read(self, workspace: str | Path | None) -> Recipe:
        notes, root = self._notes, self._root
        assert root.mapping is not None
        for key, child in root.mapping.items():
            if key not in KEYS:
                where = root.key_where.get(key, child.where)
                notes.wrong(where, key, f"unknown key.{nearest(key, KEYS)} Known: {', '.join(KEYS)}.")
        name = self._one("name", text, None)
        limit = self._one("limit", whole(1), None)
        name = files.safe_name(str(name)) if name else files.safe_name(self._path.stem)
        regimes = self._stages("regimes", REGIME)
        sweep = self._tickets()
        if not regimes and sweep is None:
            regimes = (self._plain(),)
        pruned = self._stages("pruned", PRUNED, [stage.label for stage in regimes])
        self._needed(pruned, "pruned", "level", "how much goes, as level: 40")
        lottery = self._stages("lottery", LOTTERY)
        tokens = self._stages("tokens", TOKENS, [stage.label for stage in regimes])
        exits = self._stages("exits", EXITS, [stage.label for stage in regimes])
        self._exclusive(exits, "exits", "depth", "max_drop")
        self._exclusive(tokens, "tokens", "schedule", "keep")
        self._schedules(tokens)
        recipe = Recipe(
            name=name,
            workspace=str(workspace or self._one("workspace", text, f"effx-{name}")),
            tasks=self._tasks(limit),
            models=self._models(),
            seeds=tuple(self._one("seeds", each(whole(), distinct=True), (0,))),
            training=self._section("training", TRAINING),
            regimes=regimes,
            pruned=pruned,
            lottery=lottery,
            tokens=tokens,
            exits=exits,
            tickets=sweep,
            variants=self._variants() if regimes or lottery else (),
            backends=self._backends(),
            calibration_rows=self._one("calibration_rows", whole(1), 128),
            workloads=self._section("workloads", WORKLOADS),
            budgets=Budgets(**self._section("budgets", BUDGETS)),
        )
        self._exit_rules(recipe)
        self._unused(recipe)
        return recipe

    def _node(self, key: str) -> Node | None:
        node = (self._root.mapping or {}).get(key)
        empty = node is None or (node.value is None and node.mapping is None and node.items is None)
        return None if empty else node

    def _one(self, key: str, rule: Rule, default: Any) -> Any:
        node = self._node(key)
        value = default if node is None else rule(self._notes, node, key)
        return default if value is WRONG else value

    def _section(self, key: str, table: Mapping[str, Rule]) -> dict[str, Any]:
        node = self._node(key)
        return {} if node is None else section(self._notes, node, key, table)

    def _tasks(self, limit: int | None) -> tuple[TaskOf, ...]:
        node, found = self._node("tasks"), []
        if node is None:
            self._notes.wrong(
                self._root.where, "tasks", "missing: what is to be predicted, as tasks: [sst2]."
            )
            return ()
        for name, child in labelled(self._notes, node, "tasks").items():
            key = f"tasks.{name}"
            read = section(self._notes, child, key, {"data": text, "limit": whole(1)})
            self._where[key] = where = node.key_where.get(name, child.where)
            folder = read.get("data")
            if folder is None and name not in TASKS:
                hint = nearest(name, TASKS)
                self._notes.wrong(where, key, f"unknown task.{hint} Your own rows need data: FOLDER. "
                                              f"Known: {', '.join(TASKS)}.")  # fmt: skip
            elif name in TASKS and TASKS[name].kind == "answer-span":
                self._notes.wrong(where, key, "question answering cannot be trained yet.")
            if folder is not None and not Path(folder).expanduser().is_dir():
                place = (child.mapping or {}).get("data", child).where
                self._notes.wrong(place, f"{key}.data", f"{folder}: there is no such folder.")
            folder = None if folder is None else os.path.expanduser(folder)
            found.append(TaskOf(name, folder, read.get("limit", limit)))
        return tuple(found)

    def _models(self) -> tuple[ModelOf, ...]:
        node, found = self._node("models"), []
        if node is None:
            self._notes.wrong(self._root.where, "models", "missing: pretrained encoders, as models: {bert: "
                                                          "bert-base-uncased}.")  # fmt: skip
            return ()
        for label, child in labelled(self._notes, node, "models").items():
            key = f"models.{label}"
            self._where[key] = node.key_where.get(label, child.where)
            read: dict[str, Any] = {"source": label}
            if child.mapping is None and child.items is None and child.value is not None:
                read["source"] = text(self._notes, child, key)
            else:
                read |= section(self._notes, child, key, {"source": text, "trust_remote_code": flag})
            source = read["source"]
            if source is WRONG:
                continue
            if _is_path(source):
                source = os.path.expanduser(source)
                if not (Path(source) / "config.json").is_file():
                    place = (child.mapping or {}).get("source", child).where
                    self._notes.wrong(place, key, f"{source}: there is no folder with a config.json.")
            found.append(ModelOf(label, source, bool(read.get("trust_remote_code", False))))
        return tuple(found)

    def _tickets(self) -> dict[str, Any] | None:
        node = self._node("tickets")
        if node is None:
            return None
        found = section(self._notes, node, "tickets", TICKETS)
        if "levels" in found:
            try:
                levels = parse_levels(",".join(map(str, found["levels"])))
                found["levels"] = tuple(level.text for level in levels)
            except UsageError as error:
                self._notes.wrong((node.mapping or {})["levels"].where, "tickets.levels", str(error))
        return {
            "levels": tuple(level.text for level in parse_levels("10,...,80")),
            "kinds": TICKET_KINDS,
            "seeds": 5,
            **found,
        }

    def _plain(self) -> Stage:
        self._labels["full"] = "regimes"
        return Stage("full", {})

    def _stages(
        self, key: str, table: Mapping[str, Rule], default_of: Sequence[str] = ()
    ) -> tuple[Stage, ...]:
        node = self._node(key)
        if node is None:
            return ()
        entries = labelled(self._notes, node, key)
        earlier = dict(self._labels)
        found = []
        for label, child in entries.items():
            where = node.key_where.get(label, child.where)
            if label in self._labels:
                self._notes.wrong(
                    where, f"{key}.{label}", f"the name is taken by {self._labels[label]}.{label}."
                )
            self._labels.setdefault(label, key)
            self._where[f"{key}.{label}"] = where
            for name, value in (child.mapping or {}).items():
                self._where[f"{key}.{label}.{name}"] = value.where
            read = section(self._notes, child, f"{key}.{label}", table)
            if key == "regimes" and "regime" not in read and not child.mapping:
                parsed(regime)(self._notes, Node(where, label), f"{key}.{label}")
                read["regime"] = label
            of = read.pop("of", None)
            if of is not None:
                self._known_labels(of, earlier, (child.mapping or {})["of"], f"{key}.{label}.of")
            found.append(Stage(label, read, tuple(of or default_of)))
        return tuple(found)

    def _known_labels(self, of: Sequence[str], known: Mapping[str, str], node: Node, key: str) -> None:
        for number_, label in enumerate(of):
            if label not in known:
                where = node.items[number_].where if node.items else node.where
                self._notes.wrong(where, key, f"unknown label '{label}'.{nearest(label, known)} "
                                              f"Known here: {', '.join(known)}.")  # fmt: skip

    def _needed(self, stages: Sequence[Stage], key: str, name: str, hint: str) -> None:
        for stage in stages:
            path = f"{key}.{stage.label}"
            if name not in stage.settings and not self._notes.about(f"{path}.{name}"):
                self._notes.wrong(self._where[path], path, f"the key '{name}' is missing: {hint}.")

    def _exclusive(self, stages: Sequence[Stage], key: str, one: str, other: str) -> None:
        for stage in stages:
            if one in stage.settings and other in stage.settings:
                path = f"{key}.{stage.label}"
                self._notes.wrong(self._where[path], path, f"{one} and {other} exclude each other.")

    def _schedules(self, tokens: Sequence[Stage]) -> None:
        """Refuse schedules of shares that no model takes; thresholds are checked one by one."""
        for stage in tokens:
            path = f"tokens.{stage.label}"
            if self._notes.about(f"{path}.rule") or stage.settings.get("rule", TOKEN_RULE) != TOKEN_RULE:
                continue
            try:
                check_shares(stage.settings.get("schedule", ()))
            except UsageError as error:
                self._notes.wrong(self._where[f"{path}.schedule"], f"{path}.schedule", str(error))

    def _exit_rules(self, recipe: Recipe) -> None:
        """Refuse rules that look at probabilities where a task has none."""
        looking = {
            f"exits.{stage.label}": rule
            for stage in recipe.exits
            if (rule := stage.settings.get("rule", EXIT_RULE)) != "patience"
            and not self._notes.about(f"exits.{stage.label}.rule")
        }
        for task in recipe.tasks if looking else ():
            if self._kind(task) != "regression":
                continue
            for path, rule in looking.items():
                where = self._where.get(f"{path}.rule", self._where[path])
                text_ = f"'{rule}' needs classes; task '{task.name}' has none: write rule: patience."
                self._notes.wrong(where, f"{path}.rule", text_)

    def _kind(self, task: TaskOf) -> str | None:
        """Return what a task predicts; one's own rows are read for it. None: what they are is unknown."""
        if task.name in TASKS:
            return TASKS[task.name].kind
        key = f"tasks.{task.name}"
        if task.data is None or self._notes.about(f"{key}.data"):
            return None
        try:
            return data.resolve(task.name, task.data).kind
        except EffxError as error:
            self._notes.wrong(self._where[key], f"{key}.data", str(error))
            return None

    def _variants(self) -> tuple[VariantOf, ...]:
        node = self._node("variants")
        if node is None:
            return (VariantOf("fp32"), VariantOf("int8"))
        found = []
        children = node.items if node.items is not None else [node]
        for number_, child in enumerate(children):
            key = f"variants.{number_}"
            of = None
            if child.mapping is not None:
                read = section(self._notes, child, key, {"variant": parsed(variants.parse), "of": each(text)})
                value, of = read.get("variant", WRONG), read.get("of")
                if "variant" not in child.mapping:
                    self._notes.wrong(child.where, key, "the key 'variant' is missing.")
                if of is not None:
                    self._known_labels(of, self._labels, child.mapping["of"], f"{key}.of")
            else:
                value = parsed(variants.parse)(self._notes, child, key)
            if value is WRONG:
                continue
            self._where[key] = child.where
            found.append(VariantOf(value, of))
        return tuple(found)

    def _backends(self) -> tuple[BackendOf, ...]:
        node = self._node("backends")
        if node is None:
            return (BackendOf("onnxruntime"),)
        rule, found = choice(BUILDABLE, "backend"), []
        for number_, child in enumerate(node.items if node.items is not None else [node]):
            key = f"backends.{number_}"
            if child.mapping is None:
                value = rule(self._notes, child, key)
                read = {} if value is WRONG else {"backend": value}
            else:
                read = section(self._notes, child, key, {"backend": rule, "device": text})
                if "backend" not in child.mapping:
                    self._notes.wrong(child.where, key, "the key 'backend' is missing.")
            if "backend" not in read:
                continue
            backend = BackendOf(read["backend"], read.get("device"))
            if backend in found:
                self._notes.wrong(child.where, key, f"'{backend.backend}' stands twice.")
            found.append(backend)
        return tuple(found)

    def _unused(self, recipe: Recipe) -> None:
        """Refuse what would be trained and never built, variants that fit nothing, and names given twice."""
        if recipe.tickets is not None and any(model.source == DEMO_MODEL for model in recipe.models):
            where = self._root.key_where["tickets"]
            self._notes.wrong(
                where, "tickets", f"'{DEMO_MODEL}' is made by a cell; name a folder or the hub."
            )
        if self._notes.problems:
            return  # what was refused above may be what is missing
        for key, text_ in clashes(recipe):
            self._notes.wrong(self._where.get(key, self._root.where), key, text_)
        if not recipe.regimes + recipe.lottery and (node := self._node("variants")):
            self._notes.wrong(node.where, "variants", "there is no regime that they could be built of.")
        made = chains(recipe)
        taken = {chain: set(built(recipe, chain)) for chain in made}
        for number_, variant in enumerate(recipe.variants):
            if not any(variant in found for found in taken.values()):
                wanted = variants.parse(variant.text)
                parts = (("exits", wanted.exits), ("tokens", wanted.tokens))
                needs = " and ".join(f"'{part}'" for part, named in parts if named) or "a plain regime"
                where = self._where.get(f"variants.{number_}", self._root.where)
                text_ = f"'{variant.text}' fits no checkpoint of this recipe; it needs {needs}."
                self._notes.wrong(where, f"variants.{number_}", text_)
        going_on = {label for stage in recipe.pruned + recipe.tokens + recipe.exits for label in stage.of}
        for key, stages, part in (("tokens", recipe.tokens, "tokens"), ("exits", recipe.exits, "exit")):
            for stage in stages:
                used = any(chain.last is stage and found for chain, found in taken.items())
                if not used and stage.label not in going_on:
                    path = f"{key}.{stage.label}"
                    text_ = f"no variant would be built of it. Add one with '{part}', as {part}+int8."
                    self._notes.wrong(self._where[path], path, text_)


def _is_path(source: str) -> bool:
    if source == DEMO_MODEL:
        return False
    return source.startswith((".", "/", "~")) or Path(source).is_dir()
