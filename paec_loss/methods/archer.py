"""Archer: a wide clip range for a response's uncertain tokens, a narrow one and a KL for the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import MAX_LOG_RATIO, Clip, Tokens, Update
from paec_loss.fields import between, non_negative
from paec_loss.method import Method, clipped_surrogate
from paec_loss.position import masked_quantile

if TYPE_CHECKING:
    from torch import Tensor


def uncertain(tokens: Tokens, quantile: float) -> Tensor:
    """[B, R] bool, tokens whose entropy is above the quantile of their response's entropies (interpolated linearly)."""
    entropy = tokens.entropy.detach().double()
    return tokens.response_mask & (entropy > masked_quantile(entropy, tokens.response_mask, quantile))


def by_class(chosen: Tensor, inside: float, outside: float) -> Tensor:
    """[B, R] float64, `inside` at the chosen tokens and `outside` elsewhere."""
    return torch.full_like(chosen, outside, dtype=torch.float64).masked_fill(chosen, inside)


@dataclass(frozen=True)
class Archer(Method):
    """Clip range `clip_uncertain` for tokens with H_t above their response's quantile, `clip_certain` for the others.

    Loss term sum_t beta_t KL_t / N with beta_t = kl_uncertain or kl_certain, KL_t = exp(d) - d - 1, d = log p_ref -
    log p, N the mini-batch's tokens. H_t is the current policy's entropy, without gradient. The dual clip is the run's.
    """

    paper: ClassVar[str] = "Archer, arXiv 2507.15778"
    on_policy: ClassVar[str] = "only the KL: no ratio is clipped"
    spans: ClassVar[str] = "the response: quantile of H"
    released: ClassVar[str] = (
        "the released code swaps the names of its two masks, and does not multiply the KL of uncertain tokens by the "
        "run's coefficient; it averages the KL over the certain tokens, here over all"
    )
    uses_clip: ClassVar[bool] = False
    needs = {"reference"}

    quantile: float = between(0, 1, 0.8, "quantile of a response's entropies above which a token is uncertain")
    clip_uncertain: float = between(0, 1, 0.5, "clip range of uncertain tokens, on both sides")
    clip_certain: float = between(0, 1, 0.2, "clip range of the others, on both sides")
    kl_uncertain: float = non_negative(0.0, "weight of the KL to the reference at uncertain tokens")
    kl_certain: float = non_negative(0.001, "weight of the KL to the reference at the others")

    def policy_loss(self, tokens: Tokens, context: None, update: Update) -> Tensor:
        width = by_class(uncertain(tokens, self.quantile), self.clip_uncertain, self.clip_certain)
        width = width.to(tokens.log_prob.dtype)
        return clipped_surrogate(tokens, Clip(width, width, update.clip.dual_clip))

    def loss_term(self, tokens: Tokens, context: None, update: Update) -> Tensor:
        difference = (tokens.ref_log_prob - tokens.log_prob).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        kl = difference.exp() - difference - 1
        return tokens.total(self.token_weights(tokens, context, update) * kl) / max(update.tokens, 1)

    def token_weights(self, tokens: Tokens, context: None, update: Update) -> Tensor:
        return by_class(uncertain(tokens, self.quantile), self.kl_uncertain, self.kl_certain)
