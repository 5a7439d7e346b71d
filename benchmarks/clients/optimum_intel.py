"""optimum-intel's OpenVINO models, with their defaults.

pip install 'optimum-intel[openvino]==2.2.0'
python benchmarks/clients/optimum_intel.py WORK
"""

from __future__ import annotations

import numpy as np
import torch
from optimum.intel import OVModelForSequenceClassification
from report import Client
from transformers import AutoTokenizer

INT8 = "openvino_model_qint8_quantized.xml"
CALLS = {
    "from_pretrained(FOLDER)": ({}, "openvino/openvino_model.xml", "openvino fp32"),
    f"from_pretrained(FOLDER, subfolder='openvino', file_name='{INT8}')": (
        {"subfolder": "openvino", "file_name": INT8},
        f"openvino/{INT8}",
        "openvino int8",
    ),
}


def main() -> None:
    client = Client("optimum-intel", ("optimum-intel", "optimum", "transformers", "openvino"))
    tokenizer = AutoTokenizer.from_pretrained(client.folder)
    for call, (options, file, engine) in CALLS.items():
        model = OVModelForSequenceClassification.from_pretrained(client.folder, **options)
        rows = []
        for texts in client.texts:
            inputs = tokenizer(*texts, truncation=True, return_tensors="pt")
            rows.append(torch.as_tensor(model(**inputs).logits)[0].numpy())
        labels = [model.config.id2label[number] for number in range(len(model.config.id2label))]
        client.compare(f"OVModelForSequenceClassification.{call}", file, engine, np.array(rows), labels)
    client.write()


if __name__ == "__main__":
    main()
