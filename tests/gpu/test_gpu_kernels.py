"""Token statistics on a GPU against the sorted float64 definition: values, gradients, in place, repeats, memory.

Needs torch, triton and pytest only: `python3 -m pytest --confcutdir=tests/gpu tests/gpu/test_gpu_kernels.py`.
"""

from __future__ import annotations

import math

import pytest
import torch
from kernel_cases import DIFFERENTIABLE, DTYPES, ROWS, VALUES, case, statistics_and_gradient
from torch import Tensor

from paec_loss import linear_token_statistics, token_statistics
from paec_loss.statistics import backend_name

GRADIENT = {"bf16": 4.1e-3, "fp16": 1e-3, "fp32": 2e-6}
"""Allowed error of a gradient relative to its terms: one rounding of its own dtype, and the kernel's float32."""
KNIFE_EDGE = 3e-7
"""A nucleus may end one token off where the definition's mass comes so close to top_p: float32 sums decide there."""


def on_the_edge(logits: Tensor, temperature: Tensor, size: Tensor, expected: Tensor, top_p: float) -> Tensor:
    """[T] bool: the sizes differ by one, and the mass up to the smaller of them is within KNIFE_EDGE of top_p."""
    p = (logits.double() / temperature[:, None].double()).softmax(-1).sort(dim=-1, descending=True).values
    smaller = torch.minimum(size, expected).clamp_min(1)
    mass = p.cumsum(-1).gather(1, smaller[:, None] - 1)[:, 0]
    return ((size - expected).abs() == 1) & ((mass - top_p).abs() < KNIFE_EDGE)


def check(kind: str, dtype: str, vocab_size: int, top_p: float, device: torch.device) -> None:
    """The backend that `auto` takes against the reference, values and gradient of every row."""
    logits, labels, temperature, upstream = case(kind, dtype, vocab_size, device)
    found, gradient = statistics_and_gradient(logits, labels, temperature, upstream, top_p)
    wanted, slope = statistics_and_gradient(logits.double(), labels, temperature, upstream, top_p, backend="reference")
    edge = on_the_edge(logits, temperature, found.nucleus_size, wanted.nucleus_size, top_p)
    assert torch.equal(found.nucleus_size[~edge], wanted.nucleus_size[~edge])
    for name in VALUES:
        rows = ~edge if name.startswith("nucleus") else torch.ones_like(edge)
        got, want = getattr(found, name)[rows].double(), getattr(wanted, name)[rows]
        torch.testing.assert_close(
            got, want, rtol=1.2e-6, atol=1e-12, equal_nan=True, msg=lambda m, name=name: f"{name}: {m}"
        )
    sound = wanted.sound & ~edge
    # Where a gradient changes its sign, its error is that of its terms: p times the upstream weights and log p.
    p = (logits.double() / temperature[:, None].double()).softmax(-1)
    terms = p * upstream.abs().sum(0)[:, None] / temperature[:, None].double()
    scale = torch.maximum(slope.abs(), terms).clamp_min(1e-4 if dtype == "fp16" else 1e-30)
    error = (gradient.double() - slope).abs() / scale
    assert error[sound].max().item() < GRADIENT[dtype]
    broken = gradient[~wanted.sound][logits[~wanted.sound] != -math.inf]
    assert broken.isnan().all() and (kind != "special" or broken.numel() > 0)


