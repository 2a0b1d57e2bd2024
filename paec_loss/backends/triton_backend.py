"""Triton kernels: one read of the logits forward, one read and one write backward, no [T, V] temporary.

Forward. One program per row. While it sums the row it lists the groups of neighbouring logits that contain a large one,
and leaves them out of the sums. Then it sums the listed groups in float64 and searches the nucleus on them: the list
has every logit above the largest one outside it, so the search is exact if the mass above that one reaches top_p. If it
does not (flat rows, a list that overflowed), a second kernel searches the full row.

Backward. With s = logit - maximum, the gradient of each logit is exp(s / temperature) (a s + b), where (a, b) is one of
three pairs: outside the nucleus, inside, or on its edge.

Sums are float32 inside a group and float64 beyond. Logits are compared as stored, never scaled.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

GROUP_BYTES = 16
"""Logits are processed in groups of this size, which one thread loads in a single access."""
GROUPS, WARPS, STAGES = 128, 1, 3
"""Forward: groups of a tile, warps that share it, and tiles in flight. One warp needs no barriers."""
SEARCH_GROUPS, SEARCH_WARPS = 512, 8
"""The search of full rows. With 16 warps its sums would not fit into the registers."""
PIVOTS, ROUNDS = 16, 3
"""The search divides its bracket into PIVOTS + 1 parts per read; after at most ROUNDS reads it lists the rest."""
FOUND = 2048
"""Logits, 4 bytes each, that the search can list."""
LOOSE_GROUPS, LOOSE_SEARCH_GROUPS, LOOSE_PIVOTS = 32, 64, 8
"""The same if rows are not a sequence of aligned groups: each logit then has its own address and mask, and more of
them, or several tiles in flight, do not fit into the registers. See `whole_groups`."""
BACKWARD_BLOCK, BACKWARD_WARPS = 4096, 4
CAPACITY = 1024
"""Groups per row, 4 bytes each, after which only those that contain a new maximum are listed."""
RESERVE = 64
"""Places reserved for these, so that near-one-hot rows always have their maximum on the list, and full precision."""
SELECT_GROUPS = 32
"""Listed groups of a tile: one for each thread."""

# A logit is listed when it lies within 11 nats of the largest of: log-sum-exp so far, maximum, the label's
# logit. A smaller value gives shorter lists and more full searches; the results do not depend on it.
LIST_BITS = tl.constexpr(11.0 / math.log(2))

_INF = tl.constexpr(math.inf)
_NAN = tl.constexpr(math.nan)
_LOWEST = tl.constexpr(torch.finfo(torch.float32).min)
_LOG2_E = tl.constexpr(1 / math.log(2))
_LN_2 = tl.constexpr(math.log(2))

_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def forward(logits: Tensor, labels: Tensor, inv_temperature: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Scalars [10, T] and nucleus sizes [T]; see `paec_loss.backends`. At top_p = 1 the threshold is -inf.

    Reads the logits once, and two to four times more in the rows that are searched in full. Allocates the results and
    the lists, 8 KiB per row. Never waits for the device.
    """
    _check_dtype(logits)
    tokens, vocab_size = logits.shape
    scalars = torch.empty(10, tokens, dtype=torch.float64, device=logits.device)
    size = torch.empty(tokens, dtype=torch.int64, device=logits.device)
    if tokens == 0:
        return scalars, size
    listed = torch.empty(tokens, list_places(), dtype=torch.int32, device=logits.device)
    arguments = (logits, labels.contiguous(), inv_temperature.contiguous(), scalars, size, listed, tokens, vocab_size)
    with torch.cuda.device_of(logits):
        for kernel, constants, warps in forward_launches(logits.dtype, top_p, whole=whole_groups(logits)):
            kernel[(tokens,)](*arguments, *logits.stride(), **constants, num_warps=warps)
    return scalars, size


def backward(
    logits: Tensor, labels: Tensor, inv_temperature: Tensor, scalars: Tensor, upstream: Tensor, out: Tensor
) -> None:
    """Gradient of the rows into `out`; see `paec_loss.backends`. One read, one write, nothing allocated."""
    _check_dtype(logits)
    tokens, vocab_size = logits.shape
    if tokens == 0:
        return
    kernel, constants, warps = backward_launch()
    with torch.cuda.device_of(logits):
        kernel[(tokens,)](
            *(logits, labels.contiguous(), inv_temperature.contiguous(), scalars.contiguous(), upstream.contiguous()),
            *(out, tokens, vocab_size, *logits.stride(), *out.stride()),
            **constants,
            num_warps=warps,
        )


# ---- what is launched, which benchmarks/kernel_resources.py compiles as well -----------------------------------------


