"""Sessions whose arrays stay on the GPU: timed there, and early exit with compaction there.

    infer   host arrays -> place -> launch -> host arrays             timing end-to-end
    timed              placed   -> launch behind another, between two events  timing device

Early exit is decided by the host between segments: there the launches are part of the device's time.

A row that exits makes room on the device: rows that stay are copied together, cut to the longest of
them, into the next segment's inputs. Only logits (and what is left of each row, where tokens were
dropped) cross to the host, which decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from effx.engines.cuda import Device, DeviceArray
from effx.engines.protocol import Arrays
from effx.engines.sessions import Closing, width
from effx.specs.exit_rules import ExitRule

Placed = dict[str, DeviceArray]


class DeviceGraph(Protocol):
    """A loaded file on the GPU; all its work goes through the device's one stream."""

    device: Device

    @property
    def inputs(self) -> Mapping[str, np.dtype[Any]]:
        """Name and type of each input."""
        ...

    def reserve(self, name: str, shape: tuple[int, ...]) -> DeviceArray:
        """Return the graph's own memory for an input; the same from call to call."""
        ...

    def launch(self, inputs: Placed) -> Placed:
        """Queue a run; its outputs are valid in stream order until the next."""
        ...

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays: ...

    def describe(self) -> dict[str, object]: ...

    def close(self) -> None: ...


def place(graph: DeviceGraph, inputs: Mapping[str, np.ndarray]) -> Placed:
    """Copy what a graph takes to its own memory."""
    placed = {name: graph.reserve(name, inputs[name].shape) for name in graph.inputs}
    for name, target in placed.items():
        graph.device.put(target, inputs[name])
    return placed


def run(graph: DeviceGraph, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """Run a graph from host arrays to host arrays."""
    return fetch(graph.device, graph.launch(place(graph, inputs)))


def fetch(device: Device, outputs: Placed) -> Arrays:
    """Copy outputs to the host."""
    return {name: device.get(array) for name, array in outputs.items()}


class SingleOnDevice(Closing):
    """One graph from ids to logits."""

    def __init__(self, graph: DeviceGraph) -> None:
        super().__init__(graph)
        self._graph, self._device = graph, graph.device

    def infer(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return run(self._graph, inputs)

    def place(self, inputs: Mapping[str, np.ndarray]) -> Any:
        return place(self._graph, inputs)

    def timed(self, placed: Any) -> tuple[float, Arrays]:
        before, after = self._device.event(), self._device.event()
        self._device.synchronize()  # the copies in are not part of it
        # Of an idle device the first event is over at once, and the host's own work before its launch would
        # count: one run ahead keeps the device busy while the timed one is queued behind it.
        self._graph.launch(placed)
        before.record()
        outputs = self._graph.launch(placed)
        after.record()
        return after.seconds_since(before), fetch(self._device, outputs)


class StagedOnDevice(Closing):
    """Early-exit segments; see :class:`effx.engines.sessions.Staged`."""

    def __init__(
        self,
        segments: Sequence[DeviceGraph],
        rule: ExitRule,
        depths: Sequence[int],
        *,
        cut: bool,
        tokens: bool,
    ) -> None:
        """Args:
        segments: in order, one more than there are ramps.
        rule: when rows leave.
        depths: layers before each ramp and before the last head.
        cut: whether the length may change from call to call.
        tokens: whether tokens are dropped, so that rows get shorter on the way.
        """
        super().__init__(*segments)
        self._segments, self._rule, self._depths = segments, rule, list(depths)
        self._cut, self._tokens, self._device = cut, tokens, segments[0].device

    def infer(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return self._run(self.place(inputs))

    def place(self, inputs: Mapping[str, np.ndarray]) -> Any:
        return place(self._segments[0], inputs), inputs["attention_mask"]

    def prepare(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Run every segment for every number of rows that may be left of these: each is recorded once."""
        placed, n = self.place(inputs), len(inputs["attention_mask"])
        for rows in sorted({_room(left, n) for left in range(1, n + 1)}, reverse=True):
            self._run(placed, left=rows)

    def timed(self, placed: Any) -> tuple[float, Arrays]:
        before, after = self._device.event(), self._device.event()
        self._device.synchronize()
        before.record()
        out = self._run(placed)
        after.record()
        return after.seconds_since(before), out

    def _run(self, placed: tuple[Placed, np.ndarray], left: int | None = None) -> Arrays:
        """Run the segments; rows leave by the rule, or all but the first ``left`` at the first ramp."""
        feed, mask = placed
        n = len(mask)
        rows, state = np.arange(n), self._rule.start(n)
        logits: np.ndarray | None = None
        depth = np.full(n, self._depths[-1], dtype=np.int64)
        on_device = feed["attention_mask"]
        for number, (segment, layers) in enumerate(zip(self._segments, self._depths, strict=True)):
            out = segment.launch(feed)
            told = self._device.get(out["logits"])[: len(rows)]  # what follows filled the batch up
            if logits is None:
                logits = np.empty((n, told.shape[1]), dtype=np.float32)
            if "hidden_out" not in out:  # the last one
                logits[rows] = told
                break
            state, leaves = self._rule.step(state, told)
            if left is not None:
                leaves = rows >= left
            flow = {"hidden": out["hidden_out"], "alive": out["alive_out"], "attention_mask": on_device}
            if n > 1:  # always into the same memory: one recording per shape
                logits[rows[leaves]], depth[rows[leaves]] = told[leaves], layers
                stay = np.flatnonzero(~leaves)
                rows, state = rows[stay], state.rows(stay)
                if not len(rows):
                    break
                mask = mask[stay]
                flow = self._compact(self._segments[number + 1], flow, mask, stay)
                mask, on_device = mask[:, : flow["attention_mask"].shape[1]], flow["attention_mask"]
            elif leaves[0]:
                return {"logits": told, "depth": np.array([layers], dtype=np.int64)}
            feed = {name: flow[name] for name in self._segments[number + 1].inputs}
        assert logits is not None
        return {"logits": logits, "depth": depth}

    def _compact(self, target: DeviceGraph, flow: Placed, mask: np.ndarray, stay: np.ndarray) -> Placed:
        """Copy the rows that stay into the next segment's memory, cut to the longest of them.

        The batch is filled up to one of a few sizes, so that few shapes are recorded, with rows of which
        nothing is read afterwards.
        """
        room = _room(len(stay), flow["hidden"].shape[0])
        filled = np.append(stay, np.arange(room - len(stay)))
        kept, length = flow["hidden"].shape[1], mask.shape[1]
        if self._cut:
            length = width(mask)
            kept = width(self._device.get(flow["alive"])[stay]) if self._tokens else length
        sizes = {"hidden": kept, "alive": kept, "attention_mask": length}
        made = {}
        for name, source in flow.items():
            # a segment may take no alive: its mask says the same
            made[name] = target.reserve(name, (room, sizes[name], *source.shape[2:]))
            self._device.take(made[name], source, filled)
        return made


def _room(rows: int, most: int) -> int:
    """Return the batch that so many rows are put into: 1, 2, 4, ... 32, 48, 64, 96, ..., or ``most``."""
    size = 1
    while size < rows:
        size *= 2
    if size > 32 and size * 3 // 4 >= rows:
        size = size * 3 // 4
    return min(size, most)
