"""Which engines to build: jobs grouped by the graphs that they share, in one process or several."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from effx import engines, files, progress, scratch, signals
from effx.artifacts import Checkpoint, Engine
from effx.errors import EffxError, MissingExtraError, UsageError, one_line
from effx.export.build import BuildContext, Job, build, gate_data, up_to_date
from effx.export.source import ExportSource
from effx.host import cpu, memory
from effx.specs import backends, variants
from effx.specs.backends import Backend
from effx.specs.data import DataLocation

try:
    import fcntl
except ImportError:  # Windows: one process
    fcntl = None  # type: ignore[assignment]

_BYTES_PER_WEIGHT_BYTE = 6
_BYTES_PER_PROCESS = 1_500_000_000
"""A building process needs memory for the model, its graph, a quantized copy and PyTorch."""
_MIN_GROUPS = 3
"""Starting a process takes as long as building a small engine."""


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
        UsageError: a name is unknown, the combination cannot be built, or the output folder cannot be
            written to.
    """
    built, failures = export_all([Path(checkpoint)], [variant], [backend], out, **options)
    if failures:
        raise failures[0]
    return built[0]


def export_all(
    checkpoints: Sequence[Path],
    variant_names: Sequence[str],
    backend_names: Sequence[str] = ("onnxruntime",),
    out: str | Path = "engines",
    *,
    device: str | None = None,
    data_folder: DataLocation = None,
    calibration_rows: int = variants.CALIBRATION_ROWS,
    built_for: str | None = None,
    overwrite: bool = False,
    keep_failed: bool = False,
    jobs: int | None = 1,
) -> tuple[list[Engine], list[EffxError]]:
    """Build every variant of every checkpoint on every backend; failures do not stop the others.

    Args:
        checkpoints: checkpoint folders, or folders of them.
        variant_names: see :mod:`effx.specs.variants`; of several that are built alike, the first is.
        backend_names: see :mod:`effx.specs.backends`.
        out: the folder to write engines to, as CHECKPOINT.VARIANT.BACKEND, with .DEVICE if it is not the
            backend's default.
        device: the device that the engines run on; None: each backend's default.
        data_folder: file or folder of the rows for the gates; default: that of the checkpoint's rows.
        calibration_rows: training rows that static int8 takes its activation ranges from.
        built_for: the workload that the fastest of several candidates is chosen in: ``single``, ``BxL`` or
            ``offline``, see :func:`effx.specs.measurement.built_for`; None: single rows and batches.
        overwrite: build again engines that are up to date.
        keep_failed: keep an engine that failed its gate; its manifest says so.
        jobs: processes that build at the same time; None: as many as processors and memory allow.

    Returns:
        The engines, including those that were up to date, and the errors of the others.

    Raises:
        UsageError: two checkpoints have one name, which names their engines; or a name is unknown.
        MissingExtraError: the package of a backend is not installed.
    """
    parsed = variants.distinct(variant_names)
    targets = [(row.name, row.device(device)) for row in map(_buildable, dict.fromkeys(backend_names))]
    for backend, target_device in targets:
        engines.check_backend(backend, target_device)
    failures: list[EffxError] = []
    ready: dict[Path, Engine] = {}
    order: list[Path] = []
    groups: dict[Any, list[Job]] = {}
    for folder in _distinct(Checkpoint.find_all([Path(path) for path in checkpoints])):
        try:
            checkpoint = Checkpoint.open(folder)
        except EffxError as error:
            failures.append(error)
            continue
        rows = gate_data(checkpoint, data_folder)
        for variant in parsed:
            for backend, target_device in targets:
                default = target_device == backends.get(backend).default_device
                suffix = "" if default else f".{target_device}"
                target = Path(out) / f"{checkpoint.name}.{variant.text}.{backend}{suffix}"
                order.append(target)
                engine = None
                if not overwrite:
                    engine = up_to_date(
                        target, checkpoint, variant, backend, target_device, rows, calibration_rows, built_for
                    )
                if engine:
                    progress.say(f"{target.name}: up to date")
                    ready[target] = engine
                    continue
                key = (folder, variant.length, variant.tokens, variant.exits is not None)
                job = Job(folder, variant, backend, target_device, target, keep_failed, built_for)
                groups.setdefault(key, []).append(job)
    waiting = list(groups.values())
    at_once = min(len(waiting), jobs) if jobs else _affordable(waiting)
    options = (data_folder, calibration_rows)
    run = _several if at_once > 1 and fcntl else _one_by_one
    for target, failure in run(waiting, options, at_once):
        if isinstance(failure, MissingExtraError):
            raise failure
        if failure:
            failures.append(failure)
        else:
            ready[target] = Engine.open(target)
    return [ready[target] for target in order if target in ready], failures


