"""The variant grammar: parts joined by ``+``, at most one of each kind, in any order.

    variant   = part { "+" part }
    precision = fp32 | fp16 | bf16 | int8 | int8-dynamic | int8-static | fp8 | auto       default fp32
    sequence  = seqN | buckets | bucketsN                                          default any length
    exits     = exit | exit-if                                                     default the last head
    tokens    = tokens                                                             default all of them
    windows   = strideN                                            default a third of the maximum length
    weights   = stripped                                                           default within the plan
    heads     = multi                                                      default the checkpoint's own task
    padding   = unpadded                                                   default computed and masked
    threads   = threadsN                                  default the processors that the process may use

``int8`` is the fastest int8 scheme of the backend that passes its gate on this machine. ``auto`` is the
fastest precision, unless one that scores better takes hardly longer. ``seqN`` fixes the length: longer inputs
are truncated, shorter ones padded to N. ``buckets`` pads to the next of a few lengths, each twice the one
before, and ``bucketsN`` to the next multiple of N. With ``strideN``, neighbouring windows of a context have N
tokens in common. ``exit`` runs segments and the host decides between them; ``exit-if`` is a single graph with
If. The weights of a ``stripped`` TensorRT plan are in an ONNX graph in the same folder; opening puts them
into the plan. ``multi`` is an engine with the heads of all tasks that were trained together on one encoder.
``unpadded`` leaves padding out of all matrix products with weights of layers; only attention computes on
padded rows. ``threadsN`` runs on N threads of a CPU at most.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from effx.errors import UsageError, unknown

AUTO = "auto"
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int8-dynamic", "int8-static", "fp8", AUTO)
QUANTIZED = ("int8", "fp8")
_OTHERS = {"buckets": "sequence", "exit": "exits", "exit-if": "exits", "tokens": "tokens",
           "stripped": "weights", "multi": "heads", "unpadded": "padding"}  # fmt: skip
PARTS = (*PRECISIONS, "seqN", *_OTHERS, "bucketsN", "strideN", "threadsN")
"""All parts, for help texts."""
_SEQUENCE = re.compile(r"seq([1-9][0-9]{0,5})")  # a longer number is no length of any encoder
_BUCKETS = re.compile(r"buckets([1-9][0-9]{0,5})")
_STRIDE = re.compile(r"stride([1-9][0-9]{0,5})")
_THREADS = re.compile(r"threads([1-9][0-9]{0,3})")
MIN_LENGTH = 4
CALIBRATION_ROWS = 128
"""Training rows that calibrate static int8, or all where there are fewer, unless the user says how many."""
_FIRST_BUCKET = 16
_MOST_BUCKETS = 128


class ReducedStructure(Protocol):
    """The parts of a checkpoint's structure that a variant depends on; see :class:`effx.models.Structure`."""

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
    """As written by the user, without spaces; part of the engine's name."""
    scheme: str
    """One of ``PRECISIONS``."""
    length: int | None = None
    """Fixed sequence length."""
    buckets: bool = False
    bucket_step: int | None = None
    """Tokens from one bucket to the next; None: each is twice the one before."""
    exits: str | None = None
    """``exit``, ``exit-if`` or None."""
    tokens: bool = False
    stripped: bool = False
    stride: int | None = None
    """Tokens of the context that a window has in common with the one before it."""
    multi: bool = False
    """Whether it has the heads of all tasks that were trained together."""
    unpadded: bool = False
    """Whether padding is left out of matrix products with weights."""
    threads: int | None = None
    """Threads of the CPU at most; None: the processors that the process may use."""

    @property
    def built(self) -> Variant:
        """What is built, however its parts are ordered: variants that are built alike are equal in it."""
        return replace(self, text="")

    @property
    def precision(self) -> str:
        """The arithmetic of the GEMMs: fp32, fp16, bf16, int8, fp8; or auto, which an engine resolves."""
        return self.scheme.split("-", 1)[0]

    @property
    def reductions(self) -> frozenset[str]:
        """``exits`` and ``tokens``, whichever it runs."""
        return frozenset([*(["exits"] if self.exits else []), *(["tokens"] if self.tokens else [])])

    @property
    def is_quantized(self) -> bool:
        """Whether weights and activations are quantized (int8, fp8), or may be."""
        return self.precision in (*QUANTIZED, AUTO)

    def lengths(self, limit: int) -> list[int] | None:
        """Return the lengths that inputs are padded to; None: any up to the model's ``limit``."""
        if self.length is not None:
            return [self.length]
        if not self.buckets:
            return None
        if self.bucket_step is not None:
            return [*range(self.bucket_step, limit, self.bucket_step), limit]
        buckets = [min(_FIRST_BUCKET, limit)]
        while buckets[-1] < limit:
            buckets.append(min(buckets[-1] * 2, limit))
        return buckets

    def check(self, structure: ReducedStructure, limit: int, name: str, *, window: int | None = None) -> None:
        """Raise :class:`UsageError` if a checkpoint cannot be built so.

        Args:
            structure: the checkpoint's structure.
            limit: tokens that its model accepts at most.
            name: the checkpoint's, for the message.
            window: tokens of a window with a part of a context; None: its rows are not divided into windows.
        """
        if self.exits and not structure.exits:
            raise UsageError(
                f"variant '{self.text}': {name} has no exits. Train them with: effx train exits {name}"
            )
        if self.tokens and structure.tokens is None and structure.token_thresholds is None:
            raise UsageError(
                f"variant '{self.text}': {name} has no token schedule. "
                f"Train one with: effx train tokens {name}"
            )
        if self.length is not None and self.length > limit:
            raise UsageError(f"variant '{self.text}': {name} accepts {limit} tokens at most.")
        if self.bucket_step is not None and (count := len(self.lengths(limit) or ())) > _MOST_BUCKETS:
            raise UsageError(
                f"variant '{self.text}': {name} accepts {limit} tokens, which are {count} buckets; "
                f"{_MOST_BUCKETS} are possible: give a larger step, e.g. buckets{-(-limit // _MOST_BUCKETS)}."
            )
        if reason := self.stride_refusal(window, divides=window is not None):
            raise UsageError(f"variant '{self.text}': {name}: {reason}.")

    def stride_refusal(self, window: int | None, *, divides: bool) -> str | None:
        """Return why neighbouring windows cannot have ``stride`` tokens in common, or None.

        Args:
            window: tokens of a window; None: unknown.
            divides: whether the rows of the task are divided into windows.
        """
        if self.stride is None:
            return None
        if not divides:
            return "its rows are not divided into windows"
        if window is not None and self.stride > (most := longest_stride(window)):
            return f"windows of {window} tokens have at most {most} in common"
        return None


