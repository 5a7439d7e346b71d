"""What is written, and shown in a report, of studies of techniques over several tasks or lengths."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from effx import files, progress
from effx.analysis.objectives import OBJECTIVES
from effx.errors import UsageError
from effx.report.sections import Section
from effx.report.sheets import Sheet
from effx.results import Run

MOST_ENGINES = 300
"""In a report; the losses of some metrics take half a second each."""
Interval = tuple[float, float] | None


class Study(Protocol):
    """Techniques of one encoder, on one host and backend."""

    @property
    def encoder(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def objective(self) -> str: ...
    @property
    def remarks(self) -> tuple[str, ...]: ...
    def to_json(self) -> dict[str, Any]: ...


S = TypeVar("S", bound=Study)


def write(
    studies: Sequence[S],
    out: Path,
    *,
    sheets: Callable[[S], Sequence[Sheet]],
    draw: Callable[[S, Path], None],
    name: Callable[[S], str],
    content: tuple[str, dict[str, Any]],
) -> None:
    """Write the tables (CSV, Markdown, LaTeX) and the figure of each study, and a JSON file of all.

    Args:
        studies: with several, the tables and figure of each are in a subfolder.
        out: folder.
        sheets: the tables of a study.
        draw: draws the figure of a study in a folder.
        name: of a study's subfolder.
        content: name and value of the JSON file.
    """
    out.mkdir(parents=True, exist_ok=True)
    for study in studies:
        folder = out / files.safe_name(name(study)) if len(studies) > 1 else out
        folder.mkdir(exist_ok=True)
        for sheet in sheets(study):
            sheet.write(folder)
        draw(study, folder)
    files.write_json(out / content[0], content[1])


def of_report(
    what: str,
    runs: Sequence[Run],
    compare: Callable[[Sequence[Run], str], Sequence[S]],
    section: Callable[[S], Section],
    to_json: Callable[[Sequence[S]], dict[str, Any]],
) -> list[S]:
    """Return the studies that a report shows: by latency, and by energy where it was measured.

    Why there is none is said on standard error: the rest of a report must not be lost to a section.

    Args:
        what: is compared, in the plural.
        runs: of each engine the latest.
        compare: returns the studies by a cost, and raises :class:`UsageError` if there are none.
        section: of a study.
        to_json: what is written of all.
    """
    if len(runs) > MOST_ENGINES:
        progress.say(f"{what} are not compared: more than {MOST_ENGINES} engines; use effx compare-{what}")
        return []

    def shown(objective: str) -> list[S]:
        studies = list(compare(runs, objective))
        for study in studies:
            section(study)
        json.dumps(to_json(studies), allow_nan=False)
        return studies

    try:
        studies = shown("latency")
        with contextlib.suppress(UsageError):  # energy was not measured of all, or by several meters
            studies += shown("energy")
    except UsageError as error:
        progress.say(f"{what} are not compared: {error}")
        return []
    except Exception as error:  # whatever it is
        progress.say(f"{what} are not compared: {type(error).__name__}: {error}")
        return []
    return studies


def place(study: Study) -> str:
    """Return encoder, backend, host and cost."""
    where = study.backend if study.device == "cpu" else f"{study.backend} on {study.device}"
    return f"{study.encoder}, {where}, {study.host}, {OBJECTIVES[study.objective].short}"


def folder_name(study: Study) -> str:
    """Return a name for what is written about one of several studies."""
    return f"{study.objective}-{study.encoder}-{study.host}-{study.backend}-{study.device}"


def text(tables: Sequence[Sheet], sentences: Sequence[str], study: Study) -> str:
    """Return what the terminal shows: tables, sentences and remarks."""
    return "\n".join([*(sheet.markdown() for sheet in tables), *sentences, *map(_sentence, study.remarks)])


def paragraph(sentences: Sequence[str], study: Study) -> str:
    """Return the text of a section: sentences and remarks."""
    return " ".join([*sentences, *map(_sentence, study.remarks)])


def ends(interval: Interval) -> tuple[float | None, float | None]:
    """Return the ends of an interval as cells of a table."""
    return interval or (None, None)


def around(value: float, interval: Interval) -> tuple[float | None, float | None]:
    """Return the ends of an interval, which a chart wants to hold its point."""
    return (None, None) if interval is None else (min(interval[0], value), max(interval[1], value))


def counted(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _sentence(text: str) -> str:
    """Return a remark as a sentence; one that begins with the name of a task or engine keeps it as it is."""
    first = text.partition(" ")[0]
    return f"{text[0].upper()}{text[1:]}." if first.isalpha() else f"{text}."
