"""Supervised warm start of a tiny policy: after it, RL finds both right and wrong answers to learn from.

Each draw takes a problem, one of its prompts (countdown: an order of its numbers) and one of its correct responses, all
uniformly; the loss is the cross-entropy (nats per token) over the response including the <|im_end|> that closes it, and
only over that.

    python -m data_prep.warm_start --model DIR --data DIR --output DIR [--task countdown --steps 1800 --seed 0 ...]
"""

import argparse
import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from data_prep.files import WARM_START_FILE
from data_prep.progress import with_progress
from data_prep.tasks import TASKS, Line, Task, default_threads
from data_prep.tiny_model import save

LR_WARMUP_STEPS = 50
TUNED_WIDTH = 128
"""Hidden size at which the tasks' learning rates were found; a wider model gets less in proportion."""
BETAS = (0.9, 0.98)
WEIGHT_DECAY = 0.01
SAMPLES = 8
"""Responses per held-out problem."""
LOSS_WINDOW = 50
"""Steps over which the reported loss is averaged: one batch alone is too noisy to read."""

IGNORE = -100


@dataclass(frozen=True)
class Outcome:
    """The result of a warm start: losses (nats per token), held-out mean score and token entropy (nats)."""

    first_loss: float
    loss: float
    accuracy: float
    entropy: float


@dataclass(frozen=True)
class _Example:
    """One problem, tokenised: its prompts, and its correct responses."""

    prompts: list[list[int]]
    responses: list[list[int]]


def read_problems(data: str | Path, split: str, task: str = "countdown") -> list[Line]:
    """The lines of `data`/warm_start.jsonl that belong to `split` ("train" or "held_out")."""
    path, remedy = Path(data) / WARM_START_FILE, f'write it with "python -m data_prep.{task}"'
    if not path.is_file():
        raise FileNotFoundError(f"{path}: does not exist; {remedy}")
    with path.open(encoding="utf-8") as file:
        found = [problem for line in file if (problem := json.loads(line))["split"] == split]
    if not found:
        raise ValueError(f'{path}, field split: no line has "{split}"; {remedy}')
    return found


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up to `peak`, then a half cosine down to zero at `steps`."""
    if step < LR_WARMUP_STEPS:
        return peak * (step + 1) / LR_WARMUP_STEPS
    return peak * 0.5 * (1 + math.cos(math.pi * (step - LR_WARMUP_STEPS) / max(1, steps - LR_WARMUP_STEPS)))


def train(
    model: PreTrainedModel,
    tokens: PreTrainedTokenizerBase,
    task: Task,
    problems: list[Line],
    steps: int,
    batch_size: int,
    seed: int,
) -> list[float]:
    """Train in place.

    Returns:
        The loss of every step, nats per response token.
    """
    batches = _batches(_tokenise(tokens, task, problems), batch_size, tokens.pad_token_id, random.Random(seed))
    peak_lr = task.peak_lr * TUNED_WIDTH / model.config.hidden_size
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_lr, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
    losses: list[float] = []
    model.train()
    with with_progress(range(steps), label="warm start") as bar:
        for step in bar:
            optimizer.param_groups[0]["lr"] = learning_rate(step, steps, peak_lr)
            inputs, targets = next(batches)
            # Padding is on the right, where causal attention never looks, so no mask is needed; and only the rows with
            # a loss go through the head.
            hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state
            kept = targets != IGNORE
            loss = F.cross_entropy(model.lm_head(hidden[kept]), targets[kept])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if step % 10 == 0 or step == steps - 1:
                bar.set_postfix(loss=f"{_recent(losses):.3f}", refresh=False)
    model.eval()
    return losses


def _recent(losses: list[float]) -> float:
    window = losses[-LOSS_WINDOW:]
    return sum(window) / len(window)


def _tokenise(tokens: PreTrainedTokenizerBase, task: Task, problems: list[Line]) -> list[_Example]:
    # Tokenize everything once in advance: a problem has at most 6 prompts and 14 responses. The chat template is
    # applied by its own renderer, as verl does it for the rollout.
    examples = []
    for problem in problems:
        texts = [_prompt(tokens, prompt) for prompt in task.prompts(problem)]
        prompts = tokens(texts, add_special_tokens=False)["input_ids"]
        closed = [response + tokens.eos_token for response in task.responses(problem)]
        examples.append(_Example(prompts, tokens(closed, add_special_tokens=False)["input_ids"]))
    return examples


def _prompt(tokens: PreTrainedTokenizerBase, text: str) -> str:
    turns = [{"role": "user", "content": text}]
    return tokens.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)


def _batches(
    examples: list[_Example], batch_size: int, pad_id: int, rng: random.Random
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless inputs and targets, both int64 [batch, length]; targets are shifted and IGNORE outside the response."""
    while True:
        drawn = [
            (rng.choice(example.prompts), rng.choice(example.responses))
            for example in rng.choices(examples, k=batch_size)
        ]
        length = max(len(prompt) + len(response) for prompt, response in drawn) - 1
        inputs = torch.full((batch_size, length), pad_id)
        targets = torch.full((batch_size, length), IGNORE)
        for i, (prompt, response) in enumerate(drawn):
            end = len(prompt) + len(response) - 1
            inputs[i, :end] = torch.tensor(prompt + response[:-1])
            targets[i, len(prompt) - 1 : end] = torch.tensor(response)
        yield inputs, targets


