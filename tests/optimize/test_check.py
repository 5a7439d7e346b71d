"""What ``effx optimize`` checks before the work, of metrics that are no shares of correct rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from effx.artifacts import Checkpoint
from effx.errors import UsageError
from effx.models import checkpoints, save
from effx.optimize.check import Checked, check
from effx.specs.optimize import OptimizeSettings
from effx.specs.tasks import TASKS
from effx.stats import noninferiority
from effx.stats.metrics import METRICS
from tests.conftest import write_rows
from tests.models import tiny

ROWS = 200


@pytest.mark.parametrize(("task", "accepted"), [("stsb", True), ("mrpc", False)])
def test_too_few_rows_are_told_where_their_number_decides(
    checkpoint: Checkpoint, tmp_path: Path, task: str, accepted: bool
) -> None:
    """Numbers that hardly differ prove a small loss of a correlation on few rows."""
    rng = np.random.default_rng(0)
    for split in ("train", "validation"):
        labels = rng.uniform(0, 5, ROWS).tolist() if accepted else rng.integers(0, 2, ROWS).tolist()
        rows = [
            {"sentence1": f"{split} {number}", "sentence2": "a text", "label": label}
            for number, label in enumerate(labels)
        ]
        write_rows(tmp_path / "rows" / f"{split}.jsonl", rows)
    given = save(
        tiny.model("bert", outputs=1 if accepted else 2), tmp_path / "given",
        tokenizer=checkpoints.tokenizer(checkpoint.folder), task=TASKS[task], max_length=16, model="tiny",
    )  # fmt: skip

    def checked() -> Checked:
        return check(
            given.folder, OptimizeSettings.of(max_drop=0.01, also=("none",)), "single",
            str(tmp_path / "rows"), ["onnxruntime"], "none", tmp_path / "labelled",
        )  # fmt: skip

    if not accepted:
        with pytest.raises(UsageError, match=f"{ROWS} validation rows are too few for this promise"):
            checked()
        return
    assert checked().task.metric == "pearson"
    truth = rng.uniform(0, 5, ROWS)
    before = truth + rng.normal(0, 1, ROWS)
    after = before + rng.normal(0, 0.02, ROWS)
    assert noninferiority.p_value(METRICS["pearson"], truth, before, after, 0.01) < 0.05
