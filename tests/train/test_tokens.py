from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from effx import data
from effx.artifacts import Checkpoint
from effx.encoding import Encoder
from effx.errors import UsageError
from effx.models import add_ramps, checkpoints, evaluate, load, save, structure
from effx.specs.exits import EarlyExitSettings
from effx.specs.tokens import TOKEN_RULES, TokenPruningSettings
from effx.specs.training import FinetuneSettings, TrainingSettings
from effx.stats import intervals
from effx.train import exits, finetune, tokens
from effx.train import source as sources
from effx.train.distillation import HeadLoss


@pytest.mark.parametrize("rule", TOKEN_RULES)
def test_manifest_has_the_learned_schedule_and_its_scores(
    checkpoint: Checkpoint, rows_folder: Path, rule: str, tmp_path: Path
) -> None:
    settings = TokenPruningSettings.of(rule=rule, lr=1e-3, soft_epochs=2, epochs=1, keep=0.6, penalty=1.0)
    trained = tokens.train(checkpoint.folder, out=tmp_path, settings=settings)
    assert trained.name == "tiny-tokens"
    remaining = structure(load(trained.folder))
    schedule = remaining.tokens if rule == "share" else remaining.token_thresholds
    assert schedule is not None and len(schedule) == 3 and min(schedule) < 1
    assert (remaining.tokens is None) == (rule == "threshold")
    rows = data.load(trained.task, "validation", rows_folder)
    encoded = Encoder(trained.folder, trained.max_length)(rows.texts)
    one, _, used = evaluate.reduced(load(trained.folder), encoded, batch_size=1)
    many, _, again = evaluate.reduced(load(trained.folder), encoded, batch_size=32)
    assert np.array_equal(used, again) and np.allclose(one, many, atol=1e-5)
    result = trained.manifest.tokens.validation
    assert result.kept == pytest.approx((used / encoded.lengths[:, None]).mean(0))
    assert result.scores["accuracy"] == pytest.approx((one.argmax(1) == rows.labels).mean())
    assert abs(np.mean(result.kept) - 0.6) < 0.2  # the schedule was scaled on other rows


def test_a_given_schedule_is_not_changed(checkpoint: Checkpoint, tmp_path: Path) -> None:
    settings = TokenPruningSettings.of(schedule=(1.0, 0.5, 0.25), epochs=0)
    trained = tokens.train(checkpoint.folder, out=tmp_path, settings=settings)
    assert trained.manifest.structure.tokens == (1.0, 0.5, 0.25)
    before, after = load(checkpoint.folder).state_dict(), load(trained.folder).state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before), "0 epochs train nothing"


def test_a_penalty_keeps_fewer_tokens(checkpoint: Checkpoint) -> None:
    """The gradient of the penalty alone lowers every retention and raises every threshold."""
    model = load(checkpoint.folder)
    ids = torch.randint(5, 50, (4, 9), generator=torch.Generator().manual_seed(0))
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": torch.zeros_like(ids),
    }
    labels = torch.tensor([0, 1, 0, 1])
    for rule, sign in (("share", 1), ("threshold", -1)):
        slopes = []
        for penalty in (0.0, 1.0):
            soft = tokens.Soft(model, HeadLoss(checkpoint.task), rule, penalty).eval()
            if rule == "threshold":
                soft.raw.data.fill_(1 / 9 / tokens._THRESHOLD_GAIN)  # among the scores of nine tokens
            soft(labels=labels, **inputs)["loss"].backward()
            assert soft.raw.grad is not None
            slopes.append(soft.raw.grad.clone())
        assert ((slopes[1] - slopes[0]) * sign > 0).all()


def test_the_soft_stage_starts_with_the_loss_of_the_model(checkpoint: Checkpoint) -> None:
    """With r = 1 no token is scaled."""
    model = load(checkpoint.folder)
    ids = torch.randint(5, 50, (3, 7), generator=torch.Generator().manual_seed(0))
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": torch.zeros_like(ids),
    }
    labels = torch.tensor([0, 1, 1])
    soft = tokens.Soft(model, HeadLoss(checkpoint.task), "share", 0.0).eval()
    expected = model(**inputs, labels=labels).loss
    assert torch.allclose(soft(labels=labels, **inputs)["loss"], expected, atol=1e-6)


