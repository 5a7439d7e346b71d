"""Build engines: checkpoint -> graphs -> precision -> parity gate and audit -> engines/NAME/.

The fp32 graphs of a checkpoint are traced once and shared by all its variants and backends.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from effx import engines, progress
from effx.artifacts import Checkpoint, Engine
from effx.engines import Session
from effx.errors import EffxError, GateError, MissingExtraError, UsageError, unknown
from effx.export import drift, parity, quantize, variants
from effx.export.builders import builder
from effx.export.parity import Parity, Reference
from effx.export.source import Source
from effx.export.variants import Variant
from effx.models import io, structure
from effx.train import evaluate

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_LEAST_INTEGER_SHARE = 0.9
"""Of the matrix products with weights, in an engine that is called int8."""
_TIMED_ROWS = 64
_TIMED_BATCH = 16


def export(
    checkpoint: str | Path,
    variant: str = "fp32",
    backend: str = "onnxruntime",
    out: str | Path = "engines",
    **options: Any,
) -> Engine:
    """Build one engine; see :func:`export_all` for the options.

    Raises:
        GateError: the engine's answers differ from the checkpoint's by more than the precision
            allows, or it does not compute in that precision.
        UsageError: a name is unknown, the combination cannot be built, or the place cannot be
            written to.
    """
    built, failures = export_all([Path(checkpoint)], [variant], [backend], out, **options)
    if failures:
        raise failures[0]
    return built[0]


def export_all(
    checkpoints: Sequence[Path],
    variant_names: Sequence[str],
    backends: Sequence[str] = ("onnxruntime",),
    out: str | Path = "engines",
    *,
    device: str = "cpu",
    data_folder: str | Path | None = None,
    calibration_rows: int = 128,
    overwrite: bool = False,
    keep_failed: bool = False,
) -> tuple[list[Engine], list[EffxError]]:
    """Build every variant of every checkpoint on every backend; one that fails stops no other.

    Args:
        checkpoints: checkpoint folders, or folders of them.
        variant_names: see :mod:`effx.export.variants`.
        backends: see :mod:`effx.export.builders`.
        out: where engines go, as CHECKPOINT.VARIANT.BACKEND.
        device: what the engines are for; this version builds for ``cpu``.
        data_folder: rows for the gates; default: where the checkpoint's came from.
        calibration_rows: training rows that static int8 takes its ranges from.
        overwrite: build again what is there and up to date.
        keep_failed: keep an engine that failed its gate; its manifest says so.

    Returns:
        The engines, those that were up to date included, and what went wrong with the others.
    """
    wanted = [variants.parse(name) for name in dict.fromkeys(variant_names)]
    for backend in backends:
        builder(backend)
    if device != "cpu":
        raise unknown("device", device, ["cpu"])
    for backend in backends:
        engines.check_backend(backend)
    built: list[Engine] = []
    failures: list[EffxError] = []
    for folder in Checkpoint.find_all([Path(path) for path in checkpoints]):
        try:
            checkpoint = Checkpoint.open(folder)
        except EffxError as error:
            failures.append(error)
            continue
        with tempfile.TemporaryDirectory(prefix="effx-export-") as scratch:
            source = Source(checkpoint, Path(scratch), data_folder, calibration_rows)
            for variant in wanted:
                for backend in backends:
                    target = Path(out) / f"{checkpoint.name}.{variant.text}.{backend}"
                    ready = None if overwrite else _up_to_date(target, checkpoint)
                    if ready:
                        progress.say(f"{target.name}: up to date")
                        built.append(ready)
                        continue
                    try:
                        built.append(_build(source, variant, backend, device, target, keep_failed))
                    except MissingExtraError:
                        raise
                    except EffxError as error:
                        failures.append(error)
    return built, failures


def _up_to_date(target: Path, checkpoint: Checkpoint) -> Engine | None:
    """Return the engine at ``target`` if it was built from this very checkpoint and passed."""
    if not Engine.find(target):
        return None
    try:
        engine = Engine.open(target)
    except EffxError:
        return None
    same = engine.manifest["checkpoint"]["digest"] == checkpoint.digest
    return engine if same and engine.manifest["parity"]["passed"] else None


def _build(
    source: Source, variant: Variant, backend: str, device: str, target: Path, keep_failed: bool
) -> Engine:
    checkpoint, module = source.checkpoint, builder(backend)
    if reason := module.refuse(variant):
        raise UsageError(f"{target.name}: {reason}.")
    variant.check(structure(source.model), source.limit, checkpoint.name)
    reference = reference_of(source, variant)
    started = time.perf_counter()
    with Engine.create(target, overwrite=True) as (folder, manifest):
        with tempfile.TemporaryDirectory(prefix="effx-candidates-", dir=source.scratch) as place:
            best = _best(source, variant, backend, reference, Path(place))
            for path in best.folder.iterdir():
                shutil.move(path, folder / path.name)
        for name in ("config.json", *_TOKENIZER_FILES):
            if (checkpoint.folder / name).is_file():
                shutil.copyfile(checkpoint.folder / name, folder / name)
        if best.failure:
            if not keep_failed:
                raise GateError(f"{target.name}: {best.failure} Not kept; --keep-failed keeps it.")
            progress.say(f"{target.name}: {best.failure}")
        took = time.perf_counter() - started
        progress.say(
            f"{target.name}: {best.scheme}, built in {took:.1f} s; logits differ by "
            f"{best.parity.max_abs_diff:.2g} at most, labels agree on {best.parity.label_agreement:.1%} "
            f"of {best.parity.examples} {best.parity.inputs} inputs"
        )
        limit = variant.length or source.limit
        longest = source.max_length(variant)
        manifest |= {
            "task": checkpoint.task.name,
            "task_definition": checkpoint.task.to_json(),
            "variant": variant.text,
            "precision": variant.precision,
            "scheme": best.scheme,
            "backend": backend,
            "device": device,
            "checkpoint": {"name": checkpoint.name, "digest": checkpoint.digest},
            "inputs": [
                {"name": name, "dtype": "int64", "min": [1, 1], "opt": [1, longest], "max": [None, limit]}
                for name in io.input_names(source.model)
            ],
            "labels": list(checkpoint.task.labels),
            "structure": checkpoint.manifest["structure"],
            "parameters": checkpoint.manifest["parameters"],
            "weight_remaining": checkpoint.manifest["weight_remaining"],
            "parameters_removed": int(checkpoint.manifest.get("full_parameters", 0))
            - int(checkpoint.manifest["parameters"]),
            "model": io.name_of(str(checkpoint.manifest["model"])),
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
                "vnni": quantize.has_vnni(),
                "bf16": quantize.has_bf16(),
            },
            "versions": {**io.versions(), **engines.versions(backend), "torch": torch.__version__},
        }  # fmt: skip
    return Engine.open(target)


def reference_of(source: Source, variant: Variant) -> Reference:
    """Return what the checkpoint says where the variant's engine is asked."""
    encoded, labels, inputs = source.parity_rows(variant)
    if variant.exits is None and not variant.tokens:
        return Reference(encoded, evaluate.logits(source.model, encoded), None, labels, inputs)
    rule = source.rule() if variant.exits else None
    logits, depth, _ = evaluate.reduced(source.model, encoded, rule=rule, prune_tokens=variant.tokens)
    return Reference(encoded, logits, depth if rule else None, labels, inputs, discrete=True)


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


