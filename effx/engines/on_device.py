"""Sessions whose arrays stay on the GPU: timed there, and early exit with compaction there.

    infer        host arrays -> upload -> launch -> host arrays                  timing end-to-end
    infer_timed                 uploaded -> launch behind another, between two events  timing device

Early exit is decided by the host between segments: there the launches are part of the device's time.

Rows that exit leave the batch on the device: the remaining rows are copied together, cut to the longest
of them, into the next segment's inputs. Only logits (and the token mask, where tokens were dropped) cross
to the host, which decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from effx.engines.cuda import Device, DeviceArray
from effx.engines.protocol import Arrays
from effx.engines.sessions import ClosingSession, width
from effx.specs.runtime import StagedExits

DeviceArrays = dict[str, DeviceArray]

MOST_SHAPES = 1024
"""Input shapes of a file that are recorded as CUDA graphs at most: twice as many as BERT has lengths.

Each takes memory: the graph's kernels, in TensorRT an execution context, in PyTorch outputs of its own.
Inputs and scratch memory are shared by all. What was recorded is not given up for another shape: it would
have to be recorded again, within a query.
"""


class DeviceGraph(Protocol):
    """A loaded file on the GPU; all its work is queued on the device's one stream."""

    device: Device

    @property
    def inputs(self) -> Mapping[str, np.dtype[Any]]:
        """Name and type of each input."""
        ...

    def reserve(self, name: str, shape: tuple[int, ...]) -> DeviceArray:
        """Return the graph's memory for an input; the same from call to call."""
        ...

    def launch(self, inputs: DeviceArrays) -> DeviceArrays:
        """Queue a run; its outputs are valid in stream order until the next."""
        ...

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays: ...

    def describe(self) -> dict[str, object]: ...

    def close(self) -> None: ...


def recording(no_graph: str | None, *, left_out: bool) -> dict[str, object]:
    """Return what a file's description says of CUDA graphs.

    Args:
        no_graph: why no shape is recorded; None: shapes are.
        left_out: whether there were more than :data:`MOST_SHAPES`.
    """
    reason = no_graph
    if reason is None and left_out:
        reason = f"only the first {MOST_SHAPES:,} input shapes were recorded, others run kernel by kernel"
    return {"cuda_graph": reason is None, "cuda_graph_reason": reason}


def upload(graph: DeviceGraph, inputs: Mapping[str, np.ndarray]) -> DeviceArrays:
    """Copy a graph's inputs to its memory on the device."""
    uploaded = {name: graph.reserve(name, inputs[name].shape) for name in graph.inputs}
    for name, target in uploaded.items():
        graph.device.upload(target, inputs[name])
    return uploaded


