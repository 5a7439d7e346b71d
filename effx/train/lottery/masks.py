"""The masks of lottery tickets, found in a checkpoint, in the pretrained weights or at random, as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from effx import data, files
from effx.artifacts import Checkpoint
from effx.errors import ArtifactError
from effx.models import families, huggingface, load, sparse, structure
from effx.specs.data import DataLocation
from effx.specs.heads import HeadSettings
from effx.specs.training import FinetuneSettings
from effx.train.layer_reduction import reduce_by_position

_KEY = "effx"
"""Of the file's metadata. One key alone: safetensors writes several in no fixed order."""


@dataclass(frozen=True)
class MaskedModel:
    """The model whose weights a mask is for."""

    name: str
    """As manifests have it."""
    layers: tuple[int, ...]
    """Its layers by their index in the unreduced model, from 0; the mask's names have their positions."""

    @classmethod
    def of(cls, name: str, model: PreTrainedModel) -> MaskedModel:
        """Return what is written into the mask of a model."""
        return cls(name, tuple(layer.index for layer in structure(model).layers))


@dataclass(frozen=True)
class FoundMask:
    """Masks, and the model that they were found for."""

    masks: sparse.WeightMasks
    model: MaskedModel


def of_checkpoint(checkpoint: Checkpoint, percent: int) -> FoundMask:
    """Return the masks that set the smallest ``percent`` of a checkpoint's weights to zero."""
    model = load(checkpoint)
    masks = sparse.smallest(sparse.matrices(model), percent / 100)
    return FoundMask(masks, MaskedModel.of(checkpoint.manifest.model, model))


def untrained(
    kind: str,
    task_name: str,
    model_name: str | Path,
    percent: int,
    *,
    data_folder: DataLocation,
    settings: FinetuneSettings,
    head: HeadSettings | None = None,
) -> FoundMask:
    """Return masks for which nothing is trained.

    Args:
        kind: ``one-shot``: the smallest of the weights that a fine-tuning starts from are set to zero;
            ``random``: weights drawn at random over all matrices, so that the zeros of a smaller percentage
            are among those of a larger one.
        task_name: as :func:`effx.train.finetune` takes it.
        model_name: the pretrained encoder.
        percent: percentage of the weights that are set to zero.
        data_folder: as :func:`effx.train.finetune` takes it.
        settings: its seed draws the weights, and those of a pooler that the encoder lacks.
        head: whether the model's task head is kept or replaced.
    """
    seed = settings.training.seed
    transformers.set_seed(seed)  # as effx.train.finetune, whose weights these are
    task = data.resolve(task_name, data_folder)
    model, _ = huggingface.pretrained(model_name, task, head=head)
    reduce_by_position(model, settings)
    weights = sparse.matrices(model)
    share = percent / 100
    masks = sparse.drawn(weights, share, seed) if kind == "random" else sparse.smallest(weights, share)
    return FoundMask(masks, MaskedModel.of(recorded_name(model_name), model))


def recorded_name(model_name: str | Path) -> str:
    """Return the name of a pretrained encoder, or of that of a checkpoint, as manifests have it."""
    if Checkpoint.is_at(model_name):
        return Checkpoint.open(model_name).manifest.model
    return huggingface.recorded_name(str(model_name))


def file_in(folder: Path) -> Path:
    """Return the file of the mask that a cell of that name wrote into its folder."""
    return folder / f"{folder.name}.safetensors"


def write(path: Path, found: FoundMask) -> None:
    """Write masks as safetensors, by the parameters' names: uint8, 1: the weight remains.

    The metadata has the model that they are for. The same masks of the same model give the same bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {_KEY: json.dumps(asdict(found.model), sort_keys=True)}
    values = {name: mask.to(torch.uint8).contiguous() for name, mask in found.masks.items()}
    with files.replacing(path) as temporary:
        save_file(values, temporary, metadata=metadata)


def read(path: Path) -> dict[str, torch.Tensor]:
    """Read masks from a file.

    Raises:
        ArtifactError: the file cannot be read.
    """
    try:
        return {name: mask.bool() for name, mask in load_file(path).items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise ArtifactError(f"{path} cannot be read as a mask ({error}).") from error


def model_of(path: Path) -> MaskedModel | None:
    """Return the model that the masks of a file are for; None: unknown, an earlier version wrote it.

    Raises:
        ArtifactError: the file cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            text = (opened.metadata() or {}).get(_KEY)
        if text is None:
            return None
        value = json.loads(text)
        name, layers = value["name"], value["layers"]
        if not isinstance(name, str) or not all(type(layer) is int for layer in layers):
            raise ValueError("expected a name and numbers of layers")
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise ArtifactError(f"{path} cannot be read as a mask ({error}).") from error
    return MaskedModel(name, tuple(layers))


def check_fit(
    masks: sparse.WeightMasks, model: PreTrainedModel, found_for: MaskedModel | None = None
) -> None:
    """Raise ArtifactError if masks do not fit the model; masks of a missing pooler are ignored.

    Args:
        masks: by the names of parameters.
        model: whose weights they are applied to.
        found_for: the model that they were found for; None: unknown, names and shapes alone are compared.
    """
    known, prefix = sparse.matrices(model), f"{families.of(model).layers_path}."
    layers = [name for name in masks if name.startswith(prefix)]
    wrong = [name for name in layers if name not in known or known[name].shape != masks[name].shape]
    missing = [name for name in known if name.startswith(prefix) and name not in masks]
    present = tuple(layer.index for layer in structure(model).layers)
    if not layers:
        reason = "it has no layer's weights"
    elif wrong:
        reason = f"{wrong[0]} is missing in the model or has another shape"
    elif missing:
        reason = f"it does not have {missing[0]}"
    elif found_for is not None and found_for.layers != present:
        reason = f"it is of the layers {_counted(found_for.layers)}, and the model has {_counted(present)}"
    else:
        return
    raise ArtifactError(f"the mask does not fit the model: {reason}. Use a mask of this model.")


def _counted(layers: Sequence[int]) -> str:
    return " ".join(str(layer + 1) for layer in layers)
