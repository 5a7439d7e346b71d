"""Few-shot adaptation: several models fine-tuned on the same small shares of the rows of another task.

Section 4.4 of Liu et al. 2019, "Multi-Task Deep Neural Networks for Natural Language Understanding", and
section 5.4 of Liang et al. 2021, "Super Tickets in Pre-Trained Language Models".
"""

from effx.train.adaptation.check import check
from effx.train.adaptation.table import markdown

__all__ = ["check", "markdown"]
