"""What holds for every group of settings."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from collections.abc import Iterator

import pytest
from pydantic import BaseModel

import effx.specs
from effx.specs.settings import Settings


def kinds_of(base: type[Settings]) -> Iterator[type[Settings]]:
    for kind in base.__subclasses__():
        yield kind
        yield from kinds_of(kind)


def every_kind() -> list[type[Settings]]:
    """Return every group of settings in ``effx/specs``; it is a subclass once its module is imported."""
    for module in pkgutil.walk_packages(effx.specs.__path__, "effx.specs."):
        importlib.import_module(module.name)
    kinds = [kind for kind in dict.fromkeys(kinds_of(Settings)) if kind.__module__.startswith("effx.specs.")]
    return sorted(kinds, key=lambda kind: kind.__name__)


def names_within(kind: type[BaseModel]) -> list[str]:
    names: list[str] = []
    for name, field in kind.model_fields.items():
        inner = field.annotation
        is_group = isinstance(inner, type) and issubclass(inner, Settings)
        names += names_within(inner) if is_group else [name]
    return names


@pytest.mark.parametrize("kind", every_kind(), ids=lambda kind: kind.__name__)
def test_a_name_occurs_once_among_the_fields_of_settings_and_their_groups(kind: type[Settings]) -> None:
    assert [name for name, count in Counter(names_within(kind)).items() if count > 1] == []


def test_settings_of_many_modules_are_found() -> None:
    names = {kind.__name__ for kind in every_kind()}
    assert {"MeasurementPlan", "FinetuneSettings", "EarlyExitSettings", "OneShotStage"} - names == set()
