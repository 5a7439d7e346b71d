"""effx: find the cheapest way to run a BERT-class encoder on the hardware you deploy on.

    train -> checkpoints/NAME/ -> export -> engines/NAME/ -> profile -> results/ID.json -> report

Each stage reads a folder and writes a folder; nothing else passes between them. The packages
``effx.models``, ``effx.train`` and ``effx.export`` need torch; ``effx.engines`` and
``effx.profile`` do not, so they run on a target that carries only a runtime.
"""

import os
import sys
from types import ModuleType
from typing import cast

__all__ = ["__version__"]

# What runs here may be confidential and is being timed: runtimes report to nobody. Set to something
# else by the user, these stay.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime from 1.29 on; read when it is imported
# OpenVINO and NNCF send usage data, from their import on, unless this package is missing
sys.modules.setdefault("openvino_telemetry", cast(ModuleType, None))

__version__ = "0.1.0"
