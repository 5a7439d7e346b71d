"""effx's engines compared with those of other tools on one checkpoint, each in a separate process.

Run by benchmarks/peers.sh, in an environment with the other tools: Optimum's ONNX Runtime export in fp32,
optimised (O2, ONNX Runtime's transformer optimizer), dynamically quantised, and both; OpenVINO with NNCF int8
from Optimum's graph; torch eager and compiled (attention as transformers chooses it: sdpa where the model has
it). Every engine runs in a separate process that waits while the others are timed; each round is in a new
random order. Prints JSON: median milliseconds and mean CPU milliseconds (all threads of the process) at 1x32,
1x128, 32x128, with --long at 1x512, and at real lengths with batch 1, accuracy on the validation rows, and
the time of each of effx's engines against the best other tool in the same rounds: the geometric mean over
rounds of the ratio of medians, with a 95 % t interval. What another tool cannot make of the model is listed
with its error.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import math
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

EFFX = "effx "
"""What names of effx's engines begin with."""
SHAPES = {"1x32": (1, 32), "1x128": (1, 128), "32x128": (32, 128)}
LONG = {"1x512": (1, 512)}
REPEATS = {"1x32": 20, "1x128": 8, "1x512": 2, "32x128": 1, "real": 1}
"""Calls of a turn; turns are short and many, so that what else the machine does falls on all alike."""
LONGEST_S = 10.0
"""Seconds after which the turn of an engine at a shape ends, and the calls that it has at least."""
LEAST_CALLS = 2
CALIBRATION_ROWS = 128
Infer = Callable[[dict[str, np.ndarray]], np.ndarray]
Files = dict[str, tuple[str, str]]
Failures = dict[str, str]


def effx_engine(threads: int, folder: str) -> Infer:
    from effx import engines

    session = engines.open(folder, threads=threads)
    return lambda inputs: session.infer(inputs)["logits"]


def onnx_file(threads: int, path: str) -> Infer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    return lambda inputs: session.run(None, {name: inputs[name] for name in names})[0]


def openvino_file(threads: int, path: str) -> Infer:
    import openvino

    core = openvino.Core()
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    compiled = core.compile_model(core.read_model(path), "CPU", hints)
    request = compiled.create_infer_request()
    names = [entry.get_any_name() for entry in compiled.inputs]

    def infer(inputs: dict[str, np.ndarray]) -> np.ndarray:
        request.infer({name: inputs[name] for name in names}, share_inputs=True)
        return request.get_output_tensor(0).data.copy()

    return infer


def torch_model(threads: int, folder: str, compiled: bool) -> Infer:
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(threads)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    run = torch.compile(model, dynamic=True) if compiled else model
    taken = inspect.signature(model.forward).parameters

    def infer(inputs: dict[str, np.ndarray]) -> np.ndarray:
        arrays = {name: torch.from_numpy(x) for name, x in inputs.items() if name in taken}
        with torch.inference_mode():
            return run(**arrays).logits.numpy()

    return infer


OPENERS: dict[str, Callable[..., Infer]] = {
    "effx": effx_engine,
    "onnx": onnx_file,
    "openvino": openvino_file,
    "torch": torch_model,
}


def worker(pipe: Any, opener: str, arguments: list[Any]) -> None:
    """Answer (inputs, repeats, longest) with the seconds of each call and the CPU seconds of all calls, and
    (inputs, 0, None) with the logits.
    """
    from effx.engines.lead_in import lead_in
    from effx.host import cpu

    infer = OPENERS[opener](*arguments)
    pipe.send("ready")
    while True:
        try:
            inputs, repeats, longest_s = pipe.recv()
        except EOFError:  # the parent has finished
            return
        if repeats == 0:
            pipe.send([infer(query) for query in inputs])
            continue
        taken: list[float] = []
        lead_in(infer, reversed(inputs))
        cpu_before = time.process_time()
        for query in inputs * repeats:
            if longest_s is not None and sum(taken) > longest_s and len(taken) >= LEAST_CALLS:
                break
            started = time.perf_counter()
            infer(query)
            taken.append(time.perf_counter() - started)
        cpu_s = time.process_time() - cpu_before
        cpu.rest()  # threads that wait busily for work would slow the next tool
        pipe.send((taken, cpu_s))


class EngineProcess:
    """A process that runs one engine."""

    def __init__(self, opener: str, *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=worker, args=(other, opener, list(arguments)), daemon=True)
        self._process.start()
        other.close()  # so that the end of the process is the end of the pipe
        try:
            assert self._pipe.recv() == "ready"
        except EOFError as error:
            raise SystemExit(f"{opener} {arguments[1]} cannot be opened, see above") from error

    def request(
        self, inputs: list[dict[str, np.ndarray]], repeats: int, longest_s: float | None = None
    ) -> Any:
        """Return the seconds of each call, of as many as fit where ``longest_s`` is given, and all CPU
        seconds; or the logits.
        """
        self._pipe.send((inputs, repeats, longest_s))
        return self._pipe.recv()


