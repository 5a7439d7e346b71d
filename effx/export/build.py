"""Build one engine: checkpoint -> graphs -> precision -> parity gate and audit -> engines/NAME/."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from effx import data, engines, progress
from effx.artifacts import Checkpoint, Engine
from effx.errors import DataError, EffxError, GateError, UsageError
from effx.export import audit, drift, fastest, origin, parity, shared_encoder
from effx.export.builders import builder
from effx.export.built import Built, StandIn
from effx.export.fastest import Files
from effx.export.parity import Answers, Reference
from effx.export.source import ExportSource
from effx.host import built as built_here
from effx.host import cpu
from effx.manifests import (
    ArtifactReference,
    Audit,
    BuildHost,
    CandidateRecord,
    EncoderShape,
    EngineInput,
    EngineManifest,
    HeadRecord,
    Parity,
)
from effx.models import checkpoints, families, huggingface, structure
from effx.models.structure import full_parameters, parameters_left
from effx.specs import backends
from effx.specs.backends import AUTO_PRECISIONS, CALIBRATED, INT8_BF16
from effx.specs.data import DataLocation, DataRecord
from effx.specs.measurement import built_for
from effx.specs.runtime import MAX_STATIC_BATCH, RuntimeSettings
from effx.specs.tasks import Task
from effx.specs.variants import AUTO, Variant, parse
from effx.specs.workloads import Workload

_NEARLY_AS_FAST = 1.1
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_NOTES = {
    "int8-dynamic": "this file is for ONNX Runtime; for OpenVINO, int8 of backend openvino is faster",
}
"""Scheme -> what a user of its file should know."""
_AMX_NOTE = (
    "this processor has AMX, with which OpenVINO's bf16 is often nearly as fast as int8 and loses nothing: "
    "the variant auto compares them"
)


@dataclass(frozen=True)
class Job:
    """One engine to build."""

    checkpoint: Path
    variant: Variant
    backend: str
    device: str
    target: Path
    """The engine's folder."""
    keep_failed: bool = False
    built_for: str | None = None
    """The workload that candidates are timed in, see :func:`effx.specs.measurement.built_for`; None: single
    rows and batches."""


@dataclass(frozen=True)
class BuildContext:
    """The threads that a build may use, and a lock for timing."""

    threads: int | None = None
    """Compute threads; None: all processors that this process may use."""
    exclusive: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    """A context in which other jobs do not compute: candidates are timed there."""


def gate_data(checkpoint: Checkpoint, data_folder: DataLocation) -> DataRecord | None:
    """Return which rows the gates of a checkpoint's engines take; None: random ids, the hub or the demo."""
    try:
        return data.recorded(checkpoint.task, data.locate(data_folder, checkpoint.task, checkpoint.data))
    except (DataError, UsageError):
        return None  # what reads the rows reports it


def up_to_date(
    target: Path,
    checkpoint: Checkpoint,
    variant: Variant,
    backend: str,
    device: str,
    rows: DataRecord | None,
    calibration_rows: int,
    built_for: str | None = None,
) -> Engine | None:
    """Return the engine at ``target`` if it is this variant of this checkpoint and passed its gates.

    Args:
        target: the engine's folder.
        checkpoint: the one to export.
        variant: of it.
        backend: of the engine.
        device: of the engine.
        rows: of the gates and of calibration; None: unknown, so that those of the engine are good.
        calibration_rows: see :func:`effx.export.export_all`.
        built_for: the same.
    """
    if not Engine.find(target):
        return None
    try:
        engine = Engine.open(target)
    except EffxError:
        return None
    before = engine.manifest
    same = (before.checkpoint.digest, before.calibration_rows) == (checkpoint.digest, calibration_rows)
    # a folder may have been copied or renamed
    same = same and (engine.variant, engine.backend, engine.device) == (variant.text, backend, device)
    chosen = backends.get(engine.backend).is_chosen_by_time(variant.scheme, engine.device, built_for)
    same = same and before.built_for == (built_for if chosen else None)
    if same and variant.multi:
        try:
            others = shared_encoder.others(checkpoint)
            now = [(other.digest, _content(gate_data(other, None))) for other in others]
        except EffxError:
            return None  # what builds it reports it
        same = [(head.checkpoint.digest, _content(head.gate_data)) for head in before.other_heads] == now
    if rows is not None:  # the same rows in another folder are the same
        same = same and before.gate_data is not None and _content(before.gate_data) == _content(rows)
    return engine if same and engine.parity_passed else None


