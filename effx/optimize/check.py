"""What ``effx optimize`` checks before anything is built."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effx import data, engines, meters, progress
from effx.analysis import optimized
from effx.artifacts import Checkpoint
from effx.encoding import Encoder
from effx.errors import MissingExtraError, UsageError
from effx.export.build import refusal
from effx.optimize import choosing, predicted_labels
from effx.optimize.forms import EngineForm
from effx.specs import backends, exit_rules, variants
from effx.specs.data import DataLocation, DataSource
from effx.specs.exits import EarlyExitSettings
from effx.specs.measurement import BuiltFor
from effx.specs.optimize import (
    ALSO_PARTS,
    EXITS,
    LEAST_RECOVERY_S,
    RECOVERY_SHARE,
    TOKENS,
    OptimizeSettings,
)
from effx.specs.tasks import Task
from effx.stats import noninferiority
from effx.stats.metrics import METRICS
from effx.train.source import check_trainable

_LEAST_EFFECTIVE = 0.95
"""Of the rows; repeated texts that cost less are not remarked."""
_OF_TIME = ("latency", "cpu_time", "energy")
"""Objectives that follow from the time of single rows."""
_STEP, _LENGTHS = 8, 16
"""Tokens between the lengths of an engine with fixed ones at least, and how many there are at most."""
_LENGTHS_OF = 1000
"""Rows whose lengths are looked at."""
_USUAL = ("onnxruntime", "openvino")
_USUAL_ON_GPU = ("tensorrt", "onnxruntime", "torch")
"""Backends that are tried if none is named: all of them on the CPU, the first that works on a GPU."""


@dataclass(frozen=True)
class Checked:
    """What is optimized."""

    checkpoint: Path
    task: Task
    rows: DataSource | None
    """Where they are; None: the hub, or the demo corpus."""
    backends: tuple[str, ...]
    forms: tuple[EngineForm, ...]
    """In which the unreduced model is built, besides fp32."""
    typical_length: int
    """Tokens of the mean row."""
    device: str | None
    """That engines are built for; None: the default one of their backends."""
    by_agreement: bool
    """Whether the labels are the checkpoint's own predictions, as the rows have none."""
    training_share: float | None
    """Share of the training rows that pruned models are trained on; None: all."""
    choosing_rows: int
    """Training rows that choose which engines are tested."""
    also_trained: tuple[str, ...]
    """``exits`` and ``tokens``, whichever are trained on every model."""
    overlap: int
    """Validation rows whose texts are also those of training rows."""
    different_texts: int | None
    """Of the validation rows, where many are repeated; None: few are."""


