"""Sessions over graphs in host memory: one graph, early-exit segments, and padding to fixed lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from effx.engines.protocol import Arrays, EngineGraph, Session
from effx.errors import UsageError
from effx.specs.runtime import StagedExits

PER_TOKEN = ("start_logits", "end_logits")


class ClosingSession:
    """A session as a context manager over its parts."""

    def __init__(self, *parts: EngineGraph | Session) -> None:
        self._parts = parts

    def describe(self) -> dict[str, object]:
        return self._parts[0].describe()

    def close(self) -> None:
        for part in self._parts:
            part.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Single(ClosingSession):
    """One graph from ids to logits."""

    def __init__(self, graph: EngineGraph) -> None:
        super().__init__(graph)
        self._graph = graph

    def infer(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return self._graph.run(inputs)


class Staged(ClosingSession):
    """Segments with the exit rule on the host between them; rows that exit leave the batch.

    segment 0 -> rule -> remaining rows, cut to the longest of them -> segment 1 -> ...
    """

    def __init__(self, segments: Sequence[EngineGraph], exits: StagedExits, *, dynamic_length: bool) -> None:
        """Args:
        segments: in order, one more than there are ramps.
        exits: the rule, and the layers before each ramp and before the last head.
        dynamic_length: whether the length may change from call to call.
        """
        super().__init__(*segments)
        self._segments, self._rule, self._depths = segments, exits.rule, exits.depths
        self._dynamic_length = dynamic_length

    def infer(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        mask = inputs["attention_mask"]
        n = len(mask)
        rows, state = np.arange(n), self._rule.start(n)
        feed: Mapping[str, np.ndarray] = inputs
        logits: np.ndarray | None = None
        depth = np.full(n, self._depths[-1], dtype=np.int64)
        for segment, layers in zip(self._segments, self._depths, strict=True):
            out = segment.run(feed)
            if logits is None:
                logits = np.empty((n, out["logits"].shape[1]), dtype=np.float32)
            if "hidden_out" not in out:  # the last segment
                logits[rows] = out["logits"]
                break
            state, exiting = self._rule.step(state, out["logits"])
            hidden, token_mask = out["hidden_out"], out["token_mask_out"]
            if exiting.any():
                logits[rows[exiting]], depth[rows[exiting]] = out["logits"][exiting], layers
                remaining = ~exiting
                rows, state = rows[remaining], state.rows(remaining)
                if not len(rows):
                    break
                hidden, token_mask, mask = hidden[remaining], token_mask[remaining], mask[remaining]
                if self._dynamic_length:
                    tokens, length = width(token_mask), width(mask)
                    hidden, token_mask, mask = hidden[:, :tokens], token_mask[:, :tokens], mask[:, :length]
            feed = {"hidden": hidden, "token_mask": token_mask, "attention_mask": mask}
        assert logits is not None
        return {"logits": logits, "depth": depth}


class Padded(ClosingSession):
    """A session whose inputs are padded to the next of a few lengths."""

    def __init__(self, session: Session, lengths: Sequence[int], pad_id: int) -> None:
        super().__init__(session)
        self._session, self._lengths, self._pad_id = session, sorted(lengths), pad_id

    def infer(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return _unpad(self._session.infer(self._pad(inputs)), inputs["input_ids"].shape[1])

    def prepare(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Run every shape that these inputs may lead to, where the inner session can list them."""
        getattr(self._session, "prepare", self._session.infer)(self._pad(inputs))

    def upload(self, inputs: Mapping[str, np.ndarray]) -> Any:
        session: Any = self._session
        return session.upload(self._pad(inputs)), inputs["input_ids"].shape[1]

    def infer_timed(self, uploaded: Any) -> tuple[float, Arrays]:
        session: Any = self._session
        padded, length = uploaded
        seconds, out = session.infer_timed(padded)
        return seconds, _unpad(out, length)

    def _pad(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        length = inputs["input_ids"].shape[1]
        target = next((known for known in self._lengths if known >= length), None)
        if target is None:
            raise UsageError(f"length {length}: this engine accepts at most {self._lengths[-1]} tokens.")
        if target == length:
            return inputs
        return pad(inputs, target, self._pad_id)


def pad(inputs: Mapping[str, np.ndarray], length: int, pad_id: int) -> dict[str, np.ndarray]:
    """Return arrays [batch, tokens] padded on the right to ``length`` tokens."""
    padding = ((0, 0), (0, length - inputs["input_ids"].shape[1]))
    fill = {"input_ids": pad_id}
    return {name: np.pad(array, padding, constant_values=fill.get(name, 0)) for name, array in inputs.items()}


def _unpad(out: Arrays, length: int) -> Arrays:
    """Return outputs without the padding of tokens; logits of tokens have three axes, those of rows two."""
    return {
        name: array[:, :length] if name in PER_TOKEN or array.ndim == 3 else array
        for name, array in out.items()
    }


def width(mask: np.ndarray) -> int:
    """Return the number of columns up to the last real token of any row of ``mask`` [batch, length]."""
    return int(np.flatnonzero(mask.any(axis=0))[-1]) + 1
