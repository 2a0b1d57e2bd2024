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
        ("10 m", "10"),
        (r"10\,m", "10"),
        (r"10\ m", "10"),
        (r"x\ meters", "x"),
        ("10cm", "10"),
        ("3 nm", "3"),
        ("2, 3 m", "2, 3"),
        (r"\sqrt{8} cm", r"\sqrt{8}"),
        (r"\sqrt{8}\mathrm{m}", r"\sqrt{8}"),
        (r"5\mathrm{m}, 6\mathrm{m}", "5, 6"),
        ("2x+3 meters", "2x+3"),
        (r"5 \mathrm{~m}, x\mathrm{~m}", "5 , x"),
        ("x + 3 miles per hour", "x + 3"),
        (r"\sqrt{8} m/s^2", r"\sqrt{8}"),
        (r"\pi cm", r"\pi"),
        ("12students", "12"),
        ("x m/s", "x m/s"),
        ("3s", "3s"),
        ("2mg", "2mg"),
        ("x+3 s", "x+3 s"),
        ("2x+3 cm", "2x+3 cm"),
        (r"\frac{1}{2} h", r"\frac{1}{2} h"),
        (r"2\pi h", r"2\pi h"),
        (r"3x\mathrm{m}", r"3x\mathrm{m}"),
        (r"2\mathbf{m}", r"2\mathbf{m}"),
    ],
)
def test_formulas_by_hand(answer, formulas):
    assert readable(answer) == formulas


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (r"5\text{ or more}", "words that are not a unit: 'or more'"),
        (r"5\text{ dozen}", "words that are not a unit: 'dozen'"),
        ("5 more students", "words that are not a unit: 'more'"),
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
