"""Settings of super tickets: scores, pruning, one ticket, and the search for the super ticket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from effx.errors import UsageError
from effx.specs.levels import ELLIPSES, Level, parse_level_or_super, parse_levels
from effx.specs.settings import OneOf, Parsed, Settings, wrong
from effx.specs.training import ALL_ROWS, Count, FinetuneSettings

IMPORTANCE_METHODS = ("taylor", "fisher", "published", "magnitude", "random")
GRANULARITIES = ("ffns", "neurons")
TICKET_KINDS = ("winning", "random", "losing")
SEARCHES = ("grid", "halving")
KEPT_CHECKPOINTS = ("all", "winning", "none")
TicketKind = Annotated[str, OneOf("kind of ticket", TICKET_KINDS)]
LevelField = Annotated[
    Level, Parsed(Level.parse, "PERCENT", "a level, e.g. 40 or 20/10", lambda level: level.text)
]

TicketLevel = Annotated[
    Level,
    Parsed(
        parse_level_or_super, "PERCENT|super", "a level, e.g. 40 or 20/10, or super", lambda level: level.text
    ),
]


def _expanded(levels: Any) -> Any:
    """Return levels with ``10,...,80`` written out."""
    parts = levels if isinstance(levels, list | tuple) else (levels,)
    words = [part for part in parts if isinstance(part, str)]
    if not any("," in word or word.strip() in ELLIPSES for word in words):
        return levels
    try:
        return parse_levels(",".join(part.text if isinstance(part, Level) else str(part) for part in parts))
    except UsageError as error:
        raise wrong(str(error)) from error


Levels = Annotated[tuple[LevelField, ...], BeforeValidator(_expanded), Field(min_length=1)]


class PruningSettings(Settings):
    """How structures are scored, and which may be pruned."""

    importance: Annotated[str, OneOf("importance method", IMPORTANCE_METHODS)] = "taylor"
    """How heads, FFNs and neurons are scored. taylor: mean absolute gradient of the structure's mask; fisher:
    mean squared gradient; published: as in the code of Liang et al. 2021; magnitude: norm of the weights;
    random: random scores."""
    granularity: Annotated[str, OneOf("granularity", GRANULARITIES)] = "ffns"
    """What is pruned in addition to heads: complete FFNs, or FFN neurons. With neurons, level L prunes L % of
    the heads and of the FFN neurons, and F in H/F is the percentage of the FFN neurons."""
    min_heads: Annotated[int, Field(ge=0)] = 1
    """Minimum number of heads that remain in every layer."""


class TicketSettings(Settings):
    """One ticket: which structures are pruned, and how the rest is fine-tuned."""

    level: TicketLevel
    """Percentage of the heads to prune, e.g. 40; of heads and FFNs, e.g. 20/10; or, in a recipe that has a
    search in ``tickets``, super: the level that the search chooses."""
    kind: TicketKind = "winning"
    """Which structures to prune: least important (winning), random, most important (losing)."""
    rounds: Count = 1
    """Rounds in which the level is reached. 1: one shot, as in Liang et al. 2021. More: every round prunes an
    equal part, fine-tunes what remains from the pretrained weights, and scores it for the next round."""
    pruning: PruningSettings = PruningSettings()
    finetune: FinetuneSettings = FinetuneSettings()


class TicketSearchSettings(Settings):
    """A search for super tickets; ``seed`` is the first of ``seeds``."""

    NOTES: ClassVar[Mapping[str, str]] = {
        "lr": FinetuneSettings.NOTES["lr"],
        "limit": ALL_ROWS,
        "seed": "A search uses this seed and the following ones.",
    }

    levels: Levels = parse_levels("10,...,80")
    """Percentages to prune. L: L % of the heads and 10/12 of L % of the FFNs, as in the paper; H/F, e.g.
    20/10: H % of the heads and F % of the FFNs."""
    seeds: Count = 5
    """Number of seeds."""
    kinds: Annotated[tuple[TicketKind, ...], Field(min_length=1)] = TICKET_KINDS
    """Which structures to prune: least important (winning), random, most important (losing)."""
    search: Annotated[str, OneOf("search", SEARCHES)] = "grid"
    """Which tickets are trained. grid: all of them to the end; halving: winning tickets only, most of which
    are stopped early. With eight levels and three seeds, halving takes about a third of the steps that the
    grid takes for full models and winning tickets."""
    selection: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the validation rows on which the super ticket is chosen; its score is measured on the other
    validation rows."""
    keep: Annotated[str, OneOf("keep", KEPT_CHECKPOINTS)] = "all"
    """Which checkpoints remain on disk: all of them, those of the full models and of winning tickets
    (winning), or none. Scores are always kept, and the search can be resumed from them."""
    pruning: PruningSettings = PruningSettings()
    finetune: FinetuneSettings = FinetuneSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, words in (("kinds", self.kinds), ("levels", [level.text for level in self.levels])):
            if double := next((word for word in words if list(words).count(word) > 1), None):
                raise wrong(f"duplicate {name.removesuffix('s')} {double}.", name)
        if self.search == "halving" and "winning" not in self.kinds:
            raise wrong(
                "search halving trains winning tickets only: add winning to kinds.", "kinds", "search"
            )
        return self

    def ticket(self, level: Level, kind: str, seed: int) -> TicketSettings:
        """Return the settings of one ticket of the search."""
        given = {**self.pruning.given(), **self.finetune.given(), "seed": seed}
        return TicketSettings.of(level=level, kind=kind, **given)
