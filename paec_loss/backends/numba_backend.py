"""Statistics of rows on a CPU, compiled by numba: each row is read from memory once and then stays in the cache.

Forward, for each row. One pass finds the largest logit of every block, a second one sums e = exp(x - max). The nucleus
is then searched among few logits:

* The j largest block maxima are j tokens. If their mass reaches top_p, the edge of the nucleus is not below the j-th;
  otherwise not below log-sum-exp - log(2 V / (1 - top_p)), because all tokens less likely than (1 - top_p) / V have
  less than 1 - top_p together. The logits above that bound are listed, in blocks whose maximum reaches it.
* If they are too many, a histogram of their mass over linear buckets finds the bucket where the cumulative mass crosses
  top_p, and its logits are listed, or divided again. On the list, the edge is found by halving a bracket of logits,
  which vectorises, and among the last few by partitions, as quickselect does.

Backward is one pass: e (a + b x) with one of three pairs (a, b): above the edge, at it, below.

All arithmetic is float64. Logits are compared as stored. The kernels see bits (int16 for bfloat16, int32, int64), so
that NaN is found by comparing integers, which vectorises, where comparing floats does not.
"""

import logging
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch
from numba import types
from numba.extending import intrinsic, overload
from torch import Tensor

logger = logging.getLogger(__name__)

_BLOCK = 128  # logits of a block
_LIST = 4096  # logits of a row among which the edge is selected; more are divided by histograms
_BUCKETS = 512  # of a histogram
_PIECE = 2**19  # logits that a thread takes at a time
_FEW = 32  # logits that are partitioned around a pivot; among more the bracket is halved
_HALVINGS = 16  # at most: logits that are equal cannot be separated
_COPY = 2**20  # logits that are copied at a time, where the kernels cannot read them in place

_BITS = {torch.bfloat16: torch.int16, torch.float32: torch.int32, torch.float64: torch.int64}
_LN2 = math.log(2)  # exponents are in bits here
_LOWEST = -1023.0  # 2^x is 0 there, and 0 * -1023 is 0, where 0 * -inf is not
_LANES = 4  # neighbours add to different copies of a histogram: adding to one place again at once is slow