def _content(rows: DataRecord | None) -> DataRecord | None:
    return None if rows is None else replace(rows, name="", folder=False)


def refusal(variant: Variant, backend: str, device: str) -> str | None:
    """Return why a variant cannot be built for a backend from any checkpoint, or None."""
    row = backends.get(backend)
    if reason := row.refusal(variant.scheme, device):
        return reason
    if variant.stripped and not row.strips_weights:
        return "stripped is supported for TensorRT plans only"
    if variant.threads is not None and device != "cpu":
        return f"threads{variant.threads} is for engines on the CPU"
    if variant.precision == "bf16" and device == "cpu" and not cpu.has_bf16():
        return "this processor does not support bf16"
    return builder(backend).refuse(variant, device)


def build(source: ExportSource, job: Job, context: BuildContext) -> None:
    """Build an engine, compare it with its checkpoint, and write it to the job's target.

    Raises:
        GateError: its answers differ from the checkpoint's by more than the precision allows, or it
            does not compute in that precision.
        UsageError: the variant cannot be built, or the target cannot be written to.
        DeviceError: it is built on a GPU, and there is no usable GPU.
    """
    checkpoint, variant, backend, target = source.checkpoint, job.variant, job.backend, job.target
    if reason := refusal(variant, backend, job.device):
        raise UsageError(f"{target.name}: {reason}.")
    variant.check(
        structure(source.model), source.limit, checkpoint.name,
        window=source.max_length(variant) if checkpoint.task.behavior.form == "windows" else None,
    )  # fmt: skip
    workload, longest = _workload(job), variant.length or source.limit
    if workload is not None and workload.length != "real" and workload.length > longest:
        raise UsageError(
            f"{target.name}: it reads {longest} tokens at most, and is to be built for {job.built_for}: "
            "give a shorter length.",
            settings="built_for",
        )
    if variant.multi:  # refused before anything is traced
        _check_other_heads(source, variant)
    if variant.exits and variant.tokens and families.of(source.model).relative_positions:
        raise UsageError(
            f"variant '{variant.text}': {checkpoint.name} has a relative position bias, which segments "
            "cannot compute after tokens were dropped: use either exits or tokens."
        )
    by_time = backends.get(backend).is_chosen_by_time(variant.scheme, job.device, job.built_for)
    reference = source.reference(variant)
    started = time.perf_counter()
    with Engine.create(target, overwrite=True) as draft:
        folder = draft.folder
        with tempfile.TemporaryDirectory(prefix="effx-candidates-", dir=source.scratch) as scratch:
            variant, best, tried = _precision(source, job, reference, Path(scratch), context)
            for path in best.folder.iterdir():
                shutil.move(path, folder / path.name)
        for name in ("config.json", *_TOKENIZER_FILES):
            if (checkpoint.folder / name).is_file():
                shutil.copyfile(checkpoint.folder / name, folder / name)
        if best.failure:
            if not job.keep_failed:
                raise GateError(
                    f"{target.name}: {best.failure} The engine was deleted.", settings="keep_failed"
                )
            progress.say(f"{target.name}: {best.failure}")
        build_s = time.perf_counter() - started
        progress.say(
            f"{target.name}: {best.description}, built in {build_s:.1f} s; logits differ by "
            f"{best.measured.max_abs_diff:.2g} at most, {best.measured.agreement} "
            f"on {best.measured.compared_rows}"
        )
        for head in best.other_heads:
            progress.say(
                f"{target.name}: {head.output} differ by {head.parity.max_abs_diff:.2g} at most, "
                f"{head.parity.agreement} on {head.parity.compared_rows}"
            )
        assert best.audit is not None
        if note := audit.mixed_precision_note(best.audit, variant.precision):
            progress.say(f"{target.name}: {note}")
        if note := _NOTES.get(best.scheme):
            progress.say(f"{target.name}: {note}")
        if backend == "openvino" and job.variant.precision == "int8" and cpu.has_amx():
            progress.say(f"{target.name}: {_AMX_NOTE}")
        limit = variant.length or source.limit
        longest = source.max_length(variant)
        left, full = parameters_left(source.model), full_parameters(source.model)
        before = checkpoint.manifest
        draft.manifest = EngineManifest(
            task=checkpoint.task.name,
            task_definition=checkpoint.task,
            variant=variant.text,
            precision=variant.precision,
            scheme=best.scheme,
            backend=backend,
            device=job.device,
            checkpoint=ArtifactReference(name=checkpoint.name, digest=checkpoint.digest),
            inputs=tuple(
                EngineInput(
                    name=name,
                    dtype="int64",
                    min=(1, 1),
                    opt=(1, longest),
                    max=(best.runtime.max_batch, limit),
                )
                for name in checkpoints.input_names(source.model)
            ),
            structure=before.structure,
            parameters=before.parameters,
            weight_remaining=left / full,  # recomputed: the checkpoint's may include ramps
            parameters_removed=full - left,
            sparsity=before.sparsity,
            model=huggingface.name_of(before.model),
            regime=before.training.regime,
            drop_layers=tuple(reduction.strategy for reduction in before.layer_reductions),
            origin=origin.of(before),
            encoder=_encoder_shape(source),
            max_length=longest,
            data=checkpoint.data,
            # what does not compute in its precision is no engine of that variant, whatever it answers
            parity=replace(
                best.measured,
                passed=best.measured.passed and audit.failure(best.audit, variant.precision, backend) is None,
            ),
            other_heads=best.other_heads,
            audit=best.audit,
            candidates=None if len(tried) == 1 else tuple(candidate.record() for candidate in tried),
            built_for=job.built_for if by_time else None,
            merged_projections=best.merged_projections,
            gate_data=gate_data(checkpoint, source.data_folder),
            calibration_rows=source.calibration_rows,
            expenses=checkpoint.expenses(),
            runtime=best.runtime,
            build_s=round(build_s, 3),
            built_on=BuildHost(
                machine=platform.machine(),
                system=platform.system(),
                cpu_count=os.cpu_count(),
                vnni=cpu.has_vnni(),
                bf16=cpu.has_bf16(),
            ),
            versions={**checkpoints.versions(), **engines.versions(backend), "torch": str(torch.__version__)},
        )
    if backends.get(backend).runs_code and draft.digest is not None:
        built_here.remember(draft.digest)


