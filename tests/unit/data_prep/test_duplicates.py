"""Duplicates: what spelling does not change, what no similarity makes equal, and the search against all pairs."""

import random
from dataclasses import asdict
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.duplicates import Group, find_duplicates, same_text
from data_prep.shingles import formal, jaccard, shingles, tokens


def find(texts, answers=None, **options):
    return find_duplicates(texts, answers or ["0"] * len(texts), same_answer=str.__eq__, **options)


SAME = [
    ("Find $x$ if $2x = 4$.", "find x if  2x=4"),
    ("Find $x$ if $2x = 4$.", "FIND $X$ IF\n$2\\,x\\! = \\;4$"),
    ("Find $x$ if $2x = 4$.", "Ｆｉｎｄ ｘ ｉｆ ２ｘ＝４．"),
    ("Is \\(x\\) in \\[0, 1\\]?", "Is $x$ in $$0, 1$$?"),
    ("$\\dfrac{1}{2}$", "$\\frac12$"),
    ("$\\frac{1}{2}$ of $3\\tfrac{\\pi}{x}$", "½ of 3 π/x"),
    ("$3\\frac{1}{2}$", "3½"),
    ("$x^{2} \\leq 5$", "x² ≤ 5"),
    ("$\\left( x \\right)$", "(x)"),
    ("$60^{\\circ}$", "60°"),
    ("$f^{\\prime}(x)$", "f'(x)"),
    ("café", "cafe\u0301"),
    ("find\u200b x", "fi\u200bnd\u00a0x"),
    ("1,000 cats and 1{,}000 dogs", "1000 cats and 1000 dogs"),
    ("the largest of three", "the maximum of 3"),
    ("$5 - \\pi$", "5 − π"),
    ("$\\text{ area of } \\mathrm{ABC}$", "area of ABC"),
    ("已知 $x=2$，求 $x+1$。", "已知x=2,求x+1"),
    ("$1, 2, \\ldots, 9$", "1,2,...,9"),
    ("$\\angle{ABC}$ and $a_{n}$, $b_{12}$", "$\\angle ABC$ and $a_n$, $b_12$"),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_spellings_of_one_problem_are_exact_duplicates(a, b):
    found = find([a, "something else entirely", b])
    assert found.groups == (Group("exact", (0, 2), 1.0, ("0", "0"), False),)
    assert found.kept == (0, 1)


LONG = " Here is a long story, told in many words and without a single formal thing, around the same problem." * 5
DIFFERENT = [
    ("Find x if 2x=4", "Find x if 2x=6"),
    ("Find x if 2x=4", "Find x if 4x=2"),
    ("Find x if x=24", "Find x if x=2 4"),
    ("Find x if x=0.5", "Find x if x=5"),
    ("Find x if x=.5", "Find x if x=5"),
    ("Find x if 2x+3=4", "Find x if 2x-3=4"),
    ("Find x if 2(x+1)=4", "Find x if 2x+1=4"),
    ("Find $e^{x+1}$ at 1", "Find $e^x+1$ at 1"),
    ("Find $\\sin x + \\cos y$", "Find $\\cos x + \\sin y$"),
    ("Find $x^{2y}$", "Find $x^2y$"),
    ("Find $\\frac{1}{2x}$", "Find $1/2x$"),
    ("Find $x^{\\frac{1}{2}}$", "Find $x^1/2$"),
    ("Take 3½ of", "Take 31/2 of"),
    ("Find $x^{ab}$", "Find $x^ab$"),
    ("Find f(x)", "Find f'(x)"),
    ("Compute 5!", "Compute 5"),
    ("Find x < 3", "Find x ≤ 3"),
    ("Find x given y", "Find y given x"),
    ("AB = 3, BC = 4, find AC", "AC = 3, BC = 4, find AB"),
    ("the maximum of x", "the minimum of x"),
    ("the sum of the roots", "the product of the roots"),
    ("Choose two numbers", "Choose three numbers"),
    ("the area of a square", "the perimeter of a square"),
    ("Find $\\alpha$", "Find $\\beta$"),
    ("求最大值", "求最小值"),
    ("三角形", "四边形"),
]


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_what_weighs_is_never_outweighed(a, b):
    found = find([a, b, LONG + a, LONG + b], threshold=0.01)
    assert found.groups == ()
    assert found.kept == (0, 1, 2, 3)


def test_near_duplicates_by_hand():
    # 9 pairs of tokens and 8, 6 of them common: 6 / 11.
    texts = ["Find the value of x if 2x = 4.", "Find the number x if 2x = 4."]
    assert find(texts).groups == ()
    assert find(texts, threshold=6 / 11).groups == (Group("near", (0, 1), 6 / 11, ("0", "0"), False),)
    assert find(texts, threshold=6 / 11 + 1e-6).groups == ()


def test_a_group_is_what_pairs_connect():
    # Neighbours share 3 of 5 pairs of tokens, the ends 2 of 6.
    texts = ["aaa bbb ccc ddd zzz", "nothing of that kind", "aaa bbb ccc ddd eee", "xxx bbb ccc ddd eee"]
    found = find(texts, threshold=0.6)
    assert found.groups == (Group("near", (0, 2, 3), 2 / 6, ("0", "0", "0"), False),)
    assert found.kept == (0, 1)
    assert found.removed == {"exact": 0, "near": 2, "conflicting": 0}


def test_conflicts_lose_all_members():
    texts = ["1+1?", "2+2?", "1 + 1?", "3+3?", "$1+1$", "2+2", "3+3?"]
    answers = ["2", "4", "2", "6", "3", "4.0", "6"]
    found = find_duplicates(texts, answers, same_answer=lambda a, b: Fraction(a) == Fraction(b))
    assert found.kept == (1, 3)
    assert found.groups == (
        Group("exact", (0, 2, 4), 1.0, ("2", "2", "3"), True),
        Group("exact", (1, 5), 1.0, ("4", "4.0"), False),
        Group("exact", (3, 6), 1.0, ("6", "6"), False),
    )
    assert found.conflicts == found.groups[:1]
    assert found.removed == {"exact": 2, "near": 0, "conflicting": 3}
    assert asdict(found)["groups"][1]["answers"] == ("4", "4.0")


def test_rows_of_other_settings_are_other_rows():
    """Exact, near, and conflicting ones; a setting is anything that can be hashed."""
    near = ["Find the value of x if 2x = 4.", "Find the number x if 2x = 4."]
    texts, answers = ["1+1?", "1 + 1?", "1+1?", *near, near[1]], ["2", "2", "3", "2", "2", "2"]
    assert find(texts, answers, threshold=0.5).kept == (3,)
    found = find(texts, answers, threshold=0.5, settings=["a", "b", "c", ("a", None), ("b", None), ("a", None)])
    assert found.kept == (0, 1, 2, 3, 4)
    assert found.groups == (Group("near", (3, 5), 6 / 11, ("2", "2"), False),)
    found = find(texts, answers, threshold=0.5, settings=["a", "a", "b", "c", "c", "d"])
    assert [group.members for group in found.groups] == [(0, 1), (3, 4)] and not found.conflicts


SAME_TEXTS = [
    ("What is 2+2?", "What is 2+2?  "),
    ("Read this:\n  a = 1\n", "Read this:  \r\n  a = 1"),
    ("caf\u00e9", "cafe\u0301"),
]
OTHER_TEXTS = [
    ("What is the name of the capital city of the country Chad?", "What is the name of the capital city of Peru?"),
    ("Write a as a capital letter.", "Write A as a capital letter."),
    ("Spell the number 9.", "Spell the number nine."),
    ("Is it correct: Hello, world", "Is it correct: Hello world"),
    ("What is the superlative of large? largest or", "What is the superlative of large? maximum or"),
    ("What does x$y mean?", "What does xy mean?"),
    ("What does this print?\nif x:\n  a()\nb()", "What does this print?\nif x:\n  a()\n  b()"),
    ("x\u00b2", "x2"),
]


def test_of_other_rows_only_the_same_text_is_a_duplicate():
    for a, b in SAME_TEXTS:
        assert same_text(a) == same_text(b)
        found = find([a, "something else", b], mathematics=False)
        assert found.groups == (Group("exact", (0, 2), 1.0, ("0", "0"), False),)
    for a, b in OTHER_TEXTS:
        assert same_text(a) != same_text(b)
        assert find([a, b], ["1", "2"], mathematics=False, threshold=0.01).kept == (0, 1)
    for a, b in OTHER_TEXTS[1:4]:
        assert find([a, b], ["1", "2"]).kept == (), "tokens of mathematics do not tell them apart"
    found = find(["q", "q", "r", "r ", "s"], ["1", "2", "3", "3", "4"], mathematics=False)
    assert (found.kept, found.removed) == ((2, 4), {"exact": 1, "near": 0, "conflicting": 2})


def test_conflict_is_pairwise():
    """Every neighbour within 1, but not the ends: an answer that others connect is still another answer."""
    found = find_duplicates(["x"] * 3, ["1", "2", "3"], same_answer=lambda a, b: abs(int(a) - int(b)) <= 1)
    assert found.kept == () and found.groups[0].conflict


def random_texts(count, seed):
    """Short texts from few words, so that all similarities occur; one in three has a number."""
    rng = random.Random(seed)
    words = ["red", "blue", "green", "cat", "dog", "sees", "hears", "every", "some"]
    return [
        " ".join(rng.choices(words, k=rng.randint(1, 7)) + (["5"] if rng.random() < 0.3 else [])) for _ in range(count)
    ]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.6, 0.7, 0.9, 1.0])
