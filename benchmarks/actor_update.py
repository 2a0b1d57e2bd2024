"""A whole actor update, verl's own engine against ours: `python -m benchmarks.actor_update [--layers 24]`

For each variant a fresh process builds verl's FSDP2 engine around a model of Qwen2.5-0.5B's shape (V = 151936, random
weights, the head scaled so that the rows are as peaked as a trained model's) and runs what a training step runs: the
log-prob pass of the step (with entropy, as verl's trainer asks for it) and one update: forward, loss, backward, AdamW.
Variants: verl's engine with `method=none`, ours with `none`, ours with `paec`, the latter with `fused_head`. About a
quarter of an hour and 16 GiB on 2 cores; `--layers 6` takes half of both. `--methods all` (or names) has a variant for
each method that acts on the actor's tokens instead.

Time: median over the rounds after a first one that is not counted. Memory: the largest resident set (on CUDA:
allocated) during the update, and what of it is beyond the state between updates. Ratios are to verl's engine. `--out`
gets JSON.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from data_prep.files import atomic_write

VARIANTS = {
    "verl, none": {"stock": True, "method": "none", "fused": False},
    "ours, none": {"stock": False, "method": "none", "fused": False},
    "ours, paec": {"stock": False, "method": "paec", "fused": False},
    "ours, paec, fused head": {"stock": False, "method": "paec", "fused": True},
}
SIGNALS = {"paec": {"floor": 20.0}, "siren": {"floor": 20.0}, "entropy_adaptive": {"coefficient": 1e-3}}
"""What a method's memory says, so that it acts: a floor above every entropy, a coefficient."""
SHAPE = dict(hidden_size=896, intermediate_size=4864, num_attention_heads=14, num_key_value_heads=2)
VOCAB_SIZE = 151936


def build_model(folder: Path, layers: int) -> None:
    """Qwen2.5-0.5B's shape with random weights, and the quick start's tokenizer, whose tokens are fewer than V."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    from data_prep import tiny_model

    tiny_model.build(folder, seed=0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(vocab_size=VOCAB_SIZE, num_hidden_layers=layers, tie_word_embeddings=True, **SHAPE)
    model = Qwen2ForCausalLM(config).float()
    with torch.no_grad():
        model.lm_head.weight.mul_(10)  # logits of standard deviation 6
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def build_engine(folder: Path, variant: dict):
    """verl's FSDP2 engine or ours, float32, one rank."""
    from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    from paec_loss import Clip
    from paec_loss.methods import METHODS
    from recipe.paec.engine import PAECEngine
    from recipe.paec.engine_config import MethodEngineConfig

    model = HFModelConfig(
        path=str(folder),
        external_lib="recipe.paec.worker",
        use_remove_padding=True,
        enable_gradient_checkpointing=True,
        override_config={"attn_implementation": "sdpa"},
    )
    model.model_type = "language_model"
    precision = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    common = dict(strategy="fsdp2", model_dtype="fp32", mixed_precision=precision)
    optimizer = FSDPOptimizerConfig(lr=1e-6, total_training_steps=10)
    if variant["stock"]:
        engine = FSDPEngineWithLMHead(model, FSDPEngineConfig(**common), optimizer, None)
    else:
        method = METHODS[variant["method"]]()
        head = {"fused_head": variant["fused"], "head_chunk_size": None}
        clip = method.clip(Clip(0.2, 0.2, 3.0))
        engine = PAECEngine(model, MethodEngineConfig(**common, **head, methods=[method], clip=clip), optimizer, None)
    engine.initialize()
    return engine


def batch(sequences: int, tokens: int):
    """`sequences` rows of `tokens` tokens, a quarter of each the prompt, in verl's nested layout."""
    import torch
    from tensordict import TensorDict

    from recipe.paec.statistics import RESPONSE_NUMBER

    def nested(rows):
        return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCAB_SIZE, (sequences, tokens), generator=generator)
    prompt = tokens // 4
    responses = ids[:, prompt:]
    fields = {
        "prompts": nested(ids[:, :prompt]),
        "responses": nested(responses),
        "input_ids": nested(ids),
        "position_ids": nested(torch.arange(tokens).expand(sequences, -1)),
        "response_mask": nested(torch.ones_like(responses)),
        "loss_mask": nested(torch.ones_like(responses)),
        "old_log_probs": nested(torch.full(responses.shape, -1.0)),
        "advantages": nested(torch.randn(sequences, 1, generator=generator).expand_as(responses)),
        "ref_log_prob": nested(torch.full(responses.shape, -1.0)),
        RESPONSE_NUMBER: torch.arange(sequences),
    }
    return TensorDict(fields, batch_size=sequences)


