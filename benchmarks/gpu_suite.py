"""Everything that effx measures on a GPU, in steps that go on where they were cut off.

    python benchmarks/gpu_suite.py OUT                               all steps
    python benchmarks/gpu_suite.py OUT --seconds 480                 none is begun after so many seconds
    python benchmarks/gpu_suite.py OUT --steps traces,bert-base-half
    python benchmarks/gpu_suite.py OUT --device cpu --size tiny      the same steps, without a GPU

Encoders of BERT-base's and MiniLM-L6's shape with random weights, so accuracies mean nothing here:
what is measured is time, energy and memory. Reductions are of the shape that training makes: a
ticket at level L is without L % of each layer's heads and FFN neurons; exits stand after a third and
two thirds of the layers, and about half of the rows leave at the first; token schedules fall to 30 %.

Every step makes what it needs and leaves OUT/done/STEP. Exit code 3: steps are left, call again.

    OUT/results/STEP/*.json  OUT/traces/*.json  OUT/README.md  OUT/environment.json
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from effx import corpus, files, models, results
from effx.artifacts import Checkpoint, now
from effx.encoding import Encoded, Encoder
from effx.errors import EffxError
from effx.exit_rules import entropy
from effx.export import export_all
from effx.models import exits, tokens
from effx.models.structure import structure
from effx.profile import Plan, environment, meters, profile
from effx.results import Run
from effx.tasks import TASKS
from effx.train import evaluate
from effx.train.demo import tokenizer

_NAMES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
SHAPES = {
    "bert-base": dict(zip(_NAMES, (768, 12, 12, 3072), strict=True)),
    "minilm-l6": dict(zip(_NAMES, (384, 6, 12, 1536), strict=True)),
}
TINY = dict(zip(_NAMES, (64, 3, 4, 128), strict=True))
LEVELS = (20, 40, 50, 60)
ROWS = 256
H200_DENSE_PER_S = {"bf16": 989e12, "fp16": 989e12}
"""NVIDIA's datasheet; the arithmetic floor that times are held beside."""


@dataclass(frozen=True)
class Step:
    """What is done at once, or again if it was cut off."""

    name: str
    run: Callable[[], None]


