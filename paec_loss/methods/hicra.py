"""HICRA: tokens that plan a solution have a larger weight than those that carry it out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from paec_loss import _torch as torch
from paec_loss.batch import Rollouts
from paec_loss.fields import between, words
from paec_loss.method import Method
from paec_loss.pieces import own_tokens, token_spans

if TYPE_CHECKING:
    from torch import Tensor

CATEGORIES = {
    "branching": (
        *("another approach", "let's try a different", "what if we", "one way to", "consider the case where"),
        *("a simpler approach is", "let's consider another case", "on the other hand"),
    ),
    "planning": (
        *("our strategy is", "the plan is to", "break down the problem", "the first step is", "the next step is"),
        *("the key insight is", "the key is to"),
    ),
    "deduction": (
        *("use the fact that", "it follows that", "we can conclude", "this suggests that", "this implies that"),
    ),
    "looking back": (
        *("but wait", "wait, no", "hold on", "on second thought", "let me verify", "let me rethink"),
        *("let's double-check", "let's backtrack", "let's reconsider", "looking back at", "that can't be right"),
        *("there is a mistake", "does this make sense", "the problem mentions", "the problem states"),
        *("the problem asks for",),
    ),
}
"""Phrases that branch, plan, deduce or look back, in the paper's categories."""
PHRASES = tuple(phrase for phrases in CATEGORIES.values() for phrase in phrases)
"""All phrases, without their categories."""


@dataclass(frozen=True)
class HICRA(Method):
    """A_t + alpha |A_t| at the tokens of strategic phrases: credit grows, blame shrinks.

    A phrase is matched in the response's text as complete words, ignoring case; every token that contains a part of it
    counts. The default list is our choice of 36 phrases; the paper mines about 300 and lists them, including single
    words such as "so".
    """

    paper: ClassVar[str] = "HICRA, arXiv 2509.03646, Section 3; phrases: Appendix A"
    on_policy: ClassVar[str] = "the same: it needs no ratio"
    released: ClassVar[str] = (
        "no code by the authors found; the paper's base advantage is R - mean R, here it is the estimator's"
    )
    needs = {"token_texts"}

    alpha: float = between(0, 1, 0.2, "share of the advantage that is added; 0 leaves the advantages unchanged")
    phrases: tuple[str, ...] = words(PHRASES, "phrases that mark planning")

    def advantages(self, rollouts: Rollouts) -> Tensor:
        planning = torch.zeros(rollouts.response_mask.shape, dtype=torch.bool)
        for row, (pieces, columns) in zip(planning, own_tokens(rollouts), strict=True):
            for first, stop in planning_spans(pieces, self.phrases):
                row[columns[first:stop]] = True
        advantages = rollouts.advantages
        amplified = advantages + self.alpha * advantages.abs()
        return rollouts.at_tokens(torch.where(planning.to(advantages.device), amplified, advantages))


def planning_spans(pieces: Sequence[str], phrases: Sequence[str]) -> list[tuple[int, int]]:
    """Tokens [first, stop) of every occurrence of a phrase; `pieces`: the texts of a response's tokens."""
    plain = [plain_text(piece) for piece in pieces]
    return token_spans(plain, occurrences("".join(plain), [plain_text(phrase) for phrase in phrases]))


def plain_text(text: str) -> str:
    """Text as phrases are matched in it: in lower case, with one kind of apostrophe."""
    return text.lower().replace("\u2019", "'")


def occurrences(text: str, phrases: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Characters [start, end) of every occurrence as whole words; text and phrases are in `plain_text` form."""
    for phrase in phrases:
        start = text.find(phrase)
        while start >= 0:
            end = start + len(phrase)
            before, after = text[max(start - 1, 0) : start] + phrase[0], phrase[-1] + text[end : end + 1]
            if not (_inside_word(before) or _inside_word(after)):
                yield start, end
            start = text.find(phrase, start + 1)


def _inside_word(pair: str) -> bool:
    return len(pair) == 2 and pair.isalnum()
