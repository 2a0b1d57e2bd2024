#!/usr/bin/env bash
# One more node for a Ray cluster: bash launch/ray_worker.sh HEAD:PORT [--gpus N] [--cpus N] [--name NAME]
#
# HEAD:PORT is printed by launch/ray_head.sh; variables and requirements are described there. Runs until Ctrl-C.
set -euo pipefail
here=$(CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")" > /dev/null && pwd)
cd "$here/.."
exec bash launch/python.sh -m recipe.paec.ray_node worker "$@"
