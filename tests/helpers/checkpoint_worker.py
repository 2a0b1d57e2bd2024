"""Run under torchrun for the export's tests: checkpoints as verl's FSDP engine saves them, every parameter changed.

`python checkpoint_worker.py WORK CASES.json`: WORK holds the models. A case names its checkpoint below WORK, its model,
the Ulysses degree and the rank of the adapter (0: none). Rank 0 writes `<name>.pt`: the logits of the sharded model
(Ulysses needs verl's own batches, so there are none), whether loading the checkpoint brings the parameters back, and,
on one rank, the error for a shard that would create the file `<name>.canary` when unpickled.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

os.environ.setdefault("VERL_PLATFORM", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.distributed as dist
from ranks import run_cases

from recipe.paec.run.checkpoints import CheckpointError

FP32 = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
PROMPT = torch.arange(12)[None]


class Canary:
    """Unpickled, it creates a file."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def engine_of(work: Path, case: dict):
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import FSDPOptimizerConfig, HFModelConfig

    from paec_loss import Clip
    from paec_loss.methods.paec import PAEC
    from recipe.paec.actor.engine import PAECEngine
    from recipe.paec.actor.engine_config import MethodEngineConfig

    model = HFModelConfig(
        path=str(work / case["model"]),
        external_lib="recipe.paec.plugins.register",
        use_remove_padding=True,
        enable_gradient_checkpointing=False,
        lora_rank=case["lora"],
        lora_alpha=4,
        override_config={"attn_implementation": "packed_sdpa"},
    )
    model.model_type = "language_model"
    settings = MethodEngineConfig(
        strategy="fsdp2",
        model_dtype="fp32",
        mixed_precision=FP32,
        use_torch_compile=False,
        ulysses_sequence_parallel_size=case["sp"],
        fsdp_size=case["fsdp_size"],
        methods=[PAEC()],
        clip=Clip(0.2, 0.2, 3.0),
        fused_head=False,
        head_chunk_size=None,
    )
    contents = ["model", "optimizer", "extra"]
    checkpoint = CheckpointConfig(save_contents=contents, load_contents=contents)
    engine = PAECEngine(model, settings, FSDPOptimizerConfig(lr=0.0, total_training_steps=10), checkpoint)
    engine.initialize()
    return engine


def run(work: Path, case: dict) -> None:
    torch.manual_seed(0)  # the adapter begins at random
    engine = engine_of(work, case)
    with torch.no_grad():
        for name, parameter in engine.module.named_parameters():
            local = parameter.to_local()
            # As training would: every parameter differs from the base model's, in the same way on any number of ranks.
            local.copy_(local.cos() * 0.05 if "lora_B" in name else local + 0.01 * local.sin())
    for parameter in engine.module.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    engine.optimizer.step()  # with a rate of 0: the optimizer gets its state, the parameters stay
    folder = work / case["name"] / "actor"
    engine.save_checkpoint(str(folder), global_step=3)
    result: dict = {"refused": None}
    if case["sp"] == 1:
        with torch.no_grad():
            result["logits"] = engine.module(input_ids=PROMPT, position_ids=PROMPT).logits
    saved = [parameter.to_local().clone() for parameter in engine.module.parameters()]
    with torch.no_grad():
        for parameter in engine.module.parameters():
            parameter.zero_()
    engine.load_checkpoint(str(folder))
    pairs = zip(saved, engine.module.parameters(), strict=True)
    result["resumed"] = all(torch.equal(before, after.to_local()) for before, after in pairs)
    if dist.get_world_size() == 1:
        planted = work / f"{case['name']}.planted"
        shutil.copytree(folder, planted)
        torch.save({"state": Canary(work / f"{case['name']}.canary")}, planted / "optim_world_size_1_rank_0.pt")
        try:
            engine.load_checkpoint(str(planted))
        except CheckpointError as error:
            result["refused"] = str(error)
    if dist.get_rank() == 0:
        torch.save(result, work / f"{case['name']}.pt")
    dist.barrier()


if __name__ == "__main__":
    run_cases(run)
