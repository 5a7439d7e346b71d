from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from effx import data
from effx.artifacts import Checkpoint
from effx.encoding import Encoded, Encoder
from effx.errors import UsageError
from effx.export import export_all
from effx.manifests import ExitCalibration, RemovedCounts, RowDraw, TicketRecord, TrainingRecord
from effx.models import add_ramps, checkpoints, evaluate, load, prune, save, structure
from effx.models.exits import rule_of
from effx.specs import exit_rules
from effx.specs.exits import EXIT_MODES, EarlyExitSettings
from effx.specs.tasks import get
from effx.specs.tokens import TokenPruningSettings
from effx.specs.training import FinetuneSettings, TrainingSettings
from effx.train import exits, finetune, tokens
from effx.train.rows import held_out, rows_digest, split


@pytest.mark.parametrize("mode", EXIT_MODES)
def test_each_mode_trains_its_parameters(checkpoint: Checkpoint, mode: str, tmp_path: Path) -> None:
    settings = EarlyExitSettings.of(mode=mode, max_steps=3, epochs=1, max_drop=0.5, seed=3)
    trained = exits.train(checkpoint.folder, out=tmp_path, settings=settings)
    assert trained.name == "tiny-exits"
    before = load_file(checkpoint.folder / "model.safetensors")
    after = load_file(trained.folder / "model.safetensors")
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert bool(changed) == (mode == "joint")
    assert {key.split(".")[1] for key in after.keys() - before.keys()} == {"1", "2"}
    assert trained.manifest.parent == checkpoint.digest
    assert trained.manifest.structure.exits == (1, 2)
    assert trained.manifest.exits.mode == mode
    assert trained.manifest.training.regime == "full"  # of the checkpoint that the exits were added to
    assert trained.manifest.parameters > checkpoint.manifest.parameters
    assert trained.manifest.weight_remaining == 1.0  # nothing was pruned; ramps are not counted


def test_manifest_scores_and_depths_are_those_of_the_saved_checkpoint(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path
) -> None:
    trained = exits.train(
        checkpoint.folder,
        out=tmp_path,
        settings=EarlyExitSettings.of(epochs=4, rule="max-probability", depth=2.0),
    )
    model, rule = load(trained.folder), rule_of(trained)
    rows = data.load(trained.task, "validation", rows_folder)
    encoded = Encoder(trained.folder, trained.max_length)(rows.texts)
    one, depth, _ = evaluate.reduced(model, encoded, rule=rule, batch_size=1)
    many, again, _ = evaluate.reduced(model, encoded, rule=rule, batch_size=32)
    assert np.array_equal(depth, again) and np.allclose(one, many, atol=1e-5)
    result = trained.manifest.exits.validation
    assert result.mean_depth == pytest.approx(depth.mean())
    assert result.scores["accuracy"] == pytest.approx((one.argmax(1) == rows.labels).mean())
    heads = evaluate.head_logits(model, encoded)
    assert np.array_equal(exit_rules.simulate(rule, heads) + 1, depth)
    final_head = evaluate.logits(model, encoded)
    assert np.allclose(heads[-1], final_head, atol=1e-5)
    final_head_accuracy = (final_head.argmax(1) == rows.labels).mean()
    assert trained.manifest.metrics["accuracy"] == pytest.approx(final_head_accuracy)
    assert result.lost == pytest.approx(final_head_accuracy - result.scores["accuracy"])
    assert result.lost_at_least <= result.lost


