"""Which results may be compared: one key, one check.

    always            task, host, GPU, metric, evaluation rows (where they came from, how many, which texts);
                      on rows without labels also the reference engine that predictions are compared with
    with energy       also the energy's source (counter, integrated, model) and meter
    with predictions  also the labels, or the reference's predictions: paired statistics resample the same
                      examples of every engine

Texts that an earlier version did not record, and the GPU of an engine that uses none, differ from no other.

Latency is compared between single queries at real lengths, timed end to end (:func:`single_stream`), or
between workloads of the same scenario, shape and arrival rate (:func:`shared_workloads`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from effx.errors import UsageError
from effx.results import Energy, Failure, ReferenceEngine, Run, WorkloadResult
from effx.specs import variants
from effx.specs.workloads import SINGLE_STREAM


@dataclass(frozen=True, order=True)
class EnergyMeter:
    """Where joules come from; joules of different meters are not compared."""

    source: str
    """``counter``, ``integrated``, ``model`` or ``none``."""
    name: str
    """The meter, such as ``rapl``."""

    @classmethod
    def of(cls, energy: Energy) -> EnergyMeter:
        """Return the meter of a workload's energy."""
        return cls(energy.source, energy.meter)

    def __str__(self) -> str:
        return f"{self.source} ({self.name})"


@dataclass(frozen=True)
class Cohort:
    """What results must have in common to be compared."""

    task: str
    host: str
    rows: str
    """Where the evaluation rows came from."""
    n: int
    """Number of evaluation rows."""
    metric: str
    """The primary metric."""
    reference: ReferenceEngine | None = None
    """What predictions are compared with; None: the rows have labels."""
    energy: EnergyMeter | None = None
    """None: joules are not compared."""
    labels: int | None = None
    """Hash of the labels; None: examples are not paired."""
    texts: str | None = None
    """Digest of the texts of the rows; None: not recorded."""
    gpu: str | None = None
    """Name of the GPU that computed; None: none did, or it was not recorded."""

    @property
    def described(self) -> str:
        """The primary metric for texts: ``accuracy``, or ``agreement with NAME``."""
        return self.metric if self.reference is None else f"{self.metric} with {self.reference.name}"

    @classmethod
    def of(cls, run: Run, *, energy: bool = False, labels: bool = False) -> Cohort:
        """Return the cohort of a result.

        Args:
            run: the result.
            energy: whether joules are compared.
            labels: whether predictions are compared example by example.

        Raises:
            UsageError: ``energy``, and single queries were not measured.
        """
        return cls(
            task=run.task,
            host=run.host_id,
            rows=run.quality.source,
            n=run.quality.n,
            metric=run.quality.metric,
            reference=run.quality.reference,
            energy=energy_meter(run) if energy else None,
            labels=hash(json.dumps(run.quality.labels)) if labels else None,
            texts=run.quality.texts_digest,
            gpu=gpu_of(run),
        )

    def has_rows_of(self, other: Cohort) -> bool:
        """Return whether results of both were scored on the same rows, as far as they say, on any device."""
        texts = self.texts if other.texts is None else other.texts
        return replace(self, texts=texts, gpu=None) == replace(other, texts=self.texts or texts, gpu=None)


def check(runs: Sequence[Run], *, energy: bool = False) -> None:
    """Check that results may be compared; :func:`shared_labels` checks their labels.

    Args:
        runs: the results.
        energy: whether joules are compared.

    Raises:
        UsageError: they differ in task, host, GPU, metric, evaluation rows or, with ``energy``, in meter.
    """
    keys = {Cohort.of(run, energy=energy): run.id for run in reversed(runs)}
    for what, values, advice in (
        ("different tasks", {key.task: run for key, run in keys.items()}, ""),
        ("different hosts", {key.host: run for key, run in keys.items()}, ""),
        (
            "different GPUs",
            {key.gpu: run for key, run in keys.items() if key.gpu is not None},
            " Give the results of one GPU.",
        ),
        ("different metrics", {key.metric: run for key, run in keys.items()}, ""),
        (
            "agreements with different reference engines",
            _references(keys),
            " Profile all with one reference.",
        ),
        ("different evaluation sets", {f"{key.rows} ({key.n})": run for key, run in keys.items()}, ""),
        (
            "scores of different texts",
            {f"{key.rows} (SHA-256 {key.texts[:8]})": run for key, run in keys.items() if key.texts},
            " The file was changed in between: profile the engines again.",
        ),
        (
            "energies from different sources or meters",
            {str(key.energy): run for key, run in keys.items()},
            " Profile the engines in one session, or compare another objective.",
        ),
    ):
        if len(values) > 1:
            listed = ", ".join(f"{value} in {run}" for value, run in sorted(values.items()))
            raise UsageError(f"{what} cannot be compared: {listed}.{advice}")