@dataclass(frozen=True)
class Suite:
    """Where and on what."""

    out: Path
    device: str
    tiny: bool
    window_s: float

    @property
    def half(self) -> str:
        """The precision that reductions are compared in."""
        return "fp16" if self.device == "cuda" else "fp32"

    @property
    def backends(self) -> tuple[str, ...]:
        """What runs the engines: with TensorRT where it is installed."""
        found = ["torch", "torch-compile"]
        if self.device == "cpu" or _onnxruntime_has_cuda():
            found.append("onnxruntime")
        if self.device == "cuda" and importlib.util.find_spec("tensorrt"):
            found.append("tensorrt")
        return tuple(found)

    @property
    def without(self) -> list[str]:
        """What belongs here and is not installed."""
        names = {"tensorrt": "TensorRT is not installed: not measured.",
                 "onnxruntime": "This onnxruntime has no CUDA provider: not measured."}  # fmt: skip
        return [text for name, text in names.items() if name not in self.backends]

    def steps(self) -> list[Step]:
        """Return all steps, the most wanted first."""
        found = [Step("environment", self.environment)]
        for model in SHAPES:
            found += [
                Step(f"{model}-half", partial(self.half_precision, model)),
                Step(f"{model}-tickets", partial(self.tickets, model)),
                Step(f"{model}-others", partial(self.others, model)),
                Step(f"{model}-exits-tokens", partial(self.reductions, model)),
            ]
        return [*found[:3], Step("traces", self.traces), *found[3:]]

    def environment(self) -> None:
        """Write what this is measured on and with."""
        versions = {"torch": torch.__version__, "cuda": torch.version.cuda}
        for package in ("onnxruntime", "tensorrt", "transformers", "onnx"):
            spec = importlib.util.find_spec(package)
            versions[package] = None if spec is None else getattr(__import__(package), "__version__", "?")
        facts = {
            "host": environment.host(),
            "versions": versions,
            "date": now(),
            "backends": self.backends,
            "without": self.without,
        }
        files.write_json(self.out / "environment.json", facts)

    def half_precision(self, model: str) -> None:
        """Measure the full encoder in 16 bits: PyTorch with CUDA graphs, compiled, and TensorRT's plans."""
        wanted = {"torch": [self.half], "torch-compile": [self.half], "tensorrt": ["fp16", "bf16"]}
        if self.device == "cuda":
            wanted["torch-compile"].append("bf16")
        self.measure([self.checkpoint(model, "full")], wanted, f"{model}-half", windows=2)

    def others(self, model: str) -> None:
        """Measure the full encoder in the other precisions and on ONNX Runtime."""
        wanted = {"torch": ["fp32", "bf16"], "onnxruntime": ["fp32", "fp16"],
                  "tensorrt": ["fp32", "int8", "fp8"]}  # fmt: skip
        if self.device == "cpu":
            wanted = {"torch": ["fp32"], "onnxruntime": ["fp32", "int8"]}
        self.measure([self.checkpoint(model, "full")], wanted, f"{model}-others")

    def tickets(self, model: str) -> None:
        """Measure tickets at every level beside the full encoder."""
        names = ["full", *(f"ticket-{level}" for level in LEVELS)]
        backends = [backend for backend in self.backends if backend in ("torch-compile", "tensorrt")]
        wanted = {backend: [self.half] for backend in backends[-1:]}
        self.measure([self.checkpoint(model, name) for name in names], wanted, f"{model}-tickets")

    def reductions(self, model: str) -> None:
        """Measure early exit and token pruning beside the full encoder."""
        length = 32 if self.tiny else 128
        variants = [f"{self.half}+seq{length}{reduction}" for reduction in ("", "+exit", "+tokens")]
        wanted = {backend: variants for backend in self.backends if backend != "torch-compile"}
        self.measure([self.checkpoint(model, "reduced")], wanted, f"{model}-exits-tokens")

    def measure(
        self, checkpoints: list[Path], wanted: dict[str, list[str]], place: str, windows: int = 1
    ) -> None:
        """Build engines that are missing, measure them side by side, write their results at once.

        One energy window of at least ten seconds per workload, or two, the second twice as long, which
        shows whether joules follow the work.
        """
        engines = self.out / "engines" / place
        refused = []
        for backend in (backend for backend in self.backends if backend in wanted):
            built, failures = export_all(
                checkpoints, wanted[backend], [backend], engines, device=self.device, data_folder=self.rows(),
                keep_failed=True, calibration_rows=64,
            )  # fmt: skip
            refused += [str(failure) for failure in failures]
        if refused:
            files.write_json(self.out / "refused" / f"{place}.json", {"refused": refused})
        length = 32 if self.tiny else 128
        batches = (1, 8) if self.tiny else (1, 8, 32, 128, 512)
        plan = Plan(
            scenarios=("single-stream", "offline"), grid=tuple((batch, length) for batch in batches),
            rounds=10 if not self.tiny else 3, grid_rounds=6 if not self.tiny else 3,
            window_s=self.window_s, windows=windows, batch_size=8 if self.tiny else 128,
            warmup_s=2.0, limit=ROWS,
        )  # fmt: skip
        ready, fresh = self.out / "results" / place, self.out / "results" / f".{place}"
        shutil.rmtree(fresh, ignore_errors=True)
        _, failures = profile([engines], out=fresh, plan=plan, data_folder=self.rows())
        for failure in failures:
            print(f"not measured: {failure}", file=sys.stderr)
        shutil.rmtree(ready, ignore_errors=True)  # of a time when it was cut off after this
        fresh.rename(ready)

    def rows(self) -> Path:
        """Return a folder of generated sentences, strung together to real lengths of up to 128 tokens."""
        folder = self.out / "rows"
        if not folder.is_dir():
            rng = np.random.default_rng(0)
            with files.new_folder(folder) as place:
                for split in ("train", "validation"):
                    texts, labels = corpus.split(split)
                    lines = []
                    for label in labels[:ROWS]:
                        count = int(rng.integers(1, 4))
                        chosen = rng.integers(0, len(texts), count)
                        text = " ".join(texts[index] for index in chosen)
                        lines.append(json.dumps({"sentence": text, "label": int(label)}) + "\n")
                    (place / f"{split}.jsonl").write_text("".join(lines))
        return folder

    def checkpoint(self, model: str, name: str) -> Path:
        """Return a checkpoint with random weights, made if it is missing."""
        folder = self.out / "checkpoints" / f"{model}-{name}"
        if Checkpoint.find(folder):
            return folder
        words = tokenizer(corpus.texts("train")[:2000])
        shape = TINY if self.tiny else SHAPES[model]
        torch.manual_seed(0)
        config = AutoConfig.for_model("bert", vocab_size=len(words) if self.tiny else 30522,
                                      max_position_embeddings=128 if self.tiny else 512, num_labels=2,
                                      pad_token_id=0, **shape)  # fmt: skip
        made = AutoModelForSequenceClassification.from_config(config).eval()
        more: dict[str, Any] = {}
        if name.startswith("ticket-"):
            cut(made, int(name.split("-")[1]) / 100)
        if name == "reduced":
            layers = shape["num_hidden_layers"]
            exits.add_ramps(made, after=(round(layers / 3), round(2 * layers / 3)))
            tokens.schedule(made, shares=np.linspace(1.0, 0.3, layers).tolist())
            more["exits"] = {"rule": "entropy", "threshold": None, "patience": 1}
        task, length = TASKS["sst2"], 32 if self.tiny else 128
        keep = {"model": f"{model} with random weights", "seed": 0, "training": {"regime": "none"},
                "metrics": {}, "parent": None, "max_length": length, "data": str(self.rows())}  # fmt: skip
        if "exits" in more:
            more["exits"]["threshold"] = self.threshold(made, words)
        models.save(made, folder, tokenizer=words, task=task, **keep, **more)
        return folder

    def threshold(self, model: Any, words: Any) -> float:
        """Return the entropy below which half of the rows leave at the first ramp.

        The rows are of the longest length and of ids in the task's order, as those of the grid: random
        ramps tell lengths apart more than texts.
        """
        place, length, n = self.out / "words", 32 if self.tiny else 128, 128
        words.save_pretrained(place)
        model.config.save_pretrained(place)
        texts = [(json.loads(line)["sentence"],) for line in (self.rows() / "validation.jsonl").open()]
        own = Encoder(place, length)(texts)
        rng = np.random.default_rng(0)
        ids = np.stack([np.resize(np.roll(own.ids, -rng.integers(len(own.ids))), length) for _ in range(n)])
        rows = Encoded(ids.reshape(-1), np.zeros(n * length, np.int8), np.arange(n + 1) * length, own.pad_id)
        return float(np.median(entropy(evaluate.head_logits(model, rows, prune_tokens=False)[0])))

    def traces(self) -> None:
        """Record the counter and the power of idle, steady and bursty work, as replay fixtures."""
        try:
            meter: Any = meters.nvml.open("")
        except meters.UnavailableError as error:
            print(f"no traces: {error}", file=sys.stderr)
            return
        shape = torch.empty(4096, 4096, device="cuda", dtype=torch.bfloat16).normal_()

        def work(seconds: float) -> None:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                for _ in range(20):
                    torch.mm(shape, shape)
                torch.cuda.synchronize()

        def bursts(on_s: float, off_s: float, times: int) -> None:
            for _ in range(times):
                work(on_s)
                time.sleep(off_s)

        patterns: dict[str, Callable[[], None]] = {
            "idle": lambda: time.sleep(12.0),
            "steady": lambda: work(14.0),
            "bursts-200ms": lambda: bursts(0.2, 0.2, 35),
            "bursts-25ms": lambda: bursts(0.025, 0.075, 140),
        }
        try:
            identity = meter.describe()
            for name, pattern in patterns.items():
                sampler = meter.sampler
                meter.start()
                pattern()
                sampler.halt()
                samples, error = sampler.stop()
                if error is not None:
                    raise error
                zero_s, zero_j = samples[0].after_s, samples[0].counter_j
                trace: dict[str, Any] = {
                    "device": f"{identity['device']}, driver {identity['driver']}",
                    "recorded": now(),
                    "command": f"python benchmarks/gpu_suite.py OUT --steps traces ({name})",
                    "power_by": identity["power_by"],
                    "power_window_s": identity["power_window_s"],
                    "t_s": [round(sample.after_s - zero_s, 6) for sample in samples],
                }
                if zero_j is not None:
                    trace["counter_j"] = [round(sample.counter_j - zero_j, 3) for sample in samples]
                if samples[0].power_w is not None:
                    trace["power_w"] = [sample.power_w for sample in samples]
                files.write_json(self.out / "traces" / f"{name}.json", trace)
        finally:
            meter.close()


