#!/usr/bin/env bash
# PAEC on Qwen3-0.6B and GSM8K, one GPU of 24 GB or more.
#
#   bash launch/run_1gpu_paec.sh [--dry-run] [override ...]
#
# Overrides are Hydra's: method=none, model=qwen2.5_0.5b_instruct, trainer.total_training_steps=20 ...
# Relative paths are relative to the clone, whatever the current folder is.
#
#   EXPERIMENT  qwen0.6b_gsm8k for 24 GB, qwen0.6b_gsm8k_80gb for 80 GB   (default qwen0.6b_gsm8k)
#   MODEL       folder or hub id of the model       (default Qwen/Qwen3-0.6B, which must be downloaded already)
#   TRAIN_FILE  training rows, verl's row contract  (default data/gsm8k/train.parquet)
#   VAL_FILE    validation rows                     (default data/gsm8k/test.parquet)
#   VENV        the virtual environment             (default .venv)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
paec_run any "${EXPERIMENT:-qwen0.6b_gsm8k}" "$@"
