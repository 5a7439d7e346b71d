"""What a reduction costs to make, and after how many queries it has paid for itself.

    N = (E_training of the reduced model - E_training of the unreduced one)
        / (e_query of the unreduced engine - e_query of the reduced one)

E is in joules, or in processor seconds on the same processor. E_training is everything that had to
be computed to have a checkpoint: earlier checkpoints, importance scores and teachers too; what both models
need, such as the fine-tuning that a pruned model begins with, cancels out. What was tried and not used is not
part of it, nor are exports and evaluations. Joules are those of what the meters read: NVML the board of the
GPU, RAPL processors and memory.

An engine is compared with the unreduced one of the same runtime and precision, so that the saving is that of
the reduction, not of the precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from effx.analysis import cohorts, objectives
from effx.analysis.baseline import is_usual
from effx.analysis.cohorts import energy_of
from effx.analysis.techniques import technique
from effx.costs import Cost, EnergySpent, Expense
from effx.formatting import outwards, significant
from effx.results import Run
from effx.stats import bootstrap

ENERGY, CPU_TIME = "energy", "cpu_time"
QUANTITIES = (ENERGY, CPU_TIME)
"""What may pay for itself, by the objective that measures a query."""


@dataclass(frozen=True)
class Payback:
    """When a reduction has saved as much as it cost to make."""

    quantity: str
    """One of :data:`QUANTITIES`."""
    extra: float | None
    """Joules or processor seconds that the reduced checkpoint took in addition; negative: it took less."""
    extra_interval: tuple[float, float] | None
    """By the uncertainty of the meter; None: it states none, as for processor seconds."""
    saved: float | None
    """Joules or processor seconds that each query takes less; negative: it takes more."""
    saved_interval: tuple[float, float] | None
    """95 %"""
    queries: float | None
    """Queries after which the reduction has paid for itself; 0: at once; None: never, or unknown."""
    interval: tuple[float, float | None] | None
    """From both intervals; None as its end: it may never pay for itself. None: no interval is known."""
    reason: str | None
    """Why ``queries`` is None."""
    source: str | None = None
    """Of the joules, with the meters of training and of queries; None: there are none."""

    def text(self) -> str:
        """Return the number of queries with its interval, or why it is not known."""
        if self.queries is None:
            return str(self.reason)
        if self.queries == 0 and self.interval in (None, (0.0, 0.0)):
            return "at once: it took no more to make"
        text = _count(self.queries)
        if self.interval is None:
            return f"{text}, no interval"
        low, high = self.interval
        return f"{text} [{_outwards(low, up=False)}, {'never' if high is None else _outwards(high, up=True)}]"


@dataclass(frozen=True)
class ReductionCost:
    """What an engine's checkpoint cost to make, in addition to that of the unreduced engine."""

    engine: str
    unreduced: str
    computations: tuple[Expense, ...]
    """Those that only the engine's checkpoint needed."""
    instead_of: tuple[Expense, ...]
    """Those that only the checkpoint of the unreduced engine needed."""
    seconds: float | None
    """Wall-clock time in addition, as if one computation followed the other; None: unknown."""
    paybacks: tuple[Payback, ...]
    """One for each of :data:`QUANTITIES`."""


def reduction_costs(runs: Sequence[Run]) -> list[ReductionCost]:
    """Return the cost of every reduced engine that was made of another checkpoint than the unreduced engine.

    Args:
        runs: of engines that may be compared.
    """
    unreduced = [run for run in runs if technique(run).name == "full" and is_usual(run)]
    result = []
    for run in runs:
        partner = _partner(run, unreduced)
        if partner is None or run.engine.expenses is None or partner.engine.expenses is None:
            continue
        only, instead = _difference(run.engine.expenses, partner.engine.expenses)
        if not only:
            continue
        paybacks = tuple(_payback(quantity, run, partner, only, instead) for quantity in QUANTITIES)
        seconds = _sum(only, instead, lambda cost: cost.seconds)
        result.append(ReductionCost(run.name, partner.name, only, instead, seconds, paybacks))
    return result


