"""Settings as frozen pydantic models: each field declares its type, default, bounds, choices and help once.

The command line makes options of the fields, a recipe reads keys by them, and the training code receives
the objects. Settings are composed: a field may hold another group of settings. Seen from outside, as
options or keys, the groups are flat, so a name occurs only once in a group and the groups within it.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import annotated_types
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from effx.errors import UsageError, nearest

_CUSTOM = "effx"
_MISSING = "missing"
_UNKNOWN = "extra_forbidden"


@dataclass(frozen=True)
class OneOf:
    """Annotation of a field that takes one of a few words.

    Args:
        noun: what the words are, for messages, as ``optimizer``.
        choices: the words.
    """

    noun: str
    choices: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, value: str) -> str:
        if value not in self.choices:
            known = ", ".join(self.choices)
            raise wrong(f"unknown {self.noun} '{value}'.{nearest(value, self.choices)} Known: {known}.")
        return value


def _seed(value: int) -> int:
    if value >= 1 << 32:
        raise wrong(f"expected a seed below {1 << 32:,}, got {value}.")
    return value


Seed = Annotated[int, Field(ge=0), AfterValidator(_seed)]
"""A random seed; NumPy takes no larger ones."""
_MAX_INTEGER = 10**18


@dataclass(frozen=True)
class Parsed:
    """Annotation of a field that is written as a word of a small grammar.

    Args:
        parse: word -> value; raises :class:`UsageError` for what is outside the grammar. The field's value
            is what it returns.
        metavar: the grammar in a few characters, for help texts.
        noun: what is expected, for messages, as ``a level, e.g. 40``.
        text: value -> word.
    """

    parse: Callable[[str], Any]
    metavar: str
    noun: str
    text: Callable[[Any], str] = str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        parsed = source if isinstance(source, type) else typing.get_origin(source)

        def read(value: Any) -> Any:
            if not isinstance(value, str | int | float | parsed):
                raise wrong(f"expected {self.noun}, got {type(value).__name__}.")
            return self._read(value)

        return core_schema.no_info_plain_validator_function(
            read, serialization=core_schema.plain_serializer_function_ser_schema(self.text)
        )

    def _read(self, value: Any) -> Any:
        if not isinstance(value, str | int | float):
            return value  # parsed already
        try:
            return self.parse(str(value))
        except UsageError as error:
            raise wrong(str(error)) from error


class Settings(BaseModel):
    """Base of all settings.

    Raises:
        UsageError: a value is out of range, a name is unknown, or two settings exclude each other. Its
            ``settings`` are the names concerned.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        validate_default=False,
    )
    NOTES: ClassVar[Mapping[str, str]] = {}
    """Name of a setting -> addition to the field's help text."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _usage_error(type(self), error) from error

    # pydantic then validates nested settings itself, so that all mistakes are reported at once
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @field_validator("*", mode="before")
    @classmethod
    def _plain_values(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false as numbers or words; a single value is accepted as a list with one entry."""
        assert info.field_name is not None
        field = cls.model_fields[info.field_name]
        kind = kind_of(field)
        numbers = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(part, int) and abs(part) >= _MAX_INTEGER for part in numbers):
            raise wrong(f"expected {expectation(field)}, got a number of more than 18 digits.")
        listed = value if isinstance(value, list | tuple) else [value]
        if kind is not bool and any(isinstance(part, bool) for part in listed):
            raise wrong(f"expected {expectation(field)}, got {value}.")
        if kind is bool and not isinstance(value, bool) and (value is not None or field.default is not None):
            raise wrong(f"expected true or false, got {value!r}.")
        if is_list(field) and value is not None and not isinstance(value, list | tuple | Mapping):
            return (value,)
        return value

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Return settings from names as options and keys have them, whatever group they belong to.

        Raises:
            UsageError: as above, or no setting has that name.
        """
        try:
            return cls.model_validate(nested(cls, values))
        except ValidationError as error:
            raise _usage_error(cls, error) from error

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return settings as :meth:`to_json` writes them; all of them, or some.

        Raises:
            UsageError: as above, or a value is of another type than it is written with.
        """
        settings = cls.of(**values)
        known = settings.to_json()
        for name, value in values.items():
            if json.dumps(value) != json.dumps(known[name]):
                raise UsageError(
                    f"expected {json.dumps(known[name])}, got {json.dumps(value)}.", settings=name
                )
        return settings

    def flat(self) -> dict[str, Any]:
        """Return every setting by name, those of inner groups among them."""
        values: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            values |= value.flat() if isinstance(value, Settings) else {name: value}
        return values

    def given(self) -> dict[str, Any]:
        """Return the settings that were given, not those left at their defaults."""
        values: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Settings):
                values |= value.given()
            elif name in self.model_fields_set:
                values[name] = value
        return values

    def replace(self, **values: Any) -> Self:
        """Return the settings with some of them changed."""
        return self.of(**{**self.given(), **values})

    def to_json(self) -> dict[str, Any]:
        """Return every setting by name, as JSON values."""
        return _flat_json(type(self), self.model_dump(mode="json"))


