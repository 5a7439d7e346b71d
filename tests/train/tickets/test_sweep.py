from __future__ import annotations

import contextlib
import json
import operator
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

import effx
from effx import data
from effx.artifacts import Checkpoint
from effx.encoding import Encoder
from effx.errors import TrainingError, UsageError
from effx.export import export_all
from effx.models import evaluate, load, pretrained, structure
from effx.specs.tasks import TASKS
from effx.specs.training import TicketSearchSettings
from effx.train import importance, tickets, workspace
from effx.train.tickets import Level, draw
from effx.train.tickets.cells import Cell, Record, Workspace
from effx.train.tickets.plan import removal

QUICK = TicketSearchSettings.of(
    levels=(Level(20), Level(40)), seeds=2, kinds=("winning", "losing"), epochs=1.0, max_length=32, lr=1e-3,
    limit=64, precision="fp32",
)  # fmt: skip


@pytest.fixture(scope="module")
def swept(
    tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path], rows_folder: Path
) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("sweep") / "sst2"
    return folder, tickets.run("sst2", encoders["bert"], out=folder, data_folder=rows_folder, settings=QUICK)


def open_workspace(
    folder: Path, encoders: dict[str, Path], rows: Path, settings: TicketSearchSettings
) -> Workspace:
    return Workspace(folder, "sst2", str(encoders["bert"]), rows, settings)


def test_cells_are_checkpoints_cut_as_their_scores_say(
    swept: tuple[Path, dict], encoders: dict[str, Path], rows_folder: Path
) -> None:
    folder, table = swept
    assert len(Checkpoint.find(folder / "checkpoints")) == 2 * (1 + 2 * 2)
    validation = data.load(TASKS["sst2"], "validation", rows_folder)
    for seed in (0, 1):
        full = Checkpoint.open(folder / f"checkpoints/sst2-bert-full-s{seed}")
        found, about = importance.read(folder / f"checkpoints/sst2-bert-full-s{seed}.importance.json")
        assert about["checkpoint"] == full.digest
        model = load(full)
        encoded = Encoder(full.folder, 32)(data.load(TASKS["sst2"], "train", rows_folder).limit(64).texts)
        labels = data.load(TASKS["sst2"], "train", rows_folder).limit(64).labels
        names = ["input_ids", "attention_mask", "token_type_ids"]
        again = importance.measure(model, importance.batches_of(encoded, labels, names, 16, 9))
        assert np.allclose(found.heads, again.heads, atol=1e-5)  # whatever the batches
        for kind in ("winning", "losing"):
            for level in QUICK.levels:
                made = Checkpoint.open(folder / f"checkpoints/sst2-bert-{kind}{level.name}-s{seed}")
                gone = removal(found, structure(model), level, kind, seed=seed)
                expected = structure(model).without(**gone.arguments())
                assert structure(load(made)).layers == expected.layers
                assert made.manifest["parent"] == full.digest
                assert made.manifest["ticket"]["kind"] == kind
                assert made.manifest["ticket"]["removed"] == gone.counts()
                logits = evaluate.logits(load(made), Encoder(made.folder, 32)(validation.texts))
                assert made.manifest["predictions"] == logits.argmax(1).tolist()
                cell = next(
                    cell for cell in table["cells"]
                    if (cell["kind"], cell["level"], cell["seed"]) == (kind, level.text, seed)
                )  # fmt: skip
                right = logits.argmax(1) == validation.labels
                assert cell["scores"]["whole"]["accuracy"] == right.mean()
                n = table["rows"]
                parts = cell["scores"]["rest"]["accuracy"] * n["rest"]
                assert parts + cell["scores"]["selection"]["accuracy"] * n["selection"] == pytest.approx(
                    right.sum()
                )


