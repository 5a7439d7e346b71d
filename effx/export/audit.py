"""Whether an engine computes in the precision that it is named for, by what its builder's audit found."""

from __future__ import annotations

from typing import Any

from effx.specs import backends

LEAST_SHARE = 0.9
"""Of the matrix products with weights, in the engine's precision."""
UNTOLD = "unknown"
"""A product of which a plan's inspector says nothing."""


def failure(audit: dict[str, Any], precision: str, backend: str) -> str | None:
    """Return why an engine may not be called by its precision, or None.

    Args:
        audit: what its builder found.
        precision: of its variant.
        backend: what runs it.
    """
    products = audit["weight_products"]
    if precision == "int8":
        integer = audit["integer_weight_products"]
        if integer < LEAST_SHARE * products or not integer:
            return f"audit failed: {integer} of {products} matrix products with weights are int8."
    if "product_precisions" in audit and backends.get(backend).strongly_typed:
        right = audit["product_precisions"].get(precision, 0)
        if right < LEAST_SHARE * products or not right:
            return f"audit failed: {right} of {products} products with weights are {precision}."
    ran, told = _ran(audit)
    if told and not ran.get(precision):
        others = ", ".join(f"{count} in {name}" for name, count in ran.items() if name != UNTOLD)
        return f"audit failed: the plan runs no product with weights in {precision}; it runs {others}."
    return None


def partly(audit: dict[str, Any], precision: str) -> str | None:
    """Say how much of a plan runs in another precision than its name's, if it is much.

    That is told, not refused: which kernels are the fastest is the builder's to find, and some may have
    no form in that precision.
    """
    ran, told = _ran(audit)
    right = ran.get(precision, 0)
    if right >= LEAST_SHARE * told:
        return None
    return (
        f"of {told} products with weights the plan runs {right} in {precision}; engine.json's audit has all."
    )


def _ran(audit: dict[str, Any]) -> tuple[dict[str, int], int]:
    """Return in which precisions a plan runs products with weights, and of how many that is told."""
    ran = audit.get("plan", {}).get("product_precisions", {})
    return ran, sum(ran.values()) - ran.get(UNTOLD, 0)
