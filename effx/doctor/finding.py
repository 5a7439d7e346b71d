"""One finding of the doctor."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "missing", "broken"]
Topic = Literal["python", "packages", "runtimes", "processor", "gpu", "energy", "limits", "disk"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    ``missing``: effx works without it, but a measurement or a backend is not available.
    ``broken``: it is installed and does not work, or it makes other things fail.
    """

    topic: Topic
    name: str
    state: State
    detail: str
    fix: str | None = None
    """The command that fixes it; None: nothing has to be done, or nothing can be done on this machine."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)
