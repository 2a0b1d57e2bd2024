"""Token entropy of a step by what became of its responses: right, wrong and cut off, and by data source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, tensor

from recipe.paec.run.metric_names import ENTROPY


def by_outcome(
    entropy: Tensor, inside: Tensor, right: Tensor, truncated: Tensor, sources: Sequence[str] = ()
) -> dict[str, float]:
    """`actor/entropy/right`, `/wrong`, `/truncated` and, with several data sources, `/<source>`: token means, nats.

    Absent where a step has no such response. A source is named as in `val/<source>/...`; one named
    right, wrong or truncated gets no metric of its own.

    Args:
        entropy, inside: [B, R] of each token, and whether the loss sees it.
        right: [B] whether a response has the full score; all others are wrong.
        truncated: [B] whether it was cut off at the maximum length, right or wrong.
        sources: B data sources.
    """
    names = sorted(set(sources))
    of_source = {name: tensor([source == name for source in sources]) for name in names} if len(names) > 1 else {}
    rows: Mapping[str, Tensor] = {**of_source, "right": right, "wrong": ~right, "truncated": truncated}
    sums, counts = entropy.double().where(inside, 0.0).sum(-1), inside.sum(-1)
    return {
        f"{ENTROPY}/{name}": (sums[chosen].sum() / counts[chosen].sum()).item()
        for name, chosen in rows.items()
        if counts[chosen].sum() > 0
    }
