"""Whether one engine meets every limit, with a requested confidence: the gate of a CI pipeline.

Each limit is tested one-sided (:mod:`effx.analysis.limits`). The check passes if every limit holds and no
gate of the measurement failed. All limits must hold, so no adjustment for their number is needed: the chance
that an engine that misses a limit passes is at most 1 - confidence (intersection-union test, Berger 1982,
Technometrics 24:295-300).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from effx.analysis import cohorts
from effx.analysis.constraints import of_constraints
from effx.analysis.limits import LimitOutcome, Verdict, outcome
from effx.analysis.recommend import made_elsewhere
from effx.errors import GateError, UsageError, nearest
from effx.results import Failure, Run
from effx.specs.constraints import CheckSettings
from effx.specs.gates import GATES


@dataclass(frozen=True)
class FailedGate:
    """A gate of the measurement, or of the export (``parity``), that failed."""

    name: str
    label: str
    detail: str


@dataclass(frozen=True)
class CheckResult:
    """The outcome of a check."""

    engine: str
    result: str
    task: str
    host: str
    metric: str
    n: int
    baseline: str | None
    baseline_result: str | None
    confidence: float
    limits: list[LimitOutcome]
    failed_gates: list[FailedGate]
    """Those that fail the check."""
    remarks: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every limit holds, and no gate failed."""
        return not self.failed_gates and all(limit.verdict is Verdict.HOLDS for limit in self.limits)

    def to_json(self) -> dict[str, Any]:
        return {"passed": self.passed, **asdict(self)}


@dataclass(frozen=True)
class Subject:
    """Which engine or result is meant."""

    text: str
    """The name of an engine, or the id of a result."""
    digest: str | None = None
    """Digest of the engine, where its folder was given: results of another build do not count."""

    def matches(self, name: str, result: str, digest: str) -> bool:
        """Return whether a result is meant."""
        return digest == self.digest if self.digest is not None else self.text in (name, result)


def select(
    runs: Sequence[Run],
    failures: Sequence[Failure],
    subject: Subject,
    baseline: Subject | None,
    host: str | None = None,
) -> tuple[Run, Run | None]:
    """Return the latest result of an engine, and of its baseline.

    Args:
        runs: results to choose from.
        failures: measurements that failed.
        subject: the engine to check.
        baseline: the engine to compare it with; a result of the same session is preferred, then the latest
            of the same cohort. None: none.
        host: only results of this host.

    Raises:
        UsageError: there is no such result, it is of several hosts, or the baseline is the engine itself.
        GateError: the latest measurement of the engine failed.
    """
    failed = [
        failure for failure in failures
        if subject.matches(failure.name, failure.id, str(failure.engine.digest))
        and host in (None, failure.host.id)
    ]  # fmt: skip
    latest_failure = max(failed, key=lambda failure: failure.time, default=None)
    if latest_failure is not None and not any(
        subject.matches(run.name, run.id, _digest(run))
        and run.host_id == latest_failure.host.id
        and run.started > latest_failure.time
        for run in runs
    ):
        raise GateError(f"{subject.text} could not be profiled: {latest_failure.failure}")
    run = _latest(runs, subject, host)
    if baseline is None:
        return run, None
    others = _matching(runs, baseline, host)
    different = [other for other in others if other.id != run.id and _digest(other) != _digest(run)]
    if not different:
        raise UsageError(
            f"baseline '{baseline.text}' is the engine itself: name another engine, or a result of another "
            "build.",
            settings="baseline",
        )
    return run, max(different, key=lambda other: _preference(run, other))


