"""Check that models fine-tuned with plain transformers come into effx with transformers' answers, row by row.

    python benchmarks/import_parity.py finetune --model ./minilm --data ./data -o ./models
    python benchmarks/import_parity.py check --models ./models --data ./data -o ./work \
        --out docs/results/import/parity.json --recommend sst2-reversed/fp32

``finetune`` needs no effx: a loop of PyTorch, then ``save_pretrained`` in every format of FORMATS. ``check``
compares, on the same validation rows, the imported checkpoint and its fp32 engine with transformers' own
text-classification pipeline: every prediction, the largest difference between logits, and the metric. The
pipeline computes in fp32 for all formats, one row at a time, with the tokenizer's own maximum length. With
``--recommend`` it also runs the two commands from a folder to a recommendation, as a user types them.

The rows are those of --data, except for entities-multi-label: which types of entities a text of WNUT 17 has,
of the texts that have any.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import importlib.metadata
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from effx.artifacts import Checkpoint

BATCH, MAX_LENGTH, LR = 8, 32, 2e-4
TRAINING_ROWS = 2000
"""Of the copy that effx reads; all labels occur in them."""
TRAINED_LAYERS = 2
"""The last layers and the head are trained: enough for answers that differ between rows, in minutes."""
FORMATS: Mapping[str, Mapping[str, Any]] = {
    "fp32": {},
    "fp16": {"dtype": torch.float16},
    "sharded": {"max_shard_size": "20MB"},
}
"""How a model is saved: arguments of save_pretrained, and the type of the weights."""


@dataclass(frozen=True)
class Case:
    """A fine-tuned model whose outputs are not in the order of the task's labels, or have other names."""

    task: str
    folder: str
    """Of the rows, below --data."""
    columns: tuple[str, ...]
    outputs: tuple[str, ...]
    """Names of the outputs, in the model's order; empty: regression."""
    classes: tuple[int, ...] = ()
    """For each output, the class of the rows."""
    options: tuple[str, ...] = ()
    """Options for effx, where the model's names are not the task's."""
    several: bool = False
    """Whether a row may have several labels."""
    weights_of: str | None = None
    """Another case whose weights it has, with other names."""
    formats: tuple[str, ...] = field(default=tuple(FORMATS))


PAIR = ("sentence1", "sentence2")
CASES = {
    "sst2-reversed": Case("sst2", "sst2", ("sentence",), ("POSITIVE", "NEGATIVE"), (1, 0)),
    "mnli-contradiction-first": Case(
        "mnli", "mnli_subset", PAIR, ("CONTRADICTION", "ENTAILMENT", "NEUTRAL"), (2, 0, 1)
    ),
    "mnli-other-names": Case(
        "mnli", "mnli_subset", PAIR, ("refuted", "supported", "unrelated"), (2, 0, 1),
        options=("--labels", "contradiction,entailment,neutral"), weights_of="mnli-contradiction-first",
        formats=("fp32",),
    ),
    "stsb-regression": Case("stsb", "stsb", PAIR, ()),
    "entities-multi-label": Case(
        "entities", "wnut17", ("sentence",),
        ("product", "person", "location", "group", "creative-work", "corporation"), several=True,
        formats=("fp32",),
    ),
}  # fmt: skip


