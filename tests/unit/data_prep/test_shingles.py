"""Tokens of a text, the formal ones and the numbers among them."""

import pytest

from data_prep.shingles import formal, numbers, tokens


def test_tokens():
    assert tokens("Let $x_1 \\le \\tfrac12$; find  the LARGEST\n$x$-value!") == (
        ["let", "x", "1", "\\le", "1", "/", "2", "find", "the", "\\max", "x", "value"]
    )
    assert tokens("f'(n) = n!, a 5-digit number (1,000 of 3,25) Wow!") == (
        [
            "f",
            "'",
            "(",
            "n",
            ")",
            "=",
            "n",
            "!",
            "a",
            "5",
            "digit",
            "number",
            "(",
            "1",
            "000",
            "of",
            "3",
            "25",
            ")",
            "wow",
        ]
    )
    assert tokens("共有3个") == ["共", "有", "3", "个"]
    assert tokens("see [asy] draw(1); [/asy] it [asy] 2", figures=False) == ["see", "it", "[", "asy", "]", "2"]


def test_formal_and_numbers():
    found = tokens("If $AB = 3.5$ and a cat is at $x$, what is the sum of two angles \\theta?")
    assert formal(found) == ("ab", "=", "3.5", "x", "\\sum", "2", "\\theta")
    assert numbers(found) == ("3.5", "2")


@pytest.mark.parametrize(
    "piece", ["\\text{", "{a", "1,000", "[asy]", "'", "\\", "^ ", "{ ", "$", "-", "!", "\u0301", "最", "\\frac ", "1."]
)
def test_tokens_take_linear_time(piece):
    """A quadratic pattern would need minutes for one of these."""
    assert isinstance(tokens(piece * (300_000 // len(piece)), figures=False), list)
