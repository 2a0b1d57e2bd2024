"""A tiny TRL trainer on made-up prompts, and its gradient of one mini-batch of given responses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from datasets import Dataset
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from paec_loss import PAEC, Clip, Method, MethodStack, Tokens, Update, token_statistics
from paec_loss.integrations.trl import RESPONSE_ID, PAECTrainer
from paec_loss.methods import METHODS

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "setup.py").is_file())
PREPARED = ROOT / "data_prep" / "prepared" / "countdown"
VOCABULARY = 259
"""Of the tokenizer in PREPARED."""
LENGTHS = (9, 4, 1, 7, 8, 2, 6, 5)
"""Of the responses in `buffered`: two prompts with four each."""
TEMPERATURE = 0.8


def acting() -> dict[str, list[Method]]:
    """Methods that change the loss of `generated`, by the name of the case."""
    return {
        "paec": [PAEC(lambda_ent=0.05)],
        "clip_cov": [METHODS["clip_cov"](ratio=0.1, lower=0.1)],
        "steer": [METHODS["steer"]()],
        "entropy_bonus": [METHODS["entropy_bonus"](coefficient=0.1)],
        "kl_cov": [METHODS["kl_cov"](ratio=0.1)],
        "forking_tokens": [METHODS["forking_tokens"]()],
        "paec and clip_higher": [PAEC(lambda_ent=0.05), METHODS["clip_higher"]()],
    }


def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(PREPARED / "model")


def model(seed: int = 0) -> Qwen2ForCausalLM:
    """A random Qwen2 with wide distributions, whose entropies differ from token to token."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=256,
        eos_token_id=258,
        bos_token_id=None,
    )
    made = Qwen2ForCausalLM(config)
    with torch.no_grad():
        made.lm_head.weight.mul_(60)
    return made


def reward(completions: list[Any], **_: Any) -> list[float]:
    """The share of even characters in a completion."""
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    return [sum(ord(x) % 2 == 0 for x in text) / max(len(text), 1) for text in texts]


def data(count: int = 16) -> Dataset:
    return Dataset.from_list([{"prompt": f"{number} + {number * 3} ="} for number in range(count)])


def config(folder: Path, **options: Any) -> GRPOConfig:
    settings = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_generations": 4,
        "max_completion_length": max(LENGTHS),
        "temperature": TEMPERATURE,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "seed": 3,
        "shuffle_dataset": False,
        "bf16": False,
        "gradient_checkpointing": False,
    }
    return GRPOConfig(str(folder), **{**settings, **options})


def trainer(folder: Path, methods: Any = "none", policy: Any = None, answer_func: Any = None, **options: Any) -> Any:
    """A PAECTrainer, or TRL's own with methods=None."""
    kind: Callable[..., GRPOTrainer] = GRPOTrainer
    extra: dict[str, Any] = {}
    if methods is not None:
        kind, extra = PAECTrainer, {"methods": methods, "answer_func": answer_func}
    policy = model() if policy is None else policy
    if options.get("beta"):  # TRL loads the reference policy from where the policy was
        policy.save_pretrained(folder / "policy")
        policy = Qwen2ForCausalLM.from_pretrained(folder / "policy")
    return kind(policy, reward, config(folder, **options), data(), processing_class=tokenizer(), **extra)


