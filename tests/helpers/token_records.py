"""Token records with made-up statistics that fit together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from recipe.paec.run import token_record
from recipe.paec.run.token_record import RecordedResponse, TokenRecord

WORDS = ("So", " the", " sum", " of", " 3", " +", " 4", " is", " 7", ".", "\n\n", " But", " wait", ",", " let", " me")
VOCABULARY = 64


def response_of(
    uid: str, length: int, seed: int = 0, score: float = 1.0, advantage: float = 0.5, texts: Sequence[str] | None = None
) -> RecordedResponse:
    """A response of `length` tokens; its statistics are those of random distributions, of nucleus 0.8."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(length, VOCABULARY)) * random.uniform(0.5, 8, size=(length, 1))
    ids = random.integers(0, len(WORDS), length)
    return RecordedResponse(
        uid=uid,
        input=f"prompt of {uid.rsplit('_', 2)[0]}",
        score=score,
        prompt_ids=np.array([1, 2, 3], np.int32),
        ids=ids.astype(np.int32),
        texts=tuple(texts) if texts is not None else tuple(WORDS[i] for i in ids),
        response_mask=np.ones(length, bool),
        advantages=np.full(length, advantage, np.float32),
        **statistics_of(logits, ids, 0.8),
    )


def reported(response: RecordedResponse, differences: Sequence[float]) -> RecordedResponse:
    """The same response where vLLM's log-probs are the actor's plus these, NaN where a tool wrote the token."""
    values = response.statistics["log_prob"] + np.asarray(differences, np.float32)
    return replace(response, rollout_log_prob=values)


def statistics_of(logits: np.ndarray, ids: np.ndarray, top_p: float) -> dict:
    """`nucleus_size` and `statistics` of rows of logits [T, V], in NumPy."""
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    p = np.exp(log_p)
    order = np.sort(p, -1)[:, ::-1]
    size = 1 + (order.cumsum(-1)[:, :-1] < top_p).sum(-1)
    inside = np.arange(p.shape[1]) < size[:, None]
    mass = (order * inside).sum(-1)
    within = np.where(inside, order / mass[:, None], 1.0)
    columns = {
        "log_prob": log_p[np.arange(len(ids)), ids],
        "entropy": -(p * log_p).sum(-1),
        "nucleus_entropy": -(within * np.log(within)).sum(-1),
        "nucleus_mass": mass,
        "top1_log_prob": np.log(order[:, 0]),
        "top2_log_prob": np.log(order[:, 1]),
    }
    statistics = {name: values.astype(np.float32) for name, values in columns.items()}
    return {"nucleus_size": size.astype(np.int32), "statistics": statistics}


def record_of(step: int = 1, responses: Sequence[RecordedResponse] | None = None, **about) -> TokenRecord:
    """A record; without `responses`, of two prompts with two responses each, a right and a wrong one."""
    if responses is None:
        responses = [
            response_of(f"{step:06d}-{p:06d}_{n}_0", 30 + 5 * n, 10 * step + 2 * p + n, 1.0 - n, 1.0 - 2 * n)
            for p in range(2)
            for n in range(2)
        ]
    fields = {"vocab_size": VOCABULARY, "top_p": 0.8, "temperature": 1.0, "seed": 1, **about}
    return TokenRecord(step=step, responses=tuple(responses), **fields)


def validation_of(step: int) -> TokenRecord:
    """The record of the validation after `step`: two prompts, each with the same name at every step."""
    responses = [
        replace(response_of(f"validation-countdown-{index}_0_0", 20 + index, step + index, score), advantages=None)
        for index, score in ((3, 1.0), (8, 0.0))
    ]
    return record_of(step, responses, validation=True)


def write_recorded_run(
    folder: Path, *records: TokenRecord, method: dict | None = None, also: dict | None = None
) -> Path:
    """A run directory with these records and the part of a configuration that `paec tokens` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "run": {"name": folder.name, "experiment": "tiny_cpu"},
        "seed": 1,
        "method": method or {"_target_": "paec_loss.methods.paec.PAEC"},
        "also": also or {},
        "actor_rollout_ref": {
            "actor": {"clip_ratio_low": 0.2, "clip_ratio_high": 0.2, "clip_ratio_c": 3.0},
            "rollout": {"temperature": 1.0},
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    for record in records:
        token_record.write(folder, record)
    return folder