def settings(data, sequences: int, micro: int, calculate_entropy: bool, method: str):
    """A copy of the batch with the settings that verl's trainer sends along."""
    from verl.utils import tensordict_utils as tu

    data = data.copy()
    tu.assign_non_tensor(
        data,
        temperature=1.0,
        global_batch_size=sequences,
        use_dynamic_bsz=False,
        micro_batch_size_per_gpu=micro,
        use_remove_padding=True,
        use_fused_kernels=False,
        calculate_entropy=calculate_entropy,
        pad_token_id=0,
        trainer_step=1,
        method_signals={method: SIGNALS[method]} if method in SIGNALS else {},
    )
    return data


class Peak:
    """The largest memory in MiB between `start` and `stop`, and what was in use at `start`."""

    def __init__(self, cuda: bool):
        self.cuda = cuda

    def start(self) -> None:
        """Begin anew."""
        import torch

        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")
        self.resting = torch.cuda.memory_allocated() / 2**20 if self.cuda else self._resident("VmRSS")

    def stop(self) -> tuple[float, float]:
        """Largest since `start`; in use at `start`."""
        import torch

        peak = torch.cuda.max_memory_allocated() / 2**20 if self.cuda else self._resident("VmHWM")
        return peak, self.resting

    @staticmethod
    def _resident(field: str) -> float:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) / 1024
        raise OSError(f"/proc/self/status has no {field}")


def child(options: argparse.Namespace) -> None:
    """Run one variant and print its figures as one line of JSON."""
    import torch
    import torch.distributed as dist
    import verl  # noqa: F401  (loads the plugin)
    from verl.workers.config import FSDPActorConfig, PolicyLossConfig
    from verl.workers.utils.losses import ppo_loss
    from verl.workers.utils.padding import response_to_nested

    import recipe.paec.worker  # noqa: F401
    from recipe.paec.config import OWN_SURROGATE
    from recipe.paec.loss import method_loss
    from recipe.paec.statistics import OUTPUT_NAMES, response_statistics

    cuda = torch.cuda.is_available()
    variant = json.loads(options.variant)
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=f"file://{options.folder}/rendezvous-{os.getpid()}",
        rank=0,
        world_size=1,
    )
    torch.manual_seed(0)
    engine = build_engine(options.folder, variant)
    acts = not variant["stock"] and engine.stack.acts_in_actor
    mode = OWN_SURROGATE if acts and engine.stack.own_surrogate else "vanilla"
    config = FSDPActorConfig(
        strategy="fsdp2",
        rollout_n=2,
        use_dynamic_bsz=True,
        policy_loss=PolicyLossConfig(loss_mode=mode),
        fsdp_config=engine.engine_config,
    )
    loss = functools.partial(method_loss if acts else ppo_loss, config=config)
    data = batch(options.sequences, options.tokens)
    figures: dict[str, list] = {"log_prob_s": [], "update_s": [], "peak_mib": [], "resting_mib": []}
    nucleus = None
    for _ in range(options.rounds + 1):
        start = time.perf_counter()
        with engine.eval_mode(), torch.no_grad():
            inputs = settings(data, options.sequences, options.micro, True, variant["method"])
            output = engine.forward_backward_batch(inputs, None, forward_only=True)["model_output"]
        figures["log_prob_s"].append(time.perf_counter() - start)
        if acts:
            found = response_statistics(output, data, VOCAB_SIZE)
            nucleus = found.nucleus_size.double().mean().item()
            data["entropy"] = response_to_nested(found.entropy, data["response_mask"])
            for name in set(OUTPUT_NAMES.values()) - {"log_probs", "entropy"}:
                data[name] = output[name]
        del output
        peak = Peak(cuda)
        peak.start()
        start = time.perf_counter()
        with engine.train_mode():
            engine.optimizer_zero_grad()
            inputs = settings(data, options.sequences, options.micro, False, variant["method"])
            engine.forward_backward_batch(inputs, loss)
            engine.optimizer_step()
        figures["update_s"].append(time.perf_counter() - start)
        largest, resting = peak.stop()
        figures["peak_mib"].append(largest)
        figures["resting_mib"].append(resting)
    dist.destroy_process_group()
    print(json.dumps({**figures, "nucleus": nucleus}), flush=True)


