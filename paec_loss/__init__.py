"""Position-Aware Entropy Calibration (arXiv 2606.08543) in plain PyTorch.

`token_statistics` turns logits into per-token entropies and nucleus statistics with gradients; `position_mask` selects
the decision-sensitive positions; `measure`, `EntropyAnchor` and `penalty_coefficient` determine how strongly their
entropy is kept above its floor; `entropy_term` is the term that a micro-batch adds to its policy loss. A `Method` is
PAEC or any other entropy method: `paec_loss.methods` has one file for each, `MethodStack` combines several. The library
knows nothing of trainers: batches, ranks and checkpoints belong to the caller. Methods and their fields do not import
torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from paec_loss.batch import Clip, Rollouts, Tokens, Update
from paec_loss.calibration import (
    EntropyAnchor,
    Measurement,
    entropy_term,
    measure,
    penalty_coefficient,
    penalty_value,
    regularized_entropy,
)
from paec_loss.method import BatchMethod, Method, Sampling, Tracker, clipped_surrogate
from paec_loss.methods.paec import PAEC
from paec_loss.position import (
    competition,
    mask_from_score,
    normalized_entropy,
    position_mask,
    position_score,
    position_threshold,
)
from paec_loss.randomness import token_uniform
from paec_loss.stack import MethodStack
from paec_loss.summary import position_summary

__version__ = "0.1.0"
"""Version of the package; `setup.py` reads it here."""

if TYPE_CHECKING:
    from paec_loss.linear import linear_token_statistics
    from paec_loss.statistics import TokenStatistics, token_statistics

__all__ = [
    "BatchMethod",
    "Clip",
    "Method",
    "MethodStack",
    "Rollouts",
    "Sampling",
    "Tokens",
    "Tracker",
    "Update",
    "clipped_surrogate",
    "token_uniform",
    "EntropyAnchor",
    "Measurement",
    "PAEC",
    "PAECConfig",
    "TokenStatistics",
    "competition",
    "entropy_term",
    "linear_token_statistics",
    "mask_from_score",
    "measure",
    "normalized_entropy",
    "penalty_coefficient",
    "penalty_value",
    "position_mask",
    "position_score",
    "position_summary",
    "position_threshold",
    "regularized_entropy",
    "token_statistics",
]

PAECConfig = PAEC
"""The same class: PAEC's fields are the `config` argument of this library's functions."""

_AT_FIRST_USE = {"TokenStatistics": "statistics", "linear_token_statistics": "linear", "token_statistics": "statistics"}
"""Name -> its module, which defines autograd functions and so imports torch."""


def __getattr__(name: str) -> Any:
    if name not in _AT_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_AT_FIRST_USE[name]}"), name)
