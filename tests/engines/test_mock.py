"""Mock engines: complete engine folders that run without a runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from effx import engines
from effx.artifacts import Engine
from effx.engines.mock import MockBehavior, MockSession, write_engine
from effx.errors import ArtifactError
from effx.specs.tasks import TASKS


def batch(*rows: list[int], length: int | None = None) -> dict[str, np.ndarray]:
    width = length or max(map(len, rows))
    ids = np.array([row + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64), "token_type_ids": ids * 0}


def test_answers_depend_on_the_row_alone(tmp_path: Path) -> None:
    folder = write_engine(tmp_path / "a", lengths=[8, 16])
    engine = Engine.open(folder)
    assert engine.name == "a" and engine.backend == "mock" and engine.size_bytes > 0
    with engines.open(folder) as session:
        together = session.infer(batch([2, 5, 6, 3], [2, 7, 3]))["logits"]
        alone = session.infer(batch([2, 7, 3], length=9))["logits"]
    assert together.dtype == np.float32 and together.shape == (2, 2)
    assert np.array_equal(together[1], alone[0]) and not np.array_equal(together[0], together[1])
    other = MockSession(MockBehavior(seed=1)).infer(batch([2, 7, 3]))["logits"]
    assert not np.array_equal(other, alone)
    assert np.array_equal(MockSession().infer(batch([2, 7, 3]))["logits"], alone)


def test_both_classes_are_predicted() -> None:
    rows = [[2, word, 3] for word in range(4, 104)]
    predictions = MockSession().infer(batch(*rows))["logits"].argmax(-1)
    assert 25 < predictions.sum() < 75


def test_outputs_are_those_of_the_task(tmp_path: Path) -> None:
    with engines.open(write_engine(tmp_path / "a", task=TASKS["mnli"])) as session:
        assert session.infer(batch([2, 5, 3]))["logits"].shape == (1, 3)


def test_configured_failures_happen_at_their_call(tmp_path: Path) -> None:
    session = MockSession(MockBehavior(nan_after=1, fails_after=2))
    assert np.isfinite(session.infer(batch([2, 3]))["logits"]).all()
    assert np.isnan(session.infer(batch([2, 3]))["logits"]).all()
    with pytest.raises(RuntimeError, match="call 3 fails"):
        session.infer(batch([2, 3]))
    folder = write_engine(tmp_path / "broken", MockBehavior(open_error="broken on purpose"))
    with pytest.raises(ArtifactError, match="broken on purpose"):
        engines.open(folder)