def _check_other_heads(source: ExportSource, variant: Variant) -> None:
    """Raise :class:`UsageError` where the head of another task cannot be gated in the variant's precision."""
    for other in source.others.values():
        if other.rows is None and variant.precision != "fp32":
            raise UsageError(
                f"{source.checkpoint.name}: the rows of {other.checkpoint.name} are not found, and without "
                f"them its head cannot be checked in {variant.precision}: put them where they were during "
                "training."
            )


def _encoder_shape(source: ExportSource) -> EncoderShape:
    """Return the shape of the unreduced encoder; the size of FFNs has a name in each family."""
    config = source.model.config
    return EncoderShape(
        width=config.hidden_size,
        heads=config.num_attention_heads,
        intermediate=families.of(source.model).neurons(source.model),
    )


@dataclass(frozen=True)
class _Candidate:
    """Files of an engine that were built; they may be used once they are checked."""

    scheme: str
    folder: Path
    built: Built
    merged_projections: bool = False
    audit: Audit | None = None
    """None: not checked yet."""
    parity: Parity | None = None
    """None: not checked yet."""
    failure: str | None = None
    """Why it may not be used; None: it passed its gates, or is not checked yet."""
    other_heads: tuple[HeadRecord, ...] = ()
    """Other tasks of an engine with several heads, each compared with its own checkpoint on its own rows."""
    seconds: float | None = None
    """Seconds per query; None: not timed."""

    @property
    def runtime(self) -> RuntimeSettings:
        return self.built.runtime

    @property
    def measured(self) -> Parity:
        """The comparison with the checkpoint, of a candidate that was checked."""
        assert self.parity is not None
        return self.parity

    @property
    def description(self) -> str:
        """What it is, for messages."""
        merged = " with merged Q, K and V" if self.merged_projections else ""
        disabled = ", ".join(self.runtime.disabled_optimizers)
        shape = self.runtime.static_shape
        fixed = f" compiled for {shape[0]}x{shape[1]}" if shape else ""
        if rows := self.runtime.part_rows:
            fixed += f" in parts of {rows} row{'s' if rows > 1 else ''}"
        return f"{self.scheme}{merged}{f' without {disabled}' if disabled else ''}{fixed}"

    @property
    def score_lost(self) -> float:
        """Of the task's primary metric, on the gate's labelled rows; 0: there are none.

        Of an engine with several heads, the largest of its tasks.
        """
        return max(_score_lost(each) for each in (self.measured, *(head.parity for head in self.other_heads)))

    def beats_nearly_as_fast(self, other: _Candidate) -> bool:
        """Whether it scores better than another engine and takes hardly longer."""
        assert self.seconds is not None and other.seconds is not None
        return self.score_lost < other.score_lost and self.seconds <= _NEARLY_AS_FAST * other.seconds

    def run_with(self, **settings: Any) -> _Candidate:
        """Return the same files, run with other settings of the runtime, and not checked yet."""
        built = replace(self.built, runtime=replace(self.built.runtime, **settings))
        return _Candidate(self.scheme, self.folder, built, self.merged_projections)

    def record(self) -> CandidateRecord:
        """Return the candidate as engine.json has it."""
        return CandidateRecord(
            scheme=self.scheme,
            merged_projections=self.merged_projections,
            disabled_optimizers=self.runtime.disabled_optimizers,
            static_shape=self.runtime.static_shape,
            part_rows=self.runtime.part_rows,
            parity=self.parity,
            failure=self.failure,
            seconds=self.seconds,
        )


