"""The summary of a mask by hand."""

import math

import pytest
import torch
from position_cases import batch

from paec_loss import PAECConfig, TokenStatistics, position_summary

torch.set_num_threads(1)


INF, NAN = math.inf, math.nan


def hand_stats():
    """Four response tokens and one of padding, with numbers that can be summed in the head."""
    row = {
        "log_prob": [-1.0, -1.0, -1.0, -1.0, NAN],
        "entropy": [1.0, 2.0, 3.0, 6.0, NAN],
        "nucleus_entropy": [0.0, 0.5, 1.0, 2.5, NAN],
        "nucleus_mass": [0.9, 0.9, 0.9, 0.9, NAN],
        "top1_log_prob": [0.0, math.log(0.5), math.log(0.4), math.log(0.4), NAN],
        "top2_log_prob": [-INF, math.log(0.25), math.log(0.4), math.log(0.1), NAN],
    }
    tensors = {name: torch.tensor([values], dtype=torch.float64) for name, values in row.items()}
    return TokenStatistics(**tensors, nucleus_size=torch.tensor([[1, 2, 4, 11, 0]]), vocab_size=100)


def test_summary_by_hand():
    mask = torch.tensor([[0.0, 0.5, 0.0, 1.0, 0.0]], dtype=torch.float64)
    summary = position_summary(hand_stats(), mask, torch.tensor([[1, 1, 1, 1, 0]]), PAECConfig(normalizer="none"))
    expected = {
        "mask_mass": 1.5 / 4,
        "selected_fraction": 0.5,
        "competition": (0 + 0.5 + 1 + 0.25) / 4,
        "normalized_entropy": 1.0,
        "single_token_nucleus_fraction": 0.25,
        "single_token_nucleus_fraction_selected": 0.0,
        "entropy": 3.0,
        "nucleus_entropy": 1.0,
        "nucleus_size_mean": 4.5,
        "nucleus_size_p90": 8.9,  # rank 2.7 of 1, 2, 4, 11
        "entropy_selected": 4.0,
        "entropy_unselected": 2.0,
        **{f"mask_mass_decile_{i}": 0.0 for i in range(10)},
        "mask_mass_decile_2": 1 / 3 * 0.2,  # token 1 of 4 covers 0.25 to 0.5
        "mask_mass_decile_3": 1 / 3 * 0.4,
        "mask_mass_decile_4": 1 / 3 * 0.4,
        "mask_mass_decile_7": 2 / 3 * 0.2,  # token 3 of 4 covers 0.75 to 1
        "mask_mass_decile_8": 2 / 3 * 0.4,
        "mask_mass_decile_9": 2 / 3 * 0.4,
    }
    assert summary == pytest.approx(expected, abs=1e-12)


def test_summary_of_nothing_is_zero():
    stats = hand_stats()
    summary = position_summary(stats, torch.zeros(1, 5), torch.zeros(1, 5), PAECConfig())
    assert set(summary.values()) == {0.0}
    summary = position_summary(stats, torch.zeros(1, 5), torch.tensor([[1, 1, 1, 1, 0]]), PAECConfig())
    assert summary["entropy_selected"] == summary["mask_mass_decile_0"] == 0.0
    assert summary["entropy_unselected"] == 3.0


def test_deciles_of_a_uniform_mask_are_equal_and_gaps_do_not_count():
    stats, _ = batch(rows=3, length=25)
    response_mask = torch.ones(3, 25)
    response_mask[:, ::5] = 0  # 20 tokens are left: two a decile
    summary = position_summary(stats, response_mask, response_mask, PAECConfig())
    assert [summary[f"mask_mass_decile_{i}"] for i in range(10)] == pytest.approx([0.1] * 10, abs=1e-12)
    assert summary["mask_mass"] == summary["selected_fraction"] == 1.0


@pytest.mark.parametrize("length", [1, 3, 7, 10, 21, 1999])
def test_deciles_of_equal_weights_are_equal_at_every_length(length):
    """Whole tokens would not fall into equal tenths: 21 of them give one tenth three."""
    stats, _ = batch(rows=3, length=length)
    summary = position_summary(stats, torch.full((3, length), 0.25), torch.ones(3, length), PAECConfig())
    assert [summary[f"mask_mass_decile_{i}"] for i in range(10)] == pytest.approx([0.1] * 10, abs=1e-12)


def test_summary_checks_shapes():
    with pytest.raises(ValueError, match="must have the same shape"):
        position_summary(hand_stats(), torch.zeros(1, 4), torch.zeros(1, 5), PAECConfig())
