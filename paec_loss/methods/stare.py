"""STARE: while the entropy is low, surprising tokens of good responses have a larger weight."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts, Tokens, Update
from paec_loss.fields import between, choice, non_negative, share
from paec_loss.method import BatchMethod
from paec_loss.methods._top_tokens import TopTokens, count_of

if TYPE_CHECKING:
    from torch import Tensor

LARGEST, SMALLEST, MOVE = 1.5, 0.5, 0.01
"""Bounds of the weights with weights=adaptive (the other bound is 1), and their change in a step."""


@dataclass(frozen=True)
class Surprising:
    """The chosen tokens with A > 0 and those with A < 0."""

    positive: TopTokens
    negative: TopTokens


@dataclass(frozen=True)
class STARE(BatchMethod[Surprising]):
    """While Hbar < target: the surrogate times `weight_positive` at the most surprising tokens with A > 0.

    These are the ceil(top n) tokens of largest -log p among the mini-batch's n tokens with A > 0; ties are broken at
    random. With variant=c2, tokens with A < 0 are chosen likewise and have `weight_negative`. Hbar is the mean token
    entropy (nats) of the step's responses at its start. With weights=adaptive each step first moves both weights by
    0.01, away from 1 while Hbar < target and back towards 1 while Hbar > target, within [1, 1.5] and [0.5, 1].
    """

    paper: ClassVar[str] = "STARE, arXiv 2606.19236"
    on_policy: ClassVar[str] = "the same: surprisal does not need a ratio"
    spans: ClassVar[str] = "the tokens of largest surprisal; the step: mean entropy"
    released: ClassVar[str] = "the released code chooses among the tokens of a micro-batch"

    top: float = share(0.1, "share of the tokens of each sign that are chosen")
    weight_positive: float = between(1, LARGEST, 1.1, "weight of chosen tokens with A > 0")
    weight_negative: float = between(SMALLEST, 1, 0.9, "weight of chosen tokens with A < 0; only with variant=c2")
    target: float = non_negative(0.3, "mean entropy below which it acts, nats")
    variant: str = choice(("o1", "c2"), "o1", "tokens that are weighted: with A > 0, or of both signs")
    weights: str = choice(("fixed", "adaptive"), "fixed", "whether the weights follow the entropy")

    @property
    def unscheduled(self) -> Mapping[str, str]:
        if self.weights == "fixed":
            return {}
        return dict.fromkeys(("weight_positive", "weight_negative"), "where a weight starts with weights=adaptive")

    def tracker(self) -> Weights:
        return Weights(self)

    def prepare(self, batch: Tokens, update: Update) -> Surprising:
        return Surprising(*(self._chosen(batch, update, sign * batch.advantages > 0) for sign in (1, -1)))

    def _chosen(self, batch: Tokens, update: Update, among: Tensor) -> TopTokens:
        number = int((among & batch.response_mask).sum())
        surprisal = torch.where(among, -batch.log_prob.detach().double(), -math.inf)
        return TopTokens.of(surprisal, batch, update, count_of(self.top, number))

    def token_advantages(self, tokens: Tokens, context: Surprising, update: Update) -> Tensor:
        weight = torch.ones_like(tokens.advantages)
        weight = weight.masked_fill(context.positive.among(tokens), update.tracker_signal["positive"])
        return tokens.advantages * weight.masked_fill(context.negative.among(tokens), update.tracker_signal["negative"])


class Weights:
    """The weights of both signs, and whether they act in this step."""

    def __init__(self, config: STARE) -> None:
        self.config = config
        self.positive, self.negative, self.acting = config.weight_positive, config.weight_negative, False

    def observe(self, rollouts: Rollouts) -> dict[str, float]:
        entropy, target = rollouts.mean(rollouts.entropy), self.config.target
        self.acting = entropy < target
        if math.isnan(entropy):  # on neither side of the target: kept, so that the loss shows it
            self.positive = self.negative = entropy
        elif self.config.weights == "adaptive":
            move = MOVE * ((target > entropy) - (target < entropy))
            self.positive = min(max(self.positive + move, 1.0), LARGEST)
            self.negative = min(max(self.negative - move, SMALLEST), 1.0)
        return {"entropy": entropy} | self.signal(rollouts.step)

    def signal(self, step: int) -> dict[str, float]:
        both = self.acting and self.config.variant == "c2"
        positive, negative = self.positive, self.negative
        if math.isnan(positive):
            return {"positive": positive, "negative": negative}
        if self.config.weights == "fixed":
            positive, negative = self.config.weight_positive, self.config.weight_negative
        return {"positive": positive if self.acting else 1.0, "negative": negative if both else 1.0}

    def state_dict(self) -> dict[str, Any]:
        return {"positive": self.positive, "negative": self.negative, "acting": self.acting}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        bounds = {"positive": (1.0, LARGEST), "negative": (SMALLEST, 1.0)}
        within = all(type(state.get(k)) is float and low <= state[k] <= high for k, (low, high) in bounds.items())
        if len(state) != 3 or type(state.get("acting")) is not bool or not within:
            raise ValueError(
                f"stare state {state}: must be positive in [1, {LARGEST:g}], negative in [{SMALLEST:g}, 1] and acting, "
                "true or false"
            )
        self.positive, self.negative, self.acting = state["positive"], state["negative"], state["acting"]