def rows_of(case: Case, data: Path, split: str) -> list[dict[str, Any]]:
    """Return rows as the published files have them; of several labels a list of names."""
    with gzip.open(data / case.folder / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    if not case.several:
        return rows
    several = [
        {"sentence": " ".join(row["tokens"]),
         "labels": sorted({tag.partition("-")[2] for tag in row["labels"] if tag != "O"})}
        for row in rows
    ]  # fmt: skip
    return [row for row in several if row["labels"]]


# fine-tuning with plain transformers


def finetune(case: Case, model_folder: Path, data: Path, out: Path, rows: int) -> None:
    """Fine-tune on the first shuffled ``rows`` training rows, and save in every format."""
    torch.manual_seed(0)
    every = rows_of(case, data, "train")
    random.Random(0).shuffle(every)
    every = every[:rows]
    names: dict[str, Any] = {"num_labels": 1, "problem_type": "regression"}
    if case.outputs:
        names = {
            "num_labels": len(case.outputs),
            "id2label": dict(enumerate(case.outputs)),
            "label2id": {name: number for number, name in enumerate(case.outputs)},
        }
    if case.several:
        names["problem_type"] = "multi_label_classification"
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForSequenceClassification.from_pretrained(model_folder, **names)
    for module in (model.base_model.embeddings, *model.base_model.encoder.layer[:-TRAINED_LAYERS]):
        module.requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LR, weight_decay=0.01)
    steps = len(every) // BATCH
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1.0, (step + 1) / 20) * (1 - step / steps)
        batch = every[step * BATCH : (step + 1) * BATCH]
        texts = [[row[column] for row in batch] for column in case.columns]
        inputs = tokenizer(*texts, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        loss = model(**inputs, labels=targets(case, batch)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0:
            print(f"{out.name}: step {step} of {steps}, loss {loss.item():.3f}", flush=True)
    save(model.eval(), tokenizer, case, out)


def targets(case: Case, rows: Sequence[Mapping[str, Any]]) -> torch.Tensor:
    """Return what a model's loss takes: classes, numbers, or 0 and 1 for each output."""
    if case.several:
        return torch.tensor([[float(name in row["labels"]) for name in case.outputs] for row in rows])
    if case.outputs:
        return torch.tensor([case.classes.index(int(row["label"])) for row in rows])
    return torch.tensor([row["label"] for row in rows], dtype=torch.float32)


def save(model: Any, tokenizer: Any, case: Case, out: Path) -> None:
    """Save in every format of the case, fp32 first."""
    for name in case.formats:
        options = dict(FORMATS[name])
        dtype = options.pop("dtype", torch.float32)
        model.to(dtype).save_pretrained(out / name, **options)
        tokenizer.save_pretrained(out / name)


def renamed(case: Case, source: Path, out: Path) -> None:
    """Save a case's weights again with other names of the outputs."""
    model = AutoModelForSequenceClassification.from_pretrained(source / "fp32")
    model.config.id2label = dict(enumerate(case.outputs))
    model.config.label2id = {name: number for number, name in enumerate(case.outputs)}
    save(model, AutoTokenizer.from_pretrained(source / "fp32"), case, out)


# what effx makes of a folder, compared with transformers' pipeline


@dataclass(frozen=True)
class Reference:
    """What transformers' own pipeline answers, row by row."""

    outputs: tuple[str, ...]
    """Names of the model's outputs; empty: regression."""
    scores: np.ndarray
    """Logits [rows, outputs], computed one row at a time in fp32."""


def reference(folder: Path, rows: Sequence[Mapping[str, Any]], case: Case) -> Reference:
    """Ask the text-classification pipeline for all scores of each row, before any softmax."""
    classify = pipeline("text-classification", model=str(folder), dtype=torch.float32, device="cpu")
    names = tuple(classify.model.config.id2label[n] for n in range(classify.model.config.num_labels))
    scores = []
    for row in rows:
        texts = dict(zip(("text", "text_pair"), (row[column] for column in case.columns), strict=False))
        answers = classify(texts, top_k=None, function_to_apply="none", truncation=True)
        by_name = {answer["label"]: answer["score"] for answer in answers}
        scores.append([by_name[name] for name in names])
    return Reference(names if case.outputs else (), np.array(scores))


def arranged(answers: Reference, case: Case, labels: Sequence[str]) -> np.ndarray:
    """Return the reference's logits in the order of the task's labels."""
    if not case.outputs:
        return answers.scores
    if case.several:  # a task of the user's own, whose labels may be in the order of the model
        return answers.scores[:, [case.outputs.index(label) for label in labels]]
    return answers.scores[:, [case.classes.index(number) for number in range(len(labels))]]


def compared(ours: np.ndarray, theirs: np.ndarray, case: Case) -> dict[str, Any]:
    """Return how the rows of two tables of logits differ."""
    value: dict[str, Any] = {"rows": len(ours), "largest_difference": float(np.abs(ours - theirs).max())}
    if case.several:
        value["equal_labels"] = int(((ours > 0) == (theirs > 0)).all(axis=1).sum())
    elif case.outputs:
        value["equal_labels"] = int((ours.argmax(1) == theirs.argmax(1)).sum())
    return value


def copy_rows(case: Case, data: Path, target: Path, limit: int) -> Path:
    """Write the training rows and the first validation rows of a case into a folder."""
    target.mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", rows_of(case, data, "train")[:TRAINING_ROWS]),
                        ("validation", rows_of(case, data, "validation")[:limit])):  # fmt: skip
        lines = [json.dumps(row) + "\n" for row in rows]
        (target / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return target


def effx(*arguments: str, folder: Path) -> str:
    """Run a command as a user does; return what it printed on stdout."""
    print("effx", *arguments, flush=True)
    ran = subprocess.run(
        [sys.executable, "-m", "effx", *arguments], cwd=folder, capture_output=True, text=True
    )
    if ran.returncode:
        raise SystemExit(f"effx {' '.join(arguments)}: exit code {ran.returncode}\n{ran.stderr}")
    return ran.stdout


def commands(model: Path, data: Path, case: Case, work: Path) -> dict[str, Any]:
    """From the folder to a recommendation in two commands; return them, what they printed, and the time."""
    work.mkdir(parents=True, exist_ok=True)
    typed = [
        ["export", str(model), "--task", case.task, "--data", str(data), *case.options, "--variant", "fp32",
         "--variant", "int8"],
        ["profile", "--rounds", "5", "--meter", "none", "--grid", "none", "--recommend"],
    ]  # fmt: skip
    start = time.monotonic()
    printed = [effx(*arguments, folder=work) for arguments in typed]
    print(printed[-1], flush=True)
    shown = [["effx", *(Path(a).name if a.startswith("/") else a for a in line)] for line in typed]
    return {
        "commands": [" ".join(line) for line in shown],
        "seconds": round(time.monotonic() - start),
        "printed": [line for text in printed for line in text.strip().splitlines()],
    }


def check(name: str, form: str, folder: Path, data: Path, case: Case, work: Path) -> dict[str, Any]:
    """Compare the imported checkpoint and its fp32 engine with the pipeline."""
    from effx import data as tasks
    from effx import engines
    from effx.encoding import Encoder
    from effx.export import export
    from effx.models import evaluate, load
    from effx.specs.imports import ImportSettings
    from effx.train import as_checkpoint

    labels = tuple(case.options[1].split(",")) if case.options else None
    settings = ImportSettings(task=case.task, **({"labels": labels} if labels else {}))
    checkpoint = as_checkpoint(folder, out=work / "checkpoints", data_folder=data, settings=settings)
    engine = export(checkpoint, "fp32", out=work / "engines")
    rows = rows_of_text(data / "validation.jsonl")
    task = engine.task
    loaded = tasks.load(task, "validation", data)
    encoded = Encoder(checkpoint, engine.max_length)(loaded.texts)
    ours = evaluate.logits(load(checkpoint), encoded)
    with engines.open(engine, threads=1) as session:
        built = np.concatenate([session.infer(encoded.batch([row]))["logits"] for row in range(len(rows))])
    theirs = arranged(reference(folder, rows, case), case, task.labels)
    names = json.loads((engine.folder / "config.json").read_text())["id2label"]
    answers = task.predict(theirs)
    imported = Checkpoint.open(checkpoint).manifest
    return {
        "case": name,
        "format": form,
        "files": sorted(path.name for path in folder.glob("*.safetensors*")),
        "outputs": list(case.outputs),
        "head": imported.imported.head if imported.imported else None,
        "labels_of_engine": [names[str(number)] for number in range(len(names))],
        "checkpoint": compared(ours, theirs, case),
        "fp32_engine": compared(built, theirs, case),
        "metric": task.metric,
        "pipeline_score": task.score(loaded.labels, answers)[task.metric],
        "checkpoint_score": imported.metrics[task.metric],
    }


def rows_of_text(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def host() -> dict[str, Any]:
    """Return the machine and the versions, for the record."""
    cpu = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), platform.processor(),
    )  # fmt: skip
    names = ("transformers", "torch", "tokenizers", "onnxruntime", "numpy")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": cpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in names},
    }


