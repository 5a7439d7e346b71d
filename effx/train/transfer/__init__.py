"""Transfer of masks and tickets: found on one task, trained on another.

TRANSFER(S, T) is the score on task T of the pretrained weights under the mask of task S, with a new task
head, fine-tuned on T. Chen et al. 2020, "The Lottery Ticket Hypothesis for Pre-trained BERT Networks",
section 4, ask this of masks of single weights; here it is asked of super tickets (heads and FFNs; Liang et
al. 2021) too. Masks of the same task that were found with another seed show how much of a difference is
chance.
"""

from effx.train.transfer.check import check
from effx.train.transfer.table import markdown

__all__ = ["check", "markdown"]
