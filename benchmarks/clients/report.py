"""What the clients share: compare their answers with effx's, and record the result. Imports no effx."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Client:
    """A library that loads what effx wrote."""

    def __init__(self, name: str, packages: Sequence[str]) -> None:
        self.name, self.packages = name, packages
        self.work = Path(sys.argv[1])
        self.expected = json.loads((self.work / "expected.json").read_text())
        self.folder = self.work / self.expected["hub"]
        self.texts: list[list[str]] = self.expected["texts"]
        self._loaded: list[dict[str, Any]] = []

    def compare(self, call: str, file: str, engine: str, logits: np.ndarray, labels: Sequence[str]) -> None:
        """Compare a client's logits [rows, outputs], in the order of ``labels``, with an engine's.

        Args:
            call: how the client loaded it.
            file: that it loaded.
            engine: BACKEND PRECISION, whose logits are expected.
            logits: of the client.
            labels: names of its outputs.
        """
        theirs, ours = np.asarray(logits, np.float64), np.array(self.expected["logits"][engine])
        result = {
            "call": call,
            "file": file,
            "engine": engine,
            "rows": len(ours),
            "largest_difference": float(np.abs(theirs - ours).max()),
            "equal_labels": int((theirs.argmax(1) == ours.argmax(1)).sum()),
            "label_names_equal": list(labels) == self.expected["labels"],
        }
        print(json.dumps(result))
        self._loaded.append(result)

    def write(self) -> None:
        """Write WORK/clients/NAME.json."""
        cpu = next(
            (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")), platform.processor(),
        )  # fmt: skip
        value = {
            "client": self.name,
            "command": f"python {Path(sys.argv[0]).name} WORK",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "processor": cpu,
            "python": platform.python_version(),
            "versions": {name: importlib.metadata.version(name) for name in self.packages},
            "loaded": self._loaded,
        }
        target = self.work / "clients" / f"{self.name}.json"
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(value, indent=1) + "\n")
