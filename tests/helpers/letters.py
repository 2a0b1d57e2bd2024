"""A tokenizer for tests that need texts of a few tokens."""

from __future__ import annotations


class Letters:
    """A tokenizer: token 0 is a, 1 is b, ..."""

    def encode(self, text, add_special_tokens):
        return [ord(letter) - ord("a") for letter in text]

    def decode(self, ids, skip_special_tokens=False):
        return "".join(chr(ord("a") + int(i)) for i in ids)
