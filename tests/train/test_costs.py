"""What trainings take is recorded in checkpoints, engines and results, with all that they needed before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from effx.artifacts import Checkpoint, Engine
from effx.cli import run as command
from effx.costs import FIRST_STEPS, IMPORTANCE, PREDICTIONS, TRAINING
from effx.export import export_all
from effx.host import memory
from effx.manifests import CheckpointFacts
from effx.meters import running
from effx.meters.running import Requested
from effx.recipe import sweeps
from effx.specs.distillation import DistillationSettings
from effx.specs.exits import EarlyExitSettings
from effx.specs.lottery import LotterySearchSettings
from effx.specs.tickets import TicketSettings
from effx.specs.training import FinetuneSettings
from effx.train import exits, finetune
from effx.train.distillation import Distillation
from effx.train.segment import PausedState, RunSegment
from effx.train.tickets import draw
from tests.meters import fake

ROOT = Path(__file__).parents[2]

SETTINGS = FinetuneSettings.of(epochs=2, limit=96, batch_size=16, max_length=32, lr=1e-3)


def trained(
    encoders: dict[str, Path], rows: Path, out: Path, name: str = "full", **options: object
) -> Checkpoint:
    settings = options.pop("settings", SETTINGS)
    return finetune(
        "sst2", encoders["bert"], out=out, name=name, data_folder=rows, settings=settings, **options  # type: ignore[arg-type]
    )  # fmt: skip


def keys(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    return [(expense.kind, expense.checkpoint) for expense in checkpoint.expenses()]


def test_a_training_records_what_it_took(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    with running.using(Requested("model:10", required=True)):
        (stage,) = trained(encoders, rows_folder, tmp_path).manifest.training.stages
    cost = stage.cost
    assert cost is not None
    assert cost.sequences == 2 * 96
    assert 0 < stage.seconds - 0.01 < cost.seconds  # of all of the training, its beginning included
    assert cost.cpu_s > 0
    assert cost.energy.joules == pytest.approx(10 * cost.cpu_s, abs=0.01)
    assert (cost.energy.source, cost.energy.meter) == ("model", "model:10")
    assert (stage.evaluations, stage.evaluation) == (0, None)
    assert memory.reset_peak() == (cost.host_peak_bytes is not None)


def test_evaluations_within_a_training_are_apart(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    settings = SETTINGS.replace(patience=5)
    (stage,) = trained(encoders, rows_folder, tmp_path, settings=settings).manifest.training.stages
    assert stage.evaluations == 2
    assert stage.evaluation is not None and stage.cost is not None
    assert stage.evaluation.seconds > 0
    assert stage.seconds - 0.01 < stage.evaluation.seconds + stage.cost.seconds


def test_segments_of_a_training_add_up(encoders: dict[str, Path], rows_folder: Path, tmp_path: Path) -> None:
    settings = SETTINGS.replace(patience=5)
    parts, begin = [], None
    for stop in (3, 8, None):
        state = None if stop is None else tmp_path / f"at{stop}"
        segment = RunSegment(begin, stop, state)
        part = trained(encoders, rows_folder, tmp_path, f"to{stop}", settings=settings, segment=segment)
        parts.append(part.manifest.training.stages[0])
        begin = state
    sequences = [part.cost.sequences for part in parts if part.cost]
    assert sequences == [3 * 16, 87 + 2 * 16, 2 * 87]  # of 96 rows, a tenth is held out
    assert [part.evaluations for part in parts] == [0, 1, 2]
    seconds = [part.cost.seconds for part in parts if part.cost]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    assert PausedState.read(tmp_path / "at8").cost == parts[1].cost


def test_a_state_of_an_earlier_version_has_no_cost(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"steps": 3, "seconds": 1.5, "loss": 0.5, "finished": false}')
    assert PausedState.read(tmp_path) == PausedState(3, 1.5, 0.5, False)


def test_a_ticket_needs_the_full_model_and_its_scores(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    full = trained(encoders, rows_folder, tmp_path)
    ticket = draw.draw(
        full.folder, encoders["bert"], out=tmp_path, name="ticket", data_folder=rows_folder,
        settings=TicketSettings.of(level="50", **SETTINGS.flat()),
    )  # fmt: skip
    assert keys(full) == [(TRAINING, full.digest)]
    assert keys(ticket) == [
        (TRAINING, full.digest), (IMPORTANCE, full.digest), (TRAINING, ticket.digest),
    ]  # fmt: skip
    costs = [expense.cost for expense in ticket.expenses()]
    assert costs[0] == full.manifest.training.cost
    assert costs[1] is not None and costs[1].sequences == 96
    assert costs[2] == ticket.manifest.training.cost
    engines, failures = export_all([ticket.folder], ["fp32"], out=tmp_path / "engines")
    assert not failures
    assert Engine.open(engines[0].folder).manifest.expenses == ticket.expenses()


def test_scores_in_a_file_carry_their_costs(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    settings = TicketSettings.of(level="50", **SETTINGS.flat())
    full = trained(encoders, rows_folder, tmp_path)
    path = tmp_path / "scores.json"
    draw.write_scores(
        full.folder, path, data_folder=rows_folder, pruning=settings.pruning,
        training=settings.finetune.training,
    )  # fmt: skip
    ticket = draw.draw_scored(
        "sst2", encoders["bert"], path, out=tmp_path, name="ticket", data_folder=rows_folder,
        settings=settings,
    )  # fmt: skip
    assert [expense.kind for expense in ticket.expenses()] == [TRAINING, IMPORTANCE, TRAINING]
    assert all(expense.cost for expense in ticket.expenses())


def test_exits_need_their_checkpoint_and_a_student_its_teacher(
    checkpoint: Checkpoint, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    student = trained(
        encoders,
        rows_folder,
        tmp_path,
        "student",
        distillation=Distillation(checkpoint.folder, DistillationSettings(hidden_weight=0.0)),
    )
    assert keys(student) == [
        (TRAINING, checkpoint.digest), (PREDICTIONS, checkpoint.digest), (TRAINING, student.digest),
    ]  # fmt: skip
    predictions = student.expenses()[1].cost
    assert predictions is not None and predictions.sequences == 96
    early = exits.train(
        student.folder, out=tmp_path, name="exits", settings=EarlyExitSettings.of(epochs=1, lr=1e-3)
    )
    assert keys(early) == [*keys(student), (TRAINING, early.digest)]


def test_of_a_checkpoint_without_records_one_unknown_training_is_known(
    checkpoint: Checkpoint, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    def earlier(model: object) -> CheckpointFacts:
        return {"expenses": None}

    old = trained(encoders, rows_folder, tmp_path, facts=earlier)
    (expense,) = old.expenses()
    assert (expense.kind, expense.checkpoint, expense.cost) == (TRAINING, old.digest, None)


def test_rounds_that_are_rewound_to_one_state_count_its_steps_once(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    settings = LotterySearchSettings.of(
        sparsity=(20,), rewind=2, epochs=2, limit=32, batch_size=8, max_length=32, lr=1e-3
    )
    found = sweeps.lottery(
        "sst2", encoders["bert"], out=tmp_path / "w", data_folder=rows_folder, settings=settings
    )
    last = next(each for each in found.checkpoints
                if each.manifest.sparsity and round(each.manifest.sparsity.share, 2) == 0.2)  # fmt: skip
    by_kind = {(expense.kind, expense.checkpoint): expense.cost for expense in last.expenses()}
    first = [cost for (kind, _), cost in by_kind.items() if kind == FIRST_STEPS]
    assert [cost.sequences for cost in first if cost] == [2 * 8]
    trainings = [cost.sequences for (kind, _), cost in by_kind.items() if kind == TRAINING and cost]
    assert trainings == [2 * 32, 2 * 32 - 2 * 8, 2 * 32 - 2 * 8]


@pytest.mark.slow
def test_joules_of_a_training_beside_a_gpu_are_those_of_its_counter(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """Beside a fake GPU that draws 300 W; the training runs on the CPU."""
    library = fake.build(tmp_path)
    if library is None:
        pytest.skip("no C compiler (cc) to build the fake NVML")
    done = subprocess.run(
        [
            sys.executable, "-m", "tests.meters.run_beside_gpu", "train", "finetune", "sst2",
            "--model", str(encoders["bert"]), "--data", str(rows_folder), "--meter", "nvml",
            "--max-length", "32", "--epochs", "30", "--patience", "30", "--name", "beside",
            "-o", str(tmp_path / "out"),
        ],
        cwd=ROOT, env=fake.environment(library), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (stage,) = Checkpoint.open(tmp_path / "out" / "beside").manifest.training.stages
    assert stage.cost is not None
    energy = stage.cost.energy
    assert (energy.source, energy.meter) == ("counter", "nvml"), energy.reason
    assert energy.joules == pytest.approx(300 * stage.cost.seconds, rel=0.05)
    assert energy.interval is not None
    assert energy.interval[0] < 300 * stage.cost.seconds < energy.interval[1]
    assert stage.evaluations == 30


def test_a_meter_that_cannot_be_read_is_told_before_the_training(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = command(
        ["train", "finetune", "sst2", "--model", str(encoders["bert"]), "--data", str(rows_folder),
         "--meter", "replay:nowhere.json", "-o", str(tmp_path / "new")]
    )  # fmt: skip
    assert code == 2
    assert "nowhere.json" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_lottery_ticket_needs_all_rounds_before(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    settings = LotterySearchSettings.of(
        sparsity=(20,), kind=("imp", "random"), epochs=1, limit=32, max_length=32, lr=1e-3
    )
    sweeps.lottery("sst2", encoders["bert"], out=tmp_path / "w", data_folder=rows_folder, settings=settings)
    found = {path.name: Checkpoint.open(path) for path in Checkpoint.find(tmp_path / "w" / "checkpoints")}
    kinds = {name: [expense.kind for expense in each.expenses()] for name, each in found.items()}
    shares = {
        name: (each.manifest.sparsity.kind, round(each.manifest.sparsity.share, 2))
        for name, each in found.items()
        if each.manifest.sparsity
    }
    imp = next(name for name, share in shares.items() if share == ("imp", 0.2))
    random = next(name for name, share in shares.items() if share == ("random", 0.2))
    assert kinds[imp] == [TRAINING] * 3
    assert kinds[random] == [TRAINING]
    assert all(expense.cost for expense in found[imp].expenses())
