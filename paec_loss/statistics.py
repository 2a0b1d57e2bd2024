"""Per-token statistics of the policy from one logits tensor, with analytic gradients.

The nucleus is exact: the shortest prefix of the sorted probabilities whose mass reaches top_p, the crossing token
included. All inner arithmetic is float64, in chunks of rows, so that nothing of the size of the logits is allocated
but their gradient.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

# A chunk of R rows keeps about this many float64 [R, V] tensors alive, and these together may take about 64 MiB.
_LIVE_TENSORS = 8
_CHUNK_BYTES = 64 * 2**20


@dataclass
class TokenStatistics:
    """Statistics of the next-token distribution, each tensor of one leading shape [...].

    Floating fields are float32 (float64 when the logits are). Entropies and log-probs are in nats. A row whose logits
    hold NaN or +inf, or are all -inf, has NaN in every floating field and nucleus_size 0.
    """

    log_prob: Tensor
    """[...] log-prob of the label, with gradient; 0 where the label is negative."""

    entropy: Tensor
    """[...] entropy over the whole vocabulary, with gradient."""

    nucleus_entropy: Tensor
    """[...] entropy of the distribution renormalised inside the nucleus, with gradient; 0 for a single token."""

    nucleus_size: Tensor
    """[...] int64, number of tokens in the nucleus, counted with multiplicity when logits tie at its edge."""

    nucleus_mass: Tensor
    """[...] probability of the nucleus, >= top_p."""

    top1_log_prob: Tensor
    """[...] largest log-prob."""

    top2_log_prob: Tensor
    """[...] second largest log-prob, equal to the first on a tie; -inf when the vocabulary has one entry."""

    vocab_size: int
    """V, the number of logits of a row."""

    def map(self, fn: Callable[[Tensor], Tensor]) -> "TokenStatistics":
        """A copy with `fn` applied to every tensor, for example a reshape or a gather of rows."""
        return replace(self, **{f.name: fn(getattr(self, f.name)) for f in fields(self) if f.name != "vocab_size"})

    def detach(self) -> "TokenStatistics":
        """A copy that shares the values and carries no gradient."""
        return self.map(Tensor.detach)


def token_statistics(
    logits: Tensor,
    labels: Tensor,
    *,
    top_p: float,
    temperature: float | Tensor = 1.0,
    chunk_size: int | None = None,
) -> TokenStatistics:
    """Log-prob, entropy, nucleus and top two of softmax(logits / temperature), one pass over the logits.

    With x = logits / temperature, p = softmax(x), and weights w that are 1 inside the nucleus, r/c on the c tokens that
    tie at its edge when r of them belong to it, 0 outside; M = sum w p, pi = p / M (PAEC, definition of H_t; [P] the
    top-p entropy, [D] the crossing token included). The weights carry no gradient. Gradients in x:
    log_prob 1[j = label] - p_j; entropy -p_j (log p_j + H); nucleus_entropy -w_j pi_j (log pi_j + H_nucleus).

    Args:
        logits: [..., V], bfloat16, float16, float32 or float64. -inf is legal: probability and gradient 0.
        labels: [...] int64. A negative label (such as -100) has log_prob 0 and sends no gradient through it.
        top_p: mass of the nucleus in (0, 1]; 1 takes every token whose logit is not -inf.
        temperature: a positive number, or a tensor [...] with one for each token; a constant for autograd.
        chunk_size: rows worked on at once; by default as many as keep the float64 work at about 64 MiB.

    Returns:
        TokenStatistics; log_prob, entropy and nucleus_entropy are differentiable, the gradient has the dtype of the
        logits. A row that receives no gradient sends none, even where its logits are NaN, so padding cannot leak.

    Raises:
        TypeError: logits that are a DTensor or not floating, labels that are not int64.
        ValueError: shapes that differ, V = 0, a label >= V, top_p, temperature or chunk_size out of range.
    """
    _check_arguments(logits, labels, top_p, chunk_size)
    inv_temperature = _inverse_temperature(temperature, labels)
    vocab_size = logits.shape[-1]
    if labels.dim() == 0:
        logits, labels = logits.unsqueeze(0), labels.unsqueeze(0)
        shape = ()
    else:
        shape = labels.shape
    rows = chunk_size or max(1, _CHUNK_BYTES // (8 * _LIVE_TENSORS * vocab_size))
    outputs = _TokenStatisticsFunction.apply(logits, labels, inv_temperature, float(top_p), rows)
    return TokenStatistics(*(output.reshape(shape) for output in outputs), vocab_size=vocab_size)


class _TokenStatisticsFunction(torch.autograd.Function):
    """Rows in chunks; saves the logits, the labels and ten float64 scalars a row, and recomputes the rest."""

    @staticmethod
    def forward(ctx, logits, labels, inv_temperature, top_p, rows):
        scalars = torch.empty(10, labels.numel(), dtype=torch.float64, device=logits.device)
        size = torch.empty(labels.numel(), dtype=torch.int64, device=logits.device)
        for span, index in _chunks(labels, rows):
            scalars[:, span], size[span] = _row_statistics(
                logits[index].double(), labels[index], inv_temperature[span], top_p
            )
        ctx.save_for_backward(logits, labels, inv_temperature, scalars)
        ctx.rows = rows
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        # Copies: an output that the caller changes in place must not be what backward reads.
        outputs = [row.to(dtype, copy=True) for row in scalars[:6]]
        outputs.insert(3, size)
        ctx.mark_non_differentiable(*outputs[3:])
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_log_prob, grad_entropy, grad_nucleus_entropy, *_):
        logits, labels, inv_temperature, scalars = ctx.saved_tensors
        grad_log_prob = torch.where(labels.reshape(-1) < 0, 0.0, grad_log_prob)
        upstream = torch.stack([grad_log_prob, grad_entropy, grad_nucleus_entropy]).double()
        grad = torch.empty_like(logits)
        for span, index in _chunks(labels, ctx.rows):
            grad[index] = _row_gradient(
                logits[index].double(), labels[index], inv_temperature[span], scalars[:, span], upstream[:, span]
            ).to(grad.dtype)
        return grad, None, None, None, None


def _row_statistics(z: Tensor, labels: Tensor, inv_temperature: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Scalars [10, R] and nucleus sizes [R] of rows z [R, V], float64.

    Everything is summed in sorted order, so that a permutation of the vocabulary changes no bit.
    """
    ordered = z.sort(dim=-1, descending=True).values
    maximum = ordered[:, 0]  # NaN sorts first, so the maximum also says whether the row is sound
    x = (ordered - maximum[:, None]) * inv_temperature[:, None]
    weight = x.exp()
    cumulative = weight.cumsum(dim=-1)
    cumulative_x = torch.where(weight == 0, 0.0, weight * x).cumsum(dim=-1)  # 0 log 0 = 0
    total, total_x = cumulative[:, -1], cumulative_x[:, -1]

    if top_p >= 1:  # cumulative mass reaches 1 by rounding before the last token does
        size = (ordered != -math.inf).sum(dim=-1)
    else:
        size = 1 + (cumulative[:, :-1] < top_p * total[:, None]).sum(dim=-1)
    last = (size - 1).clamp_min(0)[:, None]
    threshold = ordered.gather(1, last)
    tied_inside = size - (ordered > threshold).sum(dim=-1)
    tie_weight = tied_inside.double() / (ordered == threshold).sum(dim=-1)
    nucleus, nucleus_x = cumulative.gather(1, last)[:, 0], cumulative_x.gather(1, last)[:, 0]

    # x <= 0 and the totals are >= 1, so both entropies add two terms >= 0: nothing cancels.
    log_sum = total.log()
    label_x = (z.gather(1, labels.clamp_min(0)[:, None])[:, 0] - maximum) * inv_temperature
    scalars = torch.stack(
        [
            torch.where(labels < 0, 0.0, label_x - log_sum),
            log_sum - total_x / total,
            nucleus.log() - nucleus_x / nucleus,
            nucleus / total,
            -log_sum,
            x[:, 1] - log_sum if z.shape[1] > 1 else torch.full_like(log_sum, -math.inf),
            maximum,
            log_sum,
            threshold[:, 0],
            tie_weight,
        ]
    )
    sound = maximum.isfinite()
    return torch.where(sound, scalars, math.nan), torch.where(sound, size, 0)


