"""Statistics of random tokens with a response mask."""

import torch

from paec_loss import token_statistics

VOCAB = 12


def batch(rows=4, length=15, seed=0, dtype=torch.float64):
    """Statistics [B, L] with gradient, and a response mask with prefixes, gaps and one empty row."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(rows, length, 1, generator=generator, dtype=torch.float64) * 6
    logits = torch.randn(rows, length, VOCAB, generator=generator, dtype=torch.float64) * scale
    labels = torch.randint(VOCAB, (rows, length), generator=generator)
    stats = token_statistics(logits.to(dtype).requires_grad_(), labels, top_p=0.8)
    response_mask = (torch.rand(rows, length, generator=generator) < 0.7).long()
    response_mask[1] = 0
    response_mask[2, length // 2 :] = 0
    return stats, response_mask
