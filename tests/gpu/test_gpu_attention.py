"""packed_sdpa with sequences of several lengths in the environment of a GPU cluster: which kernels run."""

from __future__ import annotations

import os
import subprocess
import sys

import yaml

from recipe.paec.common.repository import CONFIGS

PROGRAM = """
import sys
from types import SimpleNamespace

import torch
from torch.profiler import profile

from recipe.paec.actor.packed_sdpa import packed_sdpa

device, lengths = sys.argv[1], [37, 64, 101, 200]
positions = torch.cat([torch.arange(n) for n in lengths])[None].to(device)
states = [
    torch.randn(1, heads, sum(lengths), 64, dtype=torch.bfloat16, device=device, requires_grad=True)
    for heads in (4, 2, 2)
]
with profile() as seen:
    packed_sdpa(SimpleNamespace(num_key_value_groups=2), *states, None, position_ids=positions)[0].sum().backward()
print(*{event.name for event in seen.events()}, sep="\\n")
"""


def test_no_attention_of_cudnn(device):
    """PyTorch decides once in a process, at the first attention, so it is one of its own."""
    env = yaml.safe_load((CONFIGS / "cluster" / "gpu_1x8.yaml").read_text())["cluster"]["env"]
    command = [sys.executable, "-c", PROGRAM, device.type]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=True)
    names = [name.lower() for name in done.stdout.splitlines()]
    assert "aten::scaled_dot_product_attention" in names
    assert [name for name in names if "cudnn" in name] == []
