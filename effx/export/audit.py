"""Whether an engine computes in the precision that it is named for."""

from __future__ import annotations

from collections.abc import Mapping

from effx.manifests import Audit
from effx.specs import backends

MIN_SHARE = 0.9
"""Least share of the matrix products with weights that must be in the engine's precision."""
UNKNOWN = "unknown"
"""Precision of a product that a plan's inspector does not report."""


def by_frequency(counts: Mapping[str, int]) -> dict[str, int]:
    """Return counts ordered by frequency, then by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def failure(audit: Audit, precision: str, backend: str) -> str | None:
    """Return why an engine may not be named for its precision, or None.

    Args:
        audit: its builder's.
        precision: of its variant.
        backend: the runtime's name.
    """
    products = audit.weight_products
    if precision == "int8":
        integer = audit.integer_weight_products
        if integer < MIN_SHARE * products or not integer:
            return f"audit failed: {integer} of {products} matrix products with weights are int8."
    if audit.product_precisions is not None and backends.get(backend).strongly_typed:
        matching = audit.product_precisions.get(precision, 0)
        if matching < MIN_SHARE * products or not matching:
            return f"audit failed: {matching} of {products} products with weights are {precision}."
    precisions, reported = _executed(audit)
    if reported and not precisions.get(precision):
        others = ", ".join(f"{count} in {name}" for name, count in precisions.items() if name != UNKNOWN)
        return f"audit failed: the plan runs 0 products with weights in {precision}; it runs {others}."
    return None


def mixed_precision_note(audit: Audit, precision: str) -> str | None:
    """Return a note on how many products a plan runs in another precision, or None if few.

    This is reported, not refused: the builder chooses the fastest kernels, and some products may have no
    kernel in that precision.
    """
    precisions, reported = _executed(audit)
    matching = precisions.get(precision, 0)
    if matching >= MIN_SHARE * reported:
        return None
    return (
        f"of {reported} products with weights the plan runs {matching} in {precision}; "
        "see audit in engine.json."
    )


def _executed(audit: Audit) -> tuple[Mapping[str, int], int]:
    """Return in which precisions a plan runs products with weights, and for how many that is reported."""
    precisions = {} if audit.plan is None else audit.plan.product_precisions
    return precisions, sum(precisions.values()) - precisions.get(UNKNOWN, 0)
