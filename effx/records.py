"""JSON files of effx, read strictly: each becomes a frozen, typed record, or a one-line error with its key.

    read_json(path)           bytes -> JSON object: UTF-8, no duplicate keys, finite numbers, bounded size
    build(kind, value, path)  JSON object -> record: exact types, no unknown keys

Files may come from others. Nothing in them is converted: "5" is not a number, 1 is not true, 1.0 is not an
integer.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationError
from pydantic_core import ErrorDetails

from effx.errors import ArtifactError, EffxError, one_line, printable

MAX_BYTES = 256 << 20
"""Size of a file at most."""
MAX_FOREIGN_BYTES = 16 << 20
"""Size of a config of another program at most."""
_MAX_INTEGER = 1 << 63
_MAX_TEXT = 10_000
"""Characters of a text at most."""
_UNPRINTABLE = re.compile(
    r"(?<!\\)(?:\\\\)*\\(?:[bfnrt]|u00[01][0-9a-f]|u00[89][0-9a-f]|u007f|u20(?:2[89a-e]|6[6-9])|ufeff)"
)
"""Control characters and marks that reorder text, as JSON in ASCII has them."""
_SHOWN_ERRORS = 3
_SHOWN_CHARACTERS = 60


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_named_number(value: Any) -> bool:
    pair = isinstance(value, list | tuple) and len(value) == 2
    return pair and isinstance(value[0], str) and _is_finite(value[1])


def _stored_label(value: Any) -> Any:
    """Check a label or prediction of a row.

    Raises:
        ValueError: it is neither a finite number, nor a text, nor a list of either or of pairs of both.
    """
    if isinstance(value, list | tuple):
        if all(map(_is_finite, value)) or all(isinstance(entry, str) for entry in value):
            return value
        if all(map(_is_named_number, value)):
            return value
    elif isinstance(value, str) or _is_finite(value):
        return value
    raise ValueError("expected a number, a text, or a list of numbers, texts or [text, number]")


StoredLabel = Annotated[Any, PlainValidator(_stored_label)]
"""Label or prediction of a row as JSON has it: a class, a number, the numbers of its labels, an answer, the
accepted answers, or the scores of its candidates."""


class Record(BaseModel):
    """Base of records that are read from JSON files and written to them."""

    # validators are built on first use: a process that opens an engine does not need those of results
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values, every field by its name."""
        return self.model_dump(mode="json")


R = TypeVar("R", bound=Record)
D = TypeVar("D")


def read_json(path: Path, *, limit_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ArtifactError: the file is missing, not a regular file, too large, or not strict JSON; its root is not
            an object.
    """
    return parse_json(read_regular(path, limit_bytes=limit_bytes), path)


def read_foreign_json(path: Path, *, limit_bytes: int = MAX_FOREIGN_BYTES) -> dict[str, Any]:
    """Read a JSON object that another program wrote: NaN, integers of any size and duplicate keys are usual.

    Raises:
        ArtifactError: the file is missing, not a regular file, too large, or not JSON; its root is not an
            object.
    """
    value = _foreign(path, limit_bytes)
    if not isinstance(value, dict):
        raise ArtifactError(f"{path}: expected a JSON object, got {_shown(value)}.")
    return value


def read_foreign_list(path: Path) -> list[Any]:
    """Read a JSON list that another program wrote; otherwise as :func:`read_foreign_json`."""
    value = _foreign(path, MAX_FOREIGN_BYTES)
    if not isinstance(value, list):
        raise ArtifactError(f"{path}: expected a JSON list, got {_shown(value)}.")
    return value


def _foreign(path: Path, limit_bytes: int) -> object:
    try:
        value: object = json.loads(read_regular(path, limit_bytes=limit_bytes))
    except RecursionError as error:
        raise ArtifactError(f"{path} cannot be read: its JSON is nested too deeply.") from error
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON: {one_line(error)}.") from error
    return value


def read_regular(path: Path, *, limit_bytes: int = MAX_BYTES) -> bytes:
    """Return the bytes of a regular file: reading a FIFO would wait for a writer, a device may not end.

    Raises:
        ArtifactError: the file is missing, not a regular file, or too large.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactError(f"{path} is not a regular file.")
        if status.st_size > limit_bytes:
            raise ArtifactError(f"{path}: expected at most {limit_bytes:,} bytes, got {status.st_size:,}.")
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error


def parse_json(data: bytes, path: Path) -> dict[str, Any]:
    """Return the JSON object that ``data`` is; ``path`` is for messages.

    Raises:
        ArtifactError: it is not strict JSON, or not an object.
    """
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=unique_keys,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_bounded,
        )
        json.dumps(value, ensure_ascii=False).encode()  # fails for lone surrogates
    except UnicodeError as error:
        raise ArtifactError(f"{path} cannot be read: it is not UTF-8 text.") from error
    except RecursionError as error:
        raise ArtifactError(f"{path} cannot be read: its JSON is nested too deeply.") from error
    except ValueError as error:
        raise ArtifactError(f"{path} cannot be read: {printable(str(error))}.") from error
    if not isinstance(value, dict):
        raise ArtifactError(f"{path}: expected a JSON object, got {_shown(value)}.")
    return value


