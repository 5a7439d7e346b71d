"""What a reduced encoder is: families as data, its structure, loading and saving."""

from effx.errors import need

need("train", "torch", "transformers", "safetensors")

from effx.models.io import load, pretrained, save  # noqa: E402 - after the check above
from effx.models.structure import Layer, Structure, structure  # noqa: E402

__all__ = ["Layer", "Structure", "load", "pretrained", "save", "structure"]