def _precision(
    source: ExportSource, job: Job, reference: Reference, folder: Path, context: BuildContext
) -> tuple[Variant, _Candidate, list[_Candidate]]:
    """Return the variant with the precision that is built, its engine, and all candidates.

    For ``auto``, the engine of each precision is built. One is left out if another one that scores better on
    the rows of the gate takes at most :data:`_NEARLY_AS_FAST` times as long; of the others, the fastest is
    kept.
    """
    if job.variant.scheme != AUTO:
        return job.variant, *_best(source, job, reference, folder, context)
    found: list[tuple[Variant, _Candidate]] = []
    tried: dict[str, _Candidate] = {}
    for precision in AUTO_PRECISIONS:
        variant = replace(job.variant, scheme=precision)
        if refusal(variant, job.backend, job.device) or _lacks_rows(source, variant, job):
            continue
        (inside := folder / precision).mkdir()
        best, of_precision = _best(source, replace(job, variant=variant), reference, inside, context)
        found.append((variant, best))
        tried |= {each.description: each for each in of_precision}
    passed = [(variant, best) for variant, best in found if best.failure is None]
    if not passed:  # the last is fp32, where it is built
        return *found[-1], [*tried.values()]
    if len(passed) == 1:
        return *passed[0], [*tried.values()]
    timed = _timed([best for _, best in passed], job, reference, context)
    tried |= {each.description: each for each in timed}
    able = [(variant, best) for (variant, _), best in zip(passed, timed, strict=True)]
    of_all = ", ".join(
        f"{variant.precision} {1e3 * (best.seconds or 0):.3g} ms, {100 * (0.0 - best.score_lost):+.1f} points"
        for variant, best in able
    )
    kept = [each for each in able if not any(other.beats_nearly_as_fast(each[1]) for _, other in able)]
    variant, best = min(kept, key=lambda each: each[1].seconds or 0.0)
    progress.say(f"{job.target.name}: auto is {variant.precision}; compared with the checkpoint: {of_all}")
    return variant, best, [*tried.values()]


