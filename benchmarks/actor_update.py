"""A full actor update, verl's own engine against ours: `python -m benchmarks.actor_update [--shape 1.5B]`

For each variant a fresh process builds verl's FSDP2 engine around a model of Qwen2.5's shape (random weights, the head
scaled so that the rows are as peaked as a trained model's) and runs what a training step runs: the log-prob pass of the
step (with entropy, as verl's trainer asks for it, and its results fetched to the CPU, as verl's worker does) and one
update: forward, loss, backward, AdamW. Variants: verl's engine with `method=none`, ours with `none`, ours with `paec`,
the latter with `fused_head`. `--methods all` (or names) has a variant for each method that acts on the actor's tokens
instead. About a quarter of an hour and 16 GiB on 2 cores; `--layers 6` takes half of both.

On a GPU: `--dtype bf16 --shape 1.5B --sequences 16 --tokens 1024 --micro 8 --rounds 3` (not run yet). The model is made
there. States (parameters, AdamW) stay float32, as in verl's default; `--states bf16` halves them, for 7B on 80 GB.

verl computes log-probs with flash-attn's Triton cross-entropy where that is installed, as on every real GPU cluster,
and else with one kernel a row. The JSON says which; without the former the comparison flatters ours, and says so.

Time: median over the rounds after a first one that is not counted; the device is waited for around every timer. Memory:
the largest during the update, and what of it is beyond the state between updates: on CUDA what the allocator has given
out (and what it reserves), on CPU the resident set. Ratios are to verl's engine. `--out` gets JSON, written anew after
each variant.
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
from datetime import UTC, datetime
from pathlib import Path

from data_prep.files import atomic_write

VARIANTS = {
    "verl, none": {"stock": True, "method": "none", "fused": False},
    "ours, none": {"stock": False, "method": "none", "fused": False},
    "ours, paec": {"stock": False, "method": "paec", "fused": False},
    "ours, paec, fused head": {"stock": False, "method": "paec", "fused": True},
}
SIGNALS = {"paec": {"floor": 20.0}, "siren": {"floor": 20.0}, "entropy_adaptive": {"coefficient": 1e-3}}
"""Tracker state with which a method acts: a floor above every entropy, a coefficient."""


def _shape(hidden: int, inner: int, heads: int, kv_heads: int, layers: int, vocab_size: int, tied: bool) -> dict:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "num_hidden_layers": layers,
        "vocab_size": vocab_size,
        "tie_word_embeddings": tied,
    }


SHAPES = {
    "0.5B": _shape(896, 4864, 14, 2, 24, 151936, True),
    "1.5B": _shape(1536, 8960, 12, 2, 28, 151936, True),
    "7B": _shape(3584, 18944, 28, 4, 28, 152064, False),
    "tiny": _shape(64, 128, 4, 2, 2, 512, True),
}
"""Qwen2.5's shapes, and one for rehearsals."""
BARS = {"cpu": {"update": 1.05, "peak": 1.0}, "cuda": {"update": 1.0, "peak": 0.95}}
"""Upper bounds of ours with `paec` relative to verl's engine; on CUDA meant for the 1.5B shape in bf16."""
FLASH_ATTN = "flash-attn's Triton cross-entropy"


def model_config(shape: str, layers: int | None):
    """The transformers configuration of a shape, with `layers` layers unless it is None."""
    from transformers import Qwen2Config

    fields = SHAPES[shape] | ({} if layers is None else {"num_hidden_layers": layers})
    return Qwen2Config(**fields)


def random_model(config, dtype):
    """A model with random weights on the current default device; logits have a standard deviation of about 6."""
    import torch
    from transformers import Qwen2ForCausalLM

    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config).to(dtype)
    with torch.no_grad():
        model.lm_head.weight.mul_(round(300 / config.hidden_size**0.5))
    return model


