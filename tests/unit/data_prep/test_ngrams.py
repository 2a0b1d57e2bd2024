"""Runs of 13 words in common: by hand, at the limits, and in linear time."""

from __future__ import annotations

import time

import pytest

from data_prep import ngrams as module
from data_prep.ngrams import NgramMatch, NgramOverlap, find_overlap, ngrams, table, words

THIRTEEN = "a b c d e f g h i j k l m"


def test_words_by_hand():
    assert words("Let $x$ be: A well-known “Number”,\n  isn't it?") == [
        "let", "x", "be", "a", "wellknown", "number", "isnt", "it"
    ]  # fmt: skip
    assert words("$ - ?") == []
    assert words("Größe_3.5 − 2") == ["größe35", "2"]


@pytest.mark.parametrize(("count", "runs"), [(0, 0), (12, 0), (13, 1), (15, 3)])
def test_runs_of_thirteen(count, runs):
    found = ngrams([str(i) for i in range(count)])
    assert len(found) == runs
    assert all(run == tuple(str(i + j) for j in range(13)) for i, run in enumerate(found))


def test_overlap_by_hand():
    problem = f"Given {THIRTEEN.upper()}, find n!"  # 16 words, 4 runs: two of them are in row 2, one in row 3
    texts = [f"{THIRTEEN[:-1]} x", "too short", f"Again: {THIRTEEN}. Find it", f"given {THIRTEEN}"]
    found = find_overlap(texts, {"set": ["short", problem, THIRTEEN.replace("c", "z")], "empty": []})
    assert found["set"] == NgramOverlap(size=3, short=1, matches=(NgramMatch(1, 2, 3, 4, THIRTEEN, problem, texts[2]),))
    assert found["empty"] == NgramOverlap(0, 0, ())


def test_twelve_words_are_not_enough():
    assert find_overlap(["p q r " + THIRTEEN[:-1]], {"set": [THIRTEEN]})["set"].matches == ()
    assert len(find_overlap([THIRTEEN[:-1]], {"set": [THIRTEEN]}, n=12)["set"].matches) == 1


def test_a_word_in_the_middle_breaks_every_run():
    changed = THIRTEEN.replace("g", "G2")
    assert find_overlap([changed], {"set": [THIRTEEN]})["set"].matches == ()
    assert len(find_overlap([changed + " " + THIRTEEN], {"set": [THIRTEEN]})["set"].matches) == 1


def test_the_first_row_and_its_run_are_listed():
    """Run b..n is in row 0, run a..m in row 1: the earlier row is named, with the run that it has."""
    found = find_overlap([f"{THIRTEEN[2:]} n", THIRTEEN], {"set": [f"{THIRTEEN} n"]})["set"]
    assert [(m.row, m.words, m.shared, m.total) for m in found.matches] == [(0, THIRTEEN[2:] + " n", 2, 2)]


def test_a_run_that_a_problem_repeats_counts_once():
    repeated = " ".join(["x"] * 20)
    (match,) = find_overlap([repeated], {"set": [repeated]})["set"].matches
    assert (match.shared, match.total) == (1, 1)


def test_texts_are_cut():
    long = THIRTEEN + " " + "word " * 100
    (match,) = find_overlap([long], {"set": [long]})["set"].matches
    assert (match.problem_text, match.row_text) == (long[:200], long[:200])


def test_table():
    found = find_overlap([THIRTEEN], {"aime24": [THIRTEEN, "1+1?"], "none": []})
    assert [line.split() for line in table(found).splitlines()] == [
        ["13", "words", "in", "a", "row", "problems", "in", "common", "share", "too", "short"],
        ["aime24", "2", "1", "50.0%", "1"],
        ["none", "0", "0", "0.0%", "0"],
    ]


def test_time_is_linear_where_everything_overlaps(monkeypatch):
    """A sentence that all rows and all problems share: the words are looked at once for each text."""
    counted = []
    monkeypatch.setattr(module, "ngrams", lambda found, n=13: counted.append(len(found)) or ngrams(found, n))
    common = "Solve the following problem and write down only the final answer as a whole number"
    begun = time.process_time()
    found = find_overlap([common] * 20_000, {"set": [common] * 2_000})["set"]
    assert time.process_time() - begun < 10, "40 million pairs would take minutes"
    assert len(counted) == 22_000 and sum(counted) == 22_000 * 15
    assert len(found.matches) == 2_000 and {m.row for m in found.matches} == {0}
