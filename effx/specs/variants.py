"""The variant grammar: parts joined by ``+``, at most one of each kind, in any order.

    variant   = part { "+" part }
    precision = fp32 | fp16 | bf16 | int8 | int8-dynamic | int8-static | fp8       default fp32
    sequence  = seqN | buckets                                                     default any length
    exits     = exit | exit-if                                                     default the last head
    tokens    = tokens                                                             default all of them
    weights   = stripped                                                           default within the plan

``int8`` is the fastest int8 scheme of the backend that passes its gate on this machine. ``seqN``
fixes the length: longer inputs are cut, shorter ones padded to N. ``buckets`` pads to the next of a
few lengths. ``exit`` runs segments with the host between them, ``exit-if`` one graph with If. A
``stripped`` TensorRT plan has its weights in the ONNX graph beside it, and takes them when it is opened.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from effx.errors import UsageError, unknown

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int8-dynamic", "int8-static", "fp8")
_OTHERS = {"buckets": "sequence", "exit": "exits", "exit-if": "exits", "tokens": "tokens",
           "stripped": "weights"}  # fmt: skip
_SEQUENCE = re.compile(r"seq([1-9]\d*)")
LEAST_LENGTH = 4
_FIRST_BUCKET = 16


class Reduced(Protocol):
    """What a variant asks about a checkpoint's structure; see :class:`effx.models.Structure`."""

    @property
    def exits(self) -> tuple[int, ...]: ...

    @property
    def tokens(self) -> tuple[float, ...] | None: ...

    @property
    def token_thresholds(self) -> tuple[float, ...] | None: ...


@dataclass(frozen=True)
class Variant:
    """A parsed variant."""

    text: str
    """As asked for; part of the engine's name."""
    scheme: str
    """One of ``PRECISIONS``."""
    length: int | None = None
    """Fixed sequence length."""
    buckets: bool = False
    exits: str | None = None
    """``exit``, ``exit-if`` or None."""
    tokens: bool = False
    stripped: bool = False

    @property
    def precision(self) -> str:
        """The arithmetic of the GEMMs: fp32, fp16, bf16, int8 or fp8."""
        return self.scheme.split("-", 1)[0]

    def lengths(self, limit: int) -> list[int] | None:
        """Return the lengths that inputs are padded to; None: any up to the model's ``limit``."""
        if self.length is not None:
            return [self.length]
        if not self.buckets:
            return None
        found = [_FIRST_BUCKET]
        while found[-1] < limit:
            found.append(min(found[-1] * 2, limit))
        return found

    def check(self, kept: Reduced, limit: int, name: str) -> None:
        """Raise :class:`UsageError` if a checkpoint cannot be built so.

        Args:
            kept: the checkpoint's structure.
            limit: tokens that its model reads at most.
            name: the checkpoint's, for the message.
        """
        if self.exits and not kept.exits:
            raise UsageError(
                f"variant '{self.text}': {name} has no exits. Make some with: effx train exits {name}"
            )
        if self.tokens and kept.tokens is None and kept.token_thresholds is None:
            raise UsageError(
                f"variant '{self.text}': {name} has no token schedule. "
                f"Make one with: effx train tokens {name}"
            )
        if self.length is not None and self.length > limit:
            raise UsageError(f"variant '{self.text}': {name} reads {limit} tokens at most.")


def parse(text: str) -> Variant:
    """Parse a variant.

    Raises:
        UsageError: a part is unknown (the nearest is named), or two parts exclude each other.
    """
    found: dict[str, str] = {}
    for part in (part.strip() for part in text.split("+")):
        kind = _kind(part)
        if kind in found:
            raise UsageError(f"variant '{text}': {found[kind]} and {part} exclude each other.")
        found[kind] = part
    sequence = _SEQUENCE.fullmatch(found.get("sequence", ""))
    length = int(sequence.group(1)) if sequence else None
    if length is not None and length < LEAST_LENGTH:
        raise UsageError(f"variant '{text}': at least {LEAST_LENGTH} tokens are needed.")
    return Variant(
        text,
        found.get("precision", "fp32"),
        length,
        found.get("sequence") == "buckets",
        found.get("exits"),
        "tokens" in found,
        "weights" in found,
    )


def _kind(part: str) -> str:
    if part in PRECISIONS:
        return "precision"
    if _SEQUENCE.fullmatch(part):
        return "sequence"
    if part in _OTHERS:
        return _OTHERS[part]
    raise unknown("variant", part, [*PRECISIONS, *_OTHERS, "seq64"])
