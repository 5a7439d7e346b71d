"""Recommendations and comparisons as a person would write them, for the terminal."""

from __future__ import annotations

from effx import formatting
from effx.analysis.comparison import LAUNCH_BOUND, NOT_ON_DEVICE, Comparison
from effx.analysis.objectives import OBJECTIVES
from effx.analysis.recommend import Constraint, Figure, Recommendation
from effx.analysis.resampling import RESAMPLES
from effx.formatting import from_to, percent, points, times

_DROP_PLACES = 4
_SHORT = {
    "latency": "p50 latency",
    "latency_p90": "p90 latency",
    "latency_p99": "p99 latency",
    "throughput": "throughput",
    "energy_per_correct": "energy per right answer",
    "memory": "peak memory",
}


def recommendation(found: Recommendation) -> str:
    """Return the answer for one task and host, several lines."""
    objective = OBJECTIVES[found.objective]
    lines = [
        f"{found.task} on {found.host}: deploy {found.engine}",
        f"  by {objective.short}, out of {found.candidates} engines; {found.metric} on {found.n} rows"
        + (f"; energy source: {found.energy_source}" if objective.energetic else ""),
    ]
    width = max(len(_label(name, found)) for name in found.figures)
    lines += [
        f"    {_label(name, found):<{width}}  {_figure(name, figure)}"
        + ("   <- objective" if name == found.objective else "")
        for name, figure in found.figures.items()
    ]
    if found.beside_baseline is None:
        lines.append(
            f"  It is the baseline: no engine that meets the constraints has better {objective.short}."
        )
    else:
        lines.append(f"  {found.beside_baseline.sentence()}")
        lines += [f"  {_memory(found.beside_baseline)}"] if _memory(found.beside_baseline) else []
    lines += [f"  {_launches(found)}"] if _launches(found) else []
    lines += [f"  {_constraint(one, found)}" for one in found.constraints]
    lines.append(f"  {_binding(found)}")
    lines.append(f"  {_runner_up(found)}")
    others = ", ".join(f"{name} in {percent(share)}" for name, share in list(found.p_others.items())[:3])
    none = f"; no engine meets the constraints in {percent(found.p_none)}" if found.p_none > 0 else ""
    lines.append(
        f"  Certainty: the choice in {percent(found.p_choice)} of {RESAMPLES} joint resamplings of examples "
        f"and rounds{'; ' + others if others else ''}{none}."
    )
    lines += [f"  Note: {remark}." for remark in found.remarks]
    return "\n".join(lines)


def comparison(found: Comparison, margin: float) -> str:
    """Return a comparison, several lines."""
    lines = [
        f"{found.task} on {found.host}, n = {found.n}",
        found.sentence(),
        f"{found.metric}: {found.b} {found.non_inferiority(margin)}.",
    ]
    if found.p_value is not None:
        lines.append(
            f"Predictions that differ: {found.differing} of {found.n}; "
            f"McNemar's {formatting.p_value(found.p_value)}."
        )
    for ratio in found.latency:
        spread = "" if ratio.interval is None else f" {_ends(ratio.interval)}"
        apart = "" if ratio.paired else ", not interleaved"
        lines.append(
            f"  seconds, {ratio.scenario} {ratio.batch}x{ratio.sequence}, {ratio.statistic}: "
            f"{times(ratio.value, 3)}x{spread}{apart}"
        )
    if found.energy is not None:
        low_high = found.energy.interval
        spread = "" if low_high is None else f" {_ends(low_high)}"
        lines.append(
            f"  joules, single queries ({found.energy.source}): {times(found.energy.value, 3)}x{spread}"
        )
    lines += [f"  {name}: {times(value, 3)}x" for name, value in found.memory.items() if value is not None]
    lines += [f"Note: {remark}." for remark in found.remarks]
    return "\n".join(lines)


