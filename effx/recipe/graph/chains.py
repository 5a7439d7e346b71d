"""Which checkpoints a recipe trains from one model, and which variants are exported of each.

Chains follow from the rows of :data:`effx.specs.stages.STAGES` that have a section in recipes:

regime ──┬─ pruned ─┬─ tokens ─┬─ exits
         └──────────┴──────────┴─ exits      a chain is a path from the left, of any length
lottery ─┴─────────────────────
regime ─── pruned ─── multitask ─── further  multitask reads the checkpoints of all tasks, or none
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from effx.recipe.language.recipe import ModelEntry, Recipe, StageEntry, VariantEntry, level_of
from effx.specs import variants
from effx.specs.levels import SUPER
from effx.specs.stages import SECTIONS, StageSpec


@dataclass(frozen=True, eq=False)
class Chain:
    """The trainings that produce a checkpoint, in order."""

    stages: tuple[StageEntry, ...]
    rows: tuple[StageSpec, ...]
    """The row of each stage."""

    @property
    def last(self) -> StageEntry:
        return self.stages[-1]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of its stages."""
        return tuple(stage.label for stage in self.stages)

    @property
    def joins_tasks(self) -> bool:
        """Whether all tasks are trained together in one of its stages."""
        return any(map(joins_tasks, self.rows))

    @property
    def variant_parts(self) -> frozenset[str]:
        """The reductions that a variant of its checkpoint can run: ``exits`` and ``tokens``."""
        sections = [row.section for row in self.rows if row.section is not None]
        return frozenset(section.variant_part for section in sections if section.variant_part is not None)


def joins_tasks(row: StageSpec) -> bool:
    """Whether a training of this stage trains all tasks of a recipe."""
    return row.section is not None and row.section.joins_tasks


def joined(task: str, model: str, *labels: str) -> str:
    """Return the name of the checkpoints of a chain or a sweep, without the seed."""
    return "-".join((task, model, *labels))


def chains(recipe: Recipe) -> list[Chain]:
    """Return every chain; a chain comes after the one that it continues."""
    result: list[Chain] = []
    for section, row in SECTIONS.items():
        for entry in recipe.entries(section):
            before = [chain for chain in result if chain.last.label in entry.parents]
            if row.continues and (entry.parents or not joins_tasks(row)):
                result += [Chain((*chain.stages, entry), (*chain.rows, row)) for chain in before]
            else:
                result.append(Chain((entry,), (row,)))
    return result


def chains_of(recipe: Recipe, model: ModelEntry) -> list[Chain]:
    """Return the chains that are trained from one model: those of the labels in its ``only``."""
    return [chain for chain in chains(recipe) if model.only is None or set(chain.labels) <= set(model.only)]


def has_search(recipe: Recipe, model: ModelEntry) -> bool:
    """Return whether the recipe's search for tickets is done for a model."""
    if recipe.tickets is None or model.only is None:
        return recipe.tickets is not None
    return any(level_of(stage) == SUPER for chain in chains_of(recipe, model) for stage in chain.stages)


def exported_variants(recipe: Recipe, chain: Chain) -> Iterator[VariantEntry]:
    """Yield the variants that are exported of a chain's checkpoint.

    A variant without ``of`` is exported of the checkpoints that have exactly the reductions it names. So
    ``int8`` is not exported of a checkpoint with exits: without exits, it computes the same as its parent.
    """
    for variant in recipe.variants:
        wanted = variants.parse(variant.text)
        if variant.parents is None:
            if wanted.reductions == chain.variant_parts:
                yield variant
        elif wanted.reductions <= chain.variant_parts and chain.last.label in variant.parents:
            yield variant


def clashes(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield labels that give two checkpoints the same name: the key of the label to rename, and a message.

    A clash that recurs in longer chains or other tasks is reported once.
    """
    keys = {
        entry.label: f"{section}.{entry.label}" for section in SECTIONS for entry in recipe.entries(section)
    }
    first_with: dict[tuple[str, bool], dict[str, str]] = {}
    reported = set()
    of_models: list[tuple[ModelEntry, tuple[str, ...]]] = []
    for model in recipe.models:
        of_models += [(model, chain.labels) for chain in chains_of(recipe, model)]
        of_models += [(model, ())] if has_search(recipe, model) else []
    for task, (model, labels) in itertools.product(recipe.tasks, of_models):
        name = joined(task.name, model.label, *labels)
        parts = {f"tasks.{task.name}": task.name, f"models.{model.label}": model.label}
        parts |= {keys[label]: label for label in labels}
        # a sweep may have the name of a chain: it has no seed
        first = first_with.setdefault((name, bool(labels)), parts)
        differing = (
            tuple(key for key in first if key not in parts),
            tuple(key for key in parts if key not in first),
        )
        if first == parts or differing in reported:
            continue
        reported.add(differing)
        every = first | parts
        rename = max((*differing[1], *differing[0]), key=lambda key: "-" in every[key])
        before, after = (" with ".join(part) for part in differing)
        yield rename, (f"'{name}' would be the name of {before} and of {after}: the second would replace the "
                       f"first. Rename '{every[rename]}'.")  # fmt: skip
