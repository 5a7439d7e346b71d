"""Distillation: a student learns what its teacher predicts, and how its hidden states change.

    L = a L_task + b T^2 KL(softmax(t / T) || softmax(s / T)) + c mean over layers and tokens of
                                                               ||h_s - h_t||^2 / mean ||h_t||^2

The second term is that of Hinton et al. 2015, section 2; tasks without classes have another distance, see
:data:`effx.models.losses.DISTANCES`. The third compares the output of every layer of the student (Jiao et al.
2020, "TinyBERT", equation 7; Xia et al. 2022, "CoFi", section 3.3). A student with fewer layers gives each
layer the input that it had in the teacher: the output of a layer is compared with that of the teacher's layer
before the student's next one, and the student's last with the teacher's last.

Where only predictions are compared, the teacher's are computed once and kept, unless a time limit may end the
training before it has seen all rows; otherwise the teacher runs beside the student in every step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from effx import data, files, progress
from effx.artifacts import Checkpoint
from effx.costs import PREDICTIONS, Expense, united
from effx.encoding import Encoded, Encoder
from effx.errors import UsageError
from effx.manifests import DistillationRecord
from effx.models import checkpoints, evaluate, families, load, structure
from effx.models.heads import head_type
from effx.models.losses import Loss, distance_of, loss_of
from effx.specs.data import DataSettings, DataSource
from effx.specs.distillation import DistillationSettings
from effx.specs.tasks import Task
from effx.structure import Structure
from effx.train import loop
from effx.train.trainer import Objective

TEACHER, _LABELLED = "teacher_logits", "labelled"
"""Entries of a batch that the model does not get."""
_LEAST_CORRELATION = 0.1
"""Of the token embeddings of one encoder after different trainings."""
_COMPARED_TOKENS = 8192


@dataclass(frozen=True)
class Distillation:
    """A teacher, and what a student learns from it."""

    teacher: str | Path
    """Folder of a checkpoint of the same task."""
    settings: DistillationSettings = DistillationSettings()
    unlabelled: str | Path | None = None
    """File of further texts, without labels, that the student is trained on too."""
    apart: frozenset[tuple[str, ...]] = frozenset()
    """Texts of rows that the student must not have seen: further texts that are equal are left out."""

    def of_predictions(self) -> Distillation:
        """Return the same without hidden states: of a model with several heads, predictions are compared."""
        return replace(self, settings=self.settings.replace(hidden_weight=0.0))


class HeadLoss:
    """The loss of one head of a model with several, by the labels and by a teacher's predictions."""

    def __init__(self, task: Task, settings: DistillationSettings | None = None) -> None:
        """Take the weights of the parts; without ``settings``, the labels alone count."""
        self._labels, self._distance, self._weights = loss_of(task), distance_of(task), settings

    def __call__(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        teacher_logits: torch.Tensor | None,
        attention_mask: torch.Tensor,
    ) -> torch.Tensor:
        """Return the loss, a scalar.

        Args:
            logits: of the head, [batch, outputs].
            labels: of the rows.
            teacher_logits: the teacher's, of the same shape; None: there is no teacher.
            attention_mask: of the inputs, [batch, length].
        """
        if teacher_logits is None or self._weights is None:
            return self._labels(logits, labels)
        weights, mask = self._weights, attention_mask.bool()
        total = weights.logit_weight * self._distance(
            logits.float(), teacher_logits, labels, mask, weights.temperature
        )
        if weights.label_weight:
            total = total + weights.label_weight * self._labels(logits, labels)
        return total