def forward(logits: Tensor, labels: Tensor, inv_temperature: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Scalars [10, T] and nucleus sizes [T]; see `paec_loss.backends`."""
    tokens, width = logits.shape
    scalars = torch.empty(10, tokens, dtype=torch.float64)
    size = torch.empty(tokens, dtype=torch.int64)
    arrays = *_arrays(labels, inv_temperature), scalars.numpy(), size.numpy()
    settings = top_p, _BLOCK, _LIST, max(2, min(_BUCKETS, width))
    for start, rows in _readable(logits):
        bits, stride = _flat(rows)

        def work(first: int, stop: int, start=start, bits=bits, stride=stride) -> None:
            _forward_rows(bits, stride, width, first, stop, start, *arrays, *settings)

        _spread(work, *rows.shape)
    return scalars, size


def backward(
    logits: Tensor, labels: Tensor, inv_temperature: Tensor, scalars: Tensor, upstream: Tensor, out: Tensor
) -> None:
    """Gradient of the rows into `out`; see `paec_loss.backends`."""
    width = logits.shape[1]
    arrays = _arrays(labels, inv_temperature, scalars, upstream)
    for start, rows in _readable(logits):
        target = out[start : start + rows.shape[0]]
        direct = _in_place(target) and target.dtype == rows.dtype
        written = target if direct else torch.empty_like(rows)
        (bits, stride), (out_bits, out_stride) = _flat(rows), _flat(written)

        def work(first: int, stop: int, start=start, given=(bits, stride, out_bits, out_stride)) -> None:
            _backward_rows(*given, width, first, stop, start, *arrays, _BLOCK)

        _spread(work, *rows.shape)
        if not direct:
            target.copy_(written)


# ---- rows as the kernels see them ------------------------------------------------------------------------------------


def _in_place(rows: Tensor) -> bool:
    return rows.dtype in _BITS and (rows.stride(1) == 1 or rows.shape[1] == 1)


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    """As contiguous arrays: numba would compile the kernels again for others."""
    return [tensor.contiguous().numpy() for tensor in tensors]


def _readable(logits: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first row, rows) that the kernels can read: all at once, or copies of a few where columns are not adjacent."""
    if _in_place(logits):
        yield 0, logits
        return
    dtype = logits.dtype if logits.dtype in _BITS else torch.float32
    count = max(1, _COPY // logits.shape[1])
    for start in range(0, logits.shape[0], count):
        yield start, logits[start : start + count].to(dtype).contiguous()


def _flat(rows: Tensor) -> tuple[np.ndarray, int]:
    """The bits of rows [R, V] from the first to the last logit, and the distance between two rows."""
    if not rows.numel():
        return np.empty(0, dtype=np.dtype(f"i{rows.element_size()}")), 0
    stride = rows.stride(0) if rows.shape[0] > 1 else 0
    flat = rows.detach().as_strided(((rows.shape[0] - 1) * stride + rows.shape[1],), (1,))
    return flat.view(_BITS[rows.dtype]).numpy(), stride


def _spread(work: Callable[[int, int], None], rows: int, width: int) -> None:
    """Call work(first, stop) for all rows, by as many threads as PyTorch uses.

    The threads end with the call, so a fork finds none of them.
    """
    count = max(1, _PIECE // width)
    threads = min(torch.get_num_threads(), -(-rows // count))
    if threads <= 1:
        work(0, rows)
        return
    with ThreadPoolExecutor(threads) as pool:
        for piece in [pool.submit(work, first, min(first + count, rows)) for first in range(0, rows, count)]:
            piece.result()


# ---- compilation -----------------------------------------------------------------------------------------------------


def _kernel(*fast_math: str):
    """Compile at the first call, and keep the machine code on disk for other processes.

    Numba keeps it in NUMBA_CACHE_DIR if that is set, else beside this file, else in the user's cache folder.
    """

    def decorate(function):
        options = dict(nogil=True, error_model="numpy", fastmath=set(fast_math))
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no folder can be written
            logger.warning(
                "%s is compiled in every process: no folder to keep it in; set NUMBA_CACHE_DIR", function.__name__
            )
            return numba.njit(**options)(function)

    return decorate


_plain = _kernel("contract")
_summing = _kernel("contract", "reassoc", "nsz")  # sums in any order: vectorised


@intrinsic
def _as(typing_context, value, target):
    """The bits of a number as another type of the same width. (numpy's `view` takes seconds to compile.)"""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

    return target.dtype(value, target), generate


def _key(bits: int) -> int:
    """An integer with the order of the logits; only NaN is above +inf or below -inf."""
    raise NotImplementedError


def _value(bits: int) -> float:
    """The logit as float64."""
    raise NotImplementedError


def _encoded(value: float, like: int) -> int:
    """The bits of a float64 in the format of `like`, rounded as `Tensor.to` does."""
    raise NotImplementedError


@overload(_key)
def _key_of(bits):
    kind, shift = {
        types.int16: (np.int16, 15),
        types.int32: (np.int32, 31),
        types.int64: (np.int64, 63),
    }[bits]
    mask = kind(2**shift - 1)
    return lambda bits: kind(bits ^ ((bits >> shift) & mask))


@overload(_value)
def _value_of(bits):
    if bits == types.int16:
        return lambda bits: np.float64(_as(np.int32(np.int32(bits) << 16), np.float32))
    if bits == types.int32:
        return lambda bits: np.float64(_as(bits, np.float32))
    return lambda bits: _as(bits, np.float64)


@overload(_encoded)
def _encoded_of(value, like):
    if like == types.int16:

        def to_bfloat16(value, like):
            word = _as(np.float32(value), np.uint32)
            word = np.uint32(word + np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1)))
            return np.int16(0x7FC0) if value != value else np.int16(word >> np.uint32(16))

        return to_bfloat16
    if like == types.int32:
        return lambda value, like: _as(np.float32(value), np.int32)
    return lambda value, like: _as(value, np.int64)


@_plain
def _exp2(x):
    """2^x for -1023 <= x <= 0, with a relative error below 1e-15; 0 where the result is not a normal number."""
    whole = np.int32(x - 0.5)
    f = x - np.float64(whole)
    # 2^f = 1 + f q(f) for |f| <= 1/2, q interpolated at the zeros of a Chebyshev polynomial.
    q = 7.070977866508138e-09
    q = q * f + 1.0205905413765595e-07
    q = q * f + 1.3215451633221434e-06
    q = q * f + 1.5252672924850737e-05
    q = q * f + 0.00015403530424776529
    q = q * f + 0.0013333558200794592
    q = q * f + 0.009618129107618665
    q = q * f + 0.05550410866465167
    q = q * f + 0.24022650695910075
    q = q * f + 0.6931471805599462
    q = q * f + 1.0
    return q * _as((np.int64(whole) + 1023) << 52, np.float64)


@_plain
def _exponent(z, maximum, scale):
    x = (z - maximum) * scale
    return x if x > _LOWEST else _LOWEST


# ---- forward ---------------------------------------------------------------------------------------------------------


@_plain
def _forward_rows(
    bits, stride, width, first, stop, start, labels, inv_temperature, scalars, size, top_p, block, capacity, buckets
):
    """Rows [first, stop) of `bits`; row 0 is number `start` in the other arrays."""
    peaks = np.empty((width + block - 1) // block)
    found = np.empty((2, max(capacity, peaks.size)))
    histogram = np.empty(_LANES * (buckets + 1))
    for index in range(first, stop):
        t = start + index
        row = bits[index * stride : index * stride + width]
        size[t] = _forward_row(
            row, labels[t], inv_temperature[t], top_p, block, capacity, buckets, peaks, found, histogram, scalars[:, t]
        )


@_plain
def _forward_row(row, label, inv_temperature, top_p, block, capacity, buckets, peaks, found, histogram, scalars):
    sound, minimum = _peaks(row, block, peaks)
    where = 0
    for b in range(peaks.size):
        where = b if peaks[b] > peaks[where] else where
    maximum = peaks[where]
    if not sound or maximum == -math.inf:
        for i in range(scalars.size):
            scalars[i] = math.nan
        return 0
    scale = inv_temperature / _LN2
    rest, total_x, ties = _sums(row, maximum, scale)
    # The maximum itself counts 1: log1p keeps full precision in rows where the rest is tiny.
    rest += ties - 1
    total, log_sum = 1 + rest, math.log1p(rest)
    total_x *= _LN2
    second = maximum if ties > 1 else _second(row, block, peaks, where)
    entropy = log_sum - total_x / total  # x <= 0 and the totals are >= 1: nothing cancels
    if top_p >= 1:
        nucleus_entropy, mass, edge, tie_weight, size = entropy, 1.0, -math.inf, 0.0, _possible(row)
    else:
        target = top_p * total
        low = maximum + (log_sum - math.log(2 * row.size / (1 - top_p))) / inv_temperature
        low = max(low, minimum)
        edge, above, above_x, number, ties = _edge(
            row, block, capacity, buckets, peaks, found, histogram, maximum, low, scale, target
        )
        x = _exponent(edge, maximum, scale)
        e = _exp2(x)
        inside = min(max(math.ceil((target - above) / e), 1), ties)
        tie_weight = inside / ties
        size = number + inside
        nucleus = above + inside * e
        nucleus_entropy = math.log(nucleus) - (above_x + inside * e * x) * _LN2 / nucleus
        mass = nucleus / total
    scalars[0] = 0.0 if label < 0 else (_value(row[max(label, 0)]) - maximum) * inv_temperature - log_sum
    scalars[1] = entropy
    scalars[2] = nucleus_entropy
    scalars[3] = mass
    scalars[4] = -log_sum
    scalars[5] = (second - maximum) * inv_temperature - log_sum
    scalars[6] = maximum
    scalars[7] = log_sum
    scalars[8] = edge
    scalars[9] = tie_weight
    return size


@_plain
def _peaks(row, block, peaks):
    """The largest logit of each block into `peaks`; whether the row is free of NaN and +inf; its smallest logit."""
    smallest = largest = _key(row[0])
    for b in range(peaks.size):
        part = row[b * block : (b + 1) * block]
        top = _key(part[0])
        for i in range(part.size):
            key = _key(part[i])
            top = max(top, key)
            smallest = min(smallest, key)
        largest = max(largest, top)
        peaks[b] = _value(_key(top))  # the key of a key is what it was made from
    highest, lowest = _value(_key(largest)), _value(_key(smallest))
    return highest < math.inf and lowest <= highest, lowest


@_summing
def _sums(row, maximum, scale):
    """Sum of e over the logits below the maximum, sum of e x over all, number of maxima."""
    rest, total_x, ties = 0.0, 0.0, 0
    for i in range(row.size):
        z = _value(row[i])
        x = _exponent(z, maximum, scale)
        e = _exp2(x)
        total_x += e * x
        ties += z == maximum
        rest += 0.0 if z == maximum else e
    return rest, total_x, ties


@_plain
def _second(row, block, peaks, where):
    """The second largest logit of a row whose only maximum is in the block `where`."""
    second = -math.inf
    for b in range(peaks.size):
        if b != where:
            second = max(second, peaks[b])
    part = row[where * block : (where + 1) * block]
    for i in range(part.size):
        z = _value(part[i])
        if z < peaks[where]:
            second = max(second, z)
    return second


@_plain
def _possible(row):
    count = 0
    for i in range(row.size):
        count += _value(row[i]) != -math.inf
    return count


# ---- the edge of the nucleus -----------------------------------------------------------------------------------------


@_plain
def _edge(row, block, capacity, buckets, peaks, found, histogram, maximum, low, scale, target):
    """The logit at the edge; sum of e, sum of e x, and number of the logits above it; number of those equal to it."""
    for b in range(peaks.size):
        found[0, b] = peaks[b]
    mass = _weigh(found, peaks.size, maximum, scale)
    if mass >= target:
        low = max(low, _crossing(found, peaks.size, maximum, scale, low, maximum, target, 0.0, 0.0, 0)[0])
    count = _listed(row, block, capacity, peaks, found, low)
    above, above_x, number, high = 0.0, 0.0, 0, maximum
    while count < 0:
        _weigh_buckets(row, block, buckets, peaks, histogram, maximum, scale, low, high)
        bucket = _crossing_bucket(histogram, buckets, target - above)
        mass, mass_x, higher, count, lowest, highest = _divided(
            row, block, buckets, peaks, found, capacity, maximum, scale, low, high, bucket
        )
        above, above_x, number, low, high = above + mass, above_x + mass_x, number + higher, lowest, highest
        if low == high:
            return low, above, above_x, number, count
        count = count if count <= capacity else -1
    _weigh(found, count, maximum, scale)
    return _crossing(found, count, maximum, scale, low, high, target, above, above_x, number)


@_summing
def _weigh(found, count, maximum, scale):
    """e of the first `count` logits found[0] into found[1]; returns their sum."""
    z, e = found[0], found[1]
    total = 0.0
    for i in range(count):
        e[i] = _exp2(_exponent(z[i], maximum, scale))
    for i in range(count):
        total += e[i]
    return total


@_plain
def _crossing(found, count, maximum, scale, low, high, target, above, above_x, number):
    """As `_edge`, of the first `count` logits, with the sums `above`, `above_x`, `number` over those before them.

    The edge is probably in [low, high]; if it is not, it only takes longer to find.
    """
    z, e = found[0], found[1]
    if count > _FEW:
        low, high = _halved(found, count, low, high, target - above)
        mass, mass_x, higher = _sums_above(found, count, maximum, scale, high)
        above, above_x, number = above + mass, above_x + mass_x, number + higher
        kept = 0
        for i in range(count):
            value, weight = z[i], e[i]
            z[kept], e[kept] = value, weight
            kept += low < value <= high
        count = kept
    first, last = 0, count
    while True:
        a, b, c = z[first], z[(first + last) // 2], z[last - 1]
        pivot = max(min(a, b), min(max(a, b), c))
        # [first, i) is above the pivot, [i, j) equal to it, [k, last) below.
        i, j, k, mass, mass_x = first, first, last, 0.0, 0.0
        while j < k:
            if z[j] > pivot:
                z[i], z[j], e[i], e[j] = z[j], z[i], e[j], e[i]
                mass += e[i]
                mass_x += e[i] * _exponent(z[i], maximum, scale)
                i += 1
                j += 1
            elif z[j] < pivot:
                k -= 1
                z[j], z[k], e[j], e[k] = z[k], z[j], e[k], e[j]
            else:
                j += 1
        equal = (j - i) * e[i]
        if i > first and above + mass >= target:
            last = i
        elif above + mass + equal >= target or j == last:
            return pivot, above + mass, above_x + mass_x, number + i - first, j - i
        else:
            above += mass + equal
            above_x += mass_x + equal * _exponent(pivot, maximum, scale)
            number += j - first
            first = j


@_plain
def _halved(found, count, bottom, top, target):
    """A bracket of few logits, low < z <= high, that has the edge; those above `high` do not reach the target."""
    low, high, above_low, above_high = -math.inf, math.inf, count, 0
    for _ in range(_HALVINGS):
        if above_low - above_high <= _FEW:
            break
        pivot = bottom + (top - bottom) / 2
        mass, number = _mass_above(found, count, pivot)
        # Neither step may leave the bracket empty, whatever the last bits of a sum are.
        if number == above_low or (mass >= target and number > above_high):
            low, bottom, above_low = pivot, pivot, number
        else:
            high, top, above_high = pivot, pivot, number
    return low, high


@_summing
def _mass_above(found, count, pivot):
    """Sum of e and number of the logits above the pivot."""
    z, e = found[0], found[1]
    mass, number = 0.0, 0
    for i in range(count):
        mass += e[i] if z[i] > pivot else 0.0
        number += z[i] > pivot
    return mass, number


@_summing
def _sums_above(found, count, maximum, scale, pivot):
    """Sum of e, sum of e x, and number of the logits above the pivot."""
    z, e = found[0], found[1]
    mass, mass_x, number = 0.0, 0.0, 0
    for i in range(count):
        weight = e[i] if z[i] > pivot else 0.0
        mass += weight
        mass_x += weight * _exponent(z[i], maximum, scale)
        number += z[i] > pivot
    return mass, mass_x, number


@_plain
def _listed(row, block, capacity, peaks, found, low):
    """The logits that are at least `low` into found[0]; their number, or -1 if they may not fit."""
    z = found[0]
    count = 0
    for b in range(peaks.size):
        if peaks[b] >= low:
            part = row[b * block : (b + 1) * block]
            if count + part.size > capacity:
                return -1
            for i in range(part.size):
                value = _value(part[i])
                z[count] = value
                count += value >= low
    return count


@_plain
def _place(z, low, high, buckets):
    """The bucket of a logit, from 0 for `high` itself; `buckets` if it is outside [low, high].

    `high` is alone in its bucket, so each division separates at least one value from the rest.
    """
    place = (high - z) * (buckets / (high - low))
    place = place if place > 1.0 else 1.0
    place = place if place < buckets - 1.0 else buckets - 1.0
    place = 0.0 if z == high else place
    place = np.float64(buckets) if z < low else place
    place = np.float64(buckets) if z > high else place
    return np.int32(place)


@_plain
def _weigh_buckets(row, block, buckets, peaks, histogram, maximum, scale, low, high):
    """Sum of e of each bucket, in `_LANES` copies."""
    for i in range(histogram.size):
        histogram[i] = 0.0
    e = np.empty(block)
    places = np.empty(block, dtype=np.int32)
    for b in range(peaks.size):
        if peaks[b] >= low:
            part = row[b * block : (b + 1) * block]
            for i in range(part.size):
                z = _value(part[i])
                e[i] = _exp2(_exponent(z, maximum, scale))
                places[i] = _place(z, low, high, buckets)
            for i in range(part.size):
                histogram[places[i] * _LANES + i % _LANES] += e[i]


@_plain
def _crossing_bucket(histogram, buckets, target):
    """The first bucket where the cumulative mass reaches the target, or the last that is not empty."""
    mass, last = 0.0, 0
    for bucket in range(buckets):
        own = 0.0
        for lane in range(_LANES):
            own += histogram[bucket * _LANES + lane]
        if own > 0:
            last = bucket
        mass += own
        if mass >= target:
            return bucket
    return last


@_plain
def _divided(row, block, buckets, peaks, found, capacity, maximum, scale, low, high, bucket):
    """Sums over the buckets before `bucket`; how many logits that one has, listed if they fit, and its extremes."""
    z = found[0]
    mass, mass_x, higher, count, lowest, highest = 0.0, 0.0, 0, 0, high, low
    places = np.empty(block, dtype=np.int32)
    for b in range(peaks.size):
        if peaks[b] >= low:
            part = row[b * block : (b + 1) * block]
            for i in range(part.size):
                places[i] = _place(_value(part[i]), low, high, buckets)
            part_mass, part_x, part_higher = _sums_before(part, places, bucket, maximum, scale)
            mass, mass_x, higher = mass + part_mass, mass_x + part_x, higher + part_higher
            for i in range(part.size):
                if places[i] == bucket:
                    value = _value(part[i])
                    lowest, highest = min(lowest, value), max(highest, value)
                    if count < capacity:
                        z[count] = value
                    count += 1
    return mass, mass_x, higher, count, lowest, highest


@_summing
def _sums_before(part, places, bucket, maximum, scale):
    mass, mass_x, higher = 0.0, 0.0, 0
    for i in range(part.size):
        x = _exponent(_value(part[i]), maximum, scale)
        e = _exp2(x) if places[i] < bucket else 0.0
        mass += e
        mass_x += e * x
        higher += places[i] < bucket
    return mass, mass_x, higher


# ---- backward --------------------------------------------------------------------------------------------------------


@_plain
def _backward_rows(
    bits, stride, out, out_stride, width, first, stop, start, labels, inv_temperature, scalars, upstream, block
):
    """Rows [first, stop) of `bits` and `out`; row 0 is number `start` in the other arrays."""
    buffer = np.empty(block)
    for index in range(first, stop):
        t = start + index
        row = bits[index * stride : index * stride + width]
        gradient = out[index * out_stride : index * out_stride + width]
        if upstream[0, t] == 0 and upstream[1, t] == 0 and upstream[2, t] == 0:
            for i in range(width):
                gradient[i] = 0
        elif math.isnan(scalars[0, t]):
            for i in range(width):
                gradient[i] = _encoded(0.0 if _value(row[i]) == -math.inf else math.nan, row[i])
        else:
            _backward_row(row, gradient, labels[t], inv_temperature[t], scalars[:, t], upstream[:, t], buffer)


@_plain
def _backward_row(row, gradient, label, inv_temperature, scalars, upstream, buffer):
    entropy, nucleus_entropy, mass, maximum = scalars[1], scalars[2], scalars[3], scalars[6]
    log_sum, edge, tie_weight = scalars[7], scalars[8], scalars[9]
    to_label, to_entropy, to_nucleus = upstream[0], upstream[1], upstream[2]
    scale = inv_temperature / _LN2
    # With e = 2^x = p exp(log_sum) the gradient is e (a + b x), plus w e (c + d x) in the nucleus.
    factor = -inv_temperature * math.exp(-log_sum)
    a = factor * (to_label + to_entropy * (entropy - log_sum))
    b = factor * to_entropy * _LN2
    c = factor * to_nucleus / mass * (nucleus_entropy - log_sum - math.log(mass))
    d = factor * to_nucleus / mass * _LN2
    tied_a, tied_b, above_a, above_b = a + tie_weight * c, b + tie_weight * d, a + c, b + d
    of_label = _value(row[label]) if label >= 0 else 0.0  # read before anything is written: out may be the logits
    block = buffer.size
    for begin in range(0, row.size, block):
        part, to = row[begin : begin + block], gradient[begin : begin + block]
        for i in range(part.size):
            buffer[i] = _slope(_value(part[i]), maximum, scale, edge, a, b, tied_a, tied_b, above_a, above_b)
        for i in range(part.size):
            to[i] = _encoded(buffer[i], part[i])
    if label >= 0 and of_label != -math.inf:
        own = _slope(of_label, maximum, scale, edge, a, b, tied_a, tied_b, above_a, above_b)
        gradient[label] = _encoded(own + to_label * inv_temperature, gradient[label])


@_plain
def _slope(z, maximum, scale, edge, a, b, tied_a, tied_b, above_a, above_b):
    x = _exponent(z, maximum, scale)
    e = _exp2(x)
    constant = above_a if z > edge else a
    constant = tied_a if z == edge else constant
    linear = above_b if z > edge else b
    linear = tied_b if z == edge else linear
    return 0.0 if z == -math.inf else e * (constant + linear * x)
