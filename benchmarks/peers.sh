#!/usr/bin/env bash
# Creates an environment for Optimum's ONNX tools, and times them there in turns with effx's engines of the
# same checkpoint.
#
#     benchmarks/peers.sh ENVIRONMENT CHECKPOINT TICKET DATA > peers.json
#
# CHECKPOINT and TICKET are effx checkpoints exported with `effx export` into ./engines beforehand;
# DATA holds the task's rows. All versions are pinned, because pip does not find a working combination itself.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
environment=$1; shift
if [ ! -e "$environment/.installed" ]; then
  "${PYTHON:-python3}" -m venv "$environment"
  pip=("$environment/bin/python" -m pip install --quiet --disable-pip-version-check)
  "${pip[@]}" torch==2.13.0 >&2
  "${pip[@]}" optimum==2.1.0 optimum-onnx==0.1.0 transformers==4.57.6 huggingface-hub==0.36.2 \
    tokenizers==0.22.2 onnx==1.23.2 onnxruntime==1.31.1 onnxscript==0.7.2 openvino==2026.4.1 nncf==3.4.0 \
    numpy==2.4.6 click rich scipy psutil pydantic ruamel.yaml >&2
  touch "$environment/.installed"
fi
PYTHONPATH=$here exec "$environment/bin/python" "$here/benchmarks/peers.py" "$@"
