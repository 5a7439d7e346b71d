"""Masks that are found by masked language modelling."""

from __future__ import annotations

from dataclasses import dataclass
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
from effx.manifests import TrainingStage
from effx.models import checkpoints, families, huggingface, sparse
from effx.quiet import quiet
from effx.specs.data import DataLocation
from effx.specs.kinds import KINDS
from effx.specs.lottery import LR_LOTTERY, MlmSettings
from effx.specs.training import FinetuneSettings
from effx.train import mlm, rows
from effx.train.lottery import blocks
from effx.train.lottery.masks import FoundMask, MaskedModel, check_fit

USUAL_LENGTH = KINDS["classification"].max_length
"""Tokens of a passage at most, where no setting says so."""


@dataclass(frozen=True)
class LanguageRound:
    """What a round of masked language modelling found."""

    found: FoundMask
    training: TrainingStage
    """What it took."""


def language_round(
    task_name: str,
    model_name: str | Path,
    masks: sparse.WeightMasks | None,
    percent: int,
    *,
    data_folder: DataLocation,
    text: str | None,
    settings: FinetuneSettings,
    mlm_rows: str = "passages",
) -> LanguageRound:
    """Train masked language modelling under masks, and find those that set its smallest weights to zero.

    It begins with the pretrained weights, the language-modelling head included.

    Args:
        task_name: the task whose training texts are used without ``text``.
        model_name: the pretrained encoder.
        masks: of the round before; None: all weights remain.
        percent: percentage of the weights that the new masks set to zero.
        data_folder: as :func:`effx.train.finetune` takes it.
        text: file with one passage per line.
        settings: how to train.
        mlm_rows: one of :data:`effx.specs.lottery.MLM_ROWS`; blocks need ``text``.

    Raises:
        UsageError: as :func:`language_model`, or the text does not fill a block.
        ArtifactError: the masks do not fit the model.
    """
    training = settings.training
    form, usual = "texts", USUAL_LENGTH
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
    if mlm_rows == "blocks":
        joined = blocks.join(tokenizer, texts, max_length)
        encoded, what = joined.encoded, f"blocks of {max_length} tokens"
        if joined.rest:
            progress.say_once(
                f"{text}: {len(encoded):,} {what}; the last {joined.rest} tokens do not fill one and are "
                "left out."
            )
    else:
        what = "texts"
        with scratch.folder("tokenizer") as folder:
            tokenizer.save_pretrained(folder)
            model.config.save_pretrained(folder)
            encoded = Encoder(folder, max_length, form=form)(texts)
    if masks is not None:
        check_fit(masks, model)
        sparse.hold(model, masks)
    stage = mlm.fit(
        model, tokenizer, encoded, training,
        f"masked language modelling for {percent} %: {len(encoded)} {what}",
        epochs=settings.epochs, lr=training.lr or LR_LOTTERY,
    )  # fmt: skip
    return LanguageRound(_smallest(model, model_name, percent), stage)


def untrained(model_name: str | Path, percent: int) -> FoundMask:
    """Return masks that set the smallest of a language model's pretrained weights to zero.

    They are those of the matrices that masked language modelling trains: there is no pooler.

    Raises:
        UsageError: as :func:`language_model`.
    """
    model, _ = language_model(str(model_name))
    return _smallest(model, model_name, percent)


def _smallest(model: PreTrainedModel, model_name: str | Path, percent: int) -> FoundMask:
    found = sparse.smallest(sparse.matrices(model.cpu()), percent / 100)
    return FoundMask(found, MaskedModel.of(huggingface.recorded_name(str(model_name)), model))


def check(
    model_name: str, search: MlmSettings, finetune: FinetuneSettings, usual_length: int | None = None
) -> None:
    """Check a search by masked language modelling before its first round.

    Args:
        model_name: the pretrained encoder.
        search: the text, and how to train.
        finetune: how tickets are fine-tuned.
        usual_length: tokens of a row at most where no setting says so; default: that of texts.

    Raises:
        UsageError: a setting does not fit the text or the model.
    """
    if search.mlm_rows == "blocks" and search.text is None:
        raise UsageError(
            "mlm_rows blocks joins the passages of a file: give text, or set mlm_rows to passages.",
            settings=("mlm_rows", "text"),
        )
    texts = None if search.text is None else read_texts(search.text)
    model, tokenizer = language_model(model_name)
    length = search.rounds(finetune).max_length or usual_length or USUAL_LENGTH
    limit = checkpoints.position_limit(model)
    if search.mlm_max_length is not None and length > limit:
        raise UsageError(
            f"mlm_max_length {length}: this model reads at most {limit} tokens.", settings="mlm_max_length"
        )
    checkpoints.check_length(model, length)
    if texts is not None and search.mlm_rows == "blocks":
        blocks.check(tokenizer, texts, length)


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
        progress.say_once(
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
