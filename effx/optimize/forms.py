"""Forms: the variants and backends in which a model is built, of which the fastest are taken.

    unreduced engines in every form, timed in turns -> the fastest, and one that is nearly as fast

Pruned, another form may be the fastest: what a runtime needs for every node counts for more in small layers.
So every pruned model is built in both, and measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from effx.records import Record
from effx.specs import backends, variants

NEARLY = 1.25
"""Times that of the fastest form which another one may take, unreduced."""
MOST = 2
"""Forms that are kept at most."""


class EngineForm(Record):
    """How a model is built."""

    variant: str
    backend: str


class FastestForms(Record):
    """What the stage ``fastest`` writes."""

    forms: tuple[EngineForm, ...]
    """The fastest first."""


def kept(seconds: Mapping[EngineForm, float]) -> FastestForms:
    """Return the fastest form, and the next one if it is nearly as fast.

    Args:
        seconds: per query of the unreduced engines.
    """
    names = [*backends.BACKENDS]
    ordered = sorted(seconds, key=lambda form: (seconds[form], names.index(form.backend)))
    limit = NEARLY * seconds[ordered[0]]
    near = [*itertools.takewhile(lambda form: seconds[form] <= limit, ordered[:MOST])]
    return FastestForms(forms=tuple(near))


def of_costs(variant: str, typical_length: int) -> str:
    """Return the variant that a cost table measures instead of one that pads to several lengths.

    Each graph of a table would be compiled for each length, and all stay in memory. So one length stands for
    them all.

    Args:
        variant: of the engines.
        typical_length: tokens of the the mean row.
    """
    parsed = variants.parse(variant)
    if not parsed.buckets:
        return variant
    steps = parsed.bucket_step or 1
    length = max(steps, steps * -(-typical_length // steps))
    others = [part for part in variant.split("+") if not part.startswith("buckets")]
    return "+".join([f"seq{length}", *others])