def _row_gradient(z: Tensor, labels: Tensor, inv_temperature: Tensor, scalars: Tensor, upstream: Tensor) -> Tensor:
    """Gradient [R, V] in z of rows z [R, V], from the scalars [10, R] and the incoming gradients [3, R], float64."""
    _, entropy, nucleus_entropy, mass, _, _, maximum, log_sum, threshold, tie_weight = scalars[:, :, None].unbind()
    grad_log_prob, grad_entropy, grad_nucleus_entropy = upstream[:, :, None].unbind()
    log_p = (z - maximum) * inv_temperature[:, None] - log_sum
    p = log_p.exp()
    log_p = torch.where(p == 0, 0.0, log_p)
    # The threshold is a stored logit, compared with stored logits: no rounding can move a token across the edge.
    inside = torch.where(z == threshold, tie_weight, (z > threshold).double())
    grad = -p * (grad_log_prob + grad_entropy * (log_p + entropy))
    grad -= grad_nucleus_entropy * inside * (p / mass) * (log_p - mass.log() + nucleus_entropy)
    grad.scatter_add_(1, labels.clamp_min(0)[:, None], grad_log_prob)
    receives = (upstream != 0).any(dim=0)[:, None] & (z != -math.inf)
    return torch.where(receives, grad * inv_temperature[:, None], 0.0)


