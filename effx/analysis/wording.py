"""Recommendations and comparisons as text for the terminal."""

from __future__ import annotations

from collections.abc import Callable

from effx import formatting
from effx.analysis.comparison import LAUNCH_BOUND, NOT_ON_DEVICE, Comparison
from effx.analysis.objectives import OBJECTIVES
from effx.analysis.recommendation import ConstraintOutcome, Estimate, Recommendation, Unmet
from effx.analysis.resampling import RESAMPLES
from effx.analysis.techniques import MADE_ELSEWHERE
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


def recommendation(answer: Recommendation, name_of: SettingName = str) -> str:
    """Return a recommendation for one task and host as text of several lines."""
    objective = OBJECTIVES[answer.objective]
    lines = [
        f"{answer.task} on {answer.host}: deploy {answer.engine}{_origin(answer)}",
        f"  by {objective.short}, out of {answer.candidates} engines; {answer.metric} on {answer.n} rows"
        + (f"; energy source: {answer.energy_source}" if objective.uses_energy else ""),
    ]
    width = max(len(_label(name, answer)) for name in answer.estimates)
    lines += [
        f"    {_label(name, answer):<{width}}  {_estimate(name, estimate)}"
        + ("   <- objective" if name == answer.objective else "")
        for name, estimate in answer.estimates.items()
    ]
    if answer.baseline is None:
        lines.append("  It is the only engine that was measured: there is no baseline to compare it with.")
    elif answer.versus_baseline is None:
        lines.append(
            f"  It is the baseline: no engine that meets the constraints has better {objective.short}."
        )
    else:
        lines.append(f"  {answer.versus_baseline.sentence()}")
        lines += [f"  {_memory(answer.versus_baseline)}"] if _memory(answer.versus_baseline) else []
    lines += [f"  {_launches(answer)}"] if _launches(answer) else []
    lines += [f"  {_constraint(outcome, answer, name_of)}" for outcome in answer.constraints]
    lines.append(f"  {_binding(answer, name_of)}")
    lines.append(f"  {_runner_up(answer)}")
    others = ", ".join(f"{name} in {percent(share)}" for name, share in list(answer.p_others.items())[:3])
    none = f"; no engine meets the constraints in {percent(answer.p_none)}" if answer.p_none > 0 else ""
    lines.append(
        f"  Certainty: the choice in {percent(answer.p_choice)} of {RESAMPLES} joint resamplings of examples "
        f"and rounds{'; ' + others if others else ''}{none}."
    )
    lines += [f"  Note: {remark}." for remark in answer.remarks]
    return "\n".join(lines)


def _origin(answer: Recommendation) -> str:
    return "" if answer.made_elsewhere is None else f" ({MADE_ELSEWHERE})"


def unmet(answer: Unmet, name_of: SettingName = str) -> str:
    """Return which engine is nearest to the constraints and what it misses, one line."""
    objective = OBJECTIVES[answer.objective]
    if answer.value is None:
        has = "was not measured, against"
    else:
        side = "below" if objective.maximise else "above"
        shown = formatting.rounded_outwards(answer.value, objective.unit, up=not objective.maximise)
        has = f"of {shown} is {side}"
    limit = formatting.limit(answer.threshold, objective.unit)
    setting = name_of(answer.setting)
    if answer.baseline is not None:
        limit += f" ({setting} {answer.limit:g} compared with {answer.baseline})"
    else:
        limit += f" ({setting})"
    label = answer.metric if objective.name == "quality" else objective.short
    return (
        f"{answer.task} on {answer.host}: none of {answer.candidates} engines meets the constraints; nearest "
        f"is {answer.engine}, whose {label} {has} {limit}."
    )


