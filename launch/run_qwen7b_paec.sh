#!/usr/bin/env bash
# PAEC on Qwen2.5-Math-7B, DAPO-Math-17k for training and AIME24 for validation, one node with 8 GPUs.
#
#   bash launch/run_qwen7b_paec.sh [--dry-run] [override ...]
#
# Overrides are Hydra's: method=none, method=siren, method.rho=0.7, trainer.total_training_steps=100 ...
# Relative paths are relative to the clone, whatever the current folder is.
#
#   MODEL       folder or hub id of the model      (default Qwen/Qwen2.5-Math-7B, which must be downloaded already)
#   TRAIN_FILE  training rows, verl's row contract  (default data/dapo_math_17k/train.parquet)
#   VAL_FILE    validation rows                     (default data/aime24/test.parquet)
#   VENV        the virtual environment             (default .venv)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
paec_run any qwen7b "$@"
