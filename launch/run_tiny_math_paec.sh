#!/usr/bin/env bash
# GRPO + PAEC on word problems, on a machine without GPU: environment, data, tiny model, warm start, training, summary.
#
#   bash launch/run_tiny_math_paec.sh [--dry-run] [override ...]
#
# Overrides are Hydra's: method=none, method.rho=0.7, trainer.total_training_steps=5 ...
# Relative paths are relative to the clone, whatever the current folder is.
#
#   PAEC_TINY_MATH_DIR    where data and warm-started model are made, once          (default data/tiny_math)
#   PAEC_TINY_MATH_ARGS   more arguments for data_prep.tiny, such as "--steps 600"  (default none)
#   VENV                  the virtual environment                                   (default .venv)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
paec_run cpu tiny_math "$@"
