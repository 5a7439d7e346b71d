"""Unstructured lottery tickets: weights that are set to zero, a baseline.

    imp         round 0   fine-tune the pretrained weights                                  sparsity 0
                round r   set the smallest 10 r % of the weights of round r - 1 to zero; reset the others to
                          their pretrained values; fine-tune                                sparsity 10 r %
    standard    as imp, but round r goes on from the trained weights of round r - 1
    one-shot    set the smallest pretrained weights to zero; fine-tune
    random      set weights that are drawn at random to zero; fine-tune

Chen et al. 2020, "The Lottery Ticket Hypothesis for Pre-trained BERT Networks": lr 2e-5, batch 32, 3 epochs
a round, one ranking over all layers. The task head starts anew in every round, from the same seed; only
``standard`` keeps the trained one. With the objective ``mlm`` the rounds of ``imp`` train masked language
modelling instead, and the mask, which does not depend on the task ("universal" at 70 %), is fine-tuned once
on the task. These rounds may have settings of their own, prune before they train, and read blocks of
consecutive text (:mod:`language`, :mod:`blocks`).

A mask that was found on the pretrained weights may be applied to other weights (:mod:`start`), and rounds may
be rewound to a later step of the first fine-tuning (:mod:`rounds`). Every mask is a file that can be used for
other tasks. The checkpoints keep all heads and FFNs; dense kernels are not faster for zeros, as profiling
shows. Each mask and each fine-tuning is a cell of a recipe; :mod:`effx.recipe.graph.lottery` has their order.
"""

from effx.train.lottery.check import check
from effx.train.lottery.table import markdown

__all__ = ["check", "markdown"]