class Teacher:
    """The teacher of one training, and its predictions."""

    def __init__(self, distillation: Distillation, task: Task, student_model: str) -> None:
        """Open the teacher.

        Args:
            distillation: the teacher, and what is learned from it.
            task: of the student.
            student_model: name of the student's encoder, as manifests have it.

        Raises:
            UsageError: it was trained for other labels.
            ArtifactError: it is not a checkpoint, or it is damaged.
        """
        self.settings = distillation.settings
        self.checkpoint = Checkpoint.open(distillation.teacher)
        theirs = self.checkpoint.task
        if (theirs.kind, theirs.labels, theirs.outputs) != (task.kind, task.labels, task.outputs):
            raise UsageError(
                f"the teacher {self.checkpoint.name} predicts {_predicts(theirs)}, the task "
                f"{_predicts(task)}: use a checkpoint of this task.", settings="teacher",
            )  # fmt: skip
        self._task, self._student_model, self._distillation = task, student_model, distillation
        self._model = load(self.checkpoint)
        self._model.requires_grad_(False)
        self._logits: np.ndarray | None = None
        self._predictions: Expense | None = None
        self._pairs: list[tuple[int, int]] = []
        self._in_batches = False

    def prepare(
        self,
        student: PreTrainedModel,
        encoded: Encoded,
        texts: Sequence[tuple[str, ...]],
        *,
        in_batches: bool = False,
    ) -> None:
        """Decide what is compared, and compute the teacher's predictions if it does not run in every step.

        Args:
            student: the model that is trained.
            encoded: all rows, as the student reads them.
            texts: the same rows.
            in_batches: predict the rows of each batch when it is made, if the teacher can read it, instead of
                all rows now: for trainings that may see few of them.

        Raises:
            UsageError: the task has predictions for tokens, and the teacher's tokenizer is another one, or
                cuts rows at another length.
        """
        encoder = Encoder(self.checkpoint.folder, self.checkpoint.max_length, form=self._task.behavior.form)
        theirs = encoder(texts)
        same = np.array_equal(theirs.ids, encoded.ids) and np.array_equal(theirs.offsets, encoded.offsets)
        if head_type(self._task).per_token and not same:
            raise UsageError(
                f"the teacher {self.checkpoint.name} reads the rows as other tokens: for this kind of task, "
                "it needs the student's tokenizer and maximum length.", settings="teacher",
            )  # fmt: skip
        if self.settings.hidden_weight:
            reason = None if same else "it reads the rows as other tokens"
            pairs: list[tuple[int, int]] | None = None
            if reason is None:
                pairs, reason = self._matched(student)
            if pairs is not None:
                self._pairs = pairs
            elif "hidden_weight" in self.settings.model_fields_set or not self.settings.logit_weight:
                raise UsageError(
                    f"hidden_weight: the hidden states of the teacher {self.checkpoint.name} cannot be "
                    f"compared: {reason}. Set hidden_weight to 0.", settings="hidden_weight",
                )  # fmt: skip
            else:
                progress.say(f"teacher {self.checkpoint.name}: only predictions are compared, as {reason}")
        ours = families.of(student)
        if ours.embeds(student) and self._model.config.hidden_size != student.config.hidden_size:
            raise UsageError(
                f"the teacher {self.checkpoint.name} gives vectors of {self._model.config.hidden_size} "
                f"numbers, the student of {student.config.hidden_size}: use a teacher of the same width.",
                settings="teacher",
            )
        names = [{*checkpoints.input_names(each)} for each in (self._model, student)]
        self._in_batches = not self._pairs and in_batches and same and names[0] <= names[1]
        if self._in_batches:
            self._model.to(loop.device())
        elif not self._pairs:
            progress.say(f"teacher {self.checkpoint.name}: predict {len(texts)} rows")
            self._model.to(loop.device())
            with loop.running_meter() as meter:
                self._logits = evaluate.answers(self._model, theirs, self._task)
            self._predictions = Expense(
                kind=PREDICTIONS, checkpoint=self.checkpoint.digest, name=self.checkpoint.name,
                settings=files.json_digest({"texts": [list(row) for row in texts]}),
                cost=meter.cost(len(theirs)),
            )  # fmt: skip

    def expenses(self) -> tuple[Expense, ...]:
        """Return what had to be computed to learn from it: the teacher, and its predictions.

        Where hidden states are compared, or it predicts batch by batch, it runs within the training of the
        student, and is part of that.
        """
        own = () if self._predictions is None else (self._predictions,)
        return united(self.checkpoint.expenses(), own)

    def forget_model(self) -> None:
        """Free the teacher, whose predictions are known."""
        assert self._logits is not None
        del self._model

    def _matched(self, student: PreTrainedModel) -> tuple[list[tuple[int, int]] | None, str | None]:
        """Return the layers whose outputs are compared, or why there are none."""
        ours, theirs = families.of(student), families.of(self._model)
        if ours is not theirs or self.checkpoint.manifest.model != self._student_model:
            return None, f"it is of another encoder, {self.checkpoint.manifest.model}"
        widths = [family.head_size(model) * family.heads(model)
                  for family, model in ((ours, student), (theirs, self._model))]  # fmt: skip
        if widths[0] != widths[1]:
            return None, f"its width is {widths[1]}, not {widths[0]}"
        if not _is_new(student) and _correlation(student, self._model) < _LEAST_CORRELATION:
            return None, (
                f"it is of another encoder, which is named {self._student_model} too: their token embeddings "
                "have nothing in common"
            )
        pairs = matching(structure(student), structure(self._model))
        return pairs, None if pairs else "it has fewer layers than the student"

    def collated(self, collate: loop.Collate, encoded: Encoded, labelled: np.ndarray) -> loop.Collate:
        """Return a collate function that adds what the loss needs.

        Args:
            collate: of the items of a training.
            encoded: all rows.
            labelled: bool [rows]; whether a row has a label.
        """
        every = bool(labelled.all())
        per_token = head_type(self._task).per_token
        items_are_sequences = encoded.windows is not None or self._task.behavior.form == "candidates"

        def with_teacher(indices: list[int]) -> dict[str, Any]:
            batch = collate(indices)
            if not every:
                batch[_LABELLED] = torch.from_numpy(labelled[indices])
            if self._in_batches:
                batch[TEACHER] = self._predicted(batch)
            if self._logits is None:
                return batch
            rows = np.asarray(indices) if items_are_sequences else encoded.sequences(indices)
            if per_token:
                length = batch["input_ids"].shape[1]
                values = np.zeros((len(rows), length, self._logits.shape[1]), dtype=np.float32)
                for number, row in enumerate(rows):
                    part = self._logits[encoded.offsets[row] : encoded.offsets[row + 1]]
                    values[number, : len(part)] = part
            else:
                values = self._logits[rows]
            batch[TEACHER] = torch.from_numpy(values)
            return batch

        return with_teacher

    @torch.no_grad()
    def _predicted(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the logits of a batch, as its model gives them, on the CPU."""
        inputs = {name: batch[name].to(self._model.device) for name in checkpoints.input_names(self._model)}
        return head_type(self._task).logits(self._model(**inputs)).float().cpu()

    @contextmanager
    def objective(self, student: PreTrainedModel, precision: str) -> Iterator[Objective]:
        """Give the loss of a batch, for the time of a training.

        Args:
            student: the model that is trained.
            precision: of the teacher's matrix products, ``fp32`` or ``bf16``.
        """
        weights, head = self.settings, head_type(self._task)
        distance, task_loss = distance_of(self._task), loss_of(self._task)
        ours = _Outputs(student, [position for position, _ in self._pairs])
        theirs = _Outputs(self._model, [position for _, position in self._pairs])
        teacher = self._model.to(loop.device())

        def loss(model: nn.Module, batch: Mapping[str, Any]) -> torch.Tensor:
            inputs = dict(batch)
            logits: torch.Tensor | None = inputs.pop(TEACHER, None)
            labelled: torch.Tensor | None = inputs.pop(_LABELLED, None)
            labels = inputs.pop("labels") if labelled is not None else inputs.get("labels")
            out = model(**inputs)
            predicted = head.logits(out).float()
            if logits is None:
                features = {name: value for name, value in inputs.items() if name not in _LABELS}
                with (
                    torch.no_grad(),
                    torch.autocast(predicted.device.type, torch.bfloat16, enabled=precision == "bf16"),
                ):
                    logits = head.logits(teacher(**features)).float()
            total = predicted.new_zeros(())
            if weights.label_weight:
                total = total + weights.label_weight * _label_loss(
                    out, predicted, labels, labelled, task_loss
                )
            if weights.logit_weight:
                mask = inputs["attention_mask"].bool()
                total = total + weights.logit_weight * distance(
                    predicted, logits, labels, mask, weights.temperature
                )
            if self._pairs:
                hidden = _hidden_distance(ours.read(), theirs.read(), inputs["attention_mask"].bool())
                total = total + weights.hidden_weight * hidden
            return total

        with ours.watching(), theirs.watching():
            yield loss

    def record(self, unlabelled_rows: int) -> DistillationRecord:
        """Return what a manifest says about the teacher."""
        return DistillationRecord(
            teacher=self.checkpoint.name,
            teacher_digest=self.checkpoint.digest,
            settings=self.settings.to_json(),
            hidden_layers=len(self._pairs),
            unlabelled_rows=unlabelled_rows,
            unlabelled_left_out=_divided(self._distillation, self._task)[1],
        )


def further_texts(distillation: Distillation | None, task: Task) -> list[tuple[str, ...]]:
    """Return the texts that a student is trained on without labels, and say how many are left out.

    Raises:
        UsageError: the kind of the task has labels for parts of its rows.
        DataError: the file's columns are not those of the task.
    """
    if distillation is None or distillation.unlabelled is None:
        return []
    if task.behavior.form != "texts" or head_type(task).per_token:
        raise UsageError(
            f"unlabelled data: tasks of the kind {task.kind} need labels for every row.",
            settings="unlabelled_data",
        )
    texts, left_out = _divided(distillation, task)
    if left_out:
        progress.say(
            f"unlabelled data: {left_out} of {len(texts) + left_out} rows are left out: their texts are also "
            "those of rows that choose or prove"
        )
    return texts


def _divided(distillation: Distillation, task: Task) -> tuple[list[tuple[str, ...]], int]:
    """Return the texts of the file that the student may see, and how many it may not."""
    if distillation.unlabelled is None:
        return [], 0
    source = DataSource(str(distillation.unlabelled), DataSettings(unlabelled=True))
    every = data.load_to_measure(task, source).texts
    texts = [text for text in every if text not in distillation.apart]
    return texts, len(every) - len(texts)


def with_blanks(labels: np.ndarray, rows: int) -> np.ndarray:
    """Return labels followed by ``rows`` that stand for none: of rows that have no label."""
    if not rows:
        return labels
    return np.concatenate([labels, np.zeros((rows, *labels.shape[1:]), dtype=labels.dtype)])


_LABELS = ("labels", "start_positions", "end_positions")


def _predicts(task: Task) -> str:
    names = ", ".join(task.labels[:5]) + (", ..." if len(task.labels) > 5 else "")
    return f"{task.kind} ({names})" if names else task.kind


def _is_new(model: PreTrainedModel) -> bool:
    """Whether nothing has trained a model: its LayerNorms are as they begin. It learns any hidden states."""
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    return all(bool((norm.weight == 1).all()) for norm in norms)


def _correlation(a: PreTrainedModel, b: PreTrainedModel) -> float:
    """Return the correlation of the token embeddings of two models of the same family and width.

    Fine-tuning moves them little, so it is about 1 for two trainings of one encoder. Between encoders that
    were pretrained apart it is about 0 even with the same vocabulary, as each has axes of its own.
    """
    tables = [model.get_input_embeddings().weight.detach() for model in (a, b)]
    count = min(map(len, tables))
    rows = torch.linspace(0, count - 1, min(count, _COMPARED_TOKENS)).long()
    ours, theirs = (table[rows.to(table.device)].cpu().double() for table in tables)
    if ours.shape != theirs.shape:  # of ELECTRA, embeddings may be narrower than the layers
        return 0.0
    ours, theirs = ours - ours.mean(0), theirs - theirs.mean(0)
    return float((ours * theirs).sum() / (ours.norm() * theirs.norm()))


def matching(student: Structure, teacher: Structure) -> list[tuple[int, int]] | None:
    """Return which layers' outputs are compared: positions in the student and in the teacher.

    The output of a student's layer is compared with what its next layer reads in the teacher; that of the
    last one with the teacher's last.

    Args:
        student: a part of the encoder that the teacher is, or is a part of, too.
        teacher: the teacher.

    Returns:
        A pair for each layer of the student whose counterpart the teacher has; None: the teacher ends before
        the student.
    """
    if student.layers[-1].index > teacher.layers[-1].index:
        return None
    position_of = {layer.index: position for position, layer in enumerate(teacher.layers)}
    pairs = []
    for position, following in enumerate(student.layers[1:]):
        if (before := position_of.get(following.index - 1)) is not None:
            pairs.append((position, before))
    return [*pairs, (len(student.layers) - 1, len(teacher.layers) - 1)]


class _Outputs:
    """The outputs of some layers in the last forward pass of a model."""

    def __init__(self, model: PreTrainedModel, positions: Sequence[int]) -> None:
        self._layers = [families.of(model).layers(model)[position] for position in positions]
        self._seen: list[torch.Tensor | None] = [None] * len(positions)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep the outputs of every forward pass inside the ``with`` block until the next one."""
        handles = [
            layer.register_forward_hook(self._hook(number)) for number, layer in enumerate(self._layers)
        ]
        try:
            yield
        finally:
            self.read()
            for handle in handles:
                handle.remove()

    def read(self) -> list[torch.Tensor | None]:
        """Return the outputs, [batch, length, width] each, and forget them."""
        seen, self._seen = self._seen, [None] * len(self._seen)
        return seen

    def _hook(self, number: int) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            self._seen[number] = output[0] if isinstance(output, tuple) else output

        return hook


def _hidden_distance(
    ours: Sequence[torch.Tensor | None], theirs: Sequence[torch.Tensor | None], mask: torch.Tensor
) -> torch.Tensor:
    """Return the mean over layers of the squared distance of real tokens, relative to the teacher's square.

    Args:
        ours: [batch, length, width] of each layer.
        theirs: likewise.
        mask: bool [batch, length].
    """
    distances = []
    for student, teacher in zip(ours, theirs, strict=True):
        assert student is not None and teacher is not None
        wanted = teacher[mask].float()
        distances.append((student[mask].float() - wanted).square().mean() / wanted.square().mean())
    return torch.stack(distances).mean()


def _label_loss(
    out: Any,
    predicted: torch.Tensor,
    labels: torch.Tensor | None,
    labelled: torch.Tensor | None,
    task_loss: Loss,
) -> torch.Tensor:
    """Return the task's loss of the rows that have a label; 0 if there are none in the batch."""
    if labelled is None:
        loss: torch.Tensor = out.loss
        return loss.float()
    assert labels is not None
    if not bool(labelled.any()):
        return predicted.new_zeros(())
    return task_loss(predicted[labelled], labels[labelled])