Outcome = tuple[Path, EffxError | None]


def _distinct(folders: Sequence[Path]) -> list[Path]:
    """Return the folders of checkpoints, each once; refuse two of one name, which names their engines."""
    folders = list({folder.resolve(): folder for folder in folders}.values())
    if (pair := files.of_one_name(folders)) is not None:
        raise UsageError(
            f"{pair[0]} and {pair[1]} are two checkpoints of one name, which names their engines: rename a "
            "folder, or write their engines to different folders",
            settings="out",
        )
    return folders


def _buildable(name: str) -> Backend:
    backends.builder_module(name)
    return backends.get(name)


def _one_by_one(groups: list[list[Job]], options: tuple[Any, int], _: int) -> Iterator[Outcome]:
    """Build in this process."""
    for folder, same in itertools.groupby(groups, lambda group: group[0].checkpoint):
        with scratch.folder("export") as temporary, scratch.as_tmpdir(temporary):
            source = ExportSource(Checkpoint.open(folder), temporary, *options)
            for group in same:
                yield from _group(source, group, BuildContext())


def _several(groups: list[list[Job]], options: tuple[Any, int], at_once: int) -> Iterator[Outcome]:
    """Build in several processes, the processors shared out among them."""
    threads = max(1, cpu.usable_processors() // at_once)
    others = set(multiprocessing.active_children())
    progress.say(f"{sum(map(len, groups))} engines in {at_once} processes")
    with (
        scratch.folder("export") as temporary,
        ProcessPoolExecutor(
            at_once, multiprocessing.get_context("spawn"), _begin_process, (threads,)
        ) as pool,
    ):
        with signals.without_ctrl_c():
            futures: list[tuple[list[Job], Future[list[Outcome]]]] = [
                (group, pool.submit(_in_process, group, options, temporary, threads)) for group in groups
            ]
        try:
            for group, future in futures:
                try:
                    with signals.interruptible():
                        wait([future])
                    yield from future.result()
                except BrokenProcessPool:
                    for job in group:
                        reason = "its process died; if memory ran out, build fewer engines at the same time."
                        yield job.target, EffxError(f"{job.target.name}: {reason}", settings="jobs")
        except BaseException:  # interrupted: the pool would wait for running builds
            with signals.shielded():
                ours = set(multiprocessing.active_children()) - others
                for process in ours:
                    process.terminate()
                for process in ours:
                    process.join()
                for parent in {job.target.parent for job in itertools.chain(*groups)}:
                    files.remove_leftovers(parent)
            raise


def _begin_process(threads: int) -> None:
    """Prepare a building process: it ends when its parent does, also if that is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)


def _in_process(group: list[Job], options: tuple[Any, int], temporary: Path, threads: int) -> list[Outcome]:
    """Build a group in a separate process; it holds a shared lock while it computes."""
    with open(temporary / "computing", "a") as lock:

        @contextlib.contextmanager
        def exclusive() -> Iterator[None]:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(lock, fcntl.LOCK_SH)

        fcntl.flock(lock, fcntl.LOCK_SH)
        folder = Path(tempfile.mkdtemp(dir=temporary))
        with scratch.as_tmpdir(folder):
            source = ExportSource(Checkpoint.open(group[0].checkpoint), folder, *options)
            return list(_group(source, group, BuildContext(threads, exclusive)))


def _group(source: ExportSource, group: list[Job], context: BuildContext) -> Iterator[Outcome]:
    for job in group:
        signals.check()
        try:
            build(source, job, context)
            yield job.target, None
        except EffxError as error:
            yield job.target, error
        except OSError as error:
            yield job.target, files.cannot_write(files.culprit(error, source.scratch), error)
        except Exception as error:  # runtimes raise many kinds; the other engines are built anyway
            if os.environ.get("EFFX_DEBUG"):
                raise
            reason = f"{type(error).__name__}: {one_line(error)}"
            yield (
                job.target,
                EffxError(
                    f"{job.target.name}: building failed ({reason}). Set EFFX_DEBUG=1 for the traceback."
                ),
            )


def _affordable(groups: list[list[Job]]) -> int:
    """Return how many groups can be built at the same time, by processors and free memory."""
    if len(groups) < _MIN_GROUPS:
        return 1
    weights = max((group[0].checkpoint / "model.safetensors").stat().st_size for group in groups)
    need = _BYTES_PER_PROCESS + _BYTES_PER_WEIGHT_BYTE * weights
    return max(1, min(len(groups), cpu.usable_processors(), memory.available_memory_bytes() // need))
