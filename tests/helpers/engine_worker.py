"""Run under torchrun by test_engine.py: one mini-batch through verl's FSDP2 engine, for many ways to split it.

`python engine_worker.py WORK CASES.json`: WORK holds `model/`, `batch.pt` and `adapters.pt` (LoRA weights by name);
rank 0 writes every case's loss, gradient and metrics to `WORK/<case name>.pt`.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path

os.environ.setdefault("VERL_PLATFORM", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.distributed as dist
from ranks import run_cases
from tensordict import TensorDict

from paec_loss import Clip, MethodStack
from paec_loss.methods import METHODS
from recipe.paec.actor.batches import NUCLEUS, RESPONSE_NUMBER, RESPONSE_VALUE, response_statistics
from recipe.paec.config.resolve import NO_DUAL_CLIP
from recipe.paec.config.schema import OWN_SURROGATE


def nested(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def method_of(case: dict):
    """The case's method: a name and fields; `none` if it has none."""
    name, fields = case["method"] or ("none", {})
    return METHODS[name](**fields)


def local_batch(batch: dict, case: dict, rank: int, ranks: int) -> TensorDict:
    """This data-parallel rank's contiguous part of the mini-batch, in verl's nested layout."""
    from verl.utils import tensordict_utils as tu

    count = len(batch["prompts"])
    mine = range(rank * count // ranks, (rank + 1) * count // ranks)
    prompts = [batch["prompts"][i] for i in mine]
    responses = [batch["responses"][i] for i in mine]
    rows = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
    fields = {
        "prompts": nested(prompts),
        "responses": nested(responses),
        "input_ids": nested(rows),
        "position_ids": nested([torch.arange(len(row)) for row in rows]),
        "response_mask": nested([batch["response_mask"][i] for i in mine]),
        "loss_mask": nested([batch["response_mask"][i] for i in mine]),
        "old_log_probs": nested([batch["old_log_probs"][case["temperature"]][i] for i in mine]),
        "advantages": nested([batch["advantages"][i] for i in mine]),
        "ref_log_prob": nested([batch["ref_log_probs"][i] for i in mine]),
    }
    data = TensorDict(fields, batch_size=len(rows))
    dynamic = case["micro"] == "dynamic"
    tu.assign_non_tensor(
        data,
        temperature=case["temperature"],
        global_batch_size=count,
        use_dynamic_bsz=dynamic,
        max_token_len_per_gpu=case.get("tokens", 80),
        micro_batch_size_per_gpu=1 if dynamic else (len(rows) if case["micro"] == "all" else case["micro"]),
        use_remove_padding=not case["padded"],
        use_fused_kernels=False,
        calculate_entropy=case.get("calculate_entropy", False),
        pad_token_id=0,
        trainer_step=7,
        method_signals={case["method"][0]: case["signal"]} if case.get("signal") else {},
    )
    data[RESPONSE_NUMBER] = torch.tensor([1000 + 7 * i for i in mine])
    if method_of(case).overrides("response_value"):
        data[RESPONSE_VALUE] = torch.tensor([0.125 * i for i in mine])
    return data


def build_engine(work: Path, case: dict):
    from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    from recipe.paec.actor.engine import PAECEngine
    from recipe.paec.actor.engine_config import MethodEngineConfig

    model = HFModelConfig(
        path=str(work / case["model"]),
        external_lib="recipe.paec.plugins.register",
        use_remove_padding=not case["padded"],
        enable_gradient_checkpointing=False,
        override_config={"attn_implementation": "sdpa" if case["padded"] else "packed_sdpa"},
        **case.get("lora", {}),
    )
    model.model_type = "language_model"
    common = dict(
        strategy="fsdp2",
        model_dtype="fp32",
        mixed_precision={"param_dtype": case.get("compute", "fp32"), "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
        use_torch_compile=False,
        ulysses_sequence_parallel_size=case["sp"],
    )
    optimizer = FSDPOptimizerConfig(lr=1e-3, total_training_steps=10)
    if case["engine"] == "stock":
        engine = FSDPEngineWithLMHead(model, FSDPEngineConfig(**common), optimizer, None)
    else:
        common |= {"fused_head": case["fused"] is not None, "head_chunk_size": case["fused"]}
        method = method_of(case)
        clip = MethodStack([method]).run_clip(Clip(0.2, 0.2, 3.0))
        engine = PAECEngine(model, MethodEngineConfig(**common, methods=[method], clip=clip, seed=1), optimizer, None)
    engine.initialize()
    if "lora" in case:
        set_adapters(engine, torch.load(work / "adapters.pt"))
    return engine


def set_adapters(engine, adapters: dict[str, torch.Tensor]) -> None:
    """Adapters as after some training: fresh ones have B = 0, and a gradient of A that is 0."""
    from torch.distributed.tensor import distribute_tensor

    trained = {name: parameter for name, parameter in engine.module.named_parameters() if parameter.requires_grad}
    assert trained.keys() == adapters.keys()
    with torch.no_grad():
        for name, parameter in trained.items():
            values = distribute_tensor(adapters[name], parameter.device_mesh, parameter.placements)
            parameter.to_local().copy_(values.to_local())


def actor_config(engine, case: dict):
    from verl.workers.config import FSDPActorConfig, PolicyLossConfig

    ours = case["engine"] != "stock"
    mode = OWN_SURROGATE if ours and engine.stack.own_surrogate else case.get("loss_mode", "vanilla")
    clip = MethodStack([method_of(case)]).run_clip(Clip(0.2, 0.2, 3.0))
    config = FSDPActorConfig(
        strategy="fsdp2",
        rollout_n=2,
        use_dynamic_bsz=True,
        loss_agg_mode=case.get("loss_agg_mode", "token-mean"),
        policy_loss=PolicyLossConfig(loss_mode=mode),
        clip_ratio_low=clip.low,
        clip_ratio_high=clip.high,
        clip_ratio_c=min(clip.dual_clip, NO_DUAL_CLIP),
        fsdp_config=engine.engine_config,
    )
    return config


def add_step_statistics(engine, data: TensorDict) -> None:
    """What the step's log-prob pass leaves in the queue, as the trainer finds it."""
    from verl.workers.utils.padding import response_to_nested

    with engine.eval_mode(), torch.no_grad():
        output = super(type(engine), engine).forward_backward_batch(data, None, forward_only=True)["model_output"]
    output = {name: values.cpu() for name, values in output.items()}
    statistics = response_statistics(output, data, engine._vocab_size)
    data["entropy"] = response_to_nested(statistics.entropy, data["response_mask"])
    data[NUCLEUS] = output[NUCLEUS]


def policy_and_reference(engine, data: TensorDict) -> list[dict[str, torch.Tensor]]:
    """Results of the two passes before an update, as an actor worker runs them, by name."""
    passes = []
    for reference in (False, True):
        adapter = engine.disable_adapter() if reference else nullcontext()
        with engine.eval_mode(), adapter, torch.no_grad():
            output = engine.forward_backward_batch(data.copy(), None, forward_only=True)["model_output"]
        passes.append({name: values.values().cpu() for name, values in output.items()})
    return passes


def snapshot(engine) -> torch.Tensor:
    """All parameters in one vector, NaN made comparable."""
    return torch.cat([p.full_tensor().detach().flatten() for p in engine.module.parameters()]).nan_to_num(nan=123.0)


def restored(engine) -> list[torch.Tensor]:
    """Parameters after the old policy was brought back for a moment, and after the current one was again."""
    from verl.utils import fsdp_utils

    old = fsdp_utils.fsdp2_sharded_save_to_cpu(engine.module)
    with torch.no_grad():
        for parameter in engine.module.parameters():
            parameter.add_(1.0)
    current = fsdp_utils.fsdp2_sharded_save_to_cpu(engine.module)
    states = []
    for saved in (old, current):
        fsdp_utils.fsdp2_sharded_load_from_cpu(engine.module, *saved)
        states.append(snapshot(engine))
    return states


def run(work: Path, case: dict) -> None:
    from verl.workers.utils.losses import ppo_loss

    from recipe.paec.actor.loss import method_loss

    batch = torch.load(work / "batch.pt")
    torch.manual_seed(0)
    engine = build_engine(work, case)
    if case.get("poison"):
        with torch.no_grad():
            next(engine.module.parameters()).fill_(float("nan"))
    group = engine.get_data_parallel_group()
    data = local_batch(batch, case, dist.get_rank(group), dist.get_world_size(group))
    config = actor_config(engine, case)
    acts = case["engine"] != "stock" and engine.stack.acts_in_actor
    loss = method_loss if acts else ppo_loss
    before = snapshot(engine)
    result: dict = {"error": None}
    try:
        if case.get("send"):
            result["sent"] = {name: weight.clone() for name, weight in engine.get_per_tensor_param()[0]}
        if acts and "step" in engine.stack.sources():
            add_step_statistics(engine, data)
        if case.get("reference"):
            result["passes"] = policy_and_reference(engine, data)
        with engine.train_mode():
            engine.optimizer_zero_grad()
            output = engine.forward_backward_batch(data.copy(), partial(loss, config=config))
            trained = [parameter for parameter in engine.module.parameters() if parameter.requires_grad]
            result["gradient"] = torch.cat([p.grad.full_tensor().double().flatten() for p in trained]).cpu()
            local = torch.tensor(sum(output["loss"]), dtype=torch.float64)
            dist.all_reduce(local, group=group)
            result["loss"] = local.item() / dist.get_world_size(group)
            result["metrics"] = {k: v for k, v in output["metrics"].items() if "/update_" in k}
    except FloatingPointError as error:
        result["error"] = f"{type(error).__name__}: {error}"
        result["unchanged"] = torch.equal(snapshot(engine), before)
    if case.get("restore"):
        start = snapshot(engine)
        old, current = restored(engine)
        result["restored"] = torch.equal(old, start), torch.equal(current, start + 1.0)
    if dist.get_rank() == 0:
        torch.save(result, work / f"{case['name']}.pt")
    dist.barrier()


if __name__ == "__main__":
    run_cases(run)