def _onnxruntime_has_cuda() -> bool:
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def cut(model: Any, share: float) -> None:
    """Take a share of each layer's heads and FFN neurons away."""
    heads, neurons = {}, {}
    for place, layer in enumerate(structure(model).layers):
        heads[place] = list(range(round(share * len(layer.heads))))
        neurons[place] = list(range(round(share * layer.intermediate / 64) * 64))
    models.prune(model, heads=heads, neurons=neurons)


def write_page(suite: Suite, command: str) -> None:
    """Write OUT/README.md from the results that are there."""
    facts = json.loads((suite.out / "environment.json").read_bytes())
    runs, failures = results.read(sorted((suite.out / "results").glob("[!.]*")))
    gpu = facts["host"]["gpu"]
    where = gpu[0]["name"] if gpu else facts["host"]["cpu"]
    lines = [
        f"# {where}",
        "",
        f"    {command}",
        "",
        f"{facts['date']}; {', '.join(f'{name} {version}' for name, version in facts['versions'].items())}.",
        "Random weights: times, joules and bytes are measured, accuracies mean nothing. p50 in ms: single",
        "queries at real lengths end to end and on the device alone, and a batch of 128 x 128 on the device.",
        "Joules per example are gross, of the offline scenario.",
        *(f"\n**{missing}**" for missing in suite.without),
        "",
        "| engine | single | on device | not on device | 128x128 | x floor | mJ/example | meters apart "
        "| GPU MiB | gates failed |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(row(run) for run in runs),
        "",
    ]
    for path in sorted((suite.out / "refused").glob("*.json")):
        lines += [f"Not built: {reason}" for reason in json.loads(path.read_bytes())["refused"]]
    lines += [f"Not measured: {failure.failure}" for failure in failures]
    (suite.out / "README.md").write_text("\n".join(lines) + "\n")


