"""The GPUs that a process may use."""

from __future__ import annotations

from recipe.paec.common.gpus import gpu_count


def test_gpu_count_reads_the_visible_devices(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3,5")
    assert gpu_count() == 3