def tool_files(
    checkpoint: Path, scratch: Path, rows: list[dict[str, np.ndarray]], without: Sequence[str]
) -> tuple[Files, Failures]:
    """Write what the other tools make of a model, except those in ``without``.

    Returns:
        name -> opener and its argument; name -> why a tool could not.
    """
    found: Files = {}
    failed: Failures = {}

    def attempt(name: str, opener: str, write: Callable[[], Path]) -> None:
        if name in without:
            failed[name] = "left out"
            return
        try:
            path = write()
            OPENERS[opener](1, str(path))(rows[0])
            found[name] = (opener, str(path))
        except Exception as error:  # whatever the tool raises is its result
            failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:400] or 'no message'}"

    plain = scratch / "plain"

    def exported() -> Path:
        from optimum.onnxruntime import ORTModelForSequenceClassification

        ORTModelForSequenceClassification.from_pretrained(checkpoint, export=True).save_pretrained(plain)
        return plain / "model.onnx"

    def optimized() -> Path:
        from optimum.onnxruntime import ORTOptimizer
        from optimum.onnxruntime.configuration import AutoOptimizationConfig

        ORTOptimizer.from_pretrained(plain).optimize(
            save_dir=scratch / "o2", optimization_config=AutoOptimizationConfig.O2()
        )
        return scratch / "o2" / "model_optimized.onnx"

    def quantized(folder: Path, file_name: str, out: Path) -> Path:
        from optimum.onnxruntime import ORTQuantizer
        from optimum.onnxruntime.configuration import AutoQuantizationConfig

        ORTQuantizer.from_pretrained(folder, file_name=file_name).quantize(
            save_dir=out,
            quantization_config=AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True),
        )
        (written,) = out.glob("*.onnx")
        return written

    def calibrated() -> Path:
        import nncf
        import openvino

        model = openvino.Core().read_model(plain / "model.onnx")
        names = {entry.get_any_name() for entry in model.inputs}
        chosen = [{name: array for name, array in row.items() if name in names} for row in rows]
        kind = nncf.ModelType.TRANSFORMER
        smaller = nncf.quantize(model, nncf.Dataset(chosen), model_type=kind, subset_size=len(chosen))
        openvino.save_model(smaller, scratch / "nncf.xml")
        return scratch / "nncf.xml"

    attempt("Optimum ORT fp32", "onnx", exported)
    if "Optimum ORT fp32" in failed:  # the others read its graph
        return found, failed
    attempt("Optimum ORT O2", "onnx", optimized)
    attempt("Optimum ORT dynamic int8", "onnx", lambda: quantized(plain, "model.onnx", scratch / "int8"))
    attempt(
        "Optimum ORT O2 dynamic int8",
        "onnx",
        lambda: quantized(scratch / "o2", "model_optimized.onnx", scratch / "o2-int8"),
    )
    attempt("OpenVINO with default settings (bf16 where supported)", "openvino", lambda: plain / "model.onnx")
    attempt("OpenVINO NNCF int8", "openvino", calibrated)
    return found, failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument(
        "ticket", type=Path, help="a reduced checkpoint of the same task, whose engines are timed too"
    )
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--engines",
        type=Path,
        action="append",
        help="folder of effx's engines; repeatable [default: engines]",
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2, help="of each engine [default: 2]")
    parser.add_argument("--without-torch", action="store_true", help="leave out torch eager and compiled")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="NAME",
        help="leave out an engine of another tool, e.g. 'OpenVINO NNCF int8', which takes more than 20 GB "
        "for a DeBERTa of 768; repeatable",
    )
    parser.add_argument("--long", action="store_true", help="time 1x512, too")
    parser.add_argument("--rows", type=int, help="score this many validation rows; default: all")
    options = parser.parse_args()
    with contextlib.redirect_stdout(sys.stderr):  # the other tools print to stdout
        result = compare(options)
    print(json.dumps(result, indent=1))


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Build the files of the other tools, start all engines, and time them."""
    from effx import data
    from effx.artifacts import Checkpoint, Engine, now
    from effx.encoding import Encoder
    from effx.host import identity

    checkpoint = Checkpoint.open(options.checkpoint)
    rows = data.load(checkpoint.task, "validation", options.data)
    rows = rows if options.rows is None else rows.limit(options.rows)
    train = data.load(checkpoint.task, "train", options.data).limit(CALIBRATION_ROWS)
    encoder = Encoder(checkpoint.folder, checkpoint.max_length)
    encoded, calibration = encoder(rows.texts), encoder(train.texts)
    with tempfile.TemporaryDirectory() as scratch:
        single = [calibration.batch([row]) for row in range(len(calibration))]
        files, failed = tool_files(checkpoint.folder, Path(scratch), single, options.without)
        threads = options.threads
        processes = {name: EngineProcess(opener, threads, path) for name, (opener, path) in files.items()}
        if not options.without_torch:
            for name, compiled in (("torch eager", False), ("torch.compile", True)):
                processes[name] = EngineProcess("torch", threads, str(checkpoint.folder), compiled)
        wanted = {checkpoint.name, options.ticket.name}
        for root in options.engines or [Path("engines")]:
            for folder in Engine.find(root):
                manifest = json.loads((folder / "engine.json").read_text())
                if manifest["checkpoint"]["name"] in wanted and not manifest["backend"].startswith("torch"):
                    built_for = f" for {word}" if (word := manifest.get("built_for")) else ""
                    name = f"{EFFX}{folder.name}{built_for}"
                    if name in processes:
                        raise SystemExit(f"{folder}: an engine of this name was there before")
                    processes[name] = EngineProcess("effx", threads, str(folder))
        shapes = {**SHAPES, **(LONG if options.long else {})}
        result = time_in_turns(processes, encoded, rows.labels, options.rounds, shapes)
    facts = {
        "command": " ".join(["benchmarks/peers.sh", *sys.argv[1:]]), "date": now(),
        "host": identity.host().to_json(), "threads": options.threads, "rounds": options.rounds,
        "versions": versions(), "python": sys.version.split()[0],
    }  # fmt: skip
    return {**result, "not_made": failed, **facts}


def time_in_turns(
    processes: dict[str, EngineProcess],
    encoded: Any,
    labels: np.ndarray,
    rounds: int,
    shapes: dict[str, tuple[int, int]],
) -> dict[str, Any]:
    """Time all engines in turns and score them."""
    queries = {name: [of_shape(encoded, *shape)] for name, shape in shapes.items()}
    real = np.random.default_rng(0).permutation(len(encoded))[:50]
    queries["real"] = [encoded.batch([int(row)]) for row in real]
    taken: dict[str, dict[str, list[list[float]]]]  # of each round
    taken = {name: {query: [] for query in queries} for name in processes}
    cpu = {name: dict.fromkeys(queries, 0.0) for name in processes}
    rng = np.random.default_rng(1)
    for turn in range(rounds + 1):
        for name in rng.permutation(list(processes)):
            for query, inputs in queries.items():
                seconds, cpu_seconds = processes[name].request(inputs, REPEATS[query], LONGEST_S)
                if turn:  # the first round warms up
                    taken[name][query].append(seconds)
                    cpu[name][query] += cpu_seconds
        print(f"round {turn} of {rounds}", file=sys.stderr, flush=True)
    order = np.argsort(encoded.lengths, kind="stable")
    batches = [order[start : start + 32] for start in range(0, len(order), 32)]
    times: dict[str, dict[str, float]] = {}
    cpu_times: dict[str, dict[str, float]] = {}
    for name, process in processes.items():
        answers = process.request([encoded.batch(batch) for batch in batches], 0)
        right = sum(
            int((out.argmax(1) == labels[batch]).sum()) for out, batch in zip(answers, batches, strict=True)
        )
        calls = {
            query: [each for seconds in rounds for each in seconds] for query, rounds in taken[name].items()
        }
        times[name] = {query: round(statistics.median(values) * 1e3, 3) for query, values in calls.items()}
        cpu_times[name] = {
            query: round(cpu[name][query] / len(values) * 1e3, 3) for query, values in calls.items()
        }
        times[name]["accuracy"] = right / len(labels)
    return {
        "milliseconds_and_accuracy": times,
        "cpu_milliseconds": cpu_times,
        "effx_against_best_other_tool": ratios(taken, times),
    }


def ratios(
    taken: dict[str, dict[str, list[list[float]]]], times: dict[str, dict[str, float]]
) -> dict[str, dict[str, Any]]:
    """Compare each of effx's engines with the best other tool at each query, round by round."""
    others = [name for name in taken if not name.startswith(EFFX)]
    best = {query: min(others, key=lambda name: times[name][query]) for query in taken[others[0]]}
    found: dict[str, dict[str, Any]] = {"best other tool": best}
    for name, queries in taken.items():
        if name in others:
            continue
        found[name] = {}
        for query, rounds in queries.items():
            logs = [
                math.log(statistics.median(mine) / statistics.median(theirs))
                for mine, theirs in zip(rounds, taken[best[query]][query], strict=True)
            ]
            mean = statistics.fmean(logs)
            found[name][query] = [round(math.exp(mean), 3)]
            if len(logs) > 1:
                t = scipy.stats.t.ppf(0.975, len(logs) - 1)
                half = t * statistics.stdev(logs) / math.sqrt(len(logs))
                found[name][query] += [round(math.exp(mean + side * half), 3) for side in (-1, 1)]
    return found


def of_shape(encoded: Any, batch: int, length: int) -> dict[str, np.ndarray]:
    ids = np.resize(encoded.ids, (batch, length)).astype(np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("torch", "transformers", "optimum", "optimum-onnx", "onnxruntime", "openvino", "nncf")
    return {name: version(name) for name in names}


if __name__ == "__main__":
    main()
