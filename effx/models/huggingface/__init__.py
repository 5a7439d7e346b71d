"""Models as transformers saves them: read, checked, understood, and given a head for a task."""

from effx.models.huggingface.folder import (
    check_source,
    is_hub_name,
    is_model,
    name_of,
    open_folder,
    recorded_name,
    short_name,
)
from effx.models.huggingface.load import Loaded, build, check_encoder, load, open_model, pretrained
from effx.models.huggingface.tokenizers import check_encoded, check_equal

__all__ = [
    "Loaded",
    "build",
    "check_encoded",
    "check_encoder",
    "check_equal",
    "check_source",
    "is_hub_name",
    "is_model",
    "load",
    "name_of",
    "open_folder",
    "open_model",
    "pretrained",
    "recorded_name",
    "short_name",
]
