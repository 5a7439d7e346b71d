"""Ways of making a fine-tuned encoder faster, at equal measured speed: what `effx optimize` gains.

    python benchmarks/optimize_baselines.py train   --model ENCODER --data ROWS -o WORK [--seed 0] [...]
    python benchmarks/optimize_baselines.py measure --data ROWS -o WORK [...]        # on a quiet machine
    python benchmarks/optimize_baselines.py table   -o WORK [--earlier FILE ...]

For each seed the encoder is fine-tuned (full). Each way then makes models that are 2, 3 and 4 times as
fast, by one cost table of the full model's engine:

    tickets        uniform super tickets: heads and FFNs with the lowest |dL/dxi|, at the least level that is
                   fast enough, from the pretrained weights, fine-tuned on the labels (Liang et al. 2021)
    layers         the first K layers of the full model, then distilled
    first-order    heads and neurons with the least sum of |dL/dxi| under the budget of measured cost, from
                   the model of the speed-up before, then distilled
    one-shot       second-order scores and least squares under the budget, no training (`effx train prune`)
    distilled      the same from the model of the speed-up before, then distilled, as `effx optimize` does

A distilled model has the full model as its teacher. The model of the n-th speed-up was trained for n times
``--epochs`` in every way that trains, the trainings before it in its way included, on the same rows with the
same batch size and learning rate. A way that cannot reach a speed-up has no model for it.

``train`` and ``measure`` skip what is there already, so they can be stopped; ``train`` also measures the cost
table, which wants a quiet machine. ``table`` writes baselines.json (every engine of every seed) and
baselines.md: the score at each speed, between the two engines of a way that are next to it (or the full
model), by the logarithm of the measured ratio to the full model's engine of the same precision. Files of
earlier runs add their seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effx import data, results
from effx.analysis.comparison import compare
from effx.artifacts import Checkpoint, now
from effx.cli import run as run_effx
from effx.data import Rows
from effx.encoding import Encoder
from effx.errors import UsageError
from effx.host import identity
from effx.models import checkpoints, load, structure
from effx.models.surgery import prune, reduce_to
from effx.optimize import budget, measure_costs, one_shot
from effx.optimize.cost_table import CostTable, neuron_sizes
from effx.results import Run
from effx.specs.data import DataSettings, DataSource
from effx.specs.distillation import DistillationSettings
from effx.specs.levels import Level
from effx.specs.optimize import OneShotSettings
from effx.specs.training import FinetuneSettings
from effx.structure import Structure
from effx.tickets import plan
from effx.tickets.scores import Importance
from effx.train import finetune, importance
from effx.train.distillation import Distillation

WAYS = ("tickets", "layers", "first-order", "one-shot", "distilled")
FULL = "full"


class Bench:
    """One seed's models in a folder."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.folder: Path = options.out / f"seed{options.seed}"
        self.checkpoints, self.engines = self.folder / "checkpoints", self.folder / "engines"
        self.rows = None if options.data is None else DataSource(str(options.data), DataSettings())
        self.settings = FinetuneSettings.of(
            epochs=options.epochs, batch_size=options.batch_size, lr=options.lr, limit=options.limit,
            max_length=options.max_length, seed=options.seed,
        )  # fmt: skip

    def checkpoint(self, name: str, make: Callable[[str], object]) -> Path:
        """Return a checkpoint, which ``make`` writes if it is not there; some ways cannot."""
        folder = self.checkpoints / name
        if not Checkpoint.is_at(folder):
            make(name)
        return folder

    def full(self) -> Path:
        """Fine-tune the encoder."""
        return self.checkpoint(FULL, lambda name: self._finetune(name, self.options.model, self.settings))

    def table(self) -> CostTable:
        """Return the costs of the full model's engine, which are measured once for all seeds."""
        path: Path = self.options.out / "costs.json"
        if not path.exists():
            (table,) = measure_costs.measure(
                self.full(), variant=self.options.variant, backend=self.options.backend,
                workloads=(self.options.workload,), data_folder=self.rows, coarse=True,
            )  # fmt: skip
            table.write(path)
        return CostTable.read(path)

    def train(self) -> None:
        """Make every model that is missing."""
        full, table = self.full(), self.table()
        before = {way: full for way in WAYS}
        for number, speedup in enumerate(sorted(self.options.speedups), 1):
            whole_length = self.settings.replace(epochs=number * self.options.epochs)
            makers: dict[str, Callable[[str, float], object]] = {
                "tickets": lambda name, times, long=whole_length: self._ticket(
                    name, full, table, times, long
                ),
                "layers": lambda name, times, long=whole_length: self._layers(name, full, table, times, long),
                "first-order": lambda name, times: self._first_order(
                    name, before["first-order"], full, table, times
                ),
                "one-shot": lambda name, times: self._one_shot(name, full, table, times),
                "distilled": lambda name, times: self._distilled(
                    name, before["distilled"], full, table, times
                ),
            }
            for way in self.options.ways:
                path = self.checkpoint(
                    f"{way}-{speedup:g}x", lambda name, make=makers[way], times=speedup: make(name, times)
                )
                if Checkpoint.is_at(path):
                    before[way] = path

    def _finetune(
        self, name: str, model: str | Path, settings: FinetuneSettings, teacher: Path | None = None,
        **more: Any,
    ) -> None:  # fmt: skip
        distillation = None if teacher is None else Distillation(teacher, DistillationSettings())
        finetune(
            self.options.task, model, out=self.checkpoints, name=name, data_folder=self.rows,
            settings=settings, distillation=distillation, **more,
        )  # fmt: skip

    def _training_rows(self) -> Rows:
        return data.load(data.resolve(self.options.task, self.rows), "train", self.rows).limit(
            self.options.scored_rows
        )

    def _scores(self, scored: Path, granularity: str) -> Importance:
        """Return |dL/dxi| on some training rows, normalised as super tickets have it for whole FFNs only."""
        opened = Checkpoint.open(scored)
        model, rows = checkpoints.load(opened), self._training_rows()
        encoded = Encoder(opened.folder, opened.max_length, form=opened.task.behavior.form)(rows.texts)
        training = self.settings.training
        batches = importance.batches_of(
            encoded, rows.labels, checkpoints.input_names(model), training.batch_size, training.seed
        )
        of_neurons = granularity == "neurons"
        return importance.measure(model, batches, neurons=of_neurons, normalised=not of_neurons)

    def _ticket(
        self, name: str, full: Path, table: CostTable, speedup: float, settings: FinetuneSettings
    ) -> None:
        scored, whole = self._scores(full, "ffns"), structure(load(full))
        for percent in range(1, 100):
            try:
                removed = plan.removal(scored, whole, Level.parse(str(percent)), "winning")
            except UsageError:  # it prunes nothing of so small a model, or leaves a layer without heads
                continue
            model = load(full)
            prune(model, **removed.arguments())
            target = structure(model)
            if table.seconds.of_structure(target) <= table.unreduced_s / speedup:
                self._finetune(name, self.options.model, settings, reduce=_reduction(target))
                return
        print(f"{name}: no level of tickets is fast enough")

    def _layers(
        self, name: str, full: Path, table: CostTable, speedup: float, settings: FinetuneSettings
    ) -> None:
        whole = structure(load(full))
        for count in range(len(whole.layers), 0, -1):
            target = whole.without(layers=[layer.index for layer in whole.layers[count:]])
            if table.seconds.of_structure(target) <= table.unreduced_s / speedup:
                self._finetune(name, full, settings, full, reduce=_reduction(target))
                return
        print(f"{name}: not even one layer is fast enough")

    def _first_order(self, name: str, parent: Path, full: Path, table: CostTable, speedup: float) -> None:
        target = first_order_structure(
            structure(load(parent)), self._scores(parent, "neurons"), table, table.unreduced_s / speedup
        )
        if target is None:
            print(f"{name}: no structure is fast enough")
            return
        self._finetune(name, parent, self.settings, full, reduce=_reduction(target))

    def _one_shot(self, name: str, parent: Path, table: CostTable, speedup: float) -> Path:
        settings = OneShotSettings(
            speedup=speedup, rows=self.options.scored_rows, candidates=self.options.candidates,
            seed=self.options.seed,
        )  # fmt: skip
        made = one_shot.prune(
            parent,
            table,
            settings,
            out=self.checkpoints,
            name=name,
            data_folder=self.rows,
            strict=False,
            training=self.settings.training,
        )
        return made.folder

    def _distilled(self, name: str, parent: Path, full: Path, table: CostTable, speedup: float) -> None:
        pruned = self.checkpoints / f"{name}-pruned"
        if not Checkpoint.is_at(pruned):
            self._one_shot(pruned.name, parent, table, speedup)
        self._finetune(name, pruned, self.settings, full)

    def measure(self) -> None:
        """Build and measure the engines of every model, in one session."""
        folders = [self.checkpoints / FULL] + [
            self.checkpoints / f"{way}-{speedup:g}x"
            for way in self.options.ways for speedup in self.options.speedups
        ]  # fmt: skip
        present = [str(folder) for folder in folders if Checkpoint.is_at(folder)]
        options = self.options
        exported = ["export", *present, "--variant", options.variant, "--backend", options.backend,
                    "--for", options.workload, "-o", str(self.engines)]  # fmt: skip
        if options.data is not None:
            exported += ["--data", str(options.data)]
        grid = ["--grid", "none" if options.workload == "single" else options.workload]
        code = run_effx(exported)
        if code != 0:
            raise SystemExit(
                f"export: exit code {code}; without an engine its way would look better than it is"
            )
        code = run_effx(["profile", str(self.engines), *grid, "-o", str(self.folder / "results")])
        if code not in (0, 1):
            raise SystemExit(code)


