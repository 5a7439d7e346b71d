"""Measuring a cost table: small graphs of equal layers, and random structures, timed in turns on one runtime.

    probes        the first layers of the checkpoint, each with h heads and m neurons: all h with m = M, all m
                  with h = H; and half as many layers, for the cost of a layer
    structures    the checkpoint with random heads, neurons and layers, to check that costs add up

Everything stays loaded, and a round asks each of them the same queries, in a new random order. So slow
moments of the machine fall on all alike, and differences are taken within rounds.
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import isotonic_regression
from transformers import PreTrainedModel

from effx import engines, progress, scratch, signals
from effx.artifacts import Checkpoint
from effx.engines import Session
from effx.errors import UsageError
from effx.export import fastest
from effx.export.build import refusal, schemes_of
from effx.export.builders import builder
from effx.export.source import ExportSource
from effx.host import cpu, identity, locks
from effx.models import checkpoints, families, structure
from effx.models.surgery import reduce_to
from effx.optimize.cost_table import CheckedStructure, CostTable, LayerSize, SizeCost, neuron_sizes
from effx.specs import backends, variants
from effx.specs.data import DataLocation
from effx.specs.measurement import built_for
from effx.specs.workloads import Workload
from effx.stats.intervals import median_interval
from effx.structure import Structure

UNREDUCED, CHECK = "unreduced", "check"
"""Names of the checkpoint's own graph, and of random structures, which have a number too."""
_PROBE_LAYERS = 6
"""With fewer than the checkpoint has, a layer is understated: more of the weights fit into the caches."""
_BLOCK_S = 0.2
"""Seconds of the fastest engine's block, about."""
_MOST_QUERIES = 64
_ROUNDS = 25
_CHECKS = 20
_FACTOR, _COARSE_FACTOR = 0.8, 0.6
"""Between numbers of neurons that are measured."""
_LEAST_SHARE = 0.1
"""Of the heads and neurons, in the smallest of the random structures, at most."""
_REMOVED = 0.15
"""Probability that a layer of a random structure is removed, and that its attention or FFN is."""


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

    Raises:
        UsageError: the combination cannot be built.
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
    with scratch.folder("costs") as folder:
        source = ExportSource(opened, folder, data_folder)
        begun = time.perf_counter()
        maker = _Maker(source, wanted, backend, device, folder, next(iter(asked.values())))
        sizes = _sizes(structure(source.model), coarse=coarse)
        probes = maker.probes(*sizes)
        drawn = _random_structures(source.model, checks, seed)
        total = len(probes) + len(drawn) + 1
        files: dict[str, fastest.Files] = {}
        with progress.bar(f"build {total} graphs of {opened.name}", total) as advance:
            whole = {UNREDUCED: structure(source.model)}
            checked = {f"{CHECK}{number}": one for number, one in enumerate(drawn)}
            for name, target in (whole | probes | checked).items():
                signals.check()
                files[name] = maker.build(name, target)
                advance(1, name)
        built_s = time.perf_counter() - begun
        encoded, _, _ = source.parity_rows(wanted)
        facts = {
            "host": identity.host().to_json(),
            "versions": {**checkpoints.versions(), **engines.versions(backend)},
            "checkpoint": opened.name,
            "checkpoint_digest": opened.digest,
            "model": opened.manifest.model,
            "head_size": families.of(source.model).head_size(source.model),
            "variant": variant,
            "scheme": maker.scheme,
            "backend": backend,
            "device": None if device == row.default_device else device,
            "threads": threads or cpu.usable_processors(),
            "built_in_s": round(built_s, 1),
        }
        tables = []
        with locks.on_this_host(alone=True, wait=True, waiting=progress.say):
            for text, workload in asked.items():
                begun, created = time.perf_counter(), datetime.datetime.now(datetime.UTC)
                queries = fastest.queries(encoded, workload)[0]
                seconds = _seconds(files, queries, threads, rounds, seed)
                facts["created"] = created.isoformat(timespec="seconds")
                facts["measured_in_s"] = round(time.perf_counter() - begun, 1)
                tables.append(_table(source, sizes, seconds, drawn, workload=text, **facts))
        return tables


