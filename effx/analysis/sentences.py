"""A comparison in a sentence, and whether it shows a loss of accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effx.formatting import fixed, from_to, points, times

if TYPE_CHECKING:
    from effx.analysis.comparison import Comparison, EnergyRatio

_SIGNIFICANCE = 0.05
_SINGLE_QUERIES = ("single-stream", 1, "real", "p50")


def comparison(result: Comparison) -> str:
    """Return speed, accuracy and energy of b compared with a."""
    a, b = (result.a, result.b) if result.a != result.b else result.results
    facts = " and ".join(part for part in (_speed(result), _accuracy(result)) if part)
    energy = "" if result.energy is None else f"; it {_energy(result.energy)}"
    return f"Compared with {a}, {b} is {facts}{energy}."


def non_inferiority(difference: float, interval: tuple[float, float] | None, margin: float, *, n: int) -> str:
    """Return whether a loss of more than ``margin`` is ruled out, shown, or neither.

    Args:
        difference: of the metric, b minus a.
        interval: its 95 % interval; None if there is none.
        margin: the loss that is accepted, 0.01 is a point.
        n: examples.

    The interval is within the margin if and only if the one-sided test at 2.5 % rejects.
    """
    margin_text = f"{100 * margin:g}"
    margin_text += ".0 points" if margin_text.isdigit() else " points"
    if interval is None:
        return (
            f"undecided at n = {n}: {points(difference)} points, too few differing predictions for an "
            "interval"
        )
    low, high = interval
    if low >= -margin:
        return f"loses at most {margin_text} (95 %)"
    if high < -margin:
        return f"loses more than {margin_text} (95 %)"
    return (
        f"undecided at n = {n}: {points(difference)} points ({from_to((low, high), points)}); a loss of more "
        f"than {margin_text} is neither ruled out nor shown"
    )


def _speed(result: Comparison) -> str | None:
    """Return the ratio of the single-stream medians, as times as fast."""
    for ratio in result.latency:
        if (ratio.scenario, ratio.batch, ratio.length, ratio.statistic) == _SINGLE_QUERIES:
            break
    else:
        return None
    if ratio.interval is None:
        return f"{times(1 / ratio.value)}x as fast (too few rounds for an interval)"
    low, high = 1 / ratio.interval[1], 1 / ratio.interval[0]
    notes = ["" if low > 1 or high < 1 else ", not distinguishable"]
    notes.append("" if ratio.paired else ", not interleaved")
    return f"{times(1 / ratio.value)}x as fast ({from_to((low, high), times)}{''.join(notes)})"


def _energy(energy: EnergyRatio) -> str:
    text = f"takes {times(energy.value)}x the energy"
    if energy.interval is None:
        return f"{text} ({energy.source}, no interval)"
    low, high = energy.interval
    note = "" if low > 1 or high < 1 else ", not distinguishable"
    return f"{text} ({energy.source}, {from_to((low, high), times)}{note})"


def _accuracy(result: Comparison) -> str:
    text = f"{fixed(abs(100 * result.difference), 1)} points"
    if text == "0.0 points":
        text += f" apart in {result.metric}"
    elif result.metric == "accuracy":
        text += f" {'more' if result.difference > 0 else 'less'} accurate"
    else:
        text += f" {'higher' if result.difference > 0 else 'lower'} in {result.metric}"
    if result.interval is None:
        return f"{text} ({result.rescored} of {result.n} predictions differ, too few for an interval)"
    low, high = result.interval
    notes = [f"{points(low)} to {points(high)}"]
    if low <= 0 <= high:
        notes.append(f"not distinguishable at n = {result.n}")
    elif result.p_adjusted is not None and result.p_adjusted > _SIGNIFICANCE:
        notes.append(f"not distinguishable once adjusted for the number of comparisons, n = {result.n}")
    return f"{text} ({', '.join(notes)})"
