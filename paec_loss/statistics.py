"""Per-token statistics of the policy from one logits tensor, with analytic gradients.

The nucleus is exact: the shortest prefix of the sorted probabilities whose mass reaches top_p, the crossing token
included. Backends (`paec_loss.backends`) compute it; none of them allocates anything of the size of
the logits except their gradient.
"""

import functools
import importlib
import importlib.util
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

from paec_loss.sharding import WHOLE, VocabularyShard

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

BACKENDS = {
    "reference": "paec_loss.backends.reference",
    "torch": "paec_loss.backends.torch_backend",
    "numba": "paec_loss.backends.numba_backend",
    "triton": "paec_loss.backends.triton_backend",
}


class _Nucleus:
    """The mass of the nucleus, in a slot: code that goes over the fields finds the tensors and vocab_size alone."""

    __slots__ = ("_top_p",)
    _top_p: float | None


@dataclass
class TokenStatistics(_Nucleus):
    """Statistics of the next-token distribution, each tensor of one leading shape [...].

    Floating fields are float32 (float64 when the logits are). Entropies and log-probs are in nats. A row whose logits
    contain NaN or +inf, or are all -inf, has NaN in every floating field and nucleus_size 0.
    """

    log_prob: Tensor
    """[...] log-prob of the label, with gradient; 0 where the label is negative."""

    entropy: Tensor
    """[...] entropy over the full vocabulary, with gradient."""

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

    @property
    def top_p(self) -> float | None:
        """Mass of the nucleus; None if it is not known: in a record made of its fields, or by `dataclasses.replace`."""
        return getattr(self, "_top_p", None)

    @property
    def sound(self) -> Tensor:
        """[...] bool, whether the row's logits were free of NaN and +inf (and not all -inf)."""
        return self.nucleus_size > 0

    def map(self, fn: Callable[[Tensor], Tensor]) -> "TokenStatistics":
        """A copy with `fn` applied to every tensor, for example a reshape or a gather of rows."""
        return self.of([fn(getattr(self, name)) for name in _tensor_names()], self.vocab_size, self.top_p)

    @classmethod
    def of(cls, tensors: Iterable[Tensor], vocab_size: int, top_p: float | None = None) -> "TokenStatistics":
        """From the tensors in the order of the fields."""
        made = cls(**dict(zip(_tensor_names(), tensors, strict=True)), vocab_size=vocab_size)
        made._top_p = top_p
        return made

    def padded(self, mask: Tensor) -> "TokenStatistics":
        """Statistics [T] of packed responses as [B, R], zeros at padding; `mask` [B, R] is True at their T tokens."""
        return self.map(lambda values: values.new_zeros(mask.shape).masked_scatter(mask, values))

    def detach(self) -> "TokenStatistics":
        """A copy that shares the values and carries no gradient."""
        return self.map(Tensor.detach)


@functools.cache
def _tensor_names() -> list[str]:
    return [field.name for field in fields(TokenStatistics) if field.name != "vocab_size"]


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """`torch.compiler.disable`, which takes seconds to import, only where something is compiled."""

    @functools.wraps(function)
    def called(*args: P.args, **options: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **options)
        return function(*args, **options)

    return called


