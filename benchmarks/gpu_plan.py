"""What gpu_suite.py runs, as data: its steps in order, with commands, expected time and inputs.

Imports neither effx nor a package, so that a plan can be printed, and missing packages be named, anywhere.

    plan.steps()      [Step]    the first ones first, if time is short
    step.commands     what is run, one after the other; a command may be started several times in parallel
    step.needs        without these inputs the step is skipped
    step.uses         with these inputs the step measures more
"""

from __future__ import annotations

import math
import re
import shlex
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STEP_LIMIT_S = 600.0
"""Maximum seconds of a step. A step that is stopped continues when the suite is run again, if it can."""
NAMES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
SHAPES = {
    "bert-base": dict(zip(NAMES, (768, 12, 12, 3072), strict=True)),
    "minilm-l6": dict(zip(NAMES, (384, 6, 12, 1536), strict=True)),
}
LEVELS = (20, 40, 50, 60)
TICKET_TASKS = ("rte", "mrpc", "cola", "stsb", "sst2")
SHARED_TASKS = ("rte", "mrpc", "stsb", "cola")
"""Those of recipes/ticket-sharing.yaml."""
TRAINING_ROWS = {"rte": 2490, "mrpc": 3668, "cola": 8551, "stsb": 5749, "sst2": 67349}
BATCH_SIZE, EPOCHS = 32, 3
GPU_TESTS = "tests/engines/test_gpu.py"
"""The file of the tests with the mark ``gpu``; collecting all tests takes a minute, and more packages."""
EXTRAS = ("train", "export", "nvml", "report")
MORE = ("onnxruntime-gpu", "tensorrt")
"""Runtimes that are measured where they are installed."""
TEST_PACKAGES = ("pytest", "pytest-timeout", "hypothesis")
BUILD_S, MEASURE_S, WINDOW_S, START_S = 30.0, 45.0, 10.0, 20.0
"""Assumed seconds for building an engine, measuring it without energy, an energy window, and starting a
command. No GPU has confirmed them yet; the summary lists what each step took."""
SWEEP_LEAST_S = 60.0
"""Seconds that are worth starting a sweep for: what it has trained by then is kept."""
TRAINING_STEP_S, FINETUNE_S = 0.02, 4.0
"""Assumed seconds of a training step of a small encoder with 32 rows, and of the rest of a fine-tuning."""


@dataclass(frozen=True)
class Command:
    """A command line."""

    arguments: tuple[str, ...]
    copies: int = 1
    """Processes that are started with it; they divide the work by a common workspace."""
    answers: tuple[int, ...] = ()
    """Exit codes, besides 0, that are a result and not a failure."""

    def __str__(self) -> str:
        text = shlex.join(("python", *self.arguments))
        return text if self.copies == 1 else f"{text}   (x {self.copies})"


@dataclass(frozen=True)
class Input:
    """Something that must be on the machine."""

    kind: str
    """``package``, ``encoder``, ``rows`` or ``step``."""
    name: str
    """Distribution, folder, or step that must be done."""


@dataclass(frozen=True)
class Step:
    """A unit of work."""

    name: str
    title: str
    commands: tuple[Command, ...]
    expected_s: float
    needs: tuple[Input, ...] = ()
    uses: tuple[Input, ...] = ()
    resumes: bool = False
    """Whether a run that was stopped continues; otherwise the step is repeated from its start."""
    least_s: float = math.inf
    """It is started if so many seconds, or those that are expected, are left."""
    creates: Path | None = None
    """What other steps need of it: without it, the step is not done."""

    @property
    def limit_s(self) -> float:
        return STEP_LIMIT_S

    def to_json(self) -> dict[str, Any]:
        return {
            "step": self.name,
            "title": self.title,
            "expected_min": round(self.expected_s / 60, 1),
            "resumes": self.resumes,
            "needs": [{"kind": each.kind, "name": each.name} for each in self.needs],
            "uses": [{"kind": each.kind, "name": each.name} for each in self.uses],
            "commands": [
                {"arguments": list(each.arguments), "copies": each.copies, "answers": list(each.answers)}
                for each in self.commands
            ],
        }


@dataclass(frozen=True)
class EngineSet:
    """Engines that are measured in one session."""

    name: str
    title: str
    checkpoints: tuple[str, ...]
    wanted: dict[str, list[str]]
    """Backend -> variants."""
    windows: int = 1
    """Energy windows per workload; of two, the second is twice as long, to check that energy is linear."""

    @property
    def engines(self) -> int:
        return len(self.checkpoints) * sum(map(len, self.wanted.values()))


