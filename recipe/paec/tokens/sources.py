"""What a page reads: responses, and for each the statistics of its tokens under one policy or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paec_loss import Rollouts, TokenStatistics
from recipe.paec.common.errors import UserError
from recipe.paec.common.folder_kinds import no_lab
from recipe.paec.common.queue_keys import prompt_of, response_number
from recipe.paec.run import token_record
from recipe.paec.run.token_record import STATISTICS, RecordedResponse, TokenRecord


@dataclass(frozen=True)
class Response:
    """One response on a page; T tokens."""

    key: str
    """Its key in the queue, or a name: responses with equal text before the last two `_` are a group."""
    step: int | None
    prompt: str
    score: float | None
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    texts: tuple[str, ...]
    response_mask: tuple[bool, ...]
    advantages: tuple[float, ...] | None
    """Of the estimator; None if they are not known, as in a validation."""

    @property
    def group(self) -> str:
        """The prompt's key."""
        return prompt_of(self.key)


@dataclass(frozen=True)
class Candidates:
    """The most likely tokens of each place, [T, K] each."""

    ids: np.ndarray
    log_probs: np.ndarray
    texts: Mapping[int, str]
    """Token id -> its text."""


@dataclass(frozen=True)
class Source:
    """One policy's statistics of some responses, which are one mini-batch."""

    label: str
    rows: tuple[int, ...]
    """Numbers of these responses on the page."""
    statistics: Mapping[float, TokenStatistics]
    """Mass of the nucleus -> statistics [B, R], zeros at padding."""
    step: int
    """For methods that draw lots."""
    seed: int
    candidates: tuple[Candidates, ...] = ()
    """For each row, or empty if they are not known."""
    note: str = ""
    """What of the statistics is not as in training."""
    rollout_log_prob: torch.Tensor | None = None
    """[B, R] what vLLM reported for the tokens that it drew, NaN elsewhere; None if it is not known."""


def records(run: Path, steps: Sequence[int], validation: bool = False) -> list[TokenRecord]:
    """The records of a run's steps, or of the validations after them; UserError if there is none.

    Args:
        run: its directory.
        steps: empty: the last one that is recorded.
        validation: whether those of the validations are wanted.
    """
    there = token_record.steps(run, validation)
    if not run.is_dir():
        raise UserError(f"{run}: does not exist: give the directory of a run")
    no_lab(run, "token records")
    if not there and validation:
        raise UserError(
            f"{run}: has no token record of a validation ({token_record.VALIDATION}/): it was started with "
            "run.record_tokens=0, or has not finished a step after one; leave validation=true out for those of the "
            "training"
        )
    if not there:
        raise UserError(
            f"{run}: has no token record (tokens/): it was started with run.record_tokens=0, or has not finished a step"
        )
    for step in steps:
        if step not in there:
            raise UserError(
                f"{run}: {label_of(step, validation)} was not recorded, or its record was deleted (docs/tokens.md); it "
                f"has {_ranges(there)}"
            )
    wanted = dict.fromkeys(steps or there[-1:])
    return [token_record.read(token_record.path_of(run, step, validation)) for step in wanted]


def label_of(step: int, validation: bool) -> str:
    """The name of a record on a page."""
    return f"validation after step {step}" if validation else f"step {step}"


def _ranges(steps: Sequence[int]) -> str:
    if len(steps) <= 8:
        return ", ".join(map(str, steps))
    return f"{', '.join(map(str, steps[:3]))}, ... {', '.join(map(str, steps[-3:]))}"


def responses_of(record: TokenRecord, limit: int) -> list[Response]:
    """The first `limit` responses of a record."""
    return [_response(record.step, one) for one in record.responses[:limit]]


def _response(step: int, one: RecordedResponse) -> Response:
    return Response(
        key=one.uid,
        step=step,
        prompt=one.input,
        score=one.score,
        prompt_ids=tuple(one.prompt_ids.tolist()),
        ids=tuple(one.ids.tolist()),
        texts=one.texts,
        response_mask=tuple(one.response_mask.tolist()),
        advantages=None if one.advantages is None else tuple(one.advantages.tolist()),
    )


def source_of(record: TokenRecord, first: int, limit: int) -> Source:
    """The recorded statistics of the first `limit` responses, which are numbers `first`, ... of the page."""
    chosen = record.responses[:limit]
    columns = {name: [torch.from_numpy(one.statistics[name]) for one in chosen] for name in STATISTICS}
    sizes = [torch.from_numpy(one.nucleus_size).long() for one in chosen]
    statistics = padded({**columns, "nucleus_size": sizes}, record.vocab_size)
    return Source(
        label=label_of(record.step, record.validation),
        rows=tuple(range(first, first + len(chosen))),
        statistics={record.top_p: statistics},
        step=record.step,
        seed=record.seed,
        note="quantiles and means over the mini-batch are those of the recorded responses on this page",
        rollout_log_prob=_reported(chosen),
    )


def _reported(responses: Sequence[RecordedResponse]) -> torch.Tensor | None:
    rows = [torch.from_numpy(one.rollout_log_prob) for one in responses if one.rollout_log_prob is not None]
    if len(rows) < len(responses):
        return None
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=torch.nan)


def padded(columns: Mapping[str, Sequence[torch.Tensor]], vocab_size: int) -> TokenStatistics:
    """Rows of different lengths as statistics [B, R], zeros at padding; at least one row."""
    wide = {name: torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True) for name, rows in columns.items()}
    return TokenStatistics(**wide, vocab_size=vocab_size)


def rollouts_of(source: Source, statistics: TokenStatistics, page: Sequence[Response]) -> tuple[Rollouts, torch.Tensor]:
    """(what the hooks of a method see, [B] numbers of the responses) of a source with one of its nuclei."""
    rows = [page[number] for number in source.rows]
    width = statistics.entropy.shape[1]

    def wide(values: Sequence[Sequence[Any]], dtype: torch.dtype) -> torch.Tensor:
        out = torch.zeros(len(values), width, dtype=dtype)
        for row, one in zip(out, values, strict=True):
            row[: len(one)] = torch.tensor(one, dtype=dtype)
        return out

    advantages = [row.advantages for row in rows]
    scores = [row.score for row in rows]
    rollouts = Rollouts(
        statistics=statistics,
        response_mask=wide([row.response_mask for row in rows], torch.bool),
        group_id=torch.tensor([response_number(row.group) for row in rows]),
        step=source.step,
        seed=source.seed,
        tokens=wide([row.ids for row in rows], torch.int64),
        rewards=None if None in scores else torch.tensor(scores, dtype=torch.float32),
        advantages=None if None in advantages else wide(advantages, torch.float32),
        text=["".join(row.texts) for row in rows],
        token_texts=[list(row.texts) for row in rows],
    )
    return rollouts, torch.tensor([response_number(row.key) for row in rows])
