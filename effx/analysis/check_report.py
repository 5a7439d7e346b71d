"""The outcome of a check as text, Markdown and JUnit XML."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree

from effx import formatting
from effx.analysis.check import CheckResult
from effx.analysis.limits import LimitOutcome, Needed, Verdict
from effx.analysis.objectives import OBJECTIVES
from effx.formatting import confidence, fixed, outwards

SettingName = Callable[[str], str]
"""The name under which the reader sets a limit, by its setting: ``--max-drop`` for ``max_drop``."""

_POINT_DECIMALS = 2
_FAILED_GATE = "gate failed"


def text(result: CheckResult, name_of: SettingName = str) -> str:
    """Return a heading, a line per limit and failed gate, and the outcome."""
    lines = [_heading(result)]
    lines += [
        f"  {limit.verdict:<12}  {limit_text(limit, name_of)}: {finding(limit, result)}"
        for limit in result.limits
    ]
    lines += [
        f"  {'violated':<12}  {_FAILED_GATE}: {gate.label}: {gate.detail}" for gate in result.failed_gates
    ]
    lines += [f"  Note: {remark}." for remark in result.remarks]
    return "\n".join([*lines, conclusion(result)])


def markdown(result: CheckResult, name_of: SettingName = str) -> str:
    """Return a table for a pull request or a job summary."""
    rows = [
        (limit.verdict.value, limit_text(limit, name_of), finding(limit, result)) for limit in result.limits
    ]
    rows += [
        (Verdict.VIOLATED.value, _FAILED_GATE, f"{gate.label}: {gate.detail}") for gate in result.failed_gates
    ]
    lines = [
        f"### effx check: {'passed' if result.passed else 'failed'}",
        "",
        _cell(_heading(result)),
        "",
        "| verdict | limit | measured |",
        "|---|---|---|",
        *(f"| {' | '.join(map(_cell, row))} |" for row in rows),
        "",
        *(f"- Note: {_cell(remark)}." for remark in result.remarks),
    ]
    return "\n".join(lines).rstrip() + "\n"


def junit(result: CheckResult, name_of: SettingName = str) -> str:
    """Return a test suite with a test case per limit, and one for the gates of the measurement.

    An inconclusive limit is a failure of type ``inconclusive``.
    """
    cases: list[tuple[str, str | None, str]] = [
        (
            limit_text(limit, name_of),
            None if limit.verdict is Verdict.HOLDS else limit.verdict.value,
            finding(limit, result),
        )
        for limit in result.limits
    ]
    gates = "; ".join(f"{gate.label}: {gate.detail}" for gate in result.failed_gates)
    cases.append(("gates of the measurement", "gate" if gates else None, gates))
    failures = sum(kind is not None for _, kind, _ in cases)
    counts = {"tests": str(len(cases)), "failures": str(failures), "errors": "0"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": f"effx check {result.engine}", **counts})
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("result", result.result), ("host", result.host), ("task", result.task),
                        ("baseline", result.baseline_result), ("confidence", result.confidence)):  # fmt: skip
        if value is not None:
            ElementTree.SubElement(properties, "property", {"name": name, "value": str(value)})
    for name, kind, detail in cases:
        case = ElementTree.SubElement(suite, "testcase", {"classname": result.engine, "name": name})
        if kind is None:
            ElementTree.SubElement(case, "system-out").text = detail
        else:
            ElementTree.SubElement(case, "failure", {"type": kind, "message": detail})
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def conclusion(result: CheckResult) -> str:
    """Return one line: whether the check passed, or the reasons why not."""
    if result.passed:
        return f"passed: every limit holds with {confidence(result.confidence)} confidence"
    counts = {verdict: sum(limit.verdict is verdict for limit in result.limits) for verdict in Verdict}
    parts = [
        f"{counts[verdict]} of {len(result.limits)} limits {verdict}"
        for verdict in (Verdict.VIOLATED, Verdict.INCONCLUSIVE)
        if counts[verdict]
    ]
    if gates := len(result.failed_gates):
        parts.append(f"{gates} gate{'s' if gates > 1 else ''} of the measurement failed")
    return f"failed: {', '.join(parts)}"


def limit_text(limit: LimitOutcome, name_of: SettingName = str) -> str:
    """Return a limit as it is set, such as ``--max-p90 5 ms``."""
    return f"{name_of(limit.setting)} {formatting.limit(limit.limit, OBJECTIVES[limit.objective].unit)}"


def finding(limit: LimitOutcome, result: CheckResult) -> str:
    """Return what was measured of a limit, and what would decide it if it is inconclusive."""
    if limit.value is None:
        measured = f"not measured: {limit.reason}"
    elif limit.difference is not None:
        measured = _difference(limit, result)
    else:
        measured = _value(limit, result)
    if limit.verdict is not Verdict.INCONCLUSIVE:
        return measured
    return f"{measured}; {_needed(limit.needed)}"


def _needed(needed: Needed | None) -> str:
    if needed is None:
        return "how much more would decide it is unknown"
    return f"about {needed.count} {needed.unit} are needed to decide, if the measured value stays the same"


def _difference(limit: LimitOutcome, result: CheckResult) -> str:
    assert limit.difference is not None
    text = f"{_points(limit.difference)} points of {result.metric} compared with {result.baseline}"
    if limit.interval is None:
        return f"{text}, {limit.reason}"
    low, high = (
        _points(outwards(100 * bound, _POINT_DECIMALS, up=up) / 100)
        for bound, up in zip(limit.interval, (False, True), strict=True)
    )
    if limit.verdict is Verdict.HOLDS:
        return f"{text}, at worst {low}"
    if limit.verdict is Verdict.VIOLATED:
        return f"{text}, at best {high}"
    return f"{text}, {low} to {high} on {result.n} rows"


def _value(limit: LimitOutcome, result: CheckResult) -> str:
    objective = OBJECTIVES[limit.objective]
    assert limit.value is not None
    label = result.metric if objective.name == "quality" else objective.short
    text = f"{label} {formatting.with_unit(limit.value, objective.unit)}"
    if limit.reason is not None:
        return f"{text}, {limit.reason}"
    if limit.interval is None:
        return f"{text} (single reading)"
    low, high = (
        formatting.rounded_outwards(bound, objective.unit, up=up, like=limit.value)
        for bound, up in zip(limit.interval, (False, True), strict=True)
    )
    worst, best = (low, high) if objective.maximise else (high, low)
    if limit.verdict is Verdict.HOLDS:
        return f"{text}, at worst {worst}"
    if limit.verdict is Verdict.VIOLATED:
        return f"{text}, at best {best}"
    return f"{text}, {low} to {high}"


def _points(difference: float) -> str:
    sign = "" if difference < 0 else "+"
    return f"{sign}{fixed(100 * difference, _POINT_DECIMALS)}"


def _heading(result: CheckResult) -> str:
    return (
        f"{result.engine} on {result.host}: {result.task}, {result.metric} on {result.n} rows, "
        f"{confidence(result.confidence)} confidence (result {result.result})"
    )


def _cell(text: str) -> str:
    """Return text in one line of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())
