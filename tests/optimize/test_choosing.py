"""Training rows that choose which engines of ``effx optimize`` are tested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from effx import data
from effx.artifacts import Checkpoint
from effx.errors import ArtifactError
from effx.optimize import choosing
from effx.optimize.choosing_predictions import ChoosingPredictions
from effx.specs.training import TrainingSettings
from effx.train import rows as row_numbers


@pytest.mark.parametrize(
    ("training_rows", "limit", "wanted", "expected"),
    [
        (20_000, None, 1000, (0.95, 1000)),
        (5_000, None, 1000, (0.9, 500)),  # a tenth
        (990, None, 1000, (None, 0)),  # a tenth is too few
        (20_000, None, 0, (None, 0)),
        (20_000, 8_000, 1000, (None, 1000)),  # the limit leaves enough
        (20_000, 19_500, 1000, (19_000 / 19_500, 1000)),
        (20_000, 50_000, 1000, (0.95, 1000)),
    ],
)
def test_the_share_leaves_as_many_rows_as_choose(
    training_rows: int, limit: int | None, wanted: int, expected: tuple[float | None, int]
) -> None:
    share, count = choosing.share(training_rows, limit, wanted)
    assert (share, count) == (None if expected[0] is None else pytest.approx(expected[0]), expected[1])


def test_as_many_rows_are_left_out_for_calibration() -> None:
    assert choosing.share(20_000, None, 1000, calibrated=True) == (pytest.approx(0.9), 1000)
    assert choosing.share(20_000, 18_500, 1000, calibrated=True) == (pytest.approx(18_000 / 18_500), 1000)


@pytest.mark.parametrize("limit", [None, 100])
def test_rows_that_choose_are_those_that_are_not_trained_on(
    checkpoint: Checkpoint, limit: int | None
) -> None:
    every_row = data.load(checkpoint.task, "train", data.locate(None, checkpoint.task, checkpoint.data))
    training = TrainingSettings.of(share=0.9, limit=limit, seed=3)
    trained = row_numbers.chosen(every_row, training)
    left = [every_row.texts[index] for index in np.setdiff1d(np.arange(len(every_row)), trained)]
    assert choosing.choose(every_row, training, 10_000).texts == left
    few = choosing.choose(every_row, training, 5)
    assert len(few) == 5 and {*few.texts} <= {*left}


def test_labels_and_predictions_of_a_file_are_those_that_metrics_take(tmp_path: Path) -> None:
    value = ChoosingPredictions(
        schema=1, kind="classification", label_names=("no", "yes"), labels=(0, 1, 1),
        predictions={"a": (0, 1, 0), "b": (1, 1, 1)},
    )  # fmt: skip
    value.write(tmp_path / "choosing.json")
    again = ChoosingPredictions.read(tmp_path / "choosing.json")
    rows = again.as_rows()
    assert rows.labels.tolist() == [0, 1, 1]
    assert {name: each.tolist() for name, each in rows.predictions.items()} == {
        "a": [0, 1, 0],
        "b": [1, 1, 1],
    }
    (tmp_path / "choosing.json").write_text('{"schema": 2}')
    with pytest.raises(ArtifactError):
        ChoosingPredictions.read(tmp_path / "choosing.json")
