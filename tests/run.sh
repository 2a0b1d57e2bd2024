#!/usr/bin/env bash
# All tests on a machine without GPU, end to end included: bash tests/run.sh [--all | pytest arguments]
#
# Brings the environment up to date first (launch/setup_env.sh cpu). Without arguments: what does not start Ray, two files
# at a time, then what does, one after the other (two at once take longer on 2 cores); --all adds the slow ones (a real
# Slurm, Ray clusters of two nodes). With other arguments: pytest with them (`-m "not pipeline"` leaves out what starts
# Ray).
#
#   VENV  the virtual environment  (default .venv)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export VENV=${VENV:-$PWD/.venv}
bash launch/setup_env.sh cpu
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
speed="not slow"
if [[ ${1:-} == --all ]]; then
  speed="slow or not slow"
  shift
fi
if (($# > 0)); then
  exec "$VENV/bin/python" -m pytest "$@"
fi
"$VENV/bin/python" -m pytest -n 2 --dist loadfile -m "not pipeline and ($speed)"
exec "$VENV/bin/python" -m pytest -m "pipeline and ($speed)"
