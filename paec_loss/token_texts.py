"""The text of every single token."""

from __future__ import annotations

from typing import Any


def token_pieces(ids: list[list[int]], tokenizer: Any) -> list[list[str]]:
    """The text of every single token, decoded once per distinct id; a part of a character is U+FFFD.

    Each is decoded after another token, because some tokenizers drop the space at the beginning of a text.
    """
    before = tokenizer.encode("a", add_special_tokens=False)
    start = len(tokenizer.decode(before))
    text = {i: tokenizer.decode([*before, i])[start:] for i in set().union(*ids)}
    return [[text[i] for i in row] for row in ids]
