"""A graph that was made elsewhere, behind the names and the label order of effx."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from effx.engines.protocol import Arrays, EngineGraph
from effx.errors import ArtifactError
from effx.specs.runtime import GraphInterface


class RenamedGraph:
    """Feeds a graph's inputs by its own names, and returns its outputs by those of effx."""

    def __init__(self, graph: EngineGraph, interface: GraphInterface) -> None:
        self._graph, self._interface = graph, interface
        self._order = None if interface.label_order is None else list(interface.label_order)

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Run it; logits are float32 in the task's order of labels.

        Raises:
            ArtifactError: it has no output of the name that its interface states.
        """
        interface = self._interface
        feed = {
            name: inputs[array].astype(interface.dtypes[name], copy=False)
            for name, array in interface.inputs.items()
        }
        given = self._graph.run(feed)
        if absent := set(interface.outputs.values()) - given.keys():
            raise ArtifactError(f"the graph has no output {min(absent)!r}: it has {', '.join(given)}.")
        out = {array: given[name].astype(np.float32, copy=False) for array, name in interface.outputs.items()}
        if self._order is not None:
            out["logits"] = np.ascontiguousarray(out["logits"][:, self._order])
        return out

    def describe(self) -> dict[str, object]:
        """Return how the graph runs."""
        return self._graph.describe()

    def close(self) -> None:
        """Free the graph's memory."""
        self._graph.close()
