"""Encoder families: a table, and one module per kind of architecture.

A new family is one row if an existing implementation can be used (as :mod:`effx.models.families.bert` for
RoBERTa and its relatives); otherwise a module that implements :class:`Family`, and its rows.
Nothing outside this package depends on an architecture's name or on the paths of its modules.
"""

from __future__ import annotations

from transformers import CONFIG_MAPPING, PreTrainedModel, __version__

from effx.errors import UsageError
from effx.models.families import bert, deberta, modernbert, nomic
from effx.models.families.protocol import Family, Matrix
from effx.specs.families import NEAREST

__all__ = ["FAMILIES", "Family", "Matrix", "named", "of"]

_ALL: dict[str, Family] = {
    "bert": bert.BERT,
    "roberta": bert.ROBERTA,
    "xlm-roberta": bert.ROBERTA,
    "camembert": bert.ROBERTA,
    "electra": bert.ELECTRA,
    "mpnet": bert.MPNET,
    "distilbert": bert.DISTILBERT,
    "modernbert": modernbert.MODERNBERT,
    "deberta-v2": deberta.DEBERTA,
    "nomic_bert": nomic.NOMIC,
}
FAMILIES = {name: family for name, family in _ALL.items() if name in CONFIG_MAPPING}
"""``model_type`` in config.json -> family, of those that the installed transformers has."""


def of(model: PreTrainedModel) -> Family:
    """Return the family of a model.

    Raises:
        UsageError: the architecture is not supported; the message lists the supported ones.
    """
    return named(str(model.config.model_type))


def named(model_type: str) -> Family:
    """Return the family for a ``model_type`` in config.json; raises as :func:`of`."""
    if model_type in _ALL and model_type not in FAMILIES:
        raise UsageError(
            f"architecture '{model_type}' is not in transformers {__version__}: install a newer one."
        )
    if model_type not in FAMILIES:
        nearest, missing = NEAREST.get(model_type, ("", ""))
        hint = f" The nearest family is {nearest}; effx does not compute {missing}." if nearest else ""
        raise UsageError(
            f"architecture '{model_type}' is not supported.{hint} Supported: {', '.join(FAMILIES)}."
        )
    return FAMILIES[model_type]