def _score_lost(measured: Parity) -> float:
    """Return what is lost of a task's primary metric; parity has it apart where it is not the accuracy."""
    lost = measured.metric_lost if measured.metric_lost is not None else measured.accuracy_lost
    return lost or 0.0


def _lacks_rows(source: ExportSource, variant: Variant, job: Job) -> bool:
    """Whether every scheme of a precision is calibrated on training rows, and there are none; it is said."""
    schemes = backends.get(job.backend).schemes_for(variant.scheme, job.device)
    if not {*schemes} <= CALIBRATED or source.has_training_rows:
        return False
    progress.say(f"{job.target.name}: {variant.scheme} is left out: there are no training rows for it")
    return True


def _best(
    source: ExportSource, job: Job, reference: Reference, folder: Path, context: BuildContext
) -> tuple[_Candidate, list[_Candidate]]:
    """Return the fastest candidate that passes its gates, and all that were built.

    Each scheme of the variant's precision is built and checked. Around the fastest, what the backend may gain
    from is tried: it is checked only where it is faster. If no scheme passes, the first is returned, with
    its failure.
    """
    schemes = [
        _checked(_built(source, job, scheme, folder / scheme), source, job, reference, context)
        for scheme in schemes_of(source, job.variant, job.backend, job.device, job.target.name)
    ]
    passed = [candidate for candidate in schemes if candidate.failure is None]
    if not passed:
        return schemes[0], schemes
    if len(passed) > 1:
        passed = _timed(passed, job, reference, context)
    chosen = min(passed, key=lambda candidate: candidate.seconds or 0.0)
    tried = {candidate.description: candidate for candidate in (*schemes, *passed)}
    others = _alternatives(source, job, chosen, folder)
    if others:
        chosen, *others = _timed([chosen, *others], job, reference, context)
        limit = fastest.WORTH * (chosen.seconds or 0.0)
        tried |= {candidate.description: candidate for candidate in (chosen, *others)}
        for candidate in sorted(others, key=lambda candidate: candidate.seconds or 0.0):
            if (candidate.seconds or 0.0) > limit:
                break
            checked = _checked(candidate, source, job, reference, context)
            tried[checked.description] = checked
            if checked.failure is None:
                chosen = checked
                break
    return chosen, [*tried.values()]


def _alternatives(source: ExportSource, job: Job, best: _Candidate, folder: Path) -> list[_Candidate]:
    """Build what may be faster than a scheme as it is: other graphs, and other settings of the runtime.

    Nothing where the variant names its scheme and no workload is given: a rebuild is then the same bytes.
    """
    row = backends.get(job.backend)
    # of the precisions of ``auto``, each is tried as the engine of int8 is
    scheme = AUTO if parse(job.variant.text).scheme == AUTO else job.variant.scheme
    if job.device != "cpu" or not row.is_chosen_by_time(scheme, job.device, job.built_for):
        return []
    graphs, workload = [best], _workload(job)
    single = workload is not None and workload.batch == 1
    merges = row.merges_projections == "always" or (row.merges_projections == "single-rows" and single)
    if merges and (merged := source.with_merged_projections(job.variant)) is not None:
        built = _built(merged, job, best.scheme, folder / f"{best.scheme}-merged")
        graphs.append(replace(built, merged_projections=True))
    others = graphs[1:]
    if row.disabled_optimizers:
        others += [candidate.run_with(disabled_optimizers=row.disabled_optimizers) for candidate in graphs]
    if row.compiles_static_shapes and (shape := _static_shape(best.runtime, workload)):
        divisions = [None, *_part_rows(shape[0], best.runtime)]
        others += [
            candidate.run_with(static_shape=shape, part_rows=rows)
            for rows in divisions
            for candidate in graphs
        ]
    return others


