"""The smallest model under a budget of measured cost: cost tables, the choice of sizes, one-shot pruning.

layer_costs       what a structure costs, from what the parts of a layer cost
cost_table        what heads and FFNs cost in seconds and joules: records
probes            which graphs are measured for a table
measure_costs     these graphs, built and timed in turns
energy_windows    their joules, in windows that take turns
tabulate          from times and joules of graphs to a table
budget            one size for each layer, by dynamic programming and a random search over coefficients
one_shot          order of heads and neurons, choice, refitted weights -> checkpoint
forms             variants and backends in which models are built, of which the fastest are kept
check             what effx optimize checks before the work
predicted_labels  labels of rows that have none, predicted by the checkpoint

The cells of effx optimize are in :mod:`effx.recipe.graph.optimize`, its answer in
:mod:`effx.analysis.optimized`.
"""
