"""Compare graphs that other tools made of a model with effx's engines of it, in one session.

    python benchmarks/made_elsewhere.py effx MODEL DATA WORK [NAME=PYTHON ...]

NAME=PYTHON names an environment per tool: ``optimum`` (optimum-onnx and onnxruntime) and ``intel``
(optimum-intel and nncf). The script runs itself there with the tool's name instead of ``effx``: the tool
exports MODEL, a folder as transformers saves it, and predicts every validation row, one row at a time. Graphs
and predictions are written to WORK/TOOL. Then effx imports MODEL, builds an fp32 and an int8 engine of it,
makes engines of the tools' graphs, profiles all of them in one session, and compares each engine's
predictions with those of the tool that made it, row by row. A checkpoint and engines that are in WORK are not
made again. Exit code 1: a prediction differs.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CALIBRATION_ROWS = 300
TOOLS = {
    "optimum": "optimum.fp32.onnxruntime",
    "optimum-int8": "optimum-int8.int8.onnxruntime",
    "ort": "ort.int8.onnxruntime",
    "intel-int8": "intel-int8.int8.openvino",
}
"""Folder of a tool's graph -> name of the engine."""


def rows(data: Path, split: str) -> list[dict[str, Any]]:
    """Return the rows of a split as the tools read them, without effx."""
    with gzip.open(data / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def predictions(model: Any, tokenizer: Any, texts: list[str]) -> list[str]:
    """Return the label names that a model of Optimum predicts, one row at a time."""
    labels = []
    for text in texts:
        encoded = tokenizer(text, truncation=True, max_length=512, return_tensors="pt")
        labels.append(model.config.id2label[int(model(**encoded).logits[0].argmax())])
    return labels


def write(folder: Path, predicted: list[str], *packages: str) -> None:
    """Write a tool's predictions and versions next to its graph."""
    versions = {package: importlib.metadata.version(package) for package in packages}
    (folder / "predictions.json").write_text(json.dumps({"labels": predicted, "versions": versions}))


def optimum(model: Path, data: Path, work: Path) -> None:
    """Export with Optimum; quantize with Optimum, and with ONNX Runtime's own tool."""
    import onnxruntime
    from onnxruntime.quantization import quantize_dynamic
    from optimum.onnxruntime import ORTModelForSequenceClassification, ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig
    from transformers import AutoTokenizer

    texts = [row["sentence"] for row in rows(data, "validation")]
    tokenizer = AutoTokenizer.from_pretrained(model)
    folder = work / "optimum"
    exported = ORTModelForSequenceClassification.from_pretrained(model, export=True)
    exported.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write(folder, predictions(exported, tokenizer, texts), "optimum-onnx", "optimum", "onnxruntime")

    quantized = work / "optimum-int8"
    config = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
    ORTQuantizer.from_pretrained(folder).quantize(save_dir=quantized, quantization_config=config)
    loaded = ORTModelForSequenceClassification.from_pretrained(quantized, file_name="model_quantized.onnx")
    write(quantized, predictions(loaded, tokenizer, texts), "optimum-onnx", "optimum", "onnxruntime")

    plain = work / "ort"  # a graph alone, as a script of one's own leaves it
    plain.mkdir(exist_ok=True)
    quantize_dynamic(folder / "model.onnx", plain / "model.onnx")
    session = onnxruntime.InferenceSession(plain / "model.onnx", providers=["CPUExecutionProvider"])
    names = [loaded.config.id2label[number] for number in range(2)]
    predicted = []
    for text in texts:
        encoded = tokenizer(text, truncation=True, max_length=512, return_tensors="np")
        feed = {entry.name: encoded[entry.name] for entry in session.get_inputs()}
        predicted.append(names[int(session.run(["logits"], feed)[0][0].argmax())])
    write(plain, predicted, "onnxruntime")


def intel(model: Path, data: Path, work: Path) -> None:
    """Export with optimum-intel, and quantize weights and activations with NNCF."""
    import nncf
    from optimum.intel import OVConfig, OVModelForSequenceClassification, OVQuantizationConfig, OVQuantizer
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # processors with bf16 would run what is not quantized in it
    exported = OVModelForSequenceClassification.from_pretrained(model, export=True, ov_config=exact)
    calibration = [
        dict(tokenizer(row["sentence"], truncation=True, max_length=512, return_tensors="pt"))
        for row in rows(data, "train")[:CALIBRATION_ROWS]
    ]
    folder = work / "intel-int8"
    OVQuantizer.from_pretrained(exported).quantize(
        calibration_dataset=nncf.Dataset(calibration),
        ov_config=OVConfig(quantization_config=OVQuantizationConfig(num_samples=CALIBRATION_ROWS)),
        save_directory=folder,
    )
    tokenizer.save_pretrained(folder)
    loaded = OVModelForSequenceClassification.from_pretrained(folder, ov_config=exact)
    texts = [row["sentence"] for row in rows(data, "validation")]
    write(folder, predictions(loaded, tokenizer, texts), "optimum-intel", "nncf", "openvino")


def effx(model: Path, data: Path, work: Path, environments: list[str]) -> int:
    """Make all engines, profile them in one session, and compare predictions; return the exit code."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from effx.artifacts import Checkpoint, Engine
    from effx.export import export_all
    from effx.export.foreign.importing import import_engine
    from effx.profile import profile
    from effx.specs.foreign import ForeignSettings
    from effx.specs.imports import ImportSettings
    from effx.specs.measurement import MeasurementPlan
    from effx.train import import_model

    for environment in environments:
        tool, _, python = environment.partition("=")
        subprocess.run([python, __file__, tool, model, data, work], check=True)
    folder, engines = work / "checkpoints" / "effx", work / "engines"
    if not Checkpoint.is_at(folder):
        settings = ImportSettings.of(task="sst2")
        import_model(model, out=folder.parent, checkpoint_name="effx", data_folder=data, settings=settings)
    checkpoint = Checkpoint.open(folder)
    export_all([folder], ["fp32", "int8"], ["onnxruntime"], engines)
    made = {}
    for tool, name in TOOLS.items():
        known = ForeignSettings(labels=("POSITIVE", "NEGATIVE") if tool == "ort" else None)
        if not Engine.is_at(engines / name):
            import_engine(
                work / tool, "sst2", tokenizer=work / "optimum", data_folder=data, settings=known, name=tool,
                checkpoint=folder if tool == "optimum" else None, out=engines,
            )  # fmt: skip
        made[name] = tool
    # one row per batch, as the tools: dynamic quantization scales activations by the rows of a batch
    plan = MeasurementPlan.of(batch_size=1, grid=(), rounds=5)
    runs, failures = profile([engines], out=work / "results", plan=plan, meter="none")
    wrong = len(failures)
    for run in runs:
        line = f"{run.name}: {run.quality.metric} {run.quality.value:.4f}"
        if run.name in made:
            stated = json.loads((work / made[run.name] / "predictions.json").read_text())["labels"]
            names = [checkpoint.task.labels[int(number)].upper() for number in run.quality.predictions]
            differing = sum(ours != theirs for ours, theirs in zip(names, stated, strict=True))
            truth = [checkpoint.task.labels[int(number)].upper() for number in run.quality.labels]
            share = sum(map(str.__eq__, truth, stated)) / len(truth)
            line += f"; the tool's own {share:.4f}, {differing} of {len(names)} predictions differ"
            wrong += differing
        print(line)
    return 1 if wrong else 0


def main() -> None:
    step, model, data, work, *environments = sys.argv[1:]
    folders = [Path(name).resolve() for name in (model, data, work)]
    folders[2].mkdir(parents=True, exist_ok=True)
    if step == "effx":
        sys.exit(effx(*folders, environments))
    {"optimum": optimum, "intel": intel}[step](*folders)


if __name__ == "__main__":
    main()