def _part_rows(batch: int, runtime: RuntimeSettings) -> list[int]:
    """Return the rows of parts that are worth a try: one or two parts for each thread, of equal size.

    A graph with exits decides for a whole batch, so its batches stay undivided.
    """
    threads = runtime.threads or cpu.usable_processors()
    if threads == 1 or runtime.exits is not None:
        return []
    return [batch // parts for parts in (threads, 2 * threads) if batch % parts == 0]


def _static_shape(runtime: RuntimeSettings, workload: Workload | None) -> tuple[int, int] | None:
    """Return the shape that all queries of a workload have; None: there is no such shape, or it is compiled
    anyway.
    """
    if workload is None or isinstance(workload.length, str) or workload.batch > MAX_STATIC_BATCH:
        return None
    if runtime.token_pruning or runtime.is_staged:
        return None
    if runtime.lengths is None:
        return workload.batch, workload.length
    if workload.batch == 1:
        return None
    return workload.batch, next(length for length in runtime.lengths if length >= workload.length)


def _built(source: ExportSource, job: Job, scheme: str, folder: Path) -> _Candidate:
    """Build one scheme."""
    folder.mkdir()
    built = builder(job.backend).build(source, job.variant, scheme, folder, job.device)
    return _Candidate(scheme, folder, replace(built, runtime=replace(built.runtime, device=job.device)))


def _checked(
    candidate: _Candidate, source: ExportSource, job: Job, reference: Reference, context: BuildContext
) -> _Candidate:
    """Audit what was built, and compare it with the checkpoint."""
    module, variant, folder, built = builder(job.backend), job.variant, candidate.folder, candidate.built
    audited = module.audit(folder, built)
    tested = built.stand_in or StandIn(folder, job.backend, built.runtime)
    measured_on = "engine" if built.stand_in is None else f"its graphs on {tested.backend}"
    with engines.open_unchecked(
        tested.folder, tested.backend, tested.runtime, threads=context.threads
    ) as session:

        def compared(reference: Reference, answers: Answers, task: Task) -> Parity:
            measured = parity.measure(
                reference, answers, task, variant.precision, tested.runtime.static_shape
            )
            return replace(measured, measured_on=measured_on)

        measured = compared(reference, session, source.checkpoint.task)
        heads = tuple(
            HeadRecord(
                task_definition=other.checkpoint.task,
                checkpoint=ArtifactReference(name=other.checkpoint.name, digest=other.checkpoint.digest),
                parity=compared(
                    other.reference(variant),
                    shared_encoder.OneHead(session, other.checkpoint.task.name),
                    other.checkpoint.task,
                ),
                gate_data=gate_data(other.checkpoint, None),
            )
            for other in (source.others.values() if variant.multi else ())
        )
    for other in source.others.values() if variant.multi else ():
        other.forget_model()  # its reference is known
    checked = replace(candidate, audit=audited, parity=measured, other_heads=heads)
    return replace(checked, failure=_failure(checked, job, source, reference))


def _timed(
    candidates: Sequence[_Candidate], job: Job, reference: Reference, context: BuildContext
) -> list[_Candidate]:
    """Return the candidates with their seconds per query."""
    files = [Files(candidate.folder, job.backend, candidate.runtime) for candidate in candidates]
    with context.exclusive():
        seconds = fastest.seconds(files, parity.without_longest(reference.encoded), _workload(job))
    return [replace(candidate, seconds=each) for candidate, each in zip(candidates, seconds, strict=True)]


def _workload(job: Job) -> Workload | None:
    """Return the workload that candidates are timed in; None: single rows and batches."""
    return None if job.built_for is None else built_for(job.built_for)


def schemes_of(source: ExportSource, variant: Variant, backend: str, device: str, name: str) -> list[str]:
    """Return the schemes to build: those that this processor can run and that there are rows for.

    Args:
        source: the checkpoint.
        variant: of it.
        backend: the runtime.
        device: the device.
        name: of the engine, for messages.

    Raises:
        UsageError: every scheme is calibrated on training rows, and there are none.
    """
    schemes = backends.get(backend).schemes_for(variant.scheme, device)
    runnable = [scheme for scheme in schemes if scheme != INT8_BF16 or cpu.has_bf16()]
    uncalibrated = [scheme for scheme in runnable if scheme not in CALIBRATED]
    if len(uncalibrated) == len(runnable):
        return runnable
    try:
        _ = source.training_rows
    except UsageError as error:
        if not uncalibrated:
            raise UsageError(f"{name}: {error}", settings=error.settings) from error
        progress.say(f"{name}: only {' and '.join(uncalibrated)} is built: {error}")
        return uncalibrated
    return runnable


def _in_queries(measured: Parity) -> str:
    return " in single queries" if measured.rows_per_query == 1 else ""


def _failure(candidate: _Candidate, job: Job, source: ExportSource, reference: Reference) -> str | None:
    """Return why a candidate may not be used, or None."""
    variant = job.variant
    assert candidate.audit is not None
    if failure := audit.failure(candidate.audit, variant.precision, job.backend):
        return failure
    compared = [("", source.checkpoint.task, candidate.measured, reference)]
    compared += [
        (
            f"task {head.task_definition.name}: ",
            head.task_definition,
            head.parity,
            source.others[head.output].reference(variant),
        )
        for head in candidate.other_heads
    ]
    failed = [each for each in compared if not each[2].passed]
    if not failed:
        return None
    name, task, measured, reference = failed[0]
    message = (
        f"{name}parity failed on {measured.examples} examples{_in_queries(measured)}: logits differ by "
        f"{measured.max_abs_diff:.2g} at most, {measured.agreement}"
    )
    if measured.accuracy_lost is not None and measured.accuracy_lost_interval is not None:
        low, high = measured.accuracy_lost_interval
        message += f", accuracy lost {measured.accuracy_lost:.3f} [{low:.3f}, {high:.3f}]"
    message += _lost(measured)
    message += "."
    row = reference.encoded.batch([0], variant.length)
    names = families.of(source.model).norm_names(source.model)
    location = drift.locate(
        source.graphs(variant), candidate.folder, job.backend, candidate.runtime, row, names
    )
    advice = ""
    if measured.label_agreement < 1 and variant.precision != "fp32":
        advice = "Export fp32."
        if not task.behavior.of_numbers:
            advice = (
                f"Export fp32, or train the model further: rounding to {variant.precision} changes "
                "predictions that the model is not sure of."
            )
    return " ".join(part for part in (message, location, advice) if part)


def _lost(measured: Parity) -> str:
    """Return what an engine loses besides accuracy."""
    text = ""
    if measured.least_cosine is not None:
        text += f", the least cosine of a vector with the checkpoint's is {measured.least_cosine:.4f}"
    if measured.metric_lost is not None and measured.metric_lost_interval is not None:
        low, high = measured.metric_lost_interval
        text += f", {measured.metric} lost {measured.metric_lost:.3f} [{low:.3f}, {high:.3f}]"
    if measured.recall_lost is not None and measured.recall_lost_interval is not None:
        low, high = measured.recall_lost_interval
        text += f", recall of class {measured.worst_class} lost {measured.recall_lost:.3f}"
        text += f" [{low:.3f}, {high:.3f}]"
    if measured.lost_classes:
        text += f", never predicted: {', '.join(measured.lost_classes)}"
    return text
