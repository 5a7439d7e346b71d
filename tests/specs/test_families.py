"""Facts about families that are read without PyTorch, compared with the models."""

from __future__ import annotations

import pytest

from effx.errors import UsageError
from effx.models import families
from effx.models.checkpoints import position_limit
from effx.specs import families as specs
from tests.models import tiny


@pytest.mark.parametrize("family", families.FAMILIES)
def test_position_limit_is_that_of_the_model(family: str) -> None:
    model = tiny.model(family, layers=1)
    assert specs.position_limit(model.config.to_dict()) == position_limit(model)


def test_position_limit_is_unknown_where_the_config_does_not_say() -> None:
    assert specs.position_limit({"model_type": "bert"}) is None
    assert specs.position_limit({"model_type": "bert", "max_position_embeddings": True}) is None
    assert specs.position_limit({"model_type": "mpnet", "max_position_embeddings": 514}, pad_id=1) == 512


@pytest.mark.parametrize("family", families.FAMILIES)
def test_families_of_which_only_the_last_layers_can_be_dropped(family: str) -> None:
    of_family = families.of(tiny.model(family, layers=3))
    of_family.check_layers([0, 1])
    for positions in ([1, 2], [0, 2]):
        try:
            of_family.check_layers(positions)
            assert family not in specs.LAST_LAYERS_ONLY
        except UsageError:
            assert family in specs.LAST_LAYERS_ONLY


def test_nearest_families_are_supported_and_their_models_are_not() -> None:
    assert {nearest for nearest, _ in specs.NEAREST.values()} <= set(families.FAMILIES)
    assert not set(specs.NEAREST) & set(families.FAMILIES)
