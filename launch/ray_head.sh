#!/usr/bin/env bash
# The head of a Ray cluster of several nodes, without Slurm; runs until Ctrl-C, and then stops everything it started.
#
#   first node:   bash launch/ray_head.sh [--gpus N] [--cpus N] [--name NAME] [--port 6379] [--peer OTHER_NODE]
#   other nodes:  bash launch/ray_worker.sh HEAD:PORT
#   first node, a second shell:
#                 bash launch/run_qwen7b_paec.sh cluster.ray_address=HEAD:PORT cluster.nodes=2
#
# This prints HEAD:PORT. Every node must see this repository, the environment, model, data and outputs/ at the same
# paths, and have the same token, which is created here at the first start.
#
#   PAEC_INTERFACE       network interface of the cluster              (default: the one on the way to the other nodes)
#   RAY_AUTH_TOKEN_PATH  the token without which nobody can connect    (default ~/.ray/auth_token)
#   PAEC_TMP             where Ray's temporary folder is created       (default /tmp)
#   VENV, CONTAINER      which Python: see launch/python.sh
set -euo pipefail
here=$(CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")" > /dev/null && pwd)
cd "$here/.."
exec bash launch/python.sh -m recipe.paec.ray_node head "$@"
