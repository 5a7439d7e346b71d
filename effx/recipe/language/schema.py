"""Reading recipes: every mistake at once, each with its line, its key and the nearest known name.

file -> document (with lines) -> --set -> normalised entries -> Recipe (pydantic) -> cross checks
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from effx import data, files, records
from effx.errors import ArtifactError, EffxError, UsageError, nearest
from effx.recipe.graph.chains import (
    chains,
    chains_of,
    clashes,
    exported_variants,
    has_search,
    joins_tasks,
)
from effx.recipe.language import document as documents
from effx.recipe.language import limits
from effx.recipe.language.document import Document, Problem
from effx.recipe.language.recipe import (
    DEMO_MODEL,
    ENTRIES,
    BackendEntry,
    ModelEntry,
    Recipe,
    TaskEntry,
    TicketsEntry,
    TrainingDefaults,
    VariantEntry,
    WorkloadsEntry,
    level_of,
    lottery_settings,
)
from effx.specs import backends, exit_rules, settings, variants
from effx.specs.backends import BUILDABLE
from effx.specs.exits import EarlyExitSettings
from effx.specs.kinds import KINDS
from effx.specs.layer_reduction import TOP
from effx.specs.levels import SUPER
from effx.specs.lottery import rewind_refusal
from effx.specs.multitask import MultitaskSettings
from effx.specs.settings import Settings
from effx.specs.stages import SECTIONS, StageSpec
from effx.specs.tasks import NAME, NAMING, TASKS, Task
from effx.specs.tickets import TicketSettings
from effx.specs.training import FinetuneSettings, steps_of, unknown_steps

_LABELLED: Mapping[str, type[Settings]] = {"tasks": TaskEntry, "models": ModelEntry, **ENTRIES}
_GROUPED: Mapping[str, type[Settings]] = {
    "training": TrainingDefaults,
    "tickets": TicketsEntry,
    "workloads": WorkloadsEntry,
}
_LISTED: Mapping[str, tuple[type[Settings], str]] = {
    "variants": (VariantEntry, "variant"),
    "backends": (BackendEntry, "backend"),
}
"""Section -> type of its entries, and the key of which a bare word is the value."""
_HIDDEN = ("label", "name", "settings")
_FIRST = next(iter(SECTIONS))
"""The section of fine-tunings, which a recipe without it has too."""
_KEYS = tuple(Recipe.model_fields)


class RecipeError(UsageError):
    """A recipe with mistakes; the message has one line each."""

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        super().__init__("\n".join([f"{path}: {count}; nothing was started.", *map(str, problems)]))

    def lines(self) -> list[str]:
        """Return how many mistakes there are, then each mistake."""
        return str(self).split("\n")


def load(path: str | Path, assignments: Sequence[str] = (), *, workspace: str | Path | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the YAML file. Paths in it are relative to the working directory, as on the command line, and
            begin in the home folder with ``~``.
        assignments: ``key=value`` with dotted keys; they override the file.
        workspace: overrides the recipe's.

    Raises:
        RecipeError: with every mistake in it.
        UsageError: the file cannot be read.
    """
    path = Path(path)
    try:
        content = records.read_regular(path).decode("utf-8")
    except ArtifactError as error:
        raise UsageError(str(error)) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text in UTF-8.") from error
    document = documents.parse(content)
    if document.problems and not document.value:  # not YAML: reporting missing keys would not help
        raise RecipeError(path, document.problems)
    if document.value is None:
        document.value = {}
    if not isinstance(document.value, dict):
        document.wrong((), f"expected a mapping with {', '.join(_KEYS)}.")
        raise RecipeError(path, document.problems)
    documents.override(document, assignments, tuple(_LABELLED))
    recipe = _RecipeReader(document, path).read(workspace)
    if recipe is None or document.problems:
        raise RecipeError(path, sorted(document.problems, key=_order))
    return recipe


def _order(problem: Problem) -> tuple[int, str]:
    line = re.fullmatch(r"line (\d+)", problem.where)
    return (int(line.group(1)) if line else 1_000_000_000, problem.where)