@uncompiled
def token_statistics(
    logits: Tensor,
    labels: Tensor,
    *,
    top_p: float,
    temperature: float | Tensor = 1.0,
    group: dist.ProcessGroup | None = None,
    backend: str = "auto",
    inplace_backward: bool = False,
) -> TokenStatistics:
    """Log-prob, entropy, nucleus and top two of softmax(logits / temperature), one pass over the logits.

    With x = logits / temperature, p = softmax(x), and weights w that are 1 inside the nucleus, r/c on the c tokens that
    tie at its edge when r of them belong to it, 0 outside; M = sum w p, pi = p / M (PAEC, definition of H_t; [P] the
    top-p entropy, [D] the crossing token included). The weights carry no gradient. Gradients in x:
    log_prob 1[j = label] - p_j; entropy -p_j (log p_j + H); nucleus_entropy -w_j pi_j (log pi_j + H_nucleus).

    Args:
        logits: [..., V], bfloat16, float16, float32 or float64. -inf is legal: probability and gradient 0. A DTensor
            may be sharded on its last dimension over one mesh dimension.
        labels: [...] int64. A negative label (such as -100) has log_prob 0 and sends no gradient through it.
        top_p: mass of the nucleus in (0, 1]; 1 takes every token whose logit is not -inf.
        temperature: a positive number, or a tensor [...] with one for each token; a constant for autograd.
        group: the process group over which the vocabulary is split; `logits` are then this rank's columns, in the order
            of the ranks, and labels count over the full vocabulary. All ranks pass the same rows, labels, temperature
            and top_p, get the same statistics, and must derive the same loss from them: the gradient of each rank's
            columns then needs no communication.
        backend: "reference" (float64, sorted: the definition), "torch" (sort-free, any device, the one for shards),
            "numba" (CPU), "triton" (CUDA, not float64), or "auto": numba on a CPU and triton on CUDA where they are
            installed and can take the logits, else torch. "auto" logs its choice once.
        inplace_backward: let the backward pass overwrite the logits with the gradient. Anything else that needs their
            values in its own backward pass then fails with autograd's error about a modified tensor.

    Returns:
        TokenStatistics; log_prob, entropy and nucleus_entropy are differentiable, the gradient has the dtype of the
        logits. A row that receives no gradient sends none, even if its logits are NaN, so padding cannot leak.

    Raises:
        TypeError: logits that are not floating, or a DTensor with other placements; labels that are not int64.
        ValueError: shapes that differ, V = 0, a label >= V, top_p or temperature out of range, an unknown backend or
            one that cannot take these logits, `inplace_backward` on logits that must survive. With a group, one bad
            rank raises on all.
    """
    if inplace_backward:
        _check_overwritable(logits)
    if isinstance(logits, DTensor):
        logits, group = _vocabulary_shard(logits, group)
    labels = labels.to_local() if isinstance(labels, DTensor) else labels
    shard = WHOLE
    if group is None:
        inv_temperature = check_arguments(logits, labels, top_p, temperature)
    else:
        shard, inv_temperature = _agreed_shard(group, logits, labels, top_p, temperature)
    vocab_size = shard.vocab_size(logits)
    check_labels(labels, vocab_size)
    name = backend_name(backend, logits, group)
    shape = labels.shape
    if labels.dim() == 0:
        logits, labels = logits.unsqueeze(0), labels.unsqueeze(0)
    outputs = _TokenStatisticsFunction.apply(
        logits, labels, inv_temperature, float(top_p), shard, load_backend(name), inplace_backward
    )
    return TokenStatistics.of([output.reshape(shape) for output in outputs], vocab_size, float(top_p))


