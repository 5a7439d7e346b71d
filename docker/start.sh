#!/usr/bin/env bash
# With no arguments: what works here. Otherwise: effx with those arguments.
set -euo pipefail
if [ $# -gt 0 ]; then
  exec effx "$@"
fi
if effx --help | grep -q '^  doctor'; then
  exec effx doctor
fi
exec effx --version
