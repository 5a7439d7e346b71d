"""Queries and warm-up of a worker, on a clock that the fake engine advances."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from effx.artifacts import Checkpoint, Engine, seal
from effx.encoding import Encoded, Encoder
from effx.engines.mock import MockBehavior, MockSession
from effx.errors import ArtifactError, WorkerError
from effx.export import export, parity
from effx.profile import worker as module
from effx.profile.worker import Worker, of_texts, spread
from effx.specs.tasks import TASKS, Task
from effx.specs.workloads import FROM_TEXT, SINGLE_STREAM, Workload, grid, offline

OFFLINE = offline(32)


class Timed:
    """A session that takes a time per token, which may vary from call to call."""

    def __init__(self, seconds: float, drift: float = 1.0) -> None:
        self.now, self._seconds, self._drift = 0.0, seconds, drift

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.now += self._seconds * inputs["input_ids"].size
        self._seconds *= self._drift
        return {"logits": np.eye(2)[inputs["input_ids"][:, 0] % 2]}  # the first id's parity is the class


def built(monkeypatch: pytest.MonkeyPatch, rows: int = 872, session: Timed | None = None) -> Worker:
    """Return a worker with rows whose lengths are distributed like those of sentences."""
    lengths = np.random.default_rng(1).lognormal(3.0, 0.5, rows).astype(int).clip(3, 100)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    encoded = Encoded(np.arange(offsets[-1], dtype=np.int32), np.zeros(offsets[-1], np.int8), offsets, 0)
    worker = Worker(session or Timed(1e-5), encoded, TASKS["sst2"], longest=100)  # type: ignore[arg-type]
    clock: Any = worker._session
    monkeypatch.setattr(
        module,
        "time",
        SimpleNamespace(**dict.fromkeys(("perf_counter", "process_time", "monotonic"), lambda: clock.now)),
    )
    return worker


@pytest.mark.parametrize("good", [0, 3, 119])  # of 120 queries; 100 answers are kept, and the last
def test_queries_whose_answers_are_not_finite_have_no_latency(good: int) -> None:
    """No prediction is compared in cells of the grid and while queries arrive; an answer is needed anyway."""
    rows = parity.random_rows(40, 100, 12, 0)

    def worker(nan_after: int | None) -> Worker:
        return Worker(MockSession(MockBehavior(nan_after=nan_after)), rows, TASKS["sst2"], longest=64)

    assert len(worker(None).block(grid(4, 16), 0.0, 120, 0.0, 60.0).samples_s) == 120
    assert len(worker(None).serve(1e6, 0.0, 120, 60.0, 0).samples_s) == 120
    with pytest.raises(WorkerError, match="logits are not finite"):
        worker(good).block(grid(4, 16), 0.0, 120, 0.0, 60.0)
    with pytest.raises(WorkerError, match="logits are not finite"):
        worker(good).serve(1e6, 0.0, 120, 60.0, 0)


def test_padding_may_be_anything() -> None:
    """Logits of padding are no answers."""
    task = Task("tags", "token-classification", ("tokens",), ("O", "B-x", "I-x"), ("entity_f1",))
    rows = parity.random_rows(40, 100, 12, 0, form="words")

    class PaddedWithNan(MockSession):
        def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            mask = inputs["attention_mask"][:, :, None]
            return {"logits": np.where(mask, np.eye(3)[inputs["input_ids"] % 3], np.nan)}

    worker = Worker(PaddedWithNan(MockBehavior()), rows, task, longest=64)
    assert len(worker.block(OFFLINE, 0.0, 2, 0.0, 60.0).samples_s) == 2


def test_from_text_the_tokenizer_is_part_of_the_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = built(monkeypatch)
    session: Any = worker._session
    seen = []

    def encode(rows: np.ndarray | None, sequences: np.ndarray | None) -> dict[str, np.ndarray]:
        assert rows is not None
        seen.append(int(rows[0]))
        session.now += 0.5
        return worker._rows.batch(worker._rows.sequences(rows))

    worker._encode = encode
    plain = worker.block(SINGLE_STREAM, 0.0, 20, 0.0, 1e9)
    block = worker.block(FROM_TEXT, 0.0, 20, 0.0, 1e9)
    assert block.samples_s == pytest.approx([seconds + 0.5 for seconds in plain.samples_s])
    assert len({*seen[-20:]}) == 20 and block.examples == 20  # the first ones were not timed


@pytest.mark.parametrize(
    ("form", "rows"),
    [
        ("texts", [("w1 w2 w3",), ("w4",), ("w5 w6", )]),
        ("texts", [("w1 w2 w3", "w4"), ("w4", "w5 w6 w7")]),
        ("words", [("w1", "w2", "w3"), ("w4",)]),
        ("windows", [("w1 w2", "w3 w4 w5 " * 8), ("w6", "w7")]),
        ("candidates", [("w1 w2", "w3", "w4 w5", "w6"), ("w1", "w2", "w3")]),
        ("documents", [("w1 w2", "d1"), ("w3", "d2")]),
    ],
)  # fmt: skip
def test_a_query_from_its_text_is_the_query(
    form: str, rows: list[tuple[str, ...]], checkpoint: Checkpoint
) -> None:
    encoder = Encoder(checkpoint.folder, 16, form=form, stride=3)
    encoded = encoder(rows)
    encode = of_texts(encoder, rows, encoded)
    for row in range(len(rows)):
        expected = encoded.batch(encoded.sequences(np.array([row])))
        found = encode(np.array([row]), None)
        assert {name: array.tolist() for name, array in found.items()} == {
            name: array.tolist() for name, array in expected.items()
        }


def test_a_query_that_is_one_text_of_a_row_is_encoded_alone(checkpoint: Checkpoint) -> None:
    rows = [("w1 w2 w3", "w4"), ("w5", "w6 w7"), ("w8 w9", "w1")]
    encoder = Encoder(checkpoint.folder, 16, form="separate")
    encoded = encoder(rows)
    encode = of_texts(encoder, rows, encoded)
    for number, text in enumerate(text for row in rows for text in row):
        found = encode(None, np.array([number]))["input_ids"]
        assert found.tolist() == encoded.batch(np.array([number]))["input_ids"].tolist()
        assert found.tolist() == Encoder(checkpoint.folder, 16)([(text,)]).batch([0])["input_ids"].tolist()


@pytest.mark.parametrize(
    ("variant", "expected"),
    [("fp32", set()), ("buckets", {16, 32}), ("buckets8", {8, 16, 24, 32})],
)
def test_fixed_lengths_run_before_they_are_timed(
    variant: str, expected: set[int], checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO compiles a model for each of them, which takes longer than all queries."""
    pytest.importorskip("onnxruntime")
    engine = export(checkpoint.folder, variant, "onnxruntime", tmp_path)
    texts = [("w1 " * length,) for length in range(1, 40)]
    worker = Worker.open(str(engine.folder), texts, threads=1, seed=0)
    prepared: list[int] = []
    pad = getattr(worker._session, "_pad", None)

    def prepare(inputs: Mapping[str, np.ndarray]) -> None:
        prepared.append(pad(inputs)["input_ids"].shape[1])

    monkeypatch.setattr(worker._session, "prepare", prepare, raising=False)
    worker.warm_up(SINGLE_STREAM, limit_s=0.0)
    assert {*prepared} == expected and len(prepared) == 3 * len(expected)