def run(graph: DeviceGraph, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """Run a graph from host arrays to host arrays."""
    return download(graph.device, graph.launch(upload(graph, inputs)))


def download(device: Device, outputs: DeviceArrays) -> Arrays:
    """Copy outputs to the host."""
    return {name: device.download(array) for name, array in outputs.items()}


class SingleOnDevice(ClosingSession):
    """One graph from ids to logits."""

    def __init__(self, graph: DeviceGraph) -> None:
        super().__init__(graph)
        self._graph, self._device = graph, graph.device

    def infer(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return run(self._graph, inputs)

    def upload(self, inputs: Mapping[str, np.ndarray]) -> Any:
        return upload(self._graph, inputs)

    def infer_timed(self, uploaded: Any) -> tuple[float, Arrays]:
        before, after = self._device.event(), self._device.event()
        self._device.synchronize()  # the copies in are not part of it
        # On an idle device the first event completes at once, and the host's work before its launch would
        # count: one run ahead keeps the device busy while the timed one is queued behind it.
        self._graph.launch(uploaded)
        before.record()
        outputs = self._graph.launch(uploaded)
        after.record()
        return after.seconds_since(before), download(self._device, outputs)


class StagedOnDevice(ClosingSession):
    """Early-exit segments; see :class:`effx.engines.sessions.Staged`."""

    def __init__(
        self,
        segments: Sequence[DeviceGraph],
        exits: StagedExits,
        *,
        dynamic_length: bool,
        token_pruning: bool,
    ) -> None:
        """Args:
        segments: in order, one more than there are ramps.
        exits: the rule, and the layers before each ramp and before the last head.
        dynamic_length: whether the length may change from call to call.
        token_pruning: whether tokens are dropped, so that rows get shorter between segments.
        """
        super().__init__(*segments)
        self._segments, self._rule, self._depths = segments, exits.rule, exits.depths
        self._dynamic_length, self._token_pruning = dynamic_length, token_pruning
        self._device = segments[0].device

    def infer(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return self._run(self.upload(inputs))

    def upload(self, inputs: Mapping[str, np.ndarray]) -> Any:
        return upload(self._segments[0], inputs), inputs["attention_mask"]

    def prepare(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Run every segment for every number of rows that may remain of these: each is recorded once."""
        uploaded, n = self.upload(inputs), len(inputs["attention_mask"])
        for rows in sorted({_padded_batch(left, n) for left in range(1, n + 1)}, reverse=True):
            self._run(uploaded, keep_rows=rows)

    def infer_timed(self, uploaded: Any) -> tuple[float, Arrays]:
        before, after = self._device.event(), self._device.event()
        self._device.synchronize()
        before.record()
        out = self._run(uploaded)
        after.record()
        return after.seconds_since(before), out

    def _run(self, uploaded: tuple[DeviceArrays, np.ndarray], keep_rows: int | None = None) -> Arrays:
        """Run the segments; rows exit by the rule, or all but the first ``keep_rows`` at the first ramp."""
        feed, mask = uploaded
        n = len(mask)
        rows, state = np.arange(n), self._rule.start(n)
        logits: np.ndarray | None = None
        depth = np.full(n, self._depths[-1], dtype=np.int64)
        device_mask = feed["attention_mask"]
        for number, (segment, layers) in enumerate(zip(self._segments, self._depths, strict=True)):
            out = segment.launch(feed)
            answers = self._device.download(out["logits"])[: len(rows)]  # the rest fills the batch up
            if logits is None:
                logits = np.empty((n, answers.shape[1]), dtype=np.float32)
            if "hidden_out" not in out:  # the last segment
                logits[rows] = answers
                break
            state, exiting = self._rule.step(state, answers)
            if keep_rows is not None:
                exiting = rows >= keep_rows
            flow = {
                "hidden": out["hidden_out"],
                "token_mask": out["token_mask_out"],
                "attention_mask": device_mask,
            }
            if n > 1:  # always into the same memory: one recording per shape
                logits[rows[exiting]], depth[rows[exiting]] = answers[exiting], layers
                remaining = np.flatnonzero(~exiting)
                rows, state = rows[remaining], state.rows(remaining)
                if not len(rows):
                    break
                mask = mask[remaining]
                flow = self._compact(self._segments[number + 1], flow, mask, remaining)
                mask, device_mask = mask[:, : flow["attention_mask"].shape[1]], flow["attention_mask"]
            elif exiting[0]:
                return {"logits": answers, "depth": np.array([layers], dtype=np.int64)}
            feed = {name: flow[name] for name in self._segments[number + 1].inputs}
        assert logits is not None
        return {"logits": logits, "depth": depth}

    def _compact(
        self, target: DeviceGraph, flow: DeviceArrays, mask: np.ndarray, remaining: np.ndarray
    ) -> DeviceArrays:
        """Copy the remaining rows into the next segment's memory, cut to the longest of them.

        The batch is filled up to one of a few sizes, so that few shapes are recorded; the answers of the
        rows that fill it up are discarded.
        """
        batch = _padded_batch(len(remaining), flow["hidden"].shape[0])
        filled = np.append(remaining, np.arange(batch - len(remaining)))
        tokens, length = flow["hidden"].shape[1], mask.shape[1]
        if self._dynamic_length:
            length = width(mask)
            tokens = length
            if self._token_pruning:
                tokens = width(self._device.download(flow["token_mask"])[remaining])
        lengths = {"hidden": tokens, "token_mask": tokens, "attention_mask": length}
        compacted = {}
        for name, source in flow.items():
            # a segment may take no token mask: the attention mask is the same where no token is dropped
            compacted[name] = target.reserve(name, (batch, lengths[name], *source.shape[2:]))
            self._device.copy_rows(compacted[name], source, filled)
        return compacted


def _padded_batch(rows: int, limit: int) -> int:
    """Return the batch size that ``rows`` are padded to: 1, 2, 4, ... 32, 48, 64, 96, ..., or ``limit``."""
    size = 1
    while size < rows:
        size *= 2
    if size > 32 and size * 3 // 4 >= rows:
        size = size * 3 // 4
    return min(size, limit)
