"""What a student learns from a teacher, against losses that are computed independently."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from effx import data
from effx.artifacts import Checkpoint
from effx.cli import run
from effx.costs import PREDICTIONS
from effx.encoding import Encoder
from effx.errors import UsageError
from effx.models import evaluate, load
from effx.models.checkpoints import input_names
from effx.models.losses import DISTANCES, IGNORED, LOSSES
from effx.recipe import load as load_recipe
from effx.recipe import plan
from effx.specs.data import DataSettings, DataSource
from effx.specs.distillation import DistillationSettings
from effx.specs.exits import EarlyExitSettings
from effx.specs.tokens import TokenPruningSettings
from effx.specs.training import FinetuneSettings, TrainingSettings
from effx.structure import Layer, Structure
from effx.train import exits, finetune, loop, rows, tokens
from effx.train.distillation import Distillation, HeadLoss, Teacher, matching
from effx.train.lottery.start import initialise
from tests import cache as caches
from tests.conftest import write_rows
from tests.models.huggingface.saved import classifier

WORDS = ("good", "bad", "film", "plot", "was", "the", "and", "weak", "fine", "actor")


def text(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(WORDS, rng.integers(2, 9)))


def span(rng: np.random.Generator, n: int) -> dict[str, object]:
    words = text(rng).split()
    start = len(" ".join(words[:1])) + 1
    return {"id": "1", "title": "t", "question": "which film", "context": " ".join(words),
            "answers": {"text": [words[1]], "answer_start": [start]}}  # fmt: skip


def tags(rng: np.random.Generator, n: int) -> dict[str, object]:
    words = text(rng).split()
    return {"tokens": words, "tags": ["B-X" if word == "film" else "O" for word in words]}


KINDS = {
    "classification": lambda rng, n: {"sentence": text(rng), "label": int(rng.integers(2))},
    "regression": lambda rng, n: {"sentence": text(rng), "label": float(np.round(rng.random(), 3))},
    "multi-label": lambda rng, n: {"text": text(rng), "labels": [x for x in "ab" if rng.random() < 0.5]},
    "token-classification": tags,
    "answer-span": span,
    "embedding": lambda rng, n: {"sentence1": text(rng), "sentence2": text(rng), "score": rng.random()},
    "ranking": lambda rng, n: {"query": f"film {n // 2}", "passage": f"{text(rng)} {n}", "label": 1 - n % 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def rows_of_kinds(cache: caches.Cache) -> Path:
    def build(folder: Path) -> None:
        for kind, row in KINDS.items():
            rng = np.random.default_rng(1)
            for split, n in (("train", 40), ("validation", 24)):
                write_rows(folder / kind / f"{split}.jsonl", [row(rng, i) for i in range(n)])

    return cache.folder("distilled-kinds", build)


def source_of(folder: Path, kind: str) -> DataSource:
    return DataSource(str(folder / kind), DataSettings.of(task_kind=kind))


@pytest.fixture(scope="module")
def teachers(cache: caches.Cache, encoders: dict[str, Path], rows_of_kinds: Path) -> dict[str, Checkpoint]:
    def build(folder: Path) -> None:
        for kind in KINDS:
            settings = FinetuneSettings.of(max_steps=3, max_length=24, lr=1e-3, batch_size=8)
            finetune(
                "things", encoders["bert"], out=folder, name=kind, settings=settings,
                data_folder=source_of(rows_of_kinds, kind),
            )  # fmt: skip

    folder = cache.folder("distilled-teachers", build)
    return {kind: Checkpoint.open(folder / kind) for kind in KINDS}


class Batches:
    """Batches of a kind's rows with what its teacher predicts."""

    def __init__(
        self, checkpoint: Checkpoint, source: DataSource, student: Checkpoint, settings: DistillationSettings,
        *, in_batches: bool = False,
    ) -> None:  # fmt: skip
        self.model = load(student)
        rows = data.load(checkpoint.task, "train", source)
        task = student.task
        self.encoded = Encoder(student.folder, student.max_length, form=task.behavior.form)(rows.texts)
        self.teacher = Teacher(Distillation(checkpoint.folder, settings), task, student.manifest.model)
        self.teacher.prepare(self.model, self.encoded, rows.texts, in_batches=in_batches)
        collate = loop.labelled(self.encoded, rows.labels, input_names(self.model))
        labelled = np.ones(self.encoded.row_count, dtype=bool)
        self.collate = self.teacher.collated(collate, self.encoded, labelled)
        self.items, _ = loop.items(self.encoded, rows.labels, np.arange(self.encoded.row_count))

    def losses(self, order: np.ndarray | None = None) -> list[float]:
        items = self.items if order is None else self.items[order]
        found = []
        with self.teacher.objective(self.model, "fp32") as loss, torch.no_grad():
            for start in range(0, len(items), 6):
                batch = self.collate([int(item) for item in items[start : start + 6]])
                found.append(float(loss(self.model, batch)))
        return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hidden", [0.0, 1.0], ids=["predictions", "hidden"])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(
    kind: str, hidden: float, teachers: dict[str, Checkpoint], rows_of_kinds: Path
) -> None:
    """Rows in any order, of any kind: a teacher's prediction of another row would give a loss."""
    settings = DistillationSettings(label_weight=0.0, hidden_weight=hidden)
    batches = Batches(teachers[kind], source_of(rows_of_kinds, kind), teachers[kind], settings)
    order = np.random.default_rng(0).permutation(len(batches.items))
    assert max(batches.losses(order)) < 1e-6
    with torch.no_grad():
        for parameter in batches.model.parameters():
            parameter.mul_(1.1)
    assert min(batches.losses(order)) > 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_batch_by_batch_are_those_of_all_rows(
    kind: str, teachers: dict[str, Checkpoint], rows_of_kinds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = DistillationSettings(label_weight=0.0, hidden_weight=0.0)
    every, by_batch = (
        Batches(teachers[kind], source_of(rows_of_kinds, kind), teachers[kind], settings, in_batches=each)
        for each in (False, True)
    )
    with torch.no_grad():
        for batches in (every, by_batch):
            for parameter in batches.model.parameters():
                parameter.mul_(1.1)
    order = np.random.default_rng(0).permutation(len(every.items))
    assert by_batch.losses(order) == pytest.approx(every.losses(order), rel=1e-4, abs=1e-6)
    kinds = [{each.kind for each in batches.teacher.expenses()} for batches in (every, by_batch)]
    assert PREDICTIONS in kinds[0] and PREDICTIONS not in kinds[1]


def test_a_teacher_with_other_inputs_predicts_before(
    teachers: dict[str, Checkpoint], encoders: dict[str, Path], rows_of_kinds: Path, tmp_path: Path
) -> None:
    """BERT reads token types, of which the batches of DistilBERT have none."""
    source = source_of(rows_of_kinds, "classification")
    student = finetune("things", encoders["distilbert"], out=tmp_path, name="s", data_folder=source,
                       settings=FinetuneSettings.of(max_steps=1, max_length=24))  # fmt: skip
    settings = DistillationSettings(hidden_weight=0.0)
    batches = Batches(teachers["classification"], source, student, settings, in_batches=True)
    assert PREDICTIONS in {each.kind for each in batches.teacher.expenses()}
    assert all(np.isfinite(batches.losses()))


def test_every_loss_has_a_distance() -> None:
    assert DISTANCES.keys() == LOSSES.keys()


def kl(student: np.ndarray, teacher: np.ndarray, t: float) -> float:
    """T^2 KL of the last axis, a mean over all others."""
    divergence = rel_entr(softmax(teacher / t, axis=-1), softmax(student / t, axis=-1)).sum(-1)
    return float(t**2 * divergence.mean())


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_distances_equal_independent_ones(temperature: float) -> None:
    rng = np.random.default_rng(2)
    student, teacher = rng.normal(size=(2, 5, 7, 2)).astype(np.float32) * 3
    mask = np.arange(7) < np.array([7, 3, 1, 5, 6])[:, None]

    def found(loss: str, ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray | None = None) -> float:
        wanted = None if labels is None else torch.from_numpy(labels)
        arrays = torch.from_numpy(ours), torch.from_numpy(theirs), wanted, torch.from_numpy(mask)
        return float(DISTANCES[loss](*arrays, temperature))

    rows = student[:, 0], teacher[:, 0]
    assert found("cross-entropy", *rows) == pytest.approx(kl(*rows, temperature), rel=1e-5)
    labels = np.where(rng.random((5, 7)) < 0.5, IGNORED, 1)
    tokens = student[labels != IGNORED], teacher[labels != IGNORED]
    words = found("token-cross-entropy", student, teacher, labels)
    assert words == pytest.approx(kl(*tokens, temperature), rel=1e-5)
    per_row = [
        kl(student[row, :length, end], teacher[row, :length, end], temperature)
        for row, length in enumerate(mask.sum(1))
        for end in range(2)
    ]
    assert found("span-cross-entropy", student, teacher) == pytest.approx(np.mean(per_row), rel=1e-5)
    p, q = (1 / (1 + np.exp(-z / temperature)) for z in rows)
    bernoulli = rel_entr(q, p) + rel_entr(1 - q, 1 - p)
    assert found("binary-cross-entropy", *rows) == pytest.approx(
        temperature**2 * bernoulli.mean(), rel=1e-4
    )  # fmt: skip
    squared = float(((rows[0] - rows[1]) ** 2).mean())
    assert found("mean-squared-error", *rows) == pytest.approx(squared, rel=1e-5)
    cosines = (rows[0] * rows[1]).sum(1) / np.linalg.norm(rows[0], axis=1) / np.linalg.norm(rows[1], axis=1)
    assert found("cosine-order", *rows) == pytest.approx(1 - cosines.mean(), rel=1e-5)


def test_the_loss_is_the_weighted_sum_of_its_parts(
    teachers: dict[str, Checkpoint], rows_of_kinds: Path, encoders: dict[str, Path], tmp_path: Path
) -> None:
    """With a student of two of the teacher's three layers; hidden states are those of transformers."""
    source = source_of(rows_of_kinds, "classification")
    student = finetune(
        "things", encoders["bert"], out=tmp_path, data_folder=source,
        settings=FinetuneSettings.of(layers=2, max_steps=1, max_length=24),
    )  # fmt: skip
    weights = DistillationSettings(temperature=3.0, label_weight=0.7, logit_weight=0.4, hidden_weight=0.2)
    batches = Batches(teachers["classification"], source, student, weights)
    batch = batches.collate([3, 1, 4, 1, 5])
    with batches.teacher.objective(batches.model, "fp32") as loss, torch.no_grad():
        found = float(loss(batches.model, dict(batch)))
        ours = batches.model(**batch, output_hidden_states=True)
        theirs = load(teachers["classification"])(**batch, output_hidden_states=True)
    mask = batch["attention_mask"].bool()
    # layer 1 feeds layer 2 in both; layer 2 is the student's last, layer 3 the teacher's
    hidden = [
        float(
            (ours.hidden_states[a][mask] - theirs.hidden_states[b][mask]).square().mean()
            / theirs.hidden_states[b][mask].square().mean()
        )
        for a, b in ((1, 1), (2, 3))
    ]
    expected = 0.7 * float(ours.loss) + 0.2 * np.mean(hidden)
    expected += 0.4 * kl(ours.logits.numpy(), theirs.logits.numpy(), 3.0)
    assert found == pytest.approx(expected, rel=1e-5)


def layers(*indices: int) -> Structure:
    return Structure(tuple(Layer(index, (0,), 4) for index in indices))


def test_layers_are_matched_by_what_follows_them() -> None:
    whole = layers(0, 1, 2, 3, 4, 5)
    assert matching(whole, whole) == [(n, n) for n in range(6)]
    assert matching(layers(0, 1, 2), whole) == [(0, 0), (1, 1), (2, 5)]
    assert matching(layers(0, 2, 5), whole) == [(0, 1), (1, 4), (2, 5)]
    assert matching(layers(1, 3), layers(0, 1, 4)) == [(1, 2)]  # the teacher has no layer 2
    assert matching(whole, layers(0, 1, 2)) is None


def agreement(first: Checkpoint, second: Checkpoint, texts: list[tuple[str, ...]]) -> float:
    predicted = [
        evaluate.predictions(load(one), Encoder(one.folder, one.max_length)(texts), one.task)
        for one in (first, second)
    ]
    return float(np.mean(predicted[0] == predicted[1]))


@pytest.fixture(scope="module")
def wrong_rows(cache: caches.Cache, rows_folder: Path) -> Path:
    """The rows of ``rows_folder`` with the other label each; the validation rows are right."""

    def build(folder: Path) -> None:
        for split in ("train", "validation"):
            lines = (rows_folder / f"{split}.jsonl").read_text().splitlines()
            rows = [json.loads(line) for line in lines]
            if split == "train":
                rows = [{**row, "label": 1 - row["label"]} for row in rows]
            write_rows(folder / f"{split}.jsonl", rows)

    return cache.folder("wrong-rows", build)


@pytest.fixture(scope="module")
def trained(cache: caches.Cache, encoders: dict[str, Path], rows_folder: Path) -> Checkpoint:
    """A teacher that has learned the task."""

    def build(folder: Path) -> None:
        settings = FinetuneSettings.of(epochs=8, max_length=32, lr=2e-3, batch_size=16)
        finetune("sst2", encoders["bert"], out=folder, name="t", data_folder=rows_folder, settings=settings)

    return Checkpoint.open(cache.folder("distilled-teacher", build) / "t")


def test_a_student_learns_from_its_teacher_and_not_from_wrong_labels(
    trained: Checkpoint, encoders: dict[str, Path], wrong_rows: Path, rows_folder: Path, tmp_path: Path
) -> None:
    rows = data.load(trained.task, "validation", rows_folder)

    def student(name: str, **weights: float) -> Checkpoint:
        return finetune(
            "sst2", encoders["bert"], out=tmp_path, name=name, data_folder=wrong_rows,
            settings=FinetuneSettings.of(epochs=8, max_length=32, lr=2e-3, batch_size=16, layers=2),
            distillation=Distillation(trained.folder, DistillationSettings(**weights)),
        )  # fmt: skip

    from_teacher = student("teacher", label_weight=0.0, logit_weight=1.0, hidden_weight=0.0)
    from_labels = student("labels", label_weight=1.0, logit_weight=1e-9, hidden_weight=0.0)
    assert agreement(from_teacher, trained, rows.texts) > 0.8
    assert agreement(from_labels, trained, rows.texts) < 0.4
    record = from_teacher.manifest.training.distillation
    assert record is not None
    assert (record.teacher, record.teacher_digest) == ("t", trained.digest)
    assert (record.hidden_layers, record.unlabelled_rows) == (0, 0)
    assert record.settings["label_weight"] == 0.0


def test_the_loss_of_a_head_is_that_of_labels_and_teacher(trained: Checkpoint) -> None:
    rng = np.random.default_rng(0)
    logits, teacher = (torch.tensor(rng.normal(size=(6, 2)), dtype=torch.float32) for _ in range(2))
    labels, mask = torch.tensor([0, 1, 1, 0, 1, 0]), torch.ones(6, 4)
    settings = DistillationSettings(temperature=3.0, label_weight=0.3, logit_weight=0.7)
    of_labels = float(torch.nn.functional.cross_entropy(logits, labels))
    before, after = (softmax(values.numpy().astype(float) / 3.0, axis=1) for values in (teacher, logits))
    of_teacher = 9.0 * float(rel_entr(before, after).sum(axis=1).mean())
    loss = HeadLoss(trained.task, settings)
    assert float(loss(logits, labels, teacher, mask)) == pytest.approx(
        0.3 * of_labels + 0.7 * of_teacher, rel=1e-5
    )
    assert float(loss(logits, labels, None, mask)) == pytest.approx(of_labels, rel=1e-6)
    alone = HeadLoss(trained.task, settings.replace(label_weight=0.0))
    assert float(alone(logits, labels, teacher, mask)) == pytest.approx(0.7 * of_teacher, rel=1e-5)


def test_exits_learn_from_a_teacher_and_not_from_wrong_labels(
    trained: Checkpoint, wrong_rows: Path, rows_folder: Path, tmp_path: Path
) -> None:
    """The teacher is the model that the ramps are added to: they learn what its last head says."""
    rows = data.load(trained.task, "validation", rows_folder)
    settings = EarlyExitSettings.of(epochs=12, depth=2.0, lr=1e-2, batch_size=16)

    def ramp(name: str, distillation: Distillation | None) -> float:
        made = exits.train(
            trained.folder, out=tmp_path, name=name, data_folder=wrong_rows, settings=settings,
            distillation=distillation,
        )  # fmt: skip
        logits = evaluate.head_logits(load(made), Encoder(made.folder, made.max_length)(rows.texts))
        assert (made.manifest.training.distillation is None) == (distillation is None)
        return float(np.mean(logits[1].argmax(1) == logits[-1].argmax(1)))

    taught = Distillation(trained.folder, DistillationSettings(label_weight=0.0))
    assert ramp("taught", taught) > 0.8
    assert ramp("alone", None) < 0.4


def test_tokens_are_pruned_with_a_teacher(
    trained: Checkpoint, wrong_rows: Path, rows_folder: Path, tmp_path: Path
) -> None:
    rows = data.load(trained.task, "validation", rows_folder)
    settings = TokenPruningSettings.of(schedule=(0.9, 0.8, 0.7), epochs=8, lr=2e-3, batch_size=16)

    def pruned(name: str, distillation: Distillation | None) -> Checkpoint:
        return tokens.train(
            trained.folder, out=tmp_path, name=name, data_folder=wrong_rows, settings=settings,
            distillation=distillation,
        )  # fmt: skip

    taught = pruned("taught", Distillation(trained.folder, DistillationSettings(label_weight=0.0)))
    assert agreement(taught, trained, rows.texts) > 0.8
    assert agreement(pruned("alone", None), trained, rows.texts) < 0.7
    record = taught.manifest.training.distillation
    assert record is not None
    assert (record.teacher_digest, record.settings["hidden_weight"]) == (trained.digest, 0.0)


def test_rows_without_labels_are_learned_from_the_teacher_alone(
    trained: Checkpoint, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """Two labelled rows, and many that only the teacher has a prediction for."""
    lines = (rows_folder / "train.jsonl").read_text().splitlines()
    texts = [json.loads(line)["sentence"] for line in lines]
    few = tmp_path / "few"
    write_rows(few / "train.jsonl", [json.loads(line) for line in lines[:8]])
    (few / "validation.jsonl").write_text((rows_folder / "validation.jsonl").read_text())
    more = tmp_path / "more.jsonl"
    write_rows(more, [{"sentence": text} for text in texts[8:]])

    def student(name: str, unlabelled: Path | None) -> Checkpoint:
        return finetune(
            "sst2", encoders["bert"], out=tmp_path, name=name, data_folder=few,
            settings=FinetuneSettings.of(max_steps=150, max_length=32, lr=2e-3, batch_size=16),
            distillation=Distillation(trained.folder, DistillationSettings(), unlabelled),
        )  # fmt: skip

    rows = data.load(trained.task, "validation", rows_folder)
    distilled = student("with-more", more)
    assert agreement(distilled, trained, rows.texts) > 0.8
    assert agreement(distilled, trained, rows.texts) > agreement(
        student("without", None), trained, rows.texts
    )
    training = distilled.manifest.training
    assert training.distillation is not None
    assert (training.rows, training.distillation.unlabelled_rows) == (8, 152)
    assert training.distillation.hidden_layers == 3


def test_validation_rows_among_further_texts_are_not_learned(
    trained: Checkpoint, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The whole corpus as further texts: the student is scored on rows whose answers it was not taught."""
    scored = data.load(trained.task, "validation", rows_folder).texts
    corpus = tmp_path / "corpus.jsonl"
    write_rows(corpus, [{"sentence": text} for (text,) in [*scored, ("a new text",), ("another one",)]])
    student = finetune(
        "sst2", encoders["bert"], out=tmp_path, name="student", data_folder=rows_folder,
        settings=FinetuneSettings.of(max_steps=1, max_length=32),
        distillation=Distillation(trained.folder, DistillationSettings(), corpus),
    )  # fmt: skip
    record = student.manifest.training.distillation
    assert record is not None
    assert (record.unlabelled_rows, record.unlabelled_left_out) == (2, len(scored))
    assert f"{len(scored)} of {len(scored) + 2} rows are left out" in capsys.readouterr().err


@pytest.mark.parametrize("left_out_too", [True, False])
def test_left_out_rows_that_were_learned_without_labels_are_not_called_unseen(
    left_out_too: bool, trained: Checkpoint, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """160 texts, of which 60 are drawn and 6 of these stop the training."""
    texts = data.load(trained.task, "train", rows_folder).texts
    further = tmp_path / "further.jsonl"
    known = texts if left_out_too else []
    write_rows(further, [{"sentence": text} for (text,) in [*known, ("a new text",)]])
    student = finetune(
        "sst2", encoders["bert"], out=tmp_path, name="student", data_folder=rows_folder,
        settings=FinetuneSettings.of(max_steps=1, max_length=32, limit=120, share=0.5, patience=1),
        distillation=Distillation(trained.folder, DistillationSettings(), further),
    )  # fmt: skip
    training = student.manifest.training
    assert training.distillation is not None
    assert (len({*texts}), training.rows, training.held_out_rows) == (160, 54, 6)
    assert training.distillation.unlabelled_rows == (154 if left_out_too else 0) + 1
    assert training.distillation.unlabelled_left_out == (6 if left_out_too else 0)
    assert (training.rows_digest is None) == left_out_too
    every = data.load(trained.task, "train", rows_folder)
    *_, seen = rows.split(every, training, TrainingSettings.of(limit=120))
    assert (seen is None) == left_out_too


def test_a_student_that_continues_from_its_teacher(
    trained: Checkpoint, rows_folder: Path, tmp_path: Path
) -> None:
    """Twice, as in gradual pruning: the student of the second time is still of its teacher's encoder."""
    model, before = trained.folder, trained
    for name in ("first", "second"):
        student = finetune(
            "sst2", model, out=tmp_path, name=name, data_folder=rows_folder,
            settings=FinetuneSettings.of(max_steps=2, max_length=32, layers=2),
            distillation=Distillation(trained.folder),
        )  # fmt: skip
        record = student.manifest.training.distillation
        assert record is not None and record.hidden_layers == 2
        assert (student.manifest.model, student.manifest.parent) == ("bert", before.digest)
        model, before = student.folder, student


def test_a_teacher_of_another_encoder_teaches_predictions(
    trained: Checkpoint, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def student(name: str, settings: DistillationSettings) -> Checkpoint:
        return finetune(
            "sst2", encoders["distilbert"], out=tmp_path, name=name, data_folder=rows_folder,
            settings=FinetuneSettings.of(max_steps=2, max_length=32),
            distillation=Distillation(trained.folder, settings),
        )  # fmt: skip

    record = student("a", DistillationSettings()).manifest.training.distillation
    assert record is not None and record.hidden_layers == 0
    assert "only predictions are compared, as it is of another encoder, bert" in capsys.readouterr().err
    with pytest.raises(UsageError, match="hidden_weight: the hidden states of the teacher t cannot be"):
        student("b", DistillationSettings(hidden_weight=0.5))
    assert not (tmp_path / "b").exists()


def test_encoders_of_folders_with_one_name_are_told_apart(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both are in folders named model, with the same tokenizer and sizes, but pretrained apart."""
    for number, parent in enumerate(("a", "b")):
        classifier(encoders["bert"], tmp_path / parent / "model", ("negative", "positive"), seed=number)

    def trained_from(parent: str, name: str, teacher: Distillation | None, **values: Any) -> Checkpoint:
        return finetune(
            "sst2", tmp_path / parent / "model", out=tmp_path, name=name, data_folder=rows_folder,
            settings=FinetuneSettings.of(**{"max_steps": 2, "max_length": 32, **values}),
            distillation=teacher,
        )  # fmt: skip

    teacher = trained_from("a", "teacher", None, max_steps=60, lr=2e-3, batch_size=16)
    layers = {}
    for parent in ("a", "b"):
        capsys.readouterr()
        student = trained_from(parent, f"student-{parent}", Distillation(teacher.folder))
        assert student.manifest.model == teacher.manifest.model == "model"
        record = student.manifest.training.distillation
        assert record is not None
        layers[parent] = record.hidden_layers
    assert layers == {"a": 3, "b": 0}
    assert (
        "teacher teacher: only predictions are compared, as it is of another encoder, which is named model "
        "too: their token embeddings have nothing in common"
    ) in capsys.readouterr().err
    with pytest.raises(
        UsageError, match=r"cannot be compared: it is of another encoder, .* Set hidden_weigh"
    ):
        trained_from("b", "c", Distillation(teacher.folder, DistillationSettings(hidden_weight=0.5)))


def test_a_student_with_fresh_weights_learns_hidden_states(
    trained: Checkpoint, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """As tickets with other initial weights do: nothing says that the weights are of another encoder."""
    student = finetune(
        "sst2", encoders["bert"], out=tmp_path, name="fresh", data_folder=rows_folder,
        settings=FinetuneSettings.of(max_steps=2, max_length=32),
        distillation=Distillation(trained.folder), reduce=lambda model: initialise(model, 7),
    )  # fmt: skip
    record = student.manifest.training.distillation
    assert record is not None and record.hidden_layers == 3


WRONG: Mapping[str, tuple[dict[str, Any], str]] = {
    "labels": ({"teacher": "multi-label"}, "the teacher multi-label predicts multi-label"),
    "unlabelled": ({"kind": "token-classification", "unlabelled": "x.csv"}, "need labels for every row"),
    "tokens": (
        {"kind": "token-classification", "max_length": 6}, "reads the rows as other tokens",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_teachers_that_do_not_fit_are_refused(
    case: str, teachers: dict[str, Checkpoint], encoders: dict[str, Path], rows_of_kinds: Path, tmp_path: Path
) -> None:
    values, message = WRONG[case]
    kind = values.get("kind", "classification")
    teacher = teachers[values.get("teacher", kind)].folder
    with pytest.raises(UsageError, match=message):
        finetune(
            "things", encoders["bert"], out=tmp_path / "out", data_folder=source_of(rows_of_kinds, kind),
            settings=FinetuneSettings.of(max_steps=1, max_length=values.get("max_length", 24)),
            distillation=Distillation(teacher, unlabelled=values.get("unlabelled")),
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_nothing_to_learn_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing is learned from the teacher"):
        DistillationSettings(logit_weight=0.0, hidden_weight=0.0)


def test_a_recipe_trains_students(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer layers, and a ticket, of teachers that the recipe trains before."""
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(
        f"tasks: {{sst2: {{data: {rows_folder}}}}}\nmodels: {{tiny: {encoders['bert']}}}\n"
        "training: {max_steps: 2}\n"
        "regimes: {full: {max_length: 32}, small: {max_length: 32, layers: 2, teacher: full}}\n"
        "pruned: {t50: {of: full, level: 50, teacher: full, temperature: 4, hidden_weight: 0}}\n"
        "variants: []\n"
    )
    assert run(["run", "r.yaml", "-o", "w"]) == 0
    teacher, small, ticket = (
        Checkpoint.open(tmp_path / "w/checkpoints" / f"sst2-tiny-{name}-s0")
        for name in ("full", "small", "full-t50")
    )
    assert teacher.manifest.training.distillation is None
    for student, layers, temperature in ((small, 2, 2.0), (ticket, 0, 4.0)):
        record = student.manifest.training.distillation
        assert record is not None and record.teacher_digest == teacher.digest
        assert (record.hidden_layers, record.settings["temperature"]) == (layers, temperature)
    assert ticket.manifest.ticket is not None and ticket.manifest.parent == teacher.digest


def test_a_recipe_gives_exits_and_tokens_a_teacher(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(
        f"tasks: {{sst2: {{data: {rows_folder}}}}}\nmodels: {{tiny: {encoders['bert']}}}\n"
        "regimes: {full: {}, small: {layers: 2}}\n"
        "tokens: {tok: {of: small, schedule: [0.9, 0.8], teacher: full, logit_weight: 2}}\n"
        "exits: {ex: {of: small, depth: 1.5, teacher: full}}\n"
        "variants: [{variant: tokens, of: tok}, {variant: exit, of: ex}]\n"
    )
    entries = plan(load_recipe(Path("r.yaml")), "host").entries
    for name, weight in (("tokens sst2-tiny-small-tok-s0", 2.0), ("exits sst2-tiny-small-ex-s0", 1.0)):
        cell = entries[name].cell
        assert cell.sources == ("finetune sst2-tiny-small-s0", "finetune sst2-tiny-full-s0")
        values = cell.settings.flat()
        assert (values["teacher"], values["logit_weight"]) == ("sst2-tiny-full-s0", weight)
    text = Path("r.yaml").read_text().replace("logit_weight: 2", "hidden_weight: 2")
    Path("r.yaml").write_text(text)
    with pytest.raises(UsageError, match="hidden_weight: unknown key"):
        load_recipe(Path("r.yaml"))


def test_sweeps_have_a_teacher(
    trained: Checkpoint, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Every round of a lottery ticket, and every model of a search for tickets."""
    common = ["sst2", "--model", str(encoders["bert"]), "--data", str(rows_folder), "--max-steps", "2",
              "--max-length", "32", "--teacher", str(trained.folder), "--temperature", "3"]  # fmt: skip
    lottery, search = tmp_path / "lottery", tmp_path / "search"
    assert run(["train", "lottery", *common, "--sparsity", "10", "-o", str(lottery)]) == 0
    assert run(["train", "tickets", *common, "--levels", "50", "--kinds", "winning", "--seeds", "1",
                "--keep", "all", "-o", str(search)]) == 0  # fmt: skip
    found = {
        path.name: Checkpoint.open(path).manifest.training.distillation
        for folder in (lottery, search)
        for path in (folder / "checkpoints").iterdir()
    }
    assert len(found) == 4
    for record in found.values():
        assert record is not None
        assert (record.teacher_digest, record.settings["temperature"]) == (trained.digest, 3.0)
        assert record.hidden_layers == 3
    capsys.readouterr()
    assert run(["train", "lottery", "sst2", "--model", str(encoders["bert"]), "--temperature", "3"]) == 2
    assert "has no effect without a teacher" in capsys.readouterr().err


def test_command(
    trained: Checkpoint, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    start = ["train", "finetune", "sst2", "--model", str(encoders["bert"]), "--data", str(rows_folder), "-o",
             str(tmp_path), "--max-steps", "2", "--max-length", "32", "--name", "s"]  # fmt: skip
    assert run([*start, "--temperature", "3"]) == 2
    assert (
        "has no effect without a teacher: add teacher (options --temperature, --teacher)"
        in capsys.readouterr().err
    )
    assert run([*start, "--teacher", str(tmp_path / "none")]) in (2, 3)
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "s").exists()
    assert run([*start, "--teacher", str(trained.folder), "--temperature", "3"]) == 0
    record = Checkpoint.open(tmp_path / "s").manifest.training.distillation
    assert record is not None
    assert (record.hidden_layers, record.settings["temperature"]) == (3, 3.0)
