from __future__ import annotations

import contextlib
import json
import operator
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from safetensors.torch import load_file

import effx
from effx import data
from effx.artifacts import Checkpoint
from effx.cli import run as run_command
from effx.encoding import Encoder
from effx.errors import EffxError, UsageError
from effx.export import export_all
from effx.host import locks
from effx.models import evaluate, load, pretrained, structure
from effx.recipe import sweeps
from effx.recipe.execute.store import CellRecord, CellStore
from effx.specs.distillation import DistillationSettings, GivenTeacher
from effx.specs.heads import HeadSettings
from effx.specs.levels import Level
from effx.specs.presets import preset
from effx.specs.tasks import TASKS
from effx.specs.tickets import TicketSearchSettings
from effx.tickets import scores as score_files
from effx.tickets.plan import removal
from effx.train import importance
from effx.train.tickets import draw
from tests.models.huggingface.saved import classifier

FRESH = HeadSettings(fresh_head=True)
QUICK = TicketSearchSettings.of(
    levels=(Level(20), Level(40)), seeds=2, kinds=("winning", "losing"), epochs=1.0, max_length=32, lr=1e-3,
    limit=64, precision="fp32",
)  # fmt: skip


@pytest.fixture(scope="module")
def swept(
    tmp_path_factory: pytest.TempPathFactory, encoders: dict[str, Path], rows_folder: Path
) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("sweep") / "sst2"
    return folder, sweeps.tickets(
        "sst2", encoders["bert"], out=folder, data_folder=rows_folder, settings=QUICK
    )


def cell_of(folder: Path, stage: str, name: str) -> Path:
    """The folder of a cell."""
    store = CellStore(folder)
    return next(store.cell(r.key) for r in store.records() if (r.stage, r.name) == (stage, name))


def fresh(model: Path, seed: int, head: HeadSettings | None = None) -> transformers.PreTrainedModel:
    """The pretrained model with the task head that a seed gives it."""
    transformers.set_seed(seed)
    return pretrained(model, TASKS["sst2"], head=head)[0]


def test_tickets_are_pruned_by_the_scores_of_their_full_model(
    swept: tuple[Path, dict], encoders: dict[str, Path], rows_folder: Path
) -> None:
    folder, table = swept
    assert len(Checkpoint.find(folder / "checkpoints")) == 2 * (1 + 2 * 2)
    validation = data.load(TASKS["sst2"], "validation", rows_folder)
    for seed in (0, 1):
        full = Checkpoint.open(folder / f"checkpoints/sst2-bert-full-s{seed}")
        scored, about = score_files.read(folder / f"importance-s{seed}.json")
        assert about["checkpoint"] == full.digest
        model = load(full)
        encoded = Encoder(full.folder, 32)(data.load(TASKS["sst2"], "train", rows_folder).limit(64).texts)
        labels = data.load(TASKS["sst2"], "train", rows_folder).limit(64).labels
        names = ["input_ids", "attention_mask", "token_type_ids"]
        again = importance.measure(model, importance.batches_of(encoded, labels, names, 16, 9))
        assert np.allclose(scored.heads, again.heads, atol=1e-5)  # whatever the batches
        for kind in ("winning", "losing"):
            for level in QUICK.levels:
                trained = Checkpoint.open(folder / f"checkpoints/sst2-bert-{kind}{level.name}-s{seed}")
                gone = removal(scored, structure(model), level, kind, seed=seed)
                expected = structure(model).without(**gone.arguments())
                assert structure(load(trained)).layers == expected.layers
                assert trained.manifest.parent == full.digest
                assert trained.manifest.ticket.kind == kind
                assert trained.manifest.ticket.removed == gone.counts()
                logits = evaluate.logits(load(trained), Encoder(trained.folder, 32)(validation.texts))
                assert trained.manifest.predictions == tuple(logits.argmax(1).tolist())
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


