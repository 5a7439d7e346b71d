"""A table that is written as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from effx import files
from effx.formatting import not_a_formula
from effx.report import latex
from effx.report.sections import SectionCell, SectionColumn, SectionTable

MISSING = "–"


@dataclass(frozen=True)
class NumberText:
    """A number whose text says more, such as its interval or why it is not known."""

    text: str
    number: float | None


SheetCell = str | int | float | NumberText | None


@dataclass(frozen=True)
class SheetColumn:
    """A column, and how its numbers are printed."""

    label: str
    decimals: int = 4
    """Of numbers that are not integers."""
    percent: bool = False
    """Shares are printed as percentages."""
    signed: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table."""

    name: str
    """Of its files."""
    title: str
    columns: tuple[SheetColumn, ...]
    rows: tuple[tuple[SheetCell, ...], ...]
    note: str = ""
    numbers: Sheet | None = None
    """The table as CSV has it, if a cell of this one has several numbers."""

    def only(self, labels: Sequence[str]) -> Sheet:
        """Return the table with some of its columns, in their order."""
        indices = [index for index, column in enumerate(self.columns) if column.label in labels]
        return replace(
            self,
            columns=tuple(self.columns[index] for index in indices),
            rows=tuple(tuple(row[index] for index in indices) for row in self.rows),
            numbers=None,
        )

    def write(self, folder: Path) -> None:
        """Write NAME.csv with all digits, and NAME.md and NAME.tex with rounded numbers."""
        files.write_atomic(folder / f"{self.name}.csv", self.as_csv().encode())
        files.write_atomic(folder / f"{self.name}.md", self.markdown().encode())
        files.write_atomic(folder / f"{self.name}.tex", self.latex().encode())

    def as_csv(self) -> str:
        """Return the table as CSV; missing values are empty."""
        if self.numbers is not None:
            return self.numbers.as_csv()
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([not_a_formula(column.label) for column in self.columns])
        writer.writerows(
            ["" if cell is None else not_a_formula(_plain(cell)) for cell in row] for row in self.rows
        )
        return out.getvalue()

    def section_table(self) -> SectionTable:
        """Return the table for a section of the report's page, which rounds its numbers."""
        return SectionTable(
            self.title,
            [SectionColumn(column.label) for column in self.columns],
            [
                [
                    SectionCell(cell.text, cell.number) if isinstance(cell, NumberText) else cell
                    for cell in row
                ]
                for row in self.rows
            ],
        )

    def printed_table(self) -> SectionTable:
        """Return the table for a section of the report's page, with numbers as this table prints them."""
        return SectionTable(
            self.title,
            [SectionColumn(column.label) for column in self.columns],
            [[_printed(*each) for each in zip(row, self.columns, strict=True)] for row in self.rows],
        )

    def texts(self) -> list[list[str]]:
        """Return the cells of every row as printed."""
        return [
            [_text(cell, column) for cell, column in zip(row, self.columns, strict=True)] for row in self.rows
        ]

    def markdown(self) -> str:
        """Return the table as Markdown."""
        lines = [f"**{self.title}**", "", _line([column.label for column in self.columns]),
                 "|" + "---|" * len(self.columns), *map(_line, self.texts())]  # fmt: skip
        return "\n".join([*lines, *(["", self.note] if self.note else []), ""])

    def latex(self) -> str:
        r"""Return the table as LaTeX; a document needs ``\usepackage{booktabs}``."""
        rows = [[column.label for column in self.columns], *self.texts()]
        head, *body = ["  " + " & ".join(map(latex.escape, row)) + r" \\" for row in rows]
        caption = latex.escape(" ".join(filter(None, (f"{self.title}.", self.note))))
        return "\n".join(
            [r"\begin{table}", rf"\caption{{{caption}}}",
             rf"\begin{{tabular}}{{l{'r' * (len(self.columns) - 1)}}}",
             r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Return title, columns and rows as JSON."""
        labels = [column.label for column in self.columns]
        return {
            "title": self.title,
            "note": self.note,
            "columns": labels,
            "rows": [[_plain(cell) for cell in row] for row in self.rows],
        }


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in cells) + " |"


def _plain(cell: SheetCell) -> str | int | float | None:
    return cell.text if isinstance(cell, NumberText) else cell


def _printed(cell: SheetCell, column: SheetColumn) -> str | SectionCell | None:
    if cell is None or isinstance(cell, str):
        return cell
    return SectionCell(_text(cell, column), cell.number if isinstance(cell, NumberText) else cell)


def _text(cell: SheetCell, column: SheetColumn) -> str:
    if cell is None:
        return MISSING
    if isinstance(cell, str | NumberText):
        return str(_plain(cell))
    sign = "+" if column.signed else ""
    if column.percent:
        return f"{100 * cell:{sign}.{max(0, column.decimals - 2)}f} %"
    return f"{cell:{sign},}" if isinstance(cell, int) else f"{cell:{sign}.{column.decimals}f}"
