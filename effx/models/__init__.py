"""Reduced encoders: families, masks, surgery, exits, tokens, the forward pass, loading and saving."""

from effx import scratch
from effx.errors import need

need("train", "torch", "transformers", "safetensors")
scratch.for_torch()

from effx.models.checkpoints import load, save  # noqa: E402
from effx.models.exits import add_ramps  # noqa: E402
from effx.models.huggingface import pretrained  # noqa: E402
from effx.models.masks import masked  # noqa: E402
from effx.models.reference import Inference, infer  # noqa: E402
from effx.models.structure import structure  # noqa: E402
from effx.models.surgery import prune  # noqa: E402

__all__ = [
    "Inference",
    "add_ramps",
    "infer",
    "load",
    "masked",
    "pretrained",
    "prune",
    "save",
    "structure",
]