def _reduction(target: Structure) -> Callable[[Any], object]:
    return lambda model: reduce_to(model, target)


def first_order_structure(
    whole: Structure, scored: Importance, table: CostTable, limit_s: float
) -> Structure | None:
    """Return the structure with the least sum of removed scores under a budget of measured cost.

    Args:
        whole: what may remain.
        scored: of heads [layers, heads] and of neurons [layers, neurons], by their numbers in the unreduced
            encoder, not normalised.
        table: what sizes cost.
        limit_s: seconds per query at most.

    Returns:
        None: even without heads and neurons it is not fast enough.
    """
    assert scored.neurons is not None
    grid = neuron_sizes(table.neurons[-1].size, factor=0.9)
    costs, losses, shapes, orders = [], [], [], []
    for layer, of_heads, of_neurons in zip(whole.layers, scored.heads, scored.neurons, strict=True):
        heads = sorted(layer.heads, key=lambda head, of=of_heads: of[head])
        neurons = sorted(layer.neuron_indices, key=lambda neuron, of=of_neurons: of[neuron])
        sizes = [*(size for size in grid if size < len(neurons)), len(neurons)]
        kept = [(h, m) for h in range(len(heads) + 1) for m in sizes]
        lost = [
            np.append(0.0, np.cumsum(of[order])) for of, order in ((of_heads, heads), (of_neurons, neurons))
        ]
        costs.append(np.array([table.seconds.of_layer(*each) for each in kept]))
        losses.append(np.array([lost[0][len(heads) - h] + lost[1][len(neurons) - m] for h, m in kept]))
        shapes.append(kept)
        orders.append((heads, neurons))
    chosen = budget.choose(costs, losses, limit_s - table.seconds.of_layers([]))
    if chosen is None:
        return None
    target = whole
    for layer, kept, option, (heads, neurons) in zip(whole.layers, shapes, chosen, orders, strict=True):
        left = kept[option]
        target = target.without(heads={layer.index: heads[: len(heads) - left[0]]})
        if neurons and left[1] == 0:
            target = target.without(ffns=[layer.index])
        elif neurons:
            target = target.without(neurons={layer.index: neurons[: len(neurons) - left[1]]})
    return target