def comparison(compared: Comparison, margin: float) -> str:
    """Return a comparison, several lines."""
    lines = [
        f"{compared.task} on {compared.host}, n = {compared.n}",
        compared.sentence(),
        f"{compared.metric}: {compared.b} {compared.non_inferiority(margin)}.",
    ]
    if compared.p_value is not None:
        lines.append(
            f"Predictions that differ: {compared.differing} of {compared.n}; "
            f"McNemar's {formatting.p_value(compared.p_value)}."
        )
    for ratio in compared.latency:
        spread = "" if ratio.interval is None else f" {_ends(ratio.interval)}"
        apart = "" if ratio.paired else ", not interleaved"
        lines.append(
            f"  seconds, {ratio.scenario} {ratio.batch}x{ratio.length}, {ratio.statistic}: "
            f"{times(ratio.value, 3)}x{spread}{apart}"
        )
    if compared.energy is not None:
        low_high = compared.energy.interval
        spread = "" if low_high is None else f" {_ends(low_high)}"
        lines.append(
            f"  joules, single queries ({compared.energy.source}): {times(compared.energy.value, 3)}x{spread}"
        )
    lines += [f"  {name}: {times(value, 3)}x" for name, value in compared.memory.items() if value is not None]
    lines += [f"Note: {remark}." for remark in compared.remarks]
    return "\n".join(lines)


def _label(name: str, answer: Recommendation) -> str:
    """Return the label of an objective; of joules with their source."""
    if name == "quality":
        return answer.metric
    source = f" ({answer.energy_source})" if OBJECTIVES[name].uses_energy else ""
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


def _memory(compared: Comparison) -> str:
    ratio = compared.memory.get("host_peak_bytes")
    return "" if ratio is None else f"It takes {times(ratio)}x the memory."


def _launches(answer: Recommendation) -> str:
    """Return a remark if most of a single query's time is not spent on the device, else nothing.

    The share is taken from a comparison that the choice is part of.
    """
    share = None
    if answer.versus_baseline is not None:
        share = answer.versus_baseline.host_overhead_shares[1]
    elif answer.runner_up is not None:
        share = answer.runner_up.comparison.host_overhead_shares[0]
    if share is None or share <= LAUNCH_BOUND:
        return ""
    return f"{percent(share)} of a single query to it {NOT_ON_DEVICE}."


def _constraint(outcome: ConstraintOutcome, answer: Recommendation, name_of: SettingName) -> str:
    objective = OBJECTIVES[outcome.objective]
    limit = formatting.limit(outcome.limit, objective.unit)
    if outcome.setting == "max_drop":
        limit = f"{limit} compared with {answer.baseline}"
        value = _drop(outcome.limit + outcome.threshold - outcome.value)
    else:
        value = formatting.with_unit(outcome.value, objective.unit)
    return f"{name_of(outcome.setting)} {limit}: {value}, met in {percent(outcome.p_met)} of resamplings."


def _binding(answer: Recommendation, name_of: SettingName) -> str:
    if not answer.binding:
        return "No constraint binds: relaxing any one of them would not change the choice."
    texts = [
        f"{name_of(outcome.setting)} of {_needed(outcome)} instead of "
        f"{formatting.limit(outcome.limit, OBJECTIVES[outcome.objective].unit)} "
        f"would admit {outcome.admits}{_relative(outcome.gain, outcome.difference, None, answer)}"
        for outcome in answer.binding
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
    answer: Recommendation,
) -> str:
    """Return an engine's objective relative to the choice's: in points if a score, else as a ratio."""
    objective = OBJECTIVES[answer.objective]
    notes = [answer.energy_source] if objective.uses_energy else []
    if difference is not None:
        text = f", at {points(difference)} points of {_label(objective.name, answer)}"
        notes += [from_to(interval, points)] if interval else []
    elif ratio is not None:
        text = f", at {times(ratio)}x the {objective.short}"
        notes += [from_to(interval, times)] if interval else []
    else:
        return ""
    return f"{text} ({', '.join(notes)})" if notes else text


def _runner_up(answer: Recommendation) -> str:
    other = answer.runner_up
    if other is None:
        return "Runner-up: none; no other engine meets the constraints."
    same = other.baseline in (None, answer.baseline)
    then = "" if same else f", then with {other.baseline} as the baseline"
    cost = _relative(other.ratio, other.difference, other.interval, answer)
    return f"Runner-up: {other.engine}{cost}{then}. {other.comparison.sentence()}"


def _ends(interval: tuple[float, float]) -> str:
    return f"[{times(interval[0], 3)}, {times(interval[1], 3)}]"