def payback(quantity: str, reduced: Run, unreduced: Run) -> Payback | None:
    """Return when an engine has paid for what its checkpoint took in addition to another one's.

    Args:
        quantity: one of :data:`QUANTITIES`.
        reduced: an engine.
        unreduced: the engine that it replaces.

    Returns:
        None if they differ in more than the reduction, if nothing was computed for the reduced engine alone,
        or if it is not known what was.
    """
    if reduced.engine.expenses is None or unreduced.engine.expenses is None:
        return None
    if not technique(reduced).is_reduction or technique(unreduced).is_reduction:
        return None
    if not _alike(reduced, unreduced):
        return None
    only, instead = _difference(reduced.engine.expenses, unreduced.engine.expenses)
    return _payback(quantity, reduced, unreduced, only, instead) if only else None


def _count(queries: float) -> str:
    """Return a number of queries with three digits: 1,230, 45,600, 1.23 million."""
    whole = math.ceil(queries)
    if whole >= 1_000_000:
        return f"{significant(whole / 1e6)} million"
    return f"{round(whole, -max(0, len(str(whole)) - 3)):,}"


def _outwards(queries: float, *, up: bool) -> str:
    """Return an end of an interval as :func:`_count` does, but rounded away from the other end."""
    whole = int(outwards(queries, 0, up=up))
    unit = 10 ** max(0, len(str(whole)) - 3)
    return _count((-(-whole // unit) if up else whole // unit) * unit)


def _partner(run: Run, unreduced: Sequence[Run]) -> Run | None:
    """Return the unreduced engine that an engine is compared with; None: it is one, or there is none."""
    if not technique(run).is_reduction:
        return None
    alike = [other for other in unreduced if _alike(run, other)]
    same_session = [other for other in alike if other.session == run.session] or alike
    ours = {expense.key for expense in run.engine.expenses or ()}

    def rank(other: Run) -> tuple[int, float]:
        shared = sum(expense.key in ours for expense in other.engine.expenses or ())
        return shared, other.quality.value

    return max(same_session, key=rank, default=None)


def _alike(run: Run, other: Run) -> bool:
    """Whether two engines have the same encoder and precision, and run in the same way."""
    keys = [
        (
            each.engine.model, each.engine.backend, each.engine.device, each.engine.precision,
            each.settings.runtime.threads, cohorts.gpu_of(each), is_usual(each),
        )
        for each in (run, other)
    ]  # fmt: skip
    return keys[0] == keys[1]


def _difference(
    reduced: Sequence[Expense], unreduced: Sequence[Expense]
) -> tuple[tuple[Expense, ...], tuple[Expense, ...]]:
    """Return the expenses of the first list alone, and those of the second alone."""
    ours, theirs = ({expense.key for expense in each} for each in (reduced, unreduced))
    return (
        tuple(expense for expense in reduced if expense.key not in theirs),
        tuple(expense for expense in unreduced if expense.key not in ours),
    )


def _payback(
    quantity: str, reduced: Run, unreduced: Run, only: Sequence[Expense], instead: Sequence[Expense]
) -> Payback:
    unknown = [expense for expense in (*only, *instead) if expense.cost is None]
    saved, saved_interval, why_not = _saved(quantity, reduced, unreduced)
    extra, bounds, reason = None, None, None
    if unknown:
        reason = f"what the {unknown[0].kind} of {unknown[0].name or 'a checkpoint'} took was not recorded"
    elif quantity == ENERGY:
        extra, bounds, reason = _energy(only, instead, reduced)
    else:
        extra, reason = _cpu_time(only, instead, reduced)
    reason = reason or why_not
    source = None
    if quantity == ENERGY and extra is not None:
        spent = [expense.cost.energy for expense in (*only, *instead) if expense.cost]
        source = ", ".join(sorted({f"{each.source} ({each.meter})" for each in spent}))
        if (meter := energy_of(reduced).meter) not in {each.meter for each in spent}:
            source += f"; queries: {meter}"
    queries, interval = None, None
    if extra is not None and saved is not None and reason is None:
        queries, interval, reason = _queries(extra, bounds, saved, saved_interval)
    return Payback(quantity, extra, bounds, saved, saved_interval, queries, interval, reason, source)


def _queries(
    extra: float,
    bounds: tuple[float, float] | None,
    saved: float,
    saved_interval: tuple[float, float] | None,
) -> tuple[float | None, tuple[float, float | None] | None, str | None]:
    """Return the number of queries, its interval, and why there is no number."""
    if saved <= 0:
        if saved_interval is not None and saved_interval[1] > 0:
            least, _ = bounds or (extra, extra)
            if least <= 0:
                return None, None, "a query is not shown to take less"
            least_queries = math.ceil(least / saved_interval[1])
            at_least = _outwards(least_queries, up=False)  # more are not shown to be needed
            return None, None, f"a query is not shown to take less; at least {at_least} queries"
        if extra < 0:
            return None, None, "it took less to make, and a query takes more"
        return None, None, "a query takes no less"
    if saved_interval is None:
        return max(0.0, extra / saved), None, None
    least, most = bounds or (extra, extra)
    low = max(0.0, least / saved_interval[1])
    high = None if saved_interval[0] <= 0 else max(0.0, most / saved_interval[0])
    return max(0.0, extra / saved), (low, high), None


def _saved(
    quantity: str, reduced: Run, unreduced: Run
) -> tuple[float | None, tuple[float, float] | None, str | None]:
    """Return what a query takes less, its 95 % interval, and why it is not known."""
    objective = objectives.get(quantity)
    values = [objective.value(run) for run in (unreduced, reduced)]
    for run, value in zip((unreduced, reduced), values, strict=True):
        if value is None:
            return None, None, f"{run.name}: {objective.missing(run)}"
    assert values[0] is not None and values[1] is not None
    if quantity == ENERGY:
        ours, theirs = energy_of(reduced), energy_of(unreduced)
        if (ours.source, ours.meter) != (theirs.source, theirs.meter):
            return None, None, f"the energies of queries are of {theirs.meter} and {ours.meter}"
    saved = values[0] - values[1]
    if any(objective.interval(run) is None for run in (unreduced, reduced)):
        return saved, None, None
    drawn = objective.draws([unreduced, reduced])
    low, high = bootstrap.percentile_interval(np.asarray(drawn[0] - drawn[1]))
    return saved, (low, high), None


def _energy(
    only: Sequence[Expense], instead: Sequence[Expense], run: Run
) -> tuple[float | None, tuple[float, float] | None, str | None]:
    """Return joules in addition, their bounds, and why there are none."""
    ours, theirs = ([expense.cost.energy for expense in each if expense.cost] for each in (only, instead))
    for spent in (*ours, *theirs):
        if spent.joules is None:
            return None, None, f"the energy of training was not measured: {spent.reason}"
    of_queries = energy_of(run)
    meters = {spent.meter for spent in (*ours, *theirs)}
    estimates = {spent.source == "model" for spent in (*ours, *theirs)} | {of_queries.source == "model"}
    if len(estimates) > 1 or (estimates == {True} and meters != {of_queries.meter}):
        return None, None, (
            f"training by {', '.join(sorted(meters))} and queries by {of_queries.meter}: an estimate is not "
            "compared with a measurement, or with one of other watts"
        )  # fmt: skip
    extra = sum(map(_joules, ours)) - sum(map(_joules, theirs))
    if any(spent.interval is None for spent in (*ours, *theirs)):
        return extra, None, None
    low = sum(_end(spent, 0) for spent in ours) - sum(_end(spent, 1) for spent in theirs)
    high = sum(_end(spent, 1) for spent in ours) - sum(_end(spent, 0) for spent in theirs)
    return extra, (low, high), None


def _joules(spent: EnergySpent) -> float:
    assert spent.joules is not None
    return spent.joules


def _end(spent: EnergySpent, number: int) -> float:
    assert spent.interval is not None
    return spent.interval[number]


def _cpu_time(
    only: Sequence[Expense], instead: Sequence[Expense], run: Run
) -> tuple[float | None, str | None]:
    """Return processor seconds in addition, or why they are not comparable with those of queries."""
    if run.engine.device != "cpu":
        return None, "the engine runs on a GPU: processor seconds are not what it takes"
    processor = run.host.cpu
    for expense in (*only, *instead):
        assert expense.cost is not None
        if expense.cost.hardware != processor:
            trained = expense.cost.hardware or "several kinds of processors"
            return None, f"trained on {trained}, measured on {processor}: seconds are not comparable"
    return _sum(only, instead, lambda cost: cost.cpu_s), None


def _sum(only: Sequence[Expense], instead: Sequence[Expense], value: Callable[[Cost], float]) -> float | None:
    """Return the sum over the first expenses minus that over the second; None: a cost is unknown."""
    total = 0.0
    for sign, expenses in ((1.0, only), (-1.0, instead)):
        for expense in expenses:
            if expense.cost is None:
                return None
            total += sign * value(expense.cost)
    return total