class _RecipeReader:
    """Normalises the entries of a document, validates them, and checks the references between them."""

    def __init__(self, document: Document, path: Path) -> None:
        self._document, self._path = document, path
        self._root: dict[str, Any] = document.value
        self._entries: dict[str, list[dict[str, Any]]] = {}
        """Section -> entries with their labels, as written."""

    def read(self, workspace: str | Path | None) -> Recipe | None:
        """Return the recipe, or None after noting the mistakes in the document."""
        values = self._normalised()
        if workspace is not None:
            values["workspace"] = str(workspace)
        if isinstance(values["workspace"], str):
            values["workspace"] = os.path.expanduser(values["workspace"])
        recipe = None
        try:
            recipe = Recipe.model_validate(values)
        except ValidationError as error:
            for detail in settings.details(error):
                self._note(detail)
        else:
            recipe = _with_limits(recipe)
        for section in ("tasks", "models"):
            if not self._entries.get(section, True) and not self._document.problems:
                self._document.wrong((section,), "expected at least one entry.")
        self._check_tasks()
        self._check_models()
        self._check_labels()
        self._check_backends()
        where = self._document.where(("tickets",))
        if "tickets" in self._root and self._root["tickets"] is None and not where.startswith("--set"):
            text = "has no value: write tickets: {} for a search with default settings, or remove the key."
            self._document.wrong(("tickets",), text)
        if recipe is not None:
            self._check_exit_rules(recipe)
            self._check_strides(recipe)
            self._check_super(recipe)
            self._check_joint(recipe)
            self._check_trainable(recipe)
            self._check_sizes(recipe)
            self._check_lottery(recipe)
            if not self._document.problems:  # otherwise what was refused may be what is missing
                self._check_use(recipe)
        return recipe

    # normalisation

    def _normalised(self) -> dict[str, Any]:
        """Return the values that the model validates."""
        root = self._root
        values = {
            key: value
            for key, value in root.items()
            if value is not None and key not in _LABELLED and key not in _LISTED
        }
        name = root.get("name")
        if name is None or (isinstance(name, str | int) and not isinstance(name, bool)):
            values["name"] = files.safe_name(str(name if name is not None else self._path.stem))
            values.setdefault("workspace", f"effx-{values['name']}")
        values.setdefault("workspace", "")
        for section, kind in _GROUPED.items():
            if isinstance(values.get(section), dict):
                values[section] = _nested(kind, values[section])
        for section, (_, key) in _LISTED.items():
            if root.get(section) is not None:
                values[section] = self._listed(section, key)
        for section in _LABELLED:
            if section in SECTIONS or root.get(section) is not None:
                self._entries[section] = self._labelled(section)
        if not self._entries[_FIRST] and root.get("tickets") is None:
            self._entries[_FIRST] = [{"label": "full"}]
        for section, entries in self._entries.items():
            values[section] = [self._entry(section, entry) for entry in entries]
        if "variants" not in values and any(values[section] for section in SECTIONS):
            values["variants"] = [{"variant": "fp32"}, {"variant": "int8"}]
        return values

    def _labelled(self, section: str) -> list[dict[str, Any]]:
        """Return the entries of a section: a mapping from labels, a list of labels, or one label."""
        value, document = self._root.get(section), self._document
        if value is None:
            return []
        named: list[tuple[Any, Any, documents.KeyPath]] = []
        if isinstance(value, dict):
            named = [(label, entry, (section, label)) for label, entry in value.items()]
        elif isinstance(value, list):
            named = [(label, None, (section, index)) for index, label in enumerate(value)]
        else:
            named = [(value, None, (section,))]
        entries: dict[str, dict[str, Any]] = {}
        for label, entry, path in named:
            if not isinstance(label, str | int) or isinstance(label, bool):
                document.wrong(path, f"expected a name, got {_kind(label)}.")
                continue
            label = str(label)
            if label in entries:
                document.wrong(path, f"duplicate '{label}'.")
                continue
            document.positions.setdefault((section, label), document.where(path))
            if not NAME.fullmatch(label):
                document.wrong((section, label), NAMING)
                continue
            if section == "models" and isinstance(entry, str):
                entry = {"source": entry}
            if entry is not None and not isinstance(entry, dict):
                document.wrong((section, label), f"expected a mapping, got {_kind(entry)}.")
                entry = None
            entries[label] = {**(entry or {}), "label": label}
            for reserved in _HIDDEN:
                if reserved in (entry or {}):
                    document.wrong((section, label, reserved), self._unknown(reserved, _LABELLED[section]))
                    entries[label] = {**entries[label], "label": label}
        return list(entries.values())

    def _entry(self, section: str, entry: dict[str, Any]) -> dict[str, Any]:
        """Return a labelled entry as the values that its model validates."""
        given = {key: value for key, value in entry.items() if value is not None and key not in _HIDDEN}
        label = entry["label"]
        if section == "tasks":
            if isinstance(given.get("data"), str):
                given["data"] = os.path.expanduser(given["data"])
            return {**_nested(TaskEntry, given), "name": label}
        if section == "models":
            source = given.get("source", label)
            source = os.path.expanduser(source) if isinstance(source, str) and _is_path(source) else source
            return {**_nested(ModelEntry, {**given, "source": source}), "label": label}
        row = SECTIONS[section]
        named = row.section.bare_label if row.section is not None else None
        if named is not None and named not in given and (not given or _is_value(row, named, label)):
            given = {named: label, **given}
        if row.continues and "of" not in given and not joins_tasks(row):
            before = next(name for name, earlier in SECTIONS.items() if earlier.name in row.follows)
            given["of"] = [entry["label"] for entry in self._entries[before]]
        return {**_nested(_LABELLED[section], given), "label": label}

    def _listed(self, section: str, key: str) -> list[Any]:
        """Return the entries of a list; a bare word is the value of ``key``."""
        value = self._root[section]
        if not isinstance(value, list):
            self._document.positions.setdefault((section, 0), self._document.where((section,)))
            value = [value]
        return [
            {name: part for name, part in item.items() if part is not None}
            if isinstance(item, dict)
            else {key: item}
            for item in value
        ]

    # problems

    def _note(self, detail: Any) -> None:
        """Note a mistake that pydantic reports."""
        names = settings.names_of(detail)
        path, owner = self._path_of(detail["loc"])
        if names:
            path = (*path, names[0])
        known = self._document.known(path)
        if detail["type"] == "extra_forbidden":
            text = self._unknown(str(path[-1]), owner)
        elif detail["type"] == "missing":
            name = str(path[-1])
            hints = {
                "tasks": "what is predicted, e.g. tasks: [sst2]",
                "models": "pretrained encoders, e.g. models: {bert: bert-base-uncased}",
            }
            field = settings.field_at(Recipe, detail["loc"])
            hint = hints.get(name) or f"expected {settings.expectation(field)}" if field else ""
            text = f"the key '{name}' is missing: {hint}."
        else:
            text = settings.describe(Recipe, detail)
        problem = Problem(self._document.where(path), documents.dotted(known), text)
        if problem not in self._document.problems:
            self._document.problems.append(problem)

    def _unknown(self, name: str, owner: type[Settings]) -> str:
        if owner is Recipe:
            known = list(_KEYS)
        else:
            hidden = {*getattr(owner, "HIDDEN", ()), *_HIDDEN}
            names = [leaf.field.alias or leaf.name for leaf in settings.leaves(owner)]
            known = [name for name in names if name not in hidden]
        return f"unknown key.{nearest(name, known)} Known: {', '.join(known)}."

    def _path_of(self, loc: tuple[int | str, ...]) -> tuple[documents.KeyPath, type[Settings]]:
        """Return an error's path in the document, and the entry or section that it is in."""
        path: list[int | str] = []
        model: type[BaseModel] | None = Recipe
        owner: type[Settings] = Recipe
        for part in loc:
            if isinstance(part, int):
                labels = self._entries.get(str(path[0])) if len(path) == 1 else None
                path.append(str(labels[part]["label"]) if labels else part)
                continue
            field = model.model_fields.get(part) if model is not None else None
            if field is None:
                path.append(part)
                continue
            inner = settings.kind_of(field)
            is_model = isinstance(inner, type) and issubclass(inner, BaseModel)
            if not is_model or model is Recipe:
                path.append(part)
            if is_model and model is Recipe:
                owner = inner
            model = inner if is_model else None
        return tuple(path), owner

    # references

    def _check_tasks(self) -> None:
        for entry in self._entries.get("tasks", []):
            name, folder = entry["label"], entry.get("data")
            path = ("tasks", name)
            if folder is None and name not in TASKS:
                self._document.wrong(path, f"unknown task.{nearest(name, TASKS)} Your own rows need data: "
                                           f"FILE or FOLDER. Known: {', '.join(TASKS)}.")  # fmt: skip
            elif name in TASKS and (reason := TASKS[name].behavior.refused.get("training")):
                self._document.wrong(path, f"{reason}.")
            if isinstance(folder, str | int | float) and not Path(str(folder)).expanduser().exists():
                self._document.wrong((*path, "data"), f"{folder}: there is no such file or folder.")

    def _check_models(self) -> None:
        for entry in self._entries.get("models", []):
            source = entry.get("source") or entry["label"]
            if isinstance(source, str) and _is_path(source):
                source = os.path.expanduser(source)
                if not (Path(source) / "config.json").is_file():
                    text = f"{source}: there is no folder with a config.json."
                    self._document.wrong(("models", entry["label"]), text)

    def _check_labels(self) -> None:
        """Refuse labels used twice, and references to labels that do not exist."""
        taken: dict[str, str] = {}
        for section, row in SECTIONS.items():
            earlier = dict(taken)
            for entry in self._entries[section]:
                label = entry["label"]
                if label in earlier:
                    text = f"the name is already used by {earlier[label]}.{label}."
                    self._document.wrong((section, label), text)
                taken.setdefault(label, section)
                if row.continues:
                    if entry.get("of") == []:
                        text = "expected at least one name, or no key 'of'."
                        self._document.wrong((section, label, "of"), text)
                    usable = {name: of for name, of in earlier.items() if SECTIONS[of].name in row.follows}
                    self._check_references(entry.get("of"), usable, (section, label, "of"))
                if row.may_distil:  # a regime's teacher is one of those before it
                    regimes = {name: of for name, of in taken.items() if of == _FIRST and name != label}
                    self._check_references(entry.get("teacher"), regimes, (section, label, "teacher"))
        value = self._root.get("variants")
        for index, item in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(item, dict):
                self._check_references(item.get("of"), taken, ("variants", index, "of"))

    def _check_references(self, of: Any, known: Mapping[str, str], path: documents.KeyPath) -> None:
        for label in of if isinstance(of, list) else [] if of is None else [of]:
            if str(label) not in known:
                text = f"unknown name '{label}'.{nearest(str(label), known)} Known here: {', '.join(known)}."
                self._document.wrong(path, text)

    def _check_backends(self) -> None:
        seen = []
        value = self._root.get("backends")
        if value == []:
            self._document.wrong(("backends",), "expected at least one entry.")
        for index, item in enumerate(value if isinstance(value, list) else []):
            entry = item if isinstance(item, dict) else {"backend": item}
            wanted = (entry.get("backend"), entry.get("device"))
            if wanted in seen:
                self._document.wrong(("backends", index), f"duplicate backend '{wanted[0]}'.")
            seen.append(wanted)
            if wanted[0] in BUILDABLE and isinstance(wanted[1], str | int | float):  # read as text
                try:
                    backends.get(wanted[0]).device(str(wanted[1]))
                except UsageError as error:
                    self._document.wrong(("backends", index, "device"), str(error))

    def _check_exit_rules(self, recipe: Recipe) -> None:
        """Refuse rules that do not decide on the logits of a task's kind."""
        rules = [
            (stage.label, stage.settings.rule)
            for stage in recipe.entries("exits")
            if isinstance(stage.settings, EarlyExitSettings)
        ]
        for entry in recipe.tasks if rules else ():
            task = self._task(entry)
            if task is None:
                continue
            for label, rule in rules:
                try:
                    exit_rules.check_task(rule, task)
                except UsageError as error:
                    self._document.wrong(("exits", label, "rule"), str(error))

    def _check_strides(self, recipe: Recipe) -> None:
        """Refuse strides where rows are not divided into windows."""
        indices = [
            index
            for index, variant in enumerate(recipe.variants)
            if variants.parse(variant.text).stride is not None
        ]
        for entry in recipe.tasks if indices else ():
            task = self._task(entry)
            if task is None:
                continue
            for index in indices:
                variant = variants.parse(recipe.variants[index].text)
                if reason := variant.stride_refusal(None, divides=task.behavior.form == "windows"):
                    self._document.wrong(
                        ("variants", index), f"'{variant.text}': task '{task.name}': {reason}."
                    )

    def _check_super(self, recipe: Recipe) -> None:
        """Refuse the level of a search that there is not, or that trains no winning tickets."""
        for stage in recipe.entries("pruned"):
            if level_of(stage) != SUPER:
                continue
            path = ("pruned", stage.label, "level")
            if recipe.tickets is None:
                self._document.wrong(path, "super: add the section tickets, a search that chooses the level.")
            elif "winning" not in recipe.tickets.tickets.kinds:
                self._document.wrong(path, "super: the search in tickets trains no winning tickets.")
            elif isinstance(stage.settings, TicketSettings) and (
                stage.settings.pruning != recipe.tickets.tickets.pruning or stage.settings.kind != "winning"
            ):
                text = "super: the level is that of winning tickets of the search: set kind, importance, "
                self._document.wrong(path, f"{text}granularity and min_heads as in tickets.")

    def _check_joint(self, recipe: Recipe) -> None:
        """Refuse what multi-task training would refuse after the tickets were trained."""
        document, entries = self._document, recipe.entries("multitask")
        for index, variant in enumerate(recipe.variants):
            if variants.parse(variant.text).multi:
                text = "recipes do not build multi: export it from the checkpoints in the workspace."
                document.wrong(("variants", index), f"'{variant.text}': {text}")
        if not entries:
            return
        names = {task.name for task in recipe.tasks}
        for stage in entries:
            for of_task, _ in stage.settings.given().get("task_dropout") or ():
                if of_task not in names:
                    text = f"'{of_task}' is not a task of the recipe.{nearest(of_task, names)}"
                    document.wrong(("multitask", stage.label, "task_dropout"), text)
        if len(recipe.tasks) < 2:
            document.wrong(("multitask",), "expected at least two tasks: it trains all tasks of the recipe.")
        for entry in recipe.tasks:
            task = self._task(entry)
            if task is not None and (task.behavior.form != "texts" or "training" in task.behavior.refused):
                text = f"multi-task training does not support this kind of task ({task.kind})."
                document.wrong(("tasks", entry.name), text)
        for model in recipe.models:
            if model.head.given() and any(chain.joins_tasks for chain in chains_of(recipe, model)):
                text = "multi-task training gives every task a new head: leave out the settings of the head."
                document.wrong(("models", model.label), text)
        for chain in chains(recipe):
            if chain.rows[-1].name != "multitask" or len(chain.stages) == 1:
                continue
            settings_of_tickets: dict[str, Any] = dict(recipe.training.given())
            for stage in chain.stages[:-1]:
                settings_of_tickets |= stage.settings.given()
            values = {**recipe.training.given(), **chain.last.settings.given()}
            path = ("multitask", chain.last.label)
            if values.get("sharing") == "none":
                document.wrong((*path, "sharing"), "none does not use tickets: remove the key 'of'.")
            ticket = FinetuneSettings.of(**_only(FinetuneSettings, settings_of_tickets))
            joint = MultitaskSettings.of(**_only(MultitaskSettings, values))
            for name, before, now in (
                ("lr", ticket.learning_rate, joint.learning_rate),
                ("optimizer", ticket.training.optimizer, joint.training.optimizer),
            ):
                if before != now and not joint.mismatched:
                    text = f"the tickets are trained with {before}, not {now}: use the same, or set "
                    document.wrong((*path, name), f"{text}mismatched: true.")

    def _check_only(self, recipe: Recipe) -> None:
        """Refuse labels that a model cannot be trained by alone: those of unknown or of left-out stages."""
        entries = {entry.label: entry for section in SECTIONS for entry in recipe.entries(section)}
        for model in recipe.models:
            trained = {label for chain in chains_of(recipe, model) for label in chain.labels}
            for label in model.only or ():
                entry = entries.get(label)
                if entry is None:
                    text = f"'{label}': there is no such label.{nearest(label, entries)}"
                elif label not in trained:
                    text = f"'{label}' continues {' or '.join(entry.parents)}, which is missing here."
                elif entry.teaching.teacher not in (None, *trained):
                    text = f"the teacher of '{label}', '{entry.teaching.teacher}', is missing here."
                else:
                    continue
                self._document.wrong(("models", model.label, "only"), text)

    def _check_trainable(self, recipe: Recipe) -> None:
        """Refuse tasks of the user whose kind is not trained."""
        for entry in recipe.tasks:
            kind = entry.reading.task_kind
            if entry.data is not None and data.has_documents(entry.data):
                kind = "retrieval"
            if kind is not None and (reason := KINDS[kind].refused.get("training")):
                self._document.wrong(("tasks", entry.name), f"{reason}.")

    def _check_sizes(self, recipe: Recipe) -> None:
        """Refuse layers and lengths that a model does not have, as far as its config.json says."""
        document = self._document
        sizes = {model.label: limits.of_model(model.source) for model in recipe.models}
        for model in recipe.models:
            label, size = model.label, sizes[model.label]
            given: list[tuple[documents.KeyPath, Mapping[str, Any]]] = [
                ((section, entry.label), entry.settings.given())
                for section in SECTIONS
                for entry in recipe.entries(section)
                if model.trains(entry.label)
            ]
            if recipe.tickets is not None and has_search(recipe, model):
                given.append((("tickets",), recipe.tickets.given()))
            for path, values in given:
                layers = values.get("layers")
                if layers is not None and size.layers is not None and layers > size.layers:
                    document.wrong((*path, "layers"), f"{layers}: model '{label}' has {size.layers} layers.")
                if size.only_last_layers and values.get("drop_layers") not in (None, TOP):
                    text = f"only the last layers of model '{label}' can be dropped: use top."
                    document.wrong((*path, "drop_layers"), f"{values['drop_layers']}: {text}")
                for name in ("max_length", "mlm_max_length"):
                    tokens = values.get(name)
                    if tokens is not None and size.tokens is not None and tokens > size.tokens:
                        text = f"{tokens}: model '{label}' reads at most {size.tokens} tokens."
                        document.wrong((*path, name), text)
        longest = [size.tokens for size in sizes.values() if size.tokens is not None]
        if not longest or len(longest) < len(sizes):  # a model of unknown size may read anything
            return
        for index, variant in enumerate(recipe.variants):
            length = variants.parse(variant.text).length
            if length is not None and length > max(longest):
                text = f"'{variant.text}': the models read at most {max(longest)} tokens."
                document.wrong(("variants", index), text)
        for shape in recipe.workloads.plan.grid or ():
            if shape.length > max(longest):
                text = f"{shape.batch}x{shape.length}: the models read at most {max(longest)} tokens."
                document.wrong(("workloads", "grid"), text)

    def _check_lottery(self, recipe: Recipe) -> None:
        """Refuse what a lottery ticket's rounds or the model's layers do not have."""
        document = self._document
        for stage in recipe.entries("lottery"):
            path = ("lottery", stage.label)
            try:
                ticket = lottery_settings(recipe, stage)
            except UsageError as error:
                document.wrong((*path, error.settings[0]), str(error))
                continue
            trained = [model for model in recipe.models if model.trains(stage.label)]
            for model in trained if ticket.init == "shuffled" else ():
                text = f"shuffled: model '{model.label}' has "
                if limits.of_model(model.source).layers == 1:
                    document.wrong((*path, "init"), f"{text}one layer, which has no other order.")
                elif limits.layers_differ(model.source, ticket.finetune):
                    text += "layers with matrices of different sizes: use a model that is not reduced."
                    document.wrong((*path, "init"), text)
            rewind = ticket.search.rewind
            for entry in recipe.tasks if trained and rewind is not None else ():
                task = self._task(entry)
                if rewind is None or task is None or entry.data is None:
                    continue
                known = ticket.finetune.training.max_steps is not None
                each = task.behavior.one_sequence_per_row
                if not known and (reason := unknown_steps(entry.name, one_sequence_per_row=each)):
                    document.wrong((*path, "rewind"), reason)
                    continue
                try:
                    rows = len(data.load(task, "train", entry.source))
                except EffxError:  # planning reports what is wrong with the rows
                    continue
                steps = steps_of(ticket.finetune, min(rows, entry.limit or rows))
                if reason := rewind_refusal(rewind, steps):
                    document.wrong((*path, "rewind"), f"task '{entry.name}': {reason}")

    def _task(self, task: TaskEntry) -> Task | None:
        """Return a task; the user's rows are read for it. None: unknown."""
        if task.name in TASKS:
            return TASKS[task.name]
        path = ("tasks", task.name, "data")
        if task.data is None or self._document.is_wrong(path):
            return None
        try:
            return data.resolve(task.name, task.source)
        except EffxError as error:
            self._document.wrong(path, str(error))
            return None

    def _check_use(self, recipe: Recipe) -> None:
        """Refuse stages without variants, variants without stages, and duplicate names."""
        document = self._document
        if any(model.source == DEMO_MODEL and has_search(recipe, model) for model in recipe.models):
            text = f"model '{DEMO_MODEL}' is not supported here: use a folder, or a name on the hub."
            document.wrong(("tickets",), text)
            return
        self._check_only(recipe)
        if recipe.tickets is not None and not any(has_search(recipe, model) for model in recipe.models):
            text = "no model is searched: each has the key 'only', and names no ticket of the level super. "
            document.wrong(("tickets",), f"{text}Add one to it, leave 'only' out, or remove tickets.")
        chosen = [chain for model in recipe.models for chain in chains_of(recipe, model)]
        possible = {stage.label for chain in chains(recipe) for stage in chain.stages}
        trained = {stage.label for chain in chosen for stage in chain.stages}
        for section, row in SECTIONS.items():
            for entry in recipe.entries(section):
                if entry.label in possible and entry.label not in trained:
                    text = "no model is trained by it: add it to the key 'only' of a model, or remove it."
                    document.wrong((section, entry.label), text)
                elif entry.label not in trained:
                    followed = " or ".join(
                        name for name, other in SECTIONS.items() if other.name in row.follows
                    )
                    text = f"there is nothing that it could continue: add an entry to {followed}."
                    document.wrong((section, entry.label), text)
        for key, text in clashes(recipe):
            document.wrong(tuple(key.split(".", 1)), text)
        variants_of = {chain: set(exported_variants(recipe, chain)) for chain in chosen}
        if not variants_of and self._root.get("variants"):
            document.wrong(("variants",), "there is no checkpoint to export: add regimes.")
        for index, variant in enumerate(recipe.variants):
            if not any(variant in of for of in variants_of.values()):
                parsed = variants.parse(variant.text)
                parts = (("exits", parsed.exits), ("tokens", parsed.tokens))
                needs = " and ".join(f"'{part}'" for part, named in parts if named) or "a plain regime"
                text = (
                    f"'{variant.text}' cannot be built from any checkpoint of this recipe; it needs {needs}."
                )
                document.wrong(("variants", index), text)
        sources = {
            label for section in SECTIONS for entry in recipe.entries(section) for label in entry.parents
        }
        for section, row in SECTIONS.items():
            part = row.section.variant_part if row.section is not None else None
            for entry in recipe.entries(section) if part else ():
                used = any(chain.last is entry and of for chain, of in variants_of.items())
                if not used and entry.label not in sources:
                    word = "exit" if part == "exits" else part
                    text = (
                        f"no variant of the recipe is built from it. Add one with '{word}', e.g. {word}+int8."
                    )
                    document.wrong((section, entry.label), text)


