"""How difficult a problem is for a policy, by the accuracy of its samples: ten bins, and three labels made of them."""

from __future__ import annotations

import numpy as np

BINS = 10
"""Equal bins of accuracy; the last includes 1."""
LABELS = ("hard",) * 3 + ("medium",) * 4 + ("easy",) * 3
"""The label of each bin: hard below 0.3, easy from 0.7 on. Our choice: DiffAdapt (arXiv 2510.19669) and ARES, which
sort problems by the accuracy of a few samples, give no borders that we could read."""


def bin_of(accuracy: np.ndarray) -> np.ndarray:
    """The bin 0, ..., BINS - 1 of accuracies in [0, 1]."""
    return np.minimum((np.asarray(accuracy) * BINS + 1e-9).astype(int), BINS - 1)


def label_of(accuracy: float) -> str:
    """`hard`, `medium` or `easy`, of an accuracy in [0, 1]."""
    return LABELS[int(bin_of(np.array(accuracy)))]
