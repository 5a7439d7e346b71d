"""Recommendations and comparisons as text for the terminal."""

from __future__ import annotations

from collections.abc import Callable

from effx import formatting
from effx.analysis.comparison import LAUNCH_BOUND, NOT_ON_DEVICE, Comparison
from effx.analysis.objectives import OBJECTIVES
from effx.analysis.recommendation import ConstraintOutcome, Estimate, Recommendation, Unmet
from effx.analysis.resampling import RESAMPLES
from effx.formatting import from_to, percent, points, times

_DROP_DECIMALS = 4
_SHORT = {
    "latency": "p50 latency",
    "latency_p90": "p90 latency",
    "latency_p99": "p99 latency",
    "throughput": "throughput",
    "energy_per_correct": "energy per correct prediction",
    "memory": "peak memory",
}


SettingName = Callable[[str], str]
"""The name under which the reader sets a constraint, by its setting: ``--max-drop`` for ``max_drop``."""


def recommendation(found: Recommendation, name_of: SettingName = str) -> str:
    """Return the answer for one task and host, several lines."""
    objective = OBJECTIVES[found.objective]
    lines = [
        f"{found.task} on {found.host}: deploy {found.engine}",
        f"  by {objective.short}, out of {found.candidates} engines; {found.metric} on {found.n} rows"
        + (f"; energy source: {found.energy_source}" if objective.uses_energy else ""),
    ]
    width = max(len(_label(name, found)) for name in found.estimates)
    lines += [
        f"    {_label(name, found):<{width}}  {_estimate(name, estimate)}"
        + ("   <- objective" if name == found.objective else "")
        for name, estimate in found.estimates.items()
    ]
    if found.baseline is None:
        lines.append("  It is the only engine that was measured: there is no baseline to compare it with.")
    elif found.versus_baseline is None:
        lines.append(
            f"  It is the baseline: no engine that meets the constraints has better {objective.short}."
        )
    else:
        lines.append(f"  {found.versus_baseline.sentence()}")
        lines += [f"  {_memory(found.versus_baseline)}"] if _memory(found.versus_baseline) else []
    lines += [f"  {_launches(found)}"] if _launches(found) else []
    lines += [f"  {_constraint(outcome, found, name_of)}" for outcome in found.constraints]
    lines.append(f"  {_binding(found, name_of)}")
    lines.append(f"  {_runner_up(found)}")
    others = ", ".join(f"{name} in {percent(share)}" for name, share in list(found.p_others.items())[:3])
    none = f"; no engine meets the constraints in {percent(found.p_none)}" if found.p_none > 0 else ""
    lines.append(
        f"  Certainty: the choice in {percent(found.p_choice)} of {RESAMPLES} joint resamplings of examples "
        f"and rounds{'; ' + others if others else ''}{none}."
    )
    lines += [f"  Note: {remark}." for remark in found.remarks]
    return "\n".join(lines)


def unmet(found: Unmet, name_of: SettingName = str) -> str:
    """Return which engine is nearest to the constraints and what it misses, one line."""
    objective = OBJECTIVES[found.objective]
    if found.value is None:
        has = "was not measured, against"
    else:
        side = "below" if objective.maximise else "above"
        shown = formatting.rounded_outwards(found.value, objective.unit, up=not objective.maximise)
        has = f"of {shown} is {side}"
    limit = formatting.limit(found.threshold, objective.unit)
    setting = name_of(found.setting)
    if found.baseline is not None:
        limit += f" ({setting} {found.limit:g} compared with {found.baseline})"
    else:
        limit += f" ({setting})"
    label = found.metric if objective.name == "accuracy" else objective.short
    return (
        f"{found.task} on {found.host}: none of {found.candidates} engines meets the constraints; nearest is "
        f"{found.engine}, whose {label} {has} {limit}."
    )


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
            f"  seconds, {ratio.scenario} {ratio.batch}x{ratio.length}, {ratio.statistic}: "
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
    """Return the label of an objective; of joules with their source."""
    if name == "accuracy":
        return found.metric
    source = f" ({found.energy_source})" if OBJECTIVES[name].uses_energy else ""
    return _SHORT.get(name, OBJECTIVES[name].label) + source


