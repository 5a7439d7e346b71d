"""What families have in common: sizes that config.json names alike, and the kind of head of a class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from effx.models import embedder


class CommonFamily:
    """Methods of :class:`effx.models.families.Family` that do not depend on the architecture."""

    def renamed(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        return tensors

    @property
    def layers_path(self) -> str:
        raise NotImplementedError

    def layers(self, model: PreTrainedModel) -> nn.ModuleList:
        return cast(nn.ModuleList, model.get_submodule(self.layers_path))

    def heads(self, model: PreTrainedModel) -> int:
        return int(model.config.num_attention_heads)

    def head_size(self, model: PreTrainedModel) -> int:
        return int(model.config.hidden_size) // self.heads(model)

    def reach(self, model: PreTrainedModel) -> int | None:
        return None

    def tags_tokens(self, model: PreTrainedModel) -> bool:
        return type(model).__name__.endswith("ForTokenClassification")

    def embeds(self, model: PreTrainedModel) -> bool:
        return isinstance(model, embedder.Embedder)
