"""Does a statistic per micro-batch matter? `python -m benchmarks.split_dependence [--measure] [--quick]`

Writes the tables and the figure of `docs/exactness.md` from the recorded results. With `--measure` it measures first,
on real responses of the quick start's model: for each entropy method, as released (statistics of a micro-batch) and as
here (of the mini-batch), which tokens it acts on and which gradient it gives, for several splits of one mini-batch.
About 20 minutes on one core; continues a record that was interrupted, and starts anew where there is none. `--quick`
measures one small batch and prints it, without writing anything.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from statistics import mean
from typing import Any

import matplotlib
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from data_prep.files import atomic_write
from data_prep.tasks import TASKS
from paec_loss import Clip, Method, MethodStack, Tokens, Update, token_statistics
from paec_loss.calibration import measure
from paec_loss.methods import METHODS
from paec_loss.statistics import TokenStatistics
from recipe.grading import countdown
from recipe.paec.common.repository import REPOSITORY
from recipe.paec.compare.figures import INK, line_style, tidy

RESULTS = REPOSITORY / "benchmarks" / "results" / "split_dependence.json"
PAGE = REPOSITORY / "docs" / "exactness.md"
PICTURE = REPOSITORY / "docs" / "exactness.svg"
PREPARED = REPOSITORY / "data_prep" / "prepared" / "countdown"

RESPONSES = 8
"""Responses of a prompt."""
PARTS = (2, 4, 8)
"""Numbers of micro-batches."""
LEARNING_RATE, EARLIER = 5e-5, 8
"""The quick start's learning rate, and how many mini-batches of the step come before the measured one."""
EARLIER_PROMPTS = 8
"""Prompts of each of those mini-batches, the quick start's number."""
LONG = (8, 128)
"""Shortest and longest of the synthetic responses, tokens."""
LONG_PROMPTS = 4
"""Prompts of a mini-batch of them."""
TOP_P = 0.8
"""Of the token statistics: SIREN's nucleus. Log-prob and entropy do not depend on it."""
CLIP = Clip(0.2, 0.2, 3.0)
UNCLIPPED = Clip(1e9, 1e9, math.inf)
GRADIENTS = ("log_prob", "entropy", "nucleus_entropy")
"""Fields of the token statistics through which a loss can have a gradient."""


CASES = {"first": "first update", "later": "later update", "long": "synthetic long rows"}
SHORT = {"dynamic": "verl's dynamic batching", "length": "sorted by length", "random": "at random"}
OTHERS = (("first", "dynamic"), ("later", "length"), ("later", "random"), ("long", "dynamic"), ("long", "length"))
"""Cases and splits of the second table."""
DRAWN = (("later", "dynamic"), ("later", "length"), ("long", "length"))
"""Cases and splits of the figure's columns."""
LINES = ("clip_cov 0.02", "kl_cov 0.02", "forking_tokens", "steer", "sent", "siren")
"""Methods of the figure."""
KEYS = ("case", "split", "parts", "method", "variant")
NUMBERS = ("overlap", "acted", "angle", "norm", "own_angle", "own_norm")
BEGIN, END = "<!-- tables: python -m benchmarks.split_dependence -->", "<!-- end of the tables -->"


# ---- mini-batches ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Responses:
    """Sampled responses and their grades; rows of one prompt are adjacent."""

    ids: Tensor
    """[B, L] int64: prompt, response, padding."""
    prompt: Tensor
    """[B] int64, length of the prompt."""
    length: Tensor
    """[B] int64, length of the response, at least 1."""
    rewards: Tensor
    """[B] float32."""

    @property
    def advantages(self) -> Tensor:
        """[B] GRPO's: (R - mean) / (std + 1e-6) over a prompt's responses."""
        groups = self.rewards.view(-1, RESPONSES)
        return ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-6)).flatten()

    def __getitem__(self, index: Tensor) -> Responses:
        found = [x[index] for x in (self.ids, self.prompt, self.length, self.rewards)]
        found[0] = found[0][:, : int((found[1] + found[2]).max())]
        return Responses(*found)


@cache
def _tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(PREPARED / "model", padding_side="left")


