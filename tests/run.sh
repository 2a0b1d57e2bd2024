#!/usr/bin/env bash
# The tests: bash tests/run.sh [--lint | --light | --pipeline | --all | --gpu-stack | --gpu | pytest arguments]
#
# Without arguments: the first three, all tests on a machine without GPU, end to end included. What starts Ray runs one test
# after the other and leaves half of 2 cores idle; beside it, with lowest priority, runs what does not, two files at a time.
# Their reports come one after the other. The environment is brought up to date first (launch/setup_env.sh cpu, or gpu for
# the last two).
#
#   --lint       style, spelling, shell scripts and types, no test
#   --light      the tests that start no Ray
#   --pipeline   the tests that do
#   --all        all three, with the slow tests: a real Slurm, Ray clusters of two nodes
#   --gpu-stack  what starts neither Ray nor vLLM, with the GPU stack, on a machine with or without GPU; 11 GB, not in CI
#   --gpu        tests/gpu: what only a GPU can show; needs one
#
# With other arguments: pytest with them (`-m "not pipeline"` leaves out what starts Ray).
#
#   VENV  the virtual environment  (default .venv; must hold the stack, and for --gpu-stack and --gpu that is the GPU one)
set -euo pipefail
CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")/.." > /dev/null
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

lint() {
  local scripts
  mapfile -t scripts < <(find launch tests -name "*.sh" -o -name "*.sbatch")
  "$VENV/bin/ruff" check .
  "$VENV/bin/ruff" format --check .
  "$VENV/bin/codespell"
  "$VENV/bin/shellcheck" .ci/run "${scripts[@]}"
  "$VENV/bin/mypy"
}
# Both replace the shell that calls them, so that in the background $! is pytest.
light() { exec nice -n 19 "$VENV/bin/python" -m pytest -n 2 --dist loadfile -m "not pipeline and ($1)" "${@:2}"; }
pipeline() { exec "$VENV/bin/python" -m pytest -m "pipeline and ($1)" "${@:2}"; }

speed="not slow"
case ${1:-} in
  --lint)
    lint
    exit
    ;;
  --light)
    light "$speed" "${@:2}"
    ;;
  --pipeline)
    pipeline "$speed" "${@:2}"
    ;;
  --all)
    speed="slow or not slow"
    shift
    ;;
esac
lint
if (($# > 0)); then
  exec "$VENV/bin/python" -m pytest "$@"
fi

report=$(mktemp)
pipeline "$speed" >"$report" 2>&1 &
halves=($!)
light "$speed" &
halves+=($!)
# Also after Ctrl-C or SIGTERM, when both are still running: neither goes on alone.
trap 'kill -INT "${halves[@]}" 2>/dev/null || true; wait; cat "$report"; rm -f "$report"' EXIT
echo "what starts Ray runs beside this, and reports afterwards"
failed=0
for half in "${halves[@]}"; do
  wait "$half" || failed=$?
done
exit "$failed"
