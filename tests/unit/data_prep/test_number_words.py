"""Numbers in words: what they are in digits, and that another number is another problem however it is written."""

from __future__ import annotations

import pytest

from data_prep.contamination import find_contamination
from data_prep.duplicates import find_duplicates
from data_prep.shingles import tokens

SAME = [
    ("nine hundred cats", "900 cats"),
    ("Nine Hundred cats", "900 cats"),
    ("a hundred cats", "one hundred cats"),
    ("one hundred and five cats", "105 cats"),
    ("one hundred five cats", "105 cats"),
    ("twenty-one cats", "21 cats"),
    ("twenty\N{NON-BREAKING HYPHEN}one cats", "21 cats"),
    ("twelve hundred cats", "1,200 cats"),
    ("two thousand three hundred and forty-five", "2345"),
    ("two hundred thousand and six", "200,006"),
    ("ninety-nine million", "99{,}000{,}000"),
    ("1.5 million people", "1,500,000 people"),
    ("3 hundred thousand people", "300000 people"),
    ("half a million people", "500000 people"),
    ("a dozen eggs", "12 eggs"),
    ("three dozen eggs", "36 eggs"),
    ("half a dozen eggs", "6 eggs"),
    ("zero and nineteen", "0 and 19"),
    ("between one hundred and two hundred", "between 100 and 200"),
    ("one, two, three", "1, 2, 3"),
    ("at least one ball", "at least 1 ball"),
    ("half of the cats", "$\\frac{1}{2}$ of the cats"),
    ("a half, one half, one-half", "1/2, 1/2, 1/2"),
    ("two thirds of it", "$\\tfrac23$ of it"),
    ("a fifth of it", "1/5 of it"),
    ("three-quarters of it", "3/4 of it"),
    ("three hundredths", "3/100"),
    ("two and a half hours", "$2\\frac12$ hours"),
    ("2 and two thirds", "$2\\frac23$"),
    ("the third term", "the 3rd term"),
    ("the twenty-first term", "the 21st term"),
    ("the two hundredth term", "the 200th term"),
    ("the one hundred and second term", "the 102nd term"),
    ("twice as many", "two times as many"),
    ("his money doubled", "his money doubles"),
    ("the units digit", "the ones digit"),
    ("\\text{two hundred} cats", "200 cats"),
]


@pytest.mark.parametrize(("words", "digits"), SAME)
def test_words_are_digits(words, digits):
    assert tokens(words) == tokens(digits)
    assert find_duplicates([words, digits], ["1", "1"], same_answer=str.__eq__).groups[0].kind == "exact"


STORY = "At the market Anna has {} on her table, and Ben brings some more of them. How many are left in the end?"
OTHER = [
    ("nine hundred cats", "seven hundred cats"),
    ("nine hundred cats", "nine thousand cats"),
    ("thirteen cats", "fourteen cats"),
    ("thirty cats", "forty cats"),
    ("twenty-one cats", "twenty-two cats"),
    ("twenty-one cats", "thirty-one cats"),
    ("one of the cats", "two of the cats"),
    ("zero of the cats", "one of the cats"),
    ("a million cats", "a billion cats"),
    ("a dozen eggs", "a hundred eggs"),
    ("a dozen eggs", "two dozen eggs"),
    ("half of the eggs", "a third of the eggs"),
    ("two thirds of the eggs", "two fifths of the eggs"),
    ("two thirds of the eggs", "one third of the eggs"),
    ("a quarter of the eggs", "a half of the eggs"),
    ("two and a half eggs", "two and a quarter eggs"),
    ("the sixth egg", "the seventh egg"),
    ("the first egg", "the second egg"),
    ("the 3rd egg", "the fourth egg"),
    ("twice as many eggs", "thrice as many eggs"),
    ("eggs, which are doubled", "eggs, which are tripled"),
    ("the units digit", "the tens digit"),
    ("the tens digit", "the hundreds digit"),
    ("三万个鸡蛋", "三亿个鸡蛋"),
    ("ninety eggs", "80 eggs"),
]


@pytest.mark.parametrize(("a", "b"), OTHER + [(b, a) for a, b in OTHER])
def test_another_number_is_another_problem(a, b):
    """Neither a duplicate nor a copy, whichever of the two is the benchmark's."""
    problem, row = STORY.format(a), STORY.format(b)
    assert find_duplicates([problem, row], ["1", "1"], same_answer=str.__eq__, threshold=0.01).groups == ()
    overlap = find_contamination([row], {"set": [problem]}, threshold=0.3).benchmarks["set"]
    assert overlap.copies == () and len(overlap.other_numbers) == 1


@pytest.mark.parametrize(("words", "digits"), [pair for pair in SAME if "\\" not in pair[1]])
def test_a_copy_may_write_its_numbers_otherwise(words, digits):
    overlap = find_contamination([STORY.format(words)], {"set": [STORY.format(digits)]}).benchmarks["set"]
    assert [match.similarity for match in overlap.copies] == [1.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no one can see that one another", "\\not one can see that one another"),
        ("5 meters per second, 3 seconds", "5 meters per second 3 seconds"),
        ("quarters and dimes in halves", "quarters and dimes in halves"),
        ("dozens of eggs", "12s of eggs"),
        ("the nearest tenth, in tenths", "the nearest 10 th in 10ths"),
        ("one thousand thousand", "1000 1000"),
        ("nineteen eighty-four", "19 84"),
        ("hundred and", "100 and"),
        ("half", "1 / 2"),
        ("a", "a"),
        ("9999999999999999 hundred", "9999999999999999 100"),
    ],
)
def test_what_is_no_number_or_not_one(text, expected):
    assert tokens(text) == expected.split()


@pytest.mark.parametrize(
    "piece",
    ["hundred ", "thousand ", "one ", "twenty ", "and ", "a ", "half a ", "9 million ", "hundred and ", "th "],
)
def test_linear_time(piece):
    """Reading on to the end from every place would need minutes for one of these."""
    assert tokens(piece * (400_000 // len(piece)))