def test_one_ticket_alone_is_that_of_the_sweep(
    swept: tuple[Path, dict], encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """Bitwise: the same full model, scores, cut and training."""
    folder, _ = swept
    for seed, kind in ((0, "winning"), (1, "losing")):
        name = f"sst2-bert-{kind}40-s{seed}"
        alone = draw.draw(
            folder / f"checkpoints/sst2-bert-full-s{seed}", encoders["bert"], out=tmp_path, name=name,
            data_folder=rows_folder,
            settings=QUICK.ticket(Level(40), kind, seed),
        )  # fmt: skip
        made = Checkpoint.open(folder / "checkpoints" / name)
        for part in ("parent", "ticket", "structure", "metrics"):
            assert alone.manifest[part] == made.manifest[part]
        before, after = (load_file(place / "model.safetensors") for place in (made.folder, alone.folder))
        assert set(before) == set(after)
        assert all(torch.equal(before[key], after[key]) for key in before)
    with pytest.raises(UsageError, match="exists already"):
        draw.draw(made.folder, encoders["bert"], out=tmp_path, name=name, data_folder=rows_folder)


def test_a_ticket_starts_from_the_pretrained_weights(
    swept: tuple[Path, dict], encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """At a learning rate that rounds to nothing, what is saved is what training began with."""
    still = QUICK.replace(lr=1e-30, levels=(Level(40),), kinds=("winning",), seeds=1, max_steps=1)
    tickets.run("sst2", encoders["bert"], out=tmp_path / "w", data_folder=rows_folder, settings=still)
    folder = tmp_path / "w/checkpoints/sst2-bert-winning40-s0"
    kept = structure(load(folder)).layers
    got = load_file(folder / "model.safetensors")
    whole = load_file(encoders["bert"] / "model.safetensors")
    seen = set()
    for layer in kept:
        at = f"encoder.layer.{layer.index}."
        rows = [head * 8 + i for head in layer.heads for i in range(8)]
        for name in ("query", "key", "value") if rows else ():
            before = whole[f"{at}attention.self.{name}.weight"]
            assert torch.equal(got[f"bert.{at}attention.self.{name}.weight"], before[rows])
            seen.add(f"bert.{at}attention.self.{name}.weight")
        output = whole[f"{at}attention.output.dense.weight"]
        assert torch.equal(got[f"bert.{at}attention.output.dense.weight"], output[:, rows])
        assert (f"bert.{at}intermediate.dense.weight" in got) == bool(layer.intermediate)
    for key in got.keys() - seen:
        before = whole.get(key.removeprefix("bert."))
        if before is not None and before.shape == got[key].shape:  # a bias of 0 moves by 1e-30
            assert torch.allclose(got[key], before, rtol=0, atol=1e-20), key
    # the head is afresh, and that of the full model with this seed
    work = open_workspace(tmp_path / "w", encoders, rows_folder, still)
    assert torch.equal(got["classifier.weight"], work.pretrained(0).classifier.weight)
    assert not torch.equal(got["classifier.weight"], work.pretrained(1).classifier.weight)


def test_a_sweep_goes_on_and_grows(
    swept: tuple[Path, dict], encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "again"
    shutil.copytree(swept[0], folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("effx.json")}
    shutil.rmtree(folder / "checkpoints/sst2-bert-losing40-s1")
    (folder / "cells/sst2-bert-winning20-s0.json").unlink()
    (folder / "checkpoints/sst2-bert-full-s1.importance.json").unlink()
    shutil.rmtree(folder / "checkpoints/sst2-bert-full-s0")  # made again, its scores too
    arguments = ("sst2", encoders["bert"])
    tickets.run(*arguments, out=folder, data_folder=rows_folder, settings=QUICK)
    for name in ("table.json", "table.csv", "table.md", "phases.svg", "phases.png"):
        assert (folder / name).read_bytes() == (swept[0] / name).read_bytes(), name
    assert (folder / "checkpoints/sst2-bert-full-s0.importance.svg").is_file()
    again = ("losing40-s1", "full-s0")
    kept = [path for path in before if not any(name in str(path) for name in again)]
    assert all(path.stat().st_mtime_ns == before[path] for path in kept)
    wider = QUICK.replace(levels=(Level(20), Level(40), Level(50, 0)), kinds=("winning",), keep="winning")
    grown = tickets.run(*arguments, out=folder, data_folder=rows_folder, settings=wider)
    assert [row["level"] for row in grown["summary"]] == [None, "20", "40", "50/0"]
    assert grown["summary"][1] == swept[1]["summary"][1]
    with pytest.raises(UsageError, match=r"made with other settings: lr was 0.001, is 0.002. Give the same"):
        tickets.run(*arguments, out=folder, data_folder=rows_folder, settings=QUICK.replace(lr=2e-3))
    with pytest.raises(UsageError, match="other settings: model was bert, is electra"):
        tickets.run("sst2", encoders["electra"], out=folder, data_folder=rows_folder, settings=QUICK)


def quick_command(model: Path, rows: Path, folder: Path) -> list[str]:
    """The command that does what QUICK says."""
    return [sys.executable, "-m", "effx", "train", "tickets", "sst2", "--model", str(model),
            "--data", str(rows), "--levels", "20,40", "--seeds", "2", "--kinds", "winning,losing",
            "--epochs", "1", "--max-length", "32", "--lr", "1e-3", "--limit", "64", "--precision", "fp32",
            "-o", str(folder), "--json"]  # fmt: skip


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(effx.__file__).parents[1])}


def test_records_and_scores_are_enough_to_go_on_from(
    swept: tuple[Path, dict], encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    arguments, light = ("sst2", encoders["bert"]), QUICK.replace(keep="none")
    tickets.run(*arguments, out=tmp_path, data_folder=rows_folder, settings=light)
    assert not Checkpoint.find(tmp_path / "checkpoints")
    records = tmp_path / "cells"
    (records / "sst2-bert-losing40-s1.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in records.iterdir()}
    table = tickets.run(*arguments, out=tmp_path, data_folder=rows_folder, settings=light)
    assert table == swept[1]
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in before.items())
    (tmp_path / "checkpoints/sst2-bert-full-s1.importance.json").unlink()  # then its model is needed again
    assert tickets.run(*arguments, out=tmp_path, data_folder=rows_folder, settings=light) == swept[1]
    assert not Checkpoint.find(tmp_path / "checkpoints")


def test_processes_share_a_workspace(
    swept: tuple[Path, dict], encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    folder, first = tmp_path / "shared", "sst2-bert-full-s0"
    command = quick_command(encoders["bert"], rows_folder, folder)
    logs = [tmp_path / "a", tmp_path / "b"]
    with contextlib.ExitStack() as stack:
        with workspace.alone(folder, first):
            processes = [
                stack.enter_context(
                    subprocess.Popen(
                        command, stdout=subprocess.PIPE, stderr=stack.enter_context(log.open("w")),
                        text=True, env=ENVIRONMENT,
                    )
                )
                for log in logs
            ]  # fmt: skip
            until = time.monotonic() + 120
            while time.monotonic() < until and not any(
                f"works on {first}" in log.read_text() for log in logs
            ):
                time.sleep(0.05)
        for process in processes:
            out, _ = process.communicate(timeout=300)
            assert process.returncode == 0
            assert json.loads(out) == swept[1]
    trained = [re.findall(r"^(train|score) ([\w-]+):", log.read_text(), re.MULTILINE) for log in logs]
    cells = [("train", path.stem) for path in (folder / "cells").glob("*.json")]
    scored = [("score", f"sst2-bert-full-s{seed}") for seed in (0, 1)]
    assert sorted(trained[0] + trained[1]) == sorted(cells + scored)  # each once
    assert len(cells) == 10 and all(trained)
    held = [path.name for path in (folder / "locks").iterdir() if path.name != ".guard"]
    assert held == []


@pytest.mark.slow
def test_a_killed_sweep_ends_with_the_same_table(
    swept: tuple[Path, dict], encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    command = quick_command(encoders["bert"], rows_folder, folder)

    def killed_once(ready: Callable[[], bool]) -> None:
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT
        ) as process:
            while process.poll() is None and not ready():
                time.sleep(0.01)
            process.kill()

    def made(n: int) -> Callable[[], bool]:
        return lambda: len(list((folder / "checkpoints").glob("*/effx.json"))) >= n

    killed_once(lambda: bool(list((folder / "checkpoints").glob(".*.tmp"))))  # while one is written
    killed_once(made(2))
    killed_once(made(5))
    assert not (folder / "table.json").exists()
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT)
    assert json.loads(done.stdout) == swept[1]
    assert (folder / "table.json").read_bytes() == (swept[0] / "table.json").read_bytes()


def test_min_heads_neurons_and_separate_levels(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    settings = QUICK.replace(
        levels=(Level(90, 25),), seeds=1, kinds=("random",), min_heads=0, granularity="neurons",
        max_steps=1, patience=1, importance="magnitude", keep="winning",
    )  # fmt: skip
    table = tickets.run(
        "sst2", encoders["distilbert"], out=tmp_path / "n", data_folder=rows_folder, settings=settings
    )
    assert table["cells"][1]["removed"] == {"heads": 10, "ffns": 0, "neurons": 48}
    assert table["super"] is None and table["phases"] is None
    assert [path.name for path in Checkpoint.find(tmp_path / "n/checkpoints")] == ["sst2-distilbert-full-s0"]
    with pytest.raises(UsageError, match="level 90/25 removes 10 of 12 heads, but min_heads 1 keeps 3"):
        tickets.run(
            "sst2", encoders["distilbert"], out=tmp_path / "m", data_folder=rows_folder,
            settings=settings.replace(min_heads=1),
        )  # fmt: skip
    assert not (tmp_path / "m").exists()


HALVING = QUICK.replace(levels=tuple(Level(p) for p in (10, 20, 40, 60)), search="halving", epochs=5.0
)  # fmt: skip


@pytest.fixture(scope="module")
def halved(
    tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path], rows_folder: Path
) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("halved")
    table = tickets.run("sst2", encoders["bert"], out=folder, data_folder=rows_folder, settings=HALVING)
    return folder, table


def test_halving_counts_what_it_trains(halved: tuple[Path, dict]) -> None:
    folder, table = halved
    search, steps = table["search"], 10  # two an epoch
    assert [len(rung["levels"]) for rung in search["rungs"]] == [4, 2]
    first, second = (rung["steps"] for rung in search["rungs"])
    assert 0 < first < second < steps
    # two levels leave after the first rung, one after the second, one and the full models take all
    assert search["steps"] == 2 * first + second + 2 * steps + 2 * steps
    assert search["grid_steps"] == 5 * 2 * steps
    assert search["share"] == search["steps"] / search["grid_steps"]
    last = search["rungs"][-1]["levels"]
    assert table["super"]["level"] == max(last, key=lambda one: np.mean(one["scores"]))["level"]
    assert {row["level"] for row in table["summary"]} == {None, table["super"]["level"]}
    assert not list((folder / "checkpoints").glob("*-at*"))
    assert not (folder / "paused").exists()
    begun = [json.loads(path.read_bytes())["steps"] for path in (folder / "cells").glob("*-at*.json")]
    assert sorted(begun) == [first] * 4 + [second] * 2
    manifest = Checkpoint.open(folder / "checkpoints" / table["super"]["checkpoints"][0]).manifest
    told = [json.loads(path.read_bytes())["seconds"] for path in (folder / "cells").glob("*-at*.json")]
    assert manifest["training"]["seconds"] > min(told) > 0  # of the whole run


def test_halving_claims_no_share_of_a_grid_that_may_stop_early(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    settings = HALVING.replace(seeds=1, patience=1, epochs=4.0)
    table = tickets.run("sst2", encoders["bert"], out=tmp_path, data_folder=rows_folder, settings=settings)
    assert table["search"]["share"] is None
    assert "the grid takes at most " in (tmp_path / "table.md").read_text()


def test_halvings_last_level_is_the_grids(
    halved: tuple[Path, dict], encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    folder, table = halved
    best = table["super"]["level"]
    settings = HALVING.replace(search="grid", levels=(Level(int(best)),), kinds=("winning",))
    grid = tickets.run(
        "sst2", encoders["bert"], out=tmp_path / "g", data_folder=rows_folder, settings=settings
    )
    by_name = operator.itemgetter("checkpoint")
    assert sorted(grid["cells"], key=by_name) == sorted(table["cells"], key=by_name)
    for name in grid["super"]["checkpoints"]:
        weights = [place / "checkpoints" / name / "model.safetensors" for place in (folder, tmp_path / "g")]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def test_halving_goes_on_where_it_was_killed(
    halved: tuple[Path, dict], encoders: dict[str, Path], rows_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    record = Workspace._record

    class KilledError(Exception):
        pass

    # before or after the record of that many cells from here on
    for kill, recorded in ((3, False), (2, True), (4, False), (2, True), (1, False)):
        left = [kill]

        def dies(self: Workspace, cell: Cell, made: Checkpoint, left=left, recorded=recorded) -> Record:  # type: ignore[no-untyped-def]
            left[0] -= 1
            if left[0]:
                return record(self, cell, made)
            if recorded:
                with monkeypatch.context() as patch:  # the checkpoint is still there
                    patch.setattr(shutil, "rmtree", lambda *_, **__: None)
                    record(self, cell, made)
            raise KilledError

        monkeypatch.setattr(Workspace, "_record", dies)
        with pytest.raises(KilledError):
            tickets.run("sst2", encoders["bert"], out=tmp_path, data_folder=rows_folder, settings=HALVING)
    monkeypatch.undo()
    table = tickets.run("sst2", encoders["bert"], out=tmp_path, data_folder=rows_folder, settings=HALVING)
    assert table == halved[1]
    assert not list((tmp_path / "checkpoints").glob("*-at*")) and not (tmp_path / "paused").exists()


def test_a_ticket_exports_without_what_it_lost(swept: tuple[Path, dict], tmp_path: Path) -> None:
    folder, _ = swept
    names = ["sst2-bert-full-s0", "sst2-bert-winning40-s0"]
    engines, failures = export_all([folder / "checkpoints" / name for name in names], ["fp32"], out=tmp_path)
    assert not failures
    full, ticket = engines
    layers = ticket.manifest["structure"]["layers"]
    assert sum(4 - len(layer["heads"]) for layer in layers) == 4  # floor(40 % of 12)
    gone = sum(layer["intermediate"] == 0 for layer in layers)
    assert gone == 1
    products = [engine.manifest["audit"]["weight_products"] for engine in engines]
    empty = sum(not layer["heads"] for layer in layers)
    assert products[0] - products[1] == 2 * gone + 4 * empty
    removed = ticket.manifest["parameters_removed"]
    per_head, per_ffn = 8 * 32 * 4 + 8 * 3, 2 * 32 * 64 + 64 + 32
    assert removed == 4 * per_head + gone * per_ffn
    assert full.manifest["parameters"] - ticket.manifest["parameters"] == removed
    assert full.size_bytes - ticket.size_bytes > 3.5 * removed  # bytes of fp32 weights really gone
    session = onnxruntime.InferenceSession(ticket.folder / "model.onnx")
    ones = np.ones((1, 8), dtype=np.int64)
    (logits,) = session.run(None, {name: ones for name in ticket.input_names})
    with torch.no_grad():
        expected = load(folder / "checkpoints" / names[1])(
            **{name: torch.from_numpy(ones) for name in ticket.input_names}
        ).logits
    assert np.allclose(logits, expected.numpy(), atol=1e-4)


def test_wrong_settings_leave_nothing(encoders: dict[str, Path], rows_folder: Path, tmp_path: Path) -> None:
    for settings, message in (
        (QUICK.replace(max_length=300), "max_length 300"),
        (QUICK.replace(levels=(Level(1),)), "level 1 removes nothing of a model with 12 heads"),
    ):
        with pytest.raises(UsageError, match=message):
            tickets.run(
                "sst2", encoders["bert"], out=tmp_path / "w", data_folder=rows_folder, settings=settings
            )
    assert not (tmp_path / "w").exists()


def test_settings_that_made_nothing_bind_nobody(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    once = QUICK.replace(levels=(Level(40),), kinds=("winning",), seeds=1, max_steps=1)
    arguments = ("sst2", encoders["bert"])
    with pytest.raises(TrainingError, match="training diverged"):
        tickets.run(
            *arguments, out=tmp_path, data_folder=rows_folder, settings=once.replace(lr=1e30, max_steps=3)
        )
    with workspace.alone(tmp_path, "a cell"), pytest.raises(UsageError, match=r"lr was 1e\+30, is 0.001"):
        open_workspace(tmp_path, encoders, rows_folder, once)
    tickets.run(*arguments, out=tmp_path, data_folder=rows_folder, settings=once)
    with pytest.raises(UsageError, match="lr was 0.001, is 0.01"):
        tickets.run(*arguments, out=tmp_path, data_folder=rows_folder, settings=once.replace(lr=0.01))


def test_a_sweep_of_a_checkpoint_has_fresh_heads(
    swept: tuple[Path, dict], rows_folder: Path, tmp_path: Path
) -> None:
    own = swept[0] / "checkpoints/sst2-bert-winning40-s0"
    work = Workspace(tmp_path, "sst2", str(own), rows_folder, QUICK.replace(levels=(Level(30),)))
    before, models = load(own), [work.pretrained(seed) for seed in (0, 0, 1)]
    for model in models:
        assert torch.equal(model.bert.pooler.dense.weight, before.bert.pooler.dense.weight)
        assert not torch.equal(model.classifier.weight, before.classifier.weight)
        assert not model.classifier.bias.any()
    assert torch.equal(models[0].classifier.weight, models[1].classifier.weight)
    assert not torch.equal(models[0].classifier.weight, models[2].classifier.weight)
    kept, _ = pretrained(own, TASKS["sst2"])  # to fine-tune on is not to begin anew
    assert torch.equal(kept.classifier.weight, before.classifier.weight)


def test_the_preset_is_the_published_one_and_options_prevail() -> None:
    assert tickets.preset("super-tickets", "mnli")["head_dropout"] == 0.3
    assert tickets.preset("super-tickets", "rte")["optimizer"] == "adamax"
    with pytest.raises(UsageError, match="Did you mean 'super-tickets'"):
        tickets.preset("super-ticket", "rte")


def test_pretrained_heads_differ_by_seed_alone(encoders: dict[str, Path]) -> None:
    model, _ = pretrained(encoders["bert"], TASKS["sst2"])
    assert structure(model).layers[0].heads == (0, 1, 2, 3)
    assert Cell("winning", Level(20, 10), 3, 40).name("a-b") == "a-b-winning20-10-s3-at40"
