#!/usr/bin/env bash
# Scores of a model, a checkpoint, or all checkpoints of a run, with vLLM on every GPU of this machine.
#
#   bash launch/evaluate.sh model=Qwen/Qwen2.5-Math-7B 'benchmarks=[aime24,amc23,math500]' protocol=luffy
#   bash launch/evaluate.sh model=outputs/qwen7b-paec 'benchmarks=[aime24]' protocol=luffy         every checkpoint
#   bash launch/evaluate.sh samples=theirs.jsonl 'benchmarks=[aime24]'                             other people's responses
#
# Overrides are Hydra's (configs/evaluate.yaml): seed=1, protocol.max_tokens=3072, cluster.tensor_parallel=2, --dry-run ...
# Relative paths are relative to the clone, whatever the current folder is.
#
#   VENV  the virtual environment  (default .venv)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$PAEC_ROOT"
VENV=$VENV bash launch/setup_env.sh "$(paec_stack)"
exec "$VENV/bin/python" -m recipe.paec.evaluate "$@"
