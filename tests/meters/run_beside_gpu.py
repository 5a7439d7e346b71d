"""Run an ``effx`` command, or a script, beside a fake GPU.

    python -m tests.meters.run_beside_gpu optimize ...
    python -m tests.meters.run_beside_gpu benchmarks/gpu_steps.py ...

The fake NVML's clock is the machine's, and its GPU draws 300 W all the time. What computes is the processor:
here, the meter of the GPU reads that too.
"""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

from effx.cli import run
from effx.specs.meters import METERS, MeterSpec
from tests.meters.fake import Fake


def main() -> int:
    fake = Fake()
    fake.call("set_counter", 0.02, 0.0, 1.0)
    fake.call("follow")
    rows = cast("dict[str, MeterSpec]", METERS)
    rows["nvml"] = replace(rows["nvml"], devices=("cpu", "cuda"))
    if sys.argv[1].endswith(".py"):
        sys.argv.pop(0)
        sys.path.insert(0, str(Path(sys.argv[0]).parent))
        runpy.run_path(sys.argv[0], run_name="__main__")
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