def check(run: Run, baseline: Run | None, settings: CheckSettings) -> CheckResult:
    """Return whether an engine meets every limit.

    Args:
        run: the engine's result.
        baseline: the result that ``max_drop`` is relative to; None: none.
        settings: limits, confidence, and gates to ignore.

    Raises:
        UsageError: there is no limit, ``max_drop`` without a baseline or the other way round, the baseline is
            the engine itself, or the two were measured on different hosts, tasks or rows.
    """
    constraints = settings.constraints
    if not constraints.given() or all(value is None for value in constraints.flat().values()):
        raise UsageError(
            "there is nothing to check: set a limit such as max_drop or max_p90_s.",
            settings=tuple(type(constraints).model_fields),
        )
    if (baseline is None) != (constraints.max_drop is None):
        raise UsageError(
            "give max_drop and baseline together: max_drop limits the loss compared with the baseline.",
            settings=("max_drop", "baseline"),
        )
    remarks = [*cohorts.without_labels(run), *made_elsewhere(run)]
    if baseline is not None:
        if baseline.id == run.id or _digest(baseline) == _digest(run):
            raise UsageError(
                f"the baseline is the checked engine {run.name}: name another engine.", settings="baseline"
            )
        cohorts.check([baseline, run])
        cohorts.shared_labels([baseline, run])
        remarks += [f"the baseline's gate failed: {gate.label}" for gate in baseline.failed_gates]
    failed, ignored = _failed_gates(run), settings.ignore_gates or ()
    remarks += [f"gate ignored: {gate.label}: {gate.detail}" for gate in failed
                if gate.name in ignored]  # fmt: skip
    return CheckResult(
        engine=run.name,
        result=run.id,
        task=run.task,
        host=run.host_id,
        metric=run.quality.described,
        n=run.quality.n,
        baseline=None if baseline is None else baseline.name,
        baseline_result=None if baseline is None else baseline.id,
        confidence=settings.confidence,
        limits=[
            outcome(run, threshold, settings.confidence)
            for threshold in of_constraints(constraints, baseline)
        ],
        failed_gates=[gate for gate in failed if gate.name not in ignored],
        remarks=remarks,
    )


def _matching(runs: Sequence[Run], subject: Subject, host: str | None) -> list[Run]:
    """Return the results that are meant, newest first."""
    matching = [run for run in runs if subject.matches(run.name, run.id, _digest(run))]
    if not matching:
        names = sorted({run.name for run in runs})
        if subject.digest is not None:
            raise UsageError(
                f"no result of the current build of {subject.text}: profile it, or name the folder with its "
                "results.",
                settings="results",
            )
        near = nearest(subject.text, [*names, *(run.id for run in runs)])
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        raise UsageError(f"no result of '{subject.text}'.{near} Known: {', '.join(names[:10])}{more}.")
    on_host = [run for run in matching if host is None or run.host_id == host]
    if not on_host:
        hosts = ", ".join(sorted({run.host_id for run in matching}))
        raise UsageError(f"no result of '{subject.text}' on host '{host}'. Hosts: {hosts}.", settings="host")
    return sorted(on_host, key=lambda run: (run.started, run.id), reverse=True)


def _latest(runs: Sequence[Run], subject: Subject, host: str | None) -> Run:
    matching = _matching(runs, subject, host)
    hosts = sorted({run.host_id for run in matching})
    if len(hosts) > 1:
        raise UsageError(
            f"'{subject.text}' was measured on {len(hosts)} hosts: {', '.join(hosts)}. Choose one.",
            settings="host",
        )
    return matching[0]


def _digest(run: Run) -> str:
    return run.engine.digest


def _preference(run: Run, other: Run) -> tuple[bool, bool, str, str]:
    same_cohort = cohorts.Cohort.of(run).has_rows_of(cohorts.Cohort.of(other))
    return same_cohort and run.session == other.session, same_cohort, other.started, other.id


def _failed_gates(run: Run) -> list[FailedGate]:
    failed = [FailedGate(gate.name, gate.label, gate.detail) for gate in run.failed_gates]
    listed = {gate.name for gate in failed}
    failed += [
        FailedGate(flag, GATES[flag].label, "failed") for flag in run.flags
        if flag in GATES and flag not in listed
    ]  # fmt: skip
    parity = run.engine.parity
    if parity is not None and not parity.passed:
        detail = parity.agreement
        failed.append(FailedGate("parity", "predictions match the checkpoint's", detail))
    return failed
