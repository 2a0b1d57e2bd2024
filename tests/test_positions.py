"""Joined log-prob passes are one step: every token counts once, whatever the passes' lengths."""

from __future__ import annotations

import pytest
import torch

from paec_loss import EntropyAnchor, PAECConfig, measure, position_summary, token_statistics
from recipe.paec.positions import Positions

LENGTHS = [[4, 7], [9, 1, 3], [2]]  # responses of three passes


def passes(config: PAECConfig) -> tuple[list[Positions], Positions]:
    """The positions of three passes of different length, and of all their responses in one padded batch."""
    generator = torch.Generator().manual_seed(0)
    longest = max(length for lengths in LENGTHS for length in lengths)
    parts, rows, masks = [], [], []
    for lengths in LENGTHS:
        width = max(lengths)
        logits = 4 * torch.randn(len(lengths), width, 23, generator=generator, dtype=torch.float64)
        mask = torch.arange(width) < torch.tensor(lengths)[:, None]
        labels = torch.zeros(len(lengths), width, dtype=torch.long)
        parts.append(Positions.of(token_statistics(logits, labels, top_p=config.top_p), mask, config))
        rows.append(torch.nn.functional.pad(logits, (0, 0, 0, longest - width)))
        masks.append(torch.nn.functional.pad(mask, (0, longest - width)))
    logits, mask = torch.cat(rows), torch.cat(masks)
    labels = torch.zeros(mask.shape, dtype=torch.long)
    return parts, Positions.of(token_statistics(logits, labels, top_p=config.top_p), mask, config)


@pytest.mark.parametrize("average", ["count", "mass"])
def test_the_step_is_all_of_its_tokens(average):
    config = PAECConfig(average=average)
    parts, whole = passes(config)
    joined = Positions.joined(parts)
    assert joined.response_mask.shape == (6, 9) and int(joined.response_mask.sum()) == 26
    assert joined.measurement().tokens == 26
    reference = measure(whole.statistics, whole.response_mask, config).selected_entropy(config)
    hbar = joined.measurement().selected_entropy(config)
    assert hbar == pytest.approx(reference, rel=1e-12)
    assert joined.summary(config) == pytest.approx(
        position_summary(whole.statistics, whole.mask, whole.response_mask, config), rel=1e-12
    )
    plain_mean = sum(part.measurement().selected_entropy(config) for part in parts) / len(parts)
    assert abs(plain_mean - hbar) > 1e-3 * hbar, (
        "passes of other sizes must not weigh the same for this to say anything"
    )


def test_hbar_is_the_sum_of_the_passes():
    config = PAECConfig()
    parts, _ = passes(config)
    first, second, third = (part.measurement() for part in parts)
    total = first + second + third
    joined = Positions.joined(parts).measurement()
    assert joined.weighted_entropy == pytest.approx(total.weighted_entropy, rel=1e-12)
    assert joined.mass == pytest.approx(total.mass, rel=1e-12) and joined.tokens == total.tokens


def test_kappa_of_a_mini_batch_stays_its_own():
    """quantile_scope=mini_batch: the scope is the pass, and joining does not move its masks."""
    config = PAECConfig(quantile_scope="mini_batch")
    parts, _ = passes(config)
    joined = Positions.joined(parts)
    for part, start, end in zip(parts, (0, 2, 5), (2, 5, 6), strict=True):
        assert torch.equal(joined.mask[start:end, : part.mask.shape[1]], part.mask)


def test_one_pass_is_itself():
    parts, _ = passes(PAECConfig())
    assert Positions.joined(parts[:1]) is parts[0]


def test_the_anchor_takes_a_step_once():
    """Observing each pass would end the anchor's steps early; the anchor refuses a step it has seen."""
    config = PAECConfig(anchor_steps=2)
    parts, _ = passes(config)
    anchor = EntropyAnchor(config)
    hbar = Positions.joined(parts).measurement().selected_entropy(config)
    anchor.observe(1, hbar)
    with pytest.raises(ValueError, match="observed step 1 after 1"):
        anchor.observe(1, hbar)
    assert anchor.state_dict()["observations"] == [hbar]
