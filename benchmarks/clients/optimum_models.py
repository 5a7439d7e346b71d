"""Optimum's models: optimum-onnx on ONNX Runtime, or optimum-intel on OpenVINO.

    pip install 'optimum-onnx[onnxruntime]==0.1.0'
    pip install 'optimum-intel[openvino]==2.2.0'
    python benchmarks/clients/optimum_models.py WORK

Each in an environment of its own: the one that is installed is tried.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass

import numpy as np
import torch
from report import Client
from transformers import AutoTokenizer


@dataclass(frozen=True)
class Library:
    """A part of Optimum that loads sequence classifiers."""

    package: str
    module: str
    model_class: str
    runtime: str
    """Its package, and effx's name of the backend."""
    subfolder: str
    """Of its files in a folder of the hub; empty: the folder itself."""
    files: tuple[str, str]
    """fp32, which is loaded by default, and int8."""


LIBRARIES = (
    Library("optimum-onnx", "optimum.onnxruntime", "ORTModelForSequenceClassification", "onnxruntime", "onnx",
            ("model.onnx", "model_quantized.onnx")),
    Library("optimum-intel", "optimum.intel", "OVModelForSequenceClassification", "openvino", "",
            ("openvino_model.xml", "openvino_model_qint8_quantized.xml")),
)  # fmt: skip


def main() -> None:
    library = next(library for library in LIBRARIES if importlib.util.find_spec(library.module) is not None)
    client = Client(library.package, (library.package, "optimum", "transformers", library.runtime))
    tokenizer = AutoTokenizer.from_pretrained(client.folder)
    model_class = getattr(importlib.import_module(library.module), library.model_class)
    default, quantized = library.files
    named = {"file_name": quantized} | ({"subfolder": library.subfolder} if library.subfolder else {})
    for file, precision, options in ((default, "fp32", {}), (quantized, "int8", named)):
        model = model_class.from_pretrained(client.folder, **options)
        rows = []
        for texts in client.texts:
            inputs = tokenizer(*texts, truncation=True, return_tensors="pt")
            rows.append(torch.as_tensor(model(**inputs).logits)[0].numpy())
        labels = [model.config.id2label[number] for number in range(len(model.config.id2label))]
        arguments = "".join(f", {name}='{value}'" for name, value in options.items())
        client.compare(
            f"{library.model_class}.from_pretrained(FOLDER{arguments})",
            f"{library.subfolder}/{file}".lstrip("/"),
            f"{library.runtime} {precision}",
            np.array(rows),
            labels,
        )
    client.write()


if __name__ == "__main__":
    main()
