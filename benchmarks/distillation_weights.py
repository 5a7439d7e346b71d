"""How a pruned model is best trained: weights of hidden states and learning rates, with one teacher.

    python benchmarks/distillation_weights.py --model ENCODER --data ROWS --costs COST_TABLE -o WORK [...]

The encoder is fine-tuned on some of the training rows (the teacher), pruned by the cost table without
training (`effx train prune`), and trained again from there with each weight and learning rate, on the same
rows in the same order. Compared is what teacher and students predict on validation rows, and on training rows
that none of them has seen: accuracy, share of rows with the same class, and the mean of KL(teacher ||
student), whose difference from the first student has a 95 % interval over rows. Another seed may differ by
more.

What is there already is not trained again. Writes weights.json and prints a table.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax

from effx import data
from effx.artifacts import Checkpoint, now
from effx.data import Rows
from effx.encoding import Encoder
from effx.host import identity
from effx.models import checkpoints, evaluate
from effx.optimize import one_shot
from effx.optimize.cost_table import CostTable
from effx.specs.data import DataSettings, DataSource
from effx.specs.distillation import DistillationSettings
from effx.specs.optimize import OneShotSettings
from effx.specs.training import FinetuneSettings
from effx.train import finetune, rows
from effx.train.distillation import Distillation

TEACHER, PRUNED = "teacher", "pruned"
NORMAL_95 = 1.96


def train(options: argparse.Namespace, source: DataSource) -> list[str]:
    """Train what is missing; return the names of the students."""
    out: Path = options.out

    def settings(lr: float) -> FinetuneSettings:
        return FinetuneSettings.of(epochs=options.epochs, lr=lr, limit=options.limit, seed=options.seed)

    if not Checkpoint.is_at(out / TEACHER):
        finetune(options.task, options.model, out=out, name=TEACHER, data_folder=source,
                 settings=settings(options.lrs[0]))  # fmt: skip
    if not Checkpoint.is_at(out / PRUNED):
        pruning = OneShotSettings(speedup=options.speedup, candidates=options.candidates, seed=options.seed)
        one_shot.prune(out / TEACHER, CostTable.read(options.costs), pruning, out=out, name=PRUNED,
                       data_folder=source)  # fmt: skip
    names = []
    for lr, weight in itertools.product(options.lrs, options.hidden_weights):
        names.append(f"hidden{weight:g}-lr{lr:g}")
        if not Checkpoint.is_at(out / names[-1]):
            distillation = Distillation(out / TEACHER, DistillationSettings(hidden_weight=weight))
            finetune(options.task, out / PRUNED, out=out, name=names[-1], data_folder=source,
                     settings=settings(lr), distillation=distillation)  # fmt: skip
    return names


def unseen(options: argparse.Namespace, source: DataSource) -> Rows:
    """Return training rows whose texts no model has seen."""
    every = data.load(data.resolve(options.task, source), "train", source)
    chosen = rows.chosen(every, FinetuneSettings.of(limit=options.limit).training)
    seen = {*every.take(chosen).texts}
    left = [row for row, text in enumerate(every.texts) if text not in seen]
    picked = np.random.default_rng(1).permutation(left)[: options.rows]
    return every.take(np.sort(picked))


def compared(options: argparse.Namespace, names: list[str], compared_rows: Rows) -> list[dict[str, Any]]:
    """Return a record for each model: what it predicts beside the teacher."""
    found, of_teacher, of_first = [], None, None
    for name in (TEACHER, PRUNED, *names):
        opened = Checkpoint.open(options.out / name)
        encoder = Encoder(opened.folder, opened.max_length, form=opened.task.behavior.form)
        logits = evaluate.answers(checkpoints.load(opened), encoder(compared_rows.texts), opened.task)
        logs = log_softmax(logits.astype(np.float64), axis=1)
        of_teacher = logs if of_teacher is None else of_teacher
        distance = (np.exp(of_teacher) * (of_teacher - logs)).sum(axis=1)
        if name == names[0]:
            of_first = distance
        difference = None if of_first is None else distance - of_first
        found.append({
            "model": name,
            "accuracy": float((logits.argmax(axis=1) == compared_rows.labels).mean()),
            "agreement": float((logs.argmax(axis=1) == of_teacher.argmax(axis=1)).mean()),
            "kl": float(distance.mean()),
            "kl_difference": None if difference is None else [
                float(difference.mean()), float(NORMAL_95 * difference.std(ddof=1) / len(difference) ** 0.5)
            ],
        })  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("distillation-weights"))
    parser.add_argument("--model", required=True, help="pretrained encoder")
    parser.add_argument("--data", type=Path, required=True, help="folder of the rows")
    parser.add_argument("--costs", type=Path, required=True, help="cost table of the encoder")
    parser.add_argument("--task", default="sst2", help="a classification task")
    parser.add_argument("--limit", type=int, default=20_000, help="training rows at most")
    parser.add_argument("--rows", type=int, default=12_000, help="unseen training rows to compare on at most")
    parser.add_argument("--speedup", type=float, default=2.0)
    parser.add_argument("--candidates", type=int, default=60)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--hidden-weights", type=float, nargs="+", default=[1.0, 10.0, 30.0])
    parser.add_argument("--lrs", type=float, nargs="+", default=[1e-4, 3e-4])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    source = DataSource(str(options.data), DataSettings())
    names = train(options, source)
    validation = data.load(data.resolve(options.task, source), "validation", source)
    sets = {"unseen training rows": unseen(options, source), "validation rows": validation}
    results = {name: compared(options, names, of_set) for name, of_set in sets.items()}
    facts = {
        "command": " ".join(["python", "benchmarks/distillation_weights.py", *sys.argv[1:]]), "date": now(),
        "host": identity.host().to_json(), "versions": checkpoints.versions(),
        "rows": {name: len(of_set) for name, of_set in sets.items()},
    }  # fmt: skip
    (options.out / "weights.json").write_text(json.dumps({**facts, "compared": results}, indent=1) + "\n")
    for name, models in results.items():
        print(f"\n{len(sets[name])} {name}\n\n| model | accuracy | agreement | KL | difference |")
        print("|---|---|---|---|---|")
        for each in models:
            change = each["kl_difference"]
            of_first = "" if change is None else f"{change[0]:+.4f} ± {change[1]:.4f}"
            cells = [f"{each[key]:.4f}" for key in ("accuracy", "agreement", "kl")]
            print(f"| {each['model']} | {' | '.join(cells)} | {of_first} |")


if __name__ == "__main__":
    main()
