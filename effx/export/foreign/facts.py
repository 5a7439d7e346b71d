"""What can be read from a graph without running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class TensorFacts:
    """An input or output of a graph."""

    name: str
    dtype: str
    """NumPy's name, such as ``int64``."""
    shape: tuple[int | None, ...] | None
    """None for a dimension: any size. None instead of a shape: not stated."""
    computed_by: str = ""
    """Of an output: the operation whose values it has, such as ``MatMul`` or ``Sigmoid``, views and casts
    left out; empty: unknown."""

    @property
    def text(self) -> str:
        """Name, type and shape, for messages."""
        if self.shape is None:
            return f"{self.name} ({self.dtype})"
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} ({self.dtype} [{sizes}])"


@dataclass(frozen=True)
class Arithmetic:
    """In which precision a graph's matrix products with weights are computed."""

    precision: str
    """fp32, fp16, bf16 or int8; int8 if most of the products are computed in integers."""
    scheme: str
    """How: the precision, ``int8-dynamic`` or ``int8-static``, or ``int8-weights``, ``fp16-weights`` and the
    like where weights are stored with fewer bits than the arithmetic has."""
    products: int
    """Matrix products with weights."""
    integer_products: int


@dataclass(frozen=True)
class GraphFacts:
    """A graph: its interface, and what it computes."""

    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    arithmetic: Arithmetic
    parameters: int
    """Elements of its constants, without integers of 64 bits."""
    weights_per_token: int
    """Elements of the matrices that tokens are multiplied with, those of pooler and head among them."""
    embedding_rows: Mapping[str, int]
    """Input -> rows of the embedding that its values select, where the graph shows it."""
    producer: str
    """The program that wrote it, as it says; empty: it does not say."""
    files: tuple[str, ...]
    """The graph's file and the files with its weights, relative to the graph's folder."""
