"""Unstructured lottery tickets: iterative magnitude pruning with rewinding, a baseline.

    round 0   fine-tune the pretrained weights                                  sparsity 0
    round r   set the smallest weights of round r - 1 to zero, 10 r % of all; take the others back to
              their pretrained values, the task head afresh; fine-tune          sparsity 10 r %

Chen et al. 2020, "The Lottery Ticket Hypothesis for Pre-trained BERT Networks": lr 2e-5, batch 32, 3
epochs a round, one ranking over all layers. With the objective ``mlm`` the rounds train masked
language modelling instead, and the last mask, which does not depend on the task ("universal" at 70 %),
is fine-tuned once on the task; the mask is a file that other tasks can take (``mask``).

The checkpoints are whole in structure, only zeros in them: dense kernels are no faster for that, and
profiling shows it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, PreTrainedModel

from effx import data, files, progress
from effx.artifacts import Checkpoint
from effx.encoding import Encoder
from effx.errors import ArtifactError, UsageError
from effx.models import checkpoints, families, huggingface, load, sparse
from effx.quiet import quiet
from effx.specs.training import SPARSITY_STEP, LotterySettings
from effx.train import distributed, mlm, source, workspace
from effx.train.finetune import finetune


def run(
    task_name: str,
    model_name: str | Path,
    *,
    out: str | Path | None = None,
    data_folder: str | Path | None = None,
    settings: LotterySettings | None = None,
) -> list[Checkpoint]:
    """Find a lottery ticket; every round is a checkpoint, and one that is there is not trained again.

    Args:
        task_name: a task of the table, or with ``data_folder`` any name for the user's own.
        model_name: a folder with config.json and safetensors weights, or a name on the hub.
        out: the workspace; default ``lottery/TASK-MODEL``, with ``-mlm`` or ``-mask``. Masks are in its
            ``masks``.
        data_folder: train and validation files; default: the hub, or the embedded demo.
        settings: how sparse, and how to train.

    Returns:
        Checkpoints, the densest first; their manifests have ``sparsity`` (share, zeros, of, objective).

    Raises:
        UsageError: a setting is wrong, or the workspace was made with others.
        DataError: the rows do not fit the task.
        ArtifactError: a mask or checkpoint is damaged or fits another model.
    """
    distributed.refuse("a search for lottery tickets")
    settings = settings or LotterySettings()
    settings = settings.replace(lr=settings.learning_rate)
    for key, path in (("mask", settings.mask), ("text", settings.text)):
        if path is not None and not Path(path).is_file():
            raise UsageError(f"{key} {path}: there is no such file.", settings=key)
    task = data.resolve(task_name, data_folder)
    source.check_trainable(task)
    model_name = str(model_name)
    huggingface.check_source(model_name, task)
    rows = data.load(task, "train", data_folder).limit(settings.finetune.training.limit)
    kind = "-mask" if settings.mask else "-mlm" if settings.objective == "mlm" else ""
    default = Path("lottery") / (workspace.stem(task.name, model_name) + kind)
    folder = Path(out) if out is not None else default
    validation = data.load(task, "validation", data_folder)
    how = {key: value for key, value in settings.to_json().items() if key not in ("sparsity", "seed")}
    for key in ("mask", "text"):
        how[key] = files.sha256(Path(how[key])) if how[key] else None
    shared = {
        "task": task.name, **workspace.model_of(model_name),
        "train": workspace.digest(rows), "validation": workspace.digest(validation),
    }  # fmt: skip
    masks = read_masks(Path(settings.mask)) if settings.mask else None
    texts = _texts(settings.text) if settings.text else rows.texts
    workspace.claim(folder / "lottery.json", {**shared, **how})
    search = _Search(task.name, model_name, folder, Path(data_folder) if data_folder else None, settings)
    if masks is not None:
        return [search.fine_tuned("mask", masks)]
    if settings.objective == "mlm":
        return [search.fine_tuned(f"mlm{settings.sparsity}", search.universal(texts))]
    made = [search.fine_tuned("lottery0", None)]
    for percent in range(SPARSITY_STEP, settings.sparsity + SPARSITY_STEP, SPARSITY_STEP):
        masks = sparse.smallest(sparse.matrices(load(made[-1])), percent / 100)
        made.append(search.fine_tuned(f"lottery{percent}", masks, parent=made[-1].digest))
    return made


@dataclass(frozen=True)
class _Search:
    """What the rounds of one run share."""

    task: str
    model: str
    folder: Path
    data_folder: Path | None
    settings: LotterySettings

    def fine_tuned(
        self, what: str, masks: sparse.WeightMasks | None, *, parent: str | None = None
    ) -> Checkpoint:
        """Return the checkpoint of the pretrained weights under ``masks``, fine-tuned."""
        name = f"{workspace.stem(self.task, self.model)}-{what}-s{self.settings.finetune.training.seed}"
        folder = self.folder / "checkpoints" / name
        with workspace.alone(self.folder, name):
            return Checkpoint.open(folder) if Checkpoint.find(folder) else self._train(folder, masks, parent)

    def _train(self, folder: Path, masks: sparse.WeightMasks | None, parent: str | None) -> Checkpoint:
        record: dict[str, Any] = {"parent": parent}
        found_by: dict[str, Any] = {"objective": self.settings.objective}
        if self.settings.mask:  # the file does not say
            found_by = {"objective": None, "mask": files.sha256(Path(self.settings.mask))}

        def cut(model: PreTrainedModel) -> None:
            if masks is not None:
                _check(masks, model)
                sparse.hold(model, masks)
            record["sparsity"] = {**sparse.counts(model), **found_by}

        return finetune(
            self.task,
            self.model,
            out=folder.parent,
            name=folder.name,
            data_folder=self.data_folder,
            settings=self.settings.finetune,
            reduce=cut,
            record=record,
            fresh_head=True,
        )

    def universal(self, texts: list[tuple[str, ...]]) -> dict[str, torch.Tensor]:
        """Return the mask of the last round of masked language modelling; each round's is a file."""
        masks: dict[str, torch.Tensor] | None = None
        for percent in range(SPARSITY_STEP, self.settings.sparsity + SPARSITY_STEP, SPARSITY_STEP):
            path = self.folder / "masks" / f"mlm{percent}-s{self.settings.finetune.training.seed}.safetensors"
            with workspace.alone(self.folder, path.name):
                if path.is_file():
                    masks = read_masks(path)
                    continue
                model = self._language_round(texts, masks, f"masked language modelling for {percent} %")
                masks = sparse.smallest(sparse.matrices(model), percent / 100)
                write_masks(path, masks)
        assert masks is not None
        progress.say(f"the mask is {path}")
        return masks

    def _language_round(
        self, texts: list[tuple[str, ...]], masks: sparse.WeightMasks | None, title: str
    ) -> PreTrainedModel:
        settings = self.settings.finetune
        transformers.set_seed(settings.training.seed)
        model, tokenizer = language_model(self.model)
        checkpoints.check_length(model, settings.max_length)
        with tempfile.TemporaryDirectory(prefix="effx-tokenizer-") as place:
            tokenizer.save_pretrained(place)
            model.config.save_pretrained(place)
            encoded = Encoder(place, settings.max_length)(texts)
        if masks is not None:
            _check(masks, model)
            sparse.hold(model, masks)
        mlm.fit(
            model, tokenizer, encoded, settings.training, f"{title}: {len(encoded)} texts",
            epochs=settings.epochs, lr=self.settings.learning_rate,
        )  # fmt: skip
        return model.cpu()