@pytest.mark.parametrize(("task", "score"), [("sst2", 0.9 - 0.8), ("stsb", None)])
def test_loss_by_exits_has_a_lower_bound(task: str, score: float | None) -> None:
    rng = np.random.default_rng(0)
    n = 1000
    if score is not None:  # 90 % right, and 80 % with exits: 120 rows lost, 20 gained
        labels = np.ones(n, dtype=np.int64)
        right = np.where(np.arange(n) < 900, 1.0, -1.0)
        left = np.where((np.arange(n) >= 120) & (np.arange(n) < 920), 1.0, -1.0)
        final_head, with_exits = (np.stack([-logit, logit], 1) for logit in (right, left))
        result = exits.lost(get(task), labels, final_head, with_exits)
        error = np.sqrt((0.14 - 0.1**2) / n)
        assert result.value == pytest.approx(score)
        assert result.at_least == pytest.approx(score - 1.645 * error, abs=0.002)
    else:
        labels = rng.normal(size=n)
        final_head, with_exits = (labels[:, None] + rng.normal(size=(n, 1)) * noise for noise in (0.1, 0.5))
        result = exits.lost(get(task), labels, final_head, with_exits)
        assert 0 < result.at_least < result.value < 0.3
    same = exits.lost(get(task), labels, final_head, final_head)
    assert same.value == 0.0
    if task == "stsb":  # no prediction differs: a bootstrap gives no interval
        assert same.at_least is None
    else:  # Tango's interval has the width z^2 / (n + z^2) even then
        assert same.at_least == pytest.approx(-(1.645**2) / (n + 1.645**2), abs=1e-4)


