"""The engine that others are compared with."""

from __future__ import annotations

from collections.abc import Sequence

from effx.analysis.techniques import technique
from effx.results import Run
from effx.specs import variants


def baseline_of(runs: Sequence[Run]) -> Run:
    """Return the most accurate fp32 engine that is known to be unreduced.

    On rows without labels it is the reference, if that is one. Where there is none, the most accurate fp32
    engine, or the most accurate of all. An engine whose quality a failed gate made unavailable is the
    baseline only where there is no other; likewise one that also computes the heads of other tasks, that
    leaves padding out, or that has its own number of threads.
    """
    return first_choice([run for run in runs if not run.withdrawn("quality")] or runs)


def first_choice(runs: Sequence[Run]) -> Run:
    """Return the engine that :func:`baseline_of` takes if the quality of every engine is available."""
    fp32 = [run for run in runs if run.engine.precision == "fp32"] or runs
    unreduced = [run for run in fp32 if technique(run).name == "full"] or fp32
    unreduced = [run for run in unreduced if is_usual(run)] or unreduced
    return max(unreduced, key=lambda run: (_is_reference(run), run.quality.value))


def intended_baseline(runs: Sequence[Run]) -> Run:
    """Return the engine that losses are relative to, also where its quality is unavailable.

    Only an unreduced fp32 engine of the same checkpoint replaces it then: another one may be worse, and a
    loss against it say nothing.
    """
    found, expected = baseline_of(runs), first_choice(runs)
    return found if not expected.withdrawn("quality") or may_replace(found, expected) else expected


def is_plain(run: Run) -> bool:
    """Whether an engine is usual, and nothing of it is reduced, its precision included."""
    return technique(run).name == "full" and run.engine.precision == "fp32" and is_usual(run)


def may_replace(run: Run, other: Run) -> bool:
    """Whether an engine may be the baseline where another one cannot: unreduced, of the same checkpoint."""
    return is_plain(run) and run.engine.checkpoint.digest == other.engine.checkpoint.digest


def is_usual(run: Run) -> bool:
    """Whether an engine computes one task, pads its rows, and has the session's number of threads."""
    variant = variants.parse(run.engine.variant)
    return not variant.multi and not variant.unpadded and variant.threads is None


def _is_reference(run: Run) -> bool:
    reference = run.quality.reference
    return reference is not None and reference.digest == run.engine.digest