def _references(keys: Mapping[Cohort, str]) -> dict[str, str]:
    return {
        f"{key.reference.name} ({key.reference.digest[:8]})": run
        for key, run in keys.items()
        if key.reference is not None
    }


def split(runs: Sequence[Run], *, energy: bool = False, labels: bool = False) -> dict[Cohort, list[Run]]:
    """Return results by cohort; of one task and host, that with the most labelled rows is the first.

    Args:
        runs: the results.
        energy: whether joules are compared.
        labels: whether predictions are compared example by example.
    """
    alike: dict[Cohort, list[tuple[Cohort, Run]]] = {}
    for run in runs:
        key = Cohort.of(run, energy=energy, labels=labels)
        alike.setdefault(replace(key, texts=None, gpu=None), []).append((key, run))
    cohorts: dict[Cohort, list[Run]] = {}
    for members in alike.values():
        # what does not say its texts, or uses no GPU, belongs to the others if these all agree
        texts, gpus = ({value for value in values if value is not None} for values in (
            [key.texts for key, _ in members], [key.gpu for key, _ in members]
        ))  # fmt: skip
        for key, run in members:
            key = replace(
                key, texts=next(iter(texts)) if len(texts) == 1 else key.texts,
                gpu=next(iter(gpus)) if len(gpus) == 1 else key.gpu,
            )  # fmt: skip
            cohorts.setdefault(key, []).append(run)

    def order(key: Cohort) -> tuple[str, str, bool, int, str, str, str, str, str, str]:
        unlabelled, others = key.reference is not None, (str(key.reference), str(key.energy))
        return (key.task, key.host, unlabelled, -key.n, key.metric, key.rows, *others, key.texts or "",
                key.gpu or "")  # fmt: skip

    return {key: cohorts[key] for key in sorted(cohorts, key=order)}


def without_labels(run: Run) -> list[str]:
    """Return a remark on a result whose rows have no labels; an empty list: they have labels."""
    if run.quality.reference is None:
        return []
    if run.quality.reference.digest == run.engine.digest:
        return [
            f"the rows have no labels, and {run.name} is the reference engine: its agreement with itself is "
            "1, whatever it predicts"
        ]
    return [
        f"the rows have no labels: agreement with {run.quality.reference.name} was measured, not how many "
        "predictions are right"
    ]


