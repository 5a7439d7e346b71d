"""Sessions over graphs: one graph, early-exit segments, and padding to fixed lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from effx.engines.protocol import Arrays, Graph, Session
from effx.errors import UsageError
from effx.specs.exit_rules import ExitRule

PER_TOKEN = ("start_logits", "end_logits")


class Closing:
    """A session as a context manager."""

    def __init__(self, *parts: Graph | Session) -> None:
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


class Single(Closing):
    """One graph from ids to logits."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self._graph = graph

    def infer(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return self._graph.run(inputs)


class Staged(Closing):
    """Segments with the exit rule on the host between them; who leaves makes room.

    segment 0 -> rule -> the rows that stay, cut to the longest of them -> segment 1 -> ...
    """

    def __init__(
        self, segments: Sequence[Graph], rule: ExitRule, depths: Sequence[int], *, cut: bool
    ) -> None:
        """Args:
        segments: in order, one more than there are ramps.
        rule: when rows leave.
        depths: layers before each ramp and before the last head.
        cut: whether the length may change from call to call.
        """
        super().__init__(*segments)
        self._segments, self._rule, self._depths, self._cut = segments, rule, list(depths), cut

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
            if "hidden_out" not in out:  # the last one
                logits[rows] = out["logits"]
                break
            state, leaves = self._rule.step(state, out["logits"])
            hidden, alive = out["hidden_out"], out["alive_out"]
            if leaves.any():
                logits[rows[leaves]], depth[rows[leaves]] = out["logits"][leaves], layers
                stay = ~leaves
                rows, state = rows[stay], state.rows(stay)
                if not len(rows):
                    break
                hidden, alive, mask = hidden[stay], alive[stay], mask[stay]
                if self._cut:
                    kept, length = int(width(alive)), int(width(mask))
                    hidden, alive, mask = hidden[:, :kept], alive[:, :kept], mask[:, :length]
            feed = {"hidden": hidden, "alive": alive, "attention_mask": mask}
        assert logits is not None
        return {"logits": logits, "depth": depth}


class Padded(Closing):
    """A session whose inputs are padded to the next of a few lengths."""

    def __init__(self, session: Session, lengths: Sequence[int], pad_id: int) -> None:
        super().__init__(session)
        self._session, self._lengths, self._pad_id = session, sorted(lengths), pad_id

    def infer(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return _cut(self._session.infer(self._wide(inputs)), inputs["input_ids"].shape[1])

    def prepare(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Run every shape that these inputs may lead to, where the session knows of more than one."""
        getattr(self._session, "prepare", self._session.infer)(self._wide(inputs))

    def place(self, inputs: Mapping[str, np.ndarray]) -> Any:
        session: Any = self._session
        return session.place(self._wide(inputs)), inputs["input_ids"].shape[1]

    def timed(self, placed: Any) -> tuple[float, Arrays]:
        session: Any = self._session
        inner, length = placed
        seconds, out = session.timed(inner)
        return seconds, _cut(out, length)

    def _wide(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        length = inputs["input_ids"].shape[1]
        target = next((known for known in self._lengths if known >= length), None)
        if target is None:
            raise UsageError(f"length {length}: this engine reads {self._lengths[-1]} tokens at most.")
        if target == length:
            return inputs
        wide = ((0, 0), (0, target - length))
        fill = {"input_ids": self._pad_id}
        return {
            name: np.pad(array, wide, constant_values=fill.get(name, 0)) for name, array in inputs.items()
        }


def _cut(out: Arrays, length: int) -> Arrays:
    return {name: array[:, :length] if name in PER_TOKEN else array for name, array in out.items()}


def width(mask: np.ndarray) -> int:
    """Return the place after the last real token of any row."""
    return int(np.flatnonzero(mask.any(axis=0))[-1]) + 1
