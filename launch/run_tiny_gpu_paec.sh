#!/usr/bin/env bash
# The quick start on one GPU, the first thing to run on a new one: environment, data, tiny model, GRPO + PAEC, summary.
#
#   bash launch/run_tiny_gpu_paec.sh [--dry-run] [override ...]
#
# Overrides are Hydra's: method=none, cluster.enforce_eager=false, trainer.total_training_steps=5 ...
# Relative paths are relative to the clone, whatever the current folder is.
#
#   PAEC_TINY_DIR    where data and warm-started model are kept                 (default data/tiny)
#   PAEC_TINY_ARGS   more arguments for data_prep.tiny, such as "--steps 600"  (default none)
#   PAEC_TINY_FRESH  1: make them anew instead of copying them from the repository
#   VENV             the virtual environment                                   (default .venv)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
paec_run gpu tiny_gpu "$@"
