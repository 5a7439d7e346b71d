"""Engines that need no runtime and no checkpoint: for tests of what opens, measures and compares engines.

    folder = mock.write_engine(tmp_path / "engines" / "a", mock.MockBehavior(latency_s=0.002))
    with effx.engines.open(folder) as session:
        session.infer(inputs)["logits"]

:func:`write_engine` writes a complete engine folder (backend ``mock``): manifest, digests, a word-level
tokenizer and a BERT configuration, so that ``effx profile`` accepts it like any other engine. Its answers
depend on the token ids alone: the same row gets the same logits with every padding, in every process and,
unless the behavior says otherwise, in every batch. Its latency, memory and failures are those of a
:class:`MockBehavior`. It is a test double: measurements of it say nothing about hardware.

``MockSession(MockBehavior(...))`` is the session without a folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effx import files
from effx.artifacts import Engine
from effx.engines.protocol import Arrays
from effx.engines.sessions import ClosingSession
from effx.errors import ArtifactError
from effx.manifests import ArtifactReference, EncoderShape, EngineInput, EngineManifest, Parity
from effx.specs.data import DataRecord
from effx.specs.runtime import RuntimeSettings
from effx.specs.tasks import TASKS, Task
from effx.structure import Layer, Structure

FILE = "model.mock"
DEFAULT_WORDS = ("a", "the", "film", "plot", "acting", "is", "was", "not", "dull", "warm", "good", "bad")
_MEGABYTE = bytes(1 << 20)
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


@dataclass(frozen=True)
class MockBehavior:
    """What a mock engine does when it is opened and run."""

    latency_s: float = 0.0
    """Seconds that every call of ``infer`` takes at least."""
    latency_per_token_s: float = 0.0
    """Seconds more for every token of the batch, padding included."""
    outputs: int = 2
    """Logits per row."""
    seed: int = 0
    """Engines with different seeds answer differently."""
    memory_bytes: int = 0
    """Host memory that the engine allocates and writes to while it is open."""
    open_error: str | None = None
    """Opening raises :class:`ArtifactError` with this message."""
    fails_after: int | None = None
    """Calls that succeed; the next one raises RuntimeError. None: no call fails."""
    exits_after: int | None = None
    """Calls that succeed; the next one ends the process, like a crash in a native library."""
    hangs_after: int | None = None
    """Calls that succeed; the next one does not return."""
    batch_effect: float = 0.0
    """Added to a row's first logit for every other row of its batch: answers then depend on the batch."""
    nan_after: int | None = None
    """Calls that succeed; later ones return NaN."""
    busy_threads: int = 0
    """Threads that each hash a megabyte in every call, at the same time."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> MockBehavior:
        return cls(**value)


class MockGraph:
    """The graph of a mock engine; see :class:`effx.engines.protocol.EngineGraph`."""

    def __init__(self, behavior: MockBehavior, threads: int = 1) -> None:
        """Allocate its memory.

        Raises:
            ArtifactError: the behavior is to fail on opening.
        """
        if behavior.open_error is not None:
            raise ArtifactError(behavior.open_error)
        self._behavior, self._threads, self._calls = behavior, threads, 0
        self._memory: np.ndarray | None = np.ones(behavior.memory_bytes, dtype=np.uint8)
        self._pool = ThreadPoolExecutor(behavior.busy_threads) if behavior.busy_threads else None

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Return logits, float32 [batch, outputs], after the configured latency."""
        started = time.perf_counter()
        self._misbehave()
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        logits = mock_logits(ids, mask, self._behavior)
        logits[:, 0] += self._behavior.batch_effect * (len(ids) - 1)
        if _reached(self._behavior.nan_after, self._calls):
            logits[:] = np.nan
        self._calls += 1
        if self._pool is not None:
            list(self._pool.map(hashlib.sha256, [_MEGABYTE] * self._behavior.busy_threads))
        latency = self._behavior.latency_s + self._behavior.latency_per_token_s * ids.size
        if (left := started + latency - time.perf_counter()) > 0:
            time.sleep(left)
        return {"logits": logits}

    def describe(self) -> dict[str, object]:
        return {"mock": True, "threads": self._threads, "versions": {}}

    def close(self) -> None:
        self._memory = None
        if self._pool is not None:
            self._pool.shutdown()

    def _misbehave(self) -> None:
        behavior = self._behavior
        if _reached(behavior.exits_after, self._calls):
            os._exit(70)
        if _reached(behavior.fails_after, self._calls):
            raise RuntimeError(f"mock engine: call {self._calls + 1} fails, as configured")
        while _reached(behavior.hangs_after, self._calls):
            time.sleep(1.0)


