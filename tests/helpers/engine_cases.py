"""Cases of one mini-batch through the engine, the batch itself, and the definition in float64."""

from __future__ import annotations

from pathlib import Path

import torch

from paec_loss import PAECConfig, position_mask, token_statistics

LENGTHS = [(5, 9), (3, 1), (8, 14), (4, 6), (6, 11), (2, 7), (7, 3), (5, 12)]  # prompt, response
TEMPERATURES = (1.0, 0.7)
LORA = {"lora_rank": 4, "lora_alpha": 8, "target_modules": "all-linear"}
ACTIVE = {"lambda_low": 0.5, "lambda_ent": 0.01}
FLOOR = 6.0  # above Hbar, so that the penalty pulls

BASE = {
    "micro": "all",
    "sp": 1,
    "padded": False,
    "temperature": 1.0,
    "engine": "paec",
    "method": ("paec", ACTIVE),
    "signal": {"floor": FLOOR},
    "model": "model",
    "fused": None,
}


def case(name: str, **changes) -> dict:
    return {**BASE, "name": name, **changes}


def paec(**fields) -> tuple[str, dict]:
    return "paec", {**ACTIVE, **fields}


def mini_batch(model, generator: torch.Generator) -> dict:
    """A ragged mini-batch of random tokens with old log-probs near those of `model`, which is float64."""
    vocab_size = model.config.vocab_size
    prompts = [torch.randint(3, vocab_size, (p,), generator=generator) for p, _ in LENGTHS]
    responses = [torch.randint(3, vocab_size, (r,), generator=generator) for _, r in LENGTHS]
    batch = {
        "prompts": prompts,
        "responses": responses,
        "response_mask": [torch.ones(r, dtype=torch.int64) for _, r in LENGTHS],
        "advantages": [torch.randn(1, generator=generator).expand(r).clone() for _, r in LENGTHS],
        "old_log_probs": {},
        "ref_log_probs": [-5.0 + torch.randn(r, generator=generator) for _, r in LENGTHS],
    }
    batch["response_mask"][2][4:7] = 0  # tokens of an environment inside a response
    for temperature in TEMPERATURES:
        rows = []
        for prompt, response in zip(prompts, responses, strict=True):
            with torch.no_grad():
                logits = model(torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1]
            log_prob = (logits / temperature).log_softmax(-1).gather(1, response[:, None])[:, 0]
            rows.append((log_prob + 0.1 * torch.randn(len(response), generator=generator)).float())
        batch["old_log_probs"][temperature] = rows
    return batch


def with_adapters(model, values: dict[str, torch.Tensor] | None = None):
    """`model` with LoRA beside all its linear layers but the head, as peft makes it; weights from `values`."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear")
    model = get_peft_model(model, config)
    if values is not None:
        missing = model.load_state_dict(values, strict=False)
        assert missing.unexpected_keys == []
    return model.double()


def oracle(
    work: Path, config: PAECConfig, temperature: float = 1.0, floor: float | None = FLOOR, adapters: bool = False
):
    """Loss and gradient of the whole objective by autograd in float64, one sequence after the other, no splitting."""
    from transformers import AutoModelForCausalLM

    batch = torch.load(work / "batch.pt")
    model = AutoModelForCausalLM.from_pretrained(work / "model").double()
    if adapters:
        model = with_adapters(model, torch.load(work / "adapters.pt"))
    surrogate, weighted, tokens, scores, rows = 0.0, 0.0, 0, [], []
    for i, (prompt, response) in enumerate(zip(batch["prompts"], batch["responses"], strict=True)):
        logits = model(torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1]
        inside = batch["response_mask"][i].bool()
        statistics = token_statistics(logits, response, top_p=config.top_p, temperature=temperature)
        log_prob = (logits / temperature).log_softmax(-1)
        taken = log_prob.gather(1, response[:, None])[:, 0]
        ratio = (taken - batch["old_log_probs"][temperature][i].double()).exp()
        advantage = batch["advantages"][i].double()
        loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2))
        loss = torch.where(advantage < 0, torch.minimum(loss, -advantage * 3.0), loss)
        surrogate = surrogate + loss[inside].sum()
        tokens += int(inside.sum())
        rows.append((statistics, inside, -(log_prob.exp() * log_prob).sum(-1)))
        scores.append(inside)
    if config.quantile_scope == "mini_batch":
        from paec_loss import position_score

        everything = torch.cat([position_score(s, config)[inside] for s, inside, _ in rows])
        kappa = torch.quantile(everything, config.rho)
    mass = 0.0
    for statistics, inside, entropy in rows:
        threshold = kappa if config.quantile_scope == "mini_batch" else None
        mask = position_mask(statistics, inside, config, threshold=threshold).double()
        chosen = {
            "full": entropy,
            "nucleus": statistics.nucleus_entropy,
            "normalized": statistics.nucleus_entropy / statistics.nucleus_size.clamp_min(2).double().log(),
        }[config.entropy]
        weighted = weighted + (mask * chosen).sum()
        mass += mask.sum().item()
    hbar = weighted / (mass if config.average == "mass" else (1 - config.rho) * tokens)
    objective = surrogate / tokens - config.lambda_ent * hbar
    if floor is not None:
        gap = floor - hbar
        objective = objective + config.lambda_low * (gap if config.penalty == "two_sided" else gap.clamp_min(0)) ** 2
    objective.backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.requires_grad])
    return hbar.item(), gradient


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()
