"""Ways to compute the statistics of logits rows: one module each, all with the same two functions.

`forward(logits, labels, inv_temperature, top_p) -> (scalars, size)`
    logits [T, V] of any floating dtype and any strides; labels [T] int64, negative where there is none;
    inv_temperature [T] float64; top_p in (0, 1]. Returns the SCALARS, float64 [10, T], and the nucleus sizes [T] int64.
    A row with NaN or +inf, or all -inf, has NaN in every scalar and size 0.

`backward(logits, labels, inv_temperature, scalars, upstream, out)`
    Writes to `out` [T, V], which may be `logits` itself, the gradient of
    sum_t (upstream[0] log_prob + upstream[1] entropy + upstream[2] nucleus_entropy) in the logits; upstream is float64
    [3, T], zero in row 0 where the label is negative. A row whose three upstream values are 0 gets zeros, even if its
    logits are NaN; an entry whose logit is -inf gets 0. `reference.row_gradient` is the definition.
"""

SCALARS = (
    "log_prob",
    "entropy",
    "nucleus_entropy",
    "nucleus_mass",
    "top1_log_prob",
    "top2_log_prob",
    "maximum",  # largest logit of the row
    "log_sum",  # log sum_j exp((z_j - maximum) / temperature)
    "threshold",  # the logit at the edge of the nucleus: tokens above it are inside with weight 1
    "tie_weight",  # weight of the tokens whose logit equals the threshold
)
"""The rows of `scalars`; the first six are TokenStatistics' fields, the others are needed by backward."""
