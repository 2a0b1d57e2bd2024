#!/usr/bin/env bash
# The collapse and its cure, with seeds: GRPO, PAEC, paec_text and an entropy bonus on the quick start's task, as they are
# shipped. The runs of docs/results.md, made in the laboratory (docs/lab.md), one process and one thread each.
#
#   bash launch/experiments/collapse.sh              12 runs of 150 steps: about an hour on 2 cores
#   QUICK=1 bash launch/experiments/collapse.sh      GRPO and PAEC, 2 seeds, 100 steps: 4 to 15 minutes on 2 cores
#
# The same command continues: finished runs are kept, interrupted ones resumed.
# Relative paths are relative to the clone, whatever the current folder is.
#
#   OUTPUT     folder of runs, records, tables and report   (default outputs/collapse, or outputs/collapse-quick)
#   PROCESSES  runs at a time                               (default 2)
#   VENV       the virtual environment                      (default .venv)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
cd "$PAEC_ROOT"
VENV=$VENV bash launch/setup_env.sh cpu
jobs=defaults
[[ -z ${QUICK:-} ]] || jobs=quick
OUTPUT=${OUTPUT:-outputs/collapse${QUICK:+-quick}}

"$VENV/bin/python" -m recipe.lab.sweep "benchmarks/lab/$jobs.yaml" --processes "${PROCESSES:-2}" \
  --runs "$OUTPUT/runs" --records "$OUTPUT/records/$jobs"
"$VENV/bin/python" -m benchmarks.lab.results --records "$OUTPUT/records" --output "$OUTPUT"
"$VENV/bin/python" -m recipe.paec.report "$OUTPUT"/runs/* --output "$OUTPUT/report.html"