def _chunks(labels: Tensor, rows: int) -> Iterator[tuple[slice, tuple[Tensor, ...]]]:
    """Spans of the flattened rows and their index; an index, because a view is not possible for every stride."""
    for start in range(0, labels.numel(), rows):
        span = slice(start, min(start + rows, labels.numel()))
        yield span, torch.unravel_index(torch.arange(span.start, span.stop, device=labels.device), labels.shape)


def _check_arguments(logits: Tensor, labels: Tensor, top_p: float, chunk_size: int | None) -> None:
    if isinstance(logits, DTensor):
        raise TypeError(
            "logits are a DTensor: pass the local tensor of a sequence shard; vocabulary shards need another path"
        )
    if not logits.is_floating_point():
        raise TypeError(f"logits have dtype {logits.dtype}: must be floating")
    if labels.dtype != torch.int64:
        raise TypeError(f"labels have dtype {labels.dtype}: must be int64")
    if logits.dim() == 0 or logits.shape[:-1] != labels.shape:
        raise ValueError(f"logits {list(logits.shape)} and labels {list(labels.shape)}: must be [..., V] and [...]")
    if logits.shape[-1] == 0:
        raise ValueError(f"logits {list(logits.shape)}: the vocabulary must have at least one entry")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p!r}: must be in (0, 1]")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size!r}: must be at least 1 row, or None to choose it")
    if (labels >= logits.shape[-1]).any():
        raise ValueError(f"labels reach {labels.max().item()}: must be below the vocabulary size {logits.shape[-1]}")


def _inverse_temperature(temperature: float | Tensor, labels: Tensor) -> Tensor:
    """1 / temperature of every row, [T] float64."""
    if not isinstance(temperature, Tensor):
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature={temperature!r}: must be positive and finite")
        return torch.full((labels.numel(),), 1 / temperature, dtype=torch.float64, device=labels.device)
    if temperature.shape != labels.shape:
        raise ValueError(
            f"temperature {list(temperature.shape)}: must have the shape {list(labels.shape)} of the labels"
        )
    per_token = temperature.detach().to(labels.device, torch.float64).reshape(-1)
    if not ((per_token > 0) & per_token.isfinite()).all():
        raise ValueError("temperature: every value must be positive and finite")
    return per_token.reciprocal()
