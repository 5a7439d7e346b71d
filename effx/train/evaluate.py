"""Reference predictions of a checkpoint in PyTorch, fp32, without padding effects on the order."""

from __future__ import annotations

import numpy as np
import torch
from transformers import PreTrainedModel

from effx.encoding import Encoded, length_sorted
from effx.models.io import input_names


@torch.inference_mode()
def logits(model: PreTrainedModel, encoded: Encoded, batch_size: int = 64) -> np.ndarray:
    """Return float32 logits [n, outputs] in row order, in eval mode."""
    model.eval()
    names = input_names(model)
    result = np.empty((len(encoded), model.config.num_labels), dtype=np.float32)
    for rows in length_sorted(encoded.lengths, batch_size):
        batch = encoded.batch(rows)
        inputs = {name: torch.from_numpy(batch[name]).to(model.device) for name in names}
        result[rows] = model(**inputs).logits.float().cpu().numpy()
    return result
