from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from effx.errors import ArtifactError
from effx.tickets import scores


def test_scores_are_written_and_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    result = scores.Importance(rng.random((3, 4)), rng.random(3), rng.random((3, 8)))
    path = tmp_path / "a.importance.json"
    scores.write(path, result, method="taylor")
    again, about = scores.read(path)
    assert again.neurons is not None and about["method"] == "taylor"
    assert np.array_equal(again.heads, result.heads) and np.array_equal(again.neurons, result.neurons)
    for damaged in ('{"schema": 1}', '{"schema": 1'):
        path.write_text(damaged)
        with pytest.raises(ArtifactError, match="Delete it"):
            scores.read(path)