@torch.no_grad()
def evaluate(
    model: PreTrainedModel,
    tokens: PreTrainedTokenizerBase,
    task: Task,
    problems: list[Line],
    samples: int,
    seed: int,
) -> tuple[float, float]:
    """Sample at temperature 1 without truncation of the distribution.

    Returns:
        The mean score over all problems and samples, and the mean entropy of the policy over the sampled tokens
        (nats, up to and including <|im_end|>).
    """
    texts = [_prompt(tokens, task.prompts(problem)[0]) for problem in problems]
    batch = tokens(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        out = model.generate(
            **batch,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            num_return_sequences=samples,
            max_new_tokens=task.max_response,
            return_dict_in_generate=True,
            output_logits=True,
        )
    responses = out.sequences[:, batch["input_ids"].shape[1] :]
    log_probs = torch.stack(out.logits, dim=1).log_softmax(-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    ended = (responses == tokens.eos_token_id).cumsum(1)
    inside = (ended == 0) | ((ended == 1) & (responses == tokens.eos_token_id))
    solutions = tokens.batch_decode(responses, skip_special_tokens=True)
    scores = [
        task.score(problem, solution)
        for problem, group in zip(problems, _grouped(solutions, samples), strict=True)
        for solution in group
    ]
    return sum(scores) / len(scores), entropy[inside].mean().item()


def _grouped(items: list[str], size: int) -> list[list[str]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def run(
    model: str | Path,
    data: str | Path,
    output: str | Path,
    steps: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    batch_size: int | None = None,
    task: str = "countdown",
) -> Outcome:
    """Train the model in folder `model` on `data`/warm_start.jsonl, measure it and write it to the new folder `output`.

    Args:
        steps, batch_size: None for the task's own.
        threads: threads of torch, for the entire process; None leaves them unchanged.
        task: a name of `data_prep.tasks.TASKS`.
    """
    kind = TASKS[task]
    steps = kind.steps if steps is None else steps
    batch_size = kind.batch_size if batch_size is None else batch_size
    for field, value in (("steps", steps), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"field {field}: {value}; must be an integer >= 1")
    if threads is not None:
        torch.set_num_threads(threads)
    held_out, training = read_problems(data, "held_out", task), read_problems(data, "train", task)
    tokens = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, trust_remote_code=False)
    losses = train(policy, tokens, kind, training, steps, batch_size, seed)
    accuracy, entropy = evaluate(policy, tokens, kind, held_out, SAMPLES, seed)
    save(policy, tokens, output)
    return Outcome(first_loss=losses[0], loss=_recent(losses), accuracy=accuracy, entropy=entropy)


def describe(outcome: Outcome) -> str:
    """One line for the console."""
    return (
        f"loss {outcome.first_loss:.3f} -> {outcome.loss:.3f} nats per token; held out, temperature 1, "
        f"{SAMPLES} samples per problem: mean score {outcome.accuracy:.3f}, token entropy {outcome.entropy:.3f} nats"
    )


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Trains a tiny policy with a supervised warm start.")
    parser.add_argument("--model", type=Path, required=True, help="folder that data_prep.tiny_model.build wrote")
    parser.add_argument("--data", type=Path, required=True, help="folder that data_prep.TASK wrote")
    parser.add_argument("--output", type=Path, required=True, help="new folder for the trained model")
    parser.add_argument("--task", choices=TASKS, default="countdown")
    parser.add_argument("--steps", type=int, help="number of steps (default: the task's own)")
    parser.add_argument("--batch-size", type=int, help="sequences per step (default: the task's own)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=default_threads())
    options = parser.parse_args()
    logging.disable_progress_bar()
    outcome = run(**vars(options))
    print(f"{options.output}: {describe(outcome)}")


if __name__ == "__main__":
    main()
