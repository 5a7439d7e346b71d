from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from effx import data, exit_rules
from effx.artifacts import Checkpoint
from effx.encoding import Encoder
from effx.errors import UsageError
from effx.exit_rules import ExitRule
from effx.models import io, load, prune, save, structure
from effx.models.exits import rule_of
from effx.tasks import get
from effx.train import evaluate, exits
from effx.train.exits import Settings
from effx.train.source import held_out, split


@pytest.mark.parametrize("regime", exits.REGIMES)
def test_regimes_move_what_they_say(checkpoint: Checkpoint, regime: str, tmp_path: Path) -> None:
    settings = Settings(regime=regime, max_steps=3, epochs=1, max_drop=0.5, seed=3)
    made = exits.train(checkpoint.folder, out=tmp_path, settings=settings)
    assert made.name == "tiny-exits"
    before = load_file(checkpoint.folder / "model.safetensors")
    after = load_file(made.folder / "model.safetensors")
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert bool(changed) == (regime == "joint")
    assert {key.split(".")[1] for key in after.keys() - before.keys()} == {"1", "2"}
    assert made.manifest["parent"] == checkpoint.digest
    assert made.manifest["structure"]["exits"] == [1, 2]
    assert made.manifest["exits"]["regime"] == regime
    assert made.manifest["training"]["regime"] == "full"  # of the checkpoint that they stand on
    assert made.manifest["weight_remaining"] > 1  # ramps weigh something


def test_the_manifest_says_what_the_checkpoint_does(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path
) -> None:
    made = exits.train(
        checkpoint.folder, out=tmp_path, settings=Settings(epochs=4, rule="max-probability", depth=2.0)
    )
    model, rule = load(made.folder), rule_of(made)
    rows = data.load(made.task, "validation", rows_folder)
    encoded = Encoder(made.folder, made.max_length)(rows.texts)
    one, depth, _ = evaluate.reduced(model, encoded, rule=rule, batch_size=1)
    many, again, _ = evaluate.reduced(model, encoded, rule=rule, batch_size=32)
    assert np.array_equal(depth, again) and np.allclose(one, many, atol=1e-5)
    found = made.manifest["exits"]["validation"]
    assert found["mean_depth"] == pytest.approx(depth.mean())
    assert found["accuracy"] == pytest.approx((one.argmax(1) == rows.labels).mean())
    heads = evaluate.head_logits(model, encoded)
    assert np.array_equal(exit_rules.simulate(rule, heads) + 1, depth)
    own = evaluate.logits(model, encoded)
    assert np.allclose(heads[-1], own, atol=1e-5)
    own_accuracy = (own.argmax(1) == rows.labels).mean()
    assert made.manifest["metrics"]["accuracy"] == pytest.approx(own_accuracy)
    assert found["lost"] == pytest.approx(own_accuracy - found["accuracy"])
    assert found["lost_at_least"] <= found["lost"]


@pytest.mark.parametrize(("task", "score"), [("sst2", 0.9 - 0.8), ("stsb", None)])
def test_what_is_lost_has_a_lower_bound(task: str, score: float | None) -> None:
    rng = np.random.default_rng(0)
    n = 1000
    if score is not None:  # 90 % right, and 80 % with exits: 120 rows lost, 20 gained
        labels = np.ones(n, dtype=np.int64)
        right = np.where(np.arange(n) < 900, 1.0, -1.0)
        left = np.where((np.arange(n) >= 120) & (np.arange(n) < 920), 1.0, -1.0)
        own, reduced = (np.stack([-some, some], 1) for some in (right, left))
        found = exits.lost(get(task), labels, own, reduced)
        error = np.sqrt((0.14 - 0.1**2) / n)
        assert found["lost"] == pytest.approx(score)
        assert found["lost_at_least"] == pytest.approx(score - 1.645 * error, abs=0.002)
    else:
        labels = rng.normal(size=n)
        own, reduced = (labels[:, None] + rng.normal(size=(n, 1)) * noise for noise in (0.1, 0.5))
        found = exits.lost(get(task), labels, own, reduced)
        assert 0 < found["lost_at_least"] < found["lost"] < 0.3
    assert exits.lost(get(task), labels, own, own) == {"lost": 0.0, "lost_at_least": 0.0}


@pytest.mark.parametrize(("least", "target", "told"), [(0.04, "max_drop", True), (0.02, "max_drop", False),
                                                        (0.04, "depth", False)])  # fmt: skip
def test_a_promise_that_validation_breaks_is_told(
    least: float, target: str, told: bool, checkpoint: Checkpoint, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(exits, "lost", lambda *_: {"lost": 0.05, "lost_at_least": least})
    wanted = {"max_drop": 0.03} if target == "max_drop" else {"depth": 2.9}
    exits.train(checkpoint.folder, out=tmp_path, settings=Settings(max_steps=2, **wanted))
    line = "asked to lose at most 0.03, exits lose 0.0500 on the validation rows (at least 0.0400, 95 %)"
    assert (line in capsys.readouterr().err) == told


def test_exits_come_on_top_of_a_ticket(checkpoint: Checkpoint, tmp_path: Path, rows_folder: Path) -> None:
    model = prune(load(checkpoint.folder), heads={0: [0, 1, 2, 3]}, ffns=[1])
    ticket = save(
        model, tmp_path / "ticket", tokenizer=io.tokenizer(checkpoint.folder), task=checkpoint.task,
        max_length=32, data=str(rows_folder), training=dict(checkpoint.manifest["training"]),
    )  # fmt: skip
    made = exits.train(ticket.folder, out=tmp_path, settings=Settings(max_steps=2, after=(2,), depth=2.9))
    kept = structure(load(made.folder))
    assert kept.exits == (2,)
    assert kept.layers == structure(model).layers


def test_calibration_rows_are_those_the_checkpoint_has_not_seen(rows_folder: Path) -> None:
    rows = data.load(get("sst2"), "train", rows_folder)
    source = rows.source
    fit, held, seen = split(rows, {"source": source, "limit": 100}, None, 0)
    assert set(fit) == set(rows.subset(100)) and not set(held) & set(fit) and not seen
    fit, held, seen = split(rows, {"source": source, "held_out_rows": 16, "seed": 4}, None, 0)
    assert set(held) == set(held_out(160, 4)) and not set(held) & set(fit) and not seen
    fit, held, seen = split(rows, {"source": source}, None, 0)
    assert len(held) == 16 and len(fit) == 144 and seen
    _, held, seen = split(rows, {"source": "elsewhere"}, None, 0)
    assert len(held) == 16 and not seen


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(regime="both"), "unknown regime 'both'"),
        (Settings(rule="confidence"), "unknown exit rule 'confidence'"),
        (Settings(pooling="max"), "unknown pooling 'max'"),
        (Settings(depth=2, max_drop=0.1), "exclude each other"),
        (Settings(after=(3,)), "no exit can stand after layer 3"),
        (Settings(depth=0.5, max_steps=1), "more than 0.50"),
    ],
)
def test_wrong_settings_are_one_line_and_leave_nothing(
    checkpoint: Checkpoint, settings: Settings, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        exits.train(checkpoint.folder, out=tmp_path / "here", settings=settings)
    assert not (tmp_path / "here").exists() or not list((tmp_path / "here").iterdir())


def test_a_checkpoint_without_exits_has_no_rule(checkpoint: Checkpoint) -> None:
    with pytest.raises(UsageError, match="has no exits. Make some with: effx train exits"):
        rule_of(checkpoint)
    assert ExitRule.from_json({"rule": "patience", "threshold": None, "patience": 2}).patience == 2
