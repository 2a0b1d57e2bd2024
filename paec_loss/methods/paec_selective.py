"""PAEC whose loss term acts only on some responses, by default the wrong ones."""

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
    """PAEC's loss term, acting only on responses selected by the sign of their advantage.

    Hbar, Z, anchor and floor are PAEC's, over all responses; only the selected ones receive the term's gradient. The
    idea: entropy in right responses costs accuracy, while in wrong ones it may lead to a right answer.
    """

    paper: ClassVar[str] = "nowhere yet: PAEC's floor on a part of the responses, from this project"

    responses: str = choice(("wrong", "mixed", "right"), "wrong", "responses whose tokens receive the term's gradient")
    """`wrong`: negative advantage, `right`: positive, `mixed`: either. A group of equal rewards has advantages of 0 and
    is left out."""

    lambda_ent: float = 0.0

    def token_weights(self, tokens: Tokens, context: Calibration, update: Update) -> Tensor:
        advantage = tokens.advantages
        inside = {"wrong": advantage < 0, "right": advantage > 0, "mixed": advantage != 0}[self.responses]
        return self._mask(tokens, context) * inside