class MockSession(ClosingSession):
    """The session of a mock engine, without a folder; see :class:`effx.engines.protocol.Session`."""

    def __init__(self, behavior: MockBehavior | None = None) -> None:
        graph = MockGraph(behavior or MockBehavior())
        super().__init__(graph)
        self._graph = graph

    def infer(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return self._graph.run(inputs)


def mock_logits(ids: np.ndarray, mask: np.ndarray, behavior: MockBehavior) -> np.ndarray:
    """Return the logits, float32 [batch, outputs], of int64 ``ids`` and ``mask`` [batch, length].

    A row's logits follow from a hash of its unmasked ids; they are within [-2, 2].
    """
    positions = np.arange(1, ids.shape[1] + 1, dtype=np.uint64)
    real = ids.astype(np.uint64) * mask.astype(np.uint64)
    row_hash = _mixed((real * positions).sum(1) + np.uint64(behavior.seed))
    columns = np.arange(1, behavior.outputs + 1, dtype=np.uint64)
    hashes = _mixed(row_hash[:, None] + columns) >> np.uint64(32)
    return (hashes.astype(np.float64) / 2**30 - 2).astype(np.float32)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Return well distributed 64-bit hashes (the finalizer of SplitMix64; Steele et al. 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))


def write_engine(
    folder: str | Path,
    behavior: MockBehavior | None = None,
    *,
    task: Task | None = None,
    words: Sequence[str] = DEFAULT_WORDS,
    data: DataRecord | None = None,
    lengths: Sequence[int] | None = None,
    limit: int = 64,
    max_length: int = 32,
    **changes: Any,
) -> Path:
    """Write an engine folder that opens and answers without a runtime.

    Args:
        folder: the engine's; its name is the engine's name.
        behavior: default: answers at once and never fails.
        task: default: SST-2. The number of its outputs replaces that of ``behavior``.
        words: the tokenizer's vocabulary; other words are unknown tokens.
        data: the rows that it is profiled on, see :func:`effx.data.recorded`.
        lengths: sequence lengths that inputs are padded to; default: none.
        limit: tokens that the engine accepts at most.
        max_length: tokens of an example at most.
        changes: entries of :class:`effx.manifests.EngineManifest` to set or to replace, as ``variant``.

    Returns:
        The folder.
    """
    folder, task = Path(folder), task or TASKS["sst2"]
    behavior = behavior or MockBehavior()
    layers = tuple(Layer(index, (0, 1), 64) for index in range(2))
    names = ("input_ids", "attention_mask", "token_type_ids")
    manifest = EngineManifest(
        task=task.name,
        task_definition=task,
        variant=changes.get("variant", "fp32"),
        precision=changes.get("precision", "fp32"),
        scheme="fp32",
        backend="mock",
        device="cpu",
        checkpoint=ArtifactReference(name="mock", digest=files.json_digest({"seed": behavior.seed})),
        inputs=tuple(
            EngineInput(name=name, dtype="int64", min=(1, 1), opt=(1, max_length), max=(None, limit))
            for name in names
        ),
        structure=Structure(layers),
        parameters=0,
        weight_remaining=1.0,
        encoder=EncoderShape(width=16, heads=2, intermediate=64),
        parity=Parity(0, 0.0, 1.0, True, "none", "not measured: mock engine"),
        versions={},
        max_length=max_length,
        data=data,
        runtime=RuntimeSettings(
            (FILE,),
            precision=changes.get("precision", "fp32"),
            lengths=None if lengths is None else tuple(lengths),
        ),
    )
    with Engine.create(folder, overwrite=True) as draft:
        files.write_json(draft.folder / FILE, {**behavior.to_json(), "outputs": task.outputs})
        files.write_json(draft.folder / "config.json", _config(len(_SPECIAL) + len(words), limit))
        files.write_json(draft.folder / "tokenizer.json", _tokenizer(words))
        draft.manifest = manifest.model_copy(update=changes)
    return folder


def open(path: Path, backend: str, runtime: RuntimeSettings, threads: int) -> MockGraph:
    """Open a mock engine's file.

    Raises:
        ArtifactError: the file cannot be read, or the engine is to fail on opening.
    """
    try:
        behavior = MockBehavior.from_json(json.loads(path.read_bytes()))
    except (OSError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be loaded: {error}") from error
    return MockGraph(behavior, threads)


def versions(backend: str) -> dict[str, str]:
    """Return no versions: a mock engine needs no package."""
    return {}


def _reached(calls: int | None, done: int) -> bool:
    return calls is not None and done >= calls


def _config(vocabulary: int, limit: int) -> dict[str, Any]:
    """Return a configuration as Hugging Face writes it for BERT."""
    return {
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": limit,
        "pad_token_id": 0,
    }


def _tokenizer(words: Sequence[str]) -> dict[str, Any]:
    """Return a word-level tokenizer as the ``tokenizers`` library writes it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: index for index, word in enumerate([*_SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    cls, sep = ((name, vocabulary[name]) for name in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[cls, sep]
    )
    value: dict[str, Any] = json.loads(tokenizer.to_str())
    return value
