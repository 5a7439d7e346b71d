"""A recipe as cells: pieces of work with what they need, what decides their outcome, and a key.

    pretrain -> finetune -> prune -> tokens -> exits    one cell per checkpoint, prune and tokens optional
    pretrain -> lottery                          one cell, all its rounds
                  each  ->  export                 one per engine
    tickets-full -> ticket -> tickets              a sweep, see tickets.py
                  all of a task's -> profile       one session, interleaved, per task and host
                  all of them -> report            one

A cell's key is a digest of its kind, name, settings, the digests of the files it reads, the code and
package versions that matter, and the keys of the cells it needs. So the key of everything is known
before anything has run, and a change of any input changes the keys of all that depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effx import data, files
from effx.recipe.graph import tickets
from effx.recipe.graph.chains import built, chains, joined
from effx.recipe.graph.digests import Digests, versions
from effx.recipe.language.recipe import DEMO_MODEL, ModelOf, Recipe, TaskOf
from effx.specs import variants

SCHEMA = 1
KEY_DIGITS = 20
_MEASURES = "int8"
"""Of the precisions, the one whose export times candidates."""


@dataclass(frozen=True)
class Cell:
    """One piece of work."""

    kind: str
    name: str
    """Of the folder that it makes."""
    settings: dict[str, Any]
    """What decides the outcome."""
    places: dict[str, Any] = field(default_factory=dict)
    """Where things are; the same work elsewhere is the same cell."""
    inputs: dict[str, Any] = field(default_factory=dict)
    """Digests of files and code, versions of packages."""
    needs: tuple[str, ...] = ()
    """Names of the cells it reads."""
    any_of: bool = False
    """It reads those of ``needs`` that worked out, at least one, instead of all."""
    alone: bool = False
    """It measures: nothing else may compute on its host."""
    work: float = 1.0
    """How much there is to do, in units of its kind."""
    group: str = ""
    """Cells of one kind and group take times that go with ``work``."""

    @property
    def id(self) -> str:
        """Unique within a plan, and for people."""
        return f"{self.kind} {self.name}"

    def key(self, keys: Mapping[str, str]) -> str:
        """Return the cell's key, given those of the cells that it reads."""
        whole = {
            "schema": SCHEMA,
            "kind": self.kind,
            "name": self.name,
            "settings": self.settings,
            "inputs": self.inputs,
            "needs": sorted(keys[need] for need in self.needs if need in keys),
        }
        return files.json_digest(whole)[:KEY_DIGITS]


def cells(recipe: Recipe, digests: Digests, host: str) -> list[Cell]:
    """Return the cells of a recipe, each after those that it needs.

    Args:
        recipe: what is wanted.
        digests: of the files and code that it reads.
        host: id of the machine that measures.

    Raises:
        DataError: a task's files are missing, or its rows do not fit.
    """
    made = _Cells(recipe, digests)
    for task in recipe.tasks:
        engines: list[Cell] = []
        for model in recipe.models:
            for seed in recipe.seeds:
                engines += made.of_model(task, model, seed)
            if recipe.tickets is not None:
                made.tickets(task, model, recipe.tickets)
        if engines:
            made.profile(task, engines, host)
    made.report()
    return made.found


