"""Run under torchrun by test_export.py: checkpoints as verl's FSDP engine saves them, every parameter changed.

`python export_worker.py WORK CASES.json`: WORK holds the models. A case names its checkpoint below WORK, its model, the
Ulysses degree and the rank of the adapter (0: none). Without Ulysses, whose attention needs verl's own batches, rank 0
writes the logits of the sharded model to `<name>.pt`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("VERL_PLATFORM", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.distributed as dist

FP32 = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
PROMPT = torch.arange(12)[None]


def engine_of(work: Path, case: dict):
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import FSDPOptimizerConfig, HFModelConfig

    from recipe.paec.engine import PAECEngine
    from recipe.paec.engine_config import MethodEngineConfig

    model = HFModelConfig(
        path=str(work / case["model"]),
        external_lib="recipe.paec.worker",
        use_remove_padding=True,
        enable_gradient_checkpointing=False,
        lora_rank=case["lora"],
        lora_alpha=4,
        override_config={"attn_implementation": "ulysses_sdpa" if case["sp"] > 1 else "sdpa"},
    )
    model.model_type = "language_model"
    settings = MethodEngineConfig(
        strategy="fsdp2",
        model_dtype="fp32",
        mixed_precision=FP32,
        use_torch_compile=False,
        ulysses_sequence_parallel_size=case["sp"],
        fsdp_size=case["fsdp_size"],
        fused_head=False,
        head_chunk_size=None,
    )
    contents = ["model", "optimizer", "extra"]
    checkpoint = CheckpointConfig(save_contents=contents, load_contents=contents)
    engine = PAECEngine(model, settings, FSDPOptimizerConfig(lr=1e-3, total_training_steps=10), checkpoint)
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
    engine.save_checkpoint(str(work / case["name"] / "actor"), global_step=3)
    if case["sp"] == 1:
        with torch.no_grad():
            logits = engine.module(input_ids=PROMPT, position_ids=PROMPT).logits
        if dist.get_rank() == 0:
            torch.save(logits, work / f"{case['name']}.pt")
    dist.barrier()


def main() -> None:
    torch.set_num_threads(1)
    import verl  # noqa: F401  (loads the plugin)

    import recipe.paec.worker  # noqa: F401

    dist.init_process_group("gloo")
    work = Path(sys.argv[1])
    for case in json.loads(Path(sys.argv[2]).read_text()):
        run(work, case)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
