"""Build one engine: checkpoint -> graphs -> precision -> parity gate and audit -> engines/NAME/."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from effx import engines, progress
from effx.artifacts import Checkpoint, Engine
from effx.engines import Session
from effx.errors import EffxError, GateError, UsageError
from effx.export import audit, drift, parity
from effx.export.builders import builder
from effx.export.parity import Parity, Reference
from effx.export.source import Source
from effx.host import cpu
from effx.models import checkpoints, families, structure
from effx.models.structure import full_parameters, parameters_left
from effx.specs import backends
from effx.specs.backends import INT8_BF16
from effx.specs.variants import Variant

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_TIMED_ROWS = 64
_TIMED_BATCH = 16


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


@dataclass(frozen=True)
class Surroundings:
    """What a builder may use of the machine."""

    threads: int | None = None
    """Compute threads; None: all processors that this process may use."""
    alone: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    """Within it no other job computes: candidates are timed there."""


def up_to_date(target: Path, checkpoint: Checkpoint) -> Engine | None:
    """Return the engine at ``target`` if it was built from this very checkpoint and passed."""
    if not Engine.find(target):
        return None
    try:
        engine = Engine.open(target)
    except EffxError:
        return None
    same = engine.manifest["checkpoint"]["digest"] == checkpoint.digest
    return engine if same and engine.manifest["parity"]["passed"] else None


def refusal(variant: Variant, backend: str, device: str) -> str | None:
    """Return why a backend cannot have a variant, whatever the checkpoint."""
    row = backends.get(backend)
    if reason := row.refusal(variant.scheme, device):
        return reason
    if variant.stripped and not row.strips_weights:
        return "only a TensorRT plan can be without its weights; elsewhere they are the graph's"
    if variant.precision == "bf16" and device == "cpu" and not cpu.has_bf16():
        return "this processor has no bf16 arithmetic"
    return builder(backend).refuse(variant, device)


def build(source: Source, job: Job, where: Surroundings) -> None:
    """Build an engine, try it against its checkpoint, keep it at the job's target.

    Raises:
        GateError: its answers differ from the checkpoint's by more than the precision allows, or it
            does not compute in that precision.
        UsageError: the variant cannot be built, or the place cannot be written to.
    """
    checkpoint, variant, backend, target = source.checkpoint, job.variant, job.backend, job.target
    if reason := refusal(variant, backend, job.device):
        raise UsageError(f"{target.name}: {reason}.")
    variant.check(structure(source.model), source.limit, checkpoint.name)
    if variant.exits and variant.tokens and families.family(source.model).position_bias:
        raise UsageError(
            f"variant '{variant.text}': {checkpoint.name} looks at how far apart tokens are, which segments "
            "cannot tell once some are gone: use exits or tokens."
        )
    reference = source.reference(variant)
    started = time.perf_counter()
    with Engine.create(target, overwrite=True) as (folder, manifest):
        with tempfile.TemporaryDirectory(prefix="effx-candidates-", dir=source.scratch) as place:
            best = _best(source, job, reference, Path(place), where)
            for path in best.folder.iterdir():
                shutil.move(path, folder / path.name)
        for name in ("config.json", *_TOKENIZER_FILES):
            if (checkpoint.folder / name).is_file():
                shutil.copyfile(checkpoint.folder / name, folder / name)
        if best.failure:
            if not job.keep_failed:
                raise GateError(f"{target.name}: {best.failure} Not kept; --keep-failed keeps it.")
            progress.say(f"{target.name}: {best.failure}")
        took = time.perf_counter() - started
        progress.say(
            f"{target.name}: {best.scheme}, built in {took:.1f} s; logits differ by "
            f"{best.parity.max_abs_diff:.2g} at most, labels agree on {best.parity.label_agreement:.1%} "
            f"of {best.parity.examples} {best.parity.inputs} inputs"
        )
        if partly := audit.partly(best.audit, variant.precision):
            progress.say(f"{target.name}: {partly}")
        limit = variant.length or source.limit
        longest = source.max_length(variant)
        left, full = parameters_left(source.model), full_parameters(source.model)
        manifest |= {
            "task": checkpoint.task.name,
            "task_definition": checkpoint.task.to_json(),
            "variant": variant.text,
            "precision": variant.precision,
            "scheme": best.scheme,
            "backend": backend,
            "device": job.device,
            "checkpoint": {"name": checkpoint.name, "digest": checkpoint.digest},
            "inputs": [
                {"name": name, "dtype": "int64", "min": [1, 1], "opt": [1, longest],
                 "max": [best.session.get("largest_batch"), limit]}
                for name in checkpoints.input_names(source.model)
            ],
            "labels": list(checkpoint.task.labels),
            "structure": checkpoint.manifest["structure"],
            "parameters": checkpoint.manifest["parameters"],
            "weight_remaining": left / full,  # counted anew: old checkpoints' has ramps in it
            "parameters_removed": full - left,
            "sparsity": checkpoint.manifest.get("sparsity"),
            "model": checkpoints.name_of(str(checkpoint.manifest["model"])),
            "regime": checkpoint.manifest["training"].get("regime"),
            "max_length": longest,
            "data": checkpoint.data,
            "parity": best.parity.to_json(),
            "audit": best.audit,
            "candidates": best.candidates,
            "session": best.session,
            "exits": None if best.session["exits"] is None else {
                **best.session["exits"], "segments": len(best.session["files"]),
            },
            "build_s": round(took, 3),
            "built_on": {
                "machine": platform.machine(),
                "system": platform.system(),
                "cpu_count": os.cpu_count(),
                "vnni": cpu.has_vnni(),
                "bf16": cpu.has_bf16(),
            },
            "versions": {**checkpoints.versions(), **engines.versions(backend), "torch": torch.__version__},
        }  # fmt: skip


class _Candidate:
    """One scheme, built and tried."""

    def __init__(self, scheme: str, folder: Path) -> None:
        self.scheme, self.folder = scheme, folder
        self.session: dict[str, Any] = {}
        self.audit: dict[str, Any] = {}
        self.parity: Parity
        self.failure: str | None = None
        self.seconds = float("inf")
        self.candidates: list[dict[str, Any]] | None = None


def _best(source: Source, job: Job, reference: Reference, place: Path, where: Surroundings) -> _Candidate:
    """Build each scheme of the variant's precision and return the fastest that passes its gates.

    If none passes, the first is returned, with its failure.
    """
    module, variant = builder(job.backend), job.variant
    tried: list[_Candidate] = []
    for scheme in _schemes(variant, job):
        candidate = _Candidate(scheme, place / scheme)
        candidate.folder.mkdir()
        made = module.build(source, variant, scheme, candidate.folder, job.device)
        candidate.session = {**made, "device": job.device}
        candidate.audit = module.audit(candidate.folder, candidate.session)
        stand_in = candidate.session.pop("stand_in", None)
        candidate.session.pop("network", None)
        folder, backend, settings = stand_in or (candidate.folder, job.backend, candidate.session)
        with engines.open_unchecked(folder, backend, settings, threads=where.threads) as session:
            found = parity.measure(reference, session, source.checkpoint.task, variant.precision)
        candidate.parity = replace(found, measured_on=f"its graphs on {backend}" if stand_in else "engine")
        candidate.failure = _failure(candidate, job, source, reference)
        tried.append(candidate)
    passed = [candidate for candidate in tried if candidate.failure is None]
    if len(passed) > 1:
        with where.alone():
            for candidate in passed:
                with engines.open_unchecked(candidate.folder, job.backend, candidate.session) as session:
                    candidate.seconds = _seconds(session, reference)
    best = min(passed or tried, key=lambda candidate: candidate.seconds)
    if len(tried) > 1:
        best.candidates = [
            {
                "scheme": candidate.scheme,
                "parity": candidate.parity.to_json(),
                "failure": candidate.failure,
                "seconds": candidate.seconds if np.isfinite(candidate.seconds) else None,
            }
            for candidate in tried
        ]
    return best


def _schemes(variant: Variant, job: Job) -> list[str]:
    """Return the schemes to build, without those that this processor cannot run."""
    schemes = backends.get(job.backend).schemes_for(variant.scheme, job.device)
    return [scheme for scheme in schemes if scheme != INT8_BF16 or cpu.has_bf16()]


def _failure(candidate: _Candidate, job: Job, source: Source, reference: Reference) -> str | None:
    """Return why a candidate may not be kept, or None."""
    found, variant = candidate.parity, job.variant
    if failure := audit.failure(candidate.audit, variant.precision, job.backend):
        return failure
    if found.passed:
        return None
    message = (
        f"parity failed on {found.examples} examples: logits differ by {found.max_abs_diff:.2g} at most, "
        f"labels agree on {found.label_agreement:.1%}"
    )
    if found.accuracy_lost is not None and found.accuracy_lost_interval is not None:
        low, high = found.accuracy_lost_interval
        message += f", accuracy lost {found.accuracy_lost:.3f} [{low:.3f}, {high:.3f}]"
    message += "."
    row = reference.encoded.batch([0], variant.length)
    where = drift.told(source.graphs(variant), candidate.folder, job.backend, candidate.session, row)
    return f"{message} {where}".rstrip()


def _seconds(session: Session, reference: Reference) -> float:
    """Return seconds for single rows and for a batch, as one geometric mean: speed as users meet it."""
    encoded = reference.encoded
    drawn = np.random.default_rng(0).permutation(len(encoded))[:_TIMED_ROWS]
    single = [encoded.batch([int(row)]) for row in drawn]
    batch = [encoded.batch(drawn[:_TIMED_BATCH])] * 4
    means = []
    for queries in (single, batch):
        session.infer(queries[0])
        started = time.perf_counter()
        for query in queries:
            session.infer(query)
        means.append((time.perf_counter() - started) / len(queries))
    return float(np.sqrt(np.prod(means)))
