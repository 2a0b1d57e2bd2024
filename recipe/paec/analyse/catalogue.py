"""The analyses by name: what each makes of a source, and how its results are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recipe.paec.analyse import (
    answers,
    difficulty,
    entropy_change,
    entropy_law,
    planning,
    support,
    token_groups,
    utility,
)
from recipe.paec.analyse.pairs import Pair, pairs_of
from recipe.paec.analyse.sampled import Policy
from recipe.paec.analyse.sources import Source
from recipe.paec.common.errors import UserError

Results = list[dict[str, Any]]


@dataclass(frozen=True)
class Analysis:
    """One analysis."""

    title: str
    note: str
    """Printed below its table."""
    of_source: Callable[[Source, Mapping[str, Policy], list[str]], Results]
    """(source, base policies by benchmark, list that gets a sentence for what is missing) -> results."""
    table: Callable[[Sequence[Mapping[str, Any]]], str]
    """Results -> Markdown."""
    needs_answers: bool = False
    """Whether equal answers of a run's validations have to be grouped."""
    needs_model: bool = False
    """Whether a model has to read the responses: only with `--model`."""


def _pairs(name: str, source: Source, base: Mapping[str, Policy], remarks: list[str]) -> list[Pair]:
    if not source.series:
        remarks.append(f"{source.name}: {name}: needs samples: give an evaluation, or a run with validations")
    return pairs_of(source, base, remarks)


def _support(source: Source, base: Mapping[str, Policy], remarks: list[str]) -> Results:
    return [support.analyse(pair) for pair in _pairs("support", source, base, remarks)]


def _difficulty(source: Source, base: Mapping[str, Policy], remarks: list[str]) -> Results:
    found = []
    for pair in _pairs("difficulty", source, base, remarks):
        try:
            found.append(difficulty.analyse(pair))
        except UserError as error:
            remarks += error.errors
    return found


def _utility(source: Source, base: Mapping[str, Policy], remarks: list[str]) -> Results:
    if source.score is None:
        raise UserError("utility: needs a model that reads the responses: give --model")
    return source.score(source, remarks)


INTERVAL = "[low, high]: 95 % bootstrap over problems."

ANALYSES = {
    "support": Analysis(
        "Support",
        f"{INTERVAL} A problem is solved with k samples if one is right. SRR: kept share of what the base solves; NDR: "
        "new share of what the trained policy solves; SDS: their harmonic mean; NSCR: (new - lost) / solved by either. "
        "A right answer of probability p is seen in k samples with 95 % if p is at least the third column. NDR by "
        "chance: the base against itself. p: exact sign test of new against lost.",
        _support,
        support.table,
    ),
    "entropy_law": Analysis(
        "Entropy law",
        "R = -a e^H + b, R validation accuracy and H token entropy (nats), fitted to the first two thirds of the "
        "validations. Errors: mean absolute, on the other validations, of the law, which is given their entropy, and "
        "of the fit's last accuracy; gain: the second minus the first. [low, high]: 95 % bootstrap over problems, "
        "where the run has their counts.",
        lambda source, base, remarks: entropy_law.of_source(source, remarks),
        entropy_law.table,
    ),
    "answers": Analysis(
        "Answers",
        f"{INTERVAL} (problems x samples). Token entropy: nats, of the same policy, where the run's metrics have it. "
        "Answer entropy: nats, over classes of equivalent answers, a sample without an answer being one of its own; "
        "distinct: different answers to a problem.",
        lambda source, base, remarks: answers.of_source(source, remarks),
        answers.table,
        needs_answers=True,
    ),
    "difficulty": Analysis(
        "Difficulty",
        f"{INTERVAL} One half of the base's samples chooses a problem's bin, the other half is its accuracy there; "
        "means over all halves, so the numbers of problems are expected ones (bins with less than 1: in the JSON). "
        "Same samples: all choose and count, which is biased towards falling at easy problems and rising at hard ones.",
        _difficulty,
        difficulty.table,
        needs_answers=True,
    ),
    "planning": Analysis(
        "Planning",
        f"{INTERVAL} (problems x samples). Entropy in nats of the frequencies of K phrases that mark planning, and of "
        "their clusters; per response: occurrences. Of the validation's responses on record: share of tokens within a "
        "phrase, mean entropy there and elsewhere, perplexity, with intervals over prompts.",
        lambda source, base, remarks: planning.of_source(source, remarks),
        planning.table,
    ),
    "tokens": Analysis(
        "Tokens",
        "Of the responses on record (a few prompts of each step). Entropy in nats; covariance: mean of "
        "(A - mean A)(log p - mean log p), means over the step's record. [low, high]: 95 % bootstrap over prompts.",
        lambda source, base, remarks: token_groups.of_source(source),
        token_groups.table,
    ),
    "entropy_change": Analysis(
        "Entropy change",
        "Of actor/entropy from a step's batch to the next one's, against what the step's recorded tokens predict, up "
        "to a positive factor: a predictor that works has a correlation near 1. [low, high]: 95 % bootstrap over "
        "updates.",
        lambda source, base, remarks: entropy_change.of_source(source, remarks),
        entropy_change.table,
    ),
    "utility": Analysis(
        "Reasoning utility",
        f"{INTERVAL} h_j: mean entropy (nats) of the model's distributions over the reference answer's tokens after "
        "the first j of a response's J steps, without the last, which states the answer. Change a step: mean of "
        "h_j - h_(j-1); slope: of a line through h_0 ... h_J; falling: share of steps with h_j < h_(j-1); surprisal: "
        "mean of -log p of the reference's tokens with no step and with all.",
        _utility,
        utility.table,
        needs_model=True,
    ),
}
"""Name -> analysis, in the order of the page."""