def whole_groups(logits: Tensor) -> bool:
    """Whether every row is a sequence of aligned groups of 16 bytes: V and the rows' stride are divisible by 16, for
    which Triton compiles its own variant, and neighbours are contiguous. This holds for the common vocabularies
    (Qwen, Llama, ...).
    """
    aligned = logits.data_ptr() % GROUP_BYTES == 0 and logits.shape[1] % 16 == 0 and logits.stride(0) % 16 == 0
    return aligned and logits.stride(1) == 1


def list_places() -> int:
    """Number of 4-byte places in a row's list."""
    return max(CAPACITY + max(GROUPS, LOOSE_GROUPS) + RESERVE, FOUND)


def forward_launches(dtype: torch.dtype, top_p: float, *, whole: bool) -> list[tuple[triton.JITFunction, dict, int]]:
    """Kernels, their compile-time arguments and warps, in order."""
    group = GROUP_BYTES // dtype.itemsize
    groups = GROUPS if whole else LOOSE_GROUPS
    common = {"TOP_P": top_p, "PLACES": list_places(), "GROUP": group, "STAGES": STAGES if whole else 1}
    lists = {"CAPACITY": CAPACITY, "RESERVED": CAPACITY + groups + RESERVE, "LISTED_GROUPS": SELECT_GROUPS}
    launches = [(_forward_kernel, {**common, **lists, "GROUPS": groups}, WARPS)]
    if top_p < 1:
        groups, pivots = (SEARCH_GROUPS, PIVOTS) if whole else (LOOSE_SEARCH_GROUPS, LOOSE_PIVOTS)
        search = {"GROUPS": groups, "PIVOTS": pivots, "ROUNDS": ROUNDS, "FOUND": FOUND}
        launches.append((_search_kernel, {**common, **search}, SEARCH_WARPS))
    return launches


def backward_launch() -> tuple[triton.JITFunction, dict, int]:
    """The kernel, its compile-time arguments and warps."""
    return _backward_kernel, {"BLOCK": BACKWARD_BLOCK}, BACKWARD_WARPS


def _check_dtype(logits: Tensor) -> None:
    if logits.dtype not in _DTYPES:
        raise TypeError(f"logits have dtype {logits.dtype}: the Triton backend takes bfloat16, float16 and float32")


@triton.jit
def _two(value):
    """A float64 as a sum of two float32."""
    high = value.to(tl.float32)
    return high, (value - high).to(tl.float32)


@triton.jit
def _scales(inv_temperature):
    """1 / temperature, float64; times log2(e), two float32; an s whose e is 0 in float32."""
    slope, slope_low = _two(tl.minimum(tl.maximum(inv_temperature * _LOG2_E, 1e-35), 1e35))
    return inv_temperature, slope, slope_low, -200.0 / slope


@triton.jit
def _offset(z, maximum, lowest, FLOAT32: tl.constexpr):
    """z - maximum as (s, rest), s clamped at `lowest` and NaN kept.

    The rest is the rounding error of s (Knuth's two-sum). 16-bit logits are so short that it is 0 for nearly all.
    """
    difference = z - maximum
    s = tl.maximum(difference, lowest, propagate_nan=tl.PropagateNan.ALL)
    rest = tl.zeros_like(s)
    if FLOAT32:
        back = difference + maximum
        rest = (z - back) - ((difference - back) + maximum)
        rest = tl.where(difference > lowest, rest, 0.0)
    return s, rest


@triton.jit
def _exp(s, rest, scales, FLOAT32: tl.constexpr):
    """exp((s + rest) / temperature) to about 2e-7 for any negative s: the product is kept in two float32."""
    slope, slope_low = scales[1], scales[2]
    power = s * slope
    power_low = tl.fma(s, slope_low, tl.fma(s, slope, -power))
    if FLOAT32:
        power_low = tl.fma(rest, slope, power_low)
    e = tl.exp2(power)
    return tl.fma(e, power_low * _LN_2, e)


@triton.jit
def _log1p(value):
    """log(1 + value) of a float64 to full precision."""
    one_more = 1.0 + value
    return tl.where(one_more == 1.0, value, tl.log(one_more) * (value / (one_more - 1.0)))


