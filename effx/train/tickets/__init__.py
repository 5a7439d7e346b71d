"""Super tickets: find, rewind, select (Liang et al. 2021, "Super Tickets in Pre-Trained Language Models").

    fine-tune -> score -> cut -> rewind to the pretrained weights -> fine-tune -> evaluate

``plan`` says what a ticket loses, ``cells`` trains each, ``halving`` searches with fewer steps,
``selection`` and ``table`` say what came out, ``figure`` draws it.
"""

from effx.specs.levels import Level, parse_levels
from effx.specs.presets import PRESETS, preset
from effx.train.tickets.plan import KINDS
from effx.train.tickets.sweep import run
from effx.train.tickets.table import markdown

__all__ = ["KINDS", "Level", "PRESETS", "markdown", "parse_levels", "preset", "run"]