def _seconds(
    files: Mapping[str, fastest.Files], queries: Sequence[dict[str, np.ndarray]], threads: int | None,
    rounds: int, seed: int,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Return name -> float64 [rounds], seconds per query; probes first, then random structures.

    Memory holds one of these groups at a time.
    """
    checked = [name for name in files if name.startswith(CHECK)]
    seconds: dict[str, np.ndarray] = {}
    for group in ([name for name in files if name not in checked], [UNREDUCED, *checked]):
        if len(group) > 1:
            timed = _rounds({name: files[name] for name in group}, queries, threads, rounds, seed)
            steady = at_one_speed(timed)
            scale = np.median(seconds[UNREDUCED]) / np.median(steady[UNREDUCED]) if seconds else 1.0
            seconds = {name: scale * values for name, values in steady.items()} | seconds
    return seconds


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

    def probes(self, heads: Sequence[int], neurons: Sequence[int]) -> dict[str, Structure]:
        """Return name -> structure of the equal layers with these numbers of heads and of neurons."""
        count = min(_PROBE_LAYERS, len(self._whole.layers))
        first = self._whole.without(layers=[layer.index for layer in self._whole.layers[count:]])
        named = {"full": first}
        if count > 1:
            fewer = first.layers[count // 2 :]
            named["fewer"] = first.without(layers=[layer.index for layer in fewer])
        for size in heads[:-1]:
            named[f"heads{size}"] = _with_sizes(first, heads=size)
        for size in neurons[:-1]:
            named[f"neurons{size}"] = _with_sizes(first, neurons=size)
        return named

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
        encoded, _, _ = self._source.parity_rows(self._variant)
        seconds = fastest.seconds(candidates, encoded, self._workload)
        return schemes[int(np.argmin(seconds))]


def _sizes(whole: Structure, *, coarse: bool = False) -> tuple[list[int], list[int]]:
    """Return the numbers of heads and of neurons that are measured, rising.

    Args:
        whole: the unreduced structure.
        coarse: every third number of heads, and a coarser sequence of neurons.

    Raises:
        UsageError: the layers differ, or lack a part.
    """
    shapes = {(len(layer.heads), layer.intermediate) for layer in whole.layers}
    if len(shapes) != 1 or 0 in (shape := shapes.pop()):
        raise UsageError("a cost table needs a checkpoint whose layers are all equal: expected one that lost "
                         "no heads and neurons.", settings="checkpoint")  # fmt: skip
    heads = sorted({*range(0, shape[0], 3 if coarse else 1), shape[0]})
    return heads, neuron_sizes(shape[1], factor=_COARSE_FACTOR if coarse else _FACTOR)


def _with_sizes(whole: Structure, *, heads: int | None = None, neurons: int | None = None) -> Structure:
    """Return a structure whose layers all have the first heads or neurons."""
    out_heads = {layer.index: layer.heads[heads:] for layer in whole.layers} if heads is not None else None
    out_neurons = (
        {layer.index: layer.neuron_indices[neurons:] for layer in whole.layers}
        if neurons is not None
        else None
    )
    return whole.without(heads=out_heads, neurons=out_neurons)


def _random_structures(model: PreTrainedModel, count: int, seed: int) -> list[Structure]:
    """Return random structures, from small ones to nearly the whole: a search chooses among all of them.

    Layers have random heads and neurons, some lack a part, some are removed.
    """
    rng, whole, family = np.random.default_rng((seed, 7)), structure(model), families.of(model)
    heads, neurons = _sizes(whole)
    found: list[Structure] = []
    while len(found) < count:
        drawn, share = whole, rng.uniform(_LEAST_SHARE, 1.0)
        most = [max(1, round(share * part[-1])) for part in (heads, neurons)]
        for layer in whole.layers:
            left = 0 if rng.random() < _REMOVED else int(rng.integers(1, most[0] + 1))
            drawn = drawn.without(heads={layer.index: layer.heads[left:]})
            size = 0 if rng.random() < _REMOVED else int(rng.integers(most[1] // 8, most[1] + 1))
            size = size if size == neurons[-1] else size // 16 * 16
            drawn = drawn.without(neurons={layer.index: layer.neuron_indices[size:]})
        removed = [layer.index for layer in whole.layers[1:] if rng.random() < _REMOVED]
        try:
            drawn = drawn.without(layers=removed)
            family.check_layers([whole.position(layer.index) for layer in drawn.layers])
        except UsageError:
            continue
        found.append(drawn)
    return found


def _rounds(
    files: Mapping[str, fastest.Files], queries: Sequence[dict[str, np.ndarray]], threads: int | None,
    rounds: int, seed: int,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Return name -> float64 [rounds], the mean seconds per query; the first name is the slowest to run."""
    with contextlib.ExitStack() as loaded:
        sessions = {
            name: loaded.enter_context(
                engines.open_unchecked(one.folder, one.backend, one.runtime, threads=threads)
            )
            for name, one in files.items()
        }
        return _timed(sessions, queries, rounds, seed)


def at_one_speed(timed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return times without the changes of a machine's speed from round to round.

    The speed of a round is the median over all graphs of the time in it, relative to the graph's median.

    Args:
        timed: name -> float64 [rounds], seconds.
    """
    relative = [values / np.median(values) for values in timed.values()]
    speed = np.median(relative, axis=0)
    return {name: values / speed for name, values in timed.items()}


def _timed(
    sessions: dict[str, Session], queries: Sequence[dict[str, np.ndarray]], rounds: int, seed: int
) -> dict[str, np.ndarray]:
    """Return name -> float64 [rounds], the mean seconds per query."""
    shapes = {query["input_ids"].shape: query for query in queries}
    for session in sessions.values():
        for query in shapes.values():
            session.infer(query)
    first = next(iter(sessions.values()))
    started = time.perf_counter()
    first.infer(queries[0])
    one = time.perf_counter() - started
    count = int(np.clip(_BLOCK_S / one, 1, min(len(queries), _MOST_QUERIES)))
    # of rows of all lengths, the same for everything that is compared
    chosen = [queries[int(i)] for i in np.linspace(0, len(queries) - 1, count)]
    rng, names = np.random.default_rng((seed, 8)), list(sessions)
    seconds = {name: np.zeros(rounds) for name in names}
    with progress.bar("measure", rounds) as advance:
        for number in range(rounds):
            signals.check()
            for name in rng.permutation(names):
                session = sessions[str(name)]
                session.infer(chosen[0])  # what another session left in the caches is not timed
                begun = time.perf_counter()
                for query in chosen:
                    session.infer(query)
                seconds[str(name)][number] = (time.perf_counter() - begun) / len(chosen)
            advance(1, "")
    return seconds


def _table(
    source: ExportSource,
    sizes: tuple[Sequence[int], Sequence[int]],
    seconds: dict[str, np.ndarray],
    drawn: Sequence[Structure],
    **facts: object,
) -> CostTable:
    """Return the table of what was measured."""
    whole, (heads, neurons) = structure(source.model), sizes
    count = min(_PROBE_LAYERS, len(whole.layers))

    def costs(part: str, sizes: Sequence[int]) -> tuple[SizeCost, ...]:
        of_sizes = [
            (seconds["full" if size == sizes[-1] else f"{part}{size}"] - seconds[f"{part}0"]) / count
            for size in sizes
        ]
        medians = [max(0.0, float(np.median(differences))) for differences in of_sizes]
        rising = isotonic_regression(medians).x  # noise would make a size cheaper than a smaller one
        return tuple(
            SizeCost(size=size, seconds=float(value), low=low, high=high)
            for size, value, (low, high) in zip(sizes, rising, map(median_interval, of_sizes), strict=True)
        )

    of_heads, of_neurons = costs("heads", heads), costs("neurons", neurons)
    empty = 0.0
    if count > 1:
        layer = float(np.median(seconds["full"] - seconds["fewer"])) / (count - count // 2)
        empty = layer - of_heads[-1].seconds - of_neurons[-1].seconds
    unreduced = float(np.median(seconds[UNREDUCED]))
    values = {**facts, "layers": len(whole.layers), "unreduced_s": unreduced, "empty_layer_s": empty,
              "heads": of_heads, "neurons": of_neurons}  # fmt: skip
    table = CostTable(**values, checks=())  # type: ignore[arg-type]
    checks = []
    for number, one in enumerate(drawn):
        layers = tuple(LayerSize(heads=len(part.heads), neurons=part.intermediate) for part in one.layers)
        predicted = table.of_structure(one)
        measured = float(np.median(seconds[f"{CHECK}{number}"]))
        checks.append(CheckedStructure(layers=layers, predicted_s=predicted, measured_s=measured))
    return CostTable(**values, checks=tuple(checks))  # type: ignore[arg-type]
