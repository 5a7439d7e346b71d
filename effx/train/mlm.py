"""Masked language modelling: the words that are hidden, and a round of training on them."""

from __future__ import annotations

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from effx.encoding import Encoded
from effx.models import checkpoints
from effx.specs.training import TrainingSettings
from effx.train import loop

SHARE = 0.15
"""Of the words that are asked for."""
IGNORED = -100
"""The label that the loss leaves out."""


def hide(
    ids: np.ndarray, chosen: np.ndarray, mask_id: int, words: tuple[int, int], rng: np.random.Generator
) -> None:
    """Hide the chosen words in place: 80 % as [MASK], 10 % as another word, 10 % unchanged.

    Devlin et al. 2019, section 3.1.

    Args:
        ids: int64 [batch, length].
        chosen: bool [batch, length].
        mask_id: of [MASK].
        words: first id, and one past the last, of what may stand in.
        rng: draws.
    """
    kind = rng.random(ids.shape)
    ids[chosen & (kind < 0.8)] = mask_id
    other = chosen & (kind >= 0.8) & (kind < 0.9)
    ids[other] = rng.integers(*words, int(other.sum()))


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Encoded,
    settings: TrainingSettings,
    description: str,
    *,
    epochs: float,
    lr: float,
) -> loop.LoopResult:
    """Train a model with a masked-language-modelling head in place, new words hidden every time."""
    rng = np.random.default_rng((settings.seed, 7))
    special = np.array(sorted(tokenizer.all_special_ids))
    mask_id, vocabulary = int(tokenizer.mask_token_id), len(tokenizer)
    names = checkpoints.input_names(model)

    def collate(indices: list[int]) -> dict[str, torch.Tensor]:
        batch = encoded.batch(indices)
        ids = batch["input_ids"]
        chosen = (rng.random(ids.shape) < SHARE) & ~np.isin(ids, special)
        if not chosen.any():  # a loss over no words is not a number
            chosen[0, 1] = True
        labels = np.where(chosen, ids, IGNORED)
        hide(ids, chosen, mask_id, (0, vocabulary), rng)
        return {**loop.to_tensors(batch, names), "labels": torch.from_numpy(labels)}

    return loop.fit(model, encoded.lengths, collate, settings, epochs=epochs, lr=lr, description=description)
