"""What ``effx train exits`` prints."""

from __future__ import annotations

import pytest

from effx.cli import exits


@pytest.mark.parametrize(
    ("bound", "told"), [(0.00214, "0.0022"), (0.0021, "0.0021"), (0.01, "0.0100"), (1e-6, "0.0001")]
)
def test_a_proven_loss_is_not_told_as_a_smaller_one(bound: float, told: str) -> None:
    line = f"proven to lose at most {told} (95 %) on 400 held-out rows"
    assert exits._proven(bound, 0.95, 400) == line
