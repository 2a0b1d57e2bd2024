#!/usr/bin/env bash
# Every method with every seed, one training after the other (on a cluster: as a Slurm array), and one table of them all.
#
#   bash launch/grid.sh METHODS="none paec siren" SEEDS="0 1 2" [--table-only | --dry-run] [override ...]
#
# The same command again skips finished runs and resumes interrupted ones. Overrides are Hydra's, for all runs.
# Relative paths are relative to the clone, whatever the current folder is.
#
#   METHODS     methods (docs/methods.md), or [LABEL=]METHOD[:OVERRIDE]...: low=paec:method.rho_min=0.5
#   SEEDS       seeds of complete runs                                          (default "0 1 2")
#   EXPERIMENT  a file of configs/experiment                                    (default tiny_cpu)
#   GRID        folder of the table, below run.root                             (default compare-EXPERIMENT)
#   SLURM       options of sbatch, such as "--nodes=1 --time=24:00:00": submit  (default: train here)
#   VENV, CONTAINER  which Python: see launch/python.sh
#
# The first five may be arguments, as above, or variables. Exit code: 1 if a run failed, 2 for wrong input, 130 or 143
# after Ctrl-C or SIGTERM, which save a checkpoint first. See docs/comparing.md.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
for argument in "$@"; do
  [[ $argument == EXPERIMENT=* ]] && EXPERIMENT=${argument#*=}
done
case ${EXPERIMENT:-tiny_cpu} in # the tiny experiments name their stack, whatever the machine has
  tiny_gpu*) stack=gpu ;;
  tiny_*) stack=cpu ;;
  *) stack=$(paec_stack) ;;
esac
cd "$PAEC_ROOT"
[[ -n ${CONTAINER:-} ]] || VENV=$VENV bash launch/setup_env.sh "$stack"
exec bash launch/python.sh -m recipe.paec.grid "$@"
