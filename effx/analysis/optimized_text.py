"""The answer of ``effx optimize`` for people: text, a page in Markdown, a section of the report."""

from __future__ import annotations

from typing import Any

from effx import formatting
from effx.analysis.fixed_sequence import State
from effx.analysis.optimized import TIMES, Candidate, Gain, OptimizedAnswer
from effx.formatting import (
    fixed,
    from_to,
    limit_points,
    outwards,
    points,
    score,
    significant,
    times,
    with_unit,
)
from effx.specs.workloads import Workload

_UNITS = {"energy": "J/example", "memory": "B", "size": "B"}
_NOUNS = {"cpu_time": "processor time", "energy": "joules", "memory": "memory", "size": "size"}


def text(answer: OptimizedAnswer) -> str:
    """Return the answer as lines: what to deploy, what is proven and gained, and all candidates."""
    lines = [*_headline(answer), "", *_table(answer)]
    if answer.remarks:
        lines += ["", *answer.remarks]
    return "\n".join(lines)


def markdown(answer: OptimizedAnswer) -> str:
    """Return the answer as a page in Markdown."""
    head, *facts = _headline(answer)
    columns = _columns(answer)
    rows = [columns, ["---"] * len(columns), *(_cells(each, answer) for each in answer.candidates)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    remarks = "".join(f"- {remark}\n" for remark in answer.remarks)
    return f"# {head}\n\n" + "".join(f"- {fact}\n" for fact in facts) + f"\n{table}\n\n{remarks}"


def section(answer: OptimizedAnswer) -> dict[str, Any]:
    """Return the answer as a section, see :mod:`effx.report.sections`."""
    head, *facts = _headline(answer)
    return {
        "schema": 1,
        "title": head,
        "text": " ".join(f"{fact[0].upper()}{fact[1:]}." for fact in facts),
        "tables": [
            {
                "title": "Engines",
                "columns": [{"label": label} for label in _columns(answer)],
                "rows": [_cells(each, answer) for each in answer.candidates],
            }
        ],
    }


def _headline(answer: OptimizedAnswer) -> list[str]:
    """Return what to deploy, and facts about it, one line each."""
    rows = f"{answer.proving_rows} rows"
    if answer.choosing_rows:
        rows += f", which did not choose it ({answer.choosing_rows} training rows helped)"
    confidence = formatting.confidence(answer.confidence)
    chosen = answer.chosen
    if chosen is None:
        lines = [
            f"{answer.task}: no engine cheaper than {answer.baseline} is proven to lose at most "
            f"{limit_points(answer.max_drop)} of {answer.metric}"
        ]
        best = answer.unproven
        if best is None:
            return [*lines, "no reduced engine costs less than the unreduced one"]
        if best.loses_at_most is not None:
            lines.append(
                f"the least that can be proven: {best.engine} loses at most {_loss(best.loses_at_most)} "
                f"points with {confidence} confidence, on {answer.proving_rows} rows"
            )
        if best.rows_needed is not None:
            lines.append(
                f"about {best.rows_needed} rows would prove {limit_points(answer.max_drop)} for it, if its "
                "measured loss stayed the same"
            )
        return lines
    tested = chosen.tested
    assert tested is not None
    promise = f"loses at most {limit_points(answer.max_drop)} of {answer.metric}"
    lines = [
        f"{answer.task}: deploy {chosen.engine}",
        f"{promise} with {confidence} confidence, on {rows}",
        f"measured there: {score(chosen.score)}, {points(tested.difference)} points compared with "
        f"{answer.baseline}",
        f"{_gain(chosen.gain, answer)} {answer.baseline}: {_cost(chosen.cost, answer)}",
    ]
    if chosen.gain_over_plain is not None and answer.plain not in (None, chosen.engine):
        lines.append(f"{_gain(chosen.gain_over_plain, answer)} {answer.plain}, the unreduced engine")
    if (cheaper := answer.unproven) is not None:
        rows = "" if cheaper.rows_needed is None else f"; about {cheaper.rows_needed} rows would prove it"
        measured = f"was measured at {points(cheaper.difference)} points"
        lines.append(f"not proven: {cheaper.engine} costs less and {measured}{rows}")
    return lines


def _columns(answer: OptimizedAnswer) -> list[str]:
    return [
        "engine",
        "reduced",
        "mean time" if answer.objective in TIMES else "cost",
        "times as cheap",
        "score",
        "difference, points",
        "at least, alone",
        "proven",
    ]


def _cells(candidate: Candidate, answer: OptimizedAnswer) -> list[str]:
    tested = candidate.tested
    cells = [
        candidate.engine, candidate.technique, _cost(candidate.cost, answer).partition(" per ")[0],
        times(candidate.gain.value), score(candidate.score),
    ]  # fmt: skip
    if tested is None:
        return [*cells, "", "", "the baseline"]
    bound = "" if tested.bound is None else points(outwards(100 * tested.bound, 1, up=False) / 100)
    return [*cells, points(tested.difference), bound, _state(tested.state)]


def _table(answer: OptimizedAnswer) -> list[str]:
    rows = [_columns(answer), *(_cells(each, answer) for each in answer.candidates)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _state(state: State) -> str:
    return {State.PROVEN: "yes", State.NOT_PROVEN: "no"}.get(state, str(state))


def _loss(value: float) -> str:
    """Return a largest loss in points, rounded up: no smaller one is proven."""
    return fixed(outwards(100 * value, 2, up=True), 2).rstrip("0").rstrip(".")


def _gain(gain: Gain, answer: OptimizedAnswer) -> str:
    interval = ""
    if gain.interval is not None:
        low, high = gain.interval
        doubt = "" if low > 1 or high < 1 else ", not distinguishable"
        interval = f" ({from_to(gain.interval, times)}{doubt})"
    if answer.objective in _NOUNS:
        return f"1/{times(gain.value)} of the {_NOUNS[answer.objective]}{interval} of"
    return f"{times(gain.value)}x as fast{interval} as"


def _cost(value: float, answer: OptimizedAnswer) -> str:
    unit = _UNITS.get(answer.objective)
    if unit is not None:
        source = "" if answer.energy_source is None else f" ({answer.energy_source})"
        return f"{with_unit(value, unit)}{source}"
    if answer.objective == "cpu_time":
        return f"{significant(1e3 * value)} ms per example"
    return f"{significant(1e3 * value)} ms per {_query(answer.workload)}, on average"


def _query(workload: Workload) -> str:
    if workload.scenario == "single-stream":
        return "query of one row"
    length = "of similar length" if workload.length == "real" else f"of {workload.length} tokens"
    return f"batch of {workload.batch} rows {length}" if workload.batch > 1 else f"row {length}"
