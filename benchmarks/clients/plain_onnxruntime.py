"""onnxruntime and tokenizers alone.

pip install onnxruntime tokenizers numpy
python benchmarks/clients/plain_onnxruntime.py WORK
"""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
from report import Client
from tokenizers import Tokenizer

FILES = {"onnx/model.onnx": "onnxruntime fp32", "onnx/model_quantized.onnx": "onnxruntime int8"}


def main() -> None:
    client = Client("onnxruntime", ("onnxruntime", "tokenizers", "numpy"))
    tokenizer = Tokenizer.from_file(str(client.folder / "tokenizer.json"))
    config = json.loads((client.folder / "config.json").read_text())
    labels = [config["id2label"][str(number)] for number in range(len(config["id2label"]))]
    for file, engine in FILES.items():
        session = onnxruntime.InferenceSession(client.folder / file)
        names = [entry.name for entry in session.get_inputs()]
        rows = []
        for texts in client.texts:
            encoding = tokenizer.encode(*texts)
            values = {
                "input_ids": encoding.ids,
                "attention_mask": encoding.attention_mask,
                "token_type_ids": encoding.type_ids,
            }
            feed = {name: np.array([values[name]], np.int64) for name in names}
            rows.append(session.run(["logits"], feed)[0][0])
        client.compare("InferenceSession(FILE)", file, engine, np.array(rows), labels)
    client.write()


if __name__ == "__main__":
    main()
