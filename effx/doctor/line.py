"""One finding of the doctor."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "missing", "broken"]


@dataclass(frozen=True)
class Line:
    """What was looked at and what was found.

    ``missing`` is something that effx does without: a measurement or a backend is not to be had.
    ``broken`` is something that is there and does not work, or that makes other things fail.
    """

    topic: str
    name: str
    state: State
    detail: str
    fix: str | None = None
    """The command that puts it right; None: nothing to do, or nothing that can be done here."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)