def longest_stride(window: int) -> int:
    """Return how many tokens of the context windows have in common at most.

    Half of a window may be the question, and up to four tokens are special, so that every window begins at a
    later token than the one before.
    """
    return window // 2 - 3


def normalised(text: str) -> str:
    """Return the text of a variant without the spaces around its parts, in the order as written."""
    return "+".join(part.strip() for part in text.split("+"))


def parse(text: str) -> Variant:
    """Parse a variant.

    Raises:
        UsageError: a part is unknown (the nearest is named), or two parts exclude each other.
    """
    parts: dict[str, str] = {}
    text = normalised(text)
    for part in text.split("+"):
        kind = _kind(part)
        if kind in parts:
            raise UsageError(f"variant '{text}': {parts[kind]} and {part} exclude each other.")
        parts[kind] = part
    sequence = _SEQUENCE.fullmatch(parts.get("sequence", ""))
    length = int(sequence.group(1)) if sequence else None
    steps = _BUCKETS.fullmatch(parts.get("sequence", ""))
    step = int(steps.group(1)) if steps else None
    if min(length or MIN_LENGTH, step or MIN_LENGTH) < MIN_LENGTH:
        raise UsageError(f"variant '{text}': expected a length >= {MIN_LENGTH}.")
    if "heads" in parts and (other := parts.get("exits") or parts.get("tokens")):
        raise UsageError(f"variant '{text}': multi and {other} exclude each other.")
    without = parts.get("sequence") or parts.get("exits") or parts.get("tokens")
    if "padding" in parts and without:
        raise UsageError(f"variant '{text}': unpadded and {without} exclude each other.")
    return Variant(
        text,
        parts.get("precision", "fp32"),
        length,
        parts.get("sequence", "").startswith("buckets"),
        step,
        parts.get("exits"),
        "tokens" in parts,
        "weights" in parts,
        int(parts["windows"].removeprefix("stride")) if "windows" in parts else None,
        "heads" in parts,
        "padding" in parts,
        int(parts["threads"].removeprefix("threads")) if "threads" in parts else None,
    )


def distinct(texts: Iterable[str]) -> list[Variant]:
    """Parse variants; of those that are built alike, such as seq16+int8 and int8+seq16, return the first.

    Raises:
        UsageError: as :func:`parse`.
    """
    first: dict[Variant, Variant] = {}
    for variant in map(parse, texts):
        first.setdefault(variant.built, variant)
    return list(first.values())


def _kind(part: str) -> str:
    if part in PRECISIONS:
        return "precision"
    if _SEQUENCE.fullmatch(part) or _BUCKETS.fullmatch(part):
        return "sequence"
    if _STRIDE.fullmatch(part):
        return "windows"
    if _THREADS.fullmatch(part):
        return "threads"
    if part in _OTHERS:
        return _OTHERS[part]
    raise unknown("variant", part, [*PRECISIONS, *_OTHERS, "seq64", "buckets8", "stride64", "threads1"])
