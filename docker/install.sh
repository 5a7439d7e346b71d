#!/usr/bin/env bash
# Install effx for one target into its own environment.
#
#   docker/install.sh TARGET SOURCE PLACE
#
# TARGET  cpu       measures on ONNX Runtime's CPU provider; no torch
#         profile   measures TensorRT plans; TensorRT itself comes from the image below
#         full      trains, exports, measures and reports, on an NVIDIA GPU where there is one
# SOURCE  a checkout or a wheel of effx
# PLACE   the environment's folder; default /opt/effx
#
# Dockerfile calls this and a test runs it, so an image holds what was tried.
set -euo pipefail

target=${1:?usage: docker/install.sh cpu|profile|full SOURCE [PLACE]}
source=${2:?usage: docker/install.sh cpu|profile|full SOURCE [PLACE]}
place=${3:-/opt/effx}
python=${PYTHON:-python3}
constraints=$(dirname "$0")/../constraints.txt

case $target in
  cpu)     extras=cpu;                          venv=() ;;
  profile) extras=nvml;                         venv=(--system-site-packages) ;;
  full)    extras=train,export,gpu,hub,report;  venv=(--system-site-packages) ;;
  *) echo "docker/install.sh: no target '$target': cpu, profile or full" >&2; exit 2 ;;
esac
"$python" -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "effx needs Python 3.11 or newer")'

unset PIP_CONSTRAINT # NVIDIA's images pin their own
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# pip from outside: the image's Python may lack ensurepip, and the target needs no installer
"$python" -m venv --without-pip "${venv[@]}" "$place"
"$python" -m pip --python "$place/bin/python" install --quiet --constraint "$constraints" "$source[$extras]"
"$place/bin/effx" --version
