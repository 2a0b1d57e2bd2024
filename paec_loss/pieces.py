"""Finds the tokens of a response that contain a piece of text."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate


def token_spans(pieces: Sequence[str], spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Tokens [first, stop) that contain each span [start, end) of characters, start < end, of the joined pieces.

    A token that contains only a part of the span belongs to it.
    """
    ends = list(accumulate(map(len, pieces)))
    return [(bisect_right(ends, start), bisect_left(ends, end) + 1) for start, end in spans]
