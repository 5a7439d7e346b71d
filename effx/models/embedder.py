"""Encoders without a task head, whose output is a normalised vector per text.

transformers has no such task model: it is the encoder of a token classifier, without the classifier.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from transformers import (
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from effx.models.losses import LOSSES


class Embedder:
    """Part of a model's class: its forward pass and loss. The rest is a class of transformers."""

    def forward(self, *args: Any, labels: torch.Tensor | None = None, **inputs: Any) -> Any:
        """Return the vectors [texts, width] as ``logits``.

        Args:
            args: input_ids and attention_mask [texts, length], as of the encoder.
            labels: [pairs] scores; texts 2 i and 2 i + 1 are a pair. None: no loss is computed.
            inputs: likewise, by name.
        """
        encoder = getattr(self, self.base_model_prefix)  # type: ignore[attr-defined]
        vectors = vector(encoder(*args, **inputs)[0])
        loss = None if labels is None else LOSSES["cosine-order"](vectors, labels)
        return SequenceClassifierOutput(loss=loss, logits=vectors)

    def _init_weights(self, module: torch.nn.Module) -> None:
        own: object = self
        if module is not own:  # some families would look for the classifier, which was removed
            super()._init_weights(module)  # type: ignore[misc]


def vector(hidden: torch.Tensor) -> torch.Tensor:
    """Return the first position of hidden states [texts, length, width] divided by its norm, in float32.

    With pooling ``mean`` the mean of the tokens was put there, see :mod:`effx.models.pooling`.
    """
    return F.normalize(hidden[:, 0].float(), dim=-1)


@functools.cache
def _class_of(config_type: type[PreTrainedConfig]) -> type[PreTrainedModel]:
    tagger: Any = MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING[config_type]

    def build(self: Any, config: PreTrainedConfig) -> None:
        tagger.__init__(self, config)
        for name, _ in list(self.named_children()):
            if name != self.base_model_prefix:
                delattr(self, name)

    # config.json names the class, and other libraries know the encoder's
    name = MODEL_MAPPING[config_type].__name__
    return type(name, (Embedder, tagger), {"__init__": build, "__module__": __name__})


class AutoEmbedder:
    """Like the automatic classes of transformers: config -> model."""

    @staticmethod
    def from_config(config: PreTrainedConfig, **_: object) -> PreTrainedModel:
        """Return the model of a config with new weights, in float32."""
        kind: Any = type(config)
        return _class_of(kind)(config)