def policy() -> Any:
    """A new copy of the quick start's warm-started model, float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(PREPARED / "model", dtype=torch.float32).eval()


def sampled(model: Any, prompts: int, seed: int, long: bool = False) -> Responses:
    """Responses to `prompts` training prompts, temperature 1, graded as in training.

    With `long` they are synthetic: the end of the response is forbidden, lengths are log-uniform in LONG, and rewards
    are coin flips.
    """
    tokenizer, task = _tokenizer(), TASKS["countdown"]
    rows = pd.read_parquet(PREPARED / "data" / "train.parquet").sample(prompts, random_state=seed)
    texts = [tokenizer.apply_chat_template(p.tolist(), add_generation_prompt=True, tokenize=False) for p in rows.prompt]
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    torch.manual_seed(seed)
    options = {"max_new_tokens": LONG[1], "suppress_tokens": [tokenizer.eos_token_id]} if long else {}
    out = model.generate(
        **batch, **{"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "num_return_sequences": RESPONSES,
                    "max_new_tokens": task.max_response} | options
    )  # fmt: skip
    drawn = out[:, batch["input_ids"].shape[1] :]
    prompt = batch["attention_mask"].sum(1).repeat_interleave(RESPONSES)
    if long:
        low, high = (math.log(x) for x in LONG)
        length = (low + torch.rand(len(drawn)) * (high - low)).exp().round().long()
        rewards = torch.randint(0, 2, (len(drawn),)).float()
    else:
        ended = (drawn == tokenizer.eos_token_id).int().cumsum(1)
        length = ((ended == 0).sum(1) + 1).clamp(max=drawn.shape[1])
        answers = tokenizer.batch_decode([row[:n] for row, n in zip(drawn, length, strict=True)], True)
        truths = [row["ground_truth"] for row in rows.reward_model for _ in range(RESPONSES)]
        rewards = torch.tensor([float(countdown.score(a, t)[0]) for a, t in zip(answers, truths, strict=True)])
    ids = torch.full((len(drawn), int((prompt + length).max())), tokenizer.pad_token_id)
    for i, (p, n) in enumerate(zip(prompt.tolist(), length.tolist(), strict=True)):
        ids[i, : p + n] = out[i, batch["input_ids"].shape[1] - p :][: p + n]
    return Responses(ids, prompt, length, rewards)


def statistics_of(model: Any, responses: Responses) -> tuple[TokenStatistics, Tensor]:
    """Statistics [B, R] of the response tokens, and the mask [B, R] of them, R the longest response."""
    place = torch.arange(int(responses.length.max()))
    inside = place < responses.length[:, None]
    at = (responses.prompt[:, None] + place).clamp(max=responses.ids.shape[1] - 1)
    labels = torch.where(inside, responses.ids.gather(1, at), -100)
    # Padding is on the right, where causal attention never looks.
    hidden = model.model(input_ids=responses.ids, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden.gather(1, (at - 1)[..., None].expand(-1, -1, hidden.shape[-1])))
    return token_statistics(logits, labels, top_p=TOP_P, backend="torch"), inside


@dataclass(frozen=True)
class MiniBatch:
    """The responses of an update, and what is fixed while it is processed."""

    responses: Responses
    old_log_prob: Tensor
    """[B, R]."""
    anchor: float
    """SIREN's: the selected entropy of another batch of the first policy."""

    def tokens(self, model: Any, index: Tensor) -> Tokens:
        """The rows `index`, one forward pass of `model`, with gradient."""
        responses = self.responses[index]
        statistics, inside = statistics_of(model, responses)
        advantages = self.responses.advantages[index][:, None].expand(inside.shape)
        old = self.old_log_prob[index][:, : inside.shape[1]]
        return Tokens(statistics, old, advantages, inside, index, ref_log_prob=old)

    def update(self, tokens: Tokens, method: MethodStack | Method) -> Update:
        """The update of `tokens` as a whole."""
        count = int(tokens.response_mask.sum())
        return Update(2, 1, count, method.clip(CLIP), {"floor": self.anchor})


def part_of(tokens: Tokens, index: Tensor) -> Tokens:
    """The rows `index` of a batch, with the gradient of its statistics."""
    names = ("old_log_prob", "advantages", "response_mask", "response_id", "ref_log_prob")
    rows = {name: getattr(tokens, name)[index] for name in names}
    return Tokens(tokens.statistics.map(lambda x: x[index]), **rows)


def assembled(parts: Sequence[Tokens]) -> Tokens:
    """The mini-batch whose micro-batches are `parts`, without gradient, in the order of the responses' numbers."""
    length = max(part.response_mask.shape[1] for part in parts)
    order = torch.cat([part.response_id for part in parts]).argsort()

    def join(name: str) -> Tensor:
        found = [getattr(part.statistics if hasattr(part.statistics, name) else part, name).detach() for part in parts]
        return torch.cat([torch.nn.functional.pad(x, (0, length - x.shape[1])) for x in found])[order]

    fields = [name for name, value in vars(parts[0].statistics).items() if isinstance(value, Tensor)]
    statistics = replace(parts[0].statistics, **{name: join(name) for name in fields})
    names = ("old_log_prob", "advantages", "response_mask", "ref_log_prob")
    return Tokens(statistics, **{name: join(name) for name in names}, response_id=order.sort().values)