@dataclass(frozen=True)
class Plan:
    """The steps for one output folder, device and size."""

    out: Path
    device: str = "cuda"
    tiny: bool = False
    window_s: float = WINDOW_S
    encoder: str | None = None
    data: Path | None = None
    workers: int = 8
    """Processes that share a sweep of fine-tunings."""
    backends: tuple[str, ...] = ("torch", "torch-compile", "onnxruntime", "tensorrt")
    """Those whose engines are measured; the time that is expected follows from them."""

    @property
    def half(self) -> str:
        """The precision in which reductions are compared."""
        return "fp16" if self.device == "cuda" else "fp32"

    @property
    def length(self) -> int:
        """Tokens per row of grid cells."""
        return 32 if self.tiny else 128

    def steps(self) -> list[Step]:
        """Return all steps, the most important first."""
        sets = [each for model in SHAPES for each in self.comparisons(model)]
        pairs = [step for each in sets for step in self._build_and_measure(each)]
        return [
            self._work("environment", "host, packages and what works", START_S, first=[
                Command(("-m", "effx", "doctor", str(self.out)), answers=(1,)),
            ]),
            Step("tests", "tests of driver, runtimes and meters", (Command((
                "-m", "pytest", "-m", "gpu", GPU_TESTS, "-W", "default", "-q", "--junitxml",
                str(self.out / "tests.xml"),
            )),), 120.0, needs=packages(TEST_PACKAGES), uses=packages(MORE)),
            *pairs[:4],
            replace(self._work("traces", "power and energy counter of idle, steady and bursty work", 100.0),
                    needs=packages(("nvidia-ml-py",))),
            *pairs[4:],
            *self._studies(),
        ]  # fmt: skip

    def comparisons(self, model: str) -> list[EngineSet]:
        """Return the engines of an encoder: precisions, tickets, early exit and token pruning."""
        half, length = self.half, self.length
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
            EngineSet(f"{model}-half", "full, half precision", ("full",), first, windows=2),
            *(EngineSet(f"{model}-tickets-{backend}", f"tickets on {backend}", levels, {backend: variants})
              for backend, variants in tickets.items()),
            EngineSet(f"{model}-others", "full, other precisions and runtimes", ("full",), others),
            EngineSet(f"{model}-exits-tokens", "early exits and token pruning", ("reduced",), reduced),
        ]  # fmt: skip
        return [
            replace(each, wanted={name: each.wanted[name] for name in self.backends if name in each.wanted})
            for each in engine_sets
        ]

    def _build_and_measure(self, engines: EngineSet) -> list[Step]:
        windows = engines.windows + (engines.windows > 1)  # the last window is twice as long
        energy_s = 2 * windows * max(WINDOW_S, self.window_s)
        uses = packages(MORE) if self.device == "cuda" and "torch" in engines.wanted else ()
        model = engines.name.removesuffix("-half").split("-tickets")[0].split("-others")[0]
        title = f"{model.split('-exits')[0]}: {engines.title}"
        build = self._work(f"{engines.name}-build", f"{title}, built", START_S + engines.engines * BUILD_S)
        measure = self._work(
            engines.name, f"{title}, measured", START_S + engines.engines * (MEASURE_S + energy_s)
        )
        return [replace(build, uses=uses), replace(measure, uses=uses, resumes=True)]

    def _work(self, name: str, title: str, expected_s: float, first: Iterable[Command] = ()) -> Step:
        """Return a step that is a function of gpu_steps.py."""
        command = Command((
            str(ROOT / "benchmarks" / "gpu_steps.py"), str(self.out), name, "--device", self.device, "--size",
            "tiny" if self.tiny else "full", "--window-s", f"{self.window_s:g}",
        ))  # fmt: skip
        return Step(name, title, (*first, command), expected_s)

    def _studies(self) -> list[Step]:
        """Return the steps that train a real encoder on real rows."""
        encoder = self.encoder or "ENCODER"
        return [
            self._frontier(encoder),
            *(self._tickets(encoder, task) for task in TICKET_TASKS),
            self._multitask(encoder),
            *self._optimize(encoder),
            *self._prune(encoder),
        ]

    def rows(self, task: str) -> str:
        """Return the folder with the rows of a task."""
        return str((self.data or Path("DATA")) / task)

    def _inputs(self, encoder: str, *tasks: str) -> tuple[Input, ...]:
        return (Input("encoder", encoder), *(Input("rows", self.rows(task)) for task in tasks))

    def _frontier(self, encoder: str) -> Step:
        """Accuracy and joules of a fine-tuned encoder and its reductions."""
        variants = ["fp32", self.half] if self.device == "cuda" else ["fp32"]
        variants += [f"exit+{self.half}", *([] if self.tiny else [f"tokens+{self.half}"])]
        backends = [{"backend": "torch", "device": self.device}]
        settings = {
            "tasks.sst2.data": self.rows("sst2"),
            "models": f"{{encoder: {encoder}}}",
            "training.epochs": "2",
            "regimes": "{full: {}, layers3: {layers: 3}}" if not self.tiny else "{full: {}}",
            "variants": _yaml(variants),
            "backends": _yaml(backends),
            "workloads.meter": "auto" if self.device == "cpu" else "nvml",
            "workloads.window_s": f"{self.window_s:g}",
            "budgets.at_once": str(min(self.workers, 4)),
        }
        if self.tiny:
            settings |= {"limit": "64", "training.epochs": "1"}
            settings |= {"workloads.limit": "64", "tokens": "{}"}  # two steps learn no token schedule
            settings |= {"workloads.rounds": "3", "workloads.grid": "[1x32]"}
        commands = (
            self._run("gpu.yaml", settings, "frontier", answers=(1,)),
            Command(("-m", "effx", "recommend", str(self.out / "frontier/results/sst2"), "--max-drop",
                     "0.01"), answers=(1,)),
        )  # fmt: skip
        return Step("frontier", "accuracy and joules of real reductions on SST-2", commands, 900.0,
                    needs=self._inputs(encoder, "sst2"), resumes=True, least_s=SWEEP_LEAST_S)  # fmt: skip

    def _tickets(self, encoder: str, task: str) -> Step:
        """Train super tickets; checkpoints are deleted, so that OUT remains small."""
        settings = ["--seeds", "5", "--keep", "none"]
        if self.tiny:
            settings = ["--seeds", "1", "--keep", "none", "--limit", "64", "--levels", "40", "--max-steps",
                        "4", "--max-length", "32"]  # fmt: skip
        command = Command(
            ("-m", "effx", "train", "tickets", task, "--model", encoder, "--data", self.rows(task), *settings,
             "-o", str(self.out / "tickets" / task)), copies=self.workers,
        )  # fmt: skip
        steps = TRAINING_ROWS[task] / BATCH_SIZE * EPOCHS
        trainings = 5 * (1 + 3 * 8)
        expected_s = START_S + trainings * (FINETUNE_S + steps * TRAINING_STEP_S) / self.workers
        return Step(f"tickets-{task}", f"super tickets of {task}: 8 levels, 3 kinds, 5 seeds", (command,),
                    expected_s, needs=self._inputs(encoder, task), resumes=True,
                    least_s=SWEEP_LEAST_S)  # fmt: skip

    def _multitask(self, encoder: str) -> Step:
        settings = {"models": f"{{encoder: {encoder}}}", "variants": "[]"}
        settings |= {f"tasks.{task}.data": self.rows(task) for task in SHARED_TASKS}
        settings["budgets.at_once"] = str(self.workers)
        if self.tiny:
            settings |= {"limit": "32", "seeds": "[0]", "training.epochs": "1"}
        commands = (
            self._run("ticket-sharing.yaml", settings, "multitask"),
            Command(("-m", "effx", "train", "compare", str(self.out / "multitask" / "checkpoints"),
                     "--baseline", "encoder-full", "-o", str(self.out / "multitask-compared"))),
        )  # fmt: skip
        steps = 5 * sum(TRAINING_ROWS[task] for task in SHARED_TASKS) / BATCH_SIZE
        methods, at_once = 7, min(self.workers, 4)
        expected_s = START_S + 3 * methods * steps * TRAINING_STEP_S / at_once
        return Step("multitask", "several tasks and ticket sharing, 3 seeds", commands, expected_s,
                    needs=self._inputs(encoder, *SHARED_TASKS), resumes=True,
                    least_s=SWEEP_LEAST_S)  # fmt: skip

    def _optimize(self, encoder: str) -> list[Step]:
        folder = self.out / "optimize"
        finetune = Command((
            "-m", "effx", "train", "finetune", "sst2", "--model", encoder, "--data", self.rows("sst2"),
            *self._training, "--name", "full", "--overwrite", "-o", str(folder / "checkpoints"),
        ))  # fmt: skip
        steps = [Step(
            "optimize-finetune", "the model to optimize, on all rows of SST-2", (finetune,),
            START_S + 2 * TRAINING_ROWS["sst2"] / BATCH_SIZE * TRAINING_STEP_S,
            needs=self._inputs(encoder, "sst2"), creates=folder / "checkpoints" / "full",
        )]  # fmt: skip
        effort = ["--time", "8m", "--speedups", "1.5,2,3"]
        if self.tiny:
            effort = ["--speedups", "1.5", "--rows", "32", "--candidates", "4", "--epochs", "1", "--limit",
                      "64"]  # fmt: skip
        for objective, workload in (("latency", "single"), ("throughput", f"32x{self.length}")):
            command = Command((
                "-m", "effx", "optimize", str(folder / "checkpoints" / "full"), "--data", self.rows("sst2"),
                "--max-drop", "0.01" if not self.tiny else "0.2", "--objective", objective, "--for", workload,
                "--variant", self.half, "--backend", "torch", "--device", self.device, *effort, "-o",
                str(folder / objective),
            ), answers=(1,))  # fmt: skip
            steps.append(Step(
                f"optimize-{objective}", f"the cheapest engine within one point, by {objective}", (command,),
                STEP_LIMIT_S, needs=(Input("step", "optimize-finetune"), *self._inputs(encoder, "sst2")[1:]),
                resumes=True, least_s=SWEEP_LEAST_S,
            ))  # fmt: skip
        return steps

    @property
    def _training(self) -> list[str]:
        """Options of a fine-tuning on SST-2."""
        return ["--limit", "64", "--max-steps", "4", "--max-length", "32"] if self.tiny else ["--epochs", "2"]

    def _prune(self, encoder: str) -> list[Step]:
        """Cost tables of a real model, and one-shot pruning by them."""
        model, folder = self.out / "optimize" / "checkpoints" / "full", self.out / "prune"
        workload = f"32x{self.length}"
        rounds = ["--rounds", "6", "--checks", "2"] if self.tiny else []
        costs = Command((
            "-m", "effx", "cost-table", str(model), "--backend", "torch", "--device", self.device,
            "--variant", self.half, "--for", "single", "--for", workload, "--coarse", *rounds, "--data",
            self.rows("sst2"), "-o", str(folder / "costs"),
        ), answers=(1,))  # fmt: skip
        table = folder / "costs" / f"full.{self.half}.torch.{workload}.json"
        effort = ["--rows", "32", "--candidates", "4"] if self.tiny else []
        prune = Command((
            "-m", "effx", "train", "prune", str(model), "--costs", str(table), "--speedup", "2", *effort,
            "--data", self.rows("sst2"), "--name", "full-pruned2x", "--overwrite", "-o",
            str(folder / "checkpoints"),
        ))  # fmt: skip
        recover = Command((
            "-m", "effx", "train", "finetune", "sst2", "--model", str(folder / "checkpoints/full-pruned2x"),
            "--teacher", str(model), "--data", self.rows("sst2"),
            *self._training, "--name", "full-2x", "--overwrite", "-o", str(folder / "checkpoints"),
        ))  # fmt: skip
        needs = (Input("step", "optimize-finetune"), *self._inputs(encoder, "sst2")[1:])
        finetune_s = 2 * TRAINING_ROWS["sst2"] / BATCH_SIZE * TRAINING_STEP_S * 1.5
        return [
            Step("prune-costs", "what heads and FFNs cost here", (costs,), 420.0, needs=needs),
            Step("prune", "one-shot pruning to 2x by these costs, and its recovery", (prune, recover),
                 120.0 + finetune_s, needs=(*needs, Input("step", "prune-costs"))),
        ]  # fmt: skip

    def _run(
        self, recipe: str, settings: dict[str, str], folder: str, answers: tuple[int, ...] = ()
    ) -> Command:
        sets = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        return Command(
            ("-m", "effx", "run", str(ROOT / "recipes" / recipe), *sets, "-o", str(self.out / folder)),
            answers=answers,
        )