@pytest.mark.parametrize(
    ("lower_bound", "target", "warned"),
    [(0.04, "max_drop", True), (0.02, "max_drop", False), (0.04, "depth", False)],
)
def test_a_loss_on_validation_rows_above_max_drop_is_reported(
    lower_bound: float, target: str, warned: bool, checkpoint: Checkpoint, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(exits, "lost", lambda *_: exits.Loss(0.05, lower_bound))
    wanted = {"max_drop": 0.03} if target == "max_drop" else {"depth": 2.9}
    exits.train(checkpoint.folder, out=tmp_path, settings=EarlyExitSettings.of(max_steps=2, **wanted))
    line = "max_drop is 0.03, but exits lose 0.0500 on the validation rows (at least 0.0400, 95 %)"
    assert (line in capsys.readouterr().err) == warned


def test_exits_can_be_added_to_a_ticket(checkpoint: Checkpoint, tmp_path: Path, rows_folder: Path) -> None:
    model = prune(load(checkpoint.folder), heads={0: [0, 1, 2, 3]}, ffns=[1])
    about = TicketRecord(
        kind="winning", level="40", importance="taylor", granularity="ffns", min_heads=1,
        removed=RemovedCounts(heads=4, ffns=1),
    )  # fmt: skip
    ticket = save(
        model, tmp_path / "ticket", tokenizer=checkpoints.tokenizer(checkpoint.folder), task=checkpoint.task,
        max_length=32, data=checkpoint.data, training=checkpoint.manifest.training, ticket=about,
    )  # fmt: skip
    trained = exits.train(
        ticket.folder, out=tmp_path, settings=EarlyExitSettings.of(max_steps=2, after=(2,), depth=2.9)
    )
    remaining = structure(load(trained.folder))
    assert remaining.exits == (2,)
    assert remaining.layers == structure(model).layers
    assert trained.manifest.ticket == about
    assert trained.manifest.weight_remaining == ticket.manifest.weight_remaining < 1


def test_engine_manifest_counts_pruned_parameters_without_ramps(
    checkpoint: Checkpoint, tmp_path: Path, rows_folder: Path
) -> None:
    model = add_ramps(prune(load(checkpoint.folder), heads={0: [0]}))
    old = save(
        model, tmp_path / "old", tokenizer=checkpoints.tokenizer(checkpoint.folder), task=checkpoint.task,
        max_length=32, data=checkpoint.data,
    )  # fmt: skip
    (engine,), failures = export_all([old.folder], ["fp32"], out=tmp_path / "engines")
    assert not failures
    per_head = 8 * 32 * 4 + 8 * 3
    assert engine.manifest.parameters_removed == per_head
    unpruned = checkpoint.manifest.parameters
    assert engine.manifest.weight_remaining == (unpruned - per_head) / unpruned
    assert engine.manifest.parameters == old.manifest.parameters > unpruned


def trained(**facts: Any) -> TrainingRecord:
    """Return the record of a fine-tuned checkpoint."""
    settings = {"limit": facts.get("limit"), **facts.pop("settings", {})}
    return TrainingRecord(kind="finetune", regime="full", settings=settings, **facts)


def test_calibration_rows_are_rows_that_the_checkpoint_was_not_trained_on(rows_folder: Path) -> None:
    rows = data.load(get("sst2"), "train", rows_folder)
    digest = rows_digest(rows)
    fit, held, seen = split(rows, trained(rows_digest=digest, limit=100), TrainingSettings())
    assert set(fit) == set(rows.subset(100)) and not set(held) & set(fit) and seen == 0
    fit, held, seen = split(
        rows, trained(rows_digest=digest, held_out_rows=16, settings={"seed": 4}), TrainingSettings()
    )
    assert set(held) == set(held_out(rows, 4)) and not set(held) & set(fit) and seen == 0
    fit, held, seen = split(rows, trained(rows_digest=digest), TrainingSettings())
    assert len(held) == 16 and len(fit) == 144 and seen == 16


@pytest.mark.parametrize(("limit", "held_rows", "seen_rows"), [(159, 15, 14), (150, 15, 5), (140, 20, 0)])
def test_seen_rows_are_added_to_too_few_unseen_calibration_rows(
    limit: int, held_rows: int, seen_rows: int, rows_folder: Path
) -> None:
    rows = data.load(get("sst2"), "train", rows_folder)
    fit, held, seen = split(rows, trained(rows_digest=rows_digest(rows), limit=limit), TrainingSettings())
    assert (len(held), seen) == (held_rows, seen_rows)
    assert not set(held) & set(fit)
    assert set(fit) | set(held) == set(range(160))
    assert len(set(held) & set(rows.subset(limit))) == seen_rows


def test_calibration_rows_count_as_unknown_without_a_digest_of_the_training_rows(rows_folder: Path) -> None:
    rows = data.load(get("sst2"), "train", rows_folder)
    source = rows.recorded_source
    for training in (trained(source="elsewhere"), trained(source=source, limit=100),
                     trained(source=source, held_out_rows=16, settings={"seed": 4}),
                     trained(source=source, rows_digest="0" * 64)):  # fmt: skip
        assert split(rows, training, TrainingSettings())[2] is None, training
    _, held, seen = split(rows, trained(source=source), TrainingSettings())
    assert seen == len(held) == 16, "of the same name, and trained on all of them"
    _, held, _ = split(rows, trained(source="elsewhere", limit=100), TrainingSettings())
    assert not set(held) & set(rows.subset(100)), "if they are the same rows, these are unseen"


def test_training_rows_are_recognised_in_another_folder(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shutil.copytree(rows_folder, tmp_path / "rows")
    monkeypatch.chdir(tmp_path)
    quick = FinetuneSettings.of(max_steps=1, max_length=32)
    quick_exits = EarlyExitSettings.of(max_steps=1, depth=2.9)

    def calibration(checkpoint: Path, name: str, **options: Any) -> ExitCalibration:
        trained = exits.train(checkpoint, out=tmp_path, name=name, settings=quick_exits, **options)
        assert trained.manifest.exits is not None
        return trained.manifest.exits.calibration

    trained = finetune("sst2", encoders["bert"], out=tmp_path, name="a", data_folder="rows", settings=quick)
    assert calibration(trained.folder, "b").seen_in_training is True
    assert "a was trained on 16 of the 16 held-out rows" in capsys.readouterr().err
    shutil.move(tmp_path / "rows", tmp_path / "moved")
    assert calibration(trained.folder, "c", data_folder="moved").seen_in_training is True
    fewer = quick.replace(limit=99)
    part = finetune("sst2", encoders["bert"], out=tmp_path, name="d", data_folder="moved", settings=fewer)
    result = calibration(part.folder, "e")
    assert (result.seen_in_training, result.rows) == (False, 61)
    capsys.readouterr()
    again = finetune("sst2", trained.folder, out=tmp_path, name="g", data_folder="moved", settings=fewer)
    assert calibration(again.folder, "h").seen_in_training is None  # its parent has seen all
    assert "g: it is unknown whether it was trained on the 61 held-out rows" in capsys.readouterr().err
    train = tmp_path / "moved/train.jsonl"
    train.write_text(train.read_text().partition("\n")[2])  # the digest differs
    schedule = TokenPruningSettings.of(schedule=(1, 1, 0.5), max_steps=1)
    short = tokens.train(part.folder, out=tmp_path, data_folder="moved", settings=schedule)
    assert calibration(short.folder, "i").seen_in_training is None


def test_rows_of_all_trainings_are_in_the_manifest_of_a_chain(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """160 rows, all of them fine-tuned on, or 30 %; then a token schedule, and exits."""
    quick = FinetuneSettings.of(max_steps=1, max_length=32)
    schedule = TokenPruningSettings.of(schedule=(1, 1, 0.5), max_steps=1, seed=5)
    quick_exits = EarlyExitSettings.of(max_steps=1, depth=2.9)

    def chain(name: str, first: FinetuneSettings, second: TokenPruningSettings) -> Checkpoint:
        before = finetune("sst2", encoders["bert"], out=tmp_path, name=name, data_folder=rows_folder,
                          settings=first)  # fmt: skip
        pruned = tokens.train(before.folder, out=tmp_path, name=f"{name}-tokens", settings=second)
        return exits.train(pruned.folder, out=tmp_path, name=f"{name}-exits", settings=quick_exits)

    everything = chain("all", quick, schedule.replace(share="20%")).manifest
    assert everything.exits.calibration.seen_in_training is True
    assert everything.training.draws == (RowDraw(), RowDraw(share=0.2, seed=5))
    assert everything.training.rows == 144
    part = chain("part", quick.replace(share="30%", seed=1), schedule).manifest
    assert part.exits.calibration.seen_in_training is False
    assert part.training.draws == (RowDraw(share=0.3, seed=1),)
    assert part.training.rows == 48 and part.exits.calibration.rows == 112


def test_a_share_is_of_the_rows_within_the_limit_of_the_checkpoint(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    few = FinetuneSettings.of(max_steps=1, max_length=32, limit=40)
    part = finetune("sst2", encoders["bert"], out=tmp_path, name="part", data_folder=rows_folder,
                    settings=few)  # fmt: skip
    half = EarlyExitSettings.of(max_steps=1, depth=2.9, share="50%")
    training = exits.train(part.folder, out=tmp_path, settings=half).manifest.training
    assert (training.limit, training.rows) == (40, 20)


def test_calibration_rows_whose_text_was_trained_on_are_seen(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """Every text twice; nearly all texts are among 120 of the 160 rows."""
    shutil.copytree(rows_folder, tmp_path / "rows")
    train = tmp_path / "rows/train.jsonl"
    train.write_text("".join(2 * train.read_text().splitlines(keepends=True)[:80]))
    quick = FinetuneSettings.of(max_steps=1, max_length=32, limit=120, patience=1)
    part = finetune("sst2", encoders["bert"], out=tmp_path, name="part", data_folder=tmp_path / "rows",
                    settings=quick)  # fmt: skip
    assert part.manifest.training.held_out_in_groups
    every = data.load(part.task, "train", tmp_path / "rows")
    trained = every.take(every.subset(120))
    held = {trained.texts[number] for number in held_out(trained, 0)}
    assert part.manifest.training.rows == sum(texts not in held for texts in trained.texts)
    quick_exits = EarlyExitSettings.of(max_steps=1, depth=2.9)
    result = exits.train(part.folder, out=tmp_path, settings=quick_exits).manifest.exits.calibration
    assert result.seen_in_training is True and 8 <= result.rows <= 24


def test_rows_of_a_model_that_was_fine_tuned_elsewhere_are_unknown(
    checkpoint: Checkpoint, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """Its head has the task's labels and is kept."""
    load(checkpoint.folder).save_pretrained(tmp_path / "model")
    checkpoints.tokenizer(checkpoint.folder).save_pretrained(tmp_path / "model")
    few = FinetuneSettings.of(max_steps=1, max_length=32, limit=100)
    for model, known in ((tmp_path / "model", False), (encoders["bert"], True)):
        trained = finetune("sst2", model, out=tmp_path, name=f"known-{known}", data_folder=rows_folder,
                           settings=few)  # fmt: skip
        assert (trained.manifest.training.rows_digest is not None) == known, trained.manifest.training.head


def test_the_loss_of_token_pruning_is_not_counted_as_loss_of_exits(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path
) -> None:
    rows = data.load(checkpoint.task, "validation", rows_folder)
    encoded = Encoder(checkpoint.folder, 32)(rows.texts)

    def accuracy(logits: np.ndarray) -> float:
        return float((logits.argmax(1) == rows.labels).mean())

    for seed in range(20):  # until token pruning and exits both change the accuracy
        out = tmp_path / str(seed)
        trained = exits.train(
            pruned_at_random(checkpoint, encoded, seed, out).folder,
            out=out,
            settings=EarlyExitSettings.of(max_steps=2, mode="joint", depth=2.0, precision="fp32"),
        )
        model = load(trained.folder)
        plain = accuracy(evaluate.logits(model, encoded))
        logits, _, remaining = evaluate.reduced(model, encoded)
        pruned = accuracy(logits)
        with_exits = accuracy(evaluate.reduced(model, encoded, rule=rule_of(trained))[0])
        if len({plain, pruned, with_exits}) == 3:
            break
    else:
        pytest.fail("no seed gives three different accuracies")
    assert trained.manifest.metrics["accuracy"] == pytest.approx(plain)
    assert trained.manifest.exits.validation.lost == pytest.approx(pruned - with_exits)
    entry = trained.manifest.tokens
    assert (entry.rule, entry.target) == ("share", None)
    assert entry.validation.scores["accuracy"] == pytest.approx(pruned)
    assert entry.validation.kept == pytest.approx((remaining / encoded.lengths[:, None]).mean(0))


def pruned_at_random(checkpoint: Checkpoint, encoded: Encoded, seed: int, out: Path) -> Checkpoint:
    """Return a checkpoint whose predictions change with token pruning; half of the rows in each class."""
    model, generator = load(checkpoint.folder), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.5, generator=generator)
        model.classifier.bias -= torch.from_numpy(np.median(evaluate.logits(model, encoded), 0))
    wild = save(
        model, out / "wild", tokenizer=checkpoints.tokenizer(checkpoint.folder), task=checkpoint.task,
        max_length=32, data=checkpoint.data, training=checkpoint.manifest.training,
    )  # fmt: skip
    return tokens.train(
        wild.folder, out=out, settings=TokenPruningSettings.of(schedule=(0.3, 0.1, 0.1), epochs=0)
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (EarlyExitSettings.of(after=(3,)), "layer 3 cannot have an exit"),
        (EarlyExitSettings.of(depth=0.5), "depth 0.5: expected at least 1, the first layer after which"),
        (EarlyExitSettings.of(depth=1.5, rule="patience"), "expected at least 2, .* by rule patience"),
        (EarlyExitSettings.of(depth=1.5, after=(2,)), "expected at least 2"),
    ],
)
def test_wrong_settings_are_refused_before_training(
    checkpoint: Checkpoint, settings: EarlyExitSettings, message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delattr("effx.train.loop.fit")
    with pytest.raises(UsageError, match=message):
        exits.train(checkpoint.folder, out=tmp_path / "here", settings=settings)
    assert not (tmp_path / "here").exists() or not list((tmp_path / "here").iterdir())


def test_a_checkpoint_without_exits_has_no_rule(checkpoint: Checkpoint) -> None:
    with pytest.raises(UsageError, match="has no exits. Train them with: effx train exits"):
        rule_of(checkpoint)
