#!/usr/bin/env bash
# All tests on a machine without GPU, end to end included: bash tests/run.sh [pytest arguments]
#
# Brings the environment up to date first (launch/setup_env.sh cpu). Without arguments: everything that runs in one
# process, two at a time, then what starts Ray, one after the other. With arguments: one pytest call with them
# (`-m "not pipeline"` leaves out what starts Ray).
#
#   VENV  the virtual environment  (default .venv)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export VENV=${VENV:-$PWD/.venv}
bash launch/setup_env.sh cpu
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
if (($# > 0)); then
  exec "$VENV/bin/python" -m pytest "$@"
fi
"$VENV/bin/python" -m pytest -n 2 --dist loadfile -m "not pipeline"
exec "$VENV/bin/python" -m pytest -m pipeline
