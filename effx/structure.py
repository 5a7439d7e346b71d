"""Which heads, FFN neurons and layers of an encoder remain.

Indices are those of the unreduced model and stay so however often a model is reduced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedModel

from effx.errors import UsageError
from effx.models import families

Indices = Mapping[int, Iterable[int]]
"""Layer -> heads or neurons, all by their original index."""


@dataclass(frozen=True)
class Layer:
    """What remains of one layer."""

    index: int
    """The layer's place in the unreduced model, from 0."""
    heads: tuple[int, ...]
    """Kept heads by their original index; empty: the attention is gone, its output bias stays."""
    intermediate: int
    """Kept FFN neurons; 0: the FFN is gone."""
    neurons: tuple[int, ...] | None = None
    """Kept FFN neurons by their original index; None: all of them, or none."""


@dataclass(frozen=True)
class Structure:
    """What remains of an encoder, and what it may leave out as it runs."""

    layers: tuple[Layer, ...]
    exits: tuple[int, ...] = ()
    """Original layers, counted from 1, after which an early-exit ramp stands."""
    exit_pooling: str = "mean"
    """What a ramp looks at: the ``mean`` of the real tokens, or the first one (``cls``)."""
    tokens: tuple[float, ...] | None = None
    """Share of the input's tokens that go on into each remaining layer's FFN; None: all."""
    token_thresholds: tuple[float, ...] | None = None
    """Least attention that a token must receive in each remaining layer; None: no such rule."""

    def to_json(self) -> dict[str, Any]:
        """Return the structure as it stands in manifests."""
        return {
            "layers": [
                {
                    "index": layer.index,
                    "heads": list(layer.heads),
                    "intermediate": layer.intermediate,
                    "neurons": None if layer.neurons is None else list(layer.neurons),
                }
                for layer in self.layers
            ],
            "exits": list(self.exits),
            "exit_pooling": self.exit_pooling,
            "tokens": None if self.tokens is None else list(self.tokens),
            "token_thresholds": None if self.token_thresholds is None else list(self.token_thresholds),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Structure:
        """Rebuild a structure from a manifest.

        Raises:
            KeyError, TypeError, ValueError: the value is no structure.
        """
        return cls(
            tuple(
                Layer(
                    int(layer.get("index", place)),
                    tuple(int(head) for head in layer["heads"]),
                    int(layer["intermediate"]),
                    _tuple(layer.get("neurons"), int),
                )
                for place, layer in enumerate(value["layers"])
            ),
            _tuple(value.get("exits"), int) or (),
            str(value.get("exit_pooling", "mean")),
            _tuple(value.get("tokens"), float),
            _tuple(value.get("token_thresholds"), float),
        )

    @property
    def numbers(self) -> tuple[int, ...]:
        """The remaining layers by their original number, counted from 1."""
        return tuple(layer.index + 1 for layer in self.layers)

    def place(self, layer: int) -> int:
        """Return where an original layer stands among those that remain.

        Raises:
            UsageError: it was never there, or is gone.
        """
        for place, kept in enumerate(self.layers):
            if kept.index == layer:
                return place
        remaining = ", ".join(str(kept.index) for kept in self.layers)
        raise UsageError(f"there is no layer {layer} in this model. Layers, from 0: {remaining}.")

    def without(
        self,
        *,
        heads: Indices | None = None,
        ffns: Iterable[int] = (),
        neurons: Indices | None = None,
        layers: Iterable[int] = (),
    ) -> Structure:
        """Return the structure with parts taken out; what is gone already stays gone.

        A layer takes its exit ramp and its token ratio with it. The last layer's ramp goes too:
        there the model's own head stands.

        Raises:
            UsageError: a layer is not there, or none would remain.
        """
        kept = list(self.layers)
        for layer, gone in (heads or {}).items():
            place, out = self.place(layer), set(gone)
            kept[place] = replace(kept[place], heads=tuple(h for h in kept[place].heads if h not in out))
        for layer, gone in (neurons or {}).items():
            place, out = self.place(layer), set(gone)
            before = kept[place].neurons or tuple(range(kept[place].intermediate))
            after = tuple(neuron for neuron in before if neuron not in out)
            if len(after) < len(before):
                kept[place] = replace(kept[place], intermediate=len(after), neurons=after or None)
        for layer in ffns:
            place = self.place(layer)
            kept[place] = replace(kept[place], intermediate=0, neurons=None)
        dropped = {self.place(layer) for layer in layers}
        places = [place for place in range(len(kept)) if place not in dropped]
        if not places:
            raise UsageError("no layer would remain: keep at least one.")
        remaining = tuple(kept[place] for place in places)
        inner = {layer.index + 1 for layer in remaining[:-1]}
        return replace(
            self,
            layers=remaining,
            exits=tuple(number for number in self.exits if number in inner),
            tokens=_some(self.tokens, places),
            token_thresholds=_some(self.token_thresholds, places),
        )


def structure(model: PreTrainedModel) -> Structure:
    """Return the structure of a model: the one it was reduced to, or the full one."""
    known = getattr(model, "effx_structure", None)
    return known if isinstance(known, Structure) else full(model)


def full(model: PreTrainedModel) -> Structure:
    """Return the structure of ``model`` as its config gives it, nothing taken out."""
    heads, neurons = tuple(range(families.heads(model))), families.neurons(model)
    return Structure(tuple(Layer(i, heads, neurons) for i in range(len(families.layers(model)))))


def parameters(model: PreTrainedModel) -> int:
    """Count the parameters of a model, embeddings, ramps and task head included, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def parameters_left(model: PreTrainedModel) -> int:
    """Count the parameters that a model was not given as ramps: what remains of :func:`full_parameters`."""
    ramps = getattr(model, "ramps", None)
    return parameters(model) - (sum(one.numel() for one in ramps.parameters()) if ramps is not None else 0)


def full_parameters(model: PreTrainedModel) -> int:
    """Return how many parameters ``model`` had before anything was taken from it or added to it."""
    return int(getattr(model, "effx_full_parameters", parameters_left(model)))


def record(model: PreTrainedModel, kept: Structure) -> None:
    """Note on ``model`` what it has become, and at the first reduction how large it was."""
    model.effx_full_parameters = full_parameters(model)
    model.effx_structure = kept


def _some(values: tuple[float, ...] | None, places: list[int]) -> tuple[float, ...] | None:
    return None if values is None else tuple(values[place] for place in places)


def _tuple(values: Iterable[Any] | None, kind: type) -> tuple[Any, ...] | None:
    return None if values is None else tuple(kind(value) for value in values)
