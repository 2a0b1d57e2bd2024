"""The same bits on more machines: what torch and MKL choose by the processor, chosen once for all of them."""

from __future__ import annotations

import os
from pathlib import Path

CHOSEN = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"}
"""Environment variables that torch and MKL read when they first compute."""


def choose_avx2(cpu_info: Path = Path("/proc/cpuinfo")) -> None:
    """Compute with AVX2 in this process and its children, where the processor has it; what is set already stays.

    AVX-512 adds in another order, and some 50 steps of training later that is another run. MKL still has one order for
    Intel's processors and one for AMD's. Call this before anything is computed: later it has no effect.
    """
    if cpu_info.is_file() and "avx2" in cpu_info.read_text(encoding="utf-8").split():
        for variable, value in CHOSEN.items():
            os.environ.setdefault(variable, value)