def generated(off_policy: bool = True, reference: bool = False) -> dict[str, torch.Tensor]:
    """A generation as TRL makes it: 8 responses of ragged length; some ratios are outside the clip range."""
    generator = torch.Generator().manual_seed(5)
    rows, prompt, longest = len(LENGTHS), 3, max(LENGTHS)
    inside = torch.arange(longest) < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(0, 256, (rows, longest), generator=generator)
    batch = {
        "prompt_ids": torch.randint(0, 256, (rows, prompt), generator=generator),
        "prompt_mask": torch.tensor([[0, 1, 1], [1, 1, 1]] * (rows // 2)),
        "completion_ids": torch.where(inside, ids, 256),
        "completion_mask": inside.long(),
        "advantages": torch.randn(rows, generator=generator),
        "num_items_in_batch": inside.sum(),
        RESPONSE_ID: torch.arange(8, 8 + rows),
    }
    noise = 0.3 * torch.randn(rows, longest, generator=generator)
    if off_policy:
        batch["old_per_token_logps"] = statistics(model(), batch).log_prob.detach() + noise
    if reference:
        other = 0.3 * torch.randn(rows, longest, generator=generator)
        batch["ref_per_token_logps"] = statistics(model(), batch).log_prob.detach() + other
    return batch


def statistics(policy: Any, batch: dict[str, torch.Tensor], top_p: float = 1.0) -> Any:
    """Token statistics of a whole batch, by the plainest code: all logits, at the temperature."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    length = batch["completion_ids"].shape[1]
    logits = policy(input_ids=ids, attention_mask=mask).logits[:, -length - 1 : -1] / TEMPERATURE
    labels = torch.where(batch["completion_mask"] == 1, batch["completion_ids"], -100)
    return token_statistics(logits, labels, top_p=top_p, backend="reference")


def tokens(policy: Any, batch: dict[str, torch.Tensor], top_p: float) -> Tokens:
    """The batch as `MethodStack.loss` takes it."""
    found = statistics(policy, batch, top_p)
    return Tokens(
        statistics=found,
        old_log_prob=batch.get("old_per_token_logps", found.log_prob.detach()),
        advantages=batch["advantages"][:, None].expand_as(found.log_prob),
        response_mask=batch["completion_mask"].bool(),
        response_id=batch[RESPONSE_ID],
        ref_log_prob=batch.get("ref_per_token_logps"),
    )


@contextmanager
def generating(batch: dict[str, torch.Tensor]) -> Iterator[None]:
    """TRL's generation, rewards and advantages give `batch`; everything after them is the trainer's."""

    def made(self: GRPOTrainer, inputs: Any) -> dict[str, torch.Tensor]:
        return dict(batch)

    with patch.object(GRPOTrainer, "_generate_and_score_completions", made):
        yield


def gradient(made: GRPOTrainer, batch: dict[str, torch.Tensor]) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradient of an optimizer step, by the trainer's own accumulation steps; its generation is `batch`.

    TRL shuffles the responses before it splits them.
    """
    made.model.train()
    made.model.zero_grad()
    steps = made.current_gradient_accumulation_steps = made.args.gradient_accumulation_steps
    with generating(batch):
        loss = sum(made.training_step(made.model, [], None).item() for _ in range(steps))
    return loss, {name: parameter.grad.clone() for name, parameter in made.model.named_parameters()}


def expected(
    methods: list[Method], batch: dict[str, torch.Tensor], clip: Clip, **update: Any
) -> tuple[float, dict[str, torch.Tensor]]:
    """The same by `MethodStack.loss` on the whole mini-batch."""
    policy, stack = model(), MethodStack(methods)
    whole = tokens(policy, batch, stack.top_p)
    settings = {"step": 1, "seed": 3, "tokens": int(whole.response_mask.sum()), "clip": stack.clip(clip)}
    settings |= {"tracker_signal": {}, **update}
    loss = stack.loss(whole, Update(**settings))
    loss.backward()
    return loss.item(), {name: parameter.grad.clone() for name, parameter in policy.named_parameters()}


def assert_same(
    found: tuple[float, dict[str, torch.Tensor]], wanted: tuple[float, dict[str, torch.Tensor]], tolerance: float
) -> None:
    """Equal loss, and gradients whose largest difference is `tolerance` of the largest entry, and not all zero."""
    assert abs(found[0] - wanted[0]) <= tolerance * max(1.0, abs(wanted[0])), (found[0], wanted[0])
    scale = max(value.abs().max() for value in wanted[1].values())
    assert scale > 1e-4 and found[1].keys() == wanted[1].keys()
    worst = max((found[1][name] - value).abs().max() for name, value in wanted[1].items())
    assert worst <= tolerance * scale, f"largest difference {worst / scale:.2e} of the largest entry"
