"""How a sweep finds tickets: which cells there are, and what they share."""

from __future__ import annotations

from dataclasses import dataclass

from effx.errors import UsageError, unknown
from effx.specs.levels import Level
from effx.train import importance, loop
from effx.train.finetune import parse_regime
from effx.train.tickets import draw, plan

KEEPS = ("all", "winning", "none")


@dataclass(frozen=True)
class Settings(draw.Scoring):
    """How to find tickets; ``seed`` is the first of ``seeds``."""

    levels: tuple[Level, ...] = tuple(Level(percent) for percent in range(10, 90, 10))
    seeds: int = 5
    kinds: tuple[str, ...] = tuple(plan.KINDS)
    search: str = "grid"
    """``grid``, or ``halving``: winning tickets alone, most levels stopped early."""
    selection: float = 0.5
    """Share of the validation rows that choose the super ticket."""
    keep: str = "all"
    """Checkpoints that stay: ``all``, those of the full model and of ``winning`` tickets, or ``none``: the
    full model's until it is scored, no ticket's; records and scores are what a sweep goes on from."""

    def check(self) -> None:
        """Raise :class:`UsageError` for a name that is in no table or a number out of range."""
        for kind in self.kinds:
            if kind not in plan.KINDS:
                raise unknown("kind of ticket", kind, plan.KINDS)
        for what, name, known in (
            ("granularity", self.granularity, plan.GRANULARITIES),
            ("search", self.search, ("grid", "halving")),
            ("keep", self.keep, KEEPS),
            ("optimizer", self.optimizer, loop.OPTIMIZERS),
        ):
            if name not in known:
                raise unknown(what, name, known)
        importance.check_method(self.importance)
        parse_regime(self.regime)
        if not self.levels or not self.kinds or self.seeds < 1:
            raise UsageError("at least one level, one kind and one seed are needed.")
        words = [*self.kinds, *(f"level {level.text}" for level in self.levels)]
        if double := next((word for word in words if words.count(word) > 1), None):
            raise UsageError(f"{double} stands twice: give each kind and level once.")
        if self.search == "halving" and "winning" not in self.kinds:
            raise UsageError("--search halving looks at winning tickets alone: leave --kinds out.")
        loop.choose_precision(self.precision)
        if not 0 < self.selection < 1:
            raise UsageError(f"--selection {self.selection:g}: a share above 0 and below 1 is needed.")
        if self.min_heads < 0:
            raise UsageError(f"--min-heads {self.min_heads}: 0 or more are needed.")


FREE = {"levels", "seeds", "kinds", "search", "keep"}
"""Settings that may change from run to run in one workspace: they say which cells, not how."""
