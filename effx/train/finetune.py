"""Fine-tuning: train a pretrained encoder on a task and write a checkpoint.

Regimes: ``full`` trains everything; ``frozen`` trains only the task head (pooler and classifier), with
embeddings and layers frozen; ``last-K`` trains the head and the last K layers.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from effx import data, files, progress, scratch
from effx.artifacts import Checkpoint
from effx.costs import Expense, united
from effx.encoding import Encoder
from effx.errors import UsageError
from effx.manifests import CheckpointFacts, TrainingRecord
from effx.models import checkpoints, evaluate, families, huggingface, pooling, sparse, structure
from effx.specs.data import DataLocation
from effx.specs.heads import HeadSettings
from effx.specs.layer_reduction import TOP
from effx.specs.tasks import Task
from effx.specs.training import FinetuneSettings, trained_layers
from effx.train import (
    distributed,
    layer_reduction,
    loop,
    output,
    quantization_aware,
    rows,
    source,
    understood,
)
from effx.train.distillation import Distillation, Teacher, further_texts, with_blanks
from effx.train.segment import RunSegment
from effx.train.trainer import TimeLimit


def finetune(
    task_name: str,
    model_name: str | Path,
    *,
    out: str | Path = "checkpoints",
    name: str | None = None,
    data_folder: DataLocation = None,
    settings: FinetuneSettings | None = None,
    overwrite: bool = False,
    trust_remote_code: bool = False,
    reduce: Callable[[PreTrainedModel], object] | None = None,
    keep_predictions: bool = False,
    facts: Callable[[PreTrainedModel], CheckpointFacts] | None = None,
    segment: RunSegment | None = None,
    head: HeadSettings | None = None,
    distillation: Distillation | None = None,
    limit_s: float | None = None,
    keep_layers: Sequence[int] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    expenses: Sequence[Expense] | None = (),
) -> Checkpoint:
    """Fine-tune an encoder and write ``out/name``.

    Further texts of a distillation that are also those of validation rows, or of rows that early stopping is
    decided on, are not trained on. If training rows that limit and share leave out are among them, the
    checkpoint does not say that these rows are unseen.

    Args:
        task_name: a built-in task, or with ``data_folder`` any name for the user's data.
        model_name: a folder as transformers saves it, a checkpoint, or a name on the hub.
        out: folder of the checkpoint's folder.
        name: the checkpoint's name; default TASK-MODEL-REGIME-sSEED, with layersK (and the strategy, if not
            top) or seqN if layers or length are reduced.
        data_folder: file or folder of the rows; default: the hub, or the generated rows of the demo.
        settings: how to fine-tune.
        overwrite: replace a checkpoint of that name.
        trust_remote_code: run model code from the model's repository.
        reduce: called with the pretrained model and its new task head before training; changes the model
            in place.
        keep_predictions: write the predictions for the validation rows into the manifest, as
            ``predictions``.
        facts: called with the trained model; further entries of the manifest.
        segment: the part of the run to do now; the checkpoint has the weights at its end. None: all of it.
        head: whether the model's task head is kept or replaced; default: kept if its labels are the task's.
        distillation: a teacher that the model learns from, besides the labels; None: labels alone.
        limit_s: seconds of training; as many steps are done as fit, by the speed of the first ones. In one
            process only. None: all epochs.
        keep_layers: where the settings have ``layers``, those that are kept, by their index in the unreduced
            model, because they were chosen before; None: they are chosen now.
        callbacks: further callbacks of the Trainer.
        expenses: what had to be computed besides model and teacher; None: unknown.

    Raises:
        UsageError: a setting, name, model or teacher is wrong.
        DataError: the rows do not fit the task.
        ArtifactError: the state that the segment begins with is damaged.
    """
    settings = settings or FinetuneSettings()
    training = settings.training
    cache: data.Cache = {}
    task = data.resolve(task_name, data_folder, cache=cache)
    source.check_trainable(task)
    last_layers = trained_layers(settings.regime)
    huggingface.check_source(str(model_name))
    short = files.safe_name(huggingface.name_of(str(model_name)))
    folder = output.new_folder(out, name or _name(task, short, settings), overwrite)
    max_length = settings.max_length or task.behavior.max_length
    settings = settings.replace(max_length=max_length)

    base = Checkpoint.open(model_name) if Checkpoint.is_at(model_name) else None
    encoder_name = base.manifest.model if base else huggingface.recorded_name(str(model_name))
    every_row = data.load(task, "train", data_folder, cache=cache)
    chosen = rows.chosen(every_row, training)
    train_rows = every_row.take(chosen)
    rows.check_classes(task, len(train_rows), training)
    held_out = (
        rows.held_out(train_rows, training.seed, task.behavior.group) if settings.patience else np.arange(0)
    )
    validation_rows = data.load(task, "validation", data_folder, cache=cache)
    if distillation is not None and distillation.unlabelled is not None:
        # else the student would learn the teacher's answers on rows that it is scored on, or that stop its
        # training
        texts = {*validation_rows.texts, *train_rows.take(held_out).texts}
        distillation = replace(distillation, apart=distillation.apart | texts)
    teacher = None if distillation is None else Teacher(distillation, task, encoder_name)
    unlabelled = further_texts(distillation, task)
    left_out = every_row.take(np.setdiff1d(np.arange(len(every_row)), chosen)).texts
    left_out_seen = not {*unlabelled}.isdisjoint({*left_out} - {*train_rows.texts})
    cache.clear()
    rows_record = data.recorded(task, data_folder)
    transformers.set_seed(training.seed)
    loaded = huggingface.load(model_name, task, trust_remote_code=trust_remote_code, head=head)
    model, tokenizer = loaded.model, loaded.tokenizer
    pooling.set_pooling(model, chosen_pooling(settings.head_pooling, loaded))
    if distributed.is_first():
        understood.say(str(model_name), task, loaded, max_length)
    layer_reduction.check(model, settings)
    encoder = checked_encoder(
        str(model_name), model, tokenizer, max_length, every_row.texts,
        form=task.behavior.form,
    )  # fmt: skip
    dropped = layer_reduction.reduce_layers(
        str(model_name), model, settings, encoder, train_rows, keep_layers
    )
    if settings.head_dropout is not None:
        for module in families.of(model).head_dropouts(model):
            module.p = settings.head_dropout
    if reduce is not None:
        reduce(model)
    sparsity = base.manifest.sparsity if base else None
    if sparsity:
        sparse.hold_zeros(model)
    freeze(model, last_layers)

    encoded = encoder([*train_rows.texts, *unlabelled])
    encoded_validation = encoder(validation_rows.texts)
    for split in (encoded, encoded_validation):
        huggingface.check_encoded(str(model_name), split, model)
    fit_rows = np.setdiff1d(np.arange(len(train_rows)), held_out)
    without_label = np.arange(len(train_rows), len(train_rows) + len(unlabelled))
    labels = with_blanks(train_rows.labels, len(unlabelled))
    items, lengths = loop.items(encoded, labels, np.append(fit_rows, without_label))
    summary = data.summarize(
        task, train_rows, validation_rows, lengths=encoded.cut_lengths[: len(train_rows)],
        max_length=encoder.max_length,
    )  # fmt: skip
    if distributed.is_first():
        progress.say_once(*summary.lines())
    names = checkpoints.input_names(model)
    collate = loop.labelled(encoded, labels, names)
    if teacher is not None:
        teacher.prepare(model, encoded, [*train_rows.texts, *unlabelled], in_batches=limit_s is not None)
        collate = teacher.collated(collate, encoded, np.arange(encoded.row_count) < len(train_rows))

    def held_out_score() -> float:
        part = train_rows.take(held_out)
        predictions = evaluate.predictions(model, encoder(part.texts), task)
        return task.score(part.labels, predictions)[task.metric]

    with contextlib.ExitStack() as during:
        objective = None
        if settings.quantization_aware:
            during.enter_context(quantization_aware.rounded(model))
        if teacher is not None:
            precision = loop.choose_precision(training.precision)
            objective = during.enter_context(teacher.objective(model, precision))
        result = loop.fit(
            model,
            lengths,
            lambda indices: collate([int(items[index]) for index in indices]),
            training,
            epochs=settings.epochs,
            lr=settings.learning_rate,
            patience=settings.patience,
            description=f"train {folder.name}: {len(fit_rows) + len(unlabelled)} rows",
            score=held_out_score,
            segment=segment,
            objective=objective,
            callbacks=[*callbacks, *([] if limit_s is None else [TimeLimit(limit_s, training.warmup)])],
        )
    if not distributed.is_first():
        distributed.wait()
        return Checkpoint.open(folder)
    predictions = evaluate.predictions(model, encoded_validation, task)
    metrics = task.score(validation_rows.labels, predictions)
    derived: CheckpointFacts = {
        "model": encoder_name,
        "seed": training.seed,
        "training": TrainingRecord(
            kind="finetune",
            settings=settings.to_json(),
            stages=(result,),
            learning_rate=settings.learning_rate,
            limit=training.limit,
            regime=settings.regime,
            rows=len(fit_rows),
            held_out_rows=len(held_out),
            held_out_in_groups=settings.patience is not None,
            head=loaded.head,
            source=train_rows.recorded_source,
            # unknown if the model is a checkpoint, or was fine-tuned elsewhere: it may have seen other rows
            rows_digest=rows.rows_digest(every_row)
            if base is None and loaded.fresh and not left_out_seen
            else None,
            distillation=None if teacher is None else teacher.record(len(unlabelled)),
            processes=distributed.processes(),
            host=platform.processor() or platform.machine(),
        ),
        **rows.validation_facts(validation_rows, metrics, summary),
        "max_length": encoder.max_length,
        "data": rows_record,
    }
    if base is not None:
        derived["parent"] = base.digest
    derived["expenses"] = (
        None
        if expenses is None
        else united(
            expenses, () if base is None else base.expenses(), () if teacher is None else teacher.expenses()
        )
    )
    before = base.manifest.layer_reductions if base else ()
    derived["layer_reductions"] = before if dropped is None else (*before, dropped)
    if keep_predictions:
        derived["predictions"] = tuple(task.behavior.store(predictions))
    if sparsity:
        derived["sparsity"] = sparse.counted_again(sparsity, model)
    if facts is not None:
        derived.update(facts(model))
    checkpoint = checkpoints.save(
        model.cpu(),
        folder,
        tokenizer=tokenizer,
        task=task,
        overwrite=overwrite,
        **derived,
    )
    distributed.wait()
    return checkpoint


def chosen_pooling(requested: str, loaded: huggingface.Loaded) -> str:
    """Return what the task head reads, ``cls`` or ``mean``, for the setting ``head_pooling``."""
    if requested != "auto":
        return requested
    family = families.of(loaded.model)
    if family.embeds(loaded.model):
        return loaded.pooling or "mean"
    of_tokens = family.answers_spans(loaded.model) or family.tags_tokens(loaded.model)
    if not loaded.fresh or of_tokens:
        return structure(loaded.model).head_pooling
    return loaded.pooling or family.head_pooling(loaded.model)


def _name(task: Task, model: str, settings: FinetuneSettings) -> str:
    parts = [task.name, model, settings.regime]
    parts += [f"layers{settings.layers}"] if settings.layers else []
    parts += [settings.drop_layers] if settings.drop_layers not in (None, TOP) else []
    usual = settings.max_length in (None, task.behavior.max_length)
    parts += [] if usual else [f"seq{settings.max_length}"]
    return "-".join([*parts, f"s{settings.training.seed}"])


def freeze(model: PreTrainedModel, last_layers: int | None) -> None:
    """Freeze the encoder but for the last ``last_layers`` layers and its pooler; None: freeze nothing.

    Raises:
        UsageError: the model has fewer layers.
    """
    if last_layers is None:
        return
    family = families.of(model)
    layers = family.layers(model)
    if last_layers > len(layers):
        raise UsageError(f"regime last-{last_layers}: the model has {len(layers)} layers.", settings="regime")
    trained = [*layers[len(layers) - last_layers :]]
    if (path := family.encoder_pooler_path) is not None and _has(model, path):
        trained.append(model.get_submodule(path))
    family.encoder(model).requires_grad_(False)
    for module in trained:
        module.requires_grad_(True)


def _has(model: PreTrainedModel, path: str) -> bool:
    return path in dict(model.named_modules())


def checked_encoder(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    texts: Sequence[tuple[str, ...]],
    *,
    form: str,
) -> Encoder:
    """Return the encoder that the files of a checkpoint will give, compared with transformers on ``texts``.

    Args:
        name: of the model.
        model: a task model.
        tokenizer: of the model.
        max_length: tokens of a row at most.
        texts: rows.
        form: what rows are, one of :data:`effx.encoding.FORMS`.

    Raises:
        UsageError: the model does not read ``max_length`` tokens, or effx encodes a row otherwise.
    """
    checkpoints.check_length(model, max_length)
    with scratch.folder("tokenizer") as folder:
        tokenizer.save_pretrained(folder)
        model.config.save_pretrained(folder)
        encoder = Encoder(folder, max_length, form=form)
    huggingface.check_equal(name, tokenizer, encoder, texts, token_types=families.of(model).token_types)
    return encoder