def check(
    checkpoint: Path,
    settings: OptimizeSettings,
    workload: BuiltFor,
    data_folder: DataLocation,
    wanted: Sequence[str],
    meter: str,
    labelled: Path,
    *,
    device: str | None = None,
) -> Checked:
    """Check everything that can be known before the work.

    Args:
        checkpoint: a folder.
        settings: what is looked for.
        workload: that engines are built and measured for.
        data_folder: file or folder of the rows; None: where the checkpoint's came from.
        wanted: backends; empty: those that are installed.
        meter: energy meter.
        labelled: folder for rows with predicted labels, where they have none.
        device: ``cpu`` or ``cuda``; None: the default of the backends.

    Raises:
        UsageError: the checkpoint is reduced already, a setting does not fit, or too few rows prove anything.
        ArtifactError: it is damaged.
        DataError: the rows do not fit the task.
    """
    opened = Checkpoint.open(checkpoint)
    task = opened.task
    check_trainable(task)
    _check_unreduced(opened)
    variant = variants.parse(settings.variant)
    if variant.reductions or variant.multi or variant.scheme == variants.AUTO:
        raise UsageError(
            f"variant {settings.variant}: expected a precision, e.g. int8: the reductions are searched for.",
            settings="variant",
        )
    able = _backends(variant, wanted, device)
    also_trained = _also_trained(opened, settings, workload)
    _check_parts(opened, settings, also_trained, able, device)
    forms = tuple(
        _form_of_lengths(opened, settings, workload, name, device, also_trained)
        or EngineForm(variant=settings.variant, backend=name)
        for name in able
    )
    if settings.recovery_s is not None and settings.recovery_s < LEAST_RECOVERY_S:
        count = len(settings.speedups)
        least = LEAST_RECOVERY_S * count / RECOVERY_SHARE
        raise UsageError(
            f"{settings.time_s:g} s is too short for {count} speed-ups: expected at least {least:.0f}s; with "
            f"one speed-up {least / count:.0f}s.",
            settings="time_s",
        )
    if settings.objective == "energy":
        found = meters.open(meter, backends.get(able[0]).device_here(device))
        try:
            if found.source == "none":
                raise UsageError(
                    "objective energy: there is no energy meter here; name one, e.g. model:5 for an estimate "
                    "of 5 W per busy core",
                    settings=("objective", "meter"),
                )
        finally:
            found.close()
    location = data.locate(data_folder, task, opened.data)
    by_agreement = location is not None and location.settings.unlabelled
    if location is not None and by_agreement:
        location = predicted_labels.label(opened, location, labelled, settings.seed)
    train, validation = (data.load(task, split, location) for split in ("train", "validation"))
    training_rows = len(train)
    _check_rows(len(validation), task, settings)
    known = {*train.texts}
    overlap = sum(text in known for text in validation.texts)
    different_texts = _different_texts(validation.texts)
    for remark in optimized.rows_remarks(len(validation), overlap, different_texts):
        progress.say(f"{task.name}: {remark}")
    share, choosing_rows = choosing.share(
        training_rows, settings.limit, settings.choosing_rows, calibrated=bool(also_trained)
    )
    if all(backends.get(name).default_device == device for name in able):
        device = None
    return Checked(
        checkpoint, task, location, able, forms,
        _typical_length(opened, validation.texts), device, by_agreement, share, choosing_rows, also_trained,
        overlap, different_texts,
    )  # fmt: skip


def _also_trained(opened: Checkpoint, settings: OptimizeSettings, workload: BuiltFor) -> tuple[str, ...]:
    """Return what is trained on every model besides: exits, a token schedule.

    Raises:
        UsageError: it is asked for, and the task or the model cannot have it.
    """
    if settings.also is not None:
        wanted = tuple(word for word in (EXITS, TOKENS) if word in settings.also)
        for word in wanted:
            _check_trained(opened, word)
        return wanted
    if workload != "single" or settings.objective not in _OF_TIME:
        return ()
    try:
        _check_trained(opened, EXITS)
    except UsageError:
        return ()
    return (EXITS,)


def _check_parts(
    opened: Checkpoint, settings: OptimizeSettings, also_trained: Sequence[str], able: Sequence[str],
    device: str | None,
) -> None:  # fmt: skip
    """Raise :class:`UsageError` if a backend or the model cannot be built with what is also tried."""
    for part in (*settings.parts, *(ALSO_PARTS[word] for word in also_trained)):
        both = variants.parse(f"{part}+{settings.variant}")
        for name in able:
            if reason := refusal(both, name, backends.get(name).device(device)):
                raise UsageError(f"{part} on {name}: {reason}.", settings=("also", "backends"))
        if part in settings.parts:
            windows = opened.task.behavior.form == "windows"
            both.check(opened.manifest.structure, opened.max_length, opened.name,
                       window=opened.max_length if windows else None)  # fmt: skip


