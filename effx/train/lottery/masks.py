"""The masks of lottery tickets, found in a checkpoint, in the pretrained weights or at random, as files."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from effx import data, files
from effx.artifacts import Checkpoint
from effx.errors import ArtifactError
from effx.models import families, huggingface, load, sparse
from effx.specs.data import DataLocation
from effx.specs.heads import HeadSettings
from effx.specs.training import FinetuneSettings
from effx.train.layer_reduction import reduce_by_position


def of_checkpoint(checkpoint: Checkpoint, percent: int) -> sparse.WeightMasks:
    """Return the masks that set the smallest ``percent`` of a checkpoint's weights to zero."""
    return sparse.smallest(sparse.matrices(load(checkpoint)), percent / 100)


def untrained(
    kind: str,
    task_name: str,
    model_name: str | Path,
    percent: int,
    *,
    data_folder: DataLocation,
    settings: FinetuneSettings,
    head: HeadSettings | None = None,
) -> sparse.WeightMasks:
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
    if kind == "random":
        return sparse.drawn(weights, percent / 100, seed)
    return sparse.smallest(weights, percent / 100)


def file_in(folder: Path) -> Path:
    """Return the file of the mask that a cell of that name wrote into its folder."""
    return folder / f"{folder.name}.safetensors"


def write(path: Path, masks: sparse.WeightMasks) -> None:
    """Write masks as safetensors, by the parameters' names: uint8, 1: the weight remains.

    The same masks give the same bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary:
        save_file({name: mask.to(torch.uint8).contiguous() for name, mask in masks.items()}, temporary)


def read(path: Path) -> dict[str, torch.Tensor]:
    """Read masks from a file.

    Raises:
        ArtifactError: the file cannot be read.
    """
    try:
        return {name: mask.bool() for name, mask in load_file(path).items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise ArtifactError(f"{path} cannot be read as a mask ({error}).") from error


def check_fit(masks: sparse.WeightMasks, model: PreTrainedModel) -> None:
    """Raise ArtifactError if masks do not fit the model; masks of a missing pooler are ignored."""
    known = sparse.matrices(model)
    layers = [name for name in masks if name.startswith(f"{families.of(model).layers_path}.")]
    wrong = [name for name in layers if name not in known or known[name].shape != masks[name].shape]
    if wrong or not layers:
        reason = (
            f"{wrong[0]} is missing in the model or has another shape"
            if wrong
            else "it has no layer's weights"
        )
        raise ArtifactError(f"the mask does not fit the model: {reason}. Use a mask of this model.")
