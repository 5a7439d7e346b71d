"""Levels: the percentages of heads and FFNs that a ticket prunes.

level 40       floor(40 % of the heads), and 40 / 10 of every twelve FFNs: the published grid
(Liang et al. 2021, section 4): 57 heads and 4 FFNs of BERT-base
level 20/10    floor(20 % of the heads), floor(10 % of the FFNs)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from effx.errors import UsageError

ELLIPSES = ("...", "…")


@dataclass(frozen=True)
class Level:
    """The percentage of the heads and FFNs that a ticket prunes."""

    heads: int
    ffns: int | None = None
    """Of the FFNs or neurons; None: that of the published grid for FFNs, that of the heads for neurons."""

    @property
    def text(self) -> str:
        """The level as users write it."""
        return str(self.heads) if self.ffns is None else f"{self.heads}/{self.ffns}"

    @property
    def name(self) -> str:
        """The level within a file's name."""
        return self.text.replace("/", "-")

    @classmethod
    def parse(cls, text: str) -> Level:
        """Parse ``40``, or ``20/10`` for heads and FFNs separately.

        Raises:
            UsageError: it is not a level, or out of range.
        """
        match = re.fullmatch(r"([0-9]{1,4})(?:/([0-9]{1,4}))?", text.strip())
        if not match:
            raise UsageError(f"level '{text}': expected a percentage, e.g. 40, or HEADS/FFNS, e.g. 20/10.")
        heads, ffns = int(match[1]), None if match[2] is None else int(match[2])
        highest = max(heads, ffns or 0)
        if highest > 100 or highest == 0:
            raise UsageError(f"level '{text}': expected percentages between 1 and 100.")
        return cls(heads, ffns)


class SuperLevel(Level):
    """The level of the super ticket, which a search for tickets chooses: a word until then."""

    @property
    def text(self) -> str:
        """The word as users write it."""
        return SUPER_WORD


SUPER_WORD = "super"
SUPER = SuperLevel(0)


def parse_level_or_super(text: str) -> Level:
    """Parse a level, or the word ``super``.

    Raises:
        UsageError: it is neither.
    """
    return SUPER if text.strip() == SUPER_WORD else Level.parse(text)


def parse_levels(text: str) -> tuple[Level, ...]:
    """Parse levels, as ``10,20,40``, ``20/10,40`` or ``10,...,80``.

    ``...`` continues in the step between the two levels before it; a single level is itself the step.

    Raises:
        UsageError: a level is invalid, out of range or duplicate, or ``...`` is ambiguous.
    """
    parts = [part.strip() for part in text.split(",")]
    levels: list[Level] = []
    for index, part in enumerate(parts):
        if part not in ELLIPSES:
            levels.append(Level.parse(part))
            continue
        last = Level.parse(parts[index + 1]) if index + 1 < len(parts) else None
        before = levels[-1] if levels else None
        if before is None or last is None or before.ffns is not None or last.ffns is not None:
            raise UsageError(f"levels '{text}': '...' must be between two plain levels, e.g. 10,...,80.")
        step = before.heads - levels[-2].heads if len(levels) > 1 else before.heads
        if step < 1:
            raise UsageError(f"levels '{text}': levels before '...' must rise.")
        if last.heads <= before.heads:
            raise UsageError(
                f"levels '{text}': levels must rise across '...'; {last.heads} is not above {before.heads}."
            )
        between = [Level(value) for value in range(before.heads + step, last.heads, step)]
        if not between and last.heads != before.heads + step:
            raise UsageError(
                f"levels '{text}': a step of {step} from {before.heads} gives no level below {last.heads}: "
                "write two levels before '...', e.g. 10,20,...,80."
            )
        levels += between
    if duplicate := next((level for level in levels if levels.count(level) > 1), None):
        raise UsageError(f"levels '{text}': duplicate level {duplicate.text}.")
    return tuple(levels)
