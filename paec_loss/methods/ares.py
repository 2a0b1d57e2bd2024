"""ARES: rewards or penalises how often a response hesitates, relative to the past mean, by the prompt's difficulty."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts
from paec_loss.fields import below_one, between, non_negative, whole, words
from paec_loss.method import Method
from paec_loss.pieces import own_tokens

if TYPE_CHECKING:
    from torch import Tensor

TRIGGERS = (
    *("wait", "hmm", "hm", "oh", "oops", "hold", "but", "however", "though", "although", "yet", "still"),
    *("alternatively", "instead", "otherwise", "rather", "or", "either", "maybe", "perhaps", "possibly", "probably"),
    *("might", "could", "if", "unless", "whether", "suppose", "assume", "assuming", "actually", "again", "another"),
    *("check", "verify", "recheck", "reconsider", "rethink", "mistake", "wrong"),
)
"""Words that signal hesitation, branching or looking back."""
MAX_ALPHA = 2.0
"""Largest alpha."""


@dataclass(frozen=True)
class Difficulty:
    """The constants for prompts of one difficulty."""

    margin: float
    """f: the margin as a share of n*."""
    kappa: float
    """Where the huber function becomes linear."""
    temperature: float
    """T: width of the sigmoid."""
    cap: float
    """c / alpha: largest term."""
    wrong: float
    """s: largest term of a wrong answer as a share of c."""


DIFFICULTIES = {
    "easy": Difficulty(0.15, 2.0, 2.0, 1.0, 0.6),
    "medium": Difficulty(0.25, 3.0, 2.5, 1.0, 0.8),
    "hard": Difficulty(0.35, 4.0, 3.0, 1.2, 1.0),
}


@dataclass(frozen=True)
class ARES(Method):
    """Reward R + e; e compares the number n of triggers with its past mean n*, by the difficulty of the prompt.

    A trigger is a token whose text (in lower case, without leading whitespace) is one of `triggers`, followed by
    `window` tokens whose mean entropy (nats) is at least theta. Each step sets theta <- decay theta + (1 - decay) M,
    where M is the median over its responses of the `quantile` of their window means; in the first step theta = M. A
    prompt is easy if at least 2/3 of its responses are right (graded reward above 0), medium if at least 1/3, else
    hard. n* is the mean of n, rounded, over all responses to prompts of that difficulty in earlier steps; if there are
    none, e is 0. With d = n - n*, m = max(1, f max(n*, 1)), c = alpha times 1, 1 or 1.2, and huber(x) = 0 below 0, x^2
    / (2 k) up to k and x - k / 2 above:

    | answer | e |
    |---|---|
    | easy, right | -min(c, c huber(d - m) / (m + k)) |
    | medium, right | -min(c, c huber(abs(d) - m) / (m + k)) |
    | hard, right | c sigmoid((d + m) / T) if d >= -m, else -min(c, c huber(-d - m) / (2 (m + k))) |
    | wrong | s c sigmoid(max(d - m, 0) / T) |

    f is .15, .25, .35 (easy, medium, hard), k 2, 3, 4, T 2, 2.5, 3 and s .6, .8, 1. So a wrong answer gains s c / 2
    even without any trigger, as published. After a step the alpha of a difficulty moves by rate (mean n - n*), for hard
    prompts by the opposite, and stays in [0, 2]. In separate_async the rewards are computed with the M of a mini-batch.
    Prompts to which all responses are right, or all wrong, are learnt from as well, but not with base=dapo, which
    leaves them out.
    """

    paper: ClassVar[str] = "ARES, arXiv 2510.08457; its code, shawn0728/ARES"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    spans: ClassVar[str] = (
        "the group: its accuracy; the step: the median in theta; over the steps: theta, the means of n and the alphas"
    )
    released: ClassVar[str] = (
        "the released list of 174 triggers was not available: the default is our own list of 40 words; the released n* "
        "is the mean of the same step, so that alpha hardly moves, here it is the mean of the earlier steps; the "
        "released code tests the likeliest token, with entropies from 10 log-probs, here the sampled token is tested, "
        "with the entropy over the vocabulary; the KL weight by difficulty is left out"
    )
    needs = {"token_texts", "rewards"}

    window: int = whole(4, "number of tokens after a trigger whose mean entropy counts")
    quantile: float = between(0, 1, 0.95, "quantile of a response's window means that the threshold follows")
    decay: float = below_one(0.99, "share of the threshold that is kept per step")
    alpha: float = between(0, MAX_ALPHA, 0.5, "weight of the term in the first step")
    rate: float = non_negative(0.05, "change of alpha per step and unit of mean n - n*")
    triggers: tuple[str, ...] = words(TRIGGERS, "tokens that can be triggers")

    @property
    def unscheduled(self) -> Mapping[str, str]:
        return {"alpha": "where the weights start"}

    def tracker(self) -> TriggerHistory:
        return TriggerHistory(self)

    def rewards(self, rollouts: Rollouts) -> Tensor:
        signal = rollouts.tracker_signal
        _, counts = trigger_counts(self, rollouts, signal.get("theta"))
        graded = rollouts.rewards.tolist()
        changed = list(graded)
        for name, rows in by_difficulty(rollouts):
            if f"target_{name}" not in signal:
                continue
            target, alpha = signal[f"target_{name}"], signal[f"alpha_{name}"]
            for row in rows:
                changed[row] += term(DIFFICULTIES[name], counts[row], target, graded[row] > 0, alpha)
        return torch.tensor(changed, dtype=rollouts.rewards.dtype, device=rollouts.rewards.device)


def term(difficulty: Difficulty, count: int, target: float, right: bool, alpha: float) -> float:
    """e of a response with `count` triggers, where n* is `target`."""
    margin = max(1.0, difficulty.margin * max(target, 1.0))
    cap, delta, scale = difficulty.cap * alpha, count - target, margin + difficulty.kappa
    if not right:
        return difficulty.wrong * cap * _sigmoid(max(delta - margin, 0.0) / difficulty.temperature)
    if difficulty is DIFFICULTIES["hard"]:
        if delta >= -margin:
            return cap * _sigmoid((delta + margin) / difficulty.temperature)
        beyond, scale = -delta - margin, 2 * scale
    else:
        beyond = (delta if difficulty is DIFFICULTIES["easy"] else abs(delta)) - margin
    return -min(cap, cap * _huber(max(beyond, 0.0), difficulty.kappa) / scale)


def _sigmoid(x: float) -> float:
    """Sigmoid of x >= 0, where exp cannot overflow."""
    return 1 / (1 + math.exp(-x))


def _huber(x: float, kappa: float) -> float:
    return x * x / (2 * kappa) if x <= kappa else x - kappa / 2


def by_difficulty(rollouts: Rollouts) -> Iterator[tuple[str, list[int]]]:
    """The difficulty of each group, by its share of graded rewards above 0, and its rows, without padding rows."""
    for group in rollouts.groups():
        right, count = int((rollouts.rewards[group] > 0).sum()), len(group)
        name = "easy" if 3 * right >= 2 * count else "medium" if 3 * right >= count else "hard"
        yield name, group.tolist()


def trigger_counts(method: ARES, rollouts: Rollouts, past: float | None) -> tuple[float | None, list[int]]:
    """theta, updated with these responses from the previous step's (`past`, None in the first), and n of each of the B.

    theta is None, and every n is 0, until some response has been longer than the window.
    """
    means = window_means(rollouts, method.window)
    theta, peaks = past, [torch.quantile(row, method.quantile) for row in means if len(row)]
    if peaks:
        median = torch.quantile(torch.stack(peaks), 0.5).item()
        theta = median if past is None else method.decay * past + (1 - method.decay) * median
    if theta is None:
        return None, [0] * len(means)
    listed = {_plain(word) for word in method.triggers}
    written = [pieces for pieces, _ in own_tokens(rollouts)]
    matching = {text for text in set().union(*written) if _plain(text) in listed}
    return theta, [
        sum(text in matching and mean >= theta for text, mean in zip(texts, row.tolist(), strict=False))
        for texts, row in zip(written, means, strict=True)
    ]


def window_means(rollouts: Rollouts, window: int) -> list[Tensor]:
    """B rows, float64: mean entropy of tokens t + 1 ... t + window for every position t that has that many after it."""
    rows = [row[here].double()[1:] for row, here in zip(rollouts.entropy, rollouts.response_mask, strict=True)]
    return [row.unfold(0, window, 1).mean(-1) if len(row) >= window else row[:0] for row in rows]


def _plain(text: str) -> str:
    return text.lower().lstrip()


class TriggerHistory:
    """theta and, by difficulty, sum and number of n, and alpha: both before and after the last observed step.

    So the signal of a step does not depend on whether the step has been observed yet.
    """

    def __init__(self, config: ARES) -> None:
        self.config = config
        self._step = 0
        self._before = self._after = {
            f"{key}_{name}": value
            for name in DIFFICULTIES
            for key, value in (("triggers", 0.0), ("responses", 0.0), ("alpha", config.alpha))
        }

    def observe(self, rollouts: Rollouts) -> dict[str, float]:
        if rollouts.step != self._step + 1:
            raise ValueError(
                f"ares history: observed step {rollouts.step} after {self._step} steps; observe each once and in "
                "order, or load the checkpoint of the run that this one resumes"
            )
        past = self.signal(rollouts.step)
        theta, counts = trigger_counts(self.config, rollouts, past.get("theta"))
        if theta is not None and not math.isfinite(theta):
            raise ValueError(f"ares history: the threshold of step {rollouts.step} is {theta}; must be a number")
        after = dict(self._after) if theta is None else {**self._after, "theta": theta}
        found: dict[str, list[int]] = {}
        for name, rows in by_difficulty(rollouts):
            found.setdefault(name, []).extend(counts[row] for row in rows)
        means = {name: sum(values) / len(values) for name, values in found.items()}
        for name, mean in means.items():
            after[f"triggers_{name}"] += sum(found[name])
            after[f"responses_{name}"] += len(found[name])
            if f"target_{name}" in past:
                move = self.config.rate * (mean - past[f"target_{name}"])
                moved = past[f"alpha_{name}"] + (-move if name == "hard" else move)
                after[f"alpha_{name}"] = min(max(moved, 0.0), MAX_ALPHA)
        self._step, self._before, self._after = rollouts.step, self._after, after
        return {**past, **_threshold(after), **{f"triggers_{name}": mean for name, mean in means.items()}}

    def signal(self, step: int) -> dict[str, float]:
        if step < self._step:
            raise ValueError(
                f"ares history: no signal of step {step} after {self._step} steps: it keeps the last one's"
            )
        memory = self._after if step > self._step else self._before
        known = [name for name in DIFFICULTIES if memory[f"responses_{name}"]]
        targets = {f"target_{n}": float(round(memory[f"triggers_{n}"] / memory[f"responses_{n}"])) for n in known}
        return {**_threshold(memory), **targets, **{f"alpha_{n}": memory[f"alpha_{n}"] for n in DIFFICULTIES}}

    def state_dict(self) -> dict[str, Any]:
        return {"step": self._step, "before": dict(self._before), "after": dict(self._after)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        step, before, after = (state.get(key) for key in ("step", "before", "after"))
        whole_step = type(step) is int and step >= 0
        if len(state) != 3 or not whole_step or not (self._is_memory(before) and self._is_memory(after)):
            raise ValueError(
                f"ares history state {state!r}: must be step, an integer >= 0, and before and after: triggers, "
                f"responses and alpha (at most {MAX_ALPHA:g}) of each difficulty, and theta if there is one, finite "
                "numbers >= 0"
            )
        self._step, self._before, self._after = step, dict(before), dict(after)

    def _is_memory(self, memory: Any) -> bool:
        names = {f"{key}_{name}" for key in ("triggers", "responses", "alpha") for name in DIFFICULTIES}
        return (
            isinstance(memory, dict)
            and memory.keys() - {"theta"} == names
            and all(type(value) is float and math.isfinite(value) and value >= 0 for value in memory.values())
            and all(memory[f"alpha_{name}"] <= MAX_ALPHA for name in DIFFICULTIES)
        )


def _threshold(memory: Mapping[str, float]) -> dict[str, float]:
    return {"theta": memory["theta"]} if "theta" in memory else {}
