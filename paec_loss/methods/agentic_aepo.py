"""AEPO (agentic): uncertain tokens have a larger weight, and tokens clipped above still have a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss.batch import Tokens, Update
from paec_loss.fields import number
from paec_loss.method import BatchMethod
from paec_loss.methods.ce_gppo import bounded_surrogate

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of the entropy over the mini-batch, nats."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class AgenticAEPO(BatchMethod[Moments]):
    """Clipped surrogate of A (1 + weight z(H)) in which a ratio clipped above, 1 + high, becomes (1 + high) r / sg(r).

    z standardises over the mini-batch (sample standard deviation; 0 if all entropies are equal), and sg stops the
    gradient. The value of the loss is the surrogate's, but a token clipped above has a gradient of size (1 + high) |A|
    in log p instead of 0.
    """

    paper: ClassVar[str] = "AEPO (agentic), arXiv 2510.14545, its policy update; without the rollout tree"
    on_policy: ClassVar[str] = "only the advantages: no ratio is clipped"
    spans: ClassVar[str] = "mean and standard deviation of H"
    released: ClassVar[str] = "the released code takes mean and deviation over the micro-batch"

    weight: float = number(0.2, "weight of the standardised entropy in the advantage")

    def prepare(self, batch: Tokens, update: Update) -> Moments:
        inside = batch.masked(batch.entropy)
        deviation = inside.std().item() if inside.numel() > 1 else 0.0
        return Moments(batch.mean(batch.entropy), deviation or 1.0)

    def token_advantages(self, tokens: Tokens, context: Moments, update: Update) -> Tensor:
        z = (tokens.entropy.detach().double() - context.mean) / context.deviation
        return tokens.advantages * (1 + self.weight * z).to(tokens.advantages.dtype)

    def policy_loss(self, tokens: Tokens, context: Moments, update: Update) -> Tensor:
        return bounded_surrogate(tokens, update.clip, beta_low=0, beta_high=1)
