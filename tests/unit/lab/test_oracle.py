"""The laboratory's loss and gradient are those of the pipeline's actor on the same responses.

A policy draws responses; a mini-batch of them goes through verl's FSDP2 engine with the recipe's loss, and through
`recipe.lab.grpo.objective`. Both compute in float32, and differ by its rounding. The policy is the quick start's with
logits of a third, from +-16 to +-5, because rounding grows with them.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_cases import case, relative
from ranks import torchrun_cases
from safetensors.torch import load_file, save_file

from paec_loss import Update
from paec_loss.method import BatchMethod
from recipe.lab import grpo
from recipe.lab.policy import Policy, Prompts
from recipe.lab.sampling import sample
from recipe.lab.settings import settings_of
from recipe.lab.task import rows_of

TOLERANCE = 1e-5
LOSS = {"paec": 3e-5}  # its ramp mask multiplies rounding by 1 / mask_width
PROMPTS, RESPONSES = 4, 4
METHODS = {
    "none": ({}, {}),
    "paec": ({"lambda_low": 1.0, "lambda_ent": 0.01}, {"floor": 2.0}),
    "clip_cov": ({"ratio": 0.1, "lower": 0.001, "upper": 10.0}, {}),
    "steer": ({}, {}),
    "entropy_bonus": ({"coefficient": 0.05}, {}),
    "forking_tokens": ({}, {}),
    "entropy_advantage": ({}, {}),
    "kl_cov": ({"ratio": 0.1}, {}),
}
"""Method -> fields and tracker signal with which it acts visibly on a few hundred tokens."""
AGGREGATIONS = ("seq-mean-token-mean", "seq-mean-token-sum")


@pytest.fixture(scope="module")
def batch(small, task, tmp_path_factory):
    """The folder of the engine's cases, and the laboratory's batch; old log-probs off by 0.15 nats."""
    work = tmp_path_factory.mktemp("oracle")
    settings = small("method=none")
    shutil.copytree(settings.task / "model", work / "model")
    weights = load_file(work / "model" / "model.safetensors")
    weights["model.norm.weight"] *= 0.3
    save_file(weights, work / "model" / "model.safetensors", metadata={"format": "pt"})
    policy = Policy(work / "model")
    generator = torch.Generator().manual_seed(4)
    problems = task.train[:PROMPTS]
    prompts = Prompts.of([problem.ids for problem in problems])
    drawn = sample(policy, prompts, RESPONSES, 32, torch.ones(PROMPTS), task.end, generator)
    texts = task.texts(rows_of(drawn.tokens.flatten(0, 1), drawn.inside.flatten(0, 1)))
    verdicts = task.verdicts([p for p in problems for _ in range(RESPONSES)], texts)
    names = [f"000007-{place:06d}" for place in range(PROMPTS)]
    made = grpo.Batch(problems, prompts, names, drawn, torch.zeros(PROMPTS), verdicts)
    rollouts = grpo.rollouts_of(made, 7, settings, task)
    noise = 0.15 * torch.randn(rollouts.response_mask.shape, generator=generator)
    old = torch.where(rollouts.response_mask, rollouts.log_prob + noise, 0.0)
    rollouts = replace(rollouts, statistics=replace(rollouts.statistics, log_prob=old))
    advantage = torch.randn(len(old), 1, generator=generator) * rollouts.response_mask
    rows = [row.nonzero()[:, 0] for row in rollouts.response_mask]
    content = {
        "prompts": [torch.tensor(p.ids) for p in problems for _ in range(RESPONSES)],
        "responses": [tokens[at] for tokens, at in zip(rollouts.tokens, rows, strict=True)],
        "response_mask": [torch.ones(len(at), dtype=torch.int64) for at in rows],
        "advantages": [values[at] for values, at in zip(advantage, rows, strict=True)],
        "old_log_probs": {1.0: [values[at] for values, at in zip(old, rows, strict=True)]},
        "ref_log_probs": [torch.zeros(len(at)) for at in rows],
    }
    torch.save(content, work / "batch.pt")
    return work, policy, made, rollouts, advantage


def cases() -> list[dict]:
    found = [case(f"lab-{name}", method=(name, fields), signal=signal) for name, (fields, signal) in METHODS.items()]
    for name in ("none", "paec", "forking_tokens"):
        fields, signal = METHODS[name]
        for mode in AGGREGATIONS:
            found.append(case(f"lab-{name}-{mode}", method=(name, fields), signal=signal, loss_agg_mode=mode))
    return found


@pytest.fixture(scope="module")
def pipeline(batch) -> dict[str, dict]:
    """What each case gave in the pipeline's engine."""
    work: Path = batch[0]
    torchrun_cases("engine_worker.py", work, 1, cases(), timeout=400)
    return {c["name"]: torch.load(work / f"{c['name']}.pt") for c in cases()}


def laboratory(batch, name: str, mode: str = "token-mean") -> tuple[float, torch.Tensor, dict[str, float]]:
    """Loss, gradient in the model's order and metrics of one case."""
    work, policy, made, rollouts, advantage = batch
    fields, signal = METHODS[name]
    settings = settings_of([f"method={name}", *(f"method.{key}={value}" for key, value in fields.items())])
    settings = replace(settings, aggregation=mode)
    everything = slice(0, PROMPTS), slice(0, PROMPTS * RESPONSES)
    tokens = grpo.tokens_of(policy, made, rollouts, advantage, *everything, settings)
    tokens = replace(tokens, response_id=1000 + 7 * torch.arange(PROMPTS * RESPONSES))  # as the engine's worker
    update = Update(7, 1, int(tokens.response_mask.sum()), settings.clip, signal)
    loss, metrics = grpo.objective(tokens, tokens.statistics.detach(), [update], settings)
    gradient = torch.autograd.grad(loss, list(policy.parameters.values()))
    from transformers import AutoModelForCausalLM

    named = dict(zip(policy.parameters, gradient, strict=True))
    order = [key for key, _ in AutoModelForCausalLM.from_pretrained(work / "model").named_parameters()]
    return loss.item(), torch.cat([named[key].flatten() for key in order]).double(), metrics


@pytest.mark.parametrize("name", METHODS)
def test_loss_and_gradient_of_a_method(batch, pipeline, name):
    loss, gradient, metrics = laboratory(batch, name)
    expected = pipeline[f"lab-{name}"]
    assert relative(gradient, expected["gradient"]) < TOLERANCE
    assert loss == pytest.approx(expected["loss"], rel=LOSS.get(name, TOLERANCE), abs=1e-6)
    for key, values in expected["metrics"].items():
        assert metrics[f"actor/{key}"] == pytest.approx(values[0], rel=1e-4, abs=1e-6)
    if name != "none":
        assert relative(gradient, pipeline["lab-none"]["gradient"]) > 1e-3, "the method must do something"


@pytest.mark.parametrize("mode", AGGREGATIONS)
@pytest.mark.parametrize("name", ["none", "paec", "forking_tokens"])
def test_loss_and_gradient_of_an_aggregation(batch, pipeline, name, mode):
    loss, gradient, _ = laboratory(batch, name, mode)
    expected = pipeline[f"lab-{name}-{mode}"]
    assert relative(gradient, expected["gradient"]) < TOLERANCE
    assert loss == pytest.approx(expected["loss"], rel=LOSS.get(name, TOLERANCE), abs=1e-6)


def test_both_sources_of_statistics_are_covered():
    sources = {settings_of([f"method={name}"]).stack.methods[0] for name in METHODS}
    assert {method.statistics_from for method in sources if isinstance(method, BatchMethod)} == {"exact", "step"}