def engines_of(bench: Bench) -> list[dict[str, Any]]:
    """Return a row for each engine of a seed: its way, accuracy, and times as fast as the full model's."""
    runs = results.find([bench.folder / "results"])
    by_name = {run.engine.checkpoint.name: run for run in runs}
    full, rows = by_name[FULL], []
    for name, run in sorted(by_name.items()):
        ratio = 1.0 if run is full else _ratio(full, run, bench.options.workload)
        rows.append({
            "seed": bench.options.seed, "way": name.rpartition("-")[0] or FULL, "engine": run.name,
            "score": run.quality.value, "times_as_fast": ratio,
            "weight_remaining": run.engine.weight_remaining,
            "failed_gates": [gate.label for gate in run.failed_gates],
        })  # fmt: skip
    return rows


def _ratio(full: Run, run: Run, workload: str) -> float:
    batch, _, length = workload.partition("x")
    of_workload = [
        each for each in compare(full, run).latency
        if each.statistic == "p50" and ((each.batch, str(each.length)) == (int(batch), length) if length
                                        else each.scenario == "single-stream")
    ]  # fmt: skip
    return 1 / of_workload[0].value


def score_at(rows: Sequence[Mapping[str, Any]], speedup: float) -> float | None:
    """Return the score at a speed, between the engines next to it; None: none is as fast."""
    ordered = sorted(rows, key=lambda row: row["times_as_fast"])
    speeds = [row["times_as_fast"] for row in ordered]
    if speedup > speeds[-1]:
        return None
    return float(np.interp(np.log(speedup), np.log(speeds), [row["score"] for row in ordered]))


