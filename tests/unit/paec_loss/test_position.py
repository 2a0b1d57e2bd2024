"""Score, threshold and mask against an oracle in numpy loops, the hand cases, and the mask's sparsity."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from position_cases import VOCAB, batch

from paec_loss import (
    PAECConfig,
    competition,
    mask_from_score,
    normalized_entropy,
    position_mask,
    position_score,
    position_threshold,
    token_statistics,
)
from paec_loss.position import masked_quantile

torch.set_num_threads(1)


INF, NAN = math.inf, math.nan
SPARSE = ("ramp", "gated", "hard")


def oracle_score(stats, config):
    out = np.zeros(stats.entropy.shape)
    for i in np.ndindex(out.shape):
        size, entropy = stats.nucleus_size[i].item(), stats.nucleus_entropy[i].item()
        gap = stats.top1_log_prob[i].item() - stats.top2_log_prob[i].item()
        h = {
            "log_nucleus": entropy / math.log(size) if size >= 2 else 0.0,
            "none": entropy,
            "log_vocab": entropy / math.log(VOCAB),
        }[config.normalizer]
        c = {
            "ratio": math.exp(-gap),
            "exp_tau": math.exp(-gap / config.competition_tau),
            "sigmoid": 2 / (1 + math.exp(gap)),
            "inverse": 1 / (1 + gap),
        }[config.competition]
        out[i] = (1 - config.beta) * h + config.beta * c
    return out


def oracle_mask(score, response_mask, config):
    out = np.zeros(score.shape)
    everything = score[response_mask != 0]
    for row in range(score.shape[0]):
        own = score[row][response_mask[row] != 0]
        chosen = everything if config.quantile_scope == "mini_batch" else own
        if not len(own):
            continue
        kappa = np.quantile(chosen, config.rho)
        for i in range(score.shape[1]):
            s = score[row, i]
            if not response_mask[row, i]:
                continue
            if config.mask == "none":
                out[row, i] = 1.0
            elif config.mask == "sigmoid":
                out[row, i] = 1 / (1 + math.exp(-(s - kappa) / config.mask_width))
            elif s > kappa and s != 0:
                ramp = min(max((s - kappa) / config.mask_width, 0.0), 1.0)
                out[row, i] = {"ramp": ramp, "gated": s, "hard": 1.0}[config.mask]
    return out


def stats_of(*rows):
    """Statistics [L] of probability rows at p = 0.8."""
    logits = torch.tensor(rows, dtype=torch.float64).log()
    return token_statistics(logits, torch.zeros(len(rows), dtype=torch.int64), top_p=0.8)


# ---- score --------------------------------------------------------------------------------------------------------


def test_hand_case_of_the_score():
    stats, config = stats_of((0.6, 0.3, 0.1)), PAECConfig()
    assert normalized_entropy(stats, config).item() == pytest.approx(0.9182958341, abs=1e-10)
    assert competition(stats, config).item() == pytest.approx(0.5, abs=1e-12)
    assert position_score(stats, config).item() == pytest.approx(0.7928070839, abs=1e-10)


def test_uniform_scores_1_and_one_hot_scores_0():
    config = PAECConfig()
    stats = stats_of((0.2, 0.2, 0.2, 0.2, 0.2), (1.0, 0.0, 0.0, 0.0, 0.0))
    assert normalized_entropy(stats, config).tolist() == pytest.approx([1.0, 0.0], abs=1e-12)
    assert competition(stats, config).tolist() == [1.0, 0.0]
    assert position_score(stats, config).tolist() == pytest.approx([1.0, 0.0], abs=1e-12)


@pytest.mark.parametrize(
    ("form", "expected"),
    [("ratio", 0.5), ("exp_tau", 0.7071067812), ("sigmoid", 0.6666666667), ("inverse", 0.5906161091)],
)
def test_forms_of_competition_at_a_gap_of_log_2(form, expected):
    config = PAECConfig(competition=form, competition_tau=2.0)
    assert competition(stats_of((0.6, 0.3, 0.1)), config).item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("form", ["ratio", "exp_tau", "sigmoid", "inverse"])
def test_one_token_vocabulary_has_no_competition(form):
    assert competition(stats_of((1.0,)), PAECConfig(competition=form)).item() == 0.0


@pytest.mark.parametrize("normalizer", ["log_nucleus", "none", "log_vocab"])
@pytest.mark.parametrize("form", ["ratio", "exp_tau", "sigmoid", "inverse"])
def test_score_oracle(normalizer, form):
    stats, _ = batch()
    config = PAECConfig(normalizer=normalizer, competition=form, competition_tau=0.7, beta=0.4)
    score = position_score(stats, config)
    assert score.dtype == torch.float64 and not score.requires_grad
    np.testing.assert_allclose(score.numpy(), oracle_score(stats, config), rtol=0, atol=1e-13)


def test_score_of_float32_statistics_is_float64():
    stats, _ = batch(dtype=torch.float32)
    assert stats.entropy.dtype == torch.float32
    score = position_score(stats, PAECConfig())
    assert score.dtype == torch.float64
    np.testing.assert_allclose(score.numpy(), oracle_score(stats, PAECConfig()), rtol=0, atol=1e-13)


@pytest.mark.parametrize(("beta", "expected"), [(0.0, 0.9182958341), (1.0, 0.5)])
def test_entropy_only_and_competition_only(beta, expected):
    assert position_score(stats_of((0.6, 0.3, 0.1)), PAECConfig(beta=beta)).item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("normalizer", ["log_nucleus", "none", "log_vocab"])
def test_broken_logits_are_not_scored_as_a_one_token_nucleus(normalizer):
    stats = token_statistics(torch.tensor([[NAN, 0.0]]), torch.tensor([0]), top_p=0.8)
    config = PAECConfig(normalizer=normalizer, beta=0.0)
    assert normalized_entropy(stats, config).isnan().item() and position_score(stats, config).isnan().item()


# ---- threshold ----------------------------------------------------------------------------------------------------


def test_threshold_by_hand():
    score = torch.tensor([[0.1, 9.0, 0.3, 0.2, NAN], [5.0, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    mask = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0]])
    kappa = position_threshold(score, mask, PAECConfig(rho=0.75))
    assert kappa.tolist() == [[pytest.approx(0.25, abs=1e-15)], [INF]]  # rank 1.5 of (0.1, 0.2, 0.3); an empty row
    assert position_threshold(score[0], mask[0], PAECConfig(rho=0.75)).tolist() == [pytest.approx(0.25, abs=1e-15)]


@pytest.mark.parametrize("rho", [0.0, 0.1, 0.5, 0.8, 0.99])
def test_threshold_is_the_linear_quantile_of_each_row(rho):
    stats, response_mask = batch(rows=6, seed=1)
    score = position_score(stats, PAECConfig())
    kappa = position_threshold(score, response_mask, PAECConfig(rho=rho))
    assert kappa.shape == (6, 1)
    for row in (0, 2, 3, 4, 5):
        chosen = score[row][response_mask[row] != 0]
        assert kappa[row].item() == pytest.approx(np.quantile(chosen.numpy(), rho), abs=1e-15)
        assert kappa[row].item() == pytest.approx(torch.quantile(chosen, rho).item(), abs=1e-15)
    assert kappa[1].item() == INF


def test_threshold_over_the_mini_batch():
    stats, response_mask = batch(seed=2)
    score = position_score(stats, PAECConfig())
    config = PAECConfig(quantile_scope="mini_batch", rho=0.7)
    kappa = position_threshold(score, response_mask, config)
    assert kappa.shape == (1, 1)
    assert kappa.item() == pytest.approx(np.quantile(score[response_mask != 0].numpy(), 0.7), abs=1e-15)
    assert position_threshold(score[0], response_mask[0], config).shape == (1,)


def test_a_response_threshold_does_not_depend_on_the_rest_of_the_batch():
    stats, response_mask = batch(seed=3)
    score = position_score(stats, PAECConfig())
    whole = position_threshold(score, response_mask, PAECConfig())
    parts = [position_threshold(score[i : i + 1], response_mask[i : i + 1], PAECConfig()) for i in range(4)]
    assert torch.equal(whole, torch.cat(parts))


def test_quantile_of_nothing_and_of_nan():
    assert masked_quantile(torch.zeros(2, 0), torch.zeros(2, 0), 0.8).tolist() == [[INF], [INF]]
    values = torch.tensor([[1.0, NAN], [1.0, NAN]])
    quantile = masked_quantile(values, torch.tensor([[1, 1], [1, 0]]), 0.5)
    assert quantile[0].isnan().item() and quantile[1].item() == 1.0


# ---- mask ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("ramp", [0.0, 0.0, 0.5, 1.0, 0.0]),
        ("gated", [0.0, 0.0, 0.45, 0.9, 0.0]),
        ("hard", [0.0, 0.0, 1.0, 1.0, 0.0]),
        ("sigmoid", [0.0179862100, 0.5, 0.6224593312, 0.9933071491, 0.0]),
        ("none", [1.0, 1.0, 1.0, 1.0, 0.0]),
    ],
)
def test_mask_by_hand(kind, expected):
    score = torch.tensor([0.0, 0.4, 0.45, 0.9, NAN], dtype=torch.float64)
    mask = mask_from_score(score, torch.tensor([1, 1, 1, 1, 0]), PAECConfig(mask=kind, mask_width=0.1), 0.4)
    assert mask.dtype == torch.float64
    assert mask.tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("kind", SPARSE)
def test_zero_score_is_never_selected(kind):
    score = torch.zeros(2, 5, dtype=torch.float64)
    score[1, 0] = 0.3
    mask = mask_from_score(score, torch.ones(2, 5), PAECConfig(mask=kind), -1.0)
    assert (mask > 0).tolist() == [[False] * 5, [True] + [False] * 4]


@pytest.mark.parametrize("scope", ["response", "mini_batch"])
@pytest.mark.parametrize("kind", [*SPARSE, "sigmoid", "none"])
@pytest.mark.parametrize("rho", [0.0, 0.3, 0.8])
def test_mask_oracle(kind, scope, rho):
    stats, response_mask = batch(seed=4)
    config = PAECConfig(mask=kind, quantile_scope=scope, rho=rho, mask_width=0.07)
    mask = position_mask(stats, response_mask, config)
    expected = oracle_mask(oracle_score(stats, config), response_mask.numpy(), config)
    np.testing.assert_allclose(mask.numpy(), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", [*SPARSE, "sigmoid", "none"])
def test_mask_has_no_gradient_and_the_dtype_of_the_entropy(kind):
    for dtype in (torch.float32, torch.float64):
        stats, response_mask = batch(dtype=dtype)
        assert stats.entropy.requires_grad
        mask = position_mask(stats, response_mask.bool(), PAECConfig(mask=kind))
        assert not mask.requires_grad and mask.dtype == dtype
        assert mask[1].tolist() == [0.0] * 15  # the row of padding


@pytest.mark.parametrize("kind", [*SPARSE, "sigmoid", "none"])
def test_nan_at_padding_does_not_leak_and_nan_in_the_response_stays_visible(kind):
    stats, response_mask = batch(seed=5)
    config = PAECConfig(mask=kind)
    expected = position_mask(stats, response_mask, config)
    broken = stats.map(lambda t: torch.where(response_mask != 0, t, NAN) if t.is_floating_point() else t)
    assert torch.equal(position_mask(broken, response_mask, config), expected)
    score = position_score(stats, config)
    first = response_mask[0].nonzero()[0, 0]
    score[0, first] = NAN
    mask = mask_from_score(score, response_mask, config, position_threshold(score, response_mask, config))
    if kind == "none":
        assert torch.equal(mask, response_mask.double())
    else:
        assert mask[0].isnan().tolist() == (response_mask[0] != 0).tolist()
    assert torch.equal(mask[1:], expected[1:])


def test_a_given_threshold_is_used():
    stats, response_mask = batch(seed=6)
    config = PAECConfig(quantile_scope="mini_batch", mask="hard")
    score = position_score(stats, config)
    kappa = position_threshold(score, response_mask, config)
    parts = [
        position_mask(stats.map(lambda t, i=i: t[i]), response_mask[i], config, threshold=kappa[0]) for i in range(4)
    ]
    assert torch.equal(torch.stack(parts), position_mask(stats, response_mask, config))
    assert torch.equal(
        position_mask(stats, response_mask, config, threshold=kappa.item()), position_mask(stats, response_mask, config)
    )


def test_shapes_are_checked():
    for shapes in (((2, 3), (2, 4)), ((3,), (1, 3)), ((2, 3, 4), (2, 3, 4))):
        score, mask = torch.zeros(shapes[0]), torch.zeros(shapes[1])
        with pytest.raises(ValueError, match=r"must both be \[B, L\], or both \[L\]"):
            position_threshold(score, mask, PAECConfig())
        with pytest.raises(ValueError, match=r"must both be \[B, L\], or both \[L\]"):
            mask_from_score(score, mask, PAECConfig(), 0.0)


SCORES = st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5])), min_size=1, max_size=20)


@settings(max_examples=100, deadline=None)
@given(SCORES, st.floats(0, 0.99), st.sampled_from(SPARSE))
def test_sparse_masks_select_at_most_their_share(scores, rho, kind):
    score = torch.tensor(scores, dtype=torch.float64)
    ones, config = torch.ones_like(score), PAECConfig(rho=rho, mask=kind)
    kappa = position_threshold(score, ones, config)
    mask = mask_from_score(score, ones, config, kappa)
    assert (mask >= 0).all() and (mask <= 1).all()
    assert not mask[(score <= kappa) | (score == 0)].any()
    # At most the ranks above rho * (n - 1) lie above the quantile.
    assert (mask > 0).sum() <= len(scores) - 1 - math.floor(rho * (len(scores) - 1))
