"""Levels: how much a ticket loses.

level 40       floor(40 % of the heads), and 40 / 10 of every twelve FFNs: the published grid
(Liang et al. 2021, section 4): 57 heads and 4 FFNs of BERT-base
level 20/10    floor(20 % of the heads), floor(10 % of the FFNs)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from effx.errors import UsageError


@dataclass(frozen=True)
class Level:
    """How much a ticket loses, in percent."""

    heads: int
    ffns: int | None = None
    """Of the FFNs or neurons; None: the published grid's share, or as many percent of the neurons."""

    @property
    def text(self) -> str:
        """The level as a person writes it."""
        return str(self.heads) if self.ffns is None else f"{self.heads}/{self.ffns}"

    @property
    def name(self) -> str:
        """The level within a file's name."""
        return self.text.replace("/", "-")

    @classmethod
    def parse(cls, text: str) -> Level:
        """Return the level that ``text`` means: ``40``, or ``20/10`` for heads and FFNs apart.

        Raises:
            UsageError: it is no level, or out of range.
        """
        match = re.fullmatch(r"(\d+)(?:/(\d+))?", text.strip())
        if not match:
            raise UsageError(f"level '{text}': a whole percentage as 40, or heads/FFNs as 20/10, is needed.")
        heads, ffns = int(match[1]), None if match[2] is None else int(match[2])
        highest = max(heads, ffns or 0)
        if highest > 100 or highest == 0:
            raise UsageError(f"level '{text}' is out of range: percentages go from 1 to 100.")
        return cls(heads, ffns)


def parse_levels(text: str) -> tuple[Level, ...]:
    """Return levels from ``10,20,40``, ``20/10,40`` or ``10,...,80``.

    ``...`` goes on in steps as between the two levels before it; a single one is itself the step.

    Raises:
        UsageError: one is no level, out of range, given twice, or ``...`` stands where it says nothing.
    """
    parts = [part.strip() for part in text.split(",")]
    levels: list[Level] = []
    for place, part in enumerate(parts):
        if part not in ("...", "…"):
            levels.append(Level.parse(part))
            continue
        last = Level.parse(parts[place + 1]) if place + 1 < len(parts) else None
        before = levels[-1] if levels else None
        if before is None or last is None or before.ffns is not None or last.ffns is not None:
            raise UsageError(f"levels '{text}': '...' stands between two plain levels, as in 10,...,80.")
        step = before.heads - levels[-2].heads if len(levels) > 1 else before.heads
        if step < 1:
            raise UsageError(f"levels '{text}': levels before '...' rise.")
        if last.heads <= before.heads:
            raise UsageError(
                f"levels '{text}': levels rise across '...'; {last.heads} is not above {before.heads}."
            )
        between = [Level(value) for value in range(before.heads + step, last.heads, step)]
        if not between and last.heads != before.heads + step:
            raise UsageError(f"levels '{text}': steps of {step} from {before.heads} on reach nothing below "
                             f"{last.heads}: write two levels before '...', as in 10,20,...,80.")  # fmt: skip
        levels += between
    if double := next((level for level in levels if levels.count(level) > 1), None):
        raise UsageError(f"levels '{text}': {double.text} stands twice.")
    return tuple(levels)
