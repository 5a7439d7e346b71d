"""Tiny models of every family with random weights, and random inputs with padding."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from effx.models import families
from tests.conftest import DEBERTA

VOCABULARY, PADDING = 60, 1


def model(
    family: str = "bert",
    *,
    layers: int = 3,
    heads: int = 4,
    head_size: int = 8,
    neurons: int = 24,
    outputs: int = 3,
    seed: int = 0,
) -> PreTrainedModel:
    """Return a task model in eval mode with random parameters, including biases and norms."""
    width = heads * head_size
    values = {"vocab_size": VOCABULARY, "pad_token_id": PADDING, "max_position_embeddings": 40,
              "num_labels": outputs}  # fmt: skip
    if family == "distilbert":
        values |= {"dim": width, "n_layers": layers, "n_heads": heads, "hidden_dim": neurons}
    else:
        values |= {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
                   "intermediate_size": neurons}  # fmt: skip
    if family == "electra":
        values["embedding_size"] = width // 2
    if family == "modernbert":
        values["local_attention"] = 8  # tokens at a distance of up to 4
    if family == "deberta-v2":
        values |= DEBERTA
    torch.manual_seed(seed)
    built = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, **values))
    generator = torch.Generator().manual_seed(seed)
    for parameter in built.parameters():
        parameter.data.normal_(0, 0.2, generator=generator)
    return built.eval()


def inputs(
    built: PreTrainedModel, lengths: list[int], seed: int = 0, width: int = 0
) -> dict[str, torch.Tensor]:
    """Return random ids for rows of these lengths, padded on the right."""
    width = max(width, *lengths)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, VOCABULARY, (len(lengths), width), generator=generator)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    ids[~mask] = PADDING
    arrays = {"input_ids": ids, "attention_mask": mask.long()}
    if families.of(built).token_types:
        arrays["token_type_ids"] = torch.zeros_like(ids)
    return arrays


@torch.no_grad()
def logits(built: PreTrainedModel, arrays: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits of the plain forward pass of transformers."""
    return built(**arrays).logits
