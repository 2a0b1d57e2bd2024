# Sourced by the launch scripts: repository root, environment, and the call that starts a run.
# shellcheck shell=bash

PAEC_ROOT=$(CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")/.." > /dev/null && pwd)
VENV=${VENV:-$PAEC_ROOT/.venv}

# The stack of the environment; if there is no environment yet, the one that this machine can use.
paec_stack() {
  if compgen -G "$VENV/.paec-cpu-*" > /dev/null; then
    echo cpu
  elif compgen -G "$VENV/.paec-gpu-*" > /dev/null || nvidia-smi -L > /dev/null 2>&1; then
    echo gpu
  else
    echo cpu
  fi
}

# paec_run STACK|any EXPERIMENT [override ...]: update the environment, then train (or --dry-run), which starts with the
# checks of recipe.paec.doctor.
paec_run() {
  local stack=$1 experiment=$2
  shift 2
  if [[ $stack == any ]]; then
    stack=$(paec_stack)
  fi
  cd "$PAEC_ROOT" || return
  VENV=$VENV bash launch/setup_env.sh "$stack"
  exec "$VENV/bin/python" -m recipe.paec.train "experiment=$experiment" "$@"
}
