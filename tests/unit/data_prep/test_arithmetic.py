"""AVX2 where the processor has it, before torch computes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.arithmetic import CHOSEN, choose_avx2

CPU_INFO = Path("/proc/cpuinfo")
HAS_AVX2 = CPU_INFO.is_file() and "avx2" in CPU_INFO.read_text().split()


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if k not in CHOSEN})


@pytest.mark.parametrize(("flags", "chosen"), [("fpu avx avx2 avx512f", CHOSEN), ("fpu avx avx512f", {}), (None, {})])
def test_only_where_the_processor_has_it(tmp_path, flags, chosen):
    info = tmp_path / "cpuinfo"
    if flags is not None:
        info.write_text(f"model name\t: one\nflags\t\t: {flags}\n")
    choose_avx2(info)
    assert {key: os.environ[key] for key in CHOSEN if key in os.environ} == chosen


def test_what_is_set_stays(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("flags : avx2\n")
    os.environ["MKL_CBWR"] = "COMPATIBLE"
    choose_avx2(info)
    assert os.environ["MKL_CBWR"] == "COMPATIBLE" and os.environ["ATEN_CPU_CAPABILITY"] == "avx2"


@pytest.mark.skipif(not HAS_AVX2, reason="the processor has no AVX2")
@pytest.mark.parametrize("module", ["recipe.lab.__main__", "data_prep.tiny"])
def test_the_commands_compute_with_it(module):
    """Nothing that they import has made torch choose before."""
    script = f"""
import sys
from {module} import main
sys.argv = ["", "--help"]
try:
    main()
except SystemExit:
    pass
import torch
print(torch.backends.cpu.get_cpu_capability())
"""
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert found.stdout.splitlines()[-1] == "AVX2"
