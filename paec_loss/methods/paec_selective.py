"""PAEC whose loss term acts only in the responses where entropy may be worth its price."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss.batch import Tokens, Update
from paec_loss.fields import choice
from paec_loss.methods.paec import PAEC, Calibration

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PAECSelective(PAEC):
    """PAEC's loss term, acting only on responses with an advantage of one sign.

    Hbar, Z, anchor and floor are PAEC's, over all responses; only a part of them receives the term's gradient. Entropy
    that is kept in right responses costs accuracy; in wrong ones it may find a right one.
    """

    paper: ClassVar[str] = "nowhere yet: PAEC's floor in a part of the responses, this project"

    responses: str = choice(("wrong", "mixed", "right"), "wrong", "responses whose tokens receive the term's gradient")
    """`wrong` negative advantage, `right` positive, `mixed` either: what differs from the rest of its group. A group of
    equal rewards has advantages of 0 and is left out."""

    lambda_ent: float = 0.0

    def token_weights(self, tokens: Tokens, context: Calibration, update: Update) -> Tensor:
        advantage = tokens.advantages
        inside = {"wrong": advantage < 0, "right": advantage > 0, "mixed": advantage != 0}[self.responses]
        return self._mask(tokens, context) * inside
