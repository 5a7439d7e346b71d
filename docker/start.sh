#!/usr/bin/env bash
# Without arguments: effx doctor. Otherwise: effx with the arguments.
set -euo pipefail
if [ $# -gt 0 ]; then
  exec effx "$@"
fi
if effx --help | grep -q '^  doctor'; then
  exec effx doctor
fi
exec effx --version
