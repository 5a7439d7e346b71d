"""What can go wrong, and what the person reading about it should do.

    EffxError                exit 2   anything a user can put right; base of all below
    ├── UsageError                    a wrong option, name or combination
    ├── MissingExtraError             an optional package is not installed (also an ImportError)
    ├── DataError                     rows, columns or labels that do not fit the task
    ├── ArtifactError                 a checkpoint, engine or result that cannot be trusted
    ├── TrainingError                 training diverged: its loss is not finite
    ├── WorkerError                   the process that runs an engine died, hung or refused
    ├── DeviceError                   a GPU or its driver is missing or failed
    ├── StoppedError    130 or 143    a recipe was stopped by Ctrl-C or SIGTERM; the work can be resumed
    └── GateError            exit 1   the work was done and did not pass (parity, stability, audit)

Every message is one line: what is wrong, where, and what to do about it. Only the command line
turns these into exit codes; library code raises and never exits.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path


class EffxError(Exception):
    """Base of every error that effx raises on purpose; its message is meant for the user.

    Args:
        message: one line that says what is wrong, where, and what to do. It names no command-line option:
            library code does not know how it was called.
        settings: names of the settings to change, as ``max_drop``, where there are any; the command line
            adds the options that set them, a recipe the keys.
    """

    exit_code = 2

    def __init__(self, message: str = "", *, settings: str | tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.settings: tuple[str, ...] = (settings,) if isinstance(settings, str) else settings

    def lines(self) -> list[str]:
        """Return the message as the lines to print: one, unless a class has several by design."""
        return [str(self)]


class UsageError(EffxError):
    """A wrong option, name or combination."""


class MissingExtraError(EffxError, ImportError):
    """An optional dependency is missing; the message names the extra that brings it."""


class DataError(EffxError):
    """Rows, columns or labels that do not fit the task."""


class ArtifactError(EffxError):
    """A checkpoint, engine or result folder that is missing, damaged or changed."""


class TrainingError(EffxError):
    """Training diverged, so that there are no weights to write."""


class WorkerError(EffxError):
    """The process that runs an engine crashed, hung or could not open it."""


class DeviceError(EffxError):
    """A GPU or its driver is missing, or refused or failed a call."""


class StoppedError(EffxError):
    """A recipe was stopped with Ctrl-C (exit code 130) or SIGTERM (143); completed cells remain."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class GateError(EffxError):
    """Something was built or measured, and did not pass its gate."""

    exit_code = 1


def printable(text: str) -> str:
    """Return text with the characters escaped that a terminal would act on, line breaks too."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def one_line(error: object, limit: int | None = 200) -> str:
    """Return a library's message on one printable line of at most ``limit`` characters (None: complete).

    An exception without a message is described by the name of its class.
    """
    return printable(" ".join(str(error).split()))[:limit] or type(error).__name__


_FOLDERS = re.compile(r"(?<![\w.:/\\])(?:/|[A-Za-z]:\\)(?:[^\s/\\:'\"]+[/\\])+")


def without_folders(text: str) -> str:
    """Return text with absolute paths cut to their last part: it will be read on other machines."""
    known = {str(Path.home()), str(Path.cwd()), tempfile.gettempdir()}  # they may contain spaces
    for folder in sorted(known, key=len, reverse=True):
        if len(folder) > 1:
            text = text.replace(folder + os.sep, "")
    return _FOLDERS.sub("", text)


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.5) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest known name, or an empty string.

    ``cutoff`` is the least similarity, 0 to 1 (difflib's ratio).
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f" Did you mean '{close[0]}'?" if close else ""


def unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for a name that is not in a table, with the nearest name and the table."""
    table = sorted(known)
    return UsageError(f"unknown {what} '{name}'.{nearest(name, table)} Known: {', '.join(table)}.")


def need(extra: str, *modules: str) -> None:
    """Raise :class:`MissingExtraError` unless every module can be imported.

    Nothing is imported here, so a package can call this before its heavy imports and the
    user reads which extra to install instead of a bare ``ModuleNotFoundError``.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        names = ", ".join(missing)
        verb = "is" if len(missing) == 1 else "are"
        raise MissingExtraError(f"{names} {verb} not installed. Run: pip install 'effx[{extra}]'")
