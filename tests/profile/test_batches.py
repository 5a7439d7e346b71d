"""Which score a result has if an engine's answers depend on the other rows of a batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from effx import data, engines, results
from effx.analysis import batches
from effx.analysis.frontier import frontier
from effx.artifacts import Engine
from effx.encoding import Encoder
from effx.engines import mock
from effx.engines.mock import MockBehavior
from effx.profile import profile
from effx.profile.engine_under_test import depends_on_batch
from effx.results import Run, checks
from effx.specs.measurement import MeasurementPlan
from effx.specs.tasks import TASKS
from effx.specs.workloads import MULTI_STREAM, SINGLE_STREAM, offline
from tests.conftest import write_rows

PLAN = MeasurementPlan(
    scenarios=("single-stream", "multi-stream", "offline"), grid=(), rounds=3, block_queries=30, block_s=0.0,
    warmup_s=0.05, grid_rounds=3, offline_batches=4, batch_size=4,
)  # fmt: skip
OFFLINE = offline(4)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Run]]:
    """Return the folders of engines and of rows, and the results of both engines."""
    folder = tmp_path_factory.mktemp("batches")
    words = mock.DEFAULT_WORDS
    rows = [
        {"sentence": " ".join(words[(number * k) % len(words)] for k in range(1, 2 + number % 6)),
         "label": number % 2}
        for number in range(30)
    ]  # fmt: skip
    write_rows(folder / "data" / "validation.jsonl", rows)
    of_rows = data.recorded(TASKS["sst2"], folder / "data")
    mock.write_engine(folder / "engines" / "dependent", MockBehavior(batch_effect=0.4), data=of_rows)
    mock.write_engine(folder / "engines" / "independent", MockBehavior(), data=of_rows)
    runs, errors = profile([folder / "engines"], out=folder / "results", plan=PLAN, meter="none")
    assert not errors
    return folder / "engines", folder / "data", {run.name: run for run in runs}


def test_the_score_is_that_of_single_queries_and_each_batched_workload_has_another(
    measured: tuple[Path, Path, dict[str, Run]],
) -> None:
    folder, rows_folder, runs = measured
    run = runs["dependent"]
    engine = Engine.open(folder / "dependent")
    rows = data.load(engine.task, "validation", rows_folder)
    encoded = Encoder(engine.folder, engine.max_length)(rows.texts)
    with engines.open(engine) as session:
        alone = [int(session.infer(encoded.batch([row]))["logits"].argmax()) for row in range(len(rows))]
    assert run.quality.predictions == alone and run.quality.workload == SINGLE_STREAM
    assert run.quality.batch_dependent
    for workload in (MULTI_STREAM, OFFLINE):
        result = run.workload(workload)
        assert result is not None and result.quality is not None and result.quality.workload == workload
        assert np.mean(np.array(result.quality.predictions) == 0) > np.mean(np.array(alone) == 0)
    assert not run.failed_gates  # timed predictions are compared with those of the same batches
    assert f"{run.quality.value:.4f} in single-stream 1xreal" in (batches.remark(run) or "")


def test_an_independent_engine_is_scored_in_batches_only(
    measured: tuple[Path, Path, dict[str, Run]],
) -> None:
    run = measured[2]["independent"]
    assert run.quality.batch_dependent is False and run.quality.workload == OFFLINE
    assert all(result.quality is None for result in run.workloads)
    assert run.quality_in(MULTI_STREAM) is run.quality and batches.remark(run) is None


def test_throughput_in_batches_is_compared_at_the_score_in_batches(
    measured: tuple[Path, Path, dict[str, Run]],
) -> None:
    run = measured[2]["dependent"]
    points = frontier([run], ("quality", "throughput_offline")).points
    in_batches = run.quality_in(OFFLINE)
    assert in_batches is not None and points[0].values["quality"] == in_batches.value
    assert frontier([run], ("quality", "latency")).points[0].values["quality"] == run.quality.value


def test_scores_in_batches_survive_saving_and_must_agree_with_the_run(
    measured: tuple[Path, Path, dict[str, Run]], tmp_path: Path
) -> None:
    run = measured[2]["dependent"]
    results.save(run, tmp_path)
    assert results.find([tmp_path])[0] == run
    single = replace(run.quality, workload=OFFLINE)
    with pytest.raises(ValueError, match="as answers depend on the batch, got offline 4xreal"):
        checks.check(replace(run, quality=single))
    independent = replace(run, quality=replace(run.quality, batch_dependent=False))
    with pytest.raises(ValueError, match="expected none, as the answers do not depend on the batch"):
        checks.check(independent)


@pytest.mark.parametrize(("noise", "dependent"), [(0.0, False), (1e-5, False), (0.05, True)])
def test_rounding_is_not_a_dependence(noise: float, dependent: bool) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (200, 2)).astype(np.float32)
    alone = logits[:50].copy()
    alone[7, 1] += noise
    assert depends_on_batch(alone, logits[:50], logits) is dependent