def test_against_all_pairs(threshold):
    texts = random_texts(300, seed=int(threshold * 10))
    sets = [set(shingles(tokens(text), 2)) for text in texts]
    keys = [formal(tokens(text)) for text in texts]
    label = list(range(len(texts)))
    for i, j in combinations(range(len(texts)), 2):
        if keys[i] == keys[j] and jaccard(sets[i], sets[j]) >= threshold and label[i] != label[j]:
            label = [label[i] if other == label[j] else other for other in label]
    groups = {tuple(i for i, other in enumerate(label) if other == one) for one in label}
    found = find(texts, threshold=threshold)
    assert {group.members for group in found.groups} == {group for group in groups if len(group) > 1}
    assert len(found.groups) > 3 or threshold < 0.4
    for group in found.groups:
        assert group.similarity == min(jaccard(sets[group.members[0]], sets[i]) for i in group.members)


TEXTS = st.lists(
    st.lists(
        st.sampled_from(["red", "blue", "cat", "sees", "x", "2", "２", "+", "最大", "求", "$", " ", ""]), max_size=6
    )
    .map(" ".join)
    .flatmap(lambda text: st.tuples(st.just(text), st.sampled_from("12"))),
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.randoms(use_true_random=False), st.sampled_from([0.3, 0.5, 0.7]))
def test_order_does_not_matter_and_once_is_enough(rows, rng, threshold):
    texts, answers = [text for text, _ in rows], [answer for _, answer in rows]
    found = find(texts, answers, threshold=threshold)

    order = list(range(len(rows)))
    rng.shuffle(order)
    shuffled = find([texts[i] for i in order], [answers[i] for i in order], threshold=threshold)

    def groups(found, row):
        return {(group.kind, frozenset(row(i) for i in group.members), group.conflict) for group in found.groups}

    assert groups(found, int) == groups(shuffled, order.__getitem__)

    again = find([texts[i] for i in found.kept], [answers[i] for i in found.kept], threshold=threshold)
    assert again.groups == () and again.kept == tuple(range(len(found.kept)))
    in_groups = sum(len(group.members) for group in found.groups)
    assert len(found.kept) == len(rows) - in_groups + sum(not group.conflict for group in found.groups)
    assert len(found.kept) + sum(found.removed.values()) == len(rows)


