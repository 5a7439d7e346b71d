"""Where a task's rows are, and how their files are read: settings of the command line and of recipes."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from effx.errors import UsageError
from effx.specs.kinds import KINDS
from effx.specs.settings import OneOf, Parsed, Seed, Settings, wrong

QUOTINGS = ("double", "single", "backslash", "none")
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}


def delimiter_name(delimiter: str) -> str:
    """Return a delimiter as messages name it."""
    return next((name for name, value in DELIMITERS.items() if value == delimiter), f"'{delimiter}'")


def _delimiter(text: str) -> str:
    value = DELIMITERS.get(text, "\t" if text == "\\t" else text)
    if len(value) != 1 or value in "\"'\\\r\n\0 ":
        raise UsageError(f"expected {', '.join(DELIMITERS)} or one character, got {text!r}.")
    return value


def _encodings(text: str) -> str:
    for name in text.split(","):
        try:
            info = codecs.lookup(name.strip())
        except LookupError as error:
            raise UsageError(f"unknown encoding '{name}'. Usual: utf-8, utf-16, latin-1, cp1252.") from error
        if not getattr(info, "_is_text_encoding", True):
            raise UsageError(f"'{name}' is not an encoding of text. Usual: utf-8, utf-16, latin-1, cp1252.")
    return ",".join(name.strip() for name in text.split(","))


OF_LABELS = {
    "label_column", "task_kind", "label_separator", "label_columns", "class_names", "split", "split_seed",
}  # fmt: skip
"""Settings that rows without labels cannot have; they are not trained on, so not divided either."""


class DataSettings(Settings):
    """How files of rows are read. What is not set is inferred from the files, and reported."""

    text_column: str | None = None
    """Column of the text, or of the first text of a pair. Default: sentence, text, or another usual name."""
    text_pair_column: str | None = None
    """Column of the second text of a pair. Default: sentence2, hypothesis, or another usual name."""
    label_column: str | None = None
    """Column of the label. Default: label, or another usual name."""
    task_kind: Annotated[str, OneOf("task kind", tuple(KINDS))] | None = None
    """Kind of the task, see docs/tasks.md. Default: inferred from columns and labels. Lists are tags (token
    classification) if the texts are lists of words, otherwise sets of labels (multi-label); numbers with a
    decimal point are regression; a question with a context is answer-span; the rest is classification."""
    label_separator: Annotated[str, Field(min_length=1)] | None = None
    """Separator of the labels, e.g. a semicolon, if the label's column can have several labels."""
    label_columns: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    """Columns of 0 and 1, one for each label, if a row can have several labels."""
    class_names: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    """Names of all classes, in the order of the model's outputs. Default: those of the files, sorted."""
    unlabelled: bool = False
    """The rows have no labels, or labels that must not be used. Accuracy is then unknown; effx profile
    measures the agreement with a reference engine instead."""
    split: Annotated[float, Field(gt=0, lt=1)] | None = None
    """For data in one file: share of the rows to train on, e.g. 0.8; the others are the validation rows. Both
    parts have the same shares of the classes, and rows with equal texts are in the same part."""
    split_seed: Seed | None = None
    """Random seed of the split. Default: 0."""
    encoding: Annotated[str, Parsed(_encodings, "ENCODING", "an encoding, e.g. utf-8 or latin-1")] | None = (
        None
    )
    """Encoding of text files, or several, e.g. utf-8,latin-1: each line is decoded by the first that fits.
    Default: UTF-8, or the encoding of the byte-order mark."""
    delimiter: (
        Annotated[str, Parsed(_delimiter, "DELIMITER", "comma, semicolon, tab, pipe or one character")] | None
    ) = None
    """Delimiter of .csv, .tsv and .txt files: comma, semicolon, tab, pipe, or one character. Default:
    inferred from the file."""
    quoting: Annotated[str, OneOf("quoting", QUOTINGS)] | None = None
    """Quoting in .csv, .tsv and .txt files. double, single: texts are in double or single quotes, and a quote
    within a text is written twice; backslash: double quotes, and a quote within a text follows a backslash;
    none: quotes are characters of the text. Default: inferred from the file."""

    @field_validator("class_names", "label_columns")
    @classmethod
    def _distinct(cls, names: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        what = "class" if info.field_name == "class_names" else "column"
        for name in names or ():
            if names and names.count(name) > 1:
                raise wrong(f"duplicate {what} '{name}'.")
        return names

    @property
    def several_labels(self) -> bool:
        """Whether the user says that a row may have several labels."""
        return self.task_kind == "multi-label" or bool(self.label_separator or self.label_columns)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.text_pair_column is not None and self.text_column is None:
            raise wrong("text_pair_column needs text_column: give both.", "text_pair_column", "text_column")
        columns = [
            self.text_column, self.text_pair_column, self.label_column, *(self.label_columns or ())
        ]  # fmt: skip
        given = [column for column in columns if column is not None]
        if len(set(given)) < len(given):
            raise wrong(
                "text_column, text_pair_column, label_column and label_columns: expected different columns.",
                "text_column", "text_pair_column", "label_column", "label_columns",
            )  # fmt: skip
        if self.label_columns is not None:
            for name in ("label_column", "label_separator", "class_names"):
                if getattr(self, name) is not None:
                    raise wrong(
                        f"label_columns already names the labels: leave out {name}.", "label_columns", name
                    )
        if self.task_kind not in (None, "multi-label"):
            for name in ("label_separator", "label_columns"):
                if getattr(self, name) is not None:
                    raise wrong(f"rows with several labels are multi-label, not {self.task_kind}.",
                                "task_kind", name)  # fmt: skip
        if self.split_seed is not None and self.split is None:
            raise wrong("split_seed needs split.", "split_seed", "split")
        if self.unlabelled and (names := sorted(OF_LABELS & self.given().keys())):
            raise wrong(f"rows without labels have no {' and '.join(names)}: leave unlabelled out, or "
                        f"{' and '.join(names)}.", "unlabelled", *names)  # fmt: skip
        if self.class_names is not None and self.task_kind and KINDS[self.task_kind].of_numbers:
            raise wrong("numbers to predict have no classes: leave out class_names, or task_kind.",
                        "class_names", "task_kind")  # fmt: skip
        return self


@dataclass(frozen=True)
class DataSource:
    """A file or folder of rows, and how it is read."""

    path: str
    """A file, or a folder with files of train and validation rows."""
    settings: DataSettings = DataSettings()
    digest: str | None = None
    """SHA-256 of the contents of the files that were split, once something was trained on one part: another
    file would be split differently. None: they were not split, or nothing was trained on them yet."""

    @classmethod
    def of(cls, value: DataLocation) -> DataSource | None:
        """Return a location given in any of its forms; None stays None."""
        return value if value is None or isinstance(value, DataSource) else cls(str(value))

    def to_json(self) -> dict[str, Any]:
        """Return the source as manifests have it."""
        known = self.settings.to_json()
        return {
            "path": self.path,
            "settings": {name: known[name] for name in self.settings.given()},
            "digest": self.digest,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DataSource:
        """Return the source that a manifest describes."""
        return cls(value["path"], DataSettings.of(**value["settings"]), value["digest"])

    def absolute(self) -> DataSource:
        """Return the source with an absolute path."""
        return replace(self, path=str(Path(self.path).resolve()))


DataLocation = str | Path | DataSource | None
"""Where rows are; None: the hub, or the demo corpus; of an artifact: where its rows came from."""


@dataclass(frozen=True)
class DataRecord:
    """Which rows an artifact was made with. Where they are is known only to the machine that read them."""

    name: str
    """Name of the file or folder."""
    folder: bool
    """Whether it is a folder."""
    settings: DataSettings
    """How the files are read."""
    digest: str
    """SHA-256 of the contents of the files with training and validation rows."""

    def to_json(self) -> dict[str, Any]:
        """Return the record as manifests have it."""
        known = self.settings.to_json()
        settings = {name: known[name] for name in self.settings.given()}
        return {"name": self.name, "folder": self.folder, "settings": settings, "digest": self.digest}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DataRecord:
        """Return the record that a manifest has."""
        return cls(value["name"], value["folder"], DataSettings.from_json(value["settings"]), value["digest"])