def markdown(value: Mapping[str, Any]) -> str:
    """Return the table of the results."""
    host = value["host"]
    versions = ", ".join(f"{name} {version}" for name, version in host["versions"].items())
    lines = [
        "# Imported models next to transformers' own pipeline, row by row",
        "",
        f"`benchmarks/import_parity.py check`, {host['date']}; {host['processor']}, Python {host['python']}, "
        f"{versions}. Differences are those of logits, in fp32. Models are MiniLM, fine-tuned for minutes "
        "with plain transformers: whether answers are equal is measured, not how good they are.",
        "",
        "| model | saved as | outputs | rows | equal labels: checkpoint, engine | largest difference: "
        "checkpoint, engine | metric: pipeline, checkpoint |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in value["models"]:
        parts = (row["checkpoint"], row["fp32_engine"])
        equal = ", ".join(str(part.get("equal_labels", "values")) for part in parts)
        largest = ", ".join(f"{part['largest_difference']:.1e}" for part in parts)
        scores = f"{row['metric']} {row['pipeline_score']:.4f}, {row['checkpoint_score']:.4f}"
        outputs = ", ".join(row["outputs"]) or "one value"
        lines.append(f"| {row['case']} | {row['format']} | {outputs} | {parts[0]['rows']} | {equal} | "
                     f"{largest} | {scores} |")  # fmt: skip
    for name, chain in value["commands"].items():
        lines += ["", f"## {name}: from the folder to a recommendation, {chain['seconds']} s", ""]
        lines += [*(f"    {line}" for line in chain["commands"]), ""]
        lines += [f"    > {line}".rstrip() for line in chain["printed"]]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands_ = parser.add_subparsers(dest="command", required=True)
    tune = commands_.add_parser("finetune")
    tune.add_argument("--model", type=Path, required=True)
    tune.add_argument("--rows", type=int, default=2400)
    tune.add_argument("-o", type=Path, required=True, dest="out")
    compare = commands_.add_parser("check")
    compare.add_argument("--models", type=Path, required=True)
    compare.add_argument("--rows", type=int, default=200)
    compare.add_argument("--recommend", action="append", default=[], metavar="CASE/FORMAT",
                         help="Also run the commands from this folder to a recommendation.")  # fmt: skip
    compare.add_argument("-o", type=Path, required=True, dest="work")
    compare.add_argument(
        "--out", type=Path, required=True, help="JSON file; the table is written next to it."
    )
    for command in (tune, compare):
        command.add_argument("--data", type=Path, required=True)
        command.add_argument("--case", action="append", choices=CASES)
    compare.add_argument("--format", action="append", choices=FORMATS, help="Default: all of the case.")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    names = options.case or list(CASES)
    if options.command == "finetune":
        for name in names:
            tuned(name, options.out, options)
        return
    result: dict[str, Any] = {"host": host(), "models": [], "commands": {}}
    if options.out.is_file():  # cases that were checked before
        result = {**json.loads(options.out.read_bytes()), "host": host()}
    for name in names:
        case, work = CASES[name], (options.work / name).resolve()
        data = copy_rows(case, options.data, work / "data", options.rows).resolve()
        for form in options.format or case.formats:
            if any((row["case"], row["format"]) == (name, form) for row in result["models"]):
                continue
            folder = (options.models / name / form).resolve()
            result["models"].append(check(name, form, folder, data, case, work))
            print(json.dumps(result["models"][-1]), flush=True)
            record(options.out, result)
        for form in case.formats:
            if f"{name}/{form}" in options.recommend:
                folder = (options.models / name / form).resolve()
                result["commands"][f"{name}/{form}"] = commands(folder, data, case, work / form)
                record(options.out, result)


def tuned(name: str, out: Path, options: argparse.Namespace) -> None:
    """Fine-tune a case, unless its folders are there."""
    case, folder = CASES[name], out / name
    if (folder / case.formats[-1]).is_dir():
        return
    if (folder / "fp32").is_dir():  # fine-tuned before
        renamed(case, folder, folder)
    elif case.weights_of:
        renamed(case, out / case.weights_of, folder)
    else:
        finetune(case, options.model, options.data, folder, options.rows)


def record(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(markdown(value), encoding="utf-8")


if __name__ == "__main__":
    main()
