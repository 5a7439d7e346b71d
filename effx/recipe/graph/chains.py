"""Which checkpoints a recipe makes of one model, and which variants are built of each.

Chains follow from the rows of :data:`effx.specs.stages.STAGES` that have a section in recipes:

regime ──┬─ pruned ─┬─ tokens ─┬─ exits
         └──────────┴──────────┴─ exits      a chain is one path from the left, cut anywhere
lottery ─┴─────────────────────
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from effx.recipe.language.recipe import Recipe, StageEntry, VariantEntry
from effx.specs import variants
from effx.specs.stages import SECTIONS, StageSpec


@dataclass(frozen=True, eq=False)
class Chain:
    """The trainings that lead to a checkpoint, first to last."""

    stages: tuple[StageEntry, ...]
    rows: tuple[StageSpec, ...]
    """The row of each of them."""

    @property
    def last(self) -> StageEntry:
        return self.stages[-1]

    @property
    def labels(self) -> tuple[str, ...]:
        """Of its stages."""
        return tuple(stage.label for stage in self.stages)

    @property
    def variant_parts(self) -> frozenset[str]:
        """What variants can run of its checkpoint: ``exits`` and ``tokens``."""
        sections = [row.section for row in self.rows if row.section is not None]
        return frozenset(section.variant_part for section in sections if section.variant_part is not None)


def joined(task: str, model: str, *labels: str) -> str:
    """Return the name of what is made of a task and a model by a chain or a sweep, without its seed."""
    return "-".join((task, model, *labels))


def chains(recipe: Recipe) -> list[Chain]:
    """Return every chain, each after those that it continues."""
    result: list[Chain] = []
    for section, row in SECTIONS.items():
        for entry in recipe.entries(section):
            before = [chain for chain in result if chain.last.label in entry.parents]
            if row.continues:
                result += [Chain((*chain.stages, entry), (*chain.rows, row)) for chain in before]
            else:
                result.append(Chain((entry,), (row,)))
    return result


def built(recipe: Recipe, chain: Chain) -> Iterator[VariantEntry]:
    """Yield the variants that are built of a chain's checkpoint.

    A variant without ``of`` is built of the checkpoints that have just the exits and tokens that it
    names: the plain pass through a checkpoint with exits is the pass through the one it was made from.
    """
    for variant in recipe.variants:
        wanted = variants.parse(variant.text)
        if variant.parents is None:
            if wanted.reductions == chain.variant_parts:
                yield variant
        elif wanted.reductions <= chain.variant_parts and chain.last.label in variant.parents:
            yield variant


def clashes(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield labels that, joined with others, name what others name already: the key of one, and a line.

    A clash that longer chains or other tasks repeat is reported once.
    """
    keys = {
        entry.label: f"{section}.{entry.label}" for section in SECTIONS for entry in recipe.entries(section)
    }
    ways = [chain.labels for chain in chains(recipe)] + ([()] if recipe.tickets is not None else [])
    named: dict[tuple[str, bool], dict[str, str]] = {}
    reported = set()
    for task, model, way in itertools.product(recipe.tasks, recipe.models, ways):
        name = joined(task.name, model.label, *way)
        made = {f"tasks.{task.name}": task.name, f"models.{model.label}": model.label}
        made |= {keys[label]: label for label in way}
        other = named.setdefault((name, bool(way)), made)  # no sweep's name is a checkpoint's: no seed
        pair = tuple(key for key in other if key not in made), tuple(key for key in made if key not in other)
        if other == made or pair in reported:
            continue
        reported.add(pair)
        labels = other | made
        rename = max((*pair[1], *pair[0]), key=lambda key: "-" in labels[key])
        one, two = (" with ".join(part) for part in pair)
        yield rename, (f"'{name}' would be the name of {one} and of {two}, and one of them would be lost: "
                       f"rename '{labels[rename]}'.")  # fmt: skip
