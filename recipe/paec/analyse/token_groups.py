"""Entropy, and covariance of log-prob and advantage, by kind of token: from the token records of training steps.

The kinds are the sign of the advantage (arXiv 2508.02260), the tenth of the response, and the tenth of the record's
tokens by entropy (arXiv 2506.01939).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipe.paec.analyse.intervals import divided, intervals, shown
from recipe.paec.analyse.sources import Source
from recipe.paec.common.errors import UserError
from recipe.paec.run import token_record
from recipe.paec.run.token_record import TokenRecord
from recipe.paec.scoring.display import markdown

TENTHS = 10


@dataclass(frozen=True)
class Tokens:
    """The tokens in the loss of one step's record; [N] float64 each."""

    step: int
    prompt: np.ndarray
    """Number of the prompt."""
    log_prob: np.ndarray
    entropy: np.ndarray
    """Nats, as log_prob."""
    advantage: np.ndarray
    """Of the estimator, before a method's own changes."""
    place: np.ndarray
    """Tenth of the response, 0 to 9."""


def tokens_of(record: TokenRecord) -> Tokens:
    """The tokens of a training step's record.

    Raises:
        UserError: it has no advantages, no token in the loss, or a value of one that is NaN or infinite.
    """
    parts: list[list[np.ndarray]] = []
    names = {name: i for i, name in enumerate(dict.fromkeys(response.group for response in record.responses))}
    for response in record.responses:
        if response.advantages is None:
            raise UserError(f"tokens/{record.step}.parquet, column advantages: is missing: records of training have it")
        mask = response.response_mask
        n = int(mask.sum())
        values = (response.statistics["log_prob"], response.statistics["entropy"], response.advantages)
        place = np.arange(n) * TENTHS // max(n, 1)
        parts.append([np.full(n, names[response.group]), *(np.asarray(v, float)[mask] for v in values), place])
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    if not columns or not len(columns[0]):
        raise UserError(f"tokens/{record.step}.parquet: has no token in the loss: choose another run")
    if problem := not_finite(record, "log_prob", "entropy", "advantages"):
        raise UserError(problem)
    return Tokens(record.step, *columns)


def not_finite(record: TokenRecord, *columns: str) -> str | None:
    """One sentence if one of the columns has a NaN or an infinite value at a token in the loss, else None."""
    for name in columns:
        values = [
            (response.advantages if name == "advantages" else response.statistics[name])[response.response_mask]
            for response in record.responses
        ]
        if wrong := sum(int((~np.isfinite(part)).sum()) for part in values):
            folder = token_record.VALIDATION if record.validation else token_record.FOLDER
            return (
                f"{folder}/{record.step}.parquet, column {name}: {wrong} of {sum(map(len, values))} values are NaN or "
                "infinite: the training had diverged there; look at its earlier steps, or choose another run"
            )
    return None


def covariances(tokens: Tokens) -> np.ndarray:
    """[N] (A - mean A)(log p - mean log p), means over the record's tokens (arXiv 2505.22617)."""
    return (tokens.advantage - tokens.advantage.mean()) * (tokens.log_prob - tokens.log_prob.mean())


def entropy_tenths(entropy: np.ndarray) -> np.ndarray:
    """[N] the tenth of each token by entropy, 0 (least) to 9; of equal ones the first comes first."""
    ranks = np.empty(len(entropy), int)
    ranks[np.argsort(entropy, kind="stable")] = np.arange(len(entropy))
    return ranks * TENTHS // len(entropy)


def kinds_of(tokens: Tokens) -> dict[str, np.ndarray]:
    """Kind of token -> [N] bool, which tokens are of it; each token is of one kind of each of the three families."""
    sign, tenth = np.sign(tokens.advantage), entropy_tenths(tokens.entropy)
    return {
        **{name: sign == value for name, value in (("A > 0", 1), ("A < 0", -1), ("A = 0", 0))},
        **{f"place {i + 1}/{TENTHS}": tokens.place == i for i in range(TENTHS)},
        **{f"entropy {i + 1}/{TENTHS}": tenth == i for i in range(TENTHS)},
    }


def sums(tokens: Tokens) -> dict[str, np.ndarray]:
    """Kind of token -> of each prompt: tokens, and sums of entropy and covariance, of the kind; all tokens, [P, 4]."""
    covariance, found = covariances(tokens), {}
    size = int(tokens.prompt.max()) + 1
    for kind, mask in kinds_of(tokens).items():
        weights = (mask, mask * tokens.entropy, mask * covariance, np.ones(len(mask)))
        found[kind] = np.stack([np.bincount(tokens.prompt.astype(int), w, size) for w in weights], -1)
    return found


def analyse(source: str, records: Sequence[Tokens]) -> dict[str, Any]:
    """Share, mean entropy and mean covariance of each kind of token over some steps, with intervals over prompts.

    Returns:
        source, first_step, last_step, records, prompts, tokens, and `kinds`: name, share, entropy (nats), covariance,
        each {value, low, high}. Kinds without tokens are left out.
    """
    by_step = [sums(tokens) for tokens in records]
    kinds = []
    for kind in by_step[0]:
        values = np.concatenate([found[kind] for found in by_step])
        if values[:, 0].any():
            share, entropy, covariance = intervals(
                values,
                lambda m: np.concatenate([divided(m[..., :1], m[..., 3:]), divided(m[..., 1:3], m[..., :1])], -1),
            )
            kinds.append({"name": kind, "share": share, "entropy": entropy, "covariance": covariance})
    return {
        **{"source": source, "first_step": records[0].step, "last_step": records[-1].step, "records": len(records)},
        "prompts": sum(len(found["A > 0"]) for found in by_step),
        "tokens": sum(len(tokens.entropy) for tokens in records),
        "kinds": kinds,
    }


def read_tokens(source: Source, what: str) -> list[Tokens]:
    """The records of a run's training steps, in order; UserError, naming the analysis `what`, without any."""
    steps = token_record.steps(source.path) if source.path.is_dir() else []
    if not steps:
        raise UserError(f"{source.name}: {what}: needs tokens/STEP.parquet: train with run.record_tokens=4 or more")
    return [tokens_of(token_record.read(token_record.path_of(source.path, step))) for step in steps]


def of_source(source: Source) -> list[dict[str, Any]]:
    """The first and the second half of a run's recorded steps; of a single step only that."""
    records = read_tokens(source, "tokens")
    half = (len(records) + 1) // 2
    return [analyse(source.name, part) for part in (records[:half], records[half:]) if part]


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The results as Markdown, a row for each kind of token."""
    rows = []
    for result in results:
        steps = f"{result['first_step']} - {result['last_step']}"
        name = f"{result['source']}, steps {steps} ({result['records']} recorded, {result['prompts']} prompts)"
        for kind in result["kinds"]:
            rows.append([name, kind["name"], *(shown(kind[value]) for value in ("share", "entropy", "covariance"))])
            name = ""
    return markdown([["run", "tokens", "share", "entropy", "covariance"], *rows])
