"""Profile engines in one session: interleaved blocks, so that their numbers can be compared.

If a worker fails, only its engine has no result, and the failure is recorded. If the session is interrupted,
its journal has what was measured, and :func:`resume` measures the rest. Engines that run on a
GPU are metered by the GPU's meter, the others by the processor's.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from effx import data, files, meters, progress
from effx.artifacts import Engine
from effx.data import Rows, UnlabelledRows
from effx.errors import ArtifactError, DataError, EffxError, UsageError
from effx.host import gpus, identity, locks
from effx.meters import Meter
from effx.profile import journal as journals
from effx.profile.engine_under_test import EngineUnderTest, accepts, longest_input
from effx.profile.journal import Journal, JournaledEngine, SessionHeader
from effx.profile.pool import WorkerPool, affordable
from effx.profile.reference import references
from effx.profile.session import InterleavedSession
from effx.results import Run
from effx.specs.data import DataLocation, DataSource
from effx.specs.measurement import DEFAULT_GRID, GPU_GRID, MeasurementPlan
from effx.specs.tasks import Task


def profile(
    engines: Sequence[str | Path],
    *,
    out: str | Path = "results",
    plan: MeasurementPlan | None = None,
    meter: str = "auto",
    data_folder: DataLocation = None,
    host: str | None = None,
    reference: str | None = None,
    wait: bool = True,
    journal: Path | None = None,
) -> tuple[list[Run], list[EffxError]]:
    """Profile engines and write one result each.

    Args:
        engines: engine folders, or folders of them.
        out: folder of the results, one ID.json each; those of engines that failed say why.
        plan: what is measured.
        meter: see :func:`effx.meters.open`.
        data_folder: file or folder of validation rows; default: where the checkpoint's came from.
        host: a name for this machine; default: the host name.
        reference: name or folder of the engine that the others are compared with on rows without labels;
            it is measured too. Default: the unreduced fp32 engine.
        wait: while another process measures on this host; False: raise.
        journal: file of what was measured so far; a session that it has is resumed if nothing has changed.
            Default: a new file in ``out/unfinished``.

    Returns:
        The runs, and the errors of the engines that have none.

    Raises:
        UsageError, ArtifactError, DataError: nothing can be measured with these arguments, such as a meter
            that does not read the device of every engine.
    """
    request = _Request(plan or MeasurementPlan(), meter, DataSource.of(data_folder), host, reference)
    files.check_writable(Path(out))
    with locks.on_this_host(alone=True, wait=wait, waiting=progress.say):
        folders = Engine.find_all([Path(path) for path in engines])
        if reference is not None and Engine.is_at(reference):
            folders = list({folder.resolve(): folder for folder in (*folders, Path(reference))}.values())
        return _measure(folders, request, Path(out), journal, None)


def resume(
    session: str, *, out: str | Path = "results", trust: bool = False, wait: bool = True
) -> tuple[list[Run], list[EffxError]]:
    """Measure what is left of a session that was interrupted, on the same host with the same engines.

    Rounds that all engines had completed are kept; a round that was cut short is measured again. The results
    record the gap.

    Args:
        session: its id.
        out: folder of the results.
        trust: see :class:`effx.specs.measurement.MeasurementPlan`.
        wait: see :func:`profile`.

    Raises:
        UsageError: there is no such session, or engines, rows, meters, host or software have changed.
        ArtifactError: its journal or an engine is damaged.
    """
    path = Path(out) / journals.FOLDER / f"{session}.jsonl"
    if not path.is_file():
        known = sorted(journal.stem for journal in path.parent.glob("*.jsonl"))
        interrupted = ", ".join(known) or "none"
        raise UsageError(
            f"{session} is not an interrupted session in {out}. Interrupted sessions: {interrupted}.",
            settings="session",
        )
    files.check_writable(Path(out))
    with locks.on_this_host(alone=True, wait=wait, waiting=progress.say):
        earlier = journals.read(path)
        header = earlier.header
        data_source = None if header.data is None else DataSource.from_json(header.data)
        plan = header.plan.replace(trust=trust)
        request = _Request(plan, header.meter, data_source, header.host.name, header.reference)
        folders = [Path(engine.folder) for engine in header.engines]
        return _measure(folders, request, Path(out), path, earlier)


@dataclass(frozen=True)
class _Request:
    """What to measure the engines with."""

    plan: MeasurementPlan
    meter: str
    data: DataSource | None
    host: str | None
    reference: str | None


def _measure(
    folders: Sequence[Path], request: _Request, out: Path, path: Path | None, resumed: Journal | None
) -> tuple[list[Run], list[EffxError]]:
    """Open engines and meters, and run the session.

    Args:
        folders: of the engines.
        request: what to measure them with.
        out: folder of the results.
        path: the journal; None: a new one.
        resumed: the journal of the session to resume, which must fit.
    """
    prepared, refused = _prepare(folders, request.data, request.plan.limit)
    if refused and resumed is not None:
        raise refused[0][1]
    opened = [engine for engine, _ in prepared]
    plan = _with_grid(request.plan, opened)
    under_test = [EngineUnderTest(engine, rows, plan) for engine, rows in prepared]
    compared_with = references(under_test, request.reference)
    pool = WorkerPool(plan.resident or affordable(opened))
    by_device: dict[bool, Meter] = {}

    def our_pids() -> set[int]:
        return pool.pids | {os.getpid()}

    try:
        for engine in opened:
            if engine.on_gpu not in by_device:
                device = "cuda" if engine.on_gpu else "cpu"
                by_device[engine.on_gpu] = meters.open(request.meter, device, worker_pids=our_pids)
        for reason in dict.fromkeys(each.reason for each in by_device.values() if each.reason):
            progress.say(f"energy unavailable: {reason}")
        header = SessionHeader(
            session=secrets.token_hex(4),
            host=identity.host(request.host),
            plan=plan,
            meter=request.meter,
            meters=[by_device[on_gpu].name for on_gpu in sorted(by_device)],
            data=None if request.data is None else request.data.absolute().to_json(),
            engines=[
                JournaledEngine(str(engine.folder.resolve()), engine.digest, _rows_digest(rows))
                for engine, rows in prepared
            ],
            reference=request.reference,
            gpu=gpus.visible_uuid(os.environ) if any(engine.on_gpu for engine in opened) else None,
            metered=[_uuid(by_device[on_gpu]) for on_gpu in sorted(by_device)],
        )
        journal = _journal(header, out, path, resumed)
        session = InterleavedSession(under_test, compared_with, pool, by_device, out, journal)
        for folder, error in refused:
            session.refuse(folder, error)
        return session.run()
    finally:
        pool.close()
        for opened_meter in by_device.values():
            opened_meter.close()


def _uuid(meter: Meter) -> str | None:
    """Return the UUID of the GPU that a meter reads; None: it reads none, or does not say which."""
    uuid = meter.describe().get("uuid")
    return None if uuid is None else str(uuid)


def _journal(header: SessionHeader, out: Path, path: Path | None, resumed: Journal | None) -> Journal:
    """Return the journal to go on with, or a new one.

    Raises:
        UsageError: something has changed since the session that is to be resumed.
    """
    if resumed is not None:
        if differing := resumed.header.differences(header):
            raise UsageError(
                f"session {resumed.header.session} cannot be resumed, because this has changed: "
                f"{', '.join(differing)}. Measure the engines again."
            )
        return resumed
    if path is None:
        path = out / journals.FOLDER / f"{header.session}.jsonl"
        digests = [engine.digest for engine in header.engines]
        for other in sorted(path.parent.glob("*.jsonl")):
            with contextlib.suppress(ArtifactError):
                if [engine.digest for engine in journals.read(other).header.engines] == digests:
                    progress.say(f"session {other.stem} of these engines was interrupted and can be resumed")
    elif path.is_file():
        with contextlib.suppress(ArtifactError):
            earlier = journals.read(path)
            if not earlier.header.differences(header):
                return earlier
    return Journal(path, header)


def _check_names(folders: Sequence[Path]) -> None:
    """Refuse engines of one name: results are told apart by the names of their engines."""
    if (pair := files.of_one_name(folders)) is not None:
        raise UsageError(
            f"{pair[0]} and {pair[1]} are two engines of one name, which names their results: rename one of "
            "the folders"
        )


def _prepare(
    folders: Sequence[Path], data_folder: DataLocation, limit: int | None
) -> tuple[list[tuple[Engine, Rows | UnlabelledRows]], list[tuple[Path, EffxError]]]:
    """Return the engines that open and have rows, and why others do not.

    Raises:
        EffxError: none does; the error of the first.
    """
    _check_names(folders)
    loaded: dict[tuple[Task, DataSource | None], Rows | UnlabelledRows] = {}
    prepared: list[tuple[Engine, Rows | UnlabelledRows]] = []
    refused: list[tuple[Path, EffxError]] = []
    for folder in folders:
        try:
            engine = Engine.open(folder)
            prepared.append((engine, _rows(engine, data_folder, limit, loaded)))
        except EffxError as error:
            refused.append((folder, error))
    if not prepared:
        raise refused[0][1]
    return prepared, refused


def _with_grid(plan: MeasurementPlan, opened: Sequence[Engine]) -> MeasurementPlan:
    """Return the plan with a grid: the default one as far as engines accept it, or the given one, checked.

    Raises:
        UsageError: no engine can run a cell; an engine that accepts less than others leaves cells out.
    """
    if plan.grid is None:
        usual = GPU_GRID if all(engine.on_gpu for engine in opened) else DEFAULT_GRID
        fitting = tuple(shape for shape in usual if any(accepts(engine, *shape) for engine in opened))
        return plan.replace(grid=fitting)
    longest = max(longest_input(engine) for engine in opened)
    for batch, length in plan.grid:
        if length > longest:
            raise UsageError(
                f"grid {batch}x{length}: these engines accept at most {longest} tokens.", settings="grid"
            )
    return plan


def _rows(
    engine: Engine,
    data_folder: DataLocation,
    limit: int | None,
    loaded: dict[tuple[Task, DataSource | None], Rows | UnlabelledRows],
) -> Rows | UnlabelledRows:
    engine.task.behavior.check_supported("profiling", engine.task.name)
    try:
        source = data.locate(data_folder, engine.task, engine.data)
    except DataError as error:
        raise DataError(f"{engine.name}: {error}", settings=error.settings) from error
    if source is not None:  # results of the same rows are comparable, from whichever folder they were read
        source = replace(source, path=str(Path(source.path).resolve()))
    key = (engine.task, source)  # tasks of one name may have their classes in another order
    if key not in loaded:
        try:
            loaded[key] = data.load_to_measure(engine.task, source).limit(limit)
        except DataError as error:
            raise DataError(f"{engine.name}: {error}", settings=error.settings) from error
        progress.say(*data.scored(engine.task, loaded[key]))
    return loaded[key]


def _rows_digest(rows: Rows | UnlabelledRows) -> str:
    labels = rows.labels.tolist() if isinstance(rows, Rows) else None
    value: dict[str, object] = {"texts": [list(texts) for texts in rows.texts], "labels": labels}
    if rows.documents is not None:
        value["documents"] = [list(rows.documents.ids), list(rows.documents.texts)]
    return files.json_digest(value)
