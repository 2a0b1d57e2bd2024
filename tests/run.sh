#!/usr/bin/env bash
# All tests on a machine without GPU, end to end included: bash tests/run.sh [--all | pytest arguments]
#
# Brings the environment up to date first (launch/setup_env.sh cpu). Without arguments: all tests, two files at
# a time; --all adds the slow ones (a real Slurm, Ray clusters of two nodes). With other arguments: pytest with them
# (`-m "not pipeline"` leaves out what starts Ray).
#
#   VENV  the virtual environment  (default .venv)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export VENV=${VENV:-$PWD/.venv}
bash launch/setup_env.sh cpu
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
two_files=(-n 2 --dist loadfile --no-loadscope-reorder)
if [[ ${1:-} == --all ]]; then
  set -- "${two_files[@]}"
elif (($# == 0)); then
  set -- "${two_files[@]}" -m "not slow"
fi
exec "$VENV/bin/python" -m pytest "$@"
