"""Multi-task training as the command does it: rows, tickets, checkpoints, and training that was stopped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from effx import data, models
from effx.artifacts import Checkpoint
from effx.cli import run as run_command
from effx.encoding import Encoder
from effx.errors import UsageError
from effx.export import shared_encoder
from effx.models import checkpoints, evaluate, sparse
from effx.specs.distillation import DistillationSettings
from effx.specs.multitask import MultitaskSettings
from effx.specs.training import FinetuneSettings, TrainingSettings
from effx.train import finetune, loop
from effx.train import rows as training_rows
from effx.train.distillation import Distillation
from effx.train.multitask import batches, multitask, run
from effx.train.multitask.sharing import SharedModel
from tests import cache as caches
from tests.conftest import write_rows
from tests.models.huggingface.saved import change_config

SETTINGS = MultitaskSettings.of(epochs=2, max_length=16, lr=4e-3, batch_size=16, optimizer="adamax")
TASKS = ["sst2", "grades"]
REMOVED = {
    "sst2": {"heads": {0: [3], 1: [0, 1, 2, 3]}, "ffns": [2]},
    "grades": {"heads": {0: [0, 3]}, "ffns": [2, 0]},
}


@pytest.fixture(scope="session")
def data_folders(cache: caches.Cache) -> dict[str, Path]:
    """Rows of two tasks: classes, and numbers."""

    def build(folder: Path) -> None:
        rng = np.random.default_rng(0)
        fillers = ["the", "film", "plot", "acting", "story", "music", "scene", "and"]
        for split, n in (("train", 70), ("validation", 40)):
            good = rng.random(n) < 0.6
            words = [["good"] * 3 if label else ["awful"] * 3 for label in good]
            texts = [" ".join(rng.permutation([*rng.choice(fillers, 4), *row])) for row in words]
            grades: list[dict[str, object]] = [
                {"sentence": text, "label": 1.5 + label} for text, label in zip(texts, good, strict=True)
            ]
            classes: list[dict[str, object]] = [
                {"sentence": text, "label": int(label)} for text, label in zip(texts[:50], good, strict=False)
            ]
            write_rows(folder / "grades" / f"{split}.jsonl", grades)
            write_rows(folder / "sst2" / f"{split}.jsonl", classes)

    folder = cache.folder("two-tasks", build)
    return {task: folder / task for task in TASKS}


@pytest.fixture(scope="session")
def tickets(cache: caches.Cache, encoders: dict[str, Path], data_folders: dict[str, Path]) -> dict[str, Path]:
    """A checkpoint of each task with some heads and FFNs removed."""

    def build(folder: Path) -> None:
        for task, removed in REMOVED.items():
            settings = FinetuneSettings.of(max_steps=1, max_length=16, lr=4e-3, optimizer="adamax")
            finetune(
                task, encoders["bert"], out=folder, name=task, settings=settings,
                data_folder=data_folders[task],
                reduce=lambda model, removed=removed: models.prune(model, **removed),
            )  # fmt: skip

    folder = cache.folder("task-tickets", build)
    return {task: folder / task for task in TASKS}


def train(
    encoders: dict[str, Path], data_folders: dict[str, Path], out: Path,
    settings: MultitaskSettings = SETTINGS, **options: Any,
) -> list[Checkpoint]:  # fmt: skip
    return multitask(
        TASKS, encoders["bert"], out=out, name="both", data_folders=data_folders, settings=settings,
        **options,
    )  # fmt: skip


def weights(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.folder / "model.safetensors")


@pytest.fixture(scope="session")
def plain(cache: caches.Cache, encoders: dict[str, Path], data_folders: dict[str, Path]) -> list[Checkpoint]:
    folder = cache.folder("multitask", lambda folder: train(encoders, data_folders, folder))
    return [Checkpoint.open(folder / f"both-{task}") for task in TASKS]


def test_tasks_share_their_encoder_and_are_scored_by_their_heads(
    plain: list[Checkpoint], data_folders: dict[str, Path]
) -> None:
    first, second = map(weights, plain)
    shared = [name for name in first if name.startswith("bert.")]
    assert len(shared) > 40
    assert all(torch.equal(first[name], second[name]) for name in shared)
    assert [tuple(part["classifier.weight"].shape) for part in (first, second)] == [(2, 32), (1, 32)]
    for checkpoint in plain:
        rows = data.load(checkpoint.task, "validation", data_folders[checkpoint.task.name])
        encoded = Encoder(checkpoint.folder, 16)(rows.texts)
        logits = evaluate.logits(models.load(checkpoint.folder), encoded)
        assert (
            checkpoint.task.score(rows.labels, checkpoint.task.predict(logits)) == checkpoint.manifest.metrics
        )
        record = checkpoint.manifest.shared
        assert record is not None and record.tasks == ("sst2", "grades") and not record.tickets
        assert checkpoint.manifest.training.steps == 2 * (4 + 5)  # 50 and 70 rows in batches of 16
    means = [np.mean(list(checkpoint.manifest.metrics.values())) for checkpoint in plain]
    assert record.average == pytest.approx(np.mean(means))


def test_both_tasks_are_learned(
    encoders: dict[str, Path], data_folders: dict[str, Path], tmp_path: Path
) -> None:
    settings = MultitaskSettings.of(epochs=12, max_length=16, lr=3e-3, batch_size=16)
    for checkpoint in train(encoders, data_folders, tmp_path, settings):
        baseline, score = checkpoint.manifest.baseline, checkpoint.manifest.metrics[checkpoint.task.metric]
        assert baseline is not None and score > baseline.score + 0.3


def test_each_task_has_its_dropout(
    encoders: dict[str, Path], data_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ReachedError(Exception):
        pass

    def stop(shared: SharedModel, *arguments: object) -> None:
        seen.extend(model.dropout.p for model in shared.models)
        seen.append(shared.models[0].bert.embeddings.dropout.p)
        raise ReachedError

    monkeypatch.setattr(run, "_train", stop)
    for settings, expected in (
        (SETTINGS.replace(head_dropout=0.2), [0.2, 0.2, 0.1]),
        (SETTINGS.replace(head_dropout=0.2, task_dropout=[("grades", 0.05)]), [0.2, 0.05, 0.1]),
        (SETTINGS.replace(task_dropout=["sst2=0.3"]), [0.3, 0.1, 0.1]),
    ):
        seen: list[float] = []
        with pytest.raises(ReachedError):
            train(encoders, data_folders, tmp_path, settings)
        assert seen == expected
    assert SETTINGS.replace(task_dropout=["sst2=0.3"]).to_json()["task_dropout"] == ["sst2=0.3"]
    for wrong, message in (
        (["sst2"], "expected TASK=P"),
        (["sst2=2"], "could mean 2 or 2 %"),
        (["sst2=0.1", "sst2=0.2"], "given twice"),
    ):
        with pytest.raises(UsageError, match=message):
            SETTINGS.replace(task_dropout=wrong)


def test_heads_read_the_mean_where_they_are_told(
    encoders: dict[str, Path], data_folders: dict[str, Path], tickets: dict[str, Path], tmp_path: Path
) -> None:
    settings = SETTINGS.replace(head_pooling="mean")
    for checkpoint in train(encoders, data_folders, tmp_path, settings, tickets=[tickets["sst2"]]):
        assert checkpoint.manifest.structure.head_pooling == "mean"
        rows = data.load(checkpoint.task, "validation", data_folders[checkpoint.task.name])
        logits = evaluate.logits(models.load(checkpoint.folder), Encoder(checkpoint.folder, 16)(rows.texts))
        stored = checkpoint.manifest.predictions
        predictions = checkpoint.task.predict(logits)
        assert stored is not None
        np.testing.assert_allclose(np.array(stored), predictions, rtol=1e-4)


def test_tickets_that_keep_everything_are_training_without_tickets(
    plain: list[Checkpoint], encoders: dict[str, Path], data_folders: dict[str, Path], tmp_path: Path
) -> None:
    """Bit for bit: with every mask 1, ticket sharing is MT-DNN."""
    settings = FinetuneSettings.of(max_steps=1, max_length=16, lr=4e-3, optimizer="adamax")
    whole = finetune("sst2", encoders["bert"], out=tmp_path, name="whole", data_folder=data_folders["sst2"],
                     settings=settings)  # fmt: skip
    for sharing in ("strict", "published"):
        trained = train(encoders, data_folders, tmp_path / sharing, SETTINGS.replace(sharing=sharing),
                        tickets=[whole.folder])  # fmt: skip
        for checkpoint, other in zip(trained, plain, strict=True):
            pairs = weights(checkpoint), weights(other)
            assert pairs[0].keys() == pairs[1].keys()
            assert all(torch.equal(pairs[0][name], pairs[1][name]) for name in pairs[0])


def test_a_task_has_its_ticket_alone(
    encoders: dict[str, Path], data_folders: dict[str, Path], tickets: dict[str, Path], tmp_path: Path
) -> None:
    trained = train(encoders, data_folders, tmp_path, tickets=list(tickets.values()))
    published = train(encoders, data_folders, tmp_path / "published", SETTINGS.replace(sharing="published"),
                      tickets=list(tickets.values()))  # fmt: skip
    for checkpoint, other in zip(trained, published, strict=True):
        ticket = Checkpoint.open(tickets[checkpoint.task.name])
        assert checkpoint.manifest.structure == ticket.manifest.structure
        assert checkpoint.manifest.parameters == ticket.manifest.parameters
        assert checkpoint.manifest.shared is not None
        assert checkpoint.manifest.shared.tickets[checkpoint.task.name] == ticket.digest
        assert "bert.encoder.layer.2.intermediate.dense.weight" not in weights(checkpoint)  # in no ticket
        assert any(
            not torch.equal(value, weights(other)[name]) for name, value in weights(checkpoint).items()
        )
    first, second = map(weights, trained)
    name = "bert.encoder.layer.0.attention.self.query.weight"  # heads 0, 1, 2 and heads 1, 2
    assert torch.equal(first[name][8:], second[name])


def test_the_union_has_what_every_ticket_has(
    encoders: dict[str, Path], data_folders: dict[str, Path], tickets: dict[str, Path], tmp_path: Path
) -> None:
    """Its weights are those of the tasks' checkpoints, and it is scored with all of them."""
    *trained, union = train(
        encoders, data_folders, tmp_path, tickets=list(tickets.values()), write_union=True
    )
    assert (union.name, union.task.name) == ("both-union", "sst2")
    assert [checkpoint.name for checkpoint in trained] == ["both-sst2", "both-grades"]
    assert [(layer.heads, layer.intermediate) for layer in union.manifest.structure.layers] == [
        ((0, 1, 2), 64), ((0, 1, 2, 3), 64), ((0, 1, 2, 3), 0),
    ]  # fmt: skip
    shared = [checkpoint.manifest.shared for checkpoint in (*trained, union)]
    assert [record is not None and record.union for record in shared] == [False, False, True]
    assert union.manifest.ticket is None
    for checkpoint in trained:
        pruned = models.load(union.folder)
        remaining = checkpoint.manifest.structure
        heads = {at: sorted({0, 1, 2, 3} - set(layer.heads)) for at, layer in enumerate(remaining.layers)}
        parts = union.manifest.structure.layers
        models.prune(
            pruned,
            heads={at: [head for head in gone if head in parts[at].heads] for at, gone in heads.items()},
            ffns=[
                at for at, layer in enumerate(remaining.layers)
                if not layer.intermediate and parts[at].intermediate
            ],
        )  # fmt: skip
        mine = {name: value for name, value in pruned.state_dict().items() if name.startswith("bert.")}
        own = models.load(checkpoint.folder).state_dict()
        expected = {name: value for name, value in own.items() if name.startswith("bert.")}
        assert mine.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in mine.items())
    rows = data.load(union.task, "validation", data_folders["sst2"])
    logits = evaluate.logits(models.load(union.folder), Encoder(union.folder, 16)(rows.texts))
    assert union.task.score(rows.labels, union.task.predict(logits)) == union.manifest.metrics
    ticket = evaluate.logits(models.load(trained[0].folder), Encoder(union.folder, 16)(rows.texts))
    assert np.abs(logits - ticket).max() > 1e-5
    with pytest.raises(UsageError, match="tickets differ"):  # the union is not taken for a task's checkpoint
        shared_encoder.others(trained[0])


