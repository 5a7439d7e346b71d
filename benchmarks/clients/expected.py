"""Write a hub folder of effx's engines, and what effx predicts, for the clients in this folder.

    python benchmarks/clients/expected.py CHECKPOINT --data DATA -o WORK

Builds fp32 and int8 engines for ONNX Runtime and OpenVINO, and writes them to WORK/CHECKPOINT as a folder of
the Hugging Face hub. WORK/expected.json has the first --rows validation rows with effx's own logits. Every
client then loads WORK/CHECKPOINT with its defaults, in an environment without effx:

    ENVIRONMENT/bin/python benchmarks/clients/CLIENT.py WORK
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from effx import data, engines
from effx.encoding import Encoder
from effx.export import export_all, to_hub

BACKENDS = ("onnxruntime", "openvino")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("-o", type=Path, required=True, dest="work")
    options = parser.parse_args()
    built, failures = export_all(
        [options.checkpoint], ["fp32", "int8"], BACKENDS, options.work / "engines", data_folder=options.data
    )
    failures += to_hub(built, options.work)
    for failure in failures:
        print(failure)
    task = built[0].task
    texts = data.load(task, "validation", options.data).texts[: options.rows]
    logits: dict[str, Any] = {}
    for engine in built:
        encoded = Encoder(engine.folder, engine.max_length)(texts)
        with engines.open(engine, threads=1) as session:
            rows = [session.infer(encoded.batch([row]))["logits"][0].tolist() for row in range(len(texts))]
        logits[f"{engine.backend} {engine.manifest.precision}"] = rows
    config = json.loads((built[0].folder / "config.json").read_text())
    value = {
        "hub": options.checkpoint.name,
        "texts": [list(text) for text in texts],
        "labels": [config["id2label"][str(number)] for number in range(len(config["id2label"]))],
        "logits": logits,
    }
    (options.work / "expected.json").write_text(json.dumps(value))
    print({name: np.array(rows).shape for name, rows in logits.items()})


if __name__ == "__main__":
    main()
