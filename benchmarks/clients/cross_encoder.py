"""A CrossEncoder of sentence-transformers, with the backends onnx and openvino.

    pip install 'sentence-transformers[onnx]'
    pip install 'sentence-transformers[openvino]'
    python benchmarks/clients/cross_encoder.py WORK

Each in an environment of its own: the backend that is installed is tried.
"""

from __future__ import annotations

import importlib.util

import numpy as np
from report import Client
from sentence_transformers import CrossEncoder
from torch import nn

FILES = {
    "onnx": ("optimum.onnxruntime", "optimum-onnx", "onnxruntime",
             {"fp32": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx"}),
    "openvino": ("optimum.intel", "optimum-intel", "openvino",
                 {"fp32": "openvino_model.xml", "int8": "openvino_model_qint8_quantized.xml"}),
}  # fmt: skip
"""Backend -> its module and package, its runtime, and the file of each precision; fp32 is the default."""


def installed() -> str:
    """Return the backend whose package is installed."""
    return next(name for name, (module, *_) in FILES.items() if importlib.util.find_spec(module) is not None)


def main() -> None:
    backend = installed()
    _, package, runtime, files = FILES[backend]
    client = Client(
        f"sentence-transformers-{backend}", ("sentence-transformers", package, "transformers", runtime)
    )
    for precision, file in files.items():
        options = {} if precision == "fp32" else {"model_kwargs": {"file_name": file}}
        model = CrossEncoder(str(client.folder), backend=backend, **options)
        # one row at a time: a list of texts is a pair, and padding would change the int8 scales of a batch
        inputs = [texts if len(texts) > 1 else texts[0] for texts in client.texts]
        rows = [model.predict(entry, activation_fn=nn.Identity()) for entry in inputs]
        labels = [model.config.id2label[number] for number in range(len(model.config.id2label))]
        arguments = "".join(f", {name}={value}" for name, value in options.items())
        client.compare(f"CrossEncoder(FOLDER, backend='{backend}'{arguments})", file,
                       f"{runtime} {precision}", np.array(rows), labels)  # fmt: skip
    client.write()


if __name__ == "__main__":
    main()
