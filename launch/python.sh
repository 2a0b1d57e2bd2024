#!/usr/bin/env bash
# The Python of this recipe, wherever it is installed: bash launch/python.sh ARGUMENT...
#
#   VENV       the virtual environment                                            (default .venv)
#   CONTAINER  an Apptainer or Singularity image whose `python` is used instead  (default none)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
if [[ -n ${CONTAINER:-} ]]; then
  for program in apptainer singularity; do
    if command -v "$program" > /dev/null; then
      exec "$program" exec --nv --bind "$PAEC_ROOT" --pwd "$PWD" "$CONTAINER" python "$@"
    fi
  done
  echo "error: CONTAINER is set, but $(hostname) has neither apptainer nor singularity: install one, or unset CONTAINER" >&2
  exit 2
fi
if [[ ! -x $VENV/bin/python ]]; then
  echo "error: no environment at $VENV on $(hostname): run bash launch/setup_env.sh gpu (or cpu), or set VENV" >&2
  exit 2
fi
exec "$VENV/bin/python" "$@"
