"""Clip-higher: a surrogate with a larger upper clip range, so that unlikely tokens can grow."""

from dataclasses import dataclass
from typing import ClassVar

from paec_loss.batch import Clip
from paec_loss.fields import between, non_negative
from paec_loss.method import Method


@dataclass(frozen=True)
class ClipHigher(Method):
    """min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)."""

    paper: ClassVar[str] = "DAPO, arXiv 2503.14476, Eq. 10"
    on_policy: ClassVar[str] = "nothing: no ratio is clipped"

    clip_low: float = between(0, 1, 0.2, "lower clip range: ratios below 1 - clip_low are clipped")
    clip_high: float = non_negative(0.28, "upper clip range: ratios above 1 + clip_high are clipped")

    def clip(self, clip: Clip) -> Clip:
        return Clip(self.clip_low, self.clip_high, clip.dual_clip)
