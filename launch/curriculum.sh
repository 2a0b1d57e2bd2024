#!/usr/bin/env bash
# Scores the prompts of a training for its curriculum, with vLLM on every GPU of this machine (docs/curriculum.md).
#
#   bash launch/curriculum.sh experiment=qwen7b
#
# Arguments are the training's, Hydra's overrides: data=..., model.path=..., data.curriculum.samples=16, --dry-run ...
# Relative paths are relative to the clone, whatever the current folder is.
#
#   VENV  the virtual environment  (default .venv)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$PAEC_ROOT"
VENV=$VENV bash launch/setup_env.sh "$(paec_stack)"
exec "$VENV/bin/python" -m recipe.paec.curriculum "$@"
