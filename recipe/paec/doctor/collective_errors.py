"""What to do about a collective that failed."""

from __future__ import annotations

DRIVER = 580
"""Branch of NVIDIA's driver that CUDA 13, so the GPU stack, needs."""


def remedy(error: str, env: dict[str, str]) -> str:
    """What to do about an error of a rank, or of the collective's own process."""
    if "driver" in error and ("too old" in error or "insufficient" in error):
        return f"update NVIDIA's driver to branch {DRIVER} or newer, which CUDA 13 needs (nvidia-smi shows it)"
    if "out of memory" in error:
        return "stop what else uses the GPU (nvidia-smi shows it)"
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    now = ", ".join(f"{name}={env.get(name, 'unset')}" for name in names)
    return f"set the interface that connects all ranks (now {now}); NCCL_DEBUG=INFO shows more"