def build(kind: type[R], value: Mapping[str, Any], path: Path) -> R:
    """Return the record of a JSON object that :func:`read_json` returned; ``path`` is for messages.

    Raises:
        ArtifactError: a key is missing or unknown, or a value is of the wrong type or contradicts another.
    """
    try:
        return kind.model_validate_json(json.dumps(value))
    except ValidationError as error:
        raise ArtifactError(f"{path}: {problems(error)}.") from error
    except EffxError as error:  # of a value that checks itself, as an exit rule
        raise ArtifactError(f"{path}: {error}") from error


def read_result(kind: Callable[..., D], path: Path, trained: str) -> D:
    """Read the result of a training in a workspace.

    Args:
        kind: the dataclass whose fields the file has.
        path: the file.
        trained: what is trained again without it, for the message: ``the ticket``.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    try:
        return kind(**read_json(path))
    except (ArtifactError, TypeError) as error:
        reason = one_line(error, None).rstrip(".")
        raise ArtifactError(
            f"{path} cannot be read ({reason}). Delete its folder; {trained} is then trained again."
        ) from error


def check_texts(value: Any, *, line_breaks: bool = False) -> None:
    """Check the texts in a JSON value.

    Args:
        value: as :func:`read_json` returns it.
        line_breaks: whether texts may have several lines.

    Raises:
        ValueError: a text has characters that a terminal would act on, or is too long.
    """
    text = json.dumps(value)
    if _UNPRINTABLE.search(text.replace("\\n", "") if line_breaks else text):
        raise ValueError("a text has control characters")
    if _longest_text(value) > _MAX_TEXT:
        raise ValueError(f"a text has more than {_MAX_TEXT:,} characters")


def printable_json(value: Any) -> Any:
    """Return JSON in which every text is one line of printable characters, as :func:`check_texts` expects."""
    if isinstance(value, str):
        return printable(" ".join(value.split()) if not value.isprintable() else value)
    if isinstance(value, dict):
        return {printable_json(key): printable_json(item) for key, item in value.items()}
    if isinstance(value, list) and not (value and isinstance(value[0], int | float)):
        return [printable_json(item) for item in value]
    return value


def problems(error: ValidationError) -> str:
    """Return the first errors of pydantic as one line, each with its key."""
    details = error.errors(include_url=False)
    texts = [_problem(detail) for detail in details[:_SHOWN_ERRORS]]
    more = len(details) - len(texts)
    return "; ".join([*texts, *([f"{more} more"] if more else [])])


def _problem(detail: ErrorDetails) -> str:
    key = ""
    for part in detail["loc"]:
        if isinstance(part, int):
            key += f"[{part}]"
        elif part not in ("int", "float"):  # branches of a union
            key += f".{part}"
    kind, message = detail["type"], detail["msg"]
    if kind == "missing":
        message = "missing"
    elif kind in ("extra_forbidden", "unexpected_keyword_argument"):
        message = "unknown key"
    else:
        message = message.removeprefix("Value error, ").replace("Input should be", "expected")
        if message.startswith("expected"):
            message += f", got {_shown(detail['input'])}"
    message = message.removesuffix(".")
    return printable(f"{key.removeprefix('.')}: {message}" if key else message)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"duplicate key {next(name for name in names if names.count(name) > 1)!r}")
    return value


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:_SHOWN_CHARACTERS]} is too large for a number")
    return value


def _bounded(text: str) -> int:
    if len(text) > 20 or abs(int(text)) >= _MAX_INTEGER:
        raise ValueError(f"{text[:_SHOWN_CHARACTERS]} is too large for an integer")
    return int(text)


def _longest_text(value: Any) -> int:
    """Return the length of the longest text in JSON; lists that begin with a number have none."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return max((max(len(key), _longest_text(item)) for key, item in value.items()), default=0)
    if isinstance(value, list) and not (value and isinstance(value[0], int | float)):
        return max(map(_longest_text, value), default=0)
    return 0
