#!/usr/bin/env bash
# All tests on a machine without GPU, end to end included: bash tests/run.sh [pytest arguments]
#
# Brings the environment up to date first (launch/setup_env.sh cpu). `-m "not pipeline"` leaves out what starts Ray.
#
#   VENV  the virtual environment  (default .venv)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export VENV=${VENV:-$PWD/.venv}
bash launch/setup_env.sh cpu
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
exec "$VENV/bin/python" -m pytest "$@"
