"""Measuring a cost table: small graphs of equal layers, and random structures, timed in turns on one runtime.

Everything stays loaded, and a round asks each of them the same queries, in a new random order. So slow
moments of the machine fall on all alike, and differences are taken within rounds. With a meter, windows of
energy follow, in turns too (:mod:`effx.optimize.energy_windows`).
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from effx import engines, meters, progress, scratch, signals
from effx.artifacts import Checkpoint
from effx.engines import Session
from effx.engines.lead_in import lead_in
from effx.errors import UsageError
from effx.export import fastest, parity
from effx.export.build import refusal, schemes_of
from effx.export.builders import builder
from effx.export.source import ExportSource
from effx.host import cpu, identity, locks
from effx.models import checkpoints, families, structure
from effx.models.surgery import reduce_to
from effx.optimize import energy_windows, probes
from effx.optimize.cost_table import CostTable
from effx.optimize.energy_windows import NoEnergyError, Windows
from effx.optimize.probes import CHECK, UNREDUCED
from effx.optimize.tabulate import Measured, joined, table
from effx.specs import backends, variants
from effx.specs.data import DataLocation
from effx.specs.measurement import built_for
from effx.specs.workloads import Workload
from effx.structure import Structure

_BLOCK_S = 0.2
"""Seconds of the fastest engine's block, about."""
_MOST_QUERIES = 64
_ROUNDS = 25
_CHECKS = 20


def measure(
    checkpoint: str | Path,
    *,
    variant: str = "fp32",
    backend: str = "onnxruntime",
    device: str | None = None,
    workloads: Sequence[str] = ("single",),
    data_folder: DataLocation = None,
    threads: int | None = None,
    rounds: int = _ROUNDS,
    checks: int = _CHECKS,
    seed: int = 0,
    coarse: bool = False,
    meter: str = "none",
    windows: int = 3,
    window_s: float = 10.0,
) -> list[CostTable]:
    """Build the graphs of a cost table and measure them in each workload; return one table for each.

    Args:
        checkpoint: a fine-tuned model; its first layers are measured.
        variant: a precision, and parts that change a length, see :mod:`effx.specs.variants`.
        backend: the runtime.
        device: ``cpu`` or ``cuda``; None: the backend's default.
        workloads: each ``single``, ``BxL`` or ``offline``, see :func:`effx.specs.measurement.built_for`. Of
            several schemes of a precision, the fastest in the first is taken.
        data_folder: file or folder of the rows of ``single`` and ``offline``; default: where the checkpoint's
            came from, or random ids.
        threads: compute threads; default: the processors that this process may use.
        rounds: in which everything is timed once.
        checks: random structures that are predicted and measured.
        seed: of the random structures and the order of a round.
        coarse: measure about half as many sizes; those between them are interpolated.
        meter: of energy, see :func:`effx.meters.open`; ``none``: times only.
        windows: of energy, of each graph; at least 2.
        window_s: seconds of each; meters need 10.

    Raises:
        UsageError: the combination cannot be built, or the meter cannot be read.
        DeviceError: there is no usable GPU.
        ArtifactError: the checkpoint is damaged.
    """
    opened = Checkpoint.open(checkpoint)
    wanted, asked = variants.parse(variant), {text: built_for(text) for text in workloads}
    if wanted.reductions or wanted.multi or wanted.scheme == variants.AUTO:
        raise UsageError(f"variant {variant}: a cost table is of plain graphs of one precision.",
                         settings="variant")  # fmt: skip
    row = backends.get(backend)
    device = row.device_here(device)
    engines.check_backend(backend, device)
    if reason := refusal(wanted, backend, device):
        raise UsageError(f"variant {variant} on {backend}: {reason}.", settings="variant")
    with (
        contextlib.closing(meters.open(meter, device, worker_pids=_own_pid)) as opened_meter,
        scratch.folder("costs") as folder,
    ):
        energy = None if opened_meter.source == "none" else Windows(opened_meter, windows, window_s)
        source = ExportSource(opened, folder, data_folder)
        begun = time.perf_counter()
        maker = _Maker(source, wanted, backend, device, folder, next(iter(asked.values())))
        unreduced = structure(source.model)
        sizes = probes.sizes(unreduced, coarse=coarse)
        of_sizes = probes.structures(unreduced, *sizes)
        drawn = probes.random_structures(source.model, checks, seed)
        total = len(of_sizes) + len(drawn) + 1
        files: dict[str, fastest.Files] = {}
        with progress.bar(f"build {total} graphs of {opened.name}", total) as advance:
            checked = {f"{CHECK}{number}": one for number, one in enumerate(drawn)}
            for name, target in ({UNREDUCED: unreduced} | of_sizes | checked).items():
                signals.check()
                files[name] = maker.build(name, target)
                advance(1, name)
        built_s = time.perf_counter() - begun
        encoded = parity.without_longest(source.parity_rows(wanted)[0])
        facts = {
            "host": identity.host().to_json(),
            "versions": {**checkpoints.versions(), **engines.versions(backend)},
            "checkpoint": opened.name,
            "checkpoint_digest": opened.digest,
            "model": opened.manifest.model,
            "head_size": families.of(source.model).head_size(source.model),
            "variant": wanted.text,
            "scheme": maker.scheme,
            "backend": backend,
            "device": None if device == row.default_device else device,
            "threads": threads or cpu.usable_processors(),
            "built_in_s": round(built_s, 1),
            "no_energy": opened_meter.reason if energy is None else None,
        }
        tables = []
        with locks.on_this_host(alone=True, wait=True, waiting=progress.say):
            for text, workload in asked.items():
                begun, created = time.perf_counter(), datetime.datetime.now(datetime.UTC)
                queries = fastest.queries(encoded, workload)[0]
                measured = _measured(files, queries, threads, rounds, seed, energy)
                facts["created"] = created.isoformat(timespec="seconds")
                facts["measured_in_s"] = round(time.perf_counter() - begun - measured.windows_s, 1)
                tables.append(
                    table(len(unreduced.layers), sizes, measured, energy, drawn, workload=text, **facts)
                )
        return tables


