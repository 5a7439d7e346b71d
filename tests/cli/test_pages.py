"""Help and pages of every command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from effx.cli import cli, run

ROOT = Path(__file__).parents[2]


def contexts(command: click.Command, name: str, parent: click.Context | None = None) -> list[click.Context]:
    here = click.Context(command, info_name=name, parent=parent)
    result = [here]
    if isinstance(command, click.Group):
        for child in command.list_commands(here):
            built = command.get_command(here, child)
            assert built is not None
            result += contexts(built, child, here)
    return result


COMMANDS = contexts(cli, "effx")


@pytest.mark.parametrize("context", COMMANDS, ids=lambda context: context.command_path)
def test_every_command_is_explained_with_examples(context: click.Context) -> None:
    command = context.command
    text = command.help or ""
    assert text.strip()
    if not isinstance(command, click.Group):
        examples = [
            line.strip() for line in text.split("\b")[-1].splitlines() if line.strip().startswith("effx ")
        ]
        assert examples, "the help has no example"
        assert all(line.startswith(context.command_path) for line in examples)
        for line in examples:
            words = line.split("#")[0].split(">")[0].split()[len(context.command_path.split()) :]
            built = command.make_context(context.command_path, words, resilient_parsing=False)
            assert built.params
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, f"{parameter.opts} has no help"


@pytest.mark.parametrize("context", COMMANDS, ids=lambda context: context.command_path)
def test_help_texts_name_options_that_the_command_has(context: click.Context) -> None:
    options = [parameter for parameter in context.command.params if isinstance(parameter, click.Option)]
    flags = {flag for option in options for flag in (*option.opts, *option.secondary_opts)}
    settings = {option.name for option in options if "_" in (option.name or "")}
    for option in options:
        text = re.sub(r"effx [a-z-]+ --[a-z-]+", "", option.help or "")  # another command's option
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) <= flags, f"{option.opts}: {text}"
        assert not set(re.findall(r"\w+", text)) & settings, f"{option.opts}: {text}"
        assert not re.findall(r"(?<!`)`\w+`(?!`)", text), f"{option.opts}: {text}"


def test_the_command_pages_are_up_to_date() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "tools/command_pages.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_EFFX_COMPLETE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [("effx ", "doctor"), ("effx train f", "finetune"), ("effx run --dr", "--dry-run")],
)
def test_completion_completes(words: str, expected: str, tmp_path: Path) -> None:
    """With the variables that a shell sets: the words so far, and the index of the word to complete."""
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "_EFFX_COMPLETE": "zsh_complete",
        "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1),
    }  # fmt: skip
    code = "import sys; sys.argv[0] = 'effx'; from effx.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert expected in done.stdout.splitlines(), done.stderr


def test_bash_accepts_the_completion_script() -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    script = subprocess.run(
        [sys.executable, "-m", "effx", "completion", "bash"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
