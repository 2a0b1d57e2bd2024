"""SIREN: squared distance of the entropy of selected tokens from its value at the first step."""

from dataclasses import dataclass
from typing import ClassVar

from paec_loss.methods.paec import PAEC


@dataclass(frozen=True)
class SIREN(PAEC):
    """Loss term lambda_low (Hbar_sel - H_anchor)^2.

    Hbar_sel is the mean nucleus entropy (p = top_p) of the tokens above the rho-quantile of their response, H_anchor
    its value at step 1, so the term acts from step 2 on. All selected tokens of the mini-batch count the same. This is
    PAEC with a hard mask and a penalty on both sides, so the fields are PAEC's.
    """

    paper: ClassVar[str] = "SIREN, arXiv 2509.25133"
    spans: ClassVar[str] = "mean nucleus entropy of the selected tokens"
    released: ClassVar[str] = (
        "the released code leaves the token that crosses top_p out of the nucleus; here it is inside, as in the text. "
        "It also averages within each response first (seq-mean-token-mean), and its penalty acts within step 1 already"
    )

    beta: float = 0.0
    normalizer: str = "none"
    mask: str = "hard"
    average: str = "mass"
    entropy: str = "nucleus"
    anchor_steps: int = 1
    rho_min: float = 1.0
    penalty: str = "two_sided"
    lambda_ent: float = 0.0
    lambda_low: float = 0.005
