"""Tiny fine-tuned models, saved by transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel


def classifier(
    encoder: Path, folder: Path, labels: tuple[str, ...] | None, *, seed: int = 5, **options: Any
) -> PreTrainedModel:
    """Save a classifier with random weights and these names of its outputs; return it.

    Args:
        encoder: folder of an encoder with its tokenizer.
        folder: to write.
        labels: of the outputs; None: two outputs without names.
        seed: of the weights.
        **options: of ``save_pretrained``, and ``dtype`` and ``problem_type``.
    """
    torch.manual_seed(seed)
    dtype = options.pop("dtype", torch.float32)
    config: dict[str, Any] = {"num_labels": len(labels) if labels else 2}
    if labels:
        config |= {"id2label": dict(enumerate(labels)), "label2id": {b: a for a, b in enumerate(labels)}}
    if "problem_type" in options:
        config["problem_type"] = options.pop("problem_type")
    model = AutoModelForSequenceClassification.from_pretrained(encoder, **config)
    for parameter in model.parameters():  # biases and the head too, so that predictions differ
        parameter.data += 0.2 * torch.randn_like(parameter)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model = model.to(dtype)
    model.save_pretrained(folder, **options)
    for file in encoder.glob("tokenizer*"):
        shutil.copy(file, folder)
    model = model.float()
    for name, buffer in model.named_buffers():  # those that are not saved, e.g. of rotary positions
        buffer.copy_(buffers[name])
    return model.eval()


def change_config(folder: Path, **values: Any) -> Path:
    """Change keys of a folder's config.json."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))
    return folder
