"""Which checkpoints a recipe makes of one model, and which variants are built of each.

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


@dataclass(frozen=True, eq=False)
class Chain:
    """The stages that lead to a checkpoint, first to last."""

    stages: tuple[StageEntry, ...]
    pruned: bool = False
    """Whether its last stage is a ticket."""
    lottery: bool = False
    """Whether its only stage is an unstructured lottery ticket."""
    exits: bool = False
    """Whether the checkpoint has early exits."""
    tokens: bool = False
    """Whether it has a token schedule."""

    @property
    def last(self) -> StageEntry:
        return self.stages[-1]

    @property
    def labels(self) -> tuple[str, ...]:
        """Of its stages."""
        return tuple(stage.label for stage in self.stages)


def joined(task: str, model: str, *labels: str) -> str:
    """Return the name of what is made of a task and a model by a chain or a sweep, without its seed."""
    return "-".join((task, model, *labels))


def chains(recipe: Recipe) -> list[Chain]:
    """Return every chain; what another one goes on from stands before it."""
    result = [Chain((regime,)) for regime in recipe.regimes]
    result += [Chain((stage,), lottery=True) for stage in recipe.lottery]
    stage: StageEntry
    for stage in recipe.pruned:
        result += [
            Chain((*chain.stages, stage), pruned=True)
            for chain in list(result)
            if chain.last.label in stage.parents
        ]
    for stage in recipe.tokens:
        result += [
            Chain((*chain.stages, stage), tokens=True)
            for chain in list(result)
            if chain.last.label in stage.parents
        ]
    for stage in recipe.exits:
        result += [
            Chain((*chain.stages, stage), exits=True, tokens=chain.tokens)
            for chain in list(result)
            if chain.last.label in stage.parents
        ]
    return result


def built(recipe: Recipe, chain: Chain) -> Iterator[VariantEntry]:
    """Yield the variants that are built of a chain's checkpoint.

    A variant without ``of`` is built of the checkpoints that have just the exits and tokens that it
    names: the plain pass through a checkpoint with exits is the pass through the one it was made from.
    """
    for variant in recipe.variants:
        wanted = variants.parse(variant.text)
        if variant.parents is None:
            if bool(wanted.exits) == chain.exits and wanted.tokens == chain.tokens:
                yield variant
            continue
        possible = (chain.exits or not wanted.exits) and (chain.tokens or not wanted.tokens)
        if possible and chain.last.label in variant.parents:
            yield variant


def clashes(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield labels that, joined with others, name what others name already: the key of one, and a line.

    A clash that longer chains or other tasks repeat is reported once.
    """
    sections = ("regimes", "lottery", "pruned", "tokens", "exits")
    keys = {stage.label: f"{section}.{stage.label}" for section in sections
            for stage in getattr(recipe, section)}  # fmt: skip
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