@pytest.mark.parametrize("apart", [False, True])
def test_stopped_training_ends_with_the_same_weights(
    apart: bool, plain: list[Checkpoint], encoders: dict[str, Path], data_folders: dict[str, Path],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Also where the state lies apart and checkpoints are then written elsewhere, as in a recipe."""
    options = {"state": tmp_path / "w/paused/key"} if apart else {}
    first, second = (tmp_path / "a", tmp_path / "b") if apart else (tmp_path / "a",) * 2
    state = options.get("state", first / ".both.training")
    fit, calls = loop.fit, []

    def stopped(*arguments: Any, **options: Any) -> Any:
        calls.append(options["segment"].begin)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "fit", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(encoders, data_folders, first, **options)
    assert sorted(path.name for path in state.iterdir()) == ["1", "key.json"]
    assert not [*first.glob("both*")]
    begun = []
    with monkeypatch.context() as patch:
        patch.setattr(loop, "fit", lambda *a, **o: (begun.append(o["segment"].begin), fit(*a, **o))[1])
        trained = train(encoders, data_folders, second, **options)
    assert begun == [state / "1"]
    for checkpoint, other in zip(trained, plain, strict=True):
        assert all(torch.equal(value, weights(other)[name]) for name, value in weights(checkpoint).items())
    assert state.exists() == apart  # the recipe removes it when the cell is recorded


@pytest.mark.skipif(not loop.has_bf16(), reason="this processor has no bf16 arithmetic")
def test_every_epoch_computes_in_bf16_where_it_is_recorded(
    encoders: dict[str, Path], data_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied, in_bf16 = SharedModel.applied, []

    def noted(self: SharedModel, task: int) -> Any:
        if self.training:
            in_bf16.append(torch.is_autocast_enabled("cpu"))
        return applied(self, task)

    monkeypatch.setattr(SharedModel, "applied", noted)
    train(
        encoders,
        data_folders,
        tmp_path,
        SETTINGS.replace(training=SETTINGS.training.replace(precision="bf16")),
    )
    assert len(in_bf16) > 10 and all(in_bf16)


def test_another_training_does_not_continue_a_stopped_one(
    encoders: dict[str, Path], data_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Any] = []

    def stopped(*arguments: Any, **options: Any) -> Any:
        begun.append(options["segment"].begin)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "fit", stopped)
    (tmp_path / ".both.training" / "1").mkdir(parents=True)
    (tmp_path / ".both.training" / "key.json").write_text("{}")
    with pytest.raises(KeyboardInterrupt):
        train(encoders, data_folders, tmp_path)
    assert begun == [None]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ("precision", "precision"),
        ("tokenizer", "tokens"),
        ("pooling", "pooling"),
        ("release", "precision, config, pooling, tokens"),
    ],
)
def test_training_does_not_continue_where_it_would_compute_otherwise(
    changed: str, named: str, encoders: dict[str, Path], data_folders: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """In another precision, with other files of the encoder, or with a state of an older release."""
    shutil.copytree(encoders["bert"], tmp_path / "model")
    fit = loop.fit
    monkeypatch.setattr(loop, "has_bf16", lambda: False)

    def stopped_after(epochs: int) -> list[Path | None]:
        """Train so many epochs; return where each began, and where the next one would."""
        begun: list[Path | None] = []

        def stopping(*arguments: Any, **options: Any) -> Any:
            begun.append(options["segment"].begin)
            if len(begun) > epochs:
                raise KeyboardInterrupt
            return fit(*arguments, **options)

        monkeypatch.setattr(loop, "fit", stopping)
        with pytest.raises(KeyboardInterrupt):
            train({"bert": tmp_path / "model"}, data_folders, tmp_path)
        return begun

    assert stopped_after(1) == [None, tmp_path / ".both.training/1"]
    assert stopped_after(0) == [tmp_path / ".both.training/1"]
    tokenizer, key = tmp_path / "model/tokenizer.json", tmp_path / ".both.training/key.json"
    if changed == "precision":
        monkeypatch.setattr(loop, "has_bf16", lambda: True)
    elif changed == "pooling":
        pools = tmp_path / "model/1_Pooling/config.json"
        pools.parent.mkdir()
        pools.write_text(json.dumps({"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}))
    elif changed == "tokenizer":
        words = json.loads(tokenizer.read_text())
        vocabulary = words["model"]["vocab"]
        vocabulary["good"], vocabulary["awful"] = vocabulary["awful"], vocabulary["good"]
        tokenizer.write_text(json.dumps(words))
    else:
        new = ("precision", "config", "pooling", "tokens")
        key.write_text(json.dumps({k: v for k, v in json.loads(key.read_text()).items() if k not in new}))
    capsys.readouterr()
    assert stopped_after(0) == [None]
    assert (
        f"both: begins again, as the training that was stopped had other {named}" in capsys.readouterr().err
    )


def test_early_stopping_keeps_the_best_average(
    encoders: dict[str, Path], data_folders: dict[str, Path], tmp_path: Path
) -> None:
    settings = MultitaskSettings.of(epochs=30, max_length=16, lr=1e-3, batch_size=16, patience=1)
    trained = train(encoders, data_folders, tmp_path, settings)
    training = trained[0].manifest.training
    assert training.held_out_rows == 5
    assert trained[1].manifest.training.held_out_rows == 7
    assert training.steps < 30 * 7


def test_the_checkpoint_of_a_task_is_fine_tuned_further(
    plain: list[Checkpoint], data_folders: dict[str, Path], tmp_path: Path
) -> None:
    settings = FinetuneSettings.of(max_steps=1, max_length=16, lr=1e-9)
    further = finetune(
        "sst2", plain[0].folder, out=tmp_path, data_folder=data_folders["sst2"], settings=settings
    )
    assert further.manifest.training.head is not None and further.manifest.training.head.startswith("kept")
    assert further.manifest.metrics == plain[0].manifest.metrics


def test_what_a_checkpoint_was_trained_on_before_is_unknown(
    plain: list[Checkpoint], encoders: dict[str, Path], data_folders: dict[str, Path], tmp_path: Path
) -> None:
    """A pretrained encoder was trained on no row of the tasks."""
    settings = SETTINGS.replace(max_steps=1)
    for model, known in ((plain[0].folder, False), (encoders["bert"], True)):
        trained = multitask(TASKS, model, out=tmp_path, name=f"known-{known}", data_folders=data_folders,
                            settings=settings)  # fmt: skip
        for checkpoint in trained:
            assert (checkpoint.manifest.training.rows_digest is not None) == known


def test_a_reduced_and_sparse_encoder_stays_so(
    encoders: dict[str, Path], data_folders: dict[str, Path], tmp_path: Path
) -> None:
    """As in fine-tuning; a ticket of one task is of the checkpoint, and the other task uses all of it."""
    single = {"max_steps": 3, "max_length": 16, "lr": 4e-3, "optimizer": "adamax"}

    def tuned(name: str, model: Path, reduce: Any = None, facts: Any = None, **more: Any) -> Checkpoint:
        return finetune(
            "sst2", model, out=tmp_path, name=name, data_folder=data_folders["sst2"],
            settings=FinetuneSettings.of(**single, **more), reduce=reduce, facts=facts,
        )  # fmt: skip

    base = tuned(
        "base", encoders["bert"], layers=2, drop_layers="symmetric",
        reduce=lambda model: sparse.hold(model, sparse.smallest(sparse.matrices(model), 0.5)),
        facts=lambda model: {"sparsity": sparse.counts(model)},
    )  # fmt: skip
    further = tuned("further", base.folder)
    ticket = tuned("ticket", base.folder, lambda model: models.prune(model, heads={0: [1]}, ffns=[2]))
    numbers = base.manifest.structure.numbers
    assert numbers == ticket.manifest.structure.numbers == (1, 3)
    together = multitask(
        TASKS, base.folder, out=tmp_path, name="both", data_folders=data_folders,
        tickets=[ticket.folder], settings=SETTINGS.replace(max_steps=6),
    )  # fmt: skip
    first, second = together
    before, after = weights(base), weights(second)
    matrices = [name for name, value in before.items() if (value == 0).float().mean() > 0.2]
    assert len(matrices) >= 12
    for name in matrices:
        np.testing.assert_array_equal(before[name] == 0, after[name] == 0)
        assert not torch.equal(before[name], after[name])
    assert first.manifest.structure.layers == ticket.manifest.structure.layers
    assert first.manifest.sparsity == ticket.manifest.sparsity != base.manifest.sparsity
    assert second.manifest.structure.layers == base.manifest.structure.layers
    assert second.manifest.sparsity == further.manifest.sparsity == base.manifest.sparsity
    for checkpoint in together:
        manifest = checkpoint.manifest
        assert len(manifest.layer_reductions) == 1
        for part in ("layer_reductions", "model", "parent"):
            assert getattr(manifest, part) == getattr(further.manifest, part)
        assert manifest.parent == base.digest


@pytest.mark.parametrize("settings", [{"task_limit": (("sst2", 20),)}, {"patience": 1}])
def test_rows_whose_texts_another_task_trains_are_not_called_unseen(
    settings: dict[str, Any], encoders: dict[str, Path], data_folders: dict[str, Path], tmp_path: Path
) -> None:
    """The 50 texts of one task are among the 70 of the other; those above are left out by the first alone."""
    trained = train(encoders, data_folders, tmp_path, SETTINGS.replace(max_steps=1, **settings))
    for checkpoint, unknown in zip(trained, (True, "patience" in settings), strict=True):
        training = checkpoint.manifest.training
        assert (training.rows_digest is None) == unknown
        every = data.load(checkpoint.task, "train", data_folders[checkpoint.task.name])
        *_, seen = training_rows.split(every, training, TrainingSettings.of(limit=20))
        assert (seen is None) == unknown


def test_every_row_is_in_one_batch_of_its_task() -> None:
    lengths = [np.arange(37) % 9, np.arange(5), np.arange(20)]
    epoch = batches.order(lengths, 8, np.random.default_rng(0))
    assert len(epoch) == batches.count(lengths, 8) == 5 + 1 + 3
    for number, task in enumerate(lengths):
        rows = [row for batch in epoch if batch.task == number for row in batch.rows]
        assert sorted(rows) == list(range(len(task)))
    assert max(len(batch.rows) for batch in epoch) == 8
    other = batches.order(lengths, 8, np.random.default_rng(1))
    assert {batch.rows for batch in epoch} != {
        batch.rows for batch in other
    }  # packed anew, not only shuffled
    assert epoch == batches.order(lengths, 8, np.random.default_rng(0))


def test_processes_divide_the_batches_and_weigh_their_parts() -> None:
    epoch = [batches.TaskBatch(1, (4, 7, 2, 9, 5)), batches.TaskBatch(0, (3,))]
    first, second, third, fourth = batches.divided(epoch, 2)
    assert (first, second) == ((1, (4, 2, 5), 3 * 2 / 5), (1, (7, 9), 2 * 2 / 5))
    assert (third, fourth) == ((0, (3,), 2.0), (0, (3,), 0.0))
    assert [*batches.divided(epoch, 1)] == epoch


@pytest.mark.slow
def test_two_processes_share_tickets_as_one_does(
    encoders: dict[str, Path], data_folders: dict[str, Path], tmp_path: Path
) -> None:
    """Without dropout, steps on the same rows give the same weights, and those outside a ticket stay."""
    encoder = Path(shutil.copytree(encoders["bert"], tmp_path / "encoder"))
    change_config(encoder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    limits = (("sst2", 33), ("grades", 35))  # last batches: of one row, and of three
    tickets = []
    for task, removed in REMOVED.items():
        settings = FinetuneSettings.of(max_steps=1, max_length=16, lr=4e-3, optimizer="adamax")
        tickets.append(
            finetune(
                task,
                encoder,
                out=tmp_path,
                name=task,
                settings=settings,
                data_folder=data_folders[task],
                reduce=lambda model, removed=removed: models.prune(model, **removed),
            ).folder  # fmt: skip
        )
    code = f"""
from effx.specs.multitask import MultitaskSettings
from effx.train.multitask import multitask
settings = MultitaskSettings.of(epochs=4, max_length=16, lr=4e-3, batch_size=8, optimizer="adamax",
                                precision="fp32",
                                task_limit={limits!r})
folders = { ({name: str(folder) for name, folder in data_folders.items()})!r}
trained = multitask({TASKS!r}, {str(encoder)!r}, out={str(tmp_path)!r}, name="two", data_folders=folders,
                    tickets={list(map(str, tickets))!r}, settings=settings)
"""
    (tmp_path / "train.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(tmp_path / "train.py")], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one = multitask(
        TASKS, encoder, out=tmp_path, name="one", data_folders=data_folders, tickets=tickets,
        settings=MultitaskSettings.of(
            epochs=4, max_length=16, lr=4e-3, batch_size=16, optimizer="adamax", precision="fp32",
            task_limit=limits,
        ),
    )  # fmt: skip
    for single in one:
        both = Checkpoint.open(tmp_path / f"two-{single.task.name}")
        assert both.manifest.training.processes == 2
        assert both.manifest.training.steps == single.manifest.training.steps
        expected, found = weights(single), weights(both)
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5)
    assert not (tmp_path / ".two.training").exists()


@pytest.mark.parametrize(
    ("tasks", "tickets_of", "changes", "message"),
    [
        (["sst2"], [], {}, "expected at least two different tasks"),
        (["sst2", "sst2"], [], {}, "expected at least two different tasks"),
        (TASKS, ["sst2", "sst2"], {}, "two tickets of task 'sst2'"),
        (TASKS, ["sst2"], {"sharing": "none"}, "sharing none does not use tickets"),
        (TASKS, ["sst2"], {"lr": 2e-3}, "adamax at learning rate 0.004, not adamax at 0.002"),
        (TASKS, ["sst2"], {"optimizer": "adamw"}, "accept it with mismatched"),
        (TASKS, [], {"task_dropout": [("cola", 0.1)]}, "dropout of cola: it is not one of the tasks"),
        (TASKS, [], {"write_union": True}, "a union needs tickets"),
        (
            ["sst2", "union"],
            ["sst2"],
            {"write_union": True},
            "multitask-bert-s0-union is the checkpoint of the",
        ),
    ],
)
def test_wrong_input_is_one_line_before_training(
    encoders: dict[str, Path], data_folders: dict[str, Path], tickets: dict[str, Path], tmp_path: Path,
    tasks: list[str], tickets_of: list[str], changes: dict[str, Any], message: str,
) -> None:  # fmt: skip
    values = {"epochs": 2, "max_length": 16, "lr": 4e-3, "batch_size": 16, "optimizer": "adamax", **changes}
    write_union = values.pop("write_union", False)
    folders = {task: data_folders.get(task, data_folders["sst2"]) for task in tasks}
    with pytest.raises(UsageError, match=message) as error:
        multitask(
            tasks, encoders["bert"], out=tmp_path / "c", data_folders=folders, write_union=write_union,
            tickets=[tickets[task] for task in tickets_of], settings=MultitaskSettings.of(**values),
        )  # fmt: skip
    assert "\n" not in str(error.value)
    assert not (tmp_path / "c").exists()


def test_tickets_of_another_encoder_or_task_are_refused(
    encoders: dict[str, Path], data_folders: dict[str, Path], tickets: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is of the encoder bert, not of .*roberta"):
        multitask(TASKS, encoders["roberta"], out=tmp_path, data_folders=data_folders,
                  tickets=[tickets["sst2"]], settings=SETTINGS)  # fmt: skip
    folders = {"marks": data_folders["grades"], "grades": data_folders["grades"]}
    with pytest.raises(UsageError, match="is of task 'sst2', not of marks, grades"):
        multitask(["marks", "grades"], encoders["bert"], out=tmp_path, data_folders=folders,
                  tickets=[tickets["sst2"]], settings=SETTINGS)  # fmt: skip


def test_a_task_with_a_teacher_learns_its_predictions(
    encoders: dict[str, Path], data_folders: dict[str, Path], plain: list[Checkpoint],
    tickets: dict[str, Path], tmp_path: Path,
) -> None:  # fmt: skip
    learned = DistillationSettings(label_weight=0.0, temperature=1.0)
    teacher = Checkpoint.open(tickets["sst2"])
    taught = train(encoders, data_folders, tmp_path, teachers=[Distillation(teacher.folder, learned)])
    texts = data.load(teacher.task, "train", data_folders["sst2"]).texts

    def log_probabilities(checkpoint: Checkpoint) -> torch.Tensor:
        encoded = Encoder(checkpoint.folder, 16)(texts)
        return torch.from_numpy(evaluate.logits(models.load(checkpoint.folder), encoded)).log_softmax(-1)

    expected = log_probabilities(teacher)
    distances = [
        float((expected.exp() * (expected - log_probabilities(each[0]))).sum(-1).mean())
        for each in (plain, taught)
    ]
    assert distances[1] < distances[0] / 4
    record = taught[0].manifest.training.distillation
    assert record is not None and record.teacher_digest == teacher.digest and record.hidden_layers == 0
    assert taught[1].manifest.training.distillation is None


def test_teachers_that_do_not_fit_are_one_line(
    data_folders: dict[str, Path], encoders: dict[str, Path], tickets: dict[str, Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    both = [f"--data={task}={folder}" for task, folder in data_folders.items()]
    command = ["train", "multitask", "sst2,grades", "--model", str(encoders["bert"]), *both]
    command += ["-o", str(tmp_path / "c"), "--max-length", "16"]
    for extra, message in (
        (["--temperature", "3"], "temperature has no effect without a teacher"),
        (["--teacher", str(tickets["sst2"])] * 2, "two teachers of task 'sst2': expected one"),
        (["--teacher", str(tmp_path)], "is not a checkpoint"),
    ):
        assert run_command([*command, *extra]) in (2, 3)
        error = capsys.readouterr().err
        assert message in error and len(error.strip().splitlines()) == 1
    folders = {"marks": data_folders["grades"], "grades": data_folders["grades"]}
    with pytest.raises(UsageError, match="is of task 'sst2', not of marks, grades"):
        multitask(["marks", "grades"], encoders["bert"], out=tmp_path / "c", data_folders=folders,
                  teachers=[Distillation(tickets["sst2"])], settings=SETTINGS)  # fmt: skip
    assert not (tmp_path / "c").exists()


def test_loaded_weights_are_those_that_were_scored(plain: list[Checkpoint]) -> None:
    """The checkpoints are ordinary ones: they load by themselves."""
    for checkpoint in plain:
        model = checkpoints.load(checkpoint.folder)
        assert all(torch.equal(value, weights(checkpoint)[name]) for name, value in model.state_dict().items()
                   if name in weights(checkpoint))  # fmt: skip


def test_a_task_tells_which_layers_its_ticket_has(
    encoders: dict[str, Path], data_folders: dict[str, Path], tmp_path: Path
) -> None:
    """Tickets of the first two layers, and an encoder that has no others."""
    settings = FinetuneSettings.of(max_steps=1, max_length=16, lr=4e-3, optimizer="adamax", layers=2)
    tickets = [finetune(task, encoders["bert"], out=tmp_path, name=task, data_folder=data_folders[task],
                        settings=settings) for task in TASKS]  # fmt: skip
    shutil.copytree(encoders["bert"], tmp_path / "bert")
    AutoModel.from_pretrained(encoders["bert"], num_hidden_layers=2).save_pretrained(tmp_path / "bert")
    trained = train({"bert": tmp_path / "bert"}, data_folders, tmp_path / "together",
                    SETTINGS.replace(max_steps=1), tickets=[ticket.folder for ticket in tickets])  # fmt: skip
    for checkpoint, ticket in zip(trained, tickets, strict=True):
        assert checkpoint.manifest.layer_reductions == ticket.manifest.layer_reductions
        (record,) = checkpoint.manifest.layer_reductions
        assert (record.strategy, record.kept) == ("top", (0, 1))
