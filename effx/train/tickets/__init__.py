"""Super tickets (Liang et al. 2021, "Super Tickets in Pre-Trained Language Models"): the parts of a search.

    fine-tune -> score -> prune -> rewind to the pretrained weights -> fine-tune -> evaluate

``draw`` trains one ticket by :mod:`effx.tickets.plan`, ``halving`` decides which levels
continue, ``selection`` and ``table`` evaluate the search, ``figure`` draws it. A recipe's cells call these;
:mod:`effx.recipe.sweeps` is the search.
"""

from effx.tickets.plan import KINDS
from effx.train.tickets.check import check
from effx.train.tickets.table import markdown

__all__ = ["KINDS", "check", "markdown"]
