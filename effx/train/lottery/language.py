"""Masks that are found by masked language modelling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModelForMaskedLM, PreTrainedModel

from effx import data, progress, scratch
from effx.artifacts import Checkpoint
from effx.encoding import Encoder
from effx.errors import UsageError, one_line
from effx.models import checkpoints, families, huggingface, sparse
from effx.quiet import quiet
from effx.specs.data import DataLocation
from effx.specs.kinds import KINDS
from effx.specs.training import LR_LOTTERY, FinetuneSettings
from effx.train import mlm, rows
from effx.train.lottery.masks import FoundMask, MaskedModel, check_fit


def language_round(
    task_name: str,
    model_name: str | Path,
    masks: sparse.WeightMasks | None,
    percent: int,
    *,
    data_folder: DataLocation,
    text: str | None,
    settings: FinetuneSettings,
) -> FoundMask:
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
        texts = read_texts(text)
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
        check_fit(masks, model)
        sparse.hold(model, masks)
    mlm.fit(
        model, tokenizer, encoded, training,
        f"masked language modelling for {percent} %: {len(encoded)} texts",
        epochs=settings.epochs, lr=training.lr or LR_LOTTERY,
    )  # fmt: skip
    found = sparse.smallest(sparse.matrices(model.cpu()), percent / 100)
    return FoundMask(found, MaskedModel.of(huggingface.recorded_name(str(model_name)), model))


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


def read_texts(path: str) -> list[tuple[str, ...]]:
    """Return the passages of a file, one per line.

    Raises:
        UsageError: the file cannot be read, or has no text.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"text {path}: cannot be read ({error}).", settings="text") from error
    texts = [(line.strip(),) for line in lines if line.strip()]
    if not texts:
        raise UsageError(f"text {path}: the file has no text.", settings="text")
    return list(texts)
