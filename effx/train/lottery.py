"""Unstructured lottery tickets: iterative magnitude pruning with rewinding, a baseline.

    round 0   fine-tune the pretrained weights                                  sparsity 0
    round r   set the smallest 10 r % of the weights of round r - 1 to zero; reset the others to their
              pretrained values; fine-tune                                        sparsity 10 r %

Chen et al. 2020, "The Lottery Ticket Hypothesis for Pre-trained BERT Networks": lr 2e-5, batch 32, 3
epochs a round, one ranking over all layers. With the objective ``mlm`` the rounds train masked
language modelling instead, and the last mask, which does not depend on the task ("universal" at 70 %),
is fine-tuned once on the task; the mask is a file that can be used for other tasks.

The checkpoints keep all heads and FFNs; dense kernels are not faster for zeros, as profiling shows. Each
round is a cell of a recipe; :mod:`effx.recipe.graph.lottery` has their order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, PreTrainedModel

from effx import data, files, progress, scratch
from effx.artifacts import Checkpoint
from effx.encoding import Encoder
from effx.errors import ArtifactError, UsageError, one_line
from effx.manifests import CheckpointFacts
from effx.models import checkpoints, families, huggingface, load, sparse
from effx.quiet import quiet
from effx.specs.data import DataLocation
from effx.specs.heads import HeadSettings
from effx.specs.kinds import KINDS
from effx.specs.training import LR_LOTTERY, FinetuneSettings, LotterySettings
from effx.train import distributed, mlm, rows, source
from effx.train.distillation import Distillation
from effx.train.finetune import finetune

MASK = "mask.safetensors"
"""Name of a mask's file: uint8 by parameter name; 1: the weight remains."""


def check(task_name: str, model_name: str, data_folder: DataLocation, settings: LotterySettings) -> None:
    """Check what can be checked before the first round.

    Raises:
        UsageError: a setting or the model is wrong.
        DataError: the rows do not fit the task.
        ArtifactError: the mask is damaged.
    """
    distributed.refuse("a search for lottery tickets")
    for key, path in (("mask", settings.mask), ("text", settings.text)):
        if path is not None and not Path(path).is_file():
            raise UsageError(f"{key} {path}: no such file.", settings=key)
    cache: data.Cache = {}
    task = data.resolve(task_name, data_folder, cache=cache)
    source.check_trainable(task)
    huggingface.check_source(model_name)
    data.load(task, "train", data_folder, cache=cache)
    data.load(task, "validation", data_folder, cache=cache)
    if settings.mask:
        read_masks(Path(settings.mask))
    if settings.text:
        _texts(settings.text)


def smallest(checkpoint: Checkpoint, percent: int) -> sparse.WeightMasks:
    """Return the masks that set the smallest ``percent`` of a checkpoint's weights to zero."""
    return sparse.smallest(sparse.matrices(load(checkpoint)), percent / 100)


def train_round(
    task_name: str,
    model_name: str | Path,
    masks: sparse.WeightMasks | None,
    *,
    out: str | Path,
    name: str,
    data_folder: DataLocation,
    settings: FinetuneSettings,
    parent: str | None,
    objective: str | None,
    mask_digest: str | None = None,
    head: HeadSettings | None = None,
    distillation: Distillation | None = None,
) -> Checkpoint:
    """Fine-tune the pretrained weights under masks and write ``out/name``.

    Args:
        task_name: as :func:`effx.train.finetune` takes it.
        model_name: the pretrained encoder.
        masks: which weights remain; None: all.
        out: folder of the checkpoint's folder.
        name: the checkpoint's name.
        data_folder: as :func:`effx.train.finetune` takes it.
        settings: how to fine-tune.
        parent: digest of the round before.
        objective: for the manifest: what the rounds train; None: unknown, because the masks are from a file.
        mask_digest: SHA-256 of that file.
        head: whether the model's task head is kept or replaced.
        distillation: a teacher that is learned from besides the labels; None: labels alone.

    Raises:
        ArtifactError: the masks do not fit the model.
    """

    def reduce(model: PreTrainedModel) -> None:
        if masks is not None:
            _check(masks, model)
            sparse.hold(model, masks)

    def facts(model: PreTrainedModel) -> CheckpointFacts:
        sparsity = sparse.counts(model).model_copy(update={"objective": objective, "mask": mask_digest})
        return {"parent": parent, "sparsity": sparsity}

    return finetune(
        task_name,
        model_name,
        out=out,
        name=name,
        data_folder=data_folder,
        settings=settings,
        reduce=reduce,
        facts=facts,
        head=head,
        distillation=distillation,
    )