def build_model(folder: Path, shape: str, layers: int | None, *, weights: bool) -> None:
    """The configuration, on request the weights, and the quick start's tokenizer, whose tokens are fewer than V."""
    import torch
    from transformers import AutoTokenizer

    from data_prep import tiny_model

    tiny_model.build(folder, seed=0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = model_config(shape, layers)
    if weights:
        random_model(config, torch.float32).save_pretrained(folder)
    else:
        (folder / "model.safetensors").unlink()
        config.architectures = ["Qwen2ForCausalLM"]
        config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def build_on_device(device: str) -> None:
    """Have verl's engine take a model with random weights on the device instead of reading one from the folder."""
    import torch
    from transformers import AutoModelForCausalLM

    def from_pretrained(*_, config, torch_dtype, **__):
        with torch.device(device):
            return random_model(config, torch_dtype)

    AutoModelForCausalLM.from_pretrained = from_pretrained


def build_engine(folder: Path, variant: dict, dtype: str, states: str):
    """verl's FSDP2 engine or ours, one rank; computes in `dtype`, with parameters and optimizer states in `states`."""
    from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    from paec_loss import Clip
    from paec_loss.methods import METHODS
    from recipe.paec.actor.engine import PAECEngine
    from recipe.paec.actor.engine_config import MethodEngineConfig

    model = HFModelConfig(
        path=str(folder),
        external_lib="recipe.paec.plugins.register",
        use_remove_padding=True,
        enable_gradient_checkpointing=True,
        override_config={"attn_implementation": "sdpa"},
    )
    model.model_type = "language_model"
    precision = {"param_dtype": dtype, "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    common = dict(strategy="fsdp2", model_dtype=states, mixed_precision=precision)
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


def batch(sequences: int, tokens: int, vocab_size: int):
    """`sequences` rows of `tokens` tokens, a quarter of each the prompt, in verl's nested layout."""
    import torch
    from tensordict import TensorDict

    from recipe.paec.actor.batches import RESPONSE_NUMBER, RESPONSE_VALUE

    def nested(rows):
        return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(vocab_size, (sequences, tokens), generator=generator)
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
        RESPONSE_VALUE: torch.ones(sequences),
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
        """Start a new measurement."""
        import torch

        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.resting = torch.cuda.memory_allocated() / 2**20
        else:
            Path("/proc/self/clear_refs").write_text("5")
            self.resting = self._resident("VmRSS")

    def stop(self) -> dict[str, float]:
        """peak_mib since `start`, resting_mib at `start`; on CUDA reserved_mib, the allocator's own largest."""
        import torch

        if not self.cuda:
            return {"peak_mib": self._resident("VmHWM"), "resting_mib": self.resting}
        torch.cuda.synchronize()
        return {
            "peak_mib": torch.cuda.max_memory_allocated() / 2**20,
            "resting_mib": self.resting,
            "reserved_mib": torch.cuda.max_memory_reserved() / 2**20,
        }

    @staticmethod
    def _resident(field: str) -> float:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) / 1024
        raise OSError(f"/proc/self/status has no {field}")


def now(cuda: bool) -> float:
    """Seconds, after the device has finished all its work."""
    import torch

    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def cross_entropy() -> str:
    """What verl's engine computes log-probs with in this process."""
    import torch
    from verl.utils import torch_functional

    if not torch_functional.FLAH_ATTN_CROSS_ENTROPY_LOSS_AVAILABLE:
        return "log_softmax row by row"
    if not torch.cuda.is_available():
        raise RuntimeError(
            "flash_attn is on PYTHONPATH, and its cross-entropy needs a GPU: remove it from PYTHONPATH here"
        )
    return FLASH_ATTN


def child(options: argparse.Namespace) -> None:
    """Run one variant and print its figures as one line of JSON."""
    import torch
    import torch.distributed as dist
    import verl  # noqa: F401  (loads the plugin)
    from verl.workers.config import FSDPActorConfig, PolicyLossConfig
    from verl.workers.utils.losses import ppo_loss
    from verl.workers.utils.padding import response_to_nested

    import recipe.paec.plugins.register  # noqa: F401
    from recipe.paec.actor.batches import NUCLEUS, response_statistics
    from recipe.paec.actor.loss import method_loss
    from recipe.paec.config.schema import OWN_SURROGATE

    cuda = torch.cuda.is_available()
    variant = json.loads(options.variant)
    if cuda:
        torch.cuda.set_device(0)
        build_on_device("cuda")
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        init_method=f"file://{options.folder}/rendezvous-{os.getpid()}",
        rank=0,
        world_size=1,
    )
    torch.manual_seed(0)
    engine = build_engine(options.folder, variant, options.dtype, options.states)
    vocab_size = SHAPES[options.shape]["vocab_size"]
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
    data = batch(options.sequences, options.tokens, vocab_size)
    figures: dict[str, list] = {}
    nucleus = None
    for _ in range(options.rounds + 1):
        peak = Peak(cuda)
        peak.start()
        start = now(cuda)
        with engine.eval_mode():
            inputs = settings(data, options.sequences, options.micro, True, variant["method"])
            output = engine.infer_batch(inputs, None)["model_output"]
            output = {name: values.cpu() for name, values in output.items()}  # as verl's worker sends them on
        measured = {"log_prob_s": now(cuda) - start, "log_prob_peak_mib": peak.stop()["peak_mib"]}
        if acts:
            found = response_statistics(output, data, vocab_size)
            nucleus = found.nucleus_size.double().mean().item()
            data["entropy"] = response_to_nested(found.entropy, data["response_mask"])
            data[NUCLEUS] = output[NUCLEUS]
        del output
        peak.start()
        start = now(cuda)
        with engine.train_mode():
            engine.optimizer_zero_grad()
            inputs = settings(data, options.sequences, options.micro, False, variant["method"])
            engine.forward_backward_batch(inputs, loss)
            engine.optimizer_step()
        measured |= {"update_s": now(cuda) - start, **peak.stop()}
        for name, value in measured.items():
            figures.setdefault(name, []).append(value)
    dist.destroy_process_group()
    print(json.dumps({**figures, "nucleus": nucleus, "cross_entropy": cross_entropy()}), flush=True)


