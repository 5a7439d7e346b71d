"""README.md of the results of gpu_suite.py: one line per engine."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_plan import SHAPES

from effx import results
from effx.results import Run
from effx.specs.workloads import SINGLE_STREAM, grid

HOPPER_DENSE_PER_S = {"bf16": 989e12, "fp16": 989e12}
"""Peak FLOP/s of an H200 and an H100 SXM by NVIDIA's datasheets, for a lower bound of the time."""
HOPPER = ("H200", "H100 80GB HBM3")


def write(out: Path, command: str) -> None:
    """Write OUT/README.md from the results and the summary of the steps so far."""
    facts = json.loads((out / "environment.json").read_bytes())
    runs, failures = results.read(sorted((out / "results").glob("[!.]*")))
    lines = [
        f"# {where(facts['host'])}",
        "",
        f"    {command}",
        "",
        f"{facts['date']}; {', '.join(f'{name} {version}' for name, version in facts['versions'].items())}.",
        "Random weights: times, energies and sizes are measured, accuracies mean nothing. p50 in ms of",
        "single queries at real lengths, end to end and on the device, and of a batch of 128 x 128 on the",
        "device; the latter also divided by the time at peak FLOP/s, and by the time of the unreduced",
        "encoder with the same runtime and precision. Energy is gross, of the offline scenario.",
        *(f"\n**{missing}**" for missing in facts["without"]),
        "",
        "| engine | single, ms | single on device, ms | host overhead | 128x128, ms | / time at peak "
        "| / full | mJ/example | counter and integrated power differ by | GPU memory, MiB | failed gates |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(row(run, runs) for run in runs),
        "",
    ]
    for path in sorted((out / "refused").glob("*.json")):
        lines += [f"Not built: {reason}" for reason in json.loads(path.read_bytes())["refused"]]
    lines += [f"Not measured: {failure.failure}" for failure in failures]
    lines += ["", "| step | | expected, min | took, min | |", "|---|---|---|---|---|"]
    for step in json.loads((out / "summary.json").read_bytes())["steps"]:
        note = "; ".join(filter(None, (step["reason"], *(f"without {each}" for each in step["without"]))))
        lines.append(
            f"| {step['step']} | {step['state']} | {step['expected_min']:.1f} | {step['seconds'] / 60:.1f} "
            f"| {note.replace('|', '/')} |"
        )
    (out / "README.md").write_text("\n".join(lines) + "\n")


def where(host: dict[str, Any]) -> str:
    """Return the name of a host's GPU, or of its processor."""
    return str(host["gpu"][0]["name"] if host["gpu"] else host["cpu"])


def large_s(run: Run) -> float | None:
    """Return the median seconds of a batch of 128 x 128 on the device."""
    result = run.workload(grid(128, 128).timed_on_device())
    return None if result is None else result.latency_s["p50"]


def over_full(run: Run, runs: Sequence[Run]) -> float | None:
    """Return the time of a batch of 128 x 128 divided by that of the unreduced encoder."""
    same = [
        other for other in runs
        if other.session == run.session and other.engine.backend == run.engine.backend
        and other.engine.precision == run.engine.precision
        and other.engine.weight_remaining == 1 and "exit" not in other.name and "tokens" not in other.name
    ]  # fmt: skip
    run_s, full = large_s(run), large_s(same[0]) if same else None
    return None if run_s is None or full is None else run_s / full


def row(run: Run, runs: Sequence[Run]) -> str:
    """Return the line of an engine."""
    single, device = run.workload(SINGLE_STREAM), run.workload(SINGLE_STREAM.timed_on_device())
    offline = next((each for each in run.workloads if each.workload.scenario == "offline"), None)
    energy = None if offline is None else offline.energy
    apart = [abs(window.joules / window.integrated_joules - 1)
             for window in (energy.windows if energy else []) if window.integrated_joules]  # fmt: skip
    floor, p50, ratio = floor_s(run, 128, 128), large_s(run), over_full(run, runs)
    cells = [
        run.name,
        ms(single and single.latency_s["p50"]),
        ms(device and device.latency_s["p50"]),
        "–" if run.host_overhead_share is None else f"{run.host_overhead_share:.0%}",
        ms(p50),
        "–" if floor is None or p50 is None else f"{p50 / floor:.2f}",
        "–" if ratio is None else f"{ratio:.2f}",
        "–" if energy is None or energy.gross is None else f"{energy.gross * 1e3:.3g} ({energy.source})",
        f"{max(apart):.1%}" if apart else "–",
        "–" if run.memory.device_peak_bytes is None else f"{run.memory.device_peak_bytes / 2**20:.0f}",
        "; ".join(run.flags) or "none",
    ]
    return "| " + " | ".join(cells) + " |"


def floor_s(run: Run, batch: int, length: int) -> float | None:
    """Return the seconds of the full encoder's matrix products at the GPU's peak; None: peak unknown."""
    peak = HOPPER_DENSE_PER_S.get(run.engine.precision)
    gpus = run.host.gpu or ()
    if peak is None or not gpus or not any(name in gpus[0].name for name in HOPPER):
        return None
    shape = SHAPES["bert-base" if "bert-base" in run.name else "minilm-l6"]
    width, inner = shape["hidden_size"], shape["intermediate_size"]
    per_token = 2 * (4 * width * width + 2 * width * inner) + 4 * length * width
    return shape["num_hidden_layers"] * per_token * batch * length / peak


def ms(seconds: Any) -> str:
    return "–" if seconds is None or not math.isfinite(seconds) else f"{seconds * 1e3:.3g}"
