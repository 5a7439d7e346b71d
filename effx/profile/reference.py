"""The reference engine: where rows have no labels, predictions are compared with its predictions.

By default it is the unreduced fp32 engine of the session, whose predictions are the checkpoint's as far as
its parity gate says. How many of them are right remains unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from effx import progress
from effx.artifacts import Engine
from effx.data import UnlabelledRows
from effx.errors import DataError, UsageError, nearest
from effx.profile.engine_under_test import EngineUnderTest
from effx.specs import variants

References = dict[EngineUnderTest, EngineUnderTest]
"""Engine whose rows have no labels -> the engine that it is compared with."""


def references(engines: Sequence[EngineUnderTest], name: str | None) -> References:
    """Return the reference of every engine whose rows have no labels.

    Args:
        engines: of the session.
        name: name or folder of the reference, an engine of the session; None: the unreduced fp32 engine.

    Raises:
        DataError: engines of this kind of task are not compared without labels.
        UsageError: there is no such engine, or several could be the reference; or ``name`` is given, and all
            rows have labels.
    """
    groups: dict[int, list[EngineUnderTest]] = {}
    for engine in engines:
        if isinstance(engine.rows, UnlabelledRows):
            groups.setdefault(id(engine.rows), []).append(engine)
    if name is not None and not groups:
        raise UsageError(
            "the rows have labels: a reference is needed for rows without labels only", settings="reference"
        )
    result: References = {}
    for group in groups.values():
        task = group[0].engine.task
        if not task.behavior.agreement_metrics:
            raise DataError(f"task '{task.name}': engines for {task.kind} cannot be compared without labels.")
        reference = _default(group) if name is None else _named(group, name)
        progress.say(
            f"  measured instead: {task.behavior.agreement_metrics[0]} with the reference {reference.name}"
        )
        result |= dict.fromkeys(group, reference)
    return result


def _named(engines: Sequence[EngineUnderTest], name: str) -> EngineUnderTest:
    for engine in engines:
        if name == engine.name or Path(name).resolve() == engine.engine.folder.resolve():
            return engine
    names = [engine.name for engine in engines]
    raise UsageError(
        f"reference '{name}' is not one of the engines.{nearest(name, names)} Known: {', '.join(names)}.",
        settings="reference",
    )


def _default(engines: Sequence[EngineUnderTest]) -> EngineUnderTest:
    unreduced = [engine for engine in engines if _is_unreduced_fp32(engine.engine)]
    names = ", ".join(engine.name for engine in (unreduced or engines)[:5])
    if not unreduced:
        raise UsageError(
            "the rows have no labels, and there is no unreduced fp32 engine to compare with: profile one in "
            f"the same session, or name a reference ({names})",
            settings="reference",
        )
    if len({engine.engine.manifest.checkpoint.digest for engine in unreduced}) > 1:
        raise UsageError(
            f"the rows have no labels: name the engine to compare with ({names})", settings="reference"
        )
    return unreduced[0]


def _is_unreduced_fp32(engine: Engine) -> bool:
    manifest, variant = engine.manifest, variants.parse(engine.manifest.variant)
    return (
        manifest.precision == "fp32"
        and not variant.exits
        and not variant.tokens
        and variant.length is None
        and variant.stride is None
        and not variant.multi
        and not variant.unpadded
        and variant.threads is None
        and (manifest.sparsity is None or manifest.sparsity.is_dense)
        and (manifest.weight_remaining or 1.0) >= 1
    )
