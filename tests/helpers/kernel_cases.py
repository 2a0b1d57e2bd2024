"""Rows of logits for the kernels' tests, and what is computed of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from paec_loss import token_statistics

DIFFERENTIABLE = ("log_prob", "entropy", "nucleus_entropy")
VALUES = (*DIFFERENTIABLE, "nucleus_mass", "top1_log_prob", "top2_log_prob")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def peaked(tokens: int, vocab_size: int, generator: torch.Generator) -> Tensor:
    """A few tokens hold the mass, the others lie about 15 nats lower."""
    logits = torch.randn(tokens, vocab_size, generator=generator) * 2.2
    likely = torch.randint(0, vocab_size, (tokens, 30), generator=generator)
    spread = torch.rand(tokens, 1, generator=generator) * 2 + 0.5
    return logits.scatter(1, likely, 20 - spread * torch.arange(30))


def flat(tokens: int, vocab_size: int, generator: torch.Generator) -> Tensor:
    """An untrained model: every token is likely."""
    return torch.randn(tokens, vocab_size, generator=generator)


def special(tokens: int, vocab_size: int, generator: torch.Generator) -> Tensor:
    """Forks on the edge, ties, a uniform row, one-hot, a ramp, -inf, NaN, +inf; then as `peaked`."""
    logits = peaked(tokens, vocab_size, generator)
    logits[0] = -12.0
    logits[0, [7 % vocab_size, vocab_size - 3]] = 5.0
    logits[1] = (logits[1] * 0.3).round()
    logits[2] = 1.25
    logits[3] = -31.75
    logits[3, vocab_size // 2] = 3.0
    logits[4] = torch.linspace(-6, 6, vocab_size)
    logits[5, ::2] = -math.inf
    logits[6, vocab_size // 3] = math.nan
    logits[7, 5 % vocab_size] = math.inf
    return logits


ROWS = {"peaked": peaked, "flat": flat, "special": special}


def case(kind: str, dtype: str, vocab_size: int, device: torch.device, tokens: int = 16):
    """Logits [T, V] of that dtype, labels, temperatures and upstream weights [3, T], made on the CPU from one seed."""
    generator = torch.Generator().manual_seed(vocab_size + tokens)
    logits = ROWS[kind](tokens, vocab_size, generator).to(DTYPES[dtype])
    labels = torch.randint(0, vocab_size, (tokens,), generator=generator)
    labels[tokens // 2] = -100
    temperature = 0.7 + 0.6 * torch.rand(tokens, generator=generator)
    upstream = torch.randn(3, tokens, generator=generator, dtype=torch.float64)
    return tuple(tensor.to(device) for tensor in (logits, labels, temperature, upstream))


def statistics_and_gradient(logits: Tensor, labels, temperature, upstream, top_p: float, **arguments):
    """Detached statistics, and the gradient in `logits` of the upstream-weighted sum of the three entropies."""
    logits = logits.detach().requires_grad_()
    found = token_statistics(logits, labels, top_p=top_p, temperature=temperature, **arguments)
    total = sum((w * getattr(found, name).double()).sum() for w, name in zip(upstream, DIFFERENTIABLE, strict=True))
    total.backward()
    return found.detach(), logits.grad