def language_round(
    task_name: str,
    model_name: str | Path,
    masks: sparse.WeightMasks | None,
    percent: int,
    *,
    data_folder: DataLocation,
    text: str | None,
    settings: FinetuneSettings,
) -> sparse.WeightMasks:
    """Train masked language modelling under masks; return masks that set its smallest weights to zero.

    Args:
        task_name: the task whose training texts are used without ``text``.
        model_name: the pretrained encoder.
        masks: of the round before; None: all weights remain.
        percent: percentage of the weights that the new masks set to zero.
        data_folder: as :func:`effx.train.finetune` takes it.
        text: file with one passage per line.
        settings: how to train.

    Raises:
        UsageError: the model has no language-modelling head, or its tokenizer has no mask token.
        ArtifactError: the masks do not fit the model.
    """
    training = settings.training
    form, usual = "texts", KINDS["classification"].max_length
    if text:
        texts = _texts(text)
    else:
        task = data.resolve(task_name, data_folder)
        every = data.load(task, "train", data_folder)
        texts = every.take(rows.chosen(every, training)).texts
        form, usual = task.behavior.form, task.behavior.max_length
    transformers.set_seed(training.seed)
    model, tokenizer = language_model(str(model_name))
    max_length = settings.max_length or usual
    checkpoints.check_length(model, max_length)
    with scratch.folder("tokenizer") as folder:
        tokenizer.save_pretrained(folder)
        model.config.save_pretrained(folder)
        encoded = Encoder(folder, max_length, form=form)(texts)
    if masks is not None:
        _check(masks, model)
        sparse.hold(model, masks)
    mlm.fit(
        model, tokenizer, encoded, training,
        f"masked language modelling for {percent} %: {len(encoded)} texts",
        epochs=settings.epochs, lr=training.lr or LR_LOTTERY,
    )  # fmt: skip
    return sparse.smallest(sparse.matrices(model.cpu()), percent / 100)


def language_model(name: str) -> tuple[PreTrainedModel, Any]:
    """Return an encoder with its masked-language-modelling head, and its tokenizer.

    Models without that head, such as sentence encoders and discriminators, get a new one, with a message.

    Raises:
        UsageError: no such model, weights without part of the encoder, a checkpoint of effx, or a
            tokenizer without [MASK].
    """
    if Checkpoint.find(name):
        raise UsageError(
            f"model {name}: a fine-tuned checkpoint has no language-modelling head; use the pretrained "
            "model.",
            settings="model",
        )
    try:
        with quiet():
            model, loaded = AutoModelForMaskedLM.from_pretrained(
                name,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
            new = huggingface.check_encoder(name, model, loaded)
            tokenizer = checkpoints.tokenizer(Path(name)) if Path(name).is_dir() else None
            if tokenizer is None:
                tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, SafetensorError) as error:
        message = one_line(error, 300)
        raise UsageError(f"model {name}: {message}", settings="model") from error
    families.of(model).prepare(model)
    if new:
        progress.say(
            f"{huggingface.name_of(name)} has no language-modelling head: a new one is trained in each "
            "round. The mask therefore does not belong to the objective that the model was pretrained with."
        )
    if tokenizer.mask_token_id is None:
        raise UsageError(
            f"model {name}: its tokenizer has no mask token, which masked language modelling needs.",
            settings="model",
        )
    return model, tokenizer


def write_masks(path: Path, masks: sparse.WeightMasks) -> None:
    """Write masks as safetensors, by the parameters' names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary:
        save_file({name: mask.to(torch.uint8).contiguous() for name, mask in masks.items()}, temporary)


def read_masks(path: Path) -> dict[str, torch.Tensor]:
    """Read masks from a file.

    Raises:
        ArtifactError: the file cannot be read.
    """
    try:
        return {name: mask.bool() for name, mask in load_file(path).items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise ArtifactError(f"{path} cannot be read as a mask ({error}).") from error


def _check(masks: sparse.WeightMasks, model: PreTrainedModel) -> None:
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


def _texts(path: str) -> list[tuple[str, ...]]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"text {path}: cannot be read ({error}).", settings="text") from error
    texts = [(line.strip(),) for line in lines if line.strip()]
    if not texts:
        raise UsageError(f"text {path}: the file has no text.", settings="text")
    return list(texts)