def language_model(name: str) -> tuple[PreTrainedModel, Any]:
    """Return an encoder with its masked-language-modelling head, and its tokenizer.

    Weights without that head, as those of sentence encoders and discriminators, get a new one; that is said.

    Raises:
        UsageError: no such model, weights without part of the encoder, a checkpoint of effx's own, or a
            tokenizer without [MASK].
    """
    if Checkpoint.find(name):
        raise UsageError(
            f"model {name}: a task's checkpoint has no language-modelling head; use the pretrained model",
            settings="model",
        )
    try:
        with quiet():
            model, told = AutoModelForMaskedLM.from_pretrained(
                name,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
            new = huggingface.check_encoder(name, model, told)
            tokenizer = checkpoints.tokenizer(Path(name)) if Path(name).is_dir() else None
            if tokenizer is None:
                tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, SafetensorError) as error:
        raise UsageError(f"model {name}: {' '.join(str(error).split())[:300]}", settings="model") from error
    families.of(model)
    if new:
        progress.say(
            f"{huggingface.name_of(name)} comes without its language head: a new one is trained in each "
            "round, so the mask is not that of the model's own pretraining objective."
        )
    if tokenizer.mask_token_id is None:
        raise UsageError(
            f"model {name}: its tokenizer has no mask token, which the objective mlm needs",
            settings=("model", "objective"),
        )
    return model, tokenizer


def write_masks(path: Path, masks: sparse.WeightMasks) -> None:
    """Write masks as safetensors, by the parameters' names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary:
        save_file({name: mask.to(torch.uint8).contiguous() for name, mask in masks.items()}, temporary)


def read_masks(path: Path) -> dict[str, torch.Tensor]:
    """Return masks that were written.

    Raises:
        ArtifactError: the file cannot be read.
    """
    try:
        return {name: mask.bool() for name, mask in load_file(path).items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise ArtifactError(f"{path} cannot be read as a mask ({error}).") from error


def _check(masks: sparse.WeightMasks, model: PreTrainedModel) -> None:
    """Raise for a mask of another model; what a model lacks (a pooler) is left out, the rest must fit."""
    known = sparse.matrices(model)
    layers = [name for name in masks if name.startswith(f"{families.of(model).layers_path}.")]
    wrong = [name for name in layers if name not in known or known[name].shape != masks[name].shape]
    if wrong or not layers:
        what = f"{wrong[0]} is not there or of another shape" if wrong else "it names no layer"
        raise ArtifactError(f"the mask does not fit the model: {what}. Find one for this model.")


def _texts(path: str) -> list[tuple[str, ...]]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"text {path} cannot be read ({error})", settings="text") from error
    texts = [(line.strip(),) for line in lines if line.strip()]
    if not texts:
        raise UsageError(f"text {path} is empty", settings="text")
    return list(texts)
