"""Run the graphs of engines as plans on the fake driver and print a comparison; see test_on_device.py."""

from __future__ import annotations

import gc
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime

from effx import engines
from effx.artifacts import Engine
from effx.engines import cuda, on_device
from effx.errors import EffxError
from effx.profile import profile
from effx.specs import exit_rules
from effx.specs.measurement import MeasurementPlan
from effx.specs.runtime import PlanTarget

SHAPES = ((1, 5), (8, 16), (8, 16), (3, 30), (8, 16), (33, 9))


def batch(rng: np.random.Generator, n: int, length: int) -> dict[str, np.ndarray]:
    ids = rng.integers(5, 60, (n, length))
    mask = (np.arange(length) < rng.integers(2, length + 1, n)[:, None]).astype(np.int64)
    mask[rng.integers(n)] = 1
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def marked(folder: Path, destination: Path, **metadata: str) -> Path:
    """Return a folder with an engine's graphs, with instructions for the fake runtime."""
    destination.mkdir()
    for name in Engine.open(folder).runtime.files:
        model = onnx.load(folder / name)
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, destination / name)
    return destination


def stripped(folder: Path, destination: Path) -> Path:
    """Return a folder with an engine's graphs twice: as plans with weights of zero, and complete."""
    destination.mkdir()
    for name in Engine.open(folder).runtime.files:
        model = onnx.load(folder / name)
        onnx.save(model, destination / f"whole-{name}")
        for entry in model.graph.initializer:
            if len(entry.dims) == 2:
                values = np.zeros_like(onnx.numpy_helper.to_array(entry))
                entry.CopyFrom(onnx.numpy_helper.from_array(values, entry.name))
        onnx.save(model, destination / name)
    return destination


def compare(folder: Path, plans: Path | None = None, **more: Any) -> dict[str, Any]:
    """Return the largest differences of plans (default: the engine's graphs) from ONNX Runtime."""
    engine, rng = Engine.open(folder), np.random.default_rng(0)
    runtime = replace(engine.runtime, device="sm89", plan=PlanTarget("9.9.9", "sm89"), **more)
    result: dict[str, Any] = {"logits": 0.0, "timed": 0.0, "depth": 0, "depths": []}
    limit = max(runtime.lengths or [64])
    with (
        engines.open(engine, threads=1) as expected,
        engines.open_unchecked(plans or engine.folder, "tensorrt-rtx", runtime) as session,
    ):
        for n, length in SHAPES:
            inputs = batch(rng, n, min(length, limit))
            wanted, given = expected.infer(inputs), session.infer(inputs)
            timer: Any = session
            began = time.perf_counter()
            seconds, again = timer.infer_timed(timer.upload(inputs))
            assert 0 < seconds < time.perf_counter() - began
            result["logits"] = max(result["logits"], float(np.abs(wanted["logits"] - given["logits"]).max()))
            result["timed"] = max(result["timed"], float(np.abs(again["logits"] - given["logits"]).max()))
            if "depth" in wanted:
                result["depth"] += int(np.sum(wanted["depth"] != given["depth"]))
                result["depths"] = sorted({*result["depths"], *wanted["depth"].tolist()})
        result["described"] = session.describe()
    return result


def recorded(folder: Path) -> list[list[str]]:
    """Return the calls of the runtime in four equal queries and one of another shape."""
    import tensorrt_rtx  # the fake one

    engine, rng = Engine.open(folder), np.random.default_rng(0)
    reported = []
    with engines.open_unchecked(engine.folder, "tensorrt-rtx", engine.runtime) as session:
        for n in (4, 4, 4, 2, 2, 4):
            tensorrt_rtx.RUNS.clear()
            session.infer(batch(rng, n, 8))
            reported.append(list(tensorrt_rtx.RUNS))
    return reported


def many(folder: Path, *, most: int = on_device.MOST_SHAPES, plans: Path | None = None) -> dict[str, Any]:
    """Return what 300 shapes record in queries, once all were prepared as the warm-up does.

    Args:
        folder: the engine.
        most: shapes that are recorded at most.
        plans: its files with instructions for the fake runtime.
    """
    import tensorrt_rtx  # the fake one

    engine, rng = Engine.open(folder), np.random.default_rng(0)
    runtime = replace(engine.runtime, device="sm89")
    shapes = [(n, length) for n in range(1, 6) for length in range(5, 65)]
    calls: dict[str, int] = {}
    furthest = 0.0
    with (
        mock.patch.object(on_device, "MOST_SHAPES", most),
        engines.open(engine, threads=1) as expected,
        engines.open_unchecked(plans or engine.folder, "tensorrt-rtx", runtime) as session,
    ):
        for n, length in sorted(shapes, reverse=True):
            for _ in range(3):
                session.infer(batch(rng, n, length))
        for number in rng.permutation(len(shapes)).tolist():
            inputs = batch(rng, *shapes[number])
            tensorrt_rtx.RUNS.clear()
            given = session.infer(inputs)["logits"]
            called = " ".join(tensorrt_rtx.RUNS)
            calls[called] = calls.get(called, 0) + 1
            furthest = max(furthest, float(np.abs(expected.infer(inputs)["logits"] - given).max()))
        return {"calls": calls, "logits": furthest, "described": session.describe()}


