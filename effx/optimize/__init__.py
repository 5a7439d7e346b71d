"""The smallest model under a budget of measured cost: cost tables, the choice of sizes, one-shot pruning.

cost_table        what heads and FFNs cost: records, and the predicted cost of a structure
measure_costs     graphs of equal layers, built and timed in turns
budget            one size for each layer, by dynamic programming and a random search over coefficients
one_shot          order of heads and neurons, choice, refitted weights -> checkpoint
check             what effx optimize checks before the work
predicted_labels  labels of rows that have none, predicted by the checkpoint

The cells of effx optimize are in :mod:`effx.recipe.graph.optimize`, its answer in
:mod:`effx.analysis.optimized`.
"""
