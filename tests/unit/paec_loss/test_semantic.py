"""Semantic entropy: by hand, by counts and by sequence probability, and where exp would underflow."""

from __future__ import annotations

import math

import pytest
import torch

from paec_loss.semantic import cluster_probabilities, largest_class, semantic_entropy


def test_by_counts():
    """Clusters of 2, 1 and 1 of four: 1/2 ln 2 + 2 (1/4 ln 4) = 1.5 ln 2."""
    clusters = torch.tensor([7, 3, 7, 9])
    assert semantic_entropy(clusters) == pytest.approx(1.5 * math.log(2), rel=1e-14)
    probabilities, index = cluster_probabilities(clusters)
    torch.testing.assert_close(
        probabilities[index], torch.tensor([0.5, 0.25, 0.5, 0.25], dtype=torch.float64), rtol=1e-14, atol=0
    )


def test_by_sequence_probability():
    """p = 0.1 and 0.2 in one cluster, 0.3 in the other: two halves, whatever the counts say."""
    clusters, log_prob = torch.tensor([0, 1, 0]), torch.tensor([0.1, 0.3, 0.2], dtype=torch.float64).log()
    assert semantic_entropy(clusters, log_prob) == pytest.approx(math.log(2), rel=1e-14)
    unequal = torch.tensor([0.1, 0.6, 0.1], dtype=torch.float64).log()  # 1/4 and 3/4
    expected = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    assert semantic_entropy(clusters, unequal) == pytest.approx(expected, rel=1e-14)
    # Only the ratios count: sequences of thousands of tokens have probabilities that no float holds.
    assert semantic_entropy(clusters, unequal - 8192) == pytest.approx(expected, rel=1e-12)


def test_against_the_definition():
    generator = torch.Generator().manual_seed(0)
    clusters = torch.randint(0, 4, (12,), generator=generator)
    log_prob = -3 * torch.rand(12, generator=generator, dtype=torch.float64)
    mass: dict[int, float] = {}
    for cluster, value in zip(clusters.tolist(), log_prob.tolist(), strict=True):
        mass[cluster] = mass.get(cluster, 0.0) + math.exp(value)
    shares = [value / sum(mass.values()) for value in mass.values()]
    assert len(shares) == 4
    assert semantic_entropy(clusters, log_prob) == pytest.approx(-sum(p * math.log(p) for p in shares), rel=1e-12)


def test_limits():
    assert semantic_entropy(torch.tensor([5])) == 0
    assert semantic_entropy(torch.tensor([5, 5, 5]), torch.tensor([-1.0, -900.0, -3.0])) == 0
    assert semantic_entropy(torch.arange(8)) == pytest.approx(math.log(8), rel=1e-14)
    # One cluster is next to impossible: 0 log 0 is 0.
    assert semantic_entropy(torch.tensor([0, 1]), torch.tensor([-5.0, -1e4])) == 0


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([7, 7, 2, 2, 5], [True, True, False, False, False]),  # a tie: the first
        ([5, 2, 2], [False, True, True]),
        ([-1, -1, -1, 4], [False, False, False, True]),  # no answer is in no class, whatever the numbers
        ([-1, -2], [False, False]),
        ([0], [True]),
    ],
)
def test_the_largest_class(answers, expected):
    assert largest_class(torch.tensor(answers)).tolist() == expected
