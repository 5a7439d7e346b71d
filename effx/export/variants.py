"""The variant grammar: parts joined by ``+``, at most one of each kind.

    variant   = part { "+" part }
    precision = fp32 | int8 | int8-dynamic

No precision means fp32. A new part is one line in ``PRECISIONS`` and one builder.
"""

from __future__ import annotations

from dataclasses import dataclass

from effx.errors import UsageError, unknown

PRECISIONS: dict[str, str] = {
    "fp32": "fp32",
    "int8": "int8-dynamic",
    "int8-dynamic": "int8-dynamic",
}
"""What a user may ask for -> the scheme that is built."""


@dataclass(frozen=True)
class Variant:
    """A parsed variant."""

    text: str
    """As asked for; part of the engine's name."""
    scheme: str
    """How weights and activations are stored: a value of ``PRECISIONS``."""

    @property
    def precision(self) -> str:
        """The arithmetic of the GEMMs: fp32 or int8."""
        return self.scheme.split("-", 1)[0]


def parse(text: str) -> Variant:
    """Parse a variant.

    Raises:
        UsageError: a part is unknown (the nearest is named), or two parts exclude each other.
    """
    parts = [part.strip() for part in text.split("+")]
    for part in parts:
        if part not in PRECISIONS:
            raise unknown("variant", part, PRECISIONS)
    if len(parts) > 1:
        raise UsageError(f"variant '{text}': {' and '.join(parts)} exclude each other.")
    return Variant(text, PRECISIONS[parts[0]])
