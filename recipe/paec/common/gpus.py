"""GPUs of this node, by nvidia-smi."""

from __future__ import annotations

import os
import shutil
import subprocess


def gpu_count() -> int:
    """NVIDIA GPUs that nvidia-smi lists here, restricted by CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([entry for entry in visible.split(",") if entry.strip() not in ("", "-1")])
    if shutil.which("nvidia-smi") is None:
        return 0
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False)
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())


def visible_gpus() -> list[tuple[str, float, float]]:
    """Index, total and free bytes of every GPU that this process may use, from nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=index,uuid,memory.total,memory.free", "--format=csv,noheader,nounits"]
    listing = subprocess.run(query, capture_output=True, text=True, timeout=60, check=False).stdout
    gpus = {}
    for line in listing.splitlines():
        index, uuid, *sizes = (cell.strip() for cell in line.split(","))
        if all(size.isdigit() for size in sizes):  # a GPU split into MIG slices has no number here
            gpus[index] = gpus[uuid] = (index, *(int(size) * 2**20 for size in sizes))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = gpus if visible is None else [entry.strip() for entry in visible.split(",")]
    return list(dict.fromkeys(gpus[entry] for entry in chosen if entry in gpus))