@pytest.mark.parametrize("n", [1, 2, 5, 28, 1264])
def test_any_part_of_spread_rows_is_evenly_distributed(n: int) -> None:
    order = spread(n)
    assert sorted(order) == list(range(n))
    for k in {min(n, k) for k in (4, 8, 20)}:
        for start in range(n):
            stretch = np.sort(order[(start + np.arange(k)) % n])
            gaps = np.diff([*stretch, stretch[0] + n])
            assert gaps.max() <= 3 * n / k + 1  # evenly spread they would be n / k


def test_an_offline_block_takes_as_long_per_example_as_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few batches compared with all of them; the longest batches take 2.5 times as long."""
    worker = built(monkeypatch, rows=20_000, session=Timed(1e-3))
    every = list(islice(worker._stream(OFFLINE, 0.0), 625))
    truth = sum(query.inputs["input_ids"].size for query in every) / 20_000
    assert sorted(np.concatenate([query.rows for query in every]).tolist()) == list(range(20_000))
    blocks = [worker.block(OFFLINE, number / 5, 16, 0.0, 1e9) for number in range(5)]
    for block in blocks:
        assert block.elapsed_s / block.examples / 1e-3 == pytest.approx(truth, rel=0.25)
    seconds = sum(block.elapsed_s for block in blocks) / sum(block.examples for block in blocks)
    assert seconds / 1e-3 == pytest.approx(truth, rel=0.05)


def test_blocks_query_every_row_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = built(monkeypatch, rows=870)
    queried = [
        int(query.rows[0])
        for number in range(10)
        for query in islice(worker._stream(SINGLE_STREAM, number / 10), 87)
        if query.rows is not None
    ]
    assert sorted(queried) == list(range(870))


@pytest.mark.parametrize("workload", [SINGLE_STREAM, OFFLINE, grid(4, 32)])
def test_queries_of_a_block_depend_only_on_its_round(
    monkeypatch: pytest.MonkeyPatch, workload: Workload
) -> None:
    """They do not depend on previous blocks or on the speed of the engine."""
    first, second = built(monkeypatch), built(monkeypatch)
    first.block(workload, 0.0, 50, 0.0, 1e9)
    one, other = (list(islice(worker._stream(workload, 0.4), 5)) for worker in (first, second))
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.inputs["input_ids"], b.inputs["input_ids"])
    before = list(islice(first._stream(workload, 0.0), 5))
    assert not np.array_equal(before[0].inputs["input_ids"], one[0].inputs["input_ids"])


def test_scoring_is_split_into_several_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = built(monkeypatch, rows=100, session=Timed(1.0))
    rows: list[int] = []
    predictions: list[int] = []
    queried, begin = 0, 0
    while begin is not None:
        answer = worker.score(OFFLINE, first_batch=begin)
        rows, predictions, queried = rows + answer.rows, predictions + answer.predictions, queried + 1
        begin = answer.next_batch
    assert queried == 4 and sorted(rows) == list(range(100))  # a batch takes more than a minute here
    first = np.array([worker._rows.batch(np.array([row]))["input_ids"][0, 0] for row in range(100)])
    assert np.array_equal(np.array(predictions)[np.argsort(rows)], first % 2)
    assert np.array_equal(worker._predictions[OFFLINE], first % 2)
    whole = built(monkeypatch, rows=100, session=Timed(1e-6)).score(OFFLINE, first_batch=0)
    assert whole.next_batch is None and len(whole.rows) == 100


@pytest.mark.parametrize("milliseconds", [0.5, 3.0, 10.0, 20.0])
def test_different_lengths_do_not_count_as_unsteady(
    monkeypatch: pytest.MonkeyPatch, milliseconds: float
) -> None:
    worker = built(monkeypatch, session=Timed(milliseconds * 1e-3 / 22))  # a row has 22 tokens or so
    assert worker.warm_up(SINGLE_STREAM, 1.0).steady is True


def test_too_few_windows_are_not_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = built(monkeypatch, session=Timed(0.4 / 22))
    warmed = worker.warm_up(SINGLE_STREAM, 1.0)
    assert warmed.steady is None and warmed.windows < 3
    assert 1.0 <= warmed.seconds < 3.0


def test_an_engine_that_keeps_getting_faster_is_not_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = built(monkeypatch, session=Timed(5e-3 / 22, drift=0.985))
    assert worker.warm_up(SINGLE_STREAM, 0.2).steady is False


def test_padding_of_another_tokenizer_is_refused(engines_copy: Path) -> None:
    folder = engines_copy / "tiny.fp32.onnxruntime"
    manifest = json.loads((folder / "engine.json").read_text())
    manifest["runtime"]["pad_id"] = 10**6
    (folder / "engine.json").write_text(json.dumps(seal(Engine, manifest)))
    with pytest.raises(ArtifactError, match="runtime.pad_id is 1000000, but config.json says 0"):
        Worker.open(str(folder), [("a film",)], 1, 0)


class Waking(Timed):
    """Queries take three times as long after a pause, until ``slow`` of them were answered."""

    def __init__(self, slow: int) -> None:
        super().__init__(1e-5)
        self._slow, self.left = slow, slow

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        before = self.now
        out = super().infer(inputs)
        if self.left:
            self.left -= 1
            self.now += 2 * (self.now - before)
        return out


@pytest.mark.parametrize("workload", [SINGLE_STREAM, grid(32, 32)])
def test_the_first_queries_after_another_engine_are_not_timed(
    monkeypatch: pytest.MonkeyPatch, workload: Workload
) -> None:
    """Threads wake up, and caches hold what the other engine left: single queries are slow for a while, and
    so is one batch."""
    engine = Waking(3 if workload == SINGLE_STREAM else 1)
    worker, steady = built(monkeypatch, session=engine), built(monkeypatch)
    expected = steady.block(workload, 0.25, 4, 0.0, 1e9)
    monkeypatch.setattr(module.time, "perf_counter", lambda: engine.now)
    for _ in range(2):
        engine.left = engine._slow
        block = worker.block(workload, 0.25, 4, 0.0, 1e9)
        assert block.samples_s == pytest.approx(expected.samples_s)
        assert block.elapsed_s == pytest.approx(expected.elapsed_s)


def test_a_runtime_prepares_for_every_length_before_queries_are_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Preparing(Timed):
        """A session that takes some seconds more for the first query of each shape."""

        def __init__(self, first_s: float) -> None:
            super().__init__(1e-5)
            self.first_s, self.seen = first_s, set[tuple[int, ...]]()

        def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            shape = inputs["input_ids"].shape
            self.now += 0.0 if shape in self.seen else self.first_s
            self.seen.add(shape)
            return super().infer(inputs)

    worker = built(monkeypatch, session=Preparing(0.1))
    worker._prepares_shapes = True
    worker.warm_up(SINGLE_STREAM, 1.0)
    assert max(worker.block(SINGLE_STREAM, 0.0, 400, 0.0, 1e9).samples_s) < 0.1
    slow = Preparing(5.0)
    worker = built(monkeypatch, session=slow)
    worker._prepares_shapes = True
    worker.warm_up(SINGLE_STREAM, 1.0)
    assert slow.now < 30  # where it takes long, not all lengths
    batches = Preparing(5.0)
    worker = built(monkeypatch, session=batches)
    worker._prepares_shapes = True
    worker.warm_up(OFFLINE, 1.0)
    assert batches.now < 20  # what is little of a batch is not waited for
