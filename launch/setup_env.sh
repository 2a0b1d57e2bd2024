#!/usr/bin/env bash
# Create or update the virtual environment for one of the two stacks: bash launch/setup_env.sh cpu|gpu
#
# Idempotent: returns immediately if the environment already has what setup.py and the constraints require. Versions are
# only named in setup.py. The CPU stack is installed from launch/lock-cpu.txt; launch/constraints-gpu.txt freezes the
# other.
#
#   VENV             folder of the environment                                    (default .venv in this repository)
#   PYTHON           the Python to create it with, 3.11 or 3.12                    (default: python3.11, else the first found)
#   UV               the uv that installs the CPU stack, faster than pip           (default: uv if it is found; UV= for pip)
#   FLASH_ATTN       1: compile flash-attn too, for the gpu stack; needs nvcc, and half an hour or more  (default 0)
#   TORCH_INDEX_URL  wheel index only for torch; set it to PyTorch's CPU index if pip would download the CUDA build
set -euo pipefail

root=$(CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")/.." > /dev/null && pwd)
stack=${1:-}
if [[ $stack != cpu && $stack != gpu ]]; then
  echo "usage: bash launch/setup_env.sh cpu|gpu" >&2
  exit 2
fi
venv=${VENV:-$root/.venv}
lock=$root/launch/$([[ $stack == cpu ]] && echo lock || echo constraints)-$stack.txt
wanted=$(cat "$root/setup.py" "${BASH_SOURCE[0]}" "$lock" | sha256sum | cut -c1-16)
stamp=$venv/.paec-$stack-$wanted
flash_attn=$([[ $stack == gpu && ${FLASH_ATTN:-0} == 1 ]] && echo 1 || echo 0)
has_flash_attn() { "$venv/bin/python" -c 'from importlib.metadata import version; version("flash-attn")' 2> /dev/null; }
if [[ -f $stamp ]] && { [[ $flash_attn == 0 ]] || has_flash_attn; }; then
  exit 0
fi
other=$([[ $stack == cpu ]] && echo gpu || echo cpu)
if compgen -G "$venv/.paec-$other-*" > /dev/null; then
  echo "error: $venv contains the $other stack: set VENV to another folder, or delete this one first" >&2
  exit 2
fi

suitable() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2> /dev/null; }
if ! "$venv/bin/python" -m pip --version > /dev/null 2>&1; then
  pythons=(python3.11 python3 python3.12)
  [[ -z ${PYTHON:-} ]] || pythons=("$PYTHON")
  # An environment that was interrupted, or has no pip, is completed with its own Python.
  for python in "$venv/bin/python" "${pythons[@]}"; do
    suitable "$python" && break
    python=
  done
  if [[ -z $python ]]; then
    echo "error: no Python 3.11 or 3.12 found: install one, or set PYTHON=/path/to/python" >&2
    exit 2
  fi
  echo "creating $venv with $("$python" --version)"
  "$python" -m venv "$venv"
fi

log=$venv/install.log
# pip, with its output in the log and progress on the terminal; on failure the end of the log.
install() {
  # shellcheck disable=SC2094  # both only append
  "$venv/bin/python" -m pip --disable-pip-version-check install "$@" 2>> "$log" | tee -a "$log" |
    awk '/^(Collecting|Processing)/ { if (++n % 25 == 0) { print "  " n " packages found"; fflush() } }
         /^Installing/ { print "  installing them"; fflush() }' || {
    tail -n 20 "$log" >&2
    echo "error: the installation failed; the complete log is $log" >&2
    exit 1
  }
}
pin() { "$venv/bin/python" "$root/setup.py" --pin "$1"; }
if [[ $stack == gpu ]] && command -v nvidia-smi > /dev/null; then
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2> /dev/null | head -n 1) || driver= # nvidia-smi without a driver
  if [[ ${driver%%.*} =~ ^[0-9]+$ ]] && ((${driver%%.*} < 580)); then
    echo "warning: NVIDIA's driver is $driver here; this stack is built for CUDA 13, which needs 580 or newer" >&2
  fi
fi
about=$([[ $stack == cpu ]] && echo "3 minutes" || echo "10 minutes, 11 GB")
echo "installing the $stack stack into $venv (about $about; log: $log)"
install "setuptools==77.0.3" wheel
torch=$(pin torch-"$stack")
if [[ -n ${TORCH_INDEX_URL:-} ]]; then
  install "$torch" --index-url "$TORCH_INDEX_URL"
else
  install "$torch"
fi
if [[ $stack == cpu ]]; then
  # The lock is complete, and resolving would fail: pyproject.toml says what it corrects.
  uv=${UV-$(command -v uv || true)}
  if [[ -n $uv ]]; then
    "$uv" pip install --python "$venv/bin/python" --no-deps -r "$lock" 2>&1 | tee -a "$log" || {
      echo "error: $uv failed; the complete log is $log. UV= bash launch/setup_env.sh cpu uses pip instead" >&2
      exit 1
    }
  else
    install --no-deps -r "$lock"
  fi
  install --no-deps --no-build-isolation -e "$root"
else
  install -c "$lock" -e "${root}[gpu,test]" --no-build-isolation
  if [[ $flash_attn == 1 ]] && ! has_flash_attn; then
    # It compiles against the torch that is already there.
    install ninja packaging psutil
    install -c "$lock" "$(pin flash-attn)" --no-build-isolation
  fi
fi
"$venv/bin/python" -m recipe.paec.common.versions
rm -f "$venv"/.paec-"$stack"-*
touch "$stamp"
echo "environment ready: $venv"