def test_a_search_tells_what_all_its_computations_took(swept: tuple[Path, dict]) -> None:
    folder = swept[0]
    cost = json.loads((folder / "cost.json").read_text())["cost"]
    store = CellStore(folder)
    trained = [
        Checkpoint.open(store.cell(record.key) / record.name).manifest.training.cost
        for record in store.records()
        if record.stage in ("tickets-full", "ticket")
    ]
    assert len(trained) == 2 * (1 + 2 * 2)
    scores = [
        score_files.read(folder / f"importance-s{seed}.json")[1]["expenses"][-1]["cost"] for seed in (0, 1)
    ]
    of_scores = sum(each["cpu_s"] for each in scores)
    assert all(each["sequences"] == 64 for each in scores)
    assert cost["cpu_s"] == pytest.approx(sum(each.cpu_s for each in trained if each) + of_scores, abs=0.01)
    assert cost["sequences"] == 64 * (len(trained) + len(scores))


def test_tickets_are_pruned_by_the_scores_of_another_search(
    swept: tuple[Path, dict], encoders: dict[str, Path], rows_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder, _ = swept
    quick = QUICK.replace(levels=(Level(40),), kinds=("winning",), seed=1, seeds=1)
    scored, about = score_files.read(folder / "importance-s0.json")
    about = {"checkpoint": about["checkpoint"], "rows": 64, "layers": about["layers"]}
    score_files.write(tmp_path / "given" / "importance-s1.json", scored, **about, task="other")
    table = sweeps.tickets(
        "sst2", encoders["bert"], out=tmp_path / "w", data_folder=rows_folder, settings=quick,
        scores=tmp_path / "given",
    )  # fmt: skip
    assert table["scores_of"] == ["other"]
    assert "Tickets are pruned by importance scores of other" in (tmp_path / "w" / "table.md").read_text()
    ticket = Checkpoint.open(tmp_path / "w" / "checkpoints" / "sst2-bert-winning40-s1")
    full = Checkpoint.open(folder / "checkpoints" / "sst2-bert-full-s0")
    assert ticket.manifest.parent == about["checkpoint"] == full.digest
    removed = removal(scored, structure(load(full)), Level(40), "winning")
    layers = {layer.index: layer for layer in ticket.manifest.structure.layers}
    assert removed.heads
    for index, heads in removed.heads.items():
        assert not set(heads) & set(layers[index].heads)
    small = score_files.Importance(scored.heads[:1], scored.ffns[:1])
    score_files.write(tmp_path / "small.json", small, **{**about, "layers": about["layers"][:1]})
    base = ["train", "tickets", "sst2", "--model", str(encoders["bert"]), "--data", str(rows_folder),
            "--seeds", "1", "--levels", "40", "--max-length", "32", "-o", str(tmp_path / "x")]  # fmt: skip
    for scores, message in (
        (tmp_path / "small.json", "scores must be of the same encoder"),
        (tmp_path / "given", "importance-s0.json does not exist"),
    ):
        assert run_command([*base, "--scores", str(scores)]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "x").exists()


def test_full_models_have_the_teacher_of_the_tickets_and_the_table_names_it(
    swept: tuple[Path, dict], encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """The teacher is a full model of a search without one; it must not be replaced by this search."""
    folder, before = swept
    teacher = Checkpoint.open(folder / "checkpoints" / "sst2-bert-full-s0")
    learned = DistillationSettings(temperature=4.0)
    given: dict[str, Any] = {
        "data_folder": rows_folder,
        "settings": QUICK.replace(levels=(Level(40),), kinds=("winning",), seeds=1),
        "teacher": GivenTeacher(str(teacher.folder), teacher.digest, learned),
    }
    with pytest.raises(
        UsageError, match="lies in the workspace .*, where this search writes checkpoints of its own"
    ):
        sweeps.tickets("sst2", encoders["bert"], out=folder, **given)
    with pytest.raises(UsageError, match="lies in the workspace"):
        sweeps.lottery(
            "sst2", encoders["bert"], out=folder, data_folder=rows_folder, teacher=given["teacher"]
        )
    assert Checkpoint.open(teacher.folder).digest == teacher.digest
    table = sweeps.tickets("sst2", encoders["bert"], out=tmp_path / "w", **given)
    for name in ("full", "winning40"):
        trained = Checkpoint.open(tmp_path / "w" / "checkpoints" / f"sst2-bert-{name}-s0")
        record = trained.manifest.training.distillation
        assert record is not None and record.teacher_digest == teacher.digest
    assert before["teacher"] is None
    assert table["teacher"] == {
        "name": "sst2-bert-full-s0", "digest": teacher.digest, "settings": learned.to_json(),
    }  # fmt: skip
    page = (tmp_path / "w" / "table.md").read_text()
    assert f"learned from the teacher sst2-bert-full-s0 ({teacher.digest[:8]})" in page
    assert "teacher" not in (folder / "table.md").read_text()


def test_one_ticket_alone_equals_that_of_the_search(
    swept: tuple[Path, dict], encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """Bitwise: the same full model, scores, pruned structures and training."""
    folder, _ = swept
    for seed, kind in ((0, "winning"), (1, "losing")):
        name = f"sst2-bert-{kind}40-s{seed}"
        alone = draw.draw(
            folder / f"checkpoints/sst2-bert-full-s{seed}", encoders["bert"], out=tmp_path, name=name,
            data_folder=rows_folder,
            settings=QUICK.ticket(Level(40), kind, seed),
        )  # fmt: skip
        trained = Checkpoint.open(folder / "checkpoints" / name)
        for part in ("parent", "ticket", "structure", "metrics"):
            assert getattr(alone.manifest, part) == getattr(trained.manifest, part)
        before, after = (load_file(one.folder / "model.safetensors") for one in (trained, alone))
        assert set(before) == set(after)
        assert all(torch.equal(before[key], after[key]) for key in before)
    with pytest.raises(UsageError, match="exists already"):
        draw.draw(
            trained.folder, encoders["bert"], out=tmp_path, name=name, data_folder=rows_folder,
            settings=QUICK.ticket(Level(40), kind, seed),
        )  # fmt: skip


def test_a_ticket_starts_from_the_pretrained_weights(
    swept: tuple[Path, dict], encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """With a learning rate of almost 0, the saved weights are those before training."""
    still = QUICK.replace(lr=1e-30, levels=(Level(40),), kinds=("winning",), seeds=1, max_steps=1)
    sweeps.tickets("sst2", encoders["bert"], out=tmp_path / "w", data_folder=rows_folder, settings=still)
    folder = tmp_path / "w/checkpoints/sst2-bert-winning40-s0"
    remaining = structure(load(folder)).layers
    got = load_file(folder / "model.safetensors")
    whole = load_file(encoders["bert"] / "model.safetensors")
    seen = set()
    for layer in remaining:
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
    # the head is new, and equals that of the full model with this seed
    assert torch.equal(got["classifier.weight"], fresh(encoders["bert"], 0).classifier.weight)
    assert not torch.equal(got["classifier.weight"], fresh(encoders["bert"], 1).classifier.weight)


def test_a_search_keeps_the_head_of_a_fine_tuned_model(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """As the fine-tuning of the full model does; a new head is one setting away, and is the same for both."""
    model = classifier(encoders["bert"], tmp_path / "m", ("positive", "negative"))
    still = QUICK.replace(lr=1e-30, levels=(Level(40),), kinds=("winning",), seeds=1, max_steps=1)

    def heads(name: str, **head: bool) -> tuple[torch.Tensor, ...]:
        out = tmp_path / name
        sweeps.tickets("sst2", tmp_path / "m", out=out, data_folder=rows_folder, settings=still,
                       head=HeadSettings(**head))  # fmt: skip
        return tuple(
            load_file(out / f"checkpoints/sst2-m-{kind}-s0/model.safetensors")["classifier.weight"]
            for kind in ("full", "winning40")
        )

    full, ticket = heads("kept")
    assert torch.equal(full, model.classifier.weight[[1, 0]]) and torch.equal(full, ticket)
    recorded = Checkpoint.open(tmp_path / "kept/checkpoints/sst2-m-winning40-s0").manifest.training.head
    assert recorded == "kept: positive, negative, permuted to negative, positive"
    new, ticket = heads("fresh", fresh_head=True)
    assert torch.equal(new, ticket) and not torch.allclose(new, full)


def test_a_search_is_resumed_and_extended(
    swept: tuple[Path, dict], encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "again"
    shutil.copytree(swept[0], folder, symlinks=True)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("cell.json")}
    damaged = [
        cell_of(folder, "ticket", "sst2-bert-losing40-s1"),
        cell_of(folder, "ticket", "sst2-bert-winning20-s0"),
        cell_of(folder, "tickets-scores", "sst2-bert-full-s1"), cell_of(folder, "tickets", "sst2-bert"),
        cell_of(folder, "tickets-full", "sst2-bert-full-s0"),
    ]  # fmt: skip
    shutil.rmtree(damaged[0] / "sst2-bert-losing40-s1")
    (damaged[1] / "cell.json").unlink()
    shutil.rmtree(damaged[2])
    shutil.rmtree(damaged[3])
    (damaged[4] / "sst2-bert-full-s0" / "effx.json").unlink()
    arguments = ("sst2", encoders["bert"])
    sweeps.tickets(*arguments, out=folder, data_folder=rows_folder, settings=QUICK)
    for name in ("table.json", "table.csv", "table.md", "phases.svg", "phases.png", "importance-s0.svg"):
        assert (folder / name).read_bytes() == (swept[0] / name).read_bytes(), name
    undamaged = [path for path in before if path.parent not in damaged]
    assert len(undamaged) == len(before) - 5
    assert all(path.stat().st_mtime_ns == before[path] for path in undamaged)
    wider = QUICK.replace(levels=(Level(20), Level(40), Level(50, 0)), kinds=("winning",), keep="winning")
    grown = sweeps.tickets(*arguments, out=folder, data_folder=rows_folder, settings=wider)
    assert [row["level"] for row in grown["summary"]] == [None, "20", "40", "50/0"]
    assert grown["summary"][1] == swept[1]["summary"][1]
    assert all(path.stat().st_mtime_ns == before[path] for path in undamaged)


def test_other_settings_make_other_cells_and_the_differences_are_reported(
    swept: tuple[Path, dict], encoders: dict[str, Path], rows_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = tmp_path / "again"
    shutil.copytree(swept[0], folder, symlinks=True)
    other = QUICK.replace(lr=2e-3, seeds=1, levels=(Level(40),), kinds=("winning",))
    sweeps.tickets("sst2", encoders["bert"], out=folder, data_folder=rows_folder, settings=other)
    message = "tickets-full sst2-bert-full-s0 was done before with other settings: lr was 0.001, is 0.002.\n"
    assert message in capsys.readouterr().err
    table = sweeps.tickets("sst2", encoders["bert"], out=folder, data_folder=rows_folder, settings=QUICK)
    assert table == swept[1]  # the cells of both are there
    assert "other settings" not in capsys.readouterr().err


def quick_command(model: Path, rows: Path, folder: Path) -> list[str]:
    """The command that does what QUICK says."""
    return [sys.executable, "-m", "effx", "train", "tickets", "sst2", "--model", str(model),
            "--data", str(rows), "--levels", "20,40", "--seeds", "2", "--kinds", "winning,losing",
            "--epochs", "1", "--max-length", "32", "--lr", "1e-3", "--limit", "64", "--precision", "fp32",
            "-o", str(folder), "--json"]  # fmt: skip


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(effx.__file__).parents[1])}


def test_a_search_is_resumed_from_results_without_checkpoints(
    swept: tuple[Path, dict], encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    arguments, light = ("sst2", encoders["bert"]), QUICK.replace(keep="none")

    def search() -> dict:
        return sweeps.tickets(*arguments, out=tmp_path, data_folder=rows_folder, settings=light)

    assert search() == swept[1]
    assert not list(tmp_path.rglob("model.safetensors"))
    shutil.rmtree(cell_of(tmp_path, "ticket", "sst2-bert-losing40-s1"))
    shutil.rmtree(cell_of(tmp_path, "tickets", "sst2-bert"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("cell.json")}
    assert search() == swept[1]
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in before.items())
    shutil.rmtree(cell_of(tmp_path, "tickets-scores", "sst2-bert-full-s1"))  # then its model is needed again
    assert search() == swept[1]
    full = cell_of(tmp_path, "tickets-full", "sst2-bert-full-s1") / "cell.json"
    assert full.stat().st_mtime_ns != before[full]
    assert not list(tmp_path.rglob("model.safetensors"))


def test_processes_share_a_workspace(
    swept: tuple[Path, dict], encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "shared"
    command = quick_command(encoders["bert"], rows_folder, folder)
    logs = [tmp_path / "a", tmp_path / "b"]
    first = cell_of(swept[0], "tickets-full", "sst2-bert-full-s0").name  # keys do not depend on the workspace
    with contextlib.ExitStack() as stack:
        with locks.hold(CellStore(folder).lock(first)):
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
                "waiting for tickets-full sst2-bert-full-s0, which is run by" in log.read_text()
                for log in logs
            ):
                time.sleep(0.05)
        for process in processes:
            out, _ = process.communicate(timeout=300)
            assert process.returncode == 0
            assert json.loads(out) == swept[1]
    lines = CellStore(folder).journal()
    begun = [line["key"] for line in lines if line["event"] == "begun"]
    assert len(begun) == len(set(begun)) == 2 * (2 + 4) + 1
    assert len({line["pid"] for line in lines}) == 2
    held = [path.name for path in (folder / "locks").iterdir() if path.name != ".guard"]
    assert held == []


@pytest.mark.slow
def test_a_killed_search_ends_with_the_same_table(
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

    def killed_after(n: int) -> Callable[[], bool]:
        return lambda: len(list((folder / "cells").glob("[!.]*/cell.json"))) >= n

    killed_once(lambda: bool(list((folder / "cells").glob(".*.tmp/*"))))  # while one is written
    killed_once(killed_after(2))
    killed_once(killed_after(5))
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
    table = sweeps.tickets(
        "sst2", encoders["distilbert"], out=tmp_path / "n", data_folder=rows_folder, settings=settings
    )
    assert table["cells"][1]["removed"] == {"heads": 10, "ffns": 0, "neurons": 48}
    assert table["super"] is None and table["phases"] is None
    assert [path.name for path in Checkpoint.find(tmp_path / "n/checkpoints")] == ["sst2-distilbert-full-s0"]
    with pytest.raises(
        UsageError, match="level 90/25 prunes 10 of 12 heads, but 3 must remain with min_heads 1"
    ):
        sweeps.tickets(
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
    table = sweeps.tickets("sst2", encoders["bert"], out=folder, data_folder=rows_folder, settings=HALVING)
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
    results = [json.loads(path.read_bytes()) for path in folder.glob("cells/*/result.json")]
    begun = [result["steps"] for result in results if result["paused_at"]]
    assert sorted(begun) == [first] * 4 + [second] * 2
    manifest = Checkpoint.open(folder / "checkpoints" / table["super"]["checkpoints"][0]).manifest
    seconds = [result["seconds"] for result in results if result["paused_at"]]
    assert manifest.training.seconds > min(seconds) > 0  # of the complete run


def test_halving_claims_no_share_of_a_grid_that_may_stop_early(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    settings = HALVING.replace(seeds=1, patience=1, epochs=4.0)
    table = sweeps.tickets("sst2", encoders["bert"], out=tmp_path, data_folder=rows_folder, settings=settings)
    assert table["search"]["share"] is None
    assert "the grid takes at most " in (tmp_path / "table.md").read_text()


def test_halvings_last_level_is_the_grids(
    halved: tuple[Path, dict], encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    folder, table = halved
    best = table["super"]["level"]
    settings = HALVING.replace(search="grid", levels=(Level(int(best)),), kinds=("winning",))
    grid = sweeps.tickets(
        "sst2", encoders["bert"], out=tmp_path / "g", data_folder=rows_folder, settings=settings
    )
    by_name = operator.itemgetter("checkpoint")
    assert sorted(grid["cells"], key=by_name) == sorted(table["cells"], key=by_name)
    for name in grid["super"]["checkpoints"]:
        weights = [at / "checkpoints" / name / "model.safetensors" for at in (folder, tmp_path / "g")]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def test_halving_is_resumed_where_it_was_killed(
    halved: tuple[Path, dict], encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    class KilledError(Exception):
        pass

    def search() -> dict:
        return sweeps.tickets(
            "sst2", encoders["bert"], out=tmp_path, data_folder=rows_folder, settings=HALVING
        )

    # before or after the record of that many cells from here on
    for kill, recorded in ((3, False), (3, True), (4, False), (2, True), (1, False)):
        owner, name = (CellStore, "remove_paused") if recorded else (CellRecord, "to_json")
        original, left = getattr(owner, name), [kill]

        def dies(*arguments: object, original=original, left=left) -> object:  # type: ignore[no-untyped-def]
            left[0] -= 1
            if left[0] == 0:
                raise KilledError
            return original(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, dies)
            with pytest.raises(KilledError):
                search()
    assert list(tmp_path.glob("paused/*/*"))
    assert search() == halved[1]
    assert not (tmp_path / "paused").exists()
    assert not list((tmp_path / "checkpoints").glob("*-at*"))


def test_a_ticket_exports_without_what_it_lost(swept: tuple[Path, dict], tmp_path: Path) -> None:
    folder, _ = swept
    names = ["sst2-bert-full-s0", "sst2-bert-winning40-s0"]
    engines, failures = export_all([folder / "checkpoints" / name for name in names], ["fp32"], out=tmp_path)
    assert not failures
    full, ticket = engines
    layers = ticket.manifest.structure.layers
    assert sum(4 - len(layer.heads) for layer in layers) == 4  # floor(40 % of 12)
    gone = sum(layer.intermediate == 0 for layer in layers)
    assert gone == 1
    products = [engine.manifest.audit.weight_products for engine in engines]
    empty = sum(not layer.heads for layer in layers)
    assert products[0] - products[1] == 2 * gone + 4 * empty
    removed = ticket.manifest.parameters_removed
    per_head, per_ffn = 8 * 32 * 4 + 8 * 3, 2 * 32 * 64 + 64 + 32
    assert removed == 4 * per_head + gone * per_ffn
    assert full.manifest.parameters - ticket.manifest.parameters == removed
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
        (QUICK.replace(levels=(Level(1),)), "level 1 prunes nothing of a model with 12 heads"),
    ):
        with pytest.raises(UsageError, match=message):
            sweeps.tickets(
                "sst2", encoders["bert"], out=tmp_path / "w", data_folder=rows_folder, settings=settings
            )
    assert not (tmp_path / "w").exists()


def test_a_search_that_diverged_leaves_no_cells(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    once = QUICK.replace(levels=(Level(40),), kinds=("winning",), seeds=1, max_steps=3)
    with pytest.raises(EffxError, match="training diverged"):
        sweeps.tickets(
            "sst2", encoders["bert"], out=tmp_path, data_folder=rows_folder, settings=once.replace(lr=1e30)
        )
    assert not list((tmp_path / "cells").iterdir())
    assert [line["event"] for line in CellStore(tmp_path).journal()] == ["begun", "failed"]


def test_a_fresh_head_replaces_that_of_a_checkpoint(
    swept: tuple[Path, dict], rows_folder: Path, tmp_path: Path
) -> None:
    trained_folder = swept[0] / "checkpoints/sst2-bert-winning40-s0"
    before, models = load(trained_folder), [fresh(trained_folder, seed, FRESH) for seed in (0, 0, 1)]
    for model in models:
        assert torch.equal(model.bert.pooler.dense.weight, before.bert.pooler.dense.weight)
        assert not torch.equal(model.classifier.weight, before.classifier.weight)
        assert not model.classifier.bias.any()
    assert torch.equal(models[0].classifier.weight, models[1].classifier.weight)
    assert not torch.equal(models[0].classifier.weight, models[2].classifier.weight)
    continued, _ = pretrained(trained_folder, TASKS["sst2"])  # fine-tuning a checkpoint keeps its head
    assert torch.equal(continued.classifier.weight, before.classifier.weight)


def test_the_preset_is_the_published_one_and_options_prevail() -> None:
    assert preset("super-tickets", "mnli").head_dropout == 0.3
    assert preset("super-tickets", "rte").training.optimizer == "adamax"
    with pytest.raises(UsageError, match="Did you mean 'super-tickets'"):
        preset("super-ticket", "rte")


def test_pretrained_heads_differ_by_seed_alone(encoders: dict[str, Path]) -> None:
    model, _ = pretrained(encoders["bert"], TASKS["sst2"])
    assert structure(model).layers[0].heads == (0, 1, 2, 3)
