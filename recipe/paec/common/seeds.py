"""The sampling seed of every response, computed from what identifies the response, so nothing else can change it."""

from __future__ import annotations

import hashlib
import json


def response_seed(seed: int, *key: str | int) -> int:
    """A seed in [0, 2^32) for one response: the first four bytes of the SHA-256 of the JSON list `[seed, *key]`.

    Args:
        seed: seed of the run or evaluation.
        key: identifies the response. In an evaluation: benchmark, problem, sample; in training: see `rollout_seed`.
    """
    digest = hashlib.sha256(json.dumps([seed, *key]).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def rollout_seed(
    seed: int, validate: bool, step: int, data_source: str, index: int, sample: int, earlier: int = 0
) -> int:
    """`response_seed` of a response that a training run draws, for training or for validation.

    Args:
        seed: `actor_rollout_ref.rollout.seed`.
        validate: whether it belongs to a validation.
        step: the trainer step for which it is drawn.
        data_source, index: the prompt's row; `index` is `extra_info.index`.
        sample: which of the prompt's responses, from 0.
        earlier: how often the row was drawn for this step before.
    """
    key = (data_source, index, sample, earlier) if earlier else (data_source, index, sample)
    return response_seed(seed, "validation" if validate else "train", step, *key)