def mini_batches(seed: int, prompts: int, long_prompts: int = 0) -> Iterator[tuple[str, Any, MiniBatch]]:
    """Case, policy and mini-batch: the first update of a step, a later one, and a later one with synthetic rows.

    The last only with `long_prompts`.
    """
    first = policy()
    siren = METHODS["siren"]()
    with torch.no_grad():
        statistics, inside = statistics_of(first, sampled(first, prompts, 10_000 + seed))
    anchor = measure(statistics, inside, siren).selected_entropy(siren)

    def batch(responses: Responses) -> MiniBatch:
        with torch.no_grad():
            return MiniBatch(responses, statistics_of(first, responses)[0].log_prob, anchor)

    real = batch(sampled(first, prompts, seed))
    yield "first", first, real
    later, plain = copy.deepcopy(first), MethodStack([METHODS["none"]()])
    optimizer = torch.optim.AdamW(later.parameters(), lr=LEARNING_RATE)
    for i in range(EARLIER):
        earlier = batch(sampled(first, EARLIER_PROMPTS, 1000 * (seed + 1) + i))
        tokens = earlier.tokens(later, torch.arange(len(earlier.responses.ids)))
        optimizer.zero_grad()
        plain.loss(tokens, earlier.update(tokens, plain)).backward()
        torch.nn.utils.clip_grad_norm_(later.parameters(), 1.0)
        optimizer.step()
    yield "later", later, real
    if long_prompts:
        yield "long", later, batch(sampled(first, long_prompts, seed, long=True))


# ---- splits ----------------------------------------------------------------------------------------------------------


def dynamic(lengths: Tensor, parts: int, seed: int) -> list[Tensor]:
    """verl's dynamic batching: its own partition of the rows [B] into `parts` of equal work."""
    from verl.utils.seqlen_balancing import calculate_workload, get_seqlen_balanced_partitions

    work = calculate_workload(lengths).tolist()
    return [torch.tensor(rows) for rows in get_seqlen_balanced_partitions(work, parts, equal_size=False)]


def by_length(lengths: Tensor, parts: int, seed: int) -> list[Tensor]:
    """Rows in the order of their lengths [B], cut into `parts` of about equally many tokens."""
    order = lengths.argsort(stable=True)
    middle = lengths[order].cumsum(0) - lengths[order] / 2
    place = (middle * parts / lengths.sum()).long().clamp(max=parts - 1)
    return [order[place == i].sort().values for i in range(parts)]


def at_random(lengths: Tensor, parts: int, seed: int) -> list[Tensor]:
    """`parts` of equally many rows, drawn at random."""
    order = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed))
    return [rows.sort().values for rows in order.tensor_split(parts)]


SPLITS = {"dynamic": dynamic, "length": by_length, "random": at_random}
PLAN = {
    "first": (("dynamic", PARTS),),
    "later": (("dynamic", PARTS), ("length", PARTS), ("random", PARTS[-1:])),
    "long": (("dynamic", PARTS), ("length", PARTS)),
}
"""Case -> splits and numbers of parts that are measured."""


# ---- methods ---------------------------------------------------------------------------------------------------------


Released = Callable[[Tokens, Update], tuple[Tensor, Tensor]]
"""(tokens of a micro-batch, its update) -> its mean loss, and [B, R] how strongly the method acts on each token."""


def acted(method: Method, tokens: Tokens, context: Any, update: Update) -> Tensor:
    """[B, R] float64: 1 or a weight where the method acts, 0 elsewhere; for a factor on advantages 1 minus it."""
    if method.overrides("token_weights"):
        found = method.token_weights(tokens, context, update)
    elif method.overrides("selection"):
        found = method.selection(tokens, context, update)[0]
    else:
        changed = method.token_advantages(tokens, context, update).double()
        found = torch.where(tokens.advantages == 0, 0.0, 1 - changed / tokens.advantages.double())
    return torch.where(tokens.response_mask, found.detach().double(), 0.0)


def per_micro_batch(method: Method, tokens: Tokens, update: Update) -> tuple[Tensor, Tensor]:
    """The method of this project with the micro-batch in place of the mini-batch.

    That is the released code of forking tokens, STEER and (but for one token of the nucleus) SIREN.
    """
    whole = replace(tokens, statistics=tokens.statistics.detach())
    return MethodStack([method]).loss(tokens, update), acted(method, tokens, method.prepare(whole, update), update)


def verls(name: str, settings: dict[str, float], nobody: dict[str, float]) -> Released:
    """verl's own loss of this name; the tokens that it acts on are those whose gradient `nobody` changes."""

    def released(tokens: Tokens, update: Update) -> tuple[Tensor, Tensor]:
        inside, state = tokens.response_mask, torch.get_rng_state()

        def loss(own: dict[str, float], old: Tensor) -> Tensor:
            torch.set_rng_state(state)
            return _verls_loss(name, own, old.where(inside, 0), tokens)

        # KL-Cov's choice does not depend on the old log-prob, but at ratio 1 its penalty has no gradient.
        old = tokens.log_prob.detach() - 1 if name == "kl_cov" else tokens.old_log_prob
        pairs = [torch.autograd.grad(loss(x, old), tokens.log_prob, retain_graph=True)[0] for x in (settings, nobody)]
        return loss(settings, tokens.old_log_prob), ((pairs[0] != pairs[1]) & inside).double()

    return released