@pytest.mark.parametrize("top_p", [0.8, 0.99, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ROWS)
def test_exact(device, kind, dtype, top_p):
    check(kind, dtype, 32768 if device.type == "cuda" else 4096, top_p, device)


@pytest.mark.parametrize("vocab_size", [9, 259, 4095, 4096, 4097, 50257, 151936])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_every_vocabulary(device, dtype, vocab_size):
    if device.type == "cpu" and vocab_size > 5000:
        pytest.skip("whole vocabularies are slow on a CPU: not rehearsed")
    for kind in ("peaked", "special") if vocab_size > 100 else ("flat",):
        check(kind, dtype, vocab_size, 0.8, device)


def test_auto_takes_triton_on_a_gpu(device):
    """For a real model's vocabulary; for float64 torch. On a CPU it is Numba."""
    kinds = {torch.bfloat16: "triton", torch.float64: "torch"} if device.type == "cuda" else {}
    for dtype in (torch.bfloat16, torch.float64):
        logits = torch.zeros(1, 151936, dtype=dtype, device=device)
        assert backend_name("auto", logits, None) == kinds.get(dtype, "numba")


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("kind", ROWS)
def test_in_place_and_repeated_it_is_the_same_to_the_bit(device, kind, dtype):
    """Rows enough to fill a GPU; the gradient is written over the logits while other rows are still read."""
    tokens, vocab_size = (1024, 32768) if device.type == "cuda" else (32, 4096)
    logits, labels, temperature, upstream = case(kind, dtype, vocab_size, device, tokens)
    first, gradient = statistics_and_gradient(logits, labels, temperature, upstream, 0.8)
    for _ in range(10 if device.type == "cuda" else 2):
        leaf = logits.detach().clone().requires_grad_()
        product = leaf * 1.0  # what a model computes; its memory may become the gradient's
        seen = []
        product.register_hook(seen.append)
        found = token_statistics(product, labels, top_p=0.8, temperature=temperature, inplace_backward=True)
        total = sum((w * getattr(found, n).double()).sum() for w, n in zip(upstream, DIFFERENTIABLE, strict=True))
        total.backward()
        assert seen[0].data_ptr() == product.data_ptr()
        assert torch.equal(found.nucleus_size, first.nucleus_size)
        for name in VALUES:
            assert torch.equal(getattr(found, name).nan_to_num(nan=7.0), getattr(first, name).nan_to_num(nan=7.0)), name
        assert torch.equal(leaf.grad.nan_to_num(nan=7.0), gradient.nan_to_num(nan=7.0))


def test_strided_logits(device):
    """[B, L, V] without its last column of tokens, which cannot be one matrix without a copy."""
    logits, labels, temperature, _ = case("peaked", "bf16", 4096, device, 24)
    whole = logits.reshape(4, 6, 4096)
    found = token_statistics(whole[:, :-1], labels.reshape(4, 6)[:, :-1], top_p=0.8, temperature=1.3)
    wanted = token_statistics(
        whole[:, :-1].double(), labels.reshape(4, 6)[:, :-1], top_p=0.8, temperature=1.3, backend="reference"
    )
    assert torch.equal(found.nucleus_size, wanted.nucleus_size)
    torch.testing.assert_close(found.entropy.double(), wanted.entropy, rtol=1e-6, atol=1e-12)


def test_strided_logits_have_the_gradient_of_a_copy(device):
    logits, labels, _, _ = case("peaked", "bf16", 4096, device, 24)
    whole, labels = logits.reshape(4, 6, 4096), labels.reshape(4, 6)[:, :-1]
    copy = whole[:, :-1].clone().requires_grad_()
    (wanted,) = torch.autograd.grad(token_statistics(copy, labels, top_p=0.8).nucleus_entropy.sum(), copy)
    whole = whole.clone().requires_grad_()
    (found,) = torch.autograd.grad(token_statistics(whole[:, :-1], labels, top_p=0.8).nucleus_entropy.sum(), whole)
    assert torch.equal(found[:, :-1], wanted) and wanted.count_nonzero() > 0 and found[:, -1].count_nonzero() == 0


def test_a_fused_head_is_the_head_and_its_statistics(device):
    """bf16 states and weight: values as of the same bf16 logits, the weight's gradient against float64 autograd."""
    generator = torch.Generator().manual_seed(3)
    tokens, width, vocab_size = 48, 64, 4096
    hidden = torch.randn(tokens, width, generator=generator).to(device, torch.bfloat16).requires_grad_()
    weight = (0.5 * torch.randn(vocab_size, width, generator=generator)).to(device, torch.bfloat16).requires_grad_()
    labels = torch.randint(0, vocab_size, (tokens,), generator=generator).to(device)
    upstream = torch.randn(3, tokens, generator=generator).to(device)

    def gradients(found, *leaves):
        total = sum((w * getattr(found, n)).sum() for w, n in zip(upstream, DIFFERENTIABLE, strict=True))
        return torch.autograd.grad(total, leaves)

    fused = linear_token_statistics(hidden, weight, labels, top_p=0.8, chunk_size=20)
    plain = token_statistics(torch.nn.functional.linear(hidden, weight), labels, top_p=0.8)
    # The chunks' products may be summed in another order: a bf16 logit then differs by one rounding.
    torch.testing.assert_close(fused.entropy, plain.entropy, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(fused.log_prob, plain.log_prob, rtol=2e-2, atol=8e-2)
    exact = [leaf.detach().double().requires_grad_() for leaf in (hidden, weight)]
    reference = token_statistics(exact[0] @ exact[1].t(), labels, top_p=0.8, backend="reference")
    got, want = gradients(fused, hidden, weight), gradients(reference, *exact)
    for mine, theirs in zip(got, want, strict=True):
        assert mine.dtype == torch.bfloat16
        assert ((mine.double() - theirs).norm() / theirs.norm()).item() < 3e-2


def test_little_memory_in_addition_to_the_logits(device):
    """Forward: 3 % of the logits at most; backward in place: a MiB."""
    if device.type != "cuda":
        pytest.skip("the allocator's peak is a GPU's: not rehearsed")
    logits, labels, temperature, upstream = case("flat", "bf16", 151936, device, 512)
    leaf = logits.requires_grad_()
    product = leaf * 1.0
    size = product.numel() * product.element_size()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    found = token_statistics(product, labels, top_p=0.8, temperature=temperature, inplace_backward=True)
    assert torch.cuda.max_memory_allocated() - held < 0.03 * size
    total = sum((w * getattr(found, n).double()).sum() for w, n in zip(upstream, DIFFERENTIABLE, strict=True))
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    (gradient,) = torch.autograd.grad(total, product)
    assert gradient.data_ptr() == product.data_ptr()
    assert torch.cuda.max_memory_allocated() - held < 2**20
