"""What a reduced encoder is: families as data, masks, surgery, exits, tokens, loading and saving."""

from effx.errors import need

need("train", "torch", "transformers", "safetensors")

from effx.models.checkpoints import load, pretrained, save  # noqa: E402
from effx.models.exits import add_ramps  # noqa: E402
from effx.models.masks import masked  # noqa: E402
from effx.models.reference import Inference, infer  # noqa: E402
from effx.models.structure import Layer, Structure, structure  # noqa: E402
from effx.models.surgery import prune  # noqa: E402

__all__ = [
    "Inference",
    "Layer",
    "Structure",
    "add_ramps",
    "infer",
    "load",
    "masked",
    "pretrained",
    "prune",
    "save",
    "structure",
]
