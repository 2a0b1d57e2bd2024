"""Problems, their grading by the pipeline's graders, and the validation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas
import torch
from transformers import AutoTokenizer

from data_prep import countdown as countdown_data
from data_prep.files import WARM_START_FILE
from recipe.grading import countdown, sources
from recipe.grading.extract import extract
from recipe.grading.pool import GraderPool, Verdict
from recipe.lab.policy import Policy, Prompts
from recipe.lab.sampling import Sampled, sample
from recipe.paec.common.errors import UserError
from recipe.paec.common.queue_keys import response_number
from recipe.paec.scoring.estimators import majority
from recipe.paec.scoring.scores import validation_metrics
from recipe.paec.scoring.verdicts import SampleVerdict

REMEMBERED = 2**16
"""Verdicts that are kept: responses repeat, and the library takes 0.6 ms for a countdown expression."""
AT_ONCE = 512
"""Responses of a validation that are sampled together."""
HIGH = 2.0
"""Nats. A token above it is not a choice between a few: e^2 equally likely tokens are more than seven."""


@dataclass(frozen=True)
class Problem:
    """One row of a prepared data set."""

    ids: tuple[int, ...]
    """The prompt's token ids, chat template applied."""
    source: str
    truth: str
    training: bool
    """Graded by the strict rule alone, where the source has several."""


@dataclass(frozen=True)
class Validated:
    """What a validation found."""

    metrics: dict[str, float]
    correct: list[int]
    """Correct responses to each problem."""
    distinct: list[int]
    """Different correct answers to each problem; of countdown, expressions: `7+5-2` and `5+7-2` are two."""
    solutions: list[int] | None
    """Of countdown, the same up to order and brackets: those are one; None of another task."""
    majority: list[bool] | None
    """Whether the answer that most responses give is right; None where answers are expressions."""