def _form_of_lengths(
    opened: Checkpoint, settings: OptimizeSettings, workload: BuiltFor, backend: str, device: str | None,
    also_trained: Sequence[str],
) -> EngineForm | None:  # fmt: skip
    """Return the form with models of fixed lengths, for backends that run single rows faster in it, or None.

    None also if time is not what counts, as each length takes memory, if the length is fixed already, or if
    not all can be built in it that is tried on every model.
    """
    row = backends.get(backend)
    if workload != "single" or settings.objective not in _OF_TIME:
        return None
    if row.device(device) != "cpu" or not row.compiles_static_shapes:
        return None
    step = max(_STEP, _STEP * -(-opened.max_length // (_STEP * _LENGTHS)))
    form = EngineForm(variant=f"buckets{step}+{settings.variant}", backend=backend)
    parts = [*settings.parts, *(ALSO_PARTS[word] for word in also_trained)]
    try:
        built = [
            variants.parse(text) for text in (form.variant, *(f"{part}+{form.variant}" for part in parts))
        ]
    except UsageError:  # parts that exclude each other
        return None
    return None if any(refusal(each, backend, "cpu") for each in built) else form


def _typical_length(opened: Checkpoint, texts: Sequence[tuple[str, ...]]) -> int:
    """Return the mean number of tokens of a sequence, rounded up, of a sample of rows."""
    chosen = np.random.default_rng(0).permutation(len(texts))[:_LENGTHS_OF]
    encoder = Encoder(opened.folder, opened.max_length, form=opened.task.behavior.form)
    return math.ceil(float(encoder([texts[row] for row in chosen]).lengths.mean()))


def _check_trained(opened: Checkpoint, word: str) -> None:
    opened.task.behavior.check_supported(word, opened.task.name)
    if word == EXITS:
        exit_rules.check_task(EarlyExitSettings().rule, opened.task)
        if len(opened.manifest.structure.layers) < 2:
            raise UsageError(f"{opened.name} has one layer: an exit needs at least two.", settings="also")


def _check_unreduced(opened: Checkpoint) -> None:
    structure = opened.manifest.structure
    shapes = {(len(layer.heads), layer.intermediate) for layer in structure.layers}
    sparsity = opened.manifest.sparsity
    sparse = sparsity is not None and not sparsity.is_dense
    reduced = len(shapes) != 1 or 0 in next(iter(shapes)) or sparse
    if reduced or structure.exits or structure.prunes_tokens:
        raise UsageError(
            f"{opened.name} is reduced already: expected a fine-tuned model with all its heads and neurons.",
            settings="checkpoint",
        )


def _backends(variant: variants.Variant, wanted: Sequence[str], device_name: str | None) -> tuple[str, ...]:
    """Return the backends that can build and run a variant here.

    On a GPU a precision is one scheme, so that no engine is timed when it is built, and nothing says which of
    several backends is the fastest.

    Raises:
        UsageError: a named one cannot, or none can; or several are named for a GPU.
        MissingExtraError: a named one is not installed.
        DeviceError: there is no usable GPU.
    """
    named = tuple(dict.fromkeys(wanted))
    if len(named) > 1 and "cuda" in [backends.get(name).device_here(device_name) for name in named]:
        raise UsageError(f"{', '.join(named)}: on a GPU one backend is optimized for; name one.",
                         settings="backends")  # fmt: skip
    able: list[str] = []
    reasons = []
    for name in named or (_USUAL_ON_GPU if device_name == "cuda" else _USUAL):
        device = backends.get(name).device_here(device_name)
        try:
            engines.check_backend(name, device)
        except MissingExtraError as error:
            if wanted:
                raise
            reasons.append(str(error))
            continue
        if reason := refusal(variant, name, device):
            reasons.append(f"{name}: {reason}")
            continue
        able.append(name)
        if device_name == "cuda":
            break
    if not able or (wanted and reasons):
        raise UsageError(f"variant {variant.text}: {'; '.join(reasons)}.", settings=("variant", "backends"))
    return tuple(able)


def _different_texts(texts: Sequence[tuple[str, ...]]) -> int | None:
    """Return how many texts differ, if rows are repeated so often that they prove clearly less; else None.

    Rows of which all of a text were drawn together count as n^2 / sum of squared counts (Kish 1965, "Survey
    Sampling", section 5.4), where a text has the same answer in all its rows.
    """
    counts = Counter(texts).values()
    effective = len(texts) ** 2 / sum(count**2 for count in counts)
    return len(counts) if effective < _LEAST_EFFECTIVE * len(texts) else None


def _check_rows(rows: int, task: Task, settings: OptimizeSettings) -> None:
    """Refuse a promise that not even equal predictions on all rows would keep.

    Only of metrics that are the share of correct rows is that number known before.
    """
    if not METRICS[task.metric].is_share:
        return
    needed = noninferiority.rows_needed(settings.max_drop, settings.confidence)
    if rows >= needed:
        return
    drop = settings.max_drop
    while noninferiority.rows_needed(drop, settings.confidence) > rows and drop < 1:
        drop = round(drop + 0.001, 3)
    raise UsageError(
        f"{rows} validation rows are too few for this promise: even equal predictions prove a loss of at "
        f"most {settings.max_drop:g} only on {needed}. Give more rows, or accept a loss of {drop:g}.",
        settings="max_drop",
    )