def _own_pid() -> set[int]:
    return {os.getpid()}


def _measured(
    files: Mapping[str, fastest.Files], queries: Sequence[dict[str, np.ndarray]], threads: int | None,
    rounds: int, seed: int, windows: Windows | None,
) -> Measured:  # fmt: skip
    """Measure probes first, then random structures: memory holds one of these groups at a time."""
    checked = [name for name in files if name.startswith(CHECK)]
    groups = [[name for name in files if name not in checked]]
    if checked:
        groups.append([*(name for name in probes.anchors() if name in files), *checked])
    found = Measured({}, {})

    def rest() -> None:
        found.at_rest = cpu.rest() and found.at_rest

    for group in groups:
        with _loaded({name: files[name] for name in group}, threads) as sessions:
            chosen = _warm(sessions, queries)
            found.seconds = joined(found.seconds, _timed(sessions, chosen, rounds, seed, rest))
            if windows is not None and found.no_energy is None:
                began = time.perf_counter()
                try:
                    joules = energy_windows.joules(sessions, chosen, windows, seed, rest)
                    found.joules = joined(found.joules, joules)
                except NoEnergyError as error:
                    found.no_energy, found.joules = str(error), {}
                found.windows_s += time.perf_counter() - began
    return found


class _Maker:
    """Builds graphs of the checkpoint's layers."""

    def __init__(
        self, source: ExportSource, variant: variants.Variant, backend: str, device: str, folder: Path,
        workload: Workload,
    ) -> None:  # fmt: skip
        self._source, self._variant, self._backend, self._device = source, variant, backend, device
        self._folder, self._workload = folder, workload
        self._whole = structure(source.model)
        self.scheme = self._fastest_scheme()

    def build(self, name: str, target: Structure) -> fastest.Files:
        """Build the graph of a structure; its weights are the checkpoint's."""
        return self._built(name, target, self.scheme)

    def _built(self, name: str, target: Structure, scheme: str) -> fastest.Files:
        scratch_folder, folder = self._folder / f"{name}-graphs", self._folder / name
        scratch_folder.mkdir()
        folder.mkdir()
        source = ExportSource(
            self._source.checkpoint, scratch_folder, self._source.data_folder, self._source.calibration_rows
        )
        model = copy.deepcopy(self._source.model)
        source.__dict__["model"] = reduce_to(model, target)  # instead of the checkpoint's
        built = builder(self._backend).build(source, self._variant, scheme, folder, self._device)
        return fastest.Files(folder, self._backend, built.runtime)

    def _fastest_scheme(self) -> str:
        """Return the scheme of the variant, or of several the one that is the fastest with all layers."""
        name = f"{self._source.checkpoint.name}.{self._variant.text}.{self._backend}"
        schemes = schemes_of(self._source, self._variant, self._backend, self._device, name)
        if len(schemes) == 1:
            return schemes[0]
        candidates = [self._built(scheme, self._whole, scheme) for scheme in schemes]
        encoded = parity.without_longest(self._source.parity_rows(self._variant)[0])
        seconds = fastest.seconds(candidates, encoded, self._workload)
        return schemes[int(np.argmin(seconds))]


@contextlib.contextmanager
def _loaded(files: Mapping[str, fastest.Files], threads: int | None) -> Iterator[dict[str, Session]]:
    """Keep graphs loaded for the time of the ``with`` block; the first is the slowest to run."""
    with contextlib.ExitStack() as loaded:
        yield {
            name: loaded.enter_context(
                engines.open_unchecked(one.folder, one.backend, one.runtime, threads=threads)
            )
            for name, one in files.items()
        }


def _warm(
    sessions: Mapping[str, Session], queries: Sequence[dict[str, np.ndarray]]
) -> list[dict[str, np.ndarray]]:
    """Ask every graph queries of all shapes; return those of a block, of all lengths."""
    shapes = {query["input_ids"].shape: query for query in queries}
    for session in sessions.values():
        for query in shapes.values():
            session.infer(query)
    first = next(iter(sessions.values()))
    started = time.perf_counter()
    first.infer(queries[0])
    one = time.perf_counter() - started
    count = int(np.clip(_BLOCK_S / one, 1, min(len(queries), _MOST_QUERIES)))
    return [queries[int(i)] for i in np.linspace(0, len(queries) - 1, count)]


def _timed(
    sessions: Mapping[str, Session], chosen: Sequence[dict[str, np.ndarray]], rounds: int, seed: int,
    rest: Callable[[], object],
) -> dict[str, np.ndarray]:  # fmt: skip
    """Return name -> float64 [rounds], the mean seconds per query; the same queries for all.

    ``rest`` waits for threads of the session before, which would share the processors with the next one.
    """
    rng, names = np.random.default_rng((seed, 8)), list(sessions)
    seconds = {name: np.zeros(rounds) for name in names}
    with progress.bar("measure", rounds) as advance:
        for number in range(rounds):
            signals.check()
            for name in rng.permutation(names):
                session = sessions[str(name)]
                rest()
                lead_in(session.infer, reversed(chosen))  # not those that are timed first
                begun = time.perf_counter()
                for query in chosen:
                    session.infer(query)
                seconds[str(name)][number] = (time.perf_counter() - begun) / len(chosen)
            advance(1, "")
    return seconds