def variants_of(names: list[str]) -> dict[str, dict]:
    """verl's engine, ours with `none`, and each method of `names` (`all`: all that act on the actor's tokens)."""
    from paec_loss import MethodStack
    from paec_loss.methods import METHODS

    if names == ["all"]:
        names = [name for name, method in METHODS.items() if MethodStack([method()]).acts_in_actor]
    first = dict(list(VARIANTS.items())[:2])
    return first | {name: {"stock": False, "method": name, "fused": False} for name in names}


def run_variant(variant: dict, options: argparse.Namespace, folder: Path) -> dict:
    """The figures of one variant from a process of its own, without the first round."""
    command = [sys.executable, "-m", "benchmarks.actor_update", "--variant", json.dumps(variant)]
    command += ["--folder", str(folder)]
    for key in ("sequences", "tokens", "micro", "rounds"):
        command += [f"--{key}", str(getattr(options, key))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment())
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    return {key: values[1:] if isinstance(values, list) else values for key, values in figures.items()}


def environment() -> dict[str, str]:
    """verl's platform: a GPU where there is one."""
    import torch

    return os.environ if torch.cuda.is_available() else {**os.environ, "VERL_PLATFORM": "cpu"}


def table(figures: dict[str, list[dict]]) -> list[dict]:
    """One row for each variant: medians, and ratios to verl's engine."""
    rows = []
    for name, runs in figures.items():

        def median(key, runs=runs):
            return statistics.median(value for run in runs for value in run[key])

        rows.append(
            {
                "variant": name,
                "log_prob_s": median("log_prob_s"),
                "update_s": median("update_s"),
                "peak_mib": median("peak_mib"),
                "beyond_mib": statistics.median(
                    peak - resting
                    for run in runs
                    for peak, resting in zip(run["peak_mib"], run["resting_mib"], strict=True)
                ),
                "nucleus": runs[0]["nucleus"],
            }
        )
    for row in rows:
        row["step_s"] = row["log_prob_s"] + row["update_s"]
        for key in ("log_prob_s", "update_s", "step_s", "peak_mib", "beyond_mib"):
            row[key.rsplit("_", 1)[0] + "_ratio"] = row[key] / rows[0][key]
    return rows


def show(rows: list[dict]) -> None:
    """Print the table as Markdown."""
    print("| engine, method | log-prob pass s | update s | ratio | both, ratio | peak MiB, ratio | beyond rest MiB |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['variant']} | {row['log_prob_s']:.1f} | {row['update_s']:.1f} | {row['update_ratio']:.3f} "
            f"| {row['step_ratio']:.3f} | {row['peak_mib']:.0f}, {row['peak_ratio']:.3f} | {row['beyond_mib']:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=256, help="of a sequence, a quarter of them the prompt")
    parser.add_argument("--micro", type=int, default=8, help="sequences of a micro-batch")
    parser.add_argument("--rounds", type=int, default=1, help="counted updates of a process")
    parser.add_argument("--repeats", type=int, default=1, help="processes of each variant, in turn")
    parser.add_argument("--out", type=Path, default=Path("build/actor_update.json"))
    parser.add_argument("--methods", nargs="+", help="instead of the variants: methods, or `all`")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant:
        child(options)
        return
    variants = VARIANTS if options.methods is None else variants_of(options.methods)
    figures: dict[str, list[dict]] = {name: [] for name in variants}
    with tempfile.TemporaryDirectory() as folder:
        print(f"building the model ({options.layers} layers)", file=sys.stderr, flush=True)
        build_model(Path(folder) / "model", options.layers)
        for repeat in range(options.repeats):
            for name, variant in variants.items():
                print(f"round {repeat + 1} of {options.repeats}: {name}", file=sys.stderr, flush=True)
                figures[name].append(run_variant(variant, options, Path(folder) / "model"))
    rows = table(figures)
    show(rows)
    for paec in rows[2:3] if options.methods is None else []:
        print(
            f"bars: update time <= 1.05 x: {paec['update_ratio']:.3f}; peak memory <= 1.0 x: {paec['peak_ratio']:.3f}"
        )
    record = {"options": {key: str(value) for key, value in vars(options).items()}, "rows": rows, "figures": figures}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(options.out) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