def variants_of(names: list[str]) -> dict[str, dict]:
    """verl's engine, ours with `none`, and each method of `names` (`all`: all that act on the actor's tokens)."""
    from paec_loss import MethodStack
    from paec_loss.methods import METHODS

    if names == ["all"]:
        names = [name for name, method in METHODS.items() if MethodStack([method()]).acts_in_actor]
    first = dict(list(VARIANTS.items())[:2])
    return first | {name: {"stock": False, "method": name, "fused": False} for name in names}


CHILD_OPTIONS = ("sequences", "tokens", "micro", "rounds", "shape", "dtype", "states")


def run_variant(variant: dict, options: argparse.Namespace, folder: Path) -> dict:
    """The figures of one variant from a separate process, without the first round."""
    command = [sys.executable, "-m", "benchmarks.actor_update", "--variant", json.dumps(variant)]
    command += ["--folder", str(folder)]
    for key in CHILD_OPTIONS:
        command += [f"--{key}", str(getattr(options, key))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment())
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    return {key: values[1:] if isinstance(values, list) else values for key, values in figures.items()}


def environment() -> dict[str, str]:
    """verl's platform: a GPU if there is one."""
    import torch

    return os.environ if torch.cuda.is_available() else {**os.environ, "VERL_PLATFORM": "cpu"}


