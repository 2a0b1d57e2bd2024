"""Token statistics from hidden states and the LM head's weight; logits exist for only a few rows at a time.

This saves the memory of the logits and their gradient, [T, V] each. It costs one more product with the weight, because
backward computes the logits again.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

from paec_loss.statistics import (
    TokenStatistics,
    backend_name,
    check_arguments,
    check_labels,
    load_backend,
    outputs_of,
    uncompiled,
    upstream_of,
)

CHUNK_SIZE = 1024
"""Rows whose logits exist at the same time. Fewer than about 512 leave a GPU's matrix units idle."""
PRODUCT_ROWS = 16384
"""Rows of the weight's gradient whose float32 summand exists at the same time, if the factors are narrower."""


@uncompiled
def linear_token_statistics(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    top_p: float,
    temperature: float | Tensor = 1.0,
    bias: Tensor | None = None,
    backend: str = "auto",
    chunk_size: int = CHUNK_SIZE,
) -> TokenStatistics:
    """`token_statistics` of logits = hidden weight^T + bias, without ever holding all logits.

    Args:
        hidden: [..., d], floating. Under autocast, hidden, weight and bias are cast to its dtype, as a Linear would.
        weight: [V, d] of the LM head, complete: under FSDP call this inside the head's forward, where it is gathered.
        labels, top_p, temperature, backend: as for `token_statistics`; labels [...].
        bias: [V] or None.
        chunk_size: rows whose logits exist at the same time.

    Returns:
        TokenStatistics [...]; log_prob, entropy and nucleus_entropy are differentiable in hidden, weight and bias. The
        weight's gradient is summed over the chunks in float32 (float64 for float64 weights). Rows that receive no
        gradient, such as prompts, cost nothing in the backward pass.

    Raises:
        TypeError, ValueError: as `token_statistics`; a DTensor weight, different dtypes or widths,
        chunk_size < 1.
    """
    if isinstance(weight, DTensor) or isinstance(hidden, DTensor):
        raise TypeError(
            "hidden or weight is a DTensor: call this inside the head's forward, where FSDP has gathered them"
        )
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    _check_products(hidden, weight, bias, labels, chunk_size)
    # The empty slice has the logits' dtype and leading shape.
    inv_temperature = check_arguments(hidden[..., :0], labels, top_p, temperature)
    check_labels(labels, weight.shape[0])
    module = load_backend(backend_name(backend, hidden, None))
    outputs = _LinearTokenStatistics.apply(
        hidden.reshape(-1, hidden.shape[-1]),
        weight,
        bias,
        labels.reshape(-1),
        inv_temperature,
        float(top_p),
        chunk_size,
        module,
    )
    return TokenStatistics.of([output.reshape(labels.shape) for output in outputs], weight.shape[0], float(top_p))


class _LinearTokenStatistics(torch.autograd.Function):
    """Only saves the arguments. Backward recomputes the logits of a chunk and their statistics, so nothing depends on
    two matrix products agreeing bit for bit on the tokens inside the nucleus."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, labels, inv_temperature, top_p, chunk_size, backend):
        scalars = torch.empty(10, labels.numel(), dtype=torch.float64, device=hidden.device)
        size = torch.empty(labels.numel(), dtype=torch.int64, device=hidden.device)
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, labels.numel(), chunk_size):
                rows = slice(start, start + chunk_size)
                logits = F.linear(hidden[rows], weight, bias)
                scalars[:, rows], size[rows] = backend.forward(logits, labels[rows], inv_temperature[rows], top_p)
                del logits  # before the next ones are created
        ctx.save_for_backward(hidden, weight, bias, labels, inv_temperature)
        ctx.settings = top_p, chunk_size, backend
        return outputs_of(ctx, scalars, size, hidden.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        hidden, weight, bias, labels, inv_temperature = ctx.saved_tensors
        upstream = upstream_of(gradients, labels < 0)
        wide = torch.promote_types(weight.dtype, torch.float32)
        to_hidden, to_weight, to_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.zeros_like(hidden) if to_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=wide) if to_weight else None
        grad_bias = torch.zeros_like(bias, dtype=wide) if to_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            for rows, gradient in _gradients_of_logits(ctx, hidden, weight, bias, labels, inv_temperature, upstream):
                if grad_hidden is not None:
                    grad_hidden[rows] = gradient @ weight
                if grad_weight is not None:
                    _add_product(grad_weight, gradient.t(), hidden[rows])
                if grad_bias is not None:
                    grad_bias += gradient.sum(0, dtype=wide)
        grad_weight = grad_weight.to(weight.dtype) if grad_weight is not None else None
        grad_bias = grad_bias.to(bias.dtype) if grad_bias is not None else None
        return grad_hidden, grad_weight, grad_bias, *[None] * 5


def _gradients_of_logits(
    ctx, hidden, weight, bias, labels, inv_temperature, upstream
) -> Iterator[tuple[Tensor, Tensor]]:
    """Chunks of the rows that receive a gradient, and the gradient of their logits, which overwrites them."""
    top_p, chunk_size, backend = ctx.settings
    receives = (upstream != 0).any(dim=0).nonzero()[:, 0]
    for rows in receives.split(chunk_size) if receives.numel() else ():
        logits = F.linear(hidden[rows], weight, bias)
        arguments = logits, labels[rows], inv_temperature[rows]
        scalars, _ = backend.forward(*arguments, top_p)
        backend.backward(*arguments, scalars, upstream[:, rows], logits)
        yield rows, logits
        del logits, arguments


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, summed in total's precision even if the factors are half as wide.

    The wide product (on a GPU) or the wide factors are tensors of their own, so they exist for PRODUCT_ROWS at a time.
    """
    if left.dtype == total.dtype:
        total.addmm_(left, right)
        return
    wide = right if total.is_cuda else right.to(total.dtype)
    for part, rows in zip(total.split(PRODUCT_ROWS), left.split(PRODUCT_ROWS), strict=True):
        if total.is_cuda:
            part += torch.mm(rows, wide, out_dtype=total.dtype)
        else:
            part.addmm_(rows.to(total.dtype), wide)


def _check_products(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, chunk_size: int) -> None:
    if hidden.dim() == 0 or weight.dim() != 2 or hidden.shape[-1] != weight.shape[1]:
        raise ValueError(f"hidden {list(hidden.shape)} and weight {list(weight.shape)}: must be [..., d] and [V, d]")
    if labels.shape != hidden.shape[:-1]:
        raise ValueError(f"hidden {list(hidden.shape)} and labels {list(labels.shape)}: must be [..., d] and [...]")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias {list(bias.shape)}: must be [V] = {list(weight.shape[:1])}")
    if hidden.dtype != weight.dtype or (bias is not None and bias.dtype != weight.dtype):
        raise TypeError(f"hidden has dtype {hidden.dtype}, weight {weight.dtype}: they and bias must have the same")
    if chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size!r}: must be an integer >= 1")
