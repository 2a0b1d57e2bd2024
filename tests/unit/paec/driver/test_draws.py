"""What is drawn for a step: names in order, rows that come again, and the end after an epoch of further prompts."""

from __future__ import annotations

import pytest

from recipe.paec.common.errors import UserError
from recipe.paec.driver.draws import Draws


def test_names_go_on_within_a_step():
    draws = Draws(filtered=True)
    assert draws.names(4, 2) == ["000004-000000", "000004-000001"]
    assert draws.names(4, 1) == ["000004-000002"] and draws.names(5, 1) == ["000005-000000"]


def test_a_row_that_comes_again_is_counted_by_step_source_and_index():
    draws = Draws(filtered=True)
    assert draws.earlier(4, ["a", "b", "a"], [1, 1, 1]) == [0, 0, 1]
    assert draws.earlier(4, ["a", "a"], [2, 1]) == [0, 2] and draws.earlier(5, ["a"], [1]) == [0]
    unfiltered = Draws(filtered=False)
    assert [unfiltered.earlier(4, ["a"], [1]) for _ in range(2)] == [[0], [0]], "rows without an index all have 0"
    in_parts = Draws(filtered=False, in_parts=True)
    assert in_parts.earlier(4, ["a", "a", "a"], [7, 8, 7]) == [0, 0, 1], "the last part was of the next epoch"


def test_an_epoch_of_further_prompts_is_the_end():
    """The step's own batch does not count, nor what an asynchronous run draws before it."""
    draws = Draws(filtered=True)
    for count in (9, None, 2, 2):
        draws.ask(4, count, epoch=4)
        draws.names(4, count or 3)
    with pytest.raises(
        UserError, match="enable=true: step 4 has drawn 16 prompts from a file of 4, and too few of them"
    ):
        draws.ask(4, 1, epoch=4)
    for count in (None, 4):
        draws.ask(5, count, epoch=4)


def test_other_replacements_have_no_limit():
    draws = Draws(filtered=False)
    for count in (None, *[4] * 9):
        draws.ask(4, count, epoch=4)
        draws.names(4, count or 3)
    assert draws.names(4, 1) == ["000004-000039"], "after 3 of the batch and 36 in its place"
