"""What FSDP2 and AdamW hold on a rank, measured: started with torch.multiprocessing, which imports it by name."""

import json
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM


def sharded_states(rank: int, ranks: int, folder: str) -> None:
    """One AdamW step of the quick start's model under FSDP2; bytes of its local tensors to `folder`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks)
    mesh = init_device_mesh("cpu", (ranks,))
    model = AutoModelForCausalLM.from_pretrained(f"{folder}/model")
    for module in (*model.model.layers, model):
        fully_shard(module, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.arange(8)[None]).logits.logsumexp(-1).sum().backward()
    optimizer.step()
    parameters = list(model.parameters())
    tensors = {
        "parameters": parameters,
        "gradients": [p.grad for p in parameters],
        "moments": [state[key] for state in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")],
    }
    sizes = {name: sum(t.to_local().nbytes for t in found) for name, found in tensors.items()}
    Path(folder, f"{rank}.json").write_text(json.dumps(sizes), encoding="utf-8")
    dist.destroy_process_group()
