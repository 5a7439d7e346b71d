"""Optimum's ONNX Runtime models, with their defaults.

pip install 'optimum-onnx[onnxruntime]==0.1.0'
python benchmarks/clients/optimum_onnx.py WORK
"""

from __future__ import annotations

import numpy as np
import torch
from optimum.onnxruntime import ORTModelForSequenceClassification
from report import Client
from transformers import AutoTokenizer

CALLS = {
    "from_pretrained(FOLDER)": ({}, "onnx/model.onnx", "onnxruntime fp32"),
    "from_pretrained(FOLDER, subfolder='onnx', file_name='model_quantized.onnx')": (
        {"subfolder": "onnx", "file_name": "model_quantized.onnx"},
        "onnx/model_quantized.onnx",
        "onnxruntime int8",
    ),
}


def main() -> None:
    client = Client("optimum-onnx", ("optimum-onnx", "optimum", "transformers", "onnxruntime"))
    tokenizer = AutoTokenizer.from_pretrained(client.folder)
    for call, (options, file, engine) in CALLS.items():
        model = ORTModelForSequenceClassification.from_pretrained(client.folder, **options)
        rows = []
        for texts in client.texts:
            inputs = tokenizer(*texts, truncation=True, return_tensors="pt")
            rows.append(torch.as_tensor(model(**inputs).logits)[0].numpy())
        labels = [model.config.id2label[number] for number in range(len(model.config.id2label))]
        client.compare(f"ORTModelForSequenceClassification.{call}", file, engine, np.array(rows), labels)
    client.write()


if __name__ == "__main__":
    main()
