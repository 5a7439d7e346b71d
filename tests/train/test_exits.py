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
from effx.models import add_ramps, checkpoints, evaluate, load, prune, save, structure
from effx.models.exits import rule_of
from effx.specs import exit_rules
from effx.specs.exit_rules import ExitRule
from effx.specs.tasks import get
from effx.specs.training import EXIT_MODES, EarlyExitSettings, FinetuneSettings, TokenPruningSettings
from effx.train import exits, finetune, tokens
from effx.train.source import held_out, rows_digest, split


@pytest.mark.parametrize("mode", EXIT_MODES)
def test_each_mode_trains_its_parameters(checkpoint: Checkpoint, mode: str, tmp_path: Path) -> None:
    settings = EarlyExitSettings.of(mode=mode, max_steps=3, epochs=1, max_drop=0.5, seed=3)
    made = exits.train(checkpoint.folder, out=tmp_path, settings=settings)
    assert made.name == "tiny-exits"
    before = load_file(checkpoint.folder / "model.safetensors")
    after = load_file(made.folder / "model.safetensors")
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert bool(changed) == (mode == "joint")
    assert {key.split(".")[1] for key in after.keys() - before.keys()} == {"1", "2"}
    assert made.manifest["parent"] == checkpoint.digest
    assert made.manifest["structure"]["exits"] == [1, 2]
    assert made.manifest["exits"]["mode"] == mode
    assert made.manifest["training"]["regime"] == "full"  # of the checkpoint that they stand on
    assert made.manifest["parameters"] > checkpoint.manifest["parameters"]
    assert made.manifest["weight_remaining"] == 1.0  # nothing is gone, and ramps do not stand in for it


