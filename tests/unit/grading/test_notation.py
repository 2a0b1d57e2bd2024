"""Plain text notation becomes LaTeX."""

from __future__ import annotations

from recipe.grading.notation import to_latex


def test_plain_text_notation_becomes_latex():
    assert to_latex("2½ × π²") == r"2\frac{1}{2} \times  \pi ^{2}"
    assert to_latex("-2 1/2") == r"-2\frac{1}{2}"
    assert to_latex("1.5e-3") == r"1.5\times 10^{-3}"
    assert to_latex("x_1 + 2 1/2") == "x_1 + 2 1/2"