def _verls_loss(name: str, own: dict[str, float], old: Tensor, tokens: Tokens) -> Tensor:
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.workers.config import FSDPActorConfig, PolicyLossConfig

    config = FSDPActorConfig(
        strategy="fsdp2", rollout_n=1, use_dynamic_bsz=True, clip_ratio_low=1.0, clip_ratio_high=1.0,
        policy_loss=PolicyLossConfig(loss_mode=name, **own),
    )  # fmt: skip
    inside = tokens.response_mask
    advantages = tokens.advantages.where(inside, 0)
    return get_policy_loss_fn(name)(old, tokens.log_prob, advantages, inside, "token-mean", config)[0]


def released_sent(tokens: Tokens, update: Update, ratio: float) -> tuple[Tensor, Tensor]:
    """SENT's released penalty, with a boolean mask where the released code indexes by an integer one.

    -A r, and |log p - log p_old| on the floor(ratio K) (at least 1) highest covariances (x2) and lowest (x0.5) of the
    K = floor(0.8 n) tokens of lowest entropy.
    """
    inside = tokens.response_mask
    log_ratio = tokens.log_prob - tokens.old_log_prob
    places = torch.nonzero(inside)
    low = tokens.masked(tokens.entropy).argsort(stable=True)[: max(1, int(0.8 * len(places)))]
    advantage, log_prob = (tokens.masked(x)[low] for x in (tokens.advantages, tokens.log_prob))
    order = ((advantage - advantage.mean()) * (log_prob - log_prob.mean())).argsort(stable=True)
    count, weight = max(1, int(ratio * len(low))), torch.zeros(inside.shape, dtype=torch.float64)
    for chosen, factor in ((order[-count:], 2.0), (order[:count], 0.5)):  # the lowest last, as there
        at = places[low[chosen]]
        weight[at[:, 0], at[:, 1]] = factor
    losses = weight.float() * log_ratio.abs() - tokens.advantages * log_ratio.exp()
    return torch.where(inside, losses, 0.0).sum() / inside.sum(), weight


@dataclass(frozen=True)
class Entry:
    """A method as released, and the method of this project that it is."""

    name: str
    label: str
    ours: Method
    released: Released
    without: Clip | None
    """Clip range of the surrogate without the method, which is subtracted to see the method's own part; None where it
    selects the tokens of the surrogate, so that all is its own."""
    forked: bool = False
    """Whether the released code also takes the mean of the loss over the micro-batch (verl's today does not)."""


def clip_cov(ratio: float) -> Entry:
    """Clip-Cov at a share of dropped tokens."""
    own = {"clip_cov_ratio": ratio, "clip_cov_lb": 1.0, "clip_cov_ub": 5.0}
    released = verls("clip_cov", own, own | {"clip_cov_lb": 98.0, "clip_cov_ub": 99.0})
    name = f"clip_cov {ratio:g}"
    return Entry(name, f"Clip-Cov, ratio {ratio:g}", METHODS["clip_cov"](ratio=ratio), released, Clip(1, 1, math.inf))


def kl_cov(ratio: float) -> Entry:
    """KL-Cov at a share of penalised tokens."""
    own = {"kl_cov_ratio": ratio, "ppo_kl_coef": 1.0}
    released = verls("kl_cov", own, own | {"ppo_kl_coef": 0.0})
    return Entry(f"kl_cov {ratio:g}", f"KL-Cov, ratio {ratio:g}", METHODS["kl_cov"](ratio=ratio), released, UNCLIPPED)


def catalogue(name: str, label: str, without: Clip | None) -> Entry:
    """A method whose released code is the same formula over the micro-batch."""
    method = METHODS[name]()
    return Entry(name, label, method, partial(per_micro_batch, method), without, forked=True)


SENT = METHODS["sent"]()
ENTRIES = (
    clip_cov(2e-4),
    clip_cov(2e-2),
    kl_cov(2e-3),
    kl_cov(2e-2),
    catalogue("forking_tokens", "forking tokens (80/20)", None),
    catalogue("steer", "STEER", Clip(0.2, 0.28, 10.0)),
    Entry("sent", "SENT", SENT, partial(released_sent, ratio=SENT.ratio), UNCLIPPED, forked=True),
    catalogue("siren", "SIREN", CLIP),
    catalogue("none", "GRPO, no method", None),
)


# ---- gradients and their comparison ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What an implementation does to a mini-batch."""

    gradient: Tensor
    """[P] of the model's parameters, float64."""
    acted: Tensor
    """[B, R], as of `acted`."""


