"""Commands as a user types them: exit codes, one-line errors, results on stdout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from effx.artifacts import Checkpoint
from effx.cli import run

ROOT = Path(__file__).parents[2]


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int = 2) -> str:
    assert run(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.strip().splitlines()[-1:]
    assert line.startswith("effx: ")
    assert "Traceback" not in captured.err
    return line


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["exprot"], "Did you mean 'export'"),
        (["train", "finetun"], "Did you mean 'finetune'"),
        (["train", "finetune", "sst3", "--model", "x"], "Did you mean 'sst2'"),
        (["train", "finetune", "sst2"], "Missing option '--model'"),
        (["train", "finetune", "sst2", "--model", "./no"], "model ./no: there is no folder"),
        (["train", "finetune", "demo", "--model", "x", "--regime", "half"], "Known: full, frozen, last-K"),
        (["train", "finetune", "sst2", "--model", "x", "--epochs", "-1"], "Invalid value for '--epochs'"),
        (["train", "finetune", "sst2", "--model", "x", "--epochs", "inf"], "inf is not a finite number"),
        (["train", "finetune", "sst2", "--model", "x", "--lr", "nan"], "nan is not a finite number"),
        (["train", "exits"], "Missing argument 'CHECKPOINT'"),
        (["train", "exits", "no"], "no does not exist. Make one with"),
        (["train", "exits", "no", "--rule", "entropi"], "Did you mean 'entropy'"),
        (["train", "exits", "no", "--after", "1,two"], "'two' is not a valid integer"),
        (["train", "exits", "no", "--depth", "3", "--max-drop", "0"], "(options --depth, --max-drop)"),
        (["train", "tokens", "no", "--rule", "shares"], "Did you mean 'share'"),
        (["train", "tokens", "no", "--keep", "0"], "Invalid value for '--keep'"),
        (["train", "tickets", "sst2"], "Missing option '--model'"),
        (
            ["train", "tickets", "sst2", "--model", "x", "--levels", "10,400"],
            "level '400': expected percentages",
        ),
        (["train", "tickets", "sst2", "--model", "x", "--kinds", "wining"], "Did you mean 'winning'"),
        (["train", "tickets", "sst2", "--model", "x", "--importance", "tailor"], "Did you mean 'taylor'"),
        (["train", "tickets", "sst2", "--model", "x", "--preset", "super"], "Did you mean 'super-tickets'"),
        (["train", "tickets", "sst2", "--model", "x", "--optimizer", "adam"], "Did you mean 'adamw'"),
        (["train", "lottery", "sst2", "--model", "x", "--sparsity", "55"], "expected a multiple of 10"),
        (
            ["train", "lottery", "sst2", "--model", "x", "--preset", "universal"],
            "preset universal trains masked language modelling on a file of passages: give text.",
        ),
        (
            [
                "train",
                "lottery",
                "sst2",
                "--model",
                "x",
                "--preset",
                "universal",
                "--text",
                "t",
                "--mask",
                "m",
            ],
            "leave preset or mask out",
        ),
        (["train", "lottery", "sst2", "--model", "./no"], "model ./no: there is no folder"),
        (
            ["train", "lottery", "sst2", "--model", "x", "--kind", "one-shot", "--rewind", "5"],
            "kind one-shot does not rewind",
        ),
        (
            ["train", "lottery", "sst2", "--model", "x", "--kind", "standard", "--init", "pretrained,fresh"],
            "init fresh needs a mask that was found on the pretrained weights",
        ),
        (["export"], "checkpoints does not exist. Make one with"),
        (["export", "--variant", "int7"], "Did you mean 'int8'"),
        (["export", "--backend", "onnx"], "Did you mean 'onnxruntime'"),
        (["export", "--device", "tpu"], "unknown onnxruntime device 'tpu'"),
        (["profile"], "engines does not exist. Build it"),
        (["report"], "results contains no results"),
        (["demo", "--bogus"], "No such option"),
    ],
)
def test_wrong_input_gives_a_one_line_error(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in fails(capsys, arguments)
    assert list(here.iterdir()) == []


def test_bare_commands_work_in_a_workspace(
    here: Path, checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(checkpoint.folder, here / "checkpoints" / "tiny")
    assert run(["export", "--variant", "int8"]) == 0
    assert capsys.readouterr().out == "engines/tiny.int8.onnxruntime\n"
    assert run(["profile", "engines/", "--rounds", "3", "--grid", "none", "--recommend"]) == 0
    out = capsys.readouterr().out
    assert "tiny.int8.onnxruntime" in out
    assert ": deploy tiny.int8.onnxruntime" in out
    assert "energy" in out
    assert run(["report", "results/", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["frontiers"][0]["points"][0]["engine"] == "tiny.int8.onnxruntime"
    assert (here / "results/report/index.html").is_file()
    assert sorted(path.name for path in here.iterdir()) == ["checkpoints", "engines", "results"]


def test_training_prints_its_manifest_and_refuses_to_replace(
    here: Path, encoders: dict[str, Path], rows_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "finetune", "sst2", "--model", str(encoders["distilbert"]), "--data",
                 str(rows_folder), "--max-steps", "1", "--max-length", "32", "--name", "a"]  # fmt: skip
    assert run([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "a"
    assert "exists already" in fails(capsys, arguments)
    assert run([*arguments, "--overwrite"]) == 0


def test_exits_and_tokens_print_one_line(
    here: Path, checkpoint: Checkpoint, rows_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(checkpoint.folder)
    assert run(["train", "tokens", folder, "--schedule", "1,0.6,0.4", "--max-steps", "2", "--name", "t"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("checkpoints/t: accuracy") and "of the tokens (by layer 1.00" in out
    arguments = [
        "train",
        "exits",
        "checkpoints/t",
        "--after",
        "1,2",
        "--max-steps",
        "2",
        "--max-drop",
        "100%",
    ]
    assert run(arguments) == 0
    out = capsys.readouterr().out
    assert out.startswith("checkpoints/t-exits: entropy") and "of 3 layers on average; without exits" in out
    assert "exists already" in fails(capsys, arguments)
    assert run([*arguments, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["structure"]["tokens"] == [1.0, 0.6, 0.4]
    assert "train exits or tokens again" in fails(
        capsys, ["train", "finetune", "sst2", "--model", "checkpoints/t", "--data", str(rows_folder)]
    )


def test_tickets_and_lottery_print_their_tables(
    here: Path, encoders: dict[str, Path], rows_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = ["--model", str(encoders["bert"]), "--data", str(rows_folder), "--max-steps", "2",
              "--max-length", "32", "--limit", "64"]  # fmt: skip
    arguments = [
        "train",
        "tickets",
        "sst2",
        *shared,
        "--levels",
        "20/50",
        "--kinds",
        "winning",
        "--seeds",
        "2",
    ]
    assert run([*arguments, "--preset", "super-tickets"]) == 0
    out = capsys.readouterr().out
    assert "| winning | 20/50 | 2 heads, 1 FFNs |" in out and "Super ticket: level 20/50" in out
    folder = here / "tickets/sst2-bert"
    settings = json.loads((folder / "table.json").read_bytes())["settings"]
    assert (settings["optimizer"], settings["max_length"]) == ("adamax", 32)  # options prevail
    assert run([*arguments, "--preset", "super-tickets", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((folder / "table.json").read_bytes())
    assert run(["train", "lottery", "sst2", *shared, "--sparsity", "10"]) == 0
    out = capsys.readouterr().out
    assert "sst2-bert-lottery10-s0: 10% zeros, accuracy" in out
    assert "| imp | 10 % |" in out and "One seed, 90 validation rows." in out
    arguments = ["train", "lottery", "sst2", *shared, "--sparsity", "10", "--kind", "imp,random",
                 "--init", "pretrained,shuffled", "--seeds", "2"]  # fmt: skip
    assert run(arguments) == 0
    out = capsys.readouterr().out
    rows = [line.split("|")[1].strip() for line in out.splitlines() if line.startswith("|")]
    assert rows[2:] == ["full model", "imp", "imp, shuffled layers", "random"]
    assert "Highest matching percentage of zeros: imp: " in out
    assert run([*arguments, "--json"]) == 0
    manifests = json.loads(capsys.readouterr().out)
    assert [manifest["name"] for manifest in manifests[4:]] == [
        f"sst2-bert-lottery{label}-s1" for label in ("0", "10", "10-shuffled", "-random10")
    ]
    assert manifests[6]["sparsity"]["init"] == "shuffled" and manifests[7]["sparsity"]["kind"] == "random"


def test_an_unwritable_folder_gives_a_one_line_error(
    here: Path, checkpoint: Checkpoint, encoders: dict[str, Path], rows_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (here / "engines").write_text("a file in the way")
    line = fails(capsys, ["export", str(checkpoint.folder), "-o", "engines/sub"])
    assert "cannot write" in line
    arguments = ["train", "finetune", "sst2", "--model", str(encoders["bert"]), "--data", str(rows_folder)]
    assert run([*arguments, "-o", "engines/sub"]) == 2
    reported = capsys.readouterr().err
    assert "cannot write" in reported and "train sst2" not in reported  # before training, not after


@pytest.mark.parametrize("name", ["../keep", ".", "..", "a/b", "/tmp/x"])
def test_names_cannot_leave_the_output_folder(
    name: str, here: Path, encoders: dict[str, Path], rows_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "finetune", "sst2", "--model", str(encoders["bert"]), "--data", str(rows_folder)]
    line = fails(capsys, [*arguments, "--name", name, "--overwrite"])
    assert f"name '{name}': expected a name without folders" in line
    assert list(here.iterdir()) == []


def test_overwrite_replaces_only_artifacts_of_the_same_kind(
    here: Path, checkpoint: Checkpoint, encoders: dict[str, Path], rows_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    mine = [here / "checkpoints/a/notes.txt", here / f"engines/{checkpoint.name}.fp32.onnxruntime/notes.txt"]
    for path in mine:
        path.parent.mkdir(parents=True)
        path.write_text("mine")
    train = ["train", "finetune", "sst2", "--model", str(encoders["bert"]), "--data", str(rows_folder)]
    line = fails(capsys, [*train, "--name", "a", "--overwrite"])
    assert "checkpoints/a exists already and is not a checkpoint" in line
    for overwrite in ([], ["--overwrite"]):
        assert run(["export", str(checkpoint.folder), *overwrite]) == 2
        assert "exists already and is not an engine" in capsys.readouterr().err
    assert [path.read_text() for path in mine] == ["mine", "mine"]


def test_internal_errors_have_exit_code_3(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from effx import report

    def fault(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(report, "report", fault)
    assert run(["report"]) == 3
    line = capsys.readouterr().err
    assert "internal error: ZeroDivisionError: division by zero" in line and "--debug" in line
    with pytest.raises(ZeroDivisionError):
        run(["--debug", "report"])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are read from /proc")
def test_sigterm_leaves_no_files_and_processes(here: Path, checkpoint: Checkpoint) -> None:
    scratch = here / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "effx", "export", str(checkpoint.folder), "--jobs", "2"]
    for variant in ("int8", "int8+seq16", "int8+seq32"):
        command += ["--variant", variant]
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not list(scratch.rglob("graph-*")):  # a builder converts the model
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    children = [int(path.name) for path in Path("/proc").iterdir()
                if path.name.isdigit() and _parent(path) == running.pid]  # fmt: skip
    running.terminate()
    _, reported = running.communicate(timeout=60)
    assert running.returncode == 143 and "stopped; completed work was saved." in reported
    assert "Traceback" not in reported
    deadline = time.monotonic() + 20  # the tracker of multiprocessing ends by itself
    while alive := [pid for pid in children if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)
    assert len(children) > 1
    assert not list(scratch.glob("effx-*"))
    assert not [path for path in here.rglob("*.tmp")]


def _parent(path: Path) -> int:
    try:
        return int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], [], ["train", "--help"], ["export", "--help"], ["--version"]):
        assert run(arguments) == 0
        assert capsys.readouterr().out


def test_errors_name_the_options_of_the_command_that_was_run() -> None:
    from effx.cli import _with_options, cli
    from effx.errors import UsageError

    train = cli.get_command(click.Context(cli), "train")
    assert isinstance(train, click.Group)
    exits = train.get_command(click.Context(train), "exits")
    error = UsageError("too low.", settings=("max_drop", "data", "unknown"))
    assert _with_options(error, exits) == "too low. (options --max-drop, --data)"
    assert _with_options(UsageError("see --data", settings="data"), exits) == "see --data"
    assert _with_options(error, None) == "too low."