def _estimate(name: str, estimate: Estimate) -> str:
    objective = OBJECTIVES[name]
    text = formatting.with_unit(estimate.value, objective.unit)
    if estimate.interval is None:
        return text
    low, high = (
        formatting.with_unit(bound, objective.unit, like=estimate.value) for bound in estimate.interval
    )
    return f"{text} (95 % {low.split()[0]} to {high})"


def _memory(found: Comparison) -> str:
    ratio = found.memory.get("host_peak_bytes")
    return "" if ratio is None else f"It takes {times(ratio)}x the memory."


def _launches(found: Recommendation) -> str:
    """Return a remark if most of a single query's time is not spent on the device, else nothing.

    The share is taken from a comparison that the choice is part of.
    """
    share = None
    if found.versus_baseline is not None:
        share = found.versus_baseline.host_overhead_shares[1]
    elif found.runner_up is not None:
        share = found.runner_up.comparison.host_overhead_shares[0]
    if share is None or share <= LAUNCH_BOUND:
        return ""
    return f"{percent(share)} of a single query to it {NOT_ON_DEVICE}."


def _constraint(outcome: ConstraintOutcome, found: Recommendation, name_of: SettingName) -> str:
    objective = OBJECTIVES[outcome.objective]
    limit = formatting.limit(outcome.limit, objective.unit)
    if outcome.setting == "max_drop":
        limit = f"{limit} compared with {found.baseline}"
        value = _drop(outcome.limit + outcome.threshold - outcome.value)
    else:
        value = formatting.with_unit(outcome.value, objective.unit)
    return f"{name_of(outcome.setting)} {limit}: {value}, met in {percent(outcome.p_met)} of resamplings."


def _binding(found: Recommendation, name_of: SettingName) -> str:
    if not found.binding:
        return "No constraint binds: relaxing any one of them would not change the choice."
    texts = [
        f"{name_of(outcome.setting)} of {_needed(outcome)} instead of "
        f"{formatting.limit(outcome.limit, OBJECTIVES[outcome.objective].unit)} "
        f"would admit {outcome.admits}{_relative(outcome.gain, outcome.difference, None, found)}"
        for outcome in found.binding
    ]
    return f"Binding constraints: {'; '.join(texts)}."


def _needed(outcome: ConstraintOutcome) -> str:
    """Return the limit that admits a better engine, rounded so that it still admits it."""
    assert outcome.needed is not None
    if outcome.setting == "max_drop":
        return _drop(formatting.outwards(outcome.needed, _DROP_DECIMALS, up=True))
    objective = OBJECTIVES[outcome.objective]
    return formatting.rounded_outwards(outcome.needed, objective.unit, up=not objective.maximise)


def _drop(value: float) -> str:
    return formatting.fixed(value, _DROP_DECIMALS).rstrip("0").rstrip(".")


def _relative(
    ratio: float | None,
    difference: float | None,
    interval: tuple[float, float] | None,
    found: Recommendation,
) -> str:
    """Return an engine's objective relative to the choice's: in points if a score, else as a ratio."""
    objective = OBJECTIVES[found.objective]
    notes = [found.energy_source] if objective.uses_energy else []
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
    same = other.baseline in (None, found.baseline)
    then = "" if same else f", then with {other.baseline} as the baseline"
    cost = _relative(other.ratio, other.difference, other.interval, found)
    return f"Runner-up: {other.engine}{cost}{then}. {other.comparison.sentence()}"


def _ends(interval: tuple[float, float]) -> str:
    return f"[{times(interval[0], 3)}, {times(interval[1], 3)}]"
