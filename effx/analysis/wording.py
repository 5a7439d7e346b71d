"""Recommendations and comparisons as text for the terminal."""

from __future__ import annotations

from collections.abc import Callable

from effx import formatting
from effx.analysis.break_even import ENERGY, Payback
from effx.analysis.comparison import LAUNCH_BOUND, NOT_ON_DEVICE, Comparison
from effx.analysis.objectives import OBJECTIVES, Objective
from effx.analysis.recommendation import ConstraintOutcome, Estimate, NotProven, Recommendation, Unmet
from effx.analysis.resampling import RESAMPLES
from effx.analysis.techniques import MADE_ELSEWHERE
from effx.formatting import from_to, percent, points, times

_DROP_DECIMALS = 4
_LEAST_OPTIMISM = 0.0005
"""Of a score; less is not told."""
_MOST_NOT_PROVEN = 3
"""Number of engines that are named as not proven."""
_SHORT = {
    "latency": "p50 latency",
    "latency_p90": "p90 latency",
    "latency_p99": "p99 latency",
    "cpu_time": "CPU time per example",
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
        f"{answer.task} on {answer.host}: deploy {answer.engine}{_origin(answer)}{_headline(answer)}",
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
        only = f"can be compared ({answer.left_out} left out)" if answer.left_out else "was measured"
        lines.append(f"  It is the only engine that {only}: there is no baseline to compare it with.")
    elif answer.versus_baseline is None:
        lines.append(
            f"  It is the baseline: no engine with better {objective.short} is proven to meet the "
            "constraints."
        )
    else:
        lines.append(f"  {answer.versus_baseline.sentence()}")
        lines += [f"  {_memory(answer.versus_baseline)}"] if _memory(answer.versus_baseline) else []
    lines += [f"  {_launches(answer)}"] if _launches(answer) else []
    lines += [f"  {_constraint(outcome, answer, name_of)}" for outcome in answer.constraints]
    lines += [
        f"  Not proven: {_not_proven(each, answer, name_of)}."
        for each in answer.not_proven[:_MOST_NOT_PROVEN]
    ]
    if len(answer.not_proven) > _MOST_NOT_PROVEN:
        lines.append(f"  Also not proven: {len(answer.not_proven) - _MOST_NOT_PROVEN} other engines.")
    lines.append(f"  {_binding(answer, name_of)}")
    lines.append(f"  {_runner_up(answer)}")
    lines.append(f"  {_certainty(answer)}")
    lines += [f"  Note: {remark}." for remark in answer.remarks]
    return "\n".join(lines)


def _origin(answer: Recommendation) -> str:
    return "" if answer.made_elsewhere is None else f" ({MADE_ELSEWHERE})"


def unmet(answer: Unmet, name_of: SettingName = str) -> str:
    """Return which engine is nearest to the constraints and what it misses, one line."""
    objective = OBJECTIVES[answer.objective]
    subject = f"{answer.task} on {answer.host}: none of {answer.candidates} engines"
    if answer.not_proven is not None:
        return (
            f"{subject} is proven to meet the constraints ({formatting.confidence(answer.confidence)}); "
            f"{_as_measured(answer.not_proven, objective, name_of)}."
        )
    if answer.value is None:
        has = "was not measured; limit"
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
    return f"{subject} meets the constraints; nearest is {answer.engine}, whose {label} {has} {limit}."


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
            f"{compared.test}: {formatting.p_value(compared.p_value)}."
        )
    for ratio in compared.latency:
        spread = "" if ratio.interval is None else f" {_ends(ratio.interval)}"
        apart = "" if ratio.paired else ", not interleaved"
        lines.append(
            f"  seconds, {ratio.scenario} {ratio.batch}x{ratio.length}, {ratio.statistic}: "
            f"{times(ratio.value, 3)}x{spread}{apart}"
        )
    if compared.cpu_time is not None:
        ratio = compared.cpu_time
        spread = "" if ratio.interval is None else f" {_ends(ratio.interval)}"
        lines.append(f"  CPU seconds per example, single queries: {times(ratio.value, 3)}x{spread}")
    if compared.energy is not None:
        low_high = compared.energy.interval
        spread = "" if low_high is None else f" {_ends(low_high)}"
        lines.append(
            f"  joules, single queries ({compared.energy.source}): {times(compared.energy.value, 3)}x{spread}"
        )
    lines += [f"  {name}: {times(value, 3)}x" for name, value in compared.memory.items() if value is not None]
    lines += [f"  {_payback(each)}" for each in compared.paybacks]
    lines += [f"Note: {remark}." for remark in compared.remarks]
    return "\n".join(lines)


def _payback(each: Payback) -> str:
    """Return what training took and after how many queries that is saved, one line."""
    unit = f"J, {each.source}" if each.quantity == ENERGY else "CPU s"
    took = "unknown" if each.extra is None else f"{formatting.significant(each.extra)} {unit}"
    name = "energy" if each.quantity == ENERGY else "CPU time"
    return f"training beyond that of the first, {name}: {took}; queries until it pays: {each.text()}"


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
    return f"{percent(share)} of the time of a single query {NOT_ON_DEVICE}."


