"""`method=none`: only the policy loss (GRPO, or another surrogate and estimator of the actor)."""

from dataclasses import dataclass
from typing import ClassVar

from paec_loss.method import Method


@dataclass(frozen=True)
class NoMethod(Method):
    """Clipped surrogate, nothing added."""

    paper: ClassVar[str] = "GRPO, arXiv 2402.03300"
    on_policy: ClassVar[str] = "plain policy gradient"
