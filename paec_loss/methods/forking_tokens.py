"""Forking tokens (80/20): only the tokens of highest entropy train the policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss.batch import Tokens, Update
from paec_loss.fields import share
from paec_loss.method import BatchMethod
from paec_loss.methods._top_tokens import TopTokens, count_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ForkingTokens(BatchMethod[TopTokens]):
    """The surrogate's mean over the ceil(rho N) tokens of largest entropy H_t, N the mini-batch's tokens.

    These are the tokens at or above the (1 - rho)-quantile of H_t; ties are broken at random. Published with DAPO's
    clip range: also=[clip_higher].
    """

    paper: ClassVar[str] = "Beyond the 80/20 Rule, arXiv 2506.01939"
    on_policy: ClassVar[str] = "the same: entropy does not need a ratio"
    spans: ClassVar[str] = "which tokens have the highest entropy, and how many there are"
    released: ClassVar[str] = (
        "the released code selects among the tokens of a micro-batch; here among those of the mini-batch"
    )

    rho: float = share(0.2, "share of the mini-batch's tokens that are kept")

    def prepare(self, batch: Tokens, update: Update) -> TopTokens:
        return TopTokens.of(batch.entropy, batch, update, self._count(update))

    def _count(self, update: Update) -> int:
        return count_of(self.rho, update.tokens)

    def selection(self, tokens: Tokens, context: TopTokens, update: Update) -> tuple[Tensor, int]:
        return context.among(tokens), self._count(update)
