"""NCCL, and a vocabulary that is sharded, on one rank: what a single GPU can show of both."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from kernel_cases import DIFFERENTIABLE, VALUES, case, statistics_and_gradient
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from paec_loss import token_statistics


@pytest.fixture(scope="module")
def group(tmp_path_factory, device):
    """A process group of one rank: gloo for the CPU and NCCL for the GPU, as verl makes it."""
    store = tmp_path_factory.mktemp("store") / "store"
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo", init_method=f"file://{store}", rank=0, world_size=1
    )
    yield dist.group.WORLD
    dist.destroy_process_group()


def test_the_doctors_collective(device, tmp_path):
    from recipe.paec.doctor.collective import SECONDS, all_reduce

    assert not dist.is_initialized()
    place = "cuda:0" if device.type == "cuda" else "cpu"
    all_reduce(0, 1, f"file://{tmp_path / 'store'}", place, SECONDS[device.type])
    assert not dist.is_initialized()


def test_nccl_with_one_rank(group, device):
    """Every collective that the recipe uses, for the dtypes that it sends."""
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.int64):
        values = torch.arange(5, device=device).to(dtype)
        for operation in (dist.ReduceOp.SUM, dist.ReduceOp.MAX):
            reduced = values.clone()
            dist.all_reduce(reduced, op=operation, group=group)
            assert torch.equal(reduced, values)
        parts = [torch.empty_like(values)]
        dist.all_gather(parts, values, group=group)
        assert torch.equal(parts[0], values)
    dist.barrier()


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("kind", ["peaked", "flat", "special"])
@pytest.mark.parametrize("way", ["group", "dtensor"])
def test_shards_on_one_rank_are_the_whole(group, device, way, kind, dtype):
    logits, labels, temperature, upstream = case(kind, dtype, 8192, device)
    wanted, slope = statistics_and_gradient(logits, labels, temperature, upstream, 0.8)
    leaf = logits.detach().clone().requires_grad_()
    given, arguments = leaf * 1.0, {"group": group}
    if way == "dtensor":
        mesh = init_device_mesh(device.type, (1, 1), mesh_dim_names=("rows", "vocabulary"))
        given, arguments = DTensor.from_local(given, mesh, [Replicate(), Shard(1)]), {}
    found = token_statistics(given, labels, top_p=0.8, temperature=temperature, inplace_backward=True, **arguments)
    total = sum((w * getattr(found, n).double()).sum() for w, n in zip(upstream, DIFFERENTIABLE, strict=True))
    total.backward()
    sound = wanted.sound
    assert found.vocab_size == 8192
    assert torch.equal(found.nucleus_size, wanted.nucleus_size)
    for name in VALUES:
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), rtol=1e-6, atol=1e-12, equal_nan=True)
    # Two backends may round a gradient to neighbouring numbers of its dtype.
    rtol = {"bf16": 2**-7, "fp32": 4e-6}[dtype]
    torch.testing.assert_close(leaf.grad[sound], slope[sound], rtol=rtol, atol=1e-7)
    assert leaf.grad[~sound][logits[~sound] != -torch.inf].isnan().all()