def by_task_and_host(runs: Sequence[Run]) -> dict[tuple[str, str], list[Run]]:
    """Return results by (task, host), whatever rows they were scored on."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.task, run.host_id), []).append(run)
    return dict(sorted(groups.items()))


def latest(runs: Sequence[Run]) -> list[Run]:
    """Return the latest result of each engine on each host, in order of start.

    Results on rows with labels and on rows without count separately.
    """
    newest: dict[tuple[str, str, str, bool], Run] = {}
    for run in sorted(runs, key=lambda run: (run.started, run.id)):
        newest[(run.task, run.host_id, run.name, run.quality.reference is None)] = run
    return list(newest.values())


def current_failures(failures: Sequence[Failure], runs: Sequence[Run]) -> list[Failure]:
    """Return the failures of engines that were not measured on the same host later."""
    return [
        failure
        for failure in failures
        if not any(failed(failure, run) and run.started > failure.time for run in runs)
    ]


def failed(failure: Failure, run: Run) -> bool:
    """Return whether a failure is of the engine of a result: of its name, on its host.

    Its task is unknown if its folder could not be read.
    """
    same = (failure.name, failure.host.id) == (run.name, run.host_id)
    return same and failure.engine.task in (None, run.task)


def has_predictions(run: Run) -> bool:
    """Return whether a result holds the prediction and label of every row: results may be shared without."""
    return len(run.quality.predictions) == len(run.quality.labels) == run.quality.n > 0


def shared_labels(runs: Sequence[Run]) -> np.ndarray:
    """Return the labels, :attr:`effx.results.Quality.label_array`, that all results were scored on.

    Raises:
        UsageError: a result lacks predictions, or the labels differ.
    """
    labels = runs[0].quality.labels
    for run in runs:
        if not has_predictions(run):
            raise UsageError(f"{run.id} does not contain all predictions; profile the engine again.")
        if run.quality.labels != labels:
            what = "labels; profile both on the same rows"
            if run.quality.reference is not None:
                what = "predictions of the reference engine; profile both in one session"
            raise UsageError(f"{runs[0].id} and {run.id} have different {what}.")
    return runs[0].quality.label_array


def gpu_of(run: Run) -> str | None:
    """Return the name of the GPU that computed; None: none did, or it was not recorded."""
    name = run.settings.runtime.details.get("device")
    return str(name) if name is not None and run.engine.device != "cpu" else None


def sessions(runs: Sequence[Run]) -> list[str]:
    """Return a remark on costs of different sessions, and what else differs between them; empty: of one."""
    if len({run.session for run in runs}) < 2:
        return []
    records = [run.settings.runtime for run in runs]
    versions: dict[str, set[str]] = {}
    for record in records:
        for package, version in record.versions.items():
            versions.setdefault(package, set()).add(version)
    known = {
        "threads": {str(threads) for run in runs if (threads := session_threads(run)) is not None},
        "the processor's frequency governor": {str(run.host.governor) for run in runs},
        **versions,
    }
    differing = [f"{name}: {', '.join(sorted(values))}" for name, values in known.items() if len(values) > 1]
    also = f" (different {'; '.join(differing)})" if differing else ""
    return [
        f"they were measured in different sessions{also}: changes of the host between them affect the ratios"
    ]


def session_threads(run: Run) -> int | None:
    """Return the number of threads of the session; None: the engine has a number of its own."""
    own = variants.parse(run.engine.variant).threads
    return run.settings.runtime.threads if own is None else None


def single_stream(run: Run) -> WorkloadResult:
    """Return single queries at real lengths, timed end to end: what frontiers and tables show.

    Raises:
        UsageError: they were not measured.
    """
    workload = run.workload(SINGLE_STREAM)
    if workload is None:
        raise UsageError(f"{run.id}: no single-stream workload; profile the engine again.")
    return workload


def energy_of(run: Run) -> Energy:
    """Return the energy of a result's single queries, without a number if a hard gate failed.

    Raises:
        UsageError: they were not measured.
    """
    return run.energy_of(single_stream(run))


def energy_meter(run: Run) -> EnergyMeter:
    """Return the meter of a result's single queries.

    Raises:
        UsageError: they were not measured.
    """
    return EnergyMeter.of(energy_of(run))


def energy_meters(runs: Sequence[Run]) -> list[EnergyMeter]:
    """Return the different meters of results, sorted; joules are compared if there is one."""
    return sorted({energy_meter(run) for run in runs})


def shared_workloads(a: Run, b: Run) -> list[tuple[WorkloadResult, WorkloadResult]]:
    """Return the workloads of a and b of the same scenario, batch and length, timed end to end.

    Queries of the ``server`` scenario may have arrived at different rates: the caller compares
    ``rate_per_s``. Workloads timed on the device repeat the same queries and are left out.
    """
    pairs = [(result, b.workload(result.workload)) for result in a.workloads if not result.workload.on_device]
    return [(result, other) for result, other in pairs if other is not None]
