"""What of an answer may be passed to math_verify, by hand."""

from __future__ import annotations

import pytest

from recipe.grading import strict
from recipe.grading.readable import Unreadable, readable


@pytest.mark.parametrize(
    ("answer", "formulas"),
    [
        (r"3\text{ or }5\text{ cm}", "3, 5"),
        (r"5 \text{ cm}^2", "5"),
        ("12 apples", "12"),
        (r"\text{Area} = 5", " 5"),
        (r"\textbf{(D)}\ 5", r"\ 5"),
        (r"x_{\text{top}}", "x_{}"),
        (r"x_{\text{max}}", r"x_{\text{max}}"),
        (r"\text{lcm}(2, 3)", r"\text{lcm}(2, 3)"),
        (r"0.\overline{3}", r"\frac{1}{3}"),
        (r"2^{1.5}", r"2^{\frac{15}{10}}"),
        (r"25^\circ\text{C}", r"25^\circ"),
        ("x + 1", "x + 1"),
    ],
)
def test_formulas_by_hand(answer, formulas):
    assert readable(answer) == formulas


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (r"5\text{ or more}", "words that are not a unit: 'or more'"),
        (r"5\text{ dozen}", "words that are not a unit: 'dozen'"),
        ("5 or more", "words that are not a unit: 'or more'"),
        (r"1, 2, \ldots, 9", "it contains dots"),
        ("No solution.", "it is written in words"),
        (r"\text{not } x = 5", "words that are not a unit: 'not'"),
        ("1" * (strict.MAX_LENGTH + 1), f"longer than {strict.MAX_LENGTH} characters"),
    ],
)
def test_refused_with_a_reason(answer, reason):
    with pytest.raises(Unreadable) as error:
        readable(answer)
    assert str(error.value) == reason