@triton.jit
def _add_tile(
    z,
    start,
    listed,
    state,
    scales,
    FLOAT32: tl.constexpr,
    COUNT_FINITE: tl.constexpr,
    CAPACITY: tl.constexpr,
    RESERVED: tl.constexpr,
):
    """The running state after the tile z [GROUPS, GROUP], whose groups have the numbers from `start` on.

    State: count of listed groups; maximum of the row; total and total_s, float64 sums [GROUPS] of e = exp(s /
    temperature) and of e s over what is not listed; listed_total, that of e over the list, roughly; cut, from which on
    logits are listed; top1 and top2, the largest logits that are not; finite, the number of logits other than -inf.

    The usual tile has no logit above the cut and costs one reduction, that of its maximum.
    """
    count, maximum, total, total_s, listed_total, cut, top1, top2, finite = state
    inv_temperature, slope, slope_low, lowest = scales
    group_top = tl.max(z, axis=1)
    tile_top = tl.max(group_top, axis=0)
    rises = tile_top > maximum
    if rises:
        if maximum > -_INF:
            step = maximum.to(tl.float64) - tile_top
            factor = tl.exp(step * inv_temperature)
            total_s = factor * (total_s + total * step)
            total = factor * total
            listed_total = factor.to(tl.float32) * listed_total
        maximum = tile_top
        cut = tl.maximum(cut, maximum - 1.0 / slope * LIST_BITS)

    # 2^power lacks the rounding error of the power. The sums are corrected to first order, with `error` and `error` s,
    # the latter as if all of it came from the group's largest logit.
    reference = tl.where(maximum == -_INF, 0.0, maximum)
    s, rest = _offset(z, reference, lowest, FLOAT32)
    power = s * slope
    power_low = tl.fma(s, slope, -power)
    if FLOAT32:
        power_low = tl.fma(rest, slope, power_low)
    e = tl.exp2(power)
    group_total = tl.sum(e, axis=1)
    group_s = tl.sum(e * s, axis=1)
    error = (tl.sum(e * power_low, axis=1) + slope_low * group_s) * _LN_2
    group_total += error
    group_s += error * tl.maximum(group_top - reference, lowest)
    if COUNT_FINITE:
        finite += _count(z != -_INF)

    if (tile_top >= cut) & ((count < CAPACITY) | rises):
        seen = tl.sum(total.to(tl.float32) + group_total, axis=0) + listed_total
        cut = tl.maximum(cut, maximum + (tl.log2(seen) - LIST_BITS) / slope)
        large = (group_top >= cut) & ((count < CAPACITY) | (group_top == maximum))
        place = count + tl.cumsum(large.to(tl.int32), axis=0) - 1
        kept = large & (place < RESERVED)
        tl.store(listed + place, start + tl.arange(0, z.shape[0]), mask=kept)
        count += tl.sum(large.to(tl.int32), axis=0)
        listed_total += tl.sum(tl.where(kept, group_total, 0.0), axis=0)
        if count > RESERVED:  # the new maximum itself may be outside, and then its ties count
            outside = tl.where(kept[:, None], -_INF, z)
            tile_top = _max(outside)
            second = _max(tl.where(outside < tile_top, outside, -_INF))
            top2 = tl.maximum(top2, tl.where(_count(outside == tile_top) > 1, tile_top, second))
        else:
            tile_top = tl.max(tl.where(kept, -_INF, group_top), axis=0)
        count = tl.minimum(count, RESERVED)
        group_total = tl.where(kept, 0.0, group_total)
        group_s = tl.where(kept, 0.0, group_s)

    top2 = tl.maximum(top2, tl.minimum(top1, tile_top))
    top1 = tl.maximum(top1, tile_top)
    total += group_total
    total_s += group_s
    return count, maximum, total, total_s, listed_total, cut, top1, top2, finite


@triton.jit
def _max(z):
    return tl.max(tl.max(z, axis=1), axis=0)


@triton.jit
def _sum(values):
    return tl.sum(tl.sum(values, axis=1), axis=0)


@triton.jit
def _count(mask):
    return _sum(mask.to(tl.int32))