def row(run: Run) -> str:
    """Return one engine's line."""
    single, device = run.workload("single-stream"), run.workload("single-stream", timing="device")
    large = run.workload("grid", 128, 128, "device")
    offline = next((own for own in run.workloads if own.scenario == "offline"), None)
    energy = None if offline is None else offline.energy
    apart = [abs(window["joules"] / window["integrated_joules"] - 1)
             for window in (energy.windows if energy else []) if window["integrated_joules"]]  # fmt: skip
    floor = floor_s(run, 128, 128)
    p50 = None if large is None else large.latency_s["p50"]
    cells = [
        run.name,
        ms(single and single.latency_s["p50"]),
        ms(device and device.latency_s["p50"]),
        "–" if run.launch_share is None else f"{run.launch_share:.0%}",
        ms(p50),
        "–" if floor is None or p50 is None else f"{p50 / floor:.2f}",
        "–" if energy is None or energy.gross is None else f"{energy.gross * 1e3:.3g} ({energy.source})",
        f"{max(apart):.1%}" if apart else "–",
        "–" if run.memory["device_peak_bytes"] is None else f"{run.memory['device_peak_bytes'] / 2**20:.0f}",
        "; ".join(run.flags) or "none",
    ]
    return "| " + " | ".join(cells) + " |"


def floor_s(run: Run, batch: int, length: int) -> float | None:
    """Return the seconds that the full encoder's products alone take at the H200's peak; None: not known."""
    peak = H200_DENSE_PER_S.get(str(run.engine["precision"]))
    gpus = run.host.get("gpu") or []
    if peak is None or not gpus or "H200" not in gpus[0]["name"]:
        return None
    shape = SHAPES["bert-base" if "bert-base" in run.name else "minilm-l6"]
    width, inner = shape["hidden_size"], shape["intermediate_size"]
    per_token = 2 * (4 * width * width + 2 * width * inner) + 4 * length * width
    return shape["num_hidden_layers"] * per_token * batch * length / peak


def ms(seconds: Any) -> str:
    return "–" if seconds is None or not math.isfinite(seconds) else f"{seconds * 1e3:.3g}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no step after so long")
    parser.add_argument("--steps", default="", help="only these, by name, separated by commas")
    parser.add_argument("--window-s", type=float, default=10.0, help="shortest energy window")
    options = parser.parse_args()
    started = time.perf_counter()
    suite = Suite(options.out, options.device, options.size == "tiny", options.window_s)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here; --device cpu --size tiny tries the steps without one", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    steps = suite.steps()
    asked = set(filter(None, options.steps.split(",")))
    if wrong := asked - {step.name for step in steps}:
        print(
            f"no step {', '.join(sorted(wrong))}; there are {', '.join(s.name for s in steps)}",
            file=sys.stderr,
        )
        return 2
    left = failed = 0
    for step in steps:
        marker = options.out / "done" / step.name
        if marker.is_file() or (asked and step.name not in asked):
            continue
        if time.perf_counter() - started > options.seconds:
            left += 1
            continue
        began = time.perf_counter()
        try:
            step.run()
        except EffxError as error:  # another step may do
            print(f"{step.name}: {error}", file=sys.stderr)
            failed += 1
            continue
        files.write_atomic(marker, f"{time.perf_counter() - began:.1f} s\n".encode())
        print(f"{step.name}: done in {time.perf_counter() - began:.1f} s", file=sys.stderr)
        if (options.out / "environment.json").is_file():
            write_page(suite, " ".join(["python", "benchmarks/gpu_suite.py", *sys.argv[1:]]))
    if left:
        print(f"{left} steps are left: call again", file=sys.stderr)
    return 3 if left else int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
