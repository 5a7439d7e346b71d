"""Engines whose answers depend on the other rows of a batch: which score belongs to which workload.

With dynamic int8 scales, padding that is not masked, or shares of a batch's tokens, a row gets another answer
alone than in a batch. :mod:`effx.profile` scores such an engine in single queries and, where they are
measured, in the batches of other scenarios. The score of the workload whose time or energy is compared is
used.
"""

from __future__ import annotations

from collections.abc import Sequence

from effx.results import Run

_DYNAMIC = "int8-dynamic"


def scored_for(runs: Sequence[Run], objectives: Sequence[str]) -> list[Run]:
    """Return runs with the scores of the workload that an objective is about: the offline scenario's batches
    for its throughput, else single queries.
    """
    if "throughput_offline" not in objectives:
        return list(runs)
    return [_offline(run) for run in runs]


def _offline(run: Run) -> Run:
    batches = next((each.workload for each in run.workloads if each.workload.scenario == "offline"), None)
    return run if batches is None else run.scored_in(batches) or run


def remark(run: Run) -> str | None:
    """Return that an engine's answers depend on the batch, with its scores; None: they do not, or a failed
    gate made its scores unavailable.
    """
    if run.withdrawn("quality"):
        return None
    quality = run.quality
    if quality.batch_dependent is None and run.engine.scheme == _DYNAMIC and quality.workload.batch > 1:
        return (
            f"{run.name}: {quality.metric} was measured with workload {quality.workload.name}; with dynamic "
            "int8 scales it can differ for single queries, which were not scored: profile the engine again"
        )
    if not quality.batch_dependent:
        return None
    scores = [(quality.value, quality.workload)]
    scores += [(each.quality.value, each.workload) for each in run.workloads if each.quality is not None]
    listed = ", ".join(f"{value:.4f} in {workload.name}" for value, workload in scores)
    return f"{run.name}: its predictions depend on the other rows of a batch: {quality.metric} {listed}"
