#!/usr/bin/env bash
# The tests: bash tests/run.sh [--all | --gpu-stack | --gpu | pytest arguments]
#
# Without arguments: all tests on a machine without GPU, end to end included: what does not start Ray, two files at a time,
# then what does, one after the other (two at once take longer on 2 cores). The environment is brought up to date first
# (launch/setup_env.sh cpu, or gpu for the next two).
#
#   --all        adds the slow ones: a real Slurm, Ray clusters of two nodes
#   --gpu-stack  what starts neither Ray nor vLLM, with the GPU stack, on a machine with or without GPU; 11 GB, not in CI
#   --gpu        tests/gpu: what only a GPU can show; needs one
#
# With other arguments: pytest with them (`-m "not pipeline"` leaves out what starts Ray).
#
#   VENV  the virtual environment  (default .venv; must hold the stack, and for --gpu-stack and --gpu that is the GPU one)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export VENV=${VENV:-$PWD/.venv}
case ${1:-} in
  --gpu-stack)
    bash launch/setup_env.sh gpu
    exec "$VENV/bin/python" -m pytest -m "not pipeline and not slow" "${@:2}"
    ;;
  --gpu)
    bash launch/setup_env.sh gpu
    exec "$VENV/bin/python" -m pytest tests/gpu "${@:2}"
    ;;
esac
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