def _yaml(value: Any) -> str:
    """Return a value as YAML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return str(value)


def packages(names: Iterable[str]) -> tuple[Input, ...]:
    """Return distributions as inputs."""
    return tuple(Input("package", name) for name in names)


def installed(name: str) -> str | None:
    """Return the version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def required() -> list[str]:
    """Return the distributions that every step needs, by pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(each for extra in EXTRAS for each in extras[extra])]
    names = []
    for requirement in wanted:
        name, _, marker = requirement.partition(";")
        if "sys_platform != 'linux'" in marker and sys.platform == "linux":
            continue
        names.append(re.split(r"[\[<>=!~ ]", name.strip())[0])
    return [name for name in dict.fromkeys([*names, "onnxruntime"]) if name != "effx"]


def available(device: str) -> tuple[str, ...]:
    """Return the backends whose packages are installed."""
    wanted = {"torch": None, "torch-compile": None, "onnxruntime": "onnxruntime-gpu", "tensorrt": "tensorrt"}
    if device == "cpu":
        return ("torch", "torch-compile", "onnxruntime")
    return tuple(backend for backend, package in wanted.items() if package is None or installed(package))


def lacking(names: Iterable[str]) -> list[str]:
    """Return the distributions that are not installed; onnxruntime-gpu stands for onnxruntime."""
    equal = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu")}
    return [name for name in names if not any(installed(each) for each in equal.get(name, (name,)))]