def write_table(rows: list[dict[str, Any]], options: argparse.Namespace, facts: dict[str, Any]) -> None:
    """Write baselines.json and baselines.md."""
    (options.out / "baselines.json").write_text(json.dumps({**facts, "engines": rows}, indent=1) + "\n")
    seeds = sorted({row["seed"] for row in rows})
    full = {row["seed"]: row for row in rows if row["way"] == FULL}
    lines = [
        f"Score on the validation rows, mean over seeds {', '.join(map(str, seeds))}, at measured speeds "
        f"relative to the unreduced {options.variant} engine ({options.backend}, {options.workload}); in "
        "brackets the difference from it in points, and its standard deviation over seeds.", "",
        "| way | " + " | ".join(f"{speedup:g}x" for speedup in options.speedups) + " |",
        "|---" * (1 + len(options.speedups)) + "|",
        f"| unreduced: {np.mean([row['score'] for row in full.values()]):.4f} |"
        + " |" * len(options.speedups),
    ]  # fmt: skip
    for way in WAYS:
        cells = []
        for speedup in options.speedups:
            found = {
                seed: score_at([full[seed], *of_seed], speedup)
                for seed in seeds
                if (of_seed := [row for row in rows if (row["way"], row["seed"]) == (way, seed)])
            }
            known = {seed: score for seed, score in found.items() if score is not None}
            if not known:
                cells.append("")
                continue
            lost = [100 * (score - full[seed]["score"]) for seed, score in known.items()]
            spread = f" ± {np.std(lost, ddof=1):.1f}" if len(lost) > 1 else ""
            of_seeds = "" if len(known) == len(seeds) else f", seeds {', '.join(map(str, known))}"
            cells.append(f"{np.mean([*known.values()]):.4f} ({np.mean(lost):+.1f}{spread}{of_seeds})")
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    (options.out / "baselines.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("step", choices=("train", "measure", "table"))
    parser.add_argument("-o", "--out", type=Path, default=Path("optimize-baselines"))
    parser.add_argument("--model", help="pretrained encoder")
    parser.add_argument("--data", type=Path, help="folder of the rows")
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--speedups", type=float, nargs="+", default=[2.0, 3.0, 4.0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--variant", default="int8")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--workload", default="single")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--max-length", type=int, default=128, help="tokens")
    parser.add_argument("--limit", type=int, help="training rows at most")
    parser.add_argument("--scored-rows", type=int, default=1024, help="that decide what is pruned")
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--earlier", type=Path, nargs="+", default=[], help="baselines.json of other seeds")
    options = parser.parse_args()
    if options.workload != "single" and "x" not in options.workload:
        parser.error("--workload: single or BxL, whose latency is measured")
    if options.step == "train":
        if options.model is None:
            parser.error("train needs --model")
        Bench(options).train()
    elif options.step == "measure":
        Bench(options).measure()
    else:
        rows = [row for path in options.earlier for row in json.loads(path.read_text())["engines"]]
        for folder in sorted(options.out.glob("seed*/results")):
            options.seed = int(folder.parent.name.removeprefix("seed"))
            rows += engines_of(Bench(options))
        facts = {
            "command": " ".join(["python", "benchmarks/optimize_baselines.py", *sys.argv[1:]]),
            "date": now(), "host": identity.host().to_json(), "versions": checkpoints.versions(),
        }  # fmt: skip
        write_table(rows, options, facts)


if __name__ == "__main__":
    main()
