"""All measurements on a GPU, in steps that can be interrupted and resumed.

    python benchmarks/gpu_suite.py OUT                               all steps
    python benchmarks/gpu_suite.py OUT --seconds 580                 steps expected to end by then
    python benchmarks/gpu_suite.py OUT --steps traces,bert-base-half-build,bert-base-half
    python benchmarks/gpu_suite.py OUT --encoder MINILM --data DATA  also train super tickets
    python benchmarks/gpu_suite.py OUT --device cpu --size tiny      the same steps, without a GPU

Encoders have the shapes of BERT-base and MiniLM-L6 and random weights, so accuracies mean nothing here;
time, energy and memory are measured. Reductions have the shapes that training gives: a ticket at level L
has L % of each layer's heads and FFN neurons pruned; exits are after a third and two thirds of the layers,
and about half of the rows exit at the first; token schedules decrease to 30 %.

With ``--encoder`` and ``--data`` (a folder per task), tickets of a real encoder are trained too: rte, mrpc,
cola, stsb and sst2, levels 10 to 80, five seeds. Completed cells are skipped, and checkpoints are deleted.

Every step creates what it needs and then writes OUT/done/STEP. Exit code 3: steps remain, run it again. Use
one OUT per GPU model.

    OUT/results/STEP/*.json  OUT/traces/*.json  OUT/tickets/TASK/  OUT/README.md  OUT/environment.json
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
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gpu_page
import numpy as np
import torch
from gpu_page import NAMES, SHAPES
from transformers import AutoConfig, AutoModelForSequenceClassification

from effx import corpus, files, meters, models
from effx.artifacts import Checkpoint, now
from effx.demo.pretraining import tokenizer
from effx.encoding import Encoded, Encoder
from effx.errors import EffxError, UsageError
from effx.export import export_all
from effx.host import identity
from effx.models import evaluate, exits, tokens
from effx.models.structure import structure
from effx.profile import profile
from effx.specs.exit_rules import entropy
from effx.specs.measurement import MeasurementPlan
from effx.specs.tasks import TASKS

TINY = dict(zip(NAMES, (64, 3, 4, 128), strict=True))
LEVELS = (20, 40, 50, 60)
ROWS = 256
TICKET_TASKS = ("rte", "mrpc", "cola", "stsb", "sst2")
BUILD_S, MEASURE_S, WINDOW_S, START_S = 30.0, 45.0, 10.0, 20.0
"""Assumed seconds for building an engine, measuring it without energy, an energy window, and starting a
step; ``--seconds`` uses them."""


@dataclass(frozen=True)
class Step:
    """A unit of work, repeated from the start if it was interrupted."""

    name: str
    run: Callable[[], None]
    expected_s: float = START_S


@dataclass(frozen=True)
class EngineSet:
    """Engines that are measured in one session."""

    name: str
    checkpoints: tuple[str, ...]
    wanted: dict[str, list[str]]
    """Backend -> variants."""
    windows: int = 1
    """Energy windows per workload; of two, the second is twice as long, to check that energy is linear."""

    @property
    def engines(self) -> int:
        return len(self.checkpoints) * sum(map(len, self.wanted.values()))


@dataclass(frozen=True)
class Suite:
    """The steps for one output folder, device and size."""

    out: Path
    device: str
    tiny: bool
    window_s: float
    encoder: str | None = None
    data: Path | None = None

    @property
    def half(self) -> str:
        """The precision in which reductions are compared."""
        return "fp16" if self.device == "cuda" else "fp32"

    @property
    def backends(self) -> tuple[str, ...]:
        """The available backends, including TensorRT where it is installed."""
        backends = ["torch", "torch-compile"]
        if self.device == "cpu" or _onnxruntime_has_cuda():
            backends.append("onnxruntime")
        if self.device == "cuda" and importlib.util.find_spec("tensorrt"):
            backends.append("tensorrt")
        return tuple(backends)

    @property
    def without(self) -> list[str]:
        """Backends of the suite that are not installed."""
        names = {"tensorrt": "TensorRT is not installed: not measured.",
                 "onnxruntime": "This onnxruntime has no CUDA provider: not measured."}  # fmt: skip
        return [text for name, text in names.items() if name not in self.backends]

    def steps(self) -> list[Step]:
        """Return all steps, the most important first."""
        measured: list[Step] = []
        for model in SHAPES:
            for engine_set in self.comparisons(model):
                windows = engine_set.windows + (engine_set.windows > 1)  # the last window is twice as long
                energy_s = 2 * windows * max(WINDOW_S, self.window_s)
                measured += [
                    Step(f"{engine_set.name}-build", partial(self.build, engine_set),
                         START_S + engine_set.engines * BUILD_S),
                    Step(engine_set.name, partial(self.measure, engine_set),
                         START_S + engine_set.engines * (MEASURE_S + energy_s)),
                ]  # fmt: skip
        trained = []
        if self.encoder and self.data:
            trained = [Step(f"tickets-{task}", partial(self.tickets, task)) for task in TICKET_TASKS]
        return [*measured[:4], Step("traces", self.traces, 90.0), *measured[4:], *trained]

    def comparisons(self, model: str) -> list[EngineSet]:
        """Return the engines of an encoder: precisions, tickets, early exit and token pruning."""
        half, length = self.half, 32 if self.tiny else 128
        on_cpu = self.device == "cpu"
        first = {"torch": [half], "torch-compile": [half], "tensorrt": ["fp16", "bf16"]}
        others = {"torch": ["fp32", "bf16"], "onnxruntime": ["fp32", "fp16"],
                  "tensorrt": ["fp32", "int8", "fp8"]}  # fmt: skip
        if on_cpu:
            others = {"torch": ["fp32"], "onnxruntime": ["fp32", "int8"]}
        else:
            first["torch-compile"].append("bf16")
        best = [backend for backend in ("tensorrt", "onnxruntime") if backend in self.backends][:1]
        tickets = dict.fromkeys(dict.fromkeys(["torch-compile", *best]), [half])
        reductions = [f"{half}+seq{length}{reduction}" for reduction in ("", "+exit", "+tokens")]
        reduced = {backend: list(reductions) for backend in ("torch", "onnxruntime", "tensorrt")}
        for backend in ("onnxruntime", "tensorrt"):  # PyTorch programs have no If
            reduced[backend].append(f"{half}+seq{length}+exit-if")
        levels = ("full", *(f"ticket-{level}" for level in LEVELS))
        engine_sets = [
            EngineSet(f"{model}-half", ("full",), first, windows=2),
            *(EngineSet(f"{model}-tickets-{backend}", levels, {backend: variants})
              for backend, variants in tickets.items()),
            EngineSet(f"{model}-others", ("full",), others),
            EngineSet(f"{model}-exits-tokens", ("reduced",), reduced),
        ]  # fmt: skip
        here = self.backends
        return [
            replace(each, wanted={name: variants for name, variants in each.wanted.items() if name in here})
            for each in engine_sets
        ]

    def environment(self) -> None:
        """Write host and versions.

        Raises:
            UsageError: OUT has results of another GPU model.
        """
        versions = {"torch": torch.__version__, "cuda": torch.version.cuda}
        for package in ("onnxruntime", "tensorrt", "transformers", "onnx"):
            spec = importlib.util.find_spec(package)
            versions[package] = None if spec is None else getattr(__import__(package), "__version__", "?")
        facts = {
            "host": identity.host().to_json(),
            "versions": versions,
            "date": now(),
            "backends": self.backends,
            "without": self.without,
        }
        path = self.out / "environment.json"
        if path.is_file():
            before, here = (
                gpu_page.where(json.loads(path.read_bytes())["host"]),
                gpu_page.where(facts["host"]),
            )
            if before != here:
                raise UsageError(
                    f"{self.out} has results of {before}, but this machine has {here}: use another OUT."
                )
        files.write_json(path, facts)

    def build(self, engine_set: EngineSet) -> None:
        """Build the missing engines."""
        checkpoints = [self.checkpoint(engine_set.name, name) for name in engine_set.checkpoints]
        refused = []
        for backend, variants in engine_set.wanted.items():
            _, failures = export_all(
                checkpoints, variants, [backend], self.out / "engines" / engine_set.name, device=self.device,
                data_folder=self.rows(), keep_failed=True, calibration_rows=64,
            )  # fmt: skip
            refused += [str(failure) for failure in failures]
        if refused:
            files.write_json(self.out / "refused" / f"{engine_set.name}.json", {"refused": refused})

    def measure(self, engine_set: EngineSet) -> None:
        """Measure the engines in one session, and write their results together."""
        if not (self.out / "done" / f"{engine_set.name}-build").is_file():
            self.build(engine_set)
        length = 32 if self.tiny else 128
        batches = (1, 8) if self.tiny else (1, 8, 32, 128, 512)
        plan = MeasurementPlan(
            scenarios=("single-stream", "offline"), grid=tuple((batch, length) for batch in batches),
            rounds=8 if not self.tiny else 3, grid_rounds=6 if not self.tiny else 3,
            window_s=self.window_s, windows=engine_set.windows, batch_size=8 if self.tiny else 128,
            warmup_s=2.0, limit=ROWS,
        )  # fmt: skip
        ready, fresh = self.out / "results" / engine_set.name, self.out / "results" / f".{engine_set.name}"
        shutil.rmtree(fresh, ignore_errors=True)
        engines = self.out / "engines" / engine_set.name
        _, failures = profile([engines], out=fresh, plan=plan, data_folder=self.rows())
        for failure in failures:
            print(f"not measured: {failure}", file=sys.stderr)
        shutil.rmtree(ready, ignore_errors=True)  # left over from an interruption after this line
        fresh.rename(ready)

    def tickets(self, task: str) -> None:
        """Train super tickets of the encoder; checkpoints are deleted, so that OUT remains small."""
        from effx.recipe import sweeps
        from effx.specs.training import TicketSearchSettings

        assert self.encoder and self.data
        settings = TicketSearchSettings.of(seeds=5, keep="none", limit=64 if self.tiny else None)
        if self.tiny:
            settings = settings.replace(levels="40", seeds=1, max_steps=4, max_length=32)
        sweeps.tickets(
            task, self.encoder, out=self.out / "tickets" / task, data_folder=self.data / task,
            settings=settings,
        )  # fmt: skip

    def rows(self) -> Path:
        """Return a folder of generated texts of one to three sentences, up to 77 tokens."""
        folder = self.out / "rows"
        if not folder.is_dir():
            rng = np.random.default_rng(0)
            with files.new_folder(folder) as temporary:
                for split in ("train", "validation"):
                    texts, labels = corpus.split(split)
                    lines = []
                    for label in labels[:ROWS]:
                        count = int(rng.integers(1, 4))
                        chosen = rng.integers(0, len(texts), count)
                        text = " ".join(texts[index] for index in chosen)
                        lines.append(json.dumps({"sentence": text, "label": int(label)}) + "\n")
                    (temporary / f"{split}.jsonl").write_text("".join(lines))
        return folder

    def checkpoint(self, comparison: str, name: str) -> Path:
        """Return a checkpoint with random weights; create it if missing."""
        model = next(model for model in SHAPES if comparison.startswith(model))
        folder = self.out / "checkpoints" / f"{model}-{name}"
        if Checkpoint.find(folder):
            return folder
        words = tokenizer(corpus.texts("train")[:2000])
        shape = TINY if self.tiny else SHAPES[model]
        torch.manual_seed(0)
        config = AutoConfig.for_model("bert", vocab_size=len(words) if self.tiny else 30522,
                                      max_position_embeddings=128 if self.tiny else 512, num_labels=2,
                                      pad_token_id=0, **shape)  # fmt: skip
        model_ = AutoModelForSequenceClassification.from_config(config).eval()
        more: dict[str, Any] = {}
        if name.startswith("ticket-"):
            prune_uniformly(model_, int(name.split("-")[1]) / 100)
        if name == "reduced":
            layers = shape["num_hidden_layers"]
            exits.add_ramps(model_, after=(round(layers / 3), round(2 * layers / 3)))
            tokens.schedule(model_, shares=np.linspace(1.0, 0.3, layers).tolist())
            more["exits"] = {"rule": "entropy", "threshold": None, "patience": 1}
        task, length = TASKS["sst2"], 32 if self.tiny else 128
        keep = {"model": f"{model} with random weights", "seed": 0, "training": {"regime": "none"},
                "metrics": {}, "parent": None, "max_length": length, "data": str(self.rows())}  # fmt: skip
        if "exits" in more:
            more["exits"]["threshold"] = self.threshold(model_, words)
        models.save(model_, folder, tokenizer=words, task=task, **keep, **more)
        return folder

    def threshold(self, model: Any, words: Any) -> float:
        """Return the entropy below which half of the rows exit at the first ramp.

        The rows have the maximum length and token ids in the task's order, as in the grid: the outputs of
        random ramps depend more on the length than on the text.
        """
        folder, length, n = self.out / "words", 32 if self.tiny else 128, 128
        words.save_pretrained(folder)
        model.config.save_pretrained(folder)
        texts = [(json.loads(line)["sentence"],) for line in (self.rows() / "validation.jsonl").open()]
        encoded = Encoder(folder, length)(texts)
        rng = np.random.default_rng(0)
        ids = np.stack(
            [np.resize(np.roll(encoded.ids, -rng.integers(len(encoded.ids))), length) for _ in range(n)]
        )
        rows = Encoded(
            ids.reshape(-1), np.zeros(n * length, np.int8), np.arange(n + 1) * length, encoded.pad_id
        )
        return float(np.median(entropy(evaluate.head_logits(model, rows, prune_tokens=False)[0])))

    def traces(self) -> None:
        """Record energy counter and power of idle, steady and bursty work, as test data for replay."""
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


def prune_uniformly(model: Any, share: float) -> None:
    """Prune a share of each layer's heads and FFN neurons."""
    heads, neurons = {}, {}
    for index, layer in enumerate(structure(model).layers):
        heads[index] = list(range(round(share * len(layer.heads))))
        neurons[index] = list(range(round(share * layer.intermediate / 64) * 64))
    models.prune(model, heads=heads, neurons=neurons)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument(
        "--seconds",
        type=float,
        default=math.inf,
        help="start no step that is expected to end later (at least one is run)",
    )
    parser.add_argument("--steps", default="", help="names of steps to run, separated by commas")
    parser.add_argument("--window-s", type=float, default=10.0, help="minimum length of an energy window, s")
    parser.add_argument("--encoder", help="folder or name of an encoder to train tickets of")
    parser.add_argument("--data", type=Path, help="folder with a folder of rows per task, for --encoder")
    options = parser.parse_args()
    started = time.perf_counter()
    suite = Suite(options.out, options.device, options.size == "tiny", options.window_s, options.encoder,
                  options.data)  # fmt: skip
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no GPU available; --device cpu --size tiny runs the steps without one", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    steps = suite.steps()
    selected = set(filter(None, options.steps.split(",")))
    if wrong := selected - {step.name for step in steps}:
        print(
            f"unknown step {', '.join(sorted(wrong))}: choose from {', '.join(s.name for s in steps)}",
            file=sys.stderr,
        )
        return 2
    try:
        suite.environment()
    except EffxError as error:
        print(error, file=sys.stderr)
        return 2
    left = failed = tried = 0
    for step in steps:
        marker = options.out / "done" / step.name
        if marker.is_file() or (selected and step.name not in selected):
            continue
        if tried and time.perf_counter() - started + step.expected_s > options.seconds:
            left += 1
            continue
        tried += 1
        began = time.perf_counter()
        try:
            step.run()
        except EffxError as error:  # other steps may succeed
            print(f"{step.name}: {error}", file=sys.stderr)
            failed += 1
            continue
        files.write_atomic(marker, f"{time.perf_counter() - began:.1f} s\n".encode())
        print(f"{step.name}: done in {time.perf_counter() - began:.1f} s", file=sys.stderr)
        command = " ".join(["python", "benchmarks/gpu_suite.py", *sys.argv[1:]])
        gpu_page.write(options.out, command, suite.without)
    if left:
        print(f"{left} steps remain: run the same command again", file=sys.stderr)
    return 3 if left else int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