def _headline(answer: Recommendation) -> str:
    """Return what the first line says of a better engine that is not proven, else nothing."""
    if not answer.not_proven:
        return ""
    best = answer.not_proven[0]
    return f"; not proven: {best.engine}{_rows_needed(best)}"


def _rows_needed(engine: NotProven) -> str:
    return "" if engine.more is None else f" needs about {_rounded_count(engine.more)} more {engine.unit}"


def _rounded_count(count: int) -> str:
    """Return a count with two digits, rounded up: it is an estimate."""
    scale = 10 ** max(0, len(str(count)) - 2)
    return f"{-(-count // scale) * scale:,}".replace(",", " ")


def _not_proven(engine: NotProven, answer: Recommendation, name_of: SettingName) -> str:
    """Return why an engine that would be chosen as measured is not."""
    objective = next(each for each in answer.constraints if each.setting == engine.setting).objective
    cost = _relative(engine.ratio, engine.difference, None, answer)
    return _as_measured(engine, OBJECTIVES[objective], name_of, f"{cost}," if cost else "")


def _as_measured(engine: NotProven, objective: Objective, name_of: SettingName, cost: str = "") -> str:
    """Return what was measured of an engine, and what is not excluded."""
    setting = f"{name_of(engine.setting)} {formatting.limit(engine.limit, objective.unit)}"
    if engine.setting == "max_drop":
        value = f"{_loses(engine.value)} as measured"
        bound = None if engine.bound is None else f"a loss of {_drop(engine.bound)}"
    else:
        value = f"has {formatting.with_unit(engine.value, objective.unit)} as measured"
        bound = None if engine.bound is None else formatting.with_unit(engine.bound, objective.unit)
    open_end = "there is no interval" if bound is None else f"{bound} is not ruled out"
    needed = f";{_rows_needed(engine)}" if engine.more is not None else ""
    return f"{engine.engine}{cost} {value}, but {open_end} (limit: {setting}){needed}"


def _certainty(answer: Recommendation) -> str:
    others = ", ".join(f"{name} in {percent(share)}" for name, share in list(answer.p_others.items())[:3])
    none = f"; no engine is proven in {percent(answer.p_none)}" if answer.p_none > 0 else ""
    text = (
        f"Certainty: tests and choice, repeated in {RESAMPLES} joint resamplings of rows and rounds, "
        f"choose this engine in {percent(answer.p_choice)}{'; ' + others if others else ''}{none}."
    )
    if answer.tested:
        text += (
            f" An engine chosen in one resampling meets the limits in {percent(answer.p_kept)} of the others."
        )
    if answer.optimism is not None and answer.optimism >= _LEAST_OPTIMISM:
        text += (
            " The rows that were scored also chose it: on others expect "
            f"{points(-answer.optimism)} points of {answer.metric}."
        )
    return text


def _constraint(outcome: ConstraintOutcome, answer: Recommendation, name_of: SettingName) -> str:
    """Return what is proven of the choice."""
    objective = OBJECTIVES[outcome.objective]
    limit = formatting.limit(outcome.limit, objective.unit)
    if outcome.setting == "max_drop":
        limit = f"{limit} compared with {answer.baseline}"
        value = _loses(outcome.limit + outcome.threshold - outcome.value)
        bound = None if outcome.bound is None else f"a loss of at most {_most(outcome.bound)}"
    else:
        value = formatting.with_unit(outcome.value, objective.unit)
        side = "at least" if objective.maximise else "at most"
        bound = None
        if outcome.bound is not None:
            up = not objective.maximise
            bound = f"{side} {formatting.rounded_outwards(outcome.bound, objective.unit, up=up)}"
    proof = ""
    if bound is not None:
        adjusted = f", adjusted for {answer.tested} engines" if answer.tested > 1 else ""
        proof = f"; {bound} ({formatting.confidence(answer.confidence)}{adjusted})"
    return f"{name_of(outcome.setting)} {limit}: {value}{proof}."


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
        return _most(outcome.needed)
    objective = OBJECTIVES[outcome.objective]
    return formatting.rounded_outwards(outcome.needed, objective.unit, up=not objective.maximise)


def _loses(loss: float) -> str:
    return f"gains {_drop(-loss)}" if _drop(loss).startswith("-") else f"loses {_drop(loss)}"


def _most(loss: float) -> str:
    """Return the largest loss, rounded up: no smaller one is proven."""
    return _drop(formatting.outwards(loss, _DROP_DECIMALS, up=True))


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
        return "Runner-up: none; no other engine is proven to meet the constraints."
    same = other.baseline in (None, answer.baseline)
    then = "" if same else f" (if the choice is left out, the baseline is {other.baseline})"
    cost = _relative(other.ratio, other.difference, other.interval, answer)
    return f"Runner-up: {other.engine}{cost}{then}. {other.comparison.sentence()}"


def _ends(interval: tuple[float, float]) -> str:
    return f"[{times(interval[0], 3)}, {times(interval[1], 3)}]"
