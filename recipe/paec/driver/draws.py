"""The prompts that a run has drawn for each trainer step: their names, and which rows were drawn again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from recipe.paec.common.errors import UserError


class Draws:
    """Counts what is drawn for a step: its own batch first, then prompts in place of filtered ones.

    Args:
        filtered: whether prompts without different scores are replaced (`algorithm.filter_groups.enable`).
        in_parts: whether a batch is drawn in several parts (`data.gen_batch_size`), the last of which may be of the
            next epoch.
    """

    def __init__(self, filtered: bool, in_parts: bool = False):
        self._filtered, self._repeats = filtered, filtered or in_parts
        self._prompts: Counter[int] = Counter()
        self._rows: tuple[int, Counter[tuple[str, int]]] = (0, Counter())
        self._begun: set[int] = set()
        self._replaced: Counter[int] = Counter()

    def ask(self, step: int, count: int | None, epoch: int) -> None:
        """Before `count` more prompts are drawn for `step`; None: the step's own batch. An epoch has `epoch` prompts.

        Raises:
            UserError: a whole epoch of further prompts has not given enough of them.
        """
        if count is None:
            self._begun.add(step)
        elif self._filtered and step in self._begun:  # before its batch, an asynchronous run draws in advance
            if self._replaced[step] >= epoch:
                raise UserError(
                    f"algorithm.filter_groups.enable=true: step {step} has drawn {self._prompts[step]} prompts from a "
                    f"file of {epoch}, and too few of them have responses of different scores: set it to false, or "
                    "raise actor_rollout_ref.rollout.n"
                )
            self._replaced[step] += count

    def names(self, step: int, count: int) -> list[str]:
        """Names of the next `count` prompts of a step: sorted, they are in the order in which they were drawn."""
        first = self._prompts[step]
        self._prompts[step] += count
        return [f"{step:06d}-{place:06d}" for place in range(first, first + count)]

    def earlier(self, step: int, sources: Iterable[str], indices: Iterable[int]) -> list[int]:
        """How often each row was drawn before for the same step; 0 where none can come again."""
        if step != self._rows[0]:
            self._rows = (step, Counter())
        drawn, found = self._rows[1], []
        for source, index in zip(sources, indices, strict=True):
            found.append(drawn[source, int(index)] if self._repeats else 0)
            drawn[source, int(index)] += 1
        return found