@triton.jit
def _load_groups(row, numbers, valid, vocab_size, stride_v, GROUP: tl.constexpr):
    """Groups of a row's logits as float32 [GROUPS, GROUP], -inf where there are none."""
    columns = numbers[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    mask = valid[:, None] & (columns < vocab_size)
    return tl.load(row + columns.to(tl.int64) * stride_v, mask=mask, other=-_INF).to(tl.float32)


@triton.jit
def _load_listed(source, start, maximum, scales, TILE: tl.constexpr, GROUP: tl.constexpr):
    """The next tile of the list: logits z, and s and e = exp(s / temperature) in float64, both 0 where z is -inf."""
    row, listed, count, vocab_size, stride_v = source
    numbers = start + tl.arange(0, TILE)
    valid = numbers < count
    numbers = tl.load(listed + numbers, mask=valid, other=0)
    z = _load_groups(row, numbers, valid, vocab_size, stride_v, GROUP)
    s = z.to(tl.float64) - maximum
    return z, tl.where(z == -_INF, 0.0, s), tl.where(z == -_INF, 0.0, tl.exp(s * scales[0]))


@triton.jit
def _middle(low, high):
    """A number with low < middle <= high."""
    middle = 0.5 * low + 0.5 * high
    return tl.where(middle > low, tl.minimum(middle, high), high)


@triton.jit
def _store_nucleus(
    source,
    maximum,
    total,
    scales,
    low,
    high,
    scalars,
    size,
    tokens,
    TOP_P: tl.constexpr,
    TILE: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Threshold t, the largest listed logit such that the e of all logits >= t reach top_p x total, and its results.

    Bisection between low <= t <= high; after each pass the bracket moves to the nearest logit, so it ends at t.
    """
    while low < high:
        middle = _middle(low, high)
        mass = tl.zeros((), tl.float64)
        above = tl.full((), _INF, tl.float32)
        below = tl.full((), -_INF, tl.float32)
        for start in range(0, source[2], TILE):
            z, _, e = _load_listed(source, start, maximum, scales, TILE, GROUP)
            mass += _sum(tl.where(z >= middle, e, 0.0))
            above = tl.minimum(above, -_max(tl.where(z >= middle, -z, -_INF)))
            below = tl.maximum(below, _max(tl.where(z >= middle, -_INF, z)))
        if (mass >= TOP_P * total) | (below == -_INF):  # the full row only misses the total by rounding
            low = above
        else:
            high = below
    threshold = high

    rest = tl.zeros((), tl.float64)
    nucleus_s = tl.zeros((), tl.float64)
    tops = tl.zeros((), tl.int32)
    inside = tl.zeros((), tl.int32)
    ties = tl.zeros((), tl.int32)
    for start in range(0, source[2], TILE):
        z, s, e = _load_listed(source, start, maximum, scales, TILE, GROUP)
        rest += _sum(tl.where((z > threshold) & (z < maximum), e, 0.0))
        nucleus_s += _sum(tl.where(z > threshold, e * s, 0.0))
        tops += _count((z > threshold) & (z == maximum))
        inside += _count(z > threshold)
        ties += _count(z == threshold)
    _store_edge(threshold, maximum, total, scales, rest, tops, nucleus_s, inside, ties, scalars, size, tokens, TOP_P)


@triton.jit
def _store_edge(
    threshold,
    maximum,
    total,
    scales,
    rest,
    tops,
    nucleus_s,
    inside,
    ties,
    scalars,
    size,
    tokens,
    TOP_P: tl.constexpr,
):
    """The results of a threshold with `ties` logits on it and `inside` logits above it.

    Of the latter, `tops` equal the maximum; the e of the others sum to `rest`, and nucleus_s is the sum of e s.
    """
    s = threshold.to(tl.float64) - maximum
    e = tl.exp(s * scales[0])
    missing = TOP_P * total - (rest + tops)
    tied = tl.floor(missing / e)
    tied = tl.where(tied * e < missing, tied + 1, tied)
    tied = tl.minimum(tl.maximum(tied, 1.0), ties.to(tl.float64))
    # The maximum counts 1; it is added last, so that the rest keeps full precision.
    rest += tied * e
    rest += tops - 1.0
    nucleus = 1.0 + rest
    nucleus_s += tied * e * s
    tl.store(scalars + 2 * tokens, _log1p(rest) - scales[0] * nucleus_s / nucleus)
    tl.store(scalars + 3 * tokens, nucleus / total)
    tl.store(scalars + 8 * tokens, threshold.to(tl.float64))
    tl.store(scalars + 9 * tokens, tied / ties)
    tl.store(size, inside + tied.to(tl.int64))


@triton.jit(do_not_specialize=["tokens"])
def _forward_kernel(
    logits,
    labels,
    inv_temperature,
    scalars,
    size,
    listed,
    tokens,
    vocab_size,
    stride_t,
    stride_v,
    TOP_P: tl.constexpr,
    PLACES: tl.constexpr,
    GROUP: tl.constexpr,
    STAGES: tl.constexpr,
    CAPACITY: tl.constexpr,
    RESERVED: tl.constexpr,
    LISTED_GROUPS: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """All results of one row, unless its nucleus needs the full row: then size is -1, for `_search_kernel`.

    Reads the row once, and the listed groups once more for every step of the search (from cache).
    """
    FLOAT32: tl.constexpr = logits.dtype.element_ty == tl.float32
    token = tl.program_id(0).to(tl.int64)
    row = logits + token * stride_t
    listed += token * PLACES
    scalars += token
    size += token
    tokens = tokens.to(tl.int64)
    scales = _scales(tl.load(inv_temperature + token))
    label = tl.load(labels + token)
    label_logit = tl.load(row + tl.maximum(label, 0) * stride_v).to(tl.float32)

    cut = tl.full((), _LOWEST, tl.float32)
    if label >= 0:
        cut = tl.maximum(cut, label_logit - 1.0 / scales[1] * LIST_BITS)
    nothing = tl.full((), -_INF, tl.float32)
    zeros = tl.zeros((GROUPS,), tl.float64)
    count = tl.zeros((), tl.int32)
    state = (count, nothing, zeros, zeros, tl.zeros((), tl.float32), cut, nothing, nothing, count)
    offsets = tl.arange(0, GROUPS)[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    offsets = offsets.to(tl.int64) * stride_v
    whole = vocab_size // (GROUPS * GROUP) * GROUPS
    for start in tl.range(0, whole, GROUPS, num_stages=STAGES):
        tile = tl.load(row + tl.cast(start, tl.int64) * GROUP * stride_v + offsets).to(tl.float32)
        state = _add_tile(tile, start, listed, state, scales, FLOAT32, TOP_P >= 1, CAPACITY, RESERVED)
    numbers = whole + tl.arange(0, GROUPS)
    tile = _load_groups(row, numbers, numbers >= 0, vocab_size, stride_v, GROUP)
    state = _add_tile(tile, whole, listed, state, scales, FLOAT32, TOP_P >= 1, CAPACITY, RESERVED)
    count, maximum, total_parts, total_s_parts, _, _, top1, top2, finite = state

    tl.debug_barrier()  # the list was written by other threads
    source = (row, listed, count, vocab_size, stride_v)
    rest = tl.sum(total_parts, axis=0)
    total_s = tl.sum(total_s_parts, axis=0)
    certain = tl.zeros((), tl.float64)
    tops = tl.zeros((), tl.int32)
    second = tl.full((), -_INF, tl.float32)
    for start in range(0, count, LISTED_GROUPS):
        z, s, e = _load_listed(source, start, maximum, scales, LISTED_GROUPS, GROUP)
        rest += _sum(tl.where(z == maximum, 0.0, e))
        total_s += _sum(e * s)
        certain += _sum(tl.where(z > top1, e, 0.0))
        tops += _count(z == maximum)
        second = tl.maximum(second, _max(tl.where(z < maximum, z, -_INF)))
    second = tl.where(tops > 1, maximum, tl.maximum(second, tl.where(tops == 1, top1, top2)))
    rest += tops - 1.0
    total = 1.0 + rest
    log_sum = _log1p(rest)
    entropy = log_sum - scales[0] * total_s / total
    log_prob = tl.where(label < 0, 0.0, (label_logit.to(tl.float64) - maximum) * scales[0] - log_sum)
    top2_log_prob = (second.to(tl.float64) - maximum) * scales[0] - log_sum

    sound = (maximum > -_INF) & (maximum < _INF) & (total == total)
    searched = sound & (certain < TOP_P * total) & (TOP_P < 1)
    tl.store(scalars, tl.where(sound, log_prob, _NAN))
    tl.store(scalars + tokens, tl.where(sound, entropy, _NAN))
    tl.store(scalars + 2 * tokens, tl.where(sound, entropy, _NAN))
    tl.store(scalars + 3 * tokens, tl.where(sound, tl.where(searched, certain, 1.0), _NAN))
    tl.store(scalars + 4 * tokens, tl.where(sound, -log_sum, _NAN))
    tl.store(scalars + 5 * tokens, tl.where(sound, top2_log_prob, _NAN))
    tl.store(scalars + 6 * tokens, tl.where(sound, maximum, _NAN).to(tl.float64))
    tl.store(scalars + 7 * tokens, tl.where(sound, log_sum, _NAN))
    tl.store(scalars + 8 * tokens, tl.where(sound, tl.where(searched, top1, -_INF), _NAN).to(tl.float64))
    tl.store(scalars + 9 * tokens, tl.where(sound, tl.where(searched, total, 0.0), _NAN))
    tl.store(size, tl.where(sound, tl.where(searched, -1, finite), 0).to(tl.int64))
    if TOP_P < 1:
        if sound & (certain >= TOP_P * total):
            low = tl.maximum(_threshold_bound(maximum, log_sum, vocab_size, scales, TOP_P), top1)
            low = tl.where(tops >= TOP_P * total, maximum, low)
            _store_nucleus(
                source, maximum, total, scales, low, maximum, scalars, size, tokens, TOP_P, LISTED_GROUPS, GROUP
            )


@triton.jit
def _threshold_bound(maximum, log_sum, vocab_size, scales, TOP_P: tl.constexpr):
    """A lower bound of the threshold: log-sum-exp - log(V / (1 - top_p)), and one nat for rounding."""
    nats = log_sum - tl.log(vocab_size / (1.0 - TOP_P + tl.zeros((), tl.float64))) - 1.0
    return tl.maximum((maximum + nats / scales[0]).to(tl.float32), _LOWEST)


@triton.jit
def _narrowed(
    row,
    maximum,
    scales,
    target,
    bracket,
    start,
    first,
    groups,
    vocab_size,
    stride_v,
    PIVOTS: tl.constexpr,
    GROUP: tl.constexpr,
    GROUPS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """One read of the row; returns the remaining part of the bracket.

    A bracket is low < t <= high and the masses, sums of e, of all logits above low and above high: the former reaches
    the target, the latter does not. Pivots divide the range between start and high; the first is one part above start
    (first = 1) or start itself (first = 0).
    """
    FLOAT32: tl.constexpr = row.dtype.element_ty == tl.float32
    low, high, mass_low, mass_high = bracket
    width = high.to(tl.float64) - start.to(tl.float64)
    pivots = ()
    sums = ()
    for k in tl.static_range(PIVOTS):
        share = (k + first).to(tl.float64) / (PIVOTS + first)
        pivots = pivots + ((start.to(tl.float64) + width * share).to(tl.float32),)
        sums = sums + (tl.zeros((GROUPS,), tl.float64),)
    for tile in tl.range(0, groups, GROUPS, num_stages=STAGES):
        numbers = tile + tl.arange(0, GROUPS)
        z = _load_groups(row, numbers, numbers < groups, vocab_size, stride_v, GROUP)
        s, rest = _offset(z, maximum, scales[3], FLOAT32)
        e = _exp(s, rest, scales, FLOAT32)
        more = ()
        for k in tl.static_range(PIVOTS):
            more = more + (sums[k] + tl.sum(tl.where(z > pivots[k], e, 0.0), axis=1),)
        sums = more
    for k in tl.static_range(PIVOTS):
        mass = tl.sum(sums[k], axis=0)
        rises = (mass >= target) & (pivots[k] > low)
        falls = (mass < target) & (pivots[k] < high)
        low = tl.where(rises, pivots[k], low)
        mass_low = tl.where(rises, mass, mass_low)
        high = tl.where(falls, pivots[k], high)
        mass_high = tl.where(falls, mass, mass_high)
    return low, high, mass_low, mass_high


@triton.jit(do_not_specialize=["tokens"])
def _search_kernel(
    logits,
    labels,
    inv_temperature,
    scalars,
    size,
    listed,
    tokens,
    vocab_size,
    stride_t,
    stride_v,
    TOP_P: tl.constexpr,
    PLACES: tl.constexpr,
    GROUP: tl.constexpr,
    STAGES: tl.constexpr,
    GROUPS: tl.constexpr,
    PIVOTS: tl.constexpr,
    ROUNDS: tl.constexpr,
    FOUND: tl.constexpr,
):
    """The nucleus of a row that `_forward_kernel` left open: the mass above its largest unlisted logit is too small.

    Narrows a bracket around the threshold until at most FOUND logits are in it, lists these, sums what is above, and
    finds the threshold on the list. How many are left is bounded by their mass, as none has less e than the lower end.
    If that mass does not fall (a few values, each many times), it lists them anyway after ROUNDS reads. If they do not
    fit then, a single value is the threshold; several are searched again between the smallest and the largest, with
    the smallest as a pivot, so that each time at least one of them is dropped.
    """
    token = tl.program_id(0).to(tl.int64)
    scalars += token
    size += token
    tokens = tokens.to(tl.int64)
    if tl.load(size) < 0:
        FLOAT32: tl.constexpr = logits.dtype.element_ty == tl.float32
        row = logits + token * stride_t
        listed += token * PLACES
        groups = tl.cdiv(vocab_size, GROUP)
        scales = _scales(tl.load(inv_temperature + token))
        maximum = tl.load(scalars + 6 * tokens).to(tl.float32)
        total = tl.load(scalars + 9 * tokens)
        target = TOP_P * total
        low = _threshold_bound(maximum, tl.load(scalars + 7 * tokens), vocab_size, scales, TOP_P)
        # Below the threshold, not at it, even where a nat is less than what rounding takes from large logits.
        low = tl.where(low == _LOWEST, -_INF, low - tl.abs(low) * 2.4e-7)
        start = tl.maximum(low, _LOWEST)
        high = tl.load(scalars + 8 * tokens).to(tl.float32)
        mass_low = total
        mass_high = tl.load(scalars + 3 * tokens)
        first = tl.full((), 1, tl.int32)
        least = start
        found = tl.full((), 0, tl.int32)
        inside = found
        tops = found
        rest = tl.zeros((), tl.float64)
        nucleus_s = rest
        searching = found == 0
        while searching:
            rounds = 0
            bound = tl.full((), _INF, tl.float64)
            while (bound > FOUND) & (rounds < ROUNDS):
                bracket = (low, high, mass_low, mass_high)
                low, high, mass_low, mass_high = _narrowed(
                    *(row, maximum, scales, target, bracket, start, first, groups, vocab_size, stride_v),
                    *(PIVOTS, GROUP, GROUPS, STAGES),
                )
                start = tl.maximum(low, _LOWEST)
                first = tl.full((), 1, tl.int32)
                bound = (mass_low - mass_high) / tl.exp((start.to(tl.float64) - maximum) * scales[0])
                rounds += 1

            found = tl.full((), 0, tl.int32)
            rest_parts = tl.zeros((GROUPS,), tl.float64)
            s_parts = tl.zeros((GROUPS,), tl.float64)
            tops_parts = tl.zeros((GROUPS,), tl.int32)
            inside_parts = tl.zeros((GROUPS,), tl.int32)
            least_parts = tl.full((GROUPS,), _INF, tl.float32)
            largest_parts = tl.full((GROUPS,), -_INF, tl.float32)
            for tile in tl.range(0, groups, GROUPS, num_stages=STAGES):
                numbers = tile + tl.arange(0, GROUPS)
                z = _load_groups(row, numbers, numbers < groups, vocab_size, stride_v, GROUP)
                s, s_rest = _offset(z, maximum, scales[3], FLOAT32)
                e = tl.where(z > high, _exp(s, s_rest, scales, FLOAT32), 0.0).to(tl.float64)
                rest_parts += tl.sum(tl.where(z < maximum, e, 0.0), axis=1)
                s_parts += tl.sum(e * s, axis=1)
                tops_parts += tl.sum(((z > high) & (z == maximum)).to(tl.int32), axis=1)
                inside_parts += tl.sum((z > high).to(tl.int32), axis=1)
                here = (z > low) & (z <= high)
                least_parts = tl.minimum(least_parts, tl.min(tl.where(here, z, _INF), axis=1))
                largest_parts = tl.maximum(largest_parts, tl.max(tl.where(here, z, -_INF), axis=1))
                ones = here.to(tl.int32)
                each = tl.sum(ones, axis=1)
                now = tl.sum(each, axis=0)
                if (now > 0) & (found < FOUND):
                    place = found + (tl.cumsum(each, axis=0) - each)[:, None] + (tl.cumsum(ones, axis=1) - ones)
                    tl.store(listed + place, z.to(tl.int32, bitcast=True), mask=here & (place < FOUND))
                found += now
            least = tl.min(least_parts, axis=0)
            largest = tl.max(largest_parts, axis=0)
            rest = tl.sum(rest_parts, axis=0)
            nucleus_s = tl.sum(s_parts, axis=0)
            tops = tl.sum(tops_parts, axis=0)
            inside = tl.sum(inside_parts, axis=0)
            start = least
            high = largest
            mass_high = rest + tops
            first = tl.full((), 0, tl.int32)
            searching = (found > FOUND) & (least < largest)

        tl.debug_barrier()  # the list was written by other threads
        places = tl.arange(0, FOUND)
        z = tl.load(listed + places, mask=places < found, other=0).to(tl.float32, bitcast=True)
        z = tl.where(places < found, z, -_INF)
        s = tl.where(places < found, z.to(tl.float64) - maximum, 0.0)
        e = tl.where(places < found, tl.exp(s * scales[0]), 0.0)
        low = least
        while low < high:
            middle = _middle(low, high)
            mass = rest + tops + tl.sum(tl.where(z >= middle, e, 0.0), axis=0)
            if mass >= target:
                low = tl.min(tl.where(z >= middle, z, _INF), axis=0)
            else:
                high = tl.max(tl.where(z >= middle, -_INF, z), axis=0)
        above = z > high
        rest += tl.sum(tl.where(above & (z < maximum), e, 0.0), axis=0)
        nucleus_s += tl.sum(tl.where(above, e * s, 0.0), axis=0)
        tops += tl.sum((above & (z == maximum)).to(tl.int32), axis=0)
        inside += tl.sum(above.to(tl.int32), axis=0)
        ties = tl.where(found > FOUND, found, tl.sum((z == high).to(tl.int32), axis=0))
        _store_edge(
            *(high, maximum, total, scales, rest, tops, nucleus_s, inside, ties),
            *(scalars, size, tokens, TOP_P),
        )


@triton.jit(do_not_specialize=["tokens"])
def _backward_kernel(
    logits,
    labels,
    inv_temperature,
    scalars,
    upstream,
    out,
    tokens,
    vocab_size,
    stride_t,
    stride_v,
    out_stride_t,
    out_stride_v,
    BLOCK: tl.constexpr,
):
    """Gradient of one row: reference.row_gradient as exp(s / temperature) (a s + b), one read and one write.

    With K = -1 / (temperature exp(log_sum)), g = upstream and M, H' the mass and entropy of the nucleus, tokens outside
    have a = K g1 / temperature and b = K (g0 + g1 (H - log_sum)). Those inside have on top K g2 / (M temperature) and
    K g2 (H' - log M - log_sum) / M, and those on the edge tie_weight times these two.
    """
    FLOAT32: tl.constexpr = logits.dtype.element_ty == tl.float32
    token = tl.program_id(0).to(tl.int64)
    tokens = tokens.to(tl.int64)
    logits += token * stride_t
    out += token * out_stride_t
    scalars += token
    upstream += token
    columns = tl.arange(0, BLOCK)
    grad_log_prob = tl.load(upstream)
    grad_entropy = tl.load(upstream + tokens)
    grad_nucleus = tl.load(upstream + 2 * tokens)
    maximum = tl.load(scalars + 6 * tokens)
    if (grad_log_prob == 0) & (grad_entropy == 0) & (grad_nucleus == 0):
        for start in range(0, vocab_size, BLOCK):
            here = (start + columns).to(tl.int64)
            tl.store(out + here * out_stride_v, tl.zeros((BLOCK,), out.dtype.element_ty), mask=here < vocab_size)
    elif maximum != maximum:
        for start in range(0, vocab_size, BLOCK):
            here = (start + columns).to(tl.int64)
            z = tl.load(logits + here * stride_v, mask=here < vocab_size, other=0.0).to(tl.float32)
            grad = tl.where(z == -_INF, 0.0, _NAN)
            tl.store(out + here * out_stride_v, grad.to(out.dtype.element_ty), mask=here < vocab_size)
    else:
        scales = _scales(tl.load(inv_temperature + token))
        inv_t = scales[0]
        entropy = tl.load(scalars + tokens)
        nucleus_entropy = tl.load(scalars + 2 * tokens)
        mass = tl.load(scalars + 3 * tokens)
        log_sum = tl.load(scalars + 7 * tokens)
        threshold = tl.load(scalars + 8 * tokens)
        tie_weight = tl.load(scalars + 9 * tokens)
        factor = -inv_t * tl.exp(-log_sum)
        a = factor * grad_entropy * inv_t
        b = factor * (grad_log_prob + grad_entropy * (entropy - log_sum))
        a_nucleus = factor * grad_nucleus / mass * inv_t
        b_nucleus = factor * grad_nucleus / mass * (nucleus_entropy - tl.log(mass) - log_sum)
        a_out, a_out_low = _two(a)
        b_out, b_out_low = _two(b)
        a_tie, a_tie_low = _two(a + tie_weight * a_nucleus)
        b_tie, b_tie_low = _two(b + tie_weight * b_nucleus)
        a_in, a_in_low = _two(a + a_nucleus)
        b_in, b_in_low = _two(b + b_nucleus)

        # The label's entry is g0 (1 - p) + ...: in float64, for p near 1.
        label = tl.load(labels + token)
        label_logit = tl.load(logits + tl.maximum(label, 0) * stride_v).to(tl.float64)
        label_s = label_logit - maximum
        inside = tl.where(label_logit == threshold, tie_weight, (label_logit > threshold).to(tl.float64))
        label_grad = grad_log_prob * inv_t + tl.exp(label_s * inv_t) * (
            a * label_s + b + inside * (a_nucleus * label_s + b_nucleus)
        )
        label_grad = tl.where(label_logit == -_INF, 0.0, label_grad).to(tl.float32)
        # In place, a warp that is ahead overwrites the label's logit: all must have read it first. Tiles need no
        # barrier: a thread writes what it has read itself, or Triton exchanges the tile between threads, which has one.
        tl.debug_barrier()

        top = maximum.to(tl.float32)
        edge = threshold.to(tl.float32)
        for start in range(0, vocab_size, BLOCK):
            here = (start + columns).to(tl.int64)
            z = tl.load(logits + here * stride_v, mask=here < vocab_size, other=-_INF).to(tl.float32)
            s, rest = _offset(z, top, scales[3], FLOAT32)
            slope = tl.where(z > edge, a_in, tl.where(z == edge, a_tie, a_out))
            constant = tl.where(z > edge, b_in, tl.where(z == edge, b_tie, b_out))
            grad = tl.fma(s, slope, constant)
            if FLOAT32:
                slope_low = tl.where(z > edge, a_in_low, tl.where(z == edge, a_tie_low, a_out_low))
                constant_low = tl.where(z > edge, b_in_low, tl.where(z == edge, b_tie_low, b_out_low))
                grad += tl.fma(s, slope_low, tl.fma(rest, slope, constant_low))
                grad *= _exp(s, rest, scales, FLOAT32)
            else:
                grad *= tl.exp2(s * scales[1])
            if (label >= start) & (label < start + BLOCK):
                grad = tl.where(here == label, label_grad, grad)
            tl.store(out + here * out_stride_v, grad.to(out.dtype.element_ty), mask=here < vocab_size)