class _TokenStatisticsFunction(torch.autograd.Function):
    """Saves the logits, the labels and ten float64 scalars per row, and recomputes the rest."""

    @staticmethod
    def forward(ctx, logits, labels, inv_temperature, top_p, shard, backend, inplace_backward):
        scalars = torch.empty(10, labels.numel(), dtype=torch.float64, device=logits.device)
        size = torch.empty(labels.numel(), dtype=torch.int64, device=logits.device)
        flat = labels.reshape(-1)
        extra = (shard,) if shard.group else ()
        for span, rows in matrices(logits):
            scalars[:, span], size[span] = backend.forward(rows, flat[span], inv_temperature[span], top_p, *extra)
        ctx.save_for_backward(logits, shard.local_labels(flat, logits.shape[-1]), inv_temperature, scalars)
        ctx.backend, ctx.inplace, ctx.ignored = backend, inplace_backward, flat < 0
        return outputs_of(ctx, scalars, size, logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        logits, labels, inv_temperature, scalars = ctx.saved_tensors
        upstream = upstream_of(gradients, ctx.ignored)
        # A new tensor is contiguous, so that any span of its rows is one matrix, whatever the strides of the logits.
        gradient = logits.detach() if ctx.inplace else torch.empty_like(logits, memory_format=torch.contiguous_format)
        for span, rows in matrices(logits.detach()):
            out = rows if ctx.inplace else gradient.view(len(labels), logits.shape[-1])[span]
            row_scalars = scalars[:, span]
            ctx.backend.backward(rows, labels[span], inv_temperature[span], row_scalars, upstream[:, span], out)
        if ctx.inplace:
            # Not every kernel tells autograd about its write: others that saved these logits must notice it.
            torch.autograd.graph.increment_version(logits)
        return gradient, *[None] * 6


def outputs_of(ctx, scalars: Tensor, size: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """What an autograd function returns: the fields of TokenStatistics, [T] each, for logits of that dtype."""
    # Copies: backward must not read an output that the caller may change in place.
    outputs = [row.to(torch.promote_types(dtype, torch.float32), copy=True) for row in scalars[:6]]
    outputs.insert(3, size)
    ctx.mark_non_differentiable(*outputs[3:])
    return tuple(outputs)


def upstream_of(gradients: tuple[Tensor, ...], ignored: Tensor) -> Tensor:
    """The gradients of the three differentiable fields, float64 [3, T]; none through the log-prob where ignored [T]."""
    grad_log_prob, grad_entropy, grad_nucleus_entropy, *_ = gradients
    return torch.stack([grad_log_prob.masked_fill(ignored, 0.0), grad_entropy, grad_nucleus_entropy]).double()


def matrices(logits: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Logits [..., V] as matrices [rows, V] without a copy, with their slices of the rows; one if strides allow."""
    try:
        tokens = math.prod(logits.shape[:-1])
        yield slice(0, tokens), logits.view(tokens, logits.shape[-1])
    except RuntimeError:  # such as [B, L, V] cut to [:, :-1]
        start = 0
        for part in logits:
            for span, rows in matrices(part):
                yield slice(start + span.start, start + span.stop), rows
            start += math.prod(part.shape[:-1])


# ---- backends --------------------------------------------------------------------------------------------------------


def load_backend(name: str):
    """The module of the backend `name` (a key of BACKENDS)."""
    return importlib.import_module(BACKENDS[name])


def backend_name(backend: str, logits: Tensor, group: dist.ProcessGroup | None) -> str:
    """The backend that `backend` means for these logits: a key of BACKENDS. "auto" is logged once for each case."""
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"backend={backend!r}: must be auto, {', '.join(BACKENDS)}")
    if group is not None and backend not in ("auto", "torch"):
        raise ValueError(f"backend={backend!r}: a vocabulary split over a group needs backend='torch' (or 'auto')")
    if backend == "triton" and logits.dtype == torch.float64:
        raise ValueError("backend='triton': float64 logits need backend='torch' or 'reference'")
    if backend == "numba" and logits.device.type != "cpu":
        raise ValueError(
            f"backend='numba': the logits are on {logits.device.type}: use 'auto', or move them to the CPU"
        )
    if backend in ("numba", "triton") and not _installed(backend):
        raise ValueError(f"backend={backend!r}: {backend} is not installed; install it, or use backend='auto'")
    if backend == "auto":
        backend = _fastest(logits, group)
        _log_choice(backend, logits.device.type, str(logits.dtype), group is not None)
    return backend


def _fastest(logits: Tensor, group: dist.ProcessGroup | None) -> str:
    if group is None and logits.is_cuda and logits.dtype != torch.float64 and _installed("triton"):
        return "triton"
    if group is None and logits.device.type == "cpu" and _installed("numba"):
        return "numba"
    return "torch"


@functools.cache
def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


@functools.cache
def _log_choice(name: str, device: str, dtype: str, sharded: bool) -> None:
    where = " shards of the vocabulary" if sharded else ""
    logger.info("token statistics of %s logits on %s%s: backend %s", dtype, device, where, name)


# ---- arguments -------------------------------------------------------------------------------------------------------


def check_arguments(logits: Tensor, labels: Tensor, top_p: float, temperature: float | Tensor) -> Tensor:
    """Check that the arguments of `token_statistics` fit together; returns 1 / temperature, float64 [T]."""
    if not logits.is_floating_point():
        raise TypeError(f"logits have dtype {logits.dtype}: must be floating-point")
    if labels.dtype != torch.int64:
        raise TypeError(f"labels have dtype {labels.dtype}: must be int64")
    if logits.dim() == 0 or logits.shape[:-1] != labels.shape:
        raise ValueError(f"logits {list(logits.shape)} and labels {list(labels.shape)}: must be [..., V] and [...]")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p!r}: must be in (0, 1]")
    return _inverse_temperature(temperature, labels)


def check_labels(labels: Tensor, vocab_size: int) -> None:
    """Raise ValueError if a label is not below the vocabulary's size."""
    if vocab_size == 0:
        raise ValueError("logits: the vocabulary must have at least one entry")
    if (labels >= vocab_size).any():
        raise ValueError(f"labels go up to {labels.max().item()}: must be below the vocabulary size {vocab_size}")


def _agreed_shard(
    group, logits: Tensor, labels: Tensor, top_p: float, temperature: float | Tensor
) -> tuple[VocabularyShard, Tensor]:
    """The shard and 1 / temperature, if the arguments of all ranks are valid and equal; else all ranks raise."""
    error: Exception | None = None
    settings, inv_temperature = [0.0, 0.0], torch.empty(0)
    try:
        inv_temperature = check_arguments(logits, labels, top_p, temperature)
        settings = [float(top_p), float(inv_temperature.sum())]
    except (TypeError, ValueError) as found:
        error = found
    return VocabularyShard.of(group, logits, labels, settings, error), inv_temperature


def _vocabulary_shard(logits: DTensor, group) -> tuple[Tensor, dist.ProcessGroup]:
    """The local columns of a DTensor that is sharded on its last dimension only, and the group of the shards."""
    sharded = [dim for dim, placement in enumerate(logits.placements) if not placement.is_replicate()]
    if group is not None:
        raise ValueError("group: DTensor logits have their own group; leave group out")
    if len(sharded) != 1 or not logits.placements[sharded[0]].is_shard(logits.dim() - 1):
        columns = [dim for dim in sharded if logits.placements[dim].is_shard(logits.dim() - 1)]
        group = f" and group=logits.device_mesh.get_group({columns[0]})" if columns else ""
        raise TypeError(
            f"logits are a DTensor with placements {logits.placements}: must be sharded on the last dimension over one "
            "mesh dimension and replicated over the others; for rows that are split, pass "
            f"logits.to_local(){group}"
        )
    return logits.to_local(), logits.device_mesh.get_group(sharded[0])


def _check_overwritable(logits: Tensor) -> None:
    if logits.requires_grad and logits.is_leaf:
        raise ValueError("inplace_backward: the logits are a leaf, which the gradient would overwrite; leave it false")
    if logits.retains_grad:
        raise ValueError(
            "inplace_backward: the logits retain their gradient, so they cannot also hold it; leave it false"
        )


def _inverse_temperature(temperature: float | Tensor, labels: Tensor) -> Tensor:
    """1 / temperature of every row, [T] float64."""
    if not isinstance(temperature, Tensor):
        if not (math.isfinite(temperature) and temperature > 0 and math.isfinite(1 / temperature)):
            raise ValueError(f"temperature={temperature!r}: must be positive and finite, and 1 / temperature finite")
        return torch.full((labels.numel(),), 1 / temperature, dtype=torch.float64, device=labels.device)
    if temperature.shape != labels.shape:
        raise ValueError(
            f"temperature {list(temperature.shape)}: must have the shape {list(labels.shape)} of the labels"
        )
    per_token = temperature.detach().to(labels.device, torch.float64).reshape(-1)
    inverse = per_token.reciprocal()
    if not ((per_token > 0) & per_token.isfinite() & inverse.isfinite()).all():
        raise ValueError("temperature: every value must be positive and finite, and 1 / temperature finite")
    return inverse