def _with_limits(recipe: Recipe) -> Recipe:
    """Return a recipe whose tasks have its limit, as it was validated, where they have none."""
    if recipe.limit is None:
        return recipe
    tasks = tuple(
        task if task.limit is not None else task.model_copy(update={"limit": recipe.limit})
        for task in recipe.tasks
    )
    return recipe.model_copy(update={"tasks": tasks})


def _is_value(row: StageSpec, name: str, value: str) -> bool:
    """Return whether a setting of a stage's section may have a value."""
    assert row.section is not None
    try:
        row.section.settings.of(**{name: value})
    except UsageError:
        return False
    return True


def _nested(entry: type[Settings], values: Any) -> dict[str, Any]:
    """Return an entry's flat values in their groups; hidden settings stay outside and are refused there."""
    hidden: frozenset[str] = getattr(entry, "HIDDEN", frozenset())
    given = {name: value for name, value in values.items() if value is not None}
    grouped = settings.nested(entry, {name: value for name, value in given.items() if name not in hidden})
    for name, field in entry.model_fields.items():
        if settings.group_of(field):
            grouped.setdefault(name, {})
    return {**grouped, **{name: value for name, value in given.items() if name in hidden}}


def _only(kind: type[Settings], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a mapping that are settings of a type."""
    names = {leaf.name for leaf in settings.leaves(kind)}
    return {name: value for name, value in values.items() if name in names}


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else repr(value)


def _is_path(source: str) -> bool:
    if source == DEMO_MODEL:
        return False
    return source.startswith((".", "/", "~")) or Path(source).is_dir()
