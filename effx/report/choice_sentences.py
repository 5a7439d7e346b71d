"""Sentences on the cheapest technique, on several tasks or at several lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from effx import formatting
from effx.analysis.technique_choices import BASELINE, Choice, ChoicePair
from effx.formatting import fixed, limit_points, outwards, percent, significant, times
from effx.stats import CONFIDENCE

SINGLE_READINGS = (
    "Costs are single readings, or of too few rounds: how far others would be from them is not known."
)


@dataclass(frozen=True)
class Noun:
    """What choices may depend on."""

    one: str
    several: str
    at: str
    """Preposition."""
    unproven: str
    """What is said of those that have no proven technique."""


TASK = Noun("task", "tasks", "on", "None is on {}, which may be a matter of rows.")
LENGTH = Noun(
    "length", "lengths", "at",
    "No cheaper technique is proven at {}: rows and losses are the same at all lengths, and each length is "
    "tested by itself, in the order of its costs.",
)  # fmt: skip


def best(
    noun: Noun,
    choices: Sequence[Choice],
    compared: Sequence[ChoicePair],
    max_drop: float,
    *,
    pairs: int,
    exchanged: Sequence[ChoicePair],
) -> list[str]:
    """Return what the best reduction is, and whether it depends on the task, or length.

    Args:
        noun: what they are of.
        choices: among the same techniques.
        compared: each pair of them.
        max_drop: largest accepted loss.
        pairs: that the comparisons are adjusted for.
        exchanged: the pairs of which is said, if they differ, what the other's choice would cost.
    """
    named = _listed(noun, choices)
    limit = f"the cheapest technique that loses at most {limit_points(max_drop)} as measured is"
    coverage = compared[0].coverage
    covered = f"{fixed(outwards(100 * coverage, 1, up=False), 1).removesuffix('.0')} %"
    if len({choice.measured for choice in choices}) == 1:
        chosen = choices[0].measured
        same = f"the same {noun.at} all {len(choices)} {noun.several}: {limit} '{chosen}'"
        share = min(choice.shares.get(chosen, 0.0) for choice in choices)
        agree = f"{percent(share)} of resamplings of each {noun.one}, or more, choose it"
        if unknown := single_readings(choices):
            return [f"As measured, the best reduction is {same}. {unknown}"]
        if share >= coverage:
            return [f"The best reduction is {same}; {agree}."]
        return [
            f"As measured, the best reduction is {same}. That is not certain: {agree}, and "
            f"{covered} would show it."
        ]
    shown = [pair for pair in compared if pair.measured_differ]
    if not shown:
        why = single_readings(choices) or (
            f"For every two {noun.several}, a technique is among the likeliest, which {covered} of "
            "resamplings choose, of both."
        )
        return [f"The best reductions of the {noun.several} cannot be told apart: {limit} {named}. {why}"]
    different = "; ".join(" and ".join(pair.where) for pair in shown)
    adjusted = f", adjusted for {pairs} pairs of {noun.several}" if pairs > 1 else ""
    return [
        f"The best reduction depends on the {noun.one}: {limit} {named}. With {percent(CONFIDENCE)} "
        f"confidence{adjusted}, the choices differ between {different}: the techniques that {covered} of "
        "resamplings choose have none in common.",
        *(_exchanged(noun, pair, max_drop) for pair in shown if pair in exchanged),
    ]


def proven(
    noun: Noun, choices: Sequence[Choice], max_drop: float, confidence: float, label: Callable[[Choice], str]
) -> list[str]:
    """Return which technique is proven to lose little.

    Args:
        noun: what choices are of.
        choices: of each task, or length.
        max_drop: largest accepted loss.
        confidence: of the proof.
        label: of a choice whose task, or length, has no proven technique.
    """
    certain = f"with {formatting.confidence(confidence)} confidence to lose at most {limit_points(max_drop)}"
    able = [choice for choice in choices if choice.proven != BASELINE]
    if not able:
        return [f"No technique is proven {certain} {noun.at} any {noun.one}: more rows may prove one."]
    named = ", ".join(f"'{choice.proven}' {noun.at} {choice.where}" for choice in able)
    without = ", ".join(label(choice) for choice in choices if choice not in able)
    none = f" {noun.unproven.format(without)}" if without else ""
    return [f"The cheapest technique that is proven {certain}: {named}.{none}"]


def single_readings(choices: Sequence[Choice]) -> str:
    """Return that costs have no known error; empty: they have."""
    return SINGLE_READINGS if any(choice.single_readings for choice in choices) else ""


def points(difference: float) -> str:
    """Return a measured difference of scores in points; what is not 0 does not read as 0."""
    number = fixed(100 * difference, 1).removesuffix(".0")
    number = significant(100 * difference, 1) if number == "0" else number
    return f"{number} point" + ("" if number == "1" else "s")


def _exchanged(noun: Noun, pair: ChoicePair, max_drop: float) -> str:
    parts = []
    for place, other in ((0, 1), (1, 0)):
        loss, ratio = pair.exchanged_losses[place], pair.exchanged_costs[place]
        allowed = "" if loss <= max_drop else ", more than allowed"
        parts.append(
            f"{noun.at} {pair.where[place]}, '{pair.measured[other]}' loses {points(loss)}{allowed} and "
            f"costs {times(ratio)}x as much as '{pair.measured[place]}'"
        )
    return f"With the choices exchanged, {' and '.join(parts)}."


def _listed(noun: Noun, choices: Sequence[Choice]) -> str:
    by_choice: dict[str, list[str]] = {}
    for choice in choices:
        by_choice.setdefault(choice.measured, []).append(choice.where)
    return "; ".join(f"'{name}' {noun.at} {', '.join(where)}" for name, where in by_choice.items())
