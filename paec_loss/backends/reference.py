"""The definition: float64, sorted, in chunks of rows. Every other backend is tested against it."""

import math

import torch
from torch import Tensor

# A chunk of R rows keeps about this many float64 [R, V] tensors alive, and these together may take about 64 MiB.
_LIVE_TENSORS = 8
_CHUNK_BYTES = 64 * 2**20


def forward(logits: Tensor, labels: Tensor, inv_temperature: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Scalars [10, T] and nucleus sizes [T]; see `paec_loss.backends`."""
    tokens = labels.numel()
    scalars = torch.empty(10, tokens, dtype=torch.float64, device=logits.device)
    size = torch.empty(tokens, dtype=torch.int64, device=logits.device)
    for span in _spans(logits):
        rows = logits[span].double()
        scalars[:, span], size[span] = row_statistics(rows, labels[span], inv_temperature[span], top_p)
    return scalars, size


def backward(
    logits: Tensor, labels: Tensor, inv_temperature: Tensor, scalars: Tensor, upstream: Tensor, out: Tensor
) -> None:
    """Gradient of the rows into `out`; see `paec_loss.backends`."""
    for span in _spans(logits):
        rows = logits[span].double()
        out[span] = row_gradient(rows, labels[span], inv_temperature[span], scalars[:, span], upstream[:, span])


def _spans(logits: Tensor) -> list[slice]:
    tokens, vocab_size = logits.shape
    rows = max(1, _CHUNK_BYTES // (8 * _LIVE_TENSORS * vocab_size))
    return [slice(start, min(start + rows, tokens)) for start in range(0, tokens, rows)]


def row_statistics(z: Tensor, labels: Tensor, inv_temperature: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Scalars [10, R] and nucleus sizes [R] of rows z [R, V], float64.

    Everything is summed in sorted order, so that results are bitwise independent of the order of the vocabulary.
    """
    ordered = z.sort(dim=-1, descending=True).values
    maximum = ordered[:, 0]  # NaN sorts first, so the maximum also shows whether the row is valid
    x = (ordered - maximum[:, None]) * inv_temperature[:, None]
    weight = x.exp()
    cumulative = weight.cumsum(dim=-1)
    cumulative_x = torch.where(weight == 0, 0.0, weight * x).cumsum(dim=-1)  # 0 log 0 = 0
    total, total_x = cumulative[:, -1], cumulative_x[:, -1]
    # The maximum counts 1. Summing the rest without it keeps full precision in rows where the rest is tiny.
    rest = torch.nn.functional.pad(weight[:, 1:].cumsum(dim=-1), (1, 0))
    log_sum = rest[:, -1].log1p()

    if top_p >= 1:  # cumulative mass reaches 1 by rounding before the last token does
        size = (ordered != -math.inf).sum(dim=-1)
    else:
        size = 1 + (cumulative[:, :-1] < top_p * total[:, None]).sum(dim=-1)
    last = (size - 1).clamp_min(0)[:, None]
    threshold = ordered.gather(1, last)
    tied_inside = size - (ordered > threshold).sum(dim=-1)
    tie_weight = tied_inside.double() / (ordered == threshold).sum(dim=-1)
    nucleus, nucleus_x = cumulative.gather(1, last)[:, 0], cumulative_x.gather(1, last)[:, 0]
    log_nucleus = rest.gather(1, last)[:, 0].log1p()

    # x <= 0 and the totals are >= 1, so both entropies add two terms >= 0: nothing cancels.
    label_x = (z.gather(1, labels.clamp_min(0)[:, None])[:, 0] - maximum) * inv_temperature
    scalars = torch.stack(
        [
            torch.where(labels < 0, 0.0, label_x - log_sum),
            log_sum - total_x / total,
            log_nucleus - nucleus_x / nucleus,
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


def row_gradient(z: Tensor, labels: Tensor, inv_temperature: Tensor, scalars: Tensor, upstream: Tensor) -> Tensor:
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