def early(folder: Path) -> dict[str, Any]:
    """Return what early exits in segments record for various batches after their shapes were prepared."""
    import tensorrt_rtx  # the fake one

    engine, rng = Engine.open(folder), np.random.default_rng(1)
    runtime = engine.runtime
    assert runtime.exits is not None
    sizes, queued = set(), []
    sample = batch(rng, 64, 16)
    sample["attention_mask"][:] = 1
    first = onnxruntime.InferenceSession(engine.folder / runtime.files[0])
    (logits,) = first.run(["logits"], {entry.name: sample[entry.name] for entry in first.get_inputs()})
    surest = np.exp(exit_rules.log_softmax(logits).max(-1))
    # thresholds of the rule max-probability: from few to nearly all rows remaining
    for threshold in np.quantile(surest, np.arange(0.05, 1, 0.13)).tolist():
        settings = runtime.with_exit_rule(replace(runtime.exits.rule, threshold=threshold))
        with (
            engines.open_unchecked(engine.folder, "onnxruntime", settings) as expected,
            engines.open_unchecked(
                engine.folder, "tensorrt-rtx", replace(settings, device="sm89")
            ) as session,
        ):
            staged: Any = session
            full = batch(rng, 24, 16)
            full["attention_mask"][:] = 1
            staged.prepare(full)
            for _ in range(4):
                inputs = batch(rng, 24, 16)
                inputs["attention_mask"][:] = 1  # of one length, as a grid's queries are
                tensorrt_rtx.RUNS.clear()
                given, wanted = session.infer(inputs), expected.infer(inputs)
                queued.append(tensorrt_rtx.RUNS.count("queue"))
                sizes |= {int((wanted["depth"] > ramp).sum()) for ramp in (1, 2)}
                assert np.array_equal(given["depth"], wanted["depth"])
                assert np.abs(given["logits"] - wanted["logits"]).max() < 1e-5
    return {"queued": queued, "sizes": sorted(sizes)}


def profiled(folder: Path, scratch: Path) -> dict[str, Any]:
    """Return the result of a profile of an engine of plans, workers included."""
    engine = Engine.open(folder)
    target = scratch / "engines" / "whole.fp32.tensorrt-rtx"
    with Engine.create(target) as draft:
        for name in engine.manifest.files:
            shutil.copyfile(engine.folder / name, draft.folder / name)
        draft.manifest = engine.manifest.model_copy(
            update={
                "backend": "tensorrt-rtx",
                "device": "sm89",
                "runtime": replace(engine.runtime, device="sm89", max_batch=128),
                "inputs": tuple(
                    entry.model_copy(update={"max": (128, 64)}) for entry in engine.manifest.inputs
                ),
            }
        )
    plan = MeasurementPlan(rounds=3, block_queries=24, grid_rounds=3, grid_limit_s=0.2, warmup_s=0.2)
    (run,), failures = profile([target], out=scratch / "results", plan=plan, meter="none")
    assert not failures
    return {**run.to_json(), "host_overhead_share": run.host_overhead_share}


def error(action: Callable[[], Any]) -> str:
    try:
        action()
    except EffxError as problem:
        return f"{type(problem).__name__}: {problem}"
    return "none"


def errors(folder: Path, scratch: Path) -> dict[str, str]:
    engine = Engine.open(folder)
    settings = engine.runtime

    def opened(**more: Any) -> Any:
        return engines.open_unchecked(engine.folder, "tensorrt-rtx", replace(settings, **more))

    (scratch / "model.plan").write_bytes(b"no plan")
    rng = np.random.default_rng(0)
    return {
        "version": error(lambda: opened(plan=PlanTarget("1.7.1", "sm89"))),
        "device": error(lambda: opened(plan=PlanTarget("9.9.9", "sm120"), device="sm120")),
        "model": error(lambda: opened(plan=PlanTarget("9.9.9", "sm89", "Another GPU"))),
        "weights": error(lambda: opened(weight_files={"model.onnx": "gone.onnx"})),
        "damaged": error(
            lambda: engines.open_unchecked(scratch, "tensorrt-rtx", replace(settings, files=("model.plan",)))
        ),
        "batch": error(lambda: opened().infer(batch(rng, 129, 8))),
        "length": error(lambda: opened().infer(batch(rng, 2, 65))),
    }


def main() -> None:
    folders = {path.name: path for path in map(Path, sys.argv[2:])}
    library: Any = cuda.device()._library
    before = library.fakeInUse()
    whole = next(path for name, path in folders.items() if ".fp32." in name)
    profiles = next(path for name, path in folders.items() if ".buckets." in name)
    growing = next(path for name, path in folders.items() if ".exit+tokens." in name)
    scratch = Path(sys.argv[1])
    result = {
        "compared": {name: compare(path) for name, path in folders.items()},
        "profiles": compare(profiles, marked(profiles, scratch / "profiles", profiles="[16, 32, 64]")),
        "data_dependent": compare(growing, marked(growing, scratch / "growing", data_dependent="yes")),
        "stripped": compare(
            whole, stripped(whole, scratch / "stripped"), weight_files={"model.onnx": "whole-model.onnx"}
        ),
        "recorded": recorded(whole),
        "many": many(whole),
        "too_many": many(
            whole, most=40, plans=marked(whole, scratch / "three-profiles", profiles="[16, 32, 64]")
        ),
        "early": early(next(path for name, path in folders.items() if ".exit." in name)),
        "errors": errors(whole, scratch),
    }
    result["profiled"] = profiled(whole, scratch)
    gc.collect()
    result["left_bytes"] = library.fakeInUse() - before
    print(json.dumps(result))


if __name__ == "__main__":
    main()
