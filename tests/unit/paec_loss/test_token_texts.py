"""The text of single tokens, from token ids."""

from __future__ import annotations

import pytest

from data_prep import tiny_model
from paec_loss.token_texts import token_pieces


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("pieces") / "model"
    tiny_model.build(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_pieces_joined_are_the_text(tokenizer):
    texts = ["So 3 + 4 = 7.\n\nWait, let me check", " leading space", ""]
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    pieces = token_pieces(ids, tokenizer)
    assert ["".join(row) for row in pieces] == texts
    assert [len(row) for row in pieces] == [len(row) for row in ids] and len(pieces[0]) > 10


def test_a_part_of_a_character_is_the_replacement_character(tokenizer):
    (row,) = token_pieces([tokenizer.encode("a\u00e4", add_special_tokens=False)], tokenizer)
    assert row == ["a", "\ufffd", "\ufffd"]


class Stripping:
    """As SentencePiece does: a text's first space is dropped."""

    words = {1: "a", 2: " wait", 3: ","}

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return [1]

    def decode(self, ids: list[int]) -> str:
        return "".join(self.words[i] for i in ids).removeprefix(" ")


def test_the_space_before_a_word_is_kept():
    assert token_pieces([[2, 3], [2]], Stripping()) == [[" wait", ","], [" wait"]]