class Task:
    """A folder's data and tokenizer.

    Raises:
        UserError: a prompt that leaves no room for a response of `length` tokens.
    """

    def __init__(self, folder: Path, positions: int, length: int):
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "model", trust_remote_code=False)
        self.train, self.validation = (
            self._problems(folder / f"data/{part}.parquet") for part in ("train", "validation")
        )
        self.held_out = self._held_out(folder / "data" / WARM_START_FILE)
        longest = max(len(problem.ids) for problem in (*self.train, *self.validation, *self.held_out))
        if longest + length > positions:
            raise UserError(
                f"data.max_response_length={length}: with the longest prompt of {longest} tokens it exceeds the "
                f"model's {positions} positions: lower it"
            )
        self.end = torch.zeros(len(self.tokenizer), dtype=torch.bool)
        generation = json.loads((folder / "model/generation_config.json").read_text(encoding="utf-8"))
        self.end[generation["eos_token_id"]] = True
        self._pool = GraderPool(workers=1)
        self._judge = lru_cache(REMEMBERED)(self._pool.judge)

    def _problems(self, file: Path) -> list[Problem]:
        return [self.problem(row) for row in pandas.read_parquet(file).to_dict("records")]

    def _held_out(self, file: Path) -> list[Problem]:
        """The countdown problems that neither the warm start nor RL trains on; none for another task."""
        lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []
        found = [line for line in lines if line["split"] == "held_out" and "target" in line]
        pool = [countdown_data.Problem(tuple(line["numbers"]), line["target"]) for line in found]
        return [self.problem(row) for row in countdown_data.rows(pool, "test")]

    def problem(self, row: Mapping[str, Any]) -> Problem:
        """A row of a prepared data set, tokenized."""
        ids = self.tokenizer.apply_chat_template(
            list(row["prompt"]), add_generation_prompt=True, tokenize=True, return_dict=False
        )
        training = row["extra_info"].get("split") == "train"
        return Problem(tuple(ids), row["data_source"], row["reward_model"]["ground_truth"], training)

    def drawn(self, seed: int, first: int, count: int) -> list[Problem]:
        """Training problems number `first` to `first + count - 1`; each epoch has an order of its own."""
        found = []
        for place in range(first, first + count):
            epoch, index = divmod(place, len(self.train))
            found.append(self.train[_order(seed, epoch, len(self.train))[index]])
        return found

    def texts(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The responses as graders read them."""
        return self.tokenizer.batch_decode(rows, skip_special_tokens=True)

    def verdicts(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
        """One verdict for each response text; `problems` has its problem at the same place."""
        return [
            self._judge(p.source, shortened(p, text), p.truth, p.training)
            for p, text in zip(problems, texts, strict=True)
        ]

    def answer_ids(self, problems: Sequence[Problem], verdicts: Sequence[Verdict]) -> torch.Tensor:
        """[B] class of each response's answer among those to its problem; without an answer, a class of its own."""
        rows: dict[int, list[int]] = {}
        for row, problem in enumerate(problems):
            rows.setdefault(id(problem), []).append(row)
        found = self._pool.answer_ids(
            rows.values(), [problem.source for problem in problems], [verdict.answer for verdict in verdicts]
        )
        return torch.tensor(found)

    def validate(
        self, policy: Policy, samples: int, length: int, temperature: float, seed: int, step: int, split: str
    ) -> Validated:
        """The pipeline's metrics, and counts; of countdown without the majority vote, which would take long.

        They are `val/<source>/...` for split="validation", `held_out/<source>/...` for split="held_out".
        In addition distinct@n and solutions@n, the different correct answers to a problem (`Validated`); entropy, the
        mean over response tokens (nats, at temperature 1), and entropy_high, the part of that mean which is at tokens
        above HIGH.
        """
        asked: list[Problem] = getattr(self, split)
        n = len(asked)
        texts: list[str] = []
        entropies: dict[str, list[torch.Tensor]] = {}
        for part, drawn in self.drawn_by(policy, samples, length, temperature, seed, step, split):
            texts += self.texts(rows_of(drawn.tokens.flatten(0, 1), drawn.inside.flatten(0, 1)))
            for place, problem in enumerate(part):
                log_probs = drawn.logits[place][drawn.inside[place]].log_softmax(-1)
                entropies.setdefault(problem.source, []).append(-(log_probs.exp() * log_probs).sum(-1))
        verdicts = self.verdicts([problem for problem in asked for _ in range(samples)], texts)
        of_problem = [verdicts[row * samples : (row + 1) * samples] for row in range(n)]
        groups = self._groups(asked, of_problem)
        classes = [None] * len(verdicts) if groups is None else [*chain.from_iterable(groups)]
        found = validation_metrics(
            [problem.source for problem in asked for _ in range(samples)],
            [str(row) for row in range(n) for _ in range(samples)],
            [SampleVerdict(v.correct, v.strict, group, v.status) for v, group in zip(verdicts, classes, strict=True)],
            problems=Counter(problem.source for problem in asked),
            samples=samples,
        )
        if groups is None:
            found = {name: value for name, value in found.items() if "/maj@" not in name}
        correct = [[v.correct for v in group] for group in of_problem]
        answers = [expressions_of(group) for group in of_problem]
        distinct, solutions = [len(different) for different in answers], None
        if all(problem.source == countdown.DATA_SOURCE for problem in asked):
            solutions = [len({countdown.solution(answer) for answer in different}) for different in answers]
        votes = None if groups is None else [majority(g, c) for g, c in zip(groups, correct, strict=True)]
        for source, values in entropies.items():
            rows = [row for row, problem in enumerate(asked) if problem.source == source]
            found[f"val/{source}/distinct@{samples}"] = fmean(distinct[row] for row in rows)
            if solutions is not None:
                found[f"val/{source}/solutions@{samples}"] = fmean(solutions[row] for row in rows)
            every = torch.cat(values).double()
            found[f"val/{source}/entropy"] = every.mean().item()
            found[f"val/{source}/entropy_high"] = torch.where(every > HIGH, every, 0.0).mean().item()
        if split != "validation":
            found = {f"{split}/{name.partition('/')[2]}": value for name, value in found.items()}
        return Validated(found, [sum(c) for c in correct], distinct, solutions, votes)

    def drawn_by(
        self, policy: Policy, samples: int, length: int, temperature: float, seed: int, step: int, split: str
    ) -> Iterator[tuple[list[Problem], Sampled]]:
        """The responses of a validation, AT_ONCE of them at a time, with their problems."""
        asked, generator = getattr(self, split), generator_of(seed, step, split)
        size = max(1, AT_ONCE // samples)
        for first in range(0, len(asked), size):
            part = asked[first : first + size]
            prompts, temperatures = Prompts.of([p.ids for p in part]), torch.full((len(part),), temperature)
            yield part, sample(policy, prompts, samples, length, temperatures, self.end, generator)

    def _groups(
        self, problems: Sequence[Problem], verdicts: Sequence[Sequence[Verdict]]
    ) -> list[list[int | None]] | None:
        """Classes of equal answers to each problem; None of countdown, where that takes longer than all the rest."""
        if any(problem.source == countdown.DATA_SOURCE for problem in problems):
            return None
        answers = ((p.source, [v.answer for v in of]) for p, of in zip(problems, verdicts, strict=True))
        return self._pool.groups(answers)


def expressions_of(verdicts: Sequence[Verdict]) -> set[str]:
    """The different correct answers of a problem's responses, blanks left out."""
    return {v.answer.replace(" ", "") for v in verdicts if v.correct}


def rows_of(tokens: torch.Tensor, inside: torch.Tensor) -> list[list[int]]:
    """Token ids of each response, padding left out; [B, R] both."""
    return [row[:length] for row, length in zip(tokens.tolist(), inside.sum(-1).tolist(), strict=True)]


def generator_of(seed: int, step: int, purpose: str) -> torch.Generator:
    """Random numbers that are a function of seed, step and purpose."""
    return torch.Generator().manual_seed(response_number(f"{purpose}-{seed}-{step}"))


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, size: int) -> list[int]:
    return torch.randperm(size, generator=generator_of(seed, epoch, "order")).tolist()


def shortened(problem: Problem, text: str) -> str:
    """A shorter text with the same answer, so that more verdicts are known.

    Of a countdown response what follows the last ';', of a mathematical one its answer in a box.
    """
    if problem.source == countdown.DATA_SOURCE:
        return text[text.rfind(";") :]
    if sources.kind(problem.source) == "math" and (answer := extract(text)) is not None:
        boxed = f"\\boxed{{{answer}}}"
        return boxed if extract(boxed) == answer else text
    return text