def flat(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> Tensor:
    """[P] float64 the gradients of all parameters; None is 0."""
    pairs = zip(gradients, parameters, strict=True)
    return torch.cat([torch.zeros(p.numel()) if g is None else g.flatten() for g, p in pairs]).double()


def through_model(model: Any, tokens: Tokens, leaves: Tokens, loss: Tensor) -> Tensor:
    """[P] gradient of a loss of `leaves`, the detached statistics of `tokens`, in the model's parameters."""
    inputs = [getattr(leaves.statistics, name) for name in GRADIENTS]
    found = torch.autograd.grad(loss, inputs, allow_unused=True)
    outputs = [(getattr(tokens.statistics, n), g) for n, g in zip(GRADIENTS, found, strict=True) if g is not None]
    parameters = list(model.parameters())
    results, upstream = zip(*outputs, strict=True)
    return flat(torch.autograd.grad(results, parameters, upstream, retain_graph=True, allow_unused=True), parameters)


class Measured:
    """A mini-batch under a policy: gradients as released for any split from one forward pass."""

    def __init__(self, model: Any, batch: MiniBatch) -> None:
        self.model, self.batch = model, batch
        self.tokens = batch.tokens(model, torch.arange(len(batch.responses.ids)))
        statistics = self.tokens.statistics.detach()
        grown = {name: getattr(statistics, name).clone().requires_grad_() for name in GRADIENTS}
        self.leaves = replace(self.tokens, statistics=replace(statistics, **grown))
        self.lengths = batch.responses.prompt + batch.responses.length
        self.whole = [torch.arange(len(self.lengths))]
        self.plain: dict[Clip, Tensor] = {}

    def released(self, entry: Entry, parts: list[Tensor], by_rows: bool = False, draw: int = 0) -> Found:
        """The method as released: the micro-batches' losses, each times its share of the tokens (or of the rows)."""
        torch.manual_seed(draw)
        total, marks = torch.zeros(()), torch.zeros(self.tokens.response_mask.shape, dtype=torch.float64)
        for index in parts:
            part = part_of(self.leaves, index)
            loss, marks[index] = entry.released(part, self.batch.update(part, entry.ours))
            inside, everything = part.response_mask, self.tokens.response_mask
            total = total + loss * (len(index) / len(everything) if by_rows else inside.sum() / everything.sum())
        return Found(through_model(self.model, self.tokens, self.leaves, total), marks)

    def without(self, clip: Clip | None) -> Tensor | float:
        """[P] gradient of the surrogate alone; 0 for None."""
        if clip is None:
            return 0.0
        if clip not in self.plain:
            update = replace(self.batch.update(self.leaves, METHODS["none"]()), clip=clip)
            loss = MethodStack([METHODS["none"]()]).loss(self.leaves, update)
            self.plain[clip] = through_model(self.model, self.tokens, self.leaves, loss)
        return self.plain[clip]

    def ours(self, entries: Sequence[Entry], parts: list[Tensor]) -> dict[str, Found]:
        """The methods here: every micro-batch is a forward pass of its own, `prepare` sees all of them together."""
        micro = [self.batch.tokens(self.model, index) for index in parts]
        whole, parameters = assembled(micro), list(self.model.parameters())
        results = {}
        for entry in entries:
            stack, update = MethodStack([entry.ours]), self.batch.update(whole, entry.ours)
            contexts = stack.prepare({"exact": whole, "step": whole}, [update])
            gradient: Tensor | float = 0.0
            marks = torch.zeros(whole.response_mask.shape, dtype=torch.float64)
            for index, tokens in zip(parts, micro, strict=True):
                if entry.name != "none":
                    marks[index, : tokens.response_mask.shape[1]] = acted(entry.ours, tokens, contexts[0], update)
                loss = micro_batch_loss(stack, tokens, contexts, update)
                found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
                gradient = gradient + flat(found, parameters)
            results[entry.name] = Found(gradient, marks)
        return results


def micro_batch_loss(stack: MethodStack, tokens: Tokens, contexts: list[Any], update: Update) -> Tensor:
    """A micro-batch's share of the mini-batch's loss, as the recipe's actor computes it."""
    term = stack.loss_term(tokens, contexts, [update])
    tokens = replace(tokens, advantages=stack.token_advantages(tokens, contexts, [update]))
    mask, count = stack.selection(tokens, contexts, [update])
    return torch.where(mask, stack.policy_loss(tokens, contexts, [update]), 0.0).sum() / count + term


def overlap(a: Tensor, b: Tensor) -> float | None:
    """Jaccard index of two sets, or of two weightings: sum of minima over sum of maxima; None if both are empty."""
    union = torch.maximum(a, b).sum().item()
    return torch.minimum(a, b).sum().item() / union if union else None


def angle(a: Tensor, b: Tensor) -> float | None:
    """Degrees between two vectors, exact for small angles too; None if one is 0."""
    if not a.any() or not b.any():
        return None
    a, b = a / a.norm(), b / b.norm()
    return math.degrees(2 * math.atan2((a - b).norm().item(), (a + b).norm().item()))


def compared(found: Found, whole: Found, plain: Tensor | float) -> dict[str, float | None]:
    """A split against the whole mini-batch: overlap of the tokens, angle (degrees) and ratio of the gradients' norms.

    `own_angle` and `own_norm` are those of the method's own part, the gradient minus that of the surrogate without it;
    None where it is not above the rounding of float32.
    """
    own, reference = found.gradient - plain, whole.gradient - plain
    felt = reference.norm() > 1e-5 * whole.gradient.norm()
    return {
        "overlap": overlap(found.acted, whole.acted),
        "acted": float((found.acted > 0).sum()),
        "angle": angle(found.gradient, whole.gradient),
        "norm": (found.gradient.norm() / whole.gradient.norm()).item(),
        "own_angle": angle(own, reference) if felt else None,
        "own_norm": (own.norm() / reference.norm()).item() if felt else None,
    }


def measured(seed: int, prompts: int, long_prompts: int, cases: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One record for each case, split, method and implementation."""
    for case, model, batch in mini_batches(seed, prompts, long_prompts):
        if case not in cases:
            continue
        run = Measured(model, batch)
        log_ratio = run.tokens.masked(run.tokens.log_ratio)
        yield {
            "case": case, "seed": seed, "responses": len(run.lengths), "tokens": len(log_ratio),
            "shortest": int(batch.responses.length.min()), "longest": int(batch.responses.length.max()),
            "reward": batch.responses.rewards.mean().item(), "entropy": run.tokens.mean(run.tokens.entropy),
            "outside_clip": ((log_ratio.exp() - 1).abs() > CLIP.low).double().mean().item(),
            "log_ratio": log_ratio.abs().mean().item(),
        }  # fmt: skip
        # A change of ratio is a change of scale of the same code: ours is measured once for each method.
        single = [entry for entry in ENTRIES if not entry.name.endswith("0.02")]
        exact = run.ours(single, run.whole)
        whole = {e.name: run.released(e, run.whole) if e.name != "none" else exact["none"] for e in ENTRIES}
        rows: list[tuple[str, int, str, str, dict[str, Any]]] = []
        for entry in ENTRIES[:-1]:
            same = compared(whole[entry.name], whole[entry.name], run.without(entry.without))
            rows.append(("whole", 1, entry.name, "in one piece", same))
        for entry in single:
            same = compared(exact[entry.name], whole[entry.name], run.without(entry.without))
            rows.append(("whole", 1, entry.name, "ours against released", same))
        for entry in ENTRIES[:2]:
            again = compared(run.released(entry, run.whole, draw=1), whole[entry.name], run.without(entry.without))
            rows.append(("whole", 1, entry.name, "another draw", again))
        for split, numbers in PLAN[case]:
            for parts in numbers:
                cut = SPLITS[split](run.lengths, parts, seed)
                for name, found in run.ours(single, cut).items():
                    rows.append((split, parts, name, "ours", compared(found, exact[name], 0.0)))
                for entry in ENTRIES:
                    plain = run.without(entry.without)
                    if entry.name != "none":
                        result = compared(run.released(entry, cut), whole[entry.name], plain)
                        rows.append((split, parts, entry.name, "released", result))
                    if entry.forked and parts == PARTS[-1]:
                        result = compared(run.released(entry, cut, by_rows=True), whole[entry.name], plain)
                        rows.append((split, parts, entry.name, "mean per micro-batch", result))
        yield from ({"case": case, "seed": seed, "split": s, "parts": p, "method": m, "variant": v} | r
                    for s, p, m, v, r in rows)  # fmt: skip


# ---- the record, the tables and the figure ---------------------------------------------------------------------------


def added(data: dict[str, Any], seed: int, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The record with the records of one more seed: `batches`, and in `found` every number as a list by seed."""
    found = {tuple(entry[name] for name in KEYS): entry for entry in copy.deepcopy(data["found"])}
    for record in records:
        if "variant" in record:
            key = {name: record[name] for name in KEYS}
            entry = found.setdefault(tuple(key.values()), key | {name: [] for name in NUMBERS})
            for name in NUMBERS:
                entry[name].append(record[name])
    batches = [*data["batches"], *(record for record in records if "variant" not in record)]
    return {"about": data["about"] | {"seeds": seed + 1}, "batches": batches, "found": list(found.values())}


def rounded(value: Any) -> Any:
    """Floats to five digits."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(x) for key, x in value.items()}
    return [rounded(x) for x in value] if isinstance(value, list) else value


def number(value: float) -> str:
    """Three digits, all of the integer part; an exponent for what is tiny."""
    if value and abs(value) < 1e-3:
        return f"{value:.0e}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def spread(values: Sequence[float | None]) -> str:
    """Mean and range, or - where there is nothing to compare."""
    known = [v for v in values if v is not None]
    if not known:
        return "-"
    low, high = number(min(known)), number(max(known))
    return number(mean(known)) if low == high else f"{number(mean(known))} ({low} to {high})"


class Record:
    """The recorded results, by what was measured."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.about, self.batches = data["about"], data["batches"]
        self._found = {tuple(entry[name] for name in KEYS): entry for entry in data["found"]}

    def get(self, case: str, split: str, parts: int, method: str, variant: str, field: str) -> list[float | None]:
        """A number by seed."""
        return self._found[case, split, parts, method, variant][field]

    def all(self, method: str, variant: str, field: str) -> list[float]:
        """A number over all cases, splits and seeds."""
        entries = [entry for key, entry in self._found.items() if key[3:] == (method, variant)]
        return [value for entry in entries for value in entry[field] if value is not None]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table."""
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)] + [""]


def tables(record: Record) -> str:
    """The page's tables."""
    lines = []
    batches = []
    for case, title in CASES.items():
        of = [b for b in record.batches if b["case"] == case]
        lengths = f"{min(b['shortest'] for b in of)} to {max(b['longest'] for b in of)}"
        columns = [spread([b[name] for b in of]) for name in ("tokens", "reward", "entropy", "outside_clip")]
        batches.append([title, str(of[0]["responses"]), lengths, *columns])
    head = [
        "case",
        "responses",
        "their tokens",
        "tokens",
        "mean reward",
        "entropy, nats",
        "ratios off 1 by > 0.2",
    ]
    lines += markdown(head, batches)

    shown = [entry for entry in ENTRIES if entry.name != "none"]
    title = f"as released, {CASES['later']}, verl's dynamic batching into 2, 4 and 8 micro-batches"
    tokens, gradients = [], []
    for entry in shown:
        cells = {}
        for name in ("overlap", "acted", "own_angle", "own_norm", "angle"):
            found = [record.get("later", "dynamic", n, entry.name, "released", name) for n in PARTS]
            cells[name] = [spread(values) for values in found]
        one = record.get("later", "whole", 1, entry.name, "in one piece", "acted")
        tokens.append([entry.label, *cells["overlap"], spread(one), cells["acted"][-1]])
        gradients.append([entry.label, *cells["own_angle"], cells["own_norm"][-1], cells["angle"][-1]])
    lines += [f"**Tokens, {title}: overlap with one piece:**", ""]
    lines += markdown(["method", *map(str, PARTS), "tokens in one piece", "tokens at 8"], tokens)
    lines += [f"**Gradient, {title}: angle of the own part, degrees:**", ""]
    head = ["method", *map(str, PARTS), "size of the own part at 8", "angle of the whole gradient at 8"]
    lines += markdown(head, gradients)

    draws = []
    for entry in ENTRIES[:2]:
        again = partial(record.get, "later", "whole", 1, entry.name, "another draw")
        numbers = spread(again("overlap")), spread(again("own_angle"))
        draws.append(f"overlap {numbers[0]} and own part {numbers[1]} degrees with {entry.label}")
    lines += [f"Clip-Cov chooses at random; two draws from the mini-batch in one piece: {'; '.join(draws)}.", ""]

    lines += ["**As released, 8 micro-batches, other cases and splits: overlap / angle of the own part, degrees:**", ""]
    rows = []
    for entry in shown:
        cells = []
        for case, split in OTHERS:
            got = partial(record.get, case, split, PARTS[-1], entry.name, "released")
            cells.append(f"{spread(got('overlap'))} / {spread(got('own_angle'))}")
        rows.append([entry.label, *cells])
    lines += markdown(["method", *(f"{CASES[case]}: {SHORT[split]}" for case, split in OTHERS)], rows)

    lines += ["**Here, all cases and splits: the worst against the same mini-batch in one piece:**", ""]
    rows = []
    for entry in ENTRIES:
        if "0.02" not in entry.name:
            overlaps, angles, norms = (record.all(entry.name, "ours", f) for f in ("overlap", "angle", "norm"))
            worst = [number(min(overlaps)) if overlaps else "-", number(max(angles)), spread(norms)]
            rows.append([entry.label, str(len(norms)), *worst])
    lines += markdown(["method", "comparisons", "overlap", "angle, degrees", "size, to 5 digits"], rows)

    lines += [
        "**As released, the mean of the loss per micro-batch too, 8 micro-batches: whole gradient, degrees:**",
        "",
    ]
    rows, columns = [], [(case, split) for case in ("later", "long") for split in ("dynamic", "length")]
    for entry in ENTRIES:
        if entry.forked:
            got = partial(record.get, parts=PARTS[-1], method=entry.name, variant="mean per micro-batch", field="angle")
            rows.append([entry.label, *(spread(got(case=case, split=split)) for case, split in columns)])
    lines += markdown(["method", *(f"{CASES[case]}: {SHORT[split]}" for case, split in columns)], rows)
    return "\n".join(lines).rstrip() + "\n"


def written(text: str, record: Record) -> str:
    """`text` with the tables between their marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables(record)}\n{END}{after}"


def picture(record: Record) -> Figure:
    """Overlap of the tokens, angle of the method's own part and of the whole gradient, over the micro-batches."""
    figure = Figure(figsize=(9.6, 7.2), layout="constrained")
    panels = figure.subplots(3, len(DRAWN), sharex=True, sharey="row")
    for panel in panels.flat:
        tidy(panel, percent=False)
    places = range(len(PARTS) + 1)
    handles: dict[str, Any] = {}
    for column, (case, split) in enumerate(DRAWN):
        for row, (field, start) in enumerate((("overlap", 1.0), ("own_angle", 0.0), ("angle", 0.0))):
            panel = panels[row][column]
            (line,) = panel.plot(places, [start] * len(places), color=INK, linewidth=2.4, solid_capstyle="round")
            handles.setdefault("all of them, here", line)
            for index, name in enumerate(LINES):
                by_seed = [record.get(case, split, n, name, "released", field) for n in PARTS]
                by_parts = [[value for value in values if value is not None] for values in by_seed]
                middle = [start, *(mean(values) for values in by_parts)]
                low, high = ([start, *(f(values) for values in by_parts)] for f in (min, max))
                style = line_style(index)
                (line,) = panel.plot(places, middle, marker="o", markersize=3.5, linewidth=1.6, **style)
                panel.fill_between(places, low, high, color=style["color"], alpha=0.08, linewidth=0)
                handles.setdefault(next(e.label for e in ENTRIES if e.name == name) + ", released", line)
            panel.set_xticks(places, ["1", *map(str, PARTS)])
            if row == 0:
                panel.set_title(f"{CASES[case]}\n{SHORT[split]}", fontsize=10, color=INK, loc="left")
                panel.set_ylim(0, 1.05)
            if row == 2:
                panel.set_xlabel("micro-batches", fontsize=9, color=INK)
    panels[0][0].set_ylabel("overlap of the tokens\nwith one micro-batch", fontsize=9, color=INK)
    panels[1][0].set_ylabel("angle of the method's own\npart of the gradient, degrees", fontsize=9, color=INK)
    panels[2][0].set_ylabel("angle of the\nwhole gradient, degrees", fontsize=9, color=INK)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def main() -> None:
    """Measure if asked to, and write the tables and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="measure the seeds that the record lacks")
    parser.add_argument("--quick", action="store_true", help="measure one small batch, print it and write nothing")
    parser.add_argument("--seeds", type=int, default=5, help="mini-batches of each case (default 5)")
    parser.add_argument("--prompts", type=int, default=8, help="prompts of a real mini-batch (default 8)")
    options = parser.parse_args()
    if options.quick:
        for record in quick():
            print(json.dumps(rounded(record)))
        return
    if options.measure:
        torch.set_num_threads(1)
        data: dict[str, Any] = {"about": {"seeds": 0, "prompts": options.prompts}, "batches": [], "found": []}
        if RESULTS.is_file():
            data = json.loads(RESULTS.read_text(encoding="utf-8"))
            if data["about"]["prompts"] != options.prompts:
                parser.error(f"--prompts={options.prompts}: the record has {data['about']['prompts']}; delete it first")
        for seed in range(data["about"]["seeds"], options.seeds):
            data = added(data, seed, rounded(list(measured(seed, options.prompts, LONG_PROMPTS, tuple(CASES)))))
            with atomic_write(RESULTS) as unfinished:
                unfinished.write_text(dumped(data), encoding="utf-8")
            print(f"seed {seed} is recorded", flush=True)
    if not RESULTS.is_file():
        parser.error(f"no record {RESULTS.relative_to(REPOSITORY)}: add --measure")
    record = Record(json.loads(RESULTS.read_text(encoding="utf-8")))
    text = PAGE.read_text(encoding="utf-8")
    with atomic_write(PAGE) as unfinished:
        unfinished.write_text(written(text, record), encoding="utf-8")
    style = {"svg.hashsalt": "exactness", "svg.fonttype": "none"}
    with matplotlib.rc_context(style), atomic_write(PICTURE) as unfinished:
        picture(record).savefig(unfinished, format="svg", metadata={"Date": None})
    print(PAGE.relative_to(REPOSITORY), PICTURE.relative_to(REPOSITORY))


def quick() -> list[dict[str, Any]]:
    """One small mini-batch of the later update."""
    torch.set_num_threads(1)
    return list(measured(0, 4, 0, ("later",)))


def dumped(data: dict[str, Any]) -> str:
    """JSON with one entry a line."""
    parts = [f'"about": {json.dumps(data["about"])}']
    for name in ("batches", "found"):
        parts.append(f'"{name}": [\n' + ",\n".join(json.dumps(entry) for entry in data[name]) + "\n]")
    return "{" + ",\n".join(parts) + "}\n"


if __name__ == "__main__":
    main()