def test_the_manifest_says_what_the_checkpoint_does(
    checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path
) -> None:
    made = exits.train(
        checkpoint.folder,
        out=tmp_path,
        settings=EarlyExitSettings.of(epochs=4, rule="max-probability", depth=2.0),
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
    same = exits.lost(get(task), labels, own, own)
    assert same["lost"] == 0.0
    if task == "stsb":  # no prediction differs: a bootstrap has nothing to draw
        assert same["lost_at_least"] is None
    else:  # Tango's interval has width all the same: z^2 / (n + z^2)
        assert same["lost_at_least"] == pytest.approx(-(1.645**2) / (n + 1.645**2), abs=1e-4)


@pytest.mark.parametrize(("least", "target", "told"), [(0.04, "max_drop", True), (0.02, "max_drop", False),
                                                        (0.04, "depth", False)])  # fmt: skip
def test_a_promise_that_validation_breaks_is_told(
    least: float, target: str, told: bool, checkpoint: Checkpoint, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(exits, "lost", lambda *_: {"lost": 0.05, "lost_at_least": least})
    wanted = {"max_drop": 0.03} if target == "max_drop" else {"depth": 2.9}
    exits.train(checkpoint.folder, out=tmp_path, settings=EarlyExitSettings.of(max_steps=2, **wanted))
    line = "asked to lose at most 0.03, exits lose 0.0500 on the validation rows (at least 0.0400, 95 %)"
    assert (line in capsys.readouterr().err) == told


def test_exits_come_on_top_of_a_ticket(checkpoint: Checkpoint, tmp_path: Path, rows_folder: Path) -> None:
    model = prune(load(checkpoint.folder), heads={0: [0, 1, 2, 3]}, ffns=[1])
    about = {"kind": "winning", "level": "40"}
    ticket = save(
        model, tmp_path / "ticket", tokenizer=checkpoints.tokenizer(checkpoint.folder), task=checkpoint.task,
        max_length=32, data=str(rows_folder), training=dict(checkpoint.manifest["training"]), ticket=about,
    )  # fmt: skip
    made = exits.train(
        ticket.folder, out=tmp_path, settings=EarlyExitSettings.of(max_steps=2, after=(2,), depth=2.9)
    )
    kept = structure(load(made.folder))
    assert kept.exits == (2,)
    assert kept.layers == structure(model).layers
    assert made.manifest["ticket"] == about
    assert made.manifest["weight_remaining"] == ticket.manifest["weight_remaining"] < 1


def test_engines_say_what_is_gone_of_a_ticket_with_exits(
    checkpoint: Checkpoint, tmp_path: Path, rows_folder: Path
) -> None:
    """Of a checkpoint of an older release too, whose own figure has the ramps in it."""
    model = add_ramps(prune(load(checkpoint.folder), heads={0: [0]}))
    old = save(
        model, tmp_path / "old", tokenizer=checkpoints.tokenizer(checkpoint.folder), task=checkpoint.task,
        max_length=32, data=str(rows_folder), weight_remaining=1.003,
    )  # fmt: skip
    (engine,), failures = export_all([old.folder], ["fp32"], out=tmp_path / "engines")
    assert not failures
    per_head = 8 * 32 * 4 + 8 * 3
    assert engine.manifest["parameters_removed"] == per_head
    whole = checkpoint.manifest["parameters"]
    assert engine.manifest["weight_remaining"] == (whole - per_head) / whole
    assert engine.manifest["parameters"] == old.manifest["parameters"] > whole


def test_calibration_rows_are_those_the_checkpoint_has_not_seen(rows_folder: Path) -> None:
    rows = data.load(get("sst2"), "train", rows_folder)
    known = {"rows_digest": rows_digest(rows)}
    fit, held, seen = split(rows, {**known, "limit": 100}, None, 0)
    assert set(fit) == set(rows.subset(100)) and not set(held) & set(fit) and seen == 0
    fit, held, seen = split(rows, {**known, "held_out_rows": 16, "seed": 4}, None, 0)
    assert set(held) == set(held_out(160, 4)) and not set(held) & set(fit) and seen == 0
    fit, held, seen = split(rows, known, None, 0)
    assert len(held) == 16 and len(fit) == 144 and seen == 16


@pytest.mark.parametrize(("limit", "held_rows", "seen_rows"), [(159, 15, 14), (150, 15, 5), (140, 20, 0)])
def test_few_unseen_rows_are_joined_by_seen_ones(
    limit: int, held_rows: int, seen_rows: int, rows_folder: Path
) -> None:
    rows = data.load(get("sst2"), "train", rows_folder)
    fit, held, seen = split(rows, {"rows_digest": rows_digest(rows), "limit": limit}, None, 0)
    assert (len(held), seen) == (held_rows, seen_rows)
    assert not set(held) & set(fit)
    assert set(fit) | set(held) == set(range(160))
    assert len(set(held) & set(rows.subset(limit))) == seen_rows


def test_what_is_not_known_is_not_called_unseen(rows_folder: Path) -> None:
    rows = data.load(get("sst2"), "train", rows_folder)
    for training in ({"source": "elsewhere"}, {"source": rows.source, "limit": 100},
                     {"source": rows.source, "held_out_rows": 16, "seed": 4},
                     {"source": rows.source, "rows_digest": "of other rows"}):  # fmt: skip
        assert split(rows, training, None, 0)[2] is None, training
    _, held, seen = split(rows, {"source": rows.source}, None, 0)
    assert seen == len(held) == 16, "an older release's checkpoint, trained on all of them"
    _, held, _ = split(rows, {"source": "elsewhere", "limit": 100}, None, 0)
    assert not set(held) & set(rows.subset(100)), "if they are the same rows, these are unseen"


def test_rows_are_known_wherever_they_lie(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shutil.copytree(rows_folder, tmp_path / "rows")
    monkeypatch.chdir(tmp_path)
    quick, one = FinetuneSettings.of(max_steps=1, max_length=32), EarlyExitSettings.of(max_steps=1, depth=2.9)

    def calibration(checkpoint: Path, name: str, **options: Any) -> dict[str, Any]:
        made = exits.train(checkpoint, out=tmp_path, name=name, settings=one, **options)
        found: dict[str, Any] = made.manifest["exits"]["calibration"]
        return found

    made = finetune("sst2", encoders["bert"], out=tmp_path, name="a", data_folder="rows", settings=quick)
    assert calibration(made.folder, "b")["seen_in_training"] is True
    assert "a was trained on 16 of the 16 held-out rows" in capsys.readouterr().err
    shutil.move(tmp_path / "rows", tmp_path / "moved")
    assert calibration(made.folder, "c", data_folder="moved")["seen_in_training"] is True
    fewer = quick.replace(limit=99)
    part = finetune("sst2", encoders["bert"], out=tmp_path, name="d", data_folder="moved", settings=fewer)
    found = calibration(part.folder, "e")
    assert (found["seen_in_training"], found["rows"]) == (False, 61)
    capsys.readouterr()
    again = finetune("sst2", made.folder, out=tmp_path, name="g", data_folder="moved", settings=fewer)
    assert calibration(again.folder, "h")["seen_in_training"] is None  # what it was made from saw all
    assert "g: it is unknown whether it was trained on the 61 held-out rows" in capsys.readouterr().err
    train = tmp_path / "moved/train.jsonl"
    train.write_text(train.read_text().partition("\n")[2])  # one row fewer: the rest it may have seen
    schedule = TokenPruningSettings.of(schedule=(1, 1, 0.5), max_steps=1)
    short = tokens.train(part.folder, out=tmp_path, data_folder="moved", settings=schedule)
    assert calibration(short.folder, "i")["seen_in_training"] is None


def test_what_tokens_lose_exits_do_not(checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path) -> None:
    rows = data.load(checkpoint.task, "validation", rows_folder)
    encoded = Encoder(checkpoint.folder, 32)(rows.texts)

    def accuracy(logits: np.ndarray) -> float:
        return float((logits.argmax(1) == rows.labels).mean())

    for seed in range(20):  # until the tokens lose something, and the exits something else
        out = tmp_path / str(seed)
        made = exits.train(
            pruned_at_random(checkpoint, encoded, seed, out).folder,
            out=out,
            settings=EarlyExitSettings.of(max_steps=2, mode="joint", depth=2.0, precision="fp32"),
        )
        model = load(made.folder)
        plain = accuracy(evaluate.logits(model, encoded))
        logits, _, kept = evaluate.reduced(model, encoded)
        pruned = accuracy(logits)
        left = accuracy(evaluate.reduced(model, encoded, rule=rule_of(made))[0])
        if len({plain, pruned, left}) == 3:
            break
    else:
        pytest.fail("no model found that shows anything")
    assert made.manifest["metrics"]["accuracy"] == pytest.approx(plain)
    assert made.manifest["exits"]["validation"]["lost"] == pytest.approx(pruned - left)
    told = made.manifest["tokens"]
    assert (told["rule"], told["target"]) == ("share", None)
    assert told["validation"]["accuracy"] == pytest.approx(pruned)
    assert told["validation"]["kept"] == pytest.approx((kept / encoded.lengths[:, None]).mean(0))


def pruned_at_random(checkpoint: Checkpoint, encoded: Encoded, seed: int, out: Path) -> Checkpoint:
    """Return a checkpoint that answers otherwise when tokens go, half of the rows each class."""
    model, generator = load(checkpoint.folder), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.5, generator=generator)
        model.classifier.bias -= torch.from_numpy(np.median(evaluate.logits(model, encoded), 0))
    wild = save(
        model, out / "wild", tokenizer=checkpoints.tokenizer(checkpoint.folder), task=checkpoint.task,
        max_length=32, data=checkpoint.data, training=dict(checkpoint.manifest["training"]),
    )  # fmt: skip
    return tokens.train(
        wild.folder, out=out, settings=TokenPruningSettings.of(schedule=(0.3, 0.1, 0.1), epochs=0)
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (EarlyExitSettings.of(after=(3,)), "layer 3 cannot have an exit"),
        (EarlyExitSettings.of(depth=0.5, max_steps=1), "more than 0.50"),
    ],
)
def test_wrong_settings_are_one_line_and_leave_nothing(
    checkpoint: Checkpoint, settings: EarlyExitSettings, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        exits.train(checkpoint.folder, out=tmp_path / "here", settings=settings)
    assert not (tmp_path / "here").exists() or not list((tmp_path / "here").iterdir())


def test_a_checkpoint_without_exits_has_no_rule(checkpoint: Checkpoint) -> None:
    with pytest.raises(UsageError, match="has no exits. Make some with: effx train exits"):
        rule_of(checkpoint)
    assert ExitRule.from_json({"rule": "patience", "threshold": None, "patience": 2}).patience == 2
