#!/usr/bin/env bash
# One more node for a Ray cluster: bash launch/ray_worker.sh HEAD:PORT [--gpus N] [--cpus N] [--name NAME]
#
# HEAD:PORT is what launch/ray_head.sh printed; knobs and conditions are described there. Stays until Ctrl-C.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/.."
exec bash launch/python.sh -m recipe.paec.ray_node worker "$@"
