"""Masked language modelling: masking of tokens, and training on them (Devlin et al. 2019, section 3.1)."""

from __future__ import annotations

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from effx.encoding import Encoded
from effx.manifests import TrainingStage
from effx.models import checkpoints
from effx.specs.training import TrainingSettings
from effx.train import loop

SHARE = 0.15
"""Share of the tokens to predict."""
IGNORED = -100
"""Label of tokens that are not in the loss."""


def mask_tokens(
    ids: np.ndarray, chosen: np.ndarray, mask_id: int, vocabulary: tuple[int, int], rng: np.random.Generator
) -> None:
    """Replace the chosen tokens in place: 80 % by [MASK], 10 % by a random token; 10 % are unchanged.

    Devlin et al. 2019, section 3.1.

    Args:
        ids: int64 [batch, length]; changed in place.
        chosen: tokens to predict, bool [batch, length].
        mask_id: id of [MASK].
        vocabulary: range of the ids of random tokens: the first, and one past the last.
        rng: random generator.
    """
    kind = rng.random(ids.shape)
    ids[chosen & (kind < 0.8)] = mask_id
    other = chosen & (kind >= 0.8) & (kind < 0.9)
    ids[other] = rng.integers(*vocabulary, int(other.sum()))


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Encoded,
    settings: TrainingSettings,
    description: str,
    *,
    epochs: float,
    lr: float,
) -> TrainingStage:
    """Train a model with a masked-language-modelling head in place; every batch masks other tokens.

    Args:
        model: its forward returns a ``loss``.
        tokenizer: of the model, with a mask token.
        encoded: the texts.
        settings: how to optimise; its ``lr`` is ignored.
        description: for the progress display.
        epochs: passes over the texts.
        lr: the peak learning rate.
    """
    rng = np.random.default_rng((settings.seed, 7))
    special = np.array(sorted(tokenizer.all_special_ids))
    mask_id, vocabulary_size = int(tokenizer.mask_token_id), len(tokenizer)
    names = checkpoints.input_names(model)

    def collate(indices: list[int]) -> dict[str, torch.Tensor]:
        batch = encoded.batch(indices)
        ids = batch["input_ids"]
        chosen = (rng.random(ids.shape) < SHARE) & ~np.isin(ids, special)
        if not chosen.any():  # the mean loss over zero tokens is NaN
            chosen[0, 1] = True
        labels = np.where(chosen, ids, IGNORED)
        mask_tokens(ids, chosen, mask_id, (0, vocabulary_size), rng)
        return {**loop.to_tensors(batch, names), "labels": torch.from_numpy(labels)}

    return loop.fit(model, encoded.lengths, collate, settings, epochs=epochs, lr=lr, description=description)
