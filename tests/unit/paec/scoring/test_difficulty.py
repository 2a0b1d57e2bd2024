"""Bins of accuracy and their labels."""

import pytest

from recipe.paec.scoring.difficulty import BINS, LABELS, bin_of, label_of


def test_each_bin_has_a_label():
    assert len(LABELS) == BINS and [int(bin_of(i / 8)) for i in range(9)] == [0, 1, 2, 3, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("accuracy", "label"),
    [(0, "hard"), (0.29, "hard"), (0.3, "medium"), (0.5, "medium"), (0.69, "medium"), (0.7, "easy"), (1, "easy")],
)
def test_labels_by_hand(accuracy, label):
    assert label_of(accuracy) == label


@pytest.mark.parametrize(("right", "label"), [(2, "hard"), (3, "medium"), (5, "medium"), (6, "easy")])
def test_eight_samples(right, label):
    assert label_of(right / 8) == label
