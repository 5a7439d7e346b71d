"""Run an ``effx`` command beside a fake GPU: ``python -m tests.meters.run_beside_gpu optimize ...``.

The fake NVML's clock is the machine's, and its GPU draws 300 W all the time.
"""

from __future__ import annotations

import sys

from effx.cli import run
from tests.meters.fake import Fake


def main() -> int:
    fake = Fake()
    fake.call("set_counter", 0.02, 0.0, 1.0)
    fake.call("follow")
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
