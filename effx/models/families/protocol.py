"""The interface of an encoder family: its modules and sizes, its forward pass in pieces, its weights.

``model`` is a Hugging Face task model, ``layer`` one of the modules that ``layers`` returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from transformers import PreTrainedModel

from effx.models.stream import Stream


@dataclass(frozen=True)
class Matrix:
    """A Linear of a layer whose rows or columns belong to heads or to FFN neurons."""

    path: str
    """Within the layer."""
    axis: int
    """0: the rows of the weight (and the bias) belong to them; 1: the columns (and no bias)."""
    blocks: int = 1
    """Fused matrices in one Linear, one after the other: a head or neuron has rows or columns in each."""
    biased: bool = True
    """Whether the Linear has a bias in a model as it is published."""

    def indices(self, width: int, positions: Sequence[int], size: int) -> list[int]:
        """Return the rows or columns of some heads or neurons.

        Args:
            width: rows or columns of the Linear, of all blocks.
            positions: of the heads or neurons among those of the Linear.
            size: rows or columns of one of them in one block.
        """
        block = width // self.blocks
        return [
            start + position * size + i
            for start in range(0, width, block)
            for position in positions
            for i in range(size)
        ]

    def width(self, linear: nn.Linear) -> int:
        """Return the rows or columns of a Linear that belong to heads or neurons."""
        return linear.weight.shape[self.axis]


class Family(Protocol):
    """An encoder architecture."""

    @property
    def token_types(self) -> bool:
        """Whether the model takes token_type_ids."""
        ...

    @property
    def has_head_biases(self) -> bool:
        """Whether heads differ by a bias that is not in their matrices."""
        ...

    @property
    def relative_positions(self) -> bool:
        """Whether attention depends on distances between tokens, so that :meth:`with_bias` is needed."""
        ...

    def refusal(self, config: Mapping[str, Any]) -> str | None:
        """Return why models with this config.json are not computed, or None."""
        ...

    def prepare(self, model: PreTrainedModel) -> None:
        """Correct, in place, what a release of transformers builds otherwise than effx needs it."""
        ...

    def renamed(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Return the tensors of a file as the modules have them, where ``save_pretrained`` writes others."""
        ...

    # modules and sizes

    @property
    def layers_path(self) -> str:
        """Name of the list of layers, within the task model."""
        ...

    def encoder(self, model: PreTrainedModel) -> nn.Module:
        """Return the encoder within a task model."""
        ...

    def embeddings(self, model: PreTrainedModel) -> list[nn.Module]:
        """Return the modules before the first layer."""
        ...

    def layers(self, model: PreTrainedModel) -> nn.ModuleList:
        """Return the encoder's layers, first to last."""
        ...

    def heads(self, model: PreTrainedModel) -> int:
        """Return the number of attention heads per layer of the unreduced model."""
        ...

    def head_size(self, model: PreTrainedModel) -> int:
        """Return the width of one attention head."""
        ...

    def neurons(self, model: PreTrainedModel) -> int:
        """Return the number of FFN neurons per layer of the unreduced model."""
        ...

    def reach(self, model: PreTrainedModel) -> int | None:
        """Return how many positions a token of a local layer sees to either side; None: none is local."""
        ...

    def position_limit(self, model: PreTrainedModel) -> int:
        """Return the longest input in tokens that the position embeddings allow."""
        ...

    # the task head

    @property
    def pretraining_head(self) -> str | None:
        """Pattern of names of tensors that only the head of pretraining uses; None: those that are usual."""
        ...

    @property
    def span_head(self) -> str | None:
        """Name of the Linear to start and end logits of a question-answering model.

        None: transformers has no such model of the family.
        """
        ...

    def answers_spans(self, model: PreTrainedModel) -> bool:
        """Whether the task head gives start and end logits for every token."""
        ...

    def tags_tokens(self, model: PreTrainedModel) -> bool:
        """Whether the task head gives logits [outputs] for every token."""
        ...

    @property
    def token_head(self) -> str:
        """Name of the Linear to the logits of a token-classification model."""
        ...

    def embeds(self, model: PreTrainedModel) -> bool:
        """Whether the model has no task head: its output is a vector."""
        ...

    def output_path(self, model: PreTrainedModel) -> str | None:
        """Return the name of the task head's last Linear, within the task model; None: it has no head."""
        ...

    def pooler(self, model: PreTrainedModel) -> nn.Linear:
        """Return the task head's first Linear; new ramps begin with a copy of it."""
        ...

    @property
    def encoder_pooler_path(self) -> str | None:
        """Name of the pooler's Linear where it is part of the encoder and pretrained; None: it is not."""
        ...

    def pooler_activation(self, model: PreTrainedModel) -> nn.Module:
        """Return a new instance of the activation that follows the pooler."""
        ...

    def hidden_dropout(self, model: PreTrainedModel) -> float:
        """Return the dropout probability of hidden states."""
        ...

    def head_dropouts(self, model: PreTrainedModel) -> list[nn.Dropout]:
        """Return the dropout modules of the task head."""
        ...

    def pooled_modules(self, model: PreTrainedModel) -> list[nn.Module]:
        """Return the modules, in order, of which the last that runs gives what the task head reads."""
        ...

    def head_pooling(self, model: PreTrainedModel) -> str:
        """Return what the head reads in transformers, ``cls`` or ``mean``, as the model's config says."""
        ...

    def set_head_pooling(self, model: PreTrainedModel, pooling: str) -> bool:
        """Let the head read ``cls`` or ``mean`` in transformers; False: it cannot, so that hooks have to."""
        ...

    # the forward pass

    def embed(self, model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> Stream:
        """Return the input of the first layer; see :func:`effx.models.forward.embed`."""
        ...

    def with_bias(self, model: PreTrainedModel, stream: Stream) -> Stream:
        """Return the stream with the relative position bias, if the family has one."""
        ...

    def attend(
        self,
        model: PreTrainedModel,
        layer: nn.Module,
        heads: Sequence[int],
        stream: Stream,
        *,
        explicit: bool,
    ) -> tuple[Stream, torch.Tensor | None]:
        """Run the attention half of a layer whose ``heads`` (original indices) remain."""
        ...

    def feed(self, model: PreTrainedModel, layer: nn.Module, stream: Stream, *, has_ffn: bool) -> Stream:
        """Run the FFN half of a layer; ``has_ffn``: the FFN was not removed."""
        ...

    def finish(self, model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
        """Return a layer's output as heads and ramps read it: with the last LayerNorm, if there is one."""
        ...

    def head(self, model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
        """Return the task head's logits for finished hidden states [batch, length, width].

        Returns:
            [batch, outputs]; [batch, length, outputs] if the model tags tokens; or vectors [batch, width].
        """
        ...

    def spans(self, model: PreTrainedModel, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return start and end logits, each [batch, length], for finished hidden states."""
        ...

    def norm_names(self, model: PreTrainedModel) -> list[str]:
        """Return in words what each LayerNorm of the forward pass follows, in order."""
        ...

    # weights

    @property
    def head_matrices(self) -> tuple[Matrix, ...]:
        """The Linears of a layer with :meth:`head_size` rows or columns per head."""
        ...

    @property
    def neuron_matrices(self) -> tuple[Matrix, ...]:
        """The Linears of a layer with one row or column per FFN neuron."""
        ...

    @property
    def context_path(self) -> str:
        """Module of a layer whose input is the heads' contexts, [batch, length, heads * head_size]."""
        ...

    @property
    def ffn_output_path(self) -> str:
        """Module of a layer whose input is the activations of FFN neurons, whose output is the FFN's."""
        ...

    # surgery, in place; positions are those among the current heads and neurons of the layer

    def keep_heads(
        self, layer: nn.Module, positions: Sequence[int], heads: Sequence[int], head_size: int
    ) -> None:
        """Remove all heads of a layer but some, at least one.

        Args:
            layer: has these heads.
            positions: of the remaining heads in the layer.
            heads: the same heads by their original index.
            head_size: width of one head.
        """
        ...

    def remove_heads(self, layer: nn.Module) -> None:
        """Remove all heads of a layer; the output bias and the residual stay."""
        ...

    def keep_neurons(self, layer: nn.Module, positions: Sequence[int]) -> None:
        """Remove all FFN neurons of a layer but some, at least one."""
        ...

    def remove_ffn(self, layer: nn.Module) -> None:
        """Remove the FFN of a layer, output bias included; the residual and LayerNorm stay."""
        ...

    def check_layers(self, positions: Sequence[int]) -> None:
        """Raise :class:`UsageError` if the layers at these positions cannot be all that remain of a model."""
        ...

    def keep_layers(self, model: PreTrainedModel, positions: Sequence[int]) -> None:
        """Remove all layers but some, at least one; the config follows."""
        ...
