"""The steps of gpu_suite.py that create and measure encoders with random weights.

    python benchmarks/gpu_steps.py OUT STEP --device cuda --size full --window-s 10

Encoders have the shapes of BERT-base and MiniLM-L6. Reductions have the shapes that training gives: a ticket
at level L has L % of each layer's heads and FFN neurons pruned; exits are after a third and two thirds of the
layers, and about half of the rows exit at the first; token schedules decrease to 30 %.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_plan import NAMES, SHAPES, EngineSet, Plan
from transformers import AutoConfig, AutoModelForSequenceClassification

from effx import corpus, data, files, models
from effx.artifacts import Checkpoint, now
from effx.demo.pretraining import tokenizer
from effx.encoding import Encoded, Encoder
from effx.errors import EffxError, UsageError
from effx.export import export_all
from effx.host import identity
from effx.host.sensors import UnavailableError
from effx.manifests import ExitCalibration, ExitsRecord, ExitTarget, ExitValidation
from effx.meters import nvml
from effx.models import evaluate, exits, tokens
from effx.models.structure import structure
from effx.profile import journal, profile, resume
from effx.specs import exit_rules
from effx.specs.exit_rules import ExitRule, entropy
from effx.specs.measurement import MeasurementPlan
from effx.specs.tasks import TASKS

TINY = dict(zip(NAMES, (64, 3, 4, 128), strict=True))
ROWS = 256


@dataclass(frozen=True)
class Steps:
    """The steps, for one output folder, device and size."""

    out: Path
    device: str
    tiny: bool
    window_s: float

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

    @property
    def plan(self) -> Plan:
        return Plan(self.out, self.device, self.tiny, self.window_s, backends=self.backends)

    def run(self, name: str) -> None:
        """Do a step.

        Raises:
            UsageError: there is no such step.
            EffxError: the step fails.
        """
        if name in ("environment", "traces"):
            getattr(self, name)()
            return
        sets = {each.name: each for model in SHAPES for each in self.plan.comparisons(model)}
        engine_set = sets.get(name.removesuffix("-build"))
        if engine_set is None:
            raise UsageError(f"no step {name}: choose from environment, traces, {', '.join(sets)}.")
        if not engine_set.wanted:
            print("no runtime of these engines is installed", file=sys.stderr)
        elif name.endswith("-build"):
            self.build(engine_set)
        else:
            self.measure(engine_set)

    def environment(self) -> None:
        """Write host and versions."""
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
        files.write_json(self.out / "environment.json", facts)

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
        self.build(engine_set)  # builds what is missing, as on a machine that has only the results so far
        ready, fresh = self.out / "results" / engine_set.name, self.out / "results" / f".{engine_set.name}"
        failures = self._resumed(fresh)
        if failures is None:
            shutil.rmtree(fresh, ignore_errors=True)
            engines = self.out / "engines" / engine_set.name
            _, failures = profile(
                [engines], out=fresh, plan=self.measurement(engine_set), data_folder=self.rows()
            )
        for failure in failures:
            print(f"not measured: {failure}", file=sys.stderr)
        shutil.rmtree(ready, ignore_errors=True)  # left over from an interruption after this line
        fresh.rename(ready)

    def _resumed(self, folder: Path) -> list[Any] | None:
        """Continue an interrupted session and return its failures; None: there is none to continue."""
        left = sorted((folder / journal.FOLDER).glob("*.jsonl"))
        if not left:
            return None
        try:
            return resume(left[-1].stem, out=folder)[1]
        except UsageError as error:  # the engines were built again, on another machine
            print(f"measured from the start: {error}", file=sys.stderr)
            return None

    def measurement(self, engine_set: EngineSet) -> MeasurementPlan:
        """Return what is measured."""
        batches = (1, 8) if self.tiny else (1, 8, 32, 128, 512)
        return MeasurementPlan(
            scenarios=("single-stream", "offline"),
            grid=tuple((batch, self.plan.length) for batch in batches),
            rounds=8 if not self.tiny else 3, grid_rounds=6 if not self.tiny else 3,
            window_s=self.window_s, windows=engine_set.windows, batch_size=8 if self.tiny else 128,
            warmup_s=2.0, limit=ROWS,
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
        if name.startswith("ticket-"):
            prune_uniformly(model_, int(name.split("-")[1]) / 100)
        if name == "reduced":
            layers = shape["num_hidden_layers"]
            exits.add_ramps(model_, after=(round(layers / 3), round(2 * layers / 3)))
            tokens.schedule(model_, shares=np.linspace(1.0, 0.3, layers).tolist())
        task = TASKS["sst2"]
        models.save(
            model_, folder, tokenizer=words, task=task, model=f"{model} with random weights", seed=0,
            max_length=self.plan.length, data=data.recorded(task, self.rows()),
            exits=self.exits(model_, words) if name == "reduced" else None,
        )  # fmt: skip
        return folder

    def exits(self, model: Any, words: Any) -> ExitsRecord:
        """Return early exits by which half of the rows exit at the first ramp.

        The rows have the maximum length and token ids in the task's order, as in the grid: the outputs of
        random ramps depend more on the length than on the text. Scores are the agreement with the final head.
        """
        folder, length, n = self.out / "words", self.plan.length, 128
        words.save_pretrained(folder)
        model.config.save_pretrained(folder)
        lines = (self.rows() / "validation.jsonl").read_text().splitlines()
        texts = [(json.loads(line)["sentence"],) for line in lines]
        encoded = Encoder(folder, length)(texts)
        rng = np.random.default_rng(0)
        ids = np.stack(
            [np.resize(np.roll(encoded.ids, -rng.integers(len(encoded.ids))), length) for _ in range(n)]
        )
        rows = Encoded(
            ids.reshape(-1), np.zeros(n * length, np.int8), np.arange(n + 1) * length, encoded.pad_id
        )
        logits = evaluate.head_logits(model, rows, prune_tokens=False)
        rule = ExitRule("entropy", float(np.median(entropy(logits[0]))))
        final = logits[-1].argmax(1)
        point = exit_rules.evaluate(
            rule,
            logits,
            np.array(exits.depths(model)),
            lambda chosen: float((chosen.argmax(1) == final).mean()),
        )
        depth = point.mean_depth
        return ExitsRecord(
            rule=rule,
            mode="two-stage",
            target=ExitTarget(depth=depth),
            calibration=ExitCalibration(
                rows=n, seen_in_training=False, mean_depth=depth, score=point.score, final_head=1.0,
                points=(point,),
            ),
            validation=ExitValidation(
                scores={"accuracy": point.score}, mean_depth=depth, layers=len(structure(model).layers),
                lost=1.0 - point.score, lost_at_least=None,
            ),
        )  # fmt: skip

    def traces(self) -> None:
        """Record energy counter and power of idle, steady and bursty work, as test data for replay."""
        try:
            meter: Any = nvml.open()
        except UnavailableError as error:
            if self.device == "cuda":
                raise EffxError(f"no traces: {error}") from error
            print(f"no traces: {error}", file=sys.stderr)
            return
        size = 64 if self.tiny else 4096
        matrix = torch.empty(size, size, device=self.device, dtype=torch.bfloat16).normal_()
        scale = 0.05 if self.tiny else 1.0

        def work(seconds: float) -> None:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                for _ in range(20):
                    torch.mm(matrix, matrix)
                if self.device == "cuda":
                    torch.cuda.synchronize()

        def bursts(on_s: float, off_s: float, times: int) -> None:
            for _ in range(round(scale * times)):
                work(on_s)
                time.sleep(off_s)

        patterns: dict[str, Callable[[], None]] = {
            "idle": lambda: time.sleep(scale * 12.0),
            "steady": lambda: work(scale * 14.0),
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


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("step")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--window-s", type=float, default=10.0, help="minimum length of an energy window, s")
    return parser


def main() -> int:
    options = arguments().parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        Steps(options.out, options.device, options.size == "tiny", options.window_s).run(options.step)
    except EffxError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
