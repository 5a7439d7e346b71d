"""Write docs/commands/, a page for each command, from the commands themselves.

python tools/command_pages.py            write the pages
python tools/command_pages.py --check    exit code 1 if one is not as it would be written
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from effx.cli import cli

PLACE = Path(__file__).parents[1] / "docs" / "commands"
_WIDTH = 100


def commands() -> Iterator[click.Context]:
    """Yield a context for every command, groups before what they hold."""

    def below(context: click.Context) -> Iterator[click.Context]:
        yield context
        if isinstance(context.command, click.Group):
            for name in context.command.list_commands(context):
                child = context.command.get_command(context, name)
                assert child is not None
                yield from below(_context(child, name, context))

    yield from below(_context(cli, "effx", None))


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    settings = {**command.context_settings, "max_content_width": _WIDTH, "terminal_width": _WIDTH}
    return click.Context(command, info_name=name, parent=parent, **settings)


def pages() -> dict[str, str]:
    """Return file name -> text."""
    found = {}
    index = ["# Commands", "", "Made from the code by `python tools/command_pages.py`.", ""]
    for context in commands():
        name = context.command_path
        file = name.replace(" ", "-") + ".md"
        found[file] = page(context)
        index.append(f"- [{name}]({file}): {context.command.get_short_help_str(_WIDTH)}")
    found["README.md"] = "\n".join(index) + "\n"
    return found


def page(context: click.Context) -> str:
    """Return one command's page."""
    command = context.command
    parts = [f"# {context.command_path}", "", "```", _usage(context), "```", ""]
    parts += _description(command.help or "")
    options = [
        record
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option) and (record := parameter.get_help_record(context))
    ]
    parts += [
        "| option | |",
        "|---|---|",
        *(f"| `{_cell(names)}` | {_cell(text)} |" for names, text in options),
    ]
    if isinstance(command, click.Group):
        parts += ["", "| command | |", "|---|---|"]
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            path = f"{context.command_path} {name}"
            parts.append(
                f"| [{path}]({path.replace(' ', '-')}.md) | {_cell(child.get_short_help_str(_WIDTH))} |"
            )
    return "\n".join(parts) + "\n"


def _usage(context: click.Context) -> str:
    return context.command.get_usage(context).removeprefix("Usage: ").strip()


def _description(text: str) -> list[str]:
    """Return paragraphs; those marked to be left as they are become code."""
    parts = []
    for paragraph in text.split("\n\n"):
        lines = paragraph.strip("\n").splitlines()
        if lines and lines[0].strip() == "\b":
            parts += ["```sh", *(line.strip() for line in lines[1:] if line.strip()), "```", ""]
        elif lines:
            parts += [" ".join(line.strip() for line in lines), ""]
    return parts


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    wanted = pages()
    have = {path.name: path.read_text() for path in PLACE.glob("*.md")}
    if check:
        wrong = sorted(name for name in wanted | have if wanted.get(name) != have.get(name))
        if wrong:
            print(f"not as the code has it: {', '.join(wrong)}. Run: python tools/command_pages.py")
        return 1 if wrong else 0
    PLACE.mkdir(parents=True, exist_ok=True)
    for name in have.keys() - wanted.keys():
        (PLACE / name).unlink()
    for name, text in wanted.items():
        (PLACE / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