def _best(source: Source, variant: Variant, backend: str, reference: Reference, place: Path) -> _Candidate:
    """Build each scheme of the variant's precision and return the fastest that passes its gates.

    If none passes, the first is returned, with its failure.
    """
    module = builder(backend)
    tried: list[_Candidate] = []
    schemes = module.schemes(variant.scheme)
    for scheme in schemes:
        candidate = _Candidate(scheme, place / scheme)
        candidate.folder.mkdir()
        candidate.session = module.build(source, variant, scheme, candidate.folder)
        candidate.audit = module.audit(candidate.folder, candidate.session)
        with engines.open_unchecked(candidate.folder, backend, candidate.session) as session:
            candidate.parity = parity.measure(reference, session, source.checkpoint.task, variant.precision)
            candidate.failure = _failure(candidate, variant, source, backend, reference)
            if candidate.failure is None and len(schemes) > 1:
                candidate.seconds = _seconds(session, reference)
        tried.append(candidate)
    passed = [candidate for candidate in tried if candidate.failure is None]
    best = min(passed or tried, key=lambda candidate: candidate.seconds)
    if len(tried) > 1:
        best.candidates = [
            {
                "scheme": candidate.scheme,
                "parity": candidate.parity.to_json(),
                "failure": candidate.failure,
                "seconds": None if candidate.failure else candidate.seconds,
            }
            for candidate in tried
        ]
    return best


def _failure(
    candidate: _Candidate, variant: Variant, source: Source, backend: str, reference: Reference
) -> str | None:
    """Return why a candidate may not be kept, or None."""
    audit, found = candidate.audit, candidate.parity
    if variant.precision == "int8":
        integer, products = audit["integer_weight_products"], audit["weight_products"]
        if integer < _LEAST_INTEGER_SHARE * products or not integer:
            return f"audit failed: {integer} of {products} matrix products with weights are int8."
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
    if backend == "onnxruntime" and not variant.exits and not variant.tokens:
        row = reference.encoded.batch([0], variant.length)
        differences = drift.layers(source.graphs(variant)[0], candidate.folder / "model.onnx", row)
        message += " " + drift.said(differences)
    return message


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
