#!/usr/bin/env bash
# Install effx for one target into a virtual environment.
#
#   docker/install.sh TARGET SOURCE FOLDER
#
# TARGET  cpu       measures on ONNX Runtime's CPU provider; no torch
#         profile   measures TensorRT plans; TensorRT itself comes from the image below
#         full      trains, exports, measures and reports, on an NVIDIA GPU if available
# SOURCE  a checkout or a wheel of effx
# FOLDER  the environment's folder; default /opt/effx
#
# The Dockerfile calls this script and a test runs it, so that the images contain what was tested.
set -euo pipefail

target=${1:?usage: docker/install.sh cpu|profile|full SOURCE [FOLDER]}
source=${2:?usage: docker/install.sh cpu|profile|full SOURCE [FOLDER]}
folder=${3:-/opt/effx}
python=${PYTHON:-python3}
constraints=$(dirname "$0")/../constraints.txt

case $target in
  cpu)     extras=cpu;                          venv=() ;;
  profile) extras=nvml;                         venv=(--system-site-packages) ;;
  full)    extras=train,export,gpu,hub,report;  venv=(--system-site-packages) ;;
  *) echo "docker/install.sh: unknown target '$target': choose cpu, profile or full" >&2; exit 2 ;;
esac
"$python" -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "effx needs Python 3.11 or newer")'

unset PIP_CONSTRAINT # NVIDIA's images set constraints
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# use the pip outside: the image's Python may lack ensurepip, and the environment needs no pip
"$python" -m venv --without-pip "${venv[@]}" "$folder"
"$python" -m pip --python "$folder/bin/python" install --quiet --constraint "$constraints" "$source[$extras]"
"$folder/bin/effx" --version