def _label(name: str, found: Recommendation) -> str:
    """Return what a figure is called; joules with their source."""
    if name == "accuracy":
        return found.metric
    source = f" ({found.energy_source})" if OBJECTIVES[name].energetic else ""
    return _SHORT.get(name, OBJECTIVES[name].label) + source


def _figure(name: str, figure: Figure) -> str:
    objective = OBJECTIVES[name]
    text = formatting.with_unit(figure.value, objective.unit)
    if figure.interval is None:
        return text
    low, high = (formatting.with_unit(bound, objective.unit, like=figure.value) for bound in figure.interval)
    return f"{text} (95 % {low.split()[0]} to {high})"


def _memory(found: Comparison) -> str:
    ratio = found.memory.get("host_peak_bytes")
    return "" if ratio is None else f"It takes {times(ratio)}x the memory."


def _launches(found: Recommendation) -> str:
    """Return what bounds the choice's single queries if that is not its encoder, else nothing.

    Its share stands in the comparisons that it is part of; a single engine has none.
    """
    share = None
    if found.beside_baseline is not None:
        share = found.beside_baseline.host_overhead_shares[1]
    elif found.runner_up is not None:
        share = found.runner_up.beside.host_overhead_shares[0]
    if share is None or share <= LAUNCH_BOUND:
        return ""
    return f"{percent(share)} of a single query to it {NOT_ON_DEVICE}."


def _constraint(one: Constraint, found: Recommendation) -> str:
    objective = OBJECTIVES[one.objective]
    limit = formatting.limit(one.limit, objective.unit)
    if one.option == "--max-drop":
        limit, value = f"{limit} beside {found.baseline}", _drop(one.limit + one.bar - one.value)
    else:
        value = formatting.with_unit(one.value, objective.unit)
    return f"{one.option} {limit}: {value}, met in {percent(one.p_met)} of resamplings."


def _binding(found: Recommendation) -> str:
    if not found.binding:
        return "No constraint binds: loosening any one of them would change nothing."
    said_of = [
        f"{one.option} of {_needed(one)} instead of "
        f"{formatting.limit(one.limit, OBJECTIVES[one.objective].unit)} "
        f"would admit {one.admits}{_beside(one.gain, one.difference, None, found)}"
        for one in found.binding
    ]
    return f"What binds: {'; '.join(said_of)}."


def _needed(one: Constraint) -> str:
    """Return the limit that admits a better engine, rounded so that it still does."""
    assert one.needed is not None
    if one.option == "--max-drop":
        return _drop(formatting.outwards(one.needed, _DROP_PLACES, up=True))
    objective = OBJECTIVES[one.objective]
    return formatting.rounded_outwards(one.needed, objective.unit, up=not objective.maximise)


def _drop(value: float) -> str:
    return formatting.fixed(value, _DROP_PLACES).rstrip("0").rstrip(".")


def _beside(
    ratio: float | None,
    difference: float | None,
    interval: tuple[float, float] | None,
    found: Recommendation,
) -> str:
    """Return how an engine's objective stands to the choice's: in points if a score, else as a ratio."""
    objective = OBJECTIVES[found.objective]
    notes = [found.energy_source] if objective.energetic else []
    if difference is not None:
        text = f", at {points(difference)} points of {_label(objective.name, found)}"
        notes += [from_to(interval, points)] if interval else []
    elif ratio is not None:
        text = f", at {times(ratio)}x the {objective.short}"
        notes += [from_to(interval, times)] if interval else []
    else:
        return ""
    return f"{text} ({', '.join(notes)})" if notes else text


def _runner_up(found: Recommendation) -> str:
    other = found.runner_up
    if other is None:
        return "Runner-up: none; no other engine meets the constraints."
    then = "" if other.baseline == found.baseline else f", with {other.baseline} as the baseline then"
    cost = _beside(other.ratio, other.difference, other.interval, found)
    return f"Runner-up: {other.engine}{cost}{then}. {other.beside.sentence()}"


def _ends(interval: tuple[float, float]) -> str:
    return f"[{times(interval[0], 3)}, {times(interval[1], 3)}]"