@dataclass(frozen=True)
class Leaf:
    """A setting within its groups."""

    name: str
    groups: tuple[str, ...]
    """Names of the fields that hold it, outermost first; empty: a field of the settings themselves."""
    field: FieldInfo


def leaves(cls: type[Settings]) -> Iterator[Leaf]:
    """Yield every setting, those of inner groups after those before them."""
    for name, field in cls.model_fields.items():
        if (inner := group_of(field)) is None:
            yield Leaf(name, (), field)
        else:
            for leaf in leaves(inner):
                yield Leaf(leaf.name, (name, *leaf.groups), leaf.field)


def nested(cls: type[Settings], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return flat ``values`` with each in its group; unknown names are not moved."""
    result: dict[str, Any] = {}
    paths = {leaf.name: leaf.groups for leaf in leaves(cls)}
    for name, value in values.items():
        target = result
        for group in paths.get(name, ()):
            target = target.setdefault(group, {})
        target[name] = value
    return result


def _flat_json(cls: type[Settings], dumped: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in dumped.items():
        inner = group_of(cls.model_fields[name])
        values |= {name: value} if inner is None else _flat_json(inner, value)
    return values


def group_of(field: FieldInfo) -> type[Settings] | None:
    """Return the settings that a field holds; None: it holds a value."""
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Settings) else None


def _core(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return an annotation without ``| None`` and ``Annotated``, and their metadata."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        inner, *metadata = typing.get_args(annotation)
        core, more = _core(inner)
        flat = [
            part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else [item])
        ]
        return core, (*flat, *more)
    if origin in (types.UnionType, typing.Union):
        parts = [part for part in typing.get_args(annotation) if part is not type(None)]
        return _core(parts[0]) if len(parts) == 1 else (annotation, ())
    return annotation, ()


def _parts(field: FieldInfo) -> tuple[Any, tuple[Any, ...], bool]:
    """Return the type of a field, or of its entries, the metadata, and whether it is a list."""
    core, metadata = _core(field.annotation)
    metadata = (*field.metadata, *metadata)
    if typing.get_origin(core) is tuple:
        inner, more = _core(typing.get_args(core)[0])
        return inner, (*more, *metadata), True
    return core, metadata, False


def kind_of(field: FieldInfo) -> Any:
    """Return the type of a field's value, or of the entries where it is a list."""
    return _parts(field)[0]


def is_list(field: FieldInfo) -> bool:
    """Whether a field holds a list."""
    return _parts(field)[2]


def choices(field: FieldInfo) -> OneOf | None:
    """Return the words that a field, or each of its entries, takes; None: it is not a choice."""
    return next((part for part in _parts(field)[1] if isinstance(part, OneOf)), None)


def grammar(field: FieldInfo) -> Parsed | None:
    """Return how a field, or each of its entries, is parsed."""
    return next((part for part in _parts(field)[1] if isinstance(part, Parsed)), None)


@dataclass(frozen=True)
class Bounds:
    """The range of a number."""

    low: float | None = None
    high: float | None = None
    above: bool = False
    """``low`` itself is outside."""
    below: bool = False
    """``high`` itself is outside."""


def bounds(field: FieldInfo) -> Bounds:
    """Return the range of a number, or of each number of a list."""
    low: Any = None
    high: Any = None
    above = below = False
    for part in _parts(field)[1]:
        if isinstance(part, annotated_types.Gt):
            low, above = part.gt, True
        elif isinstance(part, annotated_types.Ge):
            low = part.ge
        elif isinstance(part, annotated_types.Lt):
            high, below = part.lt, True
        elif isinstance(part, annotated_types.Le):
            high = part.le
    return Bounds(low, high, above, below)


_NOUNS = {int: ("an integer", "integers"), float: ("a number", "numbers"), str: ("a word", "words"),
          bool: ("true or false", "true or false")}  # fmt: skip


def expectation(field: FieldInfo) -> str:
    """Return what a field takes, as ``an integer >= 3`` or ``one of adamw, adamax``."""
    listed = is_list(field)
    if one_of := choices(field):
        return f"{'a list of' if listed else 'one of'} {', '.join(one_of.choices)}"
    if parsed := grammar(field):
        return f"a list, each entry {parsed.noun}" if listed else parsed.noun
    if group_of(field):
        return "a mapping"
    single, many = _NOUNS.get(kind_of(field), ("a value", "values"))
    limits, parts = bounds(field), []
    if limits.low is not None:
        parts.append(f"{'>' if limits.above else '>='} {limits.low:g}")
    if limits.high is not None:
        parts.append(f"{'<' if limits.below else '<='} {limits.high:g}")
    text = f"a list of {many}" if listed else single
    return f"{text} {' and '.join(parts)}" if parts else text


def wrong(message: str, *names: str) -> PydanticCustomError:
    """Return the error that a validator raises.

    Args:
        message: what is wrong, one line.
        names: settings that it is about; none: the field that is validated.
    """
    return PydanticCustomError(_CUSTOM, "{message}", {"message": message, "names": names})


def names_of(error: ErrorDetails) -> tuple[str, ...]:
    """Return the settings that an error is about, where a validator of several has named them."""
    return tuple(error.get("ctx", {}).get("names", ()))


def field_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> FieldInfo | None:
    """Return the innermost field on a path into a model."""
    innermost = None
    current: Any = model
    for part in loc:
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            continue
        if part in current.model_fields:
            innermost = current.model_fields[str(part)]
            current = kind_of(innermost)
    return innermost


def details(error: ValidationError) -> list[ErrorDetails]:
    """Return the errors; not that a list is too short where some of its entries are wrong."""
    every = error.errors()
    inner = [detail["loc"][:-1] for detail in every]
    return [detail for detail in every if detail["type"] != "too_short" or detail["loc"] not in inner]


def describe(model: type[BaseModel], error: ErrorDetails, known: tuple[str, ...] = ()) -> str:
    """Return an error of pydantic in one plain line.

    Args:
        model: what was validated.
        error: one of its errors.
        known: names that are allowed where one is unknown.
    """
    if error["type"] == _CUSTOM:
        return str(error["ctx"]["message"])
    if error["type"] == _UNKNOWN:
        name = str(error["loc"][-1])
        return f"unknown setting.{nearest(name, known)} Known: {', '.join(known)}."
    if error["type"] == "too_short":
        return "expected at least one entry."
    field = field_at(model, error["loc"])
    if field is None:
        return str(error["msg"])
    if error["type"] == _MISSING:
        return f"missing: expected {expectation(field)}."
    return f"expected {expectation(field)}, got {_shown(error['input'])}."


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return "nothing" if value is None else repr(value)


def _usage_error(cls: type[Settings], error: ValidationError) -> UsageError:
    """Return pydantic's error as one of effx, which names the settings concerned."""
    every = {leaf.name: leaf for leaf in leaves(cls)}
    texts: list[str] = []
    names: list[str] = []
    for detail in details(error):
        concerned = names_of(detail)
        if not concerned:
            fields = [str(part) for part in detail["loc"] if isinstance(part, str)]
            name = next((part for part in reversed(fields) if part in every), fields[-1] if fields else "")
            concerned = (name,) if name else ()
        text = describe(cls, detail, tuple(every))
        texts.append(text if names_of(detail) or not concerned else f"{concerned[0]}: {text}")
        names += concerned
    return UsageError(" ".join(dict.fromkeys(texts)), settings=tuple(dict.fromkeys(names)))