def test_exits_can_be_added_after_token_pruning_but_not_before(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path
) -> None:
    short = tokens.train(
        checkpoint.folder,
        out=tmp_path,
        settings=TokenPruningSettings.of(schedule=(0.9, 0.6, 0.3), max_steps=2),
    )
    both = exits.train(short.folder, out=tmp_path, settings=EarlyExitSettings.of(max_steps=2, max_drop=0.5))
    remaining = structure(load(both.folder))
    assert remaining.tokens == (0.9, 0.6, 0.3) and remaining.exits == (1, 2)
    with pytest.raises(UsageError, match="prune tokens first"):
        tokens.train(
            both.folder, out=tmp_path, settings=TokenPruningSettings.of(schedule=(1, 1, 1)), name="no"
        )
    with pytest.raises(UsageError, match="which depend on its weights"):
        finetune("sst2", both.folder, out=tmp_path, name="no", data_folder=rows_folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (TokenPruningSettings.of(schedule=(1.0, 0.5)), "expected 3 numbers, one per layer, got 2"),
        (
            TokenPruningSettings.of(keep=0.5, penalty=0, max_steps=1),
            "to keep 0.5: 1 steps at learning rate 5e-05 are too few; raise max_steps or lr, or set",
        ),
        (
            TokenPruningSettings.of(keep=0.5, penalty=0, soft_epochs=0.4),
            "2 steps at learning rate .* raise soft_epochs or lr",
        ),
    ],
)
def test_wrong_settings_are_refused_without_writing_files(
    checkpoint: Checkpoint, settings: TokenPruningSettings, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        tokens.train(checkpoint.folder, out=tmp_path / "here", settings=settings)
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(
    ("settings", "steps", "distance", "advice"),
    [  # in one step, shares change by at most 100 lr, thresholds by 10 lr; on average by half of that
        (TokenPruningSettings.of(), 199, 0.5, "soft_epochs or lr"),
        (TokenPruningSettings.of(), 201, 0.5, "penalty, now 0.3"),
        (TokenPruningSettings.of(rule="threshold", max_steps=150), 150, 0.04, "max_steps or lr"),
        (TokenPruningSettings.of(rule="threshold", lr=1e-3), 150, 0.04, "penalty, now 0.3"),
    ],
)
def test_a_higher_penalty_is_advised_only_if_the_steps_suffice(
    settings: TokenPruningSettings, steps: int, distance: float, advice: str
) -> None:
    assert tokens._advice(settings, steps, distance).endswith(f"raise {advice}")


def test_the_default_name_contains_reduced_layers_and_length(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    trained = finetune(
        "sst2", encoders["roberta"], out=tmp_path, data_folder=rows_folder,
        settings=FinetuneSettings.of(layers=2, max_length=8, max_steps=2),
    )  # fmt: skip
    assert trained.name == "sst2-roberta-full-layers2-seq8-s0"
    assert [layer.index for layer in trained.manifest.structure.layers] == [0, 1]
    assert trained.manifest.weight_remaining < 1
    at_limit = evaluate.at_length(trained.folder, 8)
    assert at_limit["accuracy"] == trained.manifest.metrics["accuracy"] and at_limit["cut"] == 0
    shorter = evaluate.at_length(trained.folder, 5)
    assert 0 < shorter["cut"] <= 1
    with pytest.raises(UsageError, match="reads at most 65 tokens"):
        evaluate.at_length(trained.folder, 66)
    with pytest.raises(UsageError, match="layers 4: the model has 3 layers"):
        finetune("sst2", encoders["bert"], out=tmp_path, data_folder=rows_folder,
                 settings=FinetuneSettings.of(layers=4))  # fmt: skip


def test_fine_tuning_a_reduced_checkpoint_keeps_its_structure(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path
) -> None:
    from effx.models import prune

    model = prune(load(checkpoint.folder), heads={1: [0, 2]}, ffns=[0])
    ticket = save(
        model, tmp_path / "t", tokenizer=checkpoints.tokenizer(checkpoint.folder), task=checkpoint.task
    )
    quick = FinetuneSettings.of(max_steps=2, max_length=32)
    again = finetune("sst2", ticket.folder, out=tmp_path, name="a", data_folder=rows_folder, settings=quick)
    assert again.manifest.structure == ticket.manifest.structure
    assert again.manifest.weight_remaining == ticket.manifest.weight_remaining
    thinner = finetune(
        "sst2", ticket.folder, out=tmp_path, name="b", data_folder=rows_folder,
        settings=FinetuneSettings.of(max_steps=2, max_length=32, layers=2),
    )  # fmt: skip
    assert [layer.heads for layer in thinner.manifest.structure.layers] == [(0, 1, 2, 3), (1, 3)]
    assert add_ramps(load(thinner.folder)).ramps.keys() == {"1"}


@pytest.mark.parametrize("rule", TOKEN_RULES)
def test_the_scale_with_the_fewest_tokens_before_the_first_failure_is_proven(
    checkpoint: Checkpoint, rule: str
) -> None:
    source = sources.open_source(checkpoint.folder, None, TrainingSettings())
    learned = (0.5, 0.3, 0.1) if rule == "share" else (0.02, 0.05, 0.3)
    rows, labels = source.encode(source.held_out), np.asarray(source.held_out.labels)
    before = source.task.predict(evaluate.logits(source.model, rows))
    settings = TokenPruningSettings.of(rule=rule, max_drop=0.2, confidence=0.9)
    proof = tokens.prove(source.model, source, settings, learned, before)
    remaining = structure(source.model)
    chosen = remaining.tokens if rule == "share" else remaining.token_thresholds
    expected = None
    for scale in tokens.SCALES:
        schedule = tokens._scaled(rule, learned, scale)
        tokens._set(source.model, rule, schedule)
        after = source.task.predict(evaluate.reduced(source.model, rows)[0])
        low, _ = intervals.paired_accuracy_interval(before == labels, after == labels, confidence=0.8)
        if low < -0.2:
            break
        expected = schedule
    assert expected is not None and chosen == pytest.approx(expected, abs=6e-4)
    assert proof.proven and proof.bound <= 0.2
    strict = TokenPruningSettings.of(rule=rule, max_drop=0.001)
    assert not tokens.prove(source.model, source, strict, learned, before).proven
    kept = structure(source.model)
    assert (kept.tokens == (1.0,) * 3) if rule == "share" else (kept.token_thresholds == (0.0,) * 3)


def test_a_loss_that_cannot_be_proven_keeps_all_tokens_and_is_reported(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = TokenPruningSettings.of(max_drop=0.01, lr=1e-3, soft_epochs=1, epochs=0, penalty=1.0)
    trained = tokens.train(checkpoint.folder, out=tmp_path, settings=settings)
    record = trained.manifest.tokens
    assert record is not None and record.target is not None and record.calibration is not None
    assert record.target.max_drop == 0.01 and not record.calibration.proof.proven
    assert trained.manifest.structure.tokens == (1.0, 1.0, 1.0)
    assert "no schedule is proven to lose at most 0.01" in capsys.readouterr().err
