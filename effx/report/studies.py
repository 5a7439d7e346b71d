"""What is written, and shown in a report, of studies of techniques over several tasks or lengths."""

from __future__ import annotations

import json
import shutil
from collections import Counter
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
_LONGEST_NAME = 100
"""Of a folder, without its digest; file systems allow 255 bytes."""
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
    names = _folders(studies, name) if len(studies) > 1 else ["."]
    for study, of_study in zip(studies, names, strict=True):
        folder = out / of_study
        folder.mkdir(exist_ok=True)
        for sheet in sheets(study):
            sheet.write(folder)
        draw(study, folder)
    files.write_json(out / content[0], content[1])


def _folders(studies: Sequence[S], name: Callable[[S], str]) -> list[str]:
    """Return a folder name for each study; long ones, and those that others have, end with a digest."""
    names = [name(study) for study in studies]
    valid = [files.safe_name(each) for each in names]
    count = Counter(each.casefold() for each in valid)  # some file systems know no case
    return [
        each if len(each) <= _LONGEST_NAME and count[each.casefold()] == 1
        else f"{each[:_LONGEST_NAME]}-{_digest(of_study, study)}"
        for each, of_study, study in zip(valid, names, studies, strict=True)
    ]  # fmt: skip


def _digest(name: str, study: Study) -> str:
    """Return what tells a study from others of the same folder name."""
    where = [study.encoder, study.host, study.backend, study.device, study.objective]
    return files.json_digest({"name": name, "where": where})[:8]


def write_of_report(
    what: str, studies: Sequence[S], out: Path, write_all: Callable[[Sequence[S], Path], None]
) -> None:
    """Write the studies that a report shows; if that fails, it is said on standard error.

    Args:
        what: was compared, in the plural.
        studies: those that :func:`of_report` returned; none: nothing is written.
        out: folder, removed where writing fails.
        write_all: writes them there.
    """
    if not studies:
        return
    try:
        write_all(studies, out)
    except Exception as error:  # whatever it is: the rest of the report must not be lost to it
        shutil.rmtree(out, ignore_errors=True)
        progress.say(f"{what}: tables and figures are not written: {type(error).__name__}: {error}")


def of_report(
    what: str,
    runs: Sequence[Run],
    compare: Callable[[Sequence[Run], str], Sequence[S]],
    section: Callable[[S], Section],
    to_json: Callable[[Sequence[S]], dict[str, Any]],
    *,
    objectives: Sequence[str] = ("latency", "energy"),
) -> list[S]:
    """Return the studies that a report shows, by latency and by what else was measured.

    Why there is none is said on standard error: neither the rest of a report nor other studies must be
    lost to one that fails.

    Args:
        what: is compared, in the plural.
        runs: of each engine the latest.
        compare: returns the studies by a cost, and raises :class:`UsageError` if there are none.
        section: of a study.
        to_json: what is written of all.
        objectives: costs; the first is expected, others are shown where they can be compared.
    """
    if len(runs) > MOST_ENGINES:
        progress.say(f"{what} are not compared: more than {MOST_ENGINES} engines; use effx compare-{what}")
        return []

    found: list[S] = []
    for objective in objectives:
        try:
            studies = compare(runs, objective)
        except UsageError as error:
            if objective == objectives[0]:
                progress.say(f"{what} are not compared: {error}")
            continue  # energy was not measured of all, or by several meters
        except Exception as error:  # whatever it is
            by = "" if objective == objectives[0] else f" by {objective}"
            progress.say(f"{what} are not compared{by}: {type(error).__name__}: {error}")
            continue
        found += [study for study in studies if _is_shown(what, study, section, to_json)]
    return found


def _is_shown(
    what: str, study: S, section: Callable[[S], Section], to_json: Callable[[Sequence[S]], dict[str, Any]]
) -> bool:
    """Whether a study can be shown; if not, why is said on standard error."""
    try:
        section(study)
        json.dumps(to_json([study]), allow_nan=False)
    except Exception as error:  # whatever it is
        progress.say(f"{what}, {place(study)}: not shown: {type(error).__name__}: {error}")
        return False
    return True


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
