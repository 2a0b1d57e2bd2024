"""Spans of text among tokens: borders inside a token, tokens without text, several tokens."""

from __future__ import annotations

from dataclasses import replace

import torch
from batches import rollouts_of

from paec_loss.pieces import own_tokens, token_spans


def test_what_tools_wrote_is_not_the_policys():
    rollouts = rollouts_of([1.0] * 3, [0] * 3, [[-1.0] * 4, [], [-1.0]], token_texts=[[*"abcd"], [], [*"ef"]])
    mask = torch.tensor([[False, True, False, True], [False] * 4, [True, False, False, False]])
    found = own_tokens(replace(rollouts, response_mask=mask))
    assert [(pieces, columns.tolist()) for pieces, columns in found] == [(["b", "d"], [1, 3]), ([], []), (["e"], [0])]


def test_by_hand():
    pieces = ["ab", "", "c", "def", "g"]  # characters 0-1, none, 2, 3-5, 6
    spans = [(0, 2), (0, 1), (1, 3), (2, 3), (3, 4), (5, 7), (0, 7)]
    assert token_spans(pieces, spans) == [(0, 1), (0, 1), (0, 3), (2, 3), (3, 4), (3, 5), (0, 5)]
    assert token_spans([], []) == []


def test_against_a_list_of_owners():
    pieces = ["x", "yz", "", "", "longer piece", ".", "\n\n", "", "end", ""]
    owner = [i for i, piece in enumerate(pieces) for _ in piece]
    for start in range(len(owner)):
        for end in range(start + 1, len(owner) + 1):
            assert token_spans(pieces, [(start, end)]) == [(owner[start], owner[end - 1] + 1)]