class _Cells:
    def __init__(self, recipe: Recipe, digests: Digests) -> None:
        self.found: list[Cell] = []
        self._recipe, self._digests = recipe, digests
        self._rows: dict[str, dict[str, Any]] = {}

    def of_model(self, task: TaskOf, model: ModelOf, seed: int) -> list[Cell]:
        """Add what is made of one model with one seed; return the engines."""
        checkpoints: dict[tuple[str, ...], Cell] = {}
        engines: list[Cell] = []
        for chain in chains(self._recipe):
            labels = chain.labels
            name = f"{joined(task.name, model.label, *labels)}-s{seed}"
            if len(labels) == 1:
                kind = "lottery" if chain.lottery else "finetune"
                cell = self._finetune(task, model, seed, name, chain.last.settings, kind=kind)
            elif chain.pruned:
                own = {
                    **chain.stages[0].settings,
                    **chain.last.settings,
                }  # the regime's, where it says none
                full = checkpoints[labels[:-1]]
                cell = self._finetune(task, model, seed, name, own, full, kind="prune")
            else:
                kind = "exits" if chain.exits else "tokens"
                cell = self._go_on(kind, task, seed, name, chain.last.settings, checkpoints[labels[:-1]])
            checkpoints[labels] = cell
            for variant in dict.fromkeys(variant.text for variant in built(self._recipe, chain)):
                engines += self._engines(cell, task, variant)
        return engines

    def _finetune(
        self,
        task: TaskOf,
        model: ModelOf,
        seed: int,
        name: str,
        own: dict[str, Any],
        full: Cell | None = None,
        *,
        kind: str,
    ) -> Cell:
        """Add a fine-tuning of the pretrained model; ``full``: what its ticket is drawn by."""
        settings = {**self._recipe.training, **own, "seed": seed, "limit": task.limit}
        inputs: dict[str, Any] = {"rows": self._of(task)}
        needs: tuple[str, ...] = () if full is None else (full.id,)
        if model.source == DEMO_MODEL:
            needs += (self._pretrained().id,)
        else:
            inputs["model"] = self._digests.model(model.source)
        return self._add(
            kind, name,
            {"task": task.name, "trust_remote_code": model.trust_remote_code, "training": settings},
            {"data": _place(task.data), "model": _place(model.source)},
            inputs, needs,
            work=self._amount(task, settings, ("epochs",), 3.0) * _rounds(kind, settings),
            group=f"{model.label} {settings.get('regime', 'full')} {settings.get('layers', '')}",
        )  # fmt: skip

    def _go_on(
        self, kind: str, task: TaskOf, seed: int, name: str, own: dict[str, Any], parent: Cell
    ) -> Cell:
        settings = {**self._recipe.training, **own, "seed": seed}
        epochs = {"tokens": (("soft_epochs", 1.0), ("epochs", 2.0)), "exits": (("epochs", 3.0),)}[kind]
        if kind == "tokens" and "schedule" in own:
            epochs = epochs[1:]
        return self._add(
            kind, name, {"task": task.name, "training": settings}, {"data": _place(task.data)},
            {"rows": self._of(task)}, (parent.id,),
            work=sum(self._amount(task, settings, (key,), default) for key, default in epochs),
            group=f"{settings.get('mode', '')} {parent.group}",
        )  # fmt: skip

    def _engines(self, checkpoint: Cell, task: TaskOf, variant: str) -> list[Cell]:
        engines = []
        for place in self._recipe.backends:
            suffix = f".{place.device}" if place.device else ""
            engines.append(
                self._add(
                    "export", f"{checkpoint.name}.{variant}.{place.backend}{suffix}",
                    {"variant": variant, "backend": place.backend, "device": place.device,
                     "calibration_rows": self._recipe.calibration_rows},
                    {"data": _place(task.data)}, {}, (checkpoint.id,), backends=(place.backend,),
                    alone=variants.parse(variant).scheme == _MEASURES,
                    group=f"{variant} {place.backend}",
                )
            )  # fmt: skip
        return engines

    def tickets(self, task: TaskOf, model: ModelOf, sweep: dict[str, Any]) -> None:
        """Add a sweep for super tickets."""
        training = self._recipe.training
        how = {**tickets.how(sweep), "limit": task.limit, "seed": self._recipe.seeds[0]}
        shared = {"task": task.name, "training": training, "tickets": how}
        places = {"data": _place(task.data), "model": _place(model.source)}
        inputs = {"rows": self._of(task), "model": self._digests.model(model.source)}
        work = self._amount(task, {**training, **how}, ("epochs",), 3.0)
        prefix, needs = joined(task.name, model.label), []
        halving = how.get("search") == "halving"
        for seed, every in () if halving else tickets.grid(sweep, self._recipe.seeds[0]):
            name, own = f"{prefix}-full-s{seed}", {**shared, "seed": seed}
            full = self._add("tickets-full", name, own, places, inputs, (), work=work, group=model.label)
            needs.append(full.id)
            for kind, level in every:
                name = f"{prefix}-{kind}{level.replace('/', '-')}-s{seed}"
                ticket = {**own, "kind": kind, "level": level}
                cell = self._add(
                    "ticket", name, ticket, places, inputs, (full.id,), work=work, group=model.label
                )
                needs.append(cell.id)
        whole = {**shared, **{key: sweep[key] for key in ("levels", "kinds", "seeds")}}
        self._add(
            "tickets", prefix, whole, places, inputs, tuple(needs),
            work=work * len(sweep["levels"]) * sweep["seeds"] if halving else 1.0,
            group="halving" if halving else "table",
        )  # fmt: skip

    def profile(self, task: TaskOf, engines: list[Cell], host: str) -> None:
        """Add the session that measures a task's engines side by side."""
        workloads = dict(self._recipe.workloads)
        meter = workloads.pop("meter", "auto")
        backends = tuple(dict.fromkeys(str(engine.settings["backend"]) for engine in engines))
        self._add(
            "profile", task.name, {"plan": workloads, "meter": meter, "host": host},
            {"data": _place(task.data)}, {"rows": self._of(task)}, tuple(engine.id for engine in engines),
            backends=backends, any_of=True, alone=True, work=float(len(engines)),
        )  # fmt: skip

    def report(self) -> None:
        """Add the report over every session."""
        sessions = tuple(cell.id for cell in self.found if cell.kind == "profile")
        if not sessions:
            return
        self._add("report", self._recipe.name, {}, {}, {}, sessions, any_of=True)

    def _pretrained(self) -> Cell:
        name = "demo-bert"
        known = next((cell for cell in self.found if cell.kind == "pretrain"), None)
        return known or self._add("pretrain", name, {}, {}, {}, ())

    def _add(
        self, kind: str, name: str, settings: dict[str, Any], places: dict[str, Any], inputs: dict[str, Any],
        needs: tuple[str, ...], *, backends: tuple[str, ...] = (), **options: Any,
    ) -> Cell:  # fmt: skip
        known = {"code": self._digests.code(kind), "versions": versions(kind, backends)}
        cell = Cell(kind, name, settings, places, {**inputs, **known}, needs, **options)
        self.found.append(cell)
        return cell

    def _of(self, task: TaskOf) -> dict[str, Any]:
        if task.name not in self._rows:
            self._rows[task.name] = self._digests.rows(data.resolve(task.name, task.data), task.data)
        return self._rows[task.name]

    def _amount(self, task: TaskOf, settings: dict[str, Any], keys: tuple[str, ...], default: float) -> float:
        """Return training rows seen."""
        rows = self._of(task)["rows"] or task.limit or 1
        rows = min(rows, task.limit or rows)
        if settings.get("max_steps"):
            return float(settings["max_steps"]) * float(settings.get("batch_size", 32))
        return float(rows) * sum(float(settings.get(key, default)) for key in keys)


def _rounds(kind: str, settings: Mapping[str, Any]) -> int:
    """Return how often a cell trains: a lottery ticket's rounds remove a tenth each."""
    return 1 + int(settings.get("sparsity", 70)) // 10 if kind == "lottery" else 1


def _place(source: str | None) -> str | None:
    """Return an absolute path for a folder; names on the hub stay."""
    return str(Path(source).resolve()) if source is not None and Path(source).is_dir() else source