def test_awkward_texts():
    giant = " ".join(f"word{i % 977} {i}" for i in range(90_000))
    assert len(giant) > 1_000_000
    texts = ["", " \n", "?", giant, "1+1?", giant.replace(" ", "  "), "\ud800", "🙂", "☃", "\x00", "🙂"]
    found = find(texts)
    assert [group.members for group in found.groups] == [(0, 1, 2), (3, 5), (7, 10)]
    assert find([]).kept == () and find([]).groups == ()


def test_chinese_near_duplicates():
    # 15 and 15 characters; two pairs of each are not in the other: 12 / 16.
    texts = ["一个盒子里有若干个红球和白球共", "一个盒子里有若干个红球和黑球共"]
    assert find(texts).groups == (Group("near", (0, 1), 12 / 16, ("0", "0"), False),)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="2 texts but 1 answers; give one answer per row"):
        find_duplicates(["a", "b"], ["1"], same_answer=str.__eq__)
    with pytest.raises(ValueError, match="2 texts but 1 settings; give one setting per row"):
        find(["a", "b"], settings=["s"])
    for threshold in (0, 1.01, float("nan")):
        with pytest.raises(
            ValueError, match=rf"threshold {threshold}: must be in \(0, 1\], it is a Jaccard similarity"
        ):
            find(["a"], threshold=threshold)