def table(figures: dict[str, list[dict]]) -> list[dict]:
    """One row for each variant that ran: medians, and ratios to verl's engine, which is the first."""
    rows = []
    for name, runs in figures.items():
        if not runs:
            continue

        def median(key, runs=runs):
            return statistics.median(value for run in runs for value in run[key])

        rows.append(
            {
                "variant": name,
                "log_prob_s": median("log_prob_s"),
                "update_s": median("update_s"),
                "log_prob_peak_mib": median("log_prob_peak_mib"),
                "peak_mib": median("peak_mib"),
                "reserved_mib": median("reserved_mib") if "reserved_mib" in runs[0] else None,
                "beyond_mib": statistics.median(
                    peak - resting
                    for run in runs
                    for peak, resting in zip(run["peak_mib"], run["resting_mib"], strict=True)
                ),
                "nucleus": runs[0]["nucleus"],
                "cross_entropy": runs[0]["cross_entropy"],
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
            f"| {row['variant']} | {_seconds(row['log_prob_s'])} | {_seconds(row['update_s'])} "
            f"| {row['update_ratio']:.3f} | {row['step_ratio']:.3f} | {row['peak_mib']:.0f}, {row['peak_ratio']:.3f} "
            f"| {row['beyond_mib']:.0f} |"
        )


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def bars(rows: list[dict], device: str) -> list[str]:
    """Ratios of ours with `paec` to verl's engine, against BARS."""
    for row in rows:
        if row["variant"] == "ours, paec":
            return [
                f"{'PASS' if row[f'{what}_ratio'] <= most else 'FAIL'}  {what} <= {most} x verl's: "
                f"{row[f'{what}_ratio']:.3f}"
                for what, most in BARS[device].items()
            ]
    return []


def save(path: Path, options: argparse.Namespace, device: dict, figures: dict[str, list[dict]], errors: dict) -> None:
    """Write everything so far, completely or not at all."""
    record = {
        "options": {key: str(value) for key, value in vars(options).items()},
        "device": device,
        "rows": table(figures),
        "errors": errors,
        "figures": figures,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="0.5B", help="Qwen2.5's; tiny to rehearse")
    parser.add_argument("--layers", type=int, help="number of layers, instead of the shape's own")
    parser.add_argument(
        "--dtype", choices=("fp32", "bf16"), default="fp32", help="dtype of activations, logits and gradients"
    )
    parser.add_argument(
        "--states", choices=("fp32", "bf16"), default="fp32", help="dtype of parameters and AdamW's moments"
    )
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=256, help="tokens per sequence, a quarter of them the prompt")
    parser.add_argument("--micro", type=int, default=8, help="sequences per micro-batch")
    parser.add_argument("--rounds", type=int, default=1, help="timed updates per process")
    parser.add_argument("--repeats", type=int, default=1, help="processes per variant, alternating")
    parser.add_argument("--out", type=Path, default=Path("build/actor_update.json"))
    parser.add_argument("--methods", nargs="+", help="methods to run instead of the variants, or `all`")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    import torch

    options = parse(arguments)
    if options.variant:
        child(options)
        return 0
    cuda = torch.cuda.is_available()
    device = {"device": torch.cuda.get_device_name() if cuda else "cpu", "torch": torch.__version__}
    device["date"] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    variants = VARIANTS if options.methods is None else variants_of(options.methods)
    figures: dict[str, list[dict]] = {name: [] for name in variants}
    errors: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        print(f"building the model ({options.shape})", file=sys.stderr, flush=True)
        build_model(Path(folder) / "model", options.shape, options.layers, weights=not cuda)
        for repeat in range(options.repeats):
            for name, variant in variants.items():
                print(f"round {repeat + 1} of {options.repeats}: {name}", file=sys.stderr, flush=True)
                try:
                    figures[name].append(run_variant(variant, options, Path(folder) / "model"))
                except subprocess.CalledProcessError as error:  # the figures of the others are still useful
                    errors[name] = f"exit code {error.returncode}; see its output above"
                    print(f"{name}: {errors[name]}", file=sys.stderr, flush=True)
                save(options.out, options, device, figures, errors)
    rows = table(figures)
    show(rows)
    print(*bars(rows, "cuda" if cuda else "cpu"), *(f"{name}: {text}" for name, text in errors.items()), sep="\n")
    if cuda and rows and rows[0]["cross_entropy"] != FLASH_ATTN:
        print(
            "verl's engine ran without flash-attn's cross-entropy: these ratios flatter ours and are not a fair "
            "comparison"
        )
    return int(bool(errors))


if __name__ == "__main__":
    sys.exit(main())
