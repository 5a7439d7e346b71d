"""A CrossEncoder of sentence-transformers with the ONNX backend, which loads onnx/model.onnx by default.

pip install 'sentence-transformers[onnx]'
python benchmarks/clients/sentence_transformers_onnx.py WORK
"""

from __future__ import annotations

import numpy as np
from report import Client
from sentence_transformers import CrossEncoder
from torch import nn

QUANTIZED = "onnx/model_quantized.onnx"
CALLS = {
    "CrossEncoder(FOLDER, backend='onnx')": ({}, "onnx/model.onnx", "onnxruntime fp32"),
    f"CrossEncoder(FOLDER, backend='onnx', model_kwargs={{'file_name': '{QUANTIZED}'}})": (
        {"model_kwargs": {"file_name": QUANTIZED}},
        QUANTIZED,
        "onnxruntime int8",
    ),
}


def main() -> None:
    packages = ("sentence-transformers", "optimum-onnx", "transformers", "onnxruntime")
    client = Client("sentence-transformers", packages)
    for call, (options, file, engine) in CALLS.items():
        model = CrossEncoder(str(client.folder), backend="onnx", **options)
        # one row at a time: a list of texts is a pair, and padding would change the int8 scales of a batch
        inputs = [texts if len(texts) > 1 else texts[0] for texts in client.texts]
        rows = [model.predict(entry, activation_fn=nn.Identity()) for entry in inputs]
        labels = [model.config.id2label[number] for number in range(len(model.config.id2label))]
        client.compare(call, file, engine, np.array(rows), labels)
    client.write()


if __name__ == "__main__":
    main()
