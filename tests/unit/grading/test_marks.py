"""Primes and degree signs, by hand; in verdicts and groups too."""

from __future__ import annotations

import pytest

from recipe.grading.marks import differ

PRIMES, DEGREES = "the primes differ", "one angle is in degrees"


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        ("f'(x)=2x", "f''(x)=2x", PRIMES),
        ("f'(x)=2x", "f(x)=2x", PRIMES),
        ("f'(x)=2x", r"f^{\prime\prime}(x)=2x", PRIMES),
        ("y'=2", "y=2", PRIMES),
        ("y''+y=0", "y'+y=0", PRIMES),
        ("x'+1", "x+1", PRIMES),
        ("A'", "A", PRIMES),
        ("5'", "5''", PRIMES),
        ("5′", "5″", PRIMES),
        ("5'6''", "56", PRIMES),
        (r"30^\circ 15'", "30^\\circ 15''", PRIMES),
        (r"30^\circ 15'", "45", PRIMES),
        (r"\sin 30", r"\sin 30^\circ", DEGREES),
        (r"\cos(2)", r"\cos(2°)", DEGREES),
        (r"2\tan 10", r"2\tan 10\text{ degrees}", DEGREES),
    ],
)
def test_answers_that_differ(pool, a, b, reason):
    assert differ(a, b) == differ(b, a) == reason
    assert not pool.judge("math500", rf"\boxed{{{a}}}", b).correct
    assert not pool.judge("math500", rf"\boxed{{{b}}}", a).correct
    assert pool.group("math500", [a, b]) == [0, 1]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("f'(x)=2x", "2x"),
        ("f'(x)=2x+1", "f'(x)=1+2x"),
        ("5'", "5"),
        ("5''", "5"),
        ("5''", '5"'),
        ("x=5'", "5"),
        ("2f'(x)+1", "1+f'(x)+f'(x)"),
        (r"30^\circ", "30"),
        (r"\sin 30^\circ\cos 30^\circ", r"\frac12\sin 60^\circ"),
        (r"\sin x", r"\sin(x)"),
    ],
)
def test_answers_that_do_not_differ(pool, a, b):
    assert differ(a, b) is differ(b, a) is None
    assert pool.judge("math500", rf"\boxed{{{a}}}", b).correct
    assert pool.group("math500", [a, b]) == [0, 0]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"\arctan 2", r"\arctan 2^\circ"),
        (r"\sin^{-1} 0.5", r"\sin^{-1} 0.5^\circ"),
        (r"\cos 60^\circ", r"\frac12"),
        ("f'(x)=2x", r"f^\prime(x)=2x"),
        ("0=y''+y", "y''+y=0"),
    ],
)
def test_what_is_left_to_the_graders(a, b):
    assert differ(a, b) is differ(b, a) is None
