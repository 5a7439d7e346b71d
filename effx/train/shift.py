"""Whether the validation rows are like the held-out training rows on which settings were chosen."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from effx.manifests import TwoSamples
from effx.stats import tests

_P_VALUE = 0.001
"""P-value below which two sets of rows count as different."""


def two_samples(held_out: np.ndarray, validation: np.ndarray) -> TwoSamples:
    """Compare a number per row, such as its tokens, on both sets of rows."""
    distance, p_value = tests.two_samples(held_out, validation)
    return TwoSamples(distance=distance, p_value=p_value)


def warnings(compared: Mapping[str, TwoSamples], chosen: str) -> list[str]:
    """Return a sentence for each number whose distributions differ.

    Args:
        compared: the number's name in the plural -> comparison.
        chosen: what was chosen on the held-out rows.
    """
    return [
        f"the {what} of the validation rows differ from those of the held-out training rows on which the "
        f"{chosen} was chosen (distance {samples.distance:.2f}). The proof may not hold for the "
        "validation rows."
        for what, samples in compared.items()
        if samples.p_value < _P_VALUE
    ]
