"""Recommendations and comparisons as a person would write them, for the terminal."""

from __future__ import annotations

from effx.profile.comparison import LAUNCH_BOUND, NOT_ON_DEVICE, Comparison
from effx.profile.objectives import OBJECTIVES, said
from effx.profile.recommend import Constraint, Figure, Recommendation
from effx.profile.resampling import RESAMPLES

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
    others = ", ".join(f"{name} in {_percent(share)}" for name, share in list(found.p_others.items())[:3])
    none = f"; no engine meets the constraints in {_percent(found.p_none)}" if found.p_none > 0 else ""
    lines.append(
        f"  Certainty: the choice in {_percent(found.p_choice)} of {RESAMPLES} joint resamplings of examples "
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
            f"Predictions that differ: {found.differing} of {found.n}; McNemar's p = {found.p_value:.3g}."
        )
    for ratio in found.latency:
        spread = "" if ratio.interval is None else f" [{ratio.interval[0]:.3f}, {ratio.interval[1]:.3f}]"
        apart = "" if ratio.paired else ", not interleaved"
        lines.append(
            f"  seconds, {ratio.scenario} {ratio.batch}x{ratio.sequence}, {ratio.statistic}: "
            f"{ratio.value:.3f}x{spread}{apart}"
        )
    if found.energy is not None:
        low_high = found.energy.interval
        spread = "" if low_high is None else f" [{low_high[0]:.3f}, {low_high[1]:.3f}]"
        lines.append(f"  joules, single queries ({found.energy.source}): {found.energy.value:.3f}x{spread}")
    lines += [f"  {name}: {value:.3f}x" for name, value in found.memory.items() if value is not None]
    lines += [f"Note: {remark}." for remark in found.remarks]
    return "\n".join(lines)


def _label(name: str, found: Recommendation) -> str:
    if name == "accuracy":
        return found.metric
    return _SHORT.get(name, OBJECTIVES[name].label)


def _figure(name: str, figure: Figure) -> str:
    objective = OBJECTIVES[name]
    text = said(objective, figure.value)
    if figure.interval is None:
        return text
    low, high = (said(objective, bound) for bound in figure.interval)
    return f"{text} (95 % {low.split()[0]} to {high})"


def _memory(found: Comparison) -> str:
    ratio = found.memory.get("host_peak_bytes")
    return "" if ratio is None else f"It takes {ratio:.2f}x the memory."


def _launches(found: Recommendation) -> str:
    """Return what bounds the choice's single queries if that is not its encoder, else nothing.

    Its share stands in the comparisons that it is part of; a single engine has none.
    """
    share = None
    if found.beside_baseline is not None:
        share = found.beside_baseline.launch_shares[1]
    elif found.runner_up is not None:
        share = found.runner_up.beside.launch_shares[0]
    if share is None or share <= LAUNCH_BOUND:
        return ""
    return f"{_percent(share)} of a single query to it {NOT_ON_DEVICE}."


def _limit(one: Constraint, limit: float) -> str:
    if one.option == "--max-drop":
        return f"{limit:.4f}".rstrip("0").rstrip(".")
    return said(OBJECTIVES[one.objective], limit)


def _constraint(one: Constraint, found: Recommendation) -> str:
    beside = f" beside {found.baseline}" if one.option == "--max-drop" else ""
    value = one.limit + one.bar - one.value if one.option == "--max-drop" else one.value
    met = f"{_limit(one, value)}, met in {_percent(one.p_met)} of resamplings"
    return f"{one.option} {_limit(one, one.limit)}{beside}: {met}."


def _binding(found: Recommendation) -> str:
    objective = OBJECTIVES[found.objective]
    if not found.binding:
        return "No constraint binds: loosening any one of them would change nothing."
    said_of = [
        f"{one.option} of {_limit(one, one.needed or 0.0)} instead of {_limit(one, one.limit)} would admit "
        f"{one.admits}, at {one.gain:.2f}x the {objective.short}"
        for one in found.binding
    ]
    return f"What binds: {'; '.join(said_of)}."


def _runner_up(found: Recommendation) -> str:
    other = found.runner_up
    if other is None:
        return "Runner-up: none; no other engine meets the constraints."
    objective = OBJECTIVES[found.objective]
    spread = "" if other.interval is None else f" (95 % {other.interval[0]:.2f} to {other.interval[1]:.2f})"
    beside = "" if other.baseline == found.baseline else f", with {other.baseline} as the baseline then"
    cost = f"at {other.ratio:.2f}x the {objective.short}{spread}{beside}"
    return f"Runner-up: {other.engine}, {cost}. {other.beside.sentence()}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share in (0.0, 1.0) or 0.01 <= share <= 0.99 else f"{100 * share:.1f} %"
