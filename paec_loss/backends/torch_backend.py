"""Sort-free statistics in plain PyTorch, for any device, with the vocabulary complete or sharded.

Rows are processed a few at a time, in float64, so that the temporaries stay in the cache. One pass gives the sums and
the largest logit of every block of 128; the nucleus is then searched among few tokens:

* The j largest block maxima are j tokens. If their mass reaches top_p, the nucleus cannot reach below the smallest
  of them, so only the blocks whose maximum is at least that can contain a token of the nucleus (peaked rows: a few
  blocks). The tokens found are sorted.
* Every other row narrows a bracket around the edge of the nucleus by histograms of mass over linear buckets of the
  logit. It starts at [log-sum-exp - log(2 V / (1 - top_p)), maximum], which contains the edge because all tokens less
  likely than (1 - top_p) / V have less than 1 - top_p together. Each round continues in the bucket where the cumulative
  mass crosses top_p, snapped to the data in it, until few tokens or a single value are left.

With a shard of the vocabulary, the same steps run on each rank and only their small results are exchanged; every
decision is based on exchanged numbers, so it is the same on all ranks.
"""

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from paec_loss.backends import SCALARS
from paec_loss.sharding import WHOLE, VocabularyShard

_BLOCK = 128  # tokens of a block
_PEAKS = 64  # largest block maxima that are kept per row
_BUCKETS, _LIST = 1024, 2048  # buckets of a histogram, tokens of a row that are sorted instead of narrowed further
_BUCKETS_SHARDED, _LIST_SHARDED = 64, 256  # the same where both are exchanged between ranks
_CHUNK_BYTES = {"cpu": 10 * 2**20, "cuda": 256 * 2**20}  # of the two float64 [rows, V] buffers
_ROWS, _PIECE = 64, 512  # rows, and blocks, that are processed together where all of them would need much memory
_GONE = -1100.0  # 2^-1100 is 0 in float64, and 0 * -1100 is 0, where 0 * -inf is not
_LN2 = math.log(2)  # exponents are in bits here: exp2 takes half the time of exp


def forward(
    logits: Tensor, labels: Tensor, inv_temperature: Tensor, top_p: float, shard: VocabularyShard = WHOLE
) -> tuple[Tensor, Tensor]:
    """Scalars [10, T] and nucleus sizes [T]; see `paec_loss.backends`. `labels` count over the full vocabulary."""
    work = _Workspace(logits)
    local, peaks, peak_blocks = _sums(work, logits, inv_temperature, shard)
    mine = shard.local_labels(labels, logits.shape[1])
    owned = (mine >= 0).nonzero()[:, 0]
    label = torch.full_like(local[:1], -math.inf)
    label[0, owned] = logits[owned, mine[owned]].double()

    maximum, second, rest, total_x, label = _merged(shard.gather(torch.cat([local, label])), inv_temperature)
    # The maximum itself counts 1: log1p keeps full precision in rows where the rest is tiny.
    total, log_sum = 1 + rest, rest.log1p()
    label_log_prob = torch.where(labels < 0, 0.0, (label - maximum) * inv_temperature - log_sum)
    top2 = (second - maximum) * inv_temperature - log_sum
    # x <= 0 and the totals are >= 1, so an entropy adds two terms >= 0: nothing cancels.
    entropy = log_sum - total_x / total
    if top_p >= 1:
        size = shard.sum(_count_possible(work, logits))
        nucleus = (entropy, torch.ones_like(total), torch.full_like(total, -math.inf), torch.zeros_like(total))
    else:
        search = _Search(work, logits, inv_temperature, maximum, total, top_p, shard)
        search.among_peaks(peaks, peak_blocks)
        search.by_histograms()
        nucleus_total, nucleus_x, size, threshold, tie_weight = search.result()
        nucleus = (nucleus_total.log() - nucleus_x / nucleus_total, nucleus_total / total, threshold, tie_weight)
    nucleus_entropy, mass, threshold, tie_weight = nucleus
    values = (label_log_prob, entropy, nucleus_entropy, mass, -log_sum, top2, maximum, log_sum, threshold, tie_weight)
    sound = maximum.isfinite()
    return torch.where(sound, torch.stack(values), math.nan), torch.where(sound, size, 0)


def backward(
    logits: Tensor, labels: Tensor, inv_temperature: Tensor, scalars: Tensor, upstream: Tensor, out: Tensor
) -> None:
    """Gradient of the rows into `out`; see `paec_loss.backends`. `labels` count within the shard, < 0 outside."""
    receives = (upstream != 0).any(dim=0)
    row = _Coefficients.of(scalars, inv_temperature, upstream)
    with_entropy, with_nucleus = bool((upstream[1] != 0).any()), bool((upstream[2] != 0).any())
    labelled = (receives & (labels >= 0)).nonzero()[:, 0]
    of_label = logits[labelled, labels[labelled]].double()
    at_label = row.at(labelled).gradient(of_label) + (upstream[0] * inv_temperature)[labelled]
    broken = (receives & scalars[0].isnan()).nonzero()[:, 0].tolist()
    impossible = [logits[index] == -math.inf for index in broken]

    work = _Workspace(logits)
    for rows in work.spans(receives.nonzero()[:, 0]):
        z = logits[rows]
        of = row.at(rows, None)
        x, gradient = work.buffers[0, : z.shape[0]].copy_(z), work.buffers[1, : z.shape[0]]
        if with_nucleus:
            reaching = [(part.amax(-1) >= of.threshold).nonzero() for part in _blocks(x)]
        x = work.exponents(x, of.maximum, of.bits, clamp=with_entropy)
        torch.exp2(x, out=gradient).mul_(x.mul_(of.b).add_(of.a) if with_entropy else of.a)
        if with_nucleus:
            for part, raw, blocks in zip(_blocks(gradient), _blocks(z), reaching, strict=True):
                for row_index, block_index in (piece.unbind(1) for piece in blocks.split(_PIECE)):
                    values = of.at(row_index).in_nucleus(raw[row_index, block_index].double())
                    part[row_index, block_index] += values
        if isinstance(rows, slice):
            out[rows].copy_(gradient)
        else:
            out[rows] = gradient.to(out.dtype)
    out.index_fill_(0, (~receives).nonzero()[:, 0], 0)
    out[labelled, labels[labelled]] = torch.where(of_label == -math.inf, 0.0, at_label).to(out.dtype)
    for index, nothing in zip(broken, impossible, strict=True):
        out[index, nothing] = 0


@dataclass
class _Coefficients:
    """Per row: with e = 2^x = p exp(log_sum), the gradient in z is e (a + b x), plus w e (c + d x) in the nucleus."""

    maximum: Tensor
    bits: Tensor  # 1 / (temperature log 2)
    threshold: Tensor
    tie_weight: Tensor
    a: Tensor
    b: Tensor
    c: Tensor
    d: Tensor

    @classmethod
    def of(cls, scalars: Tensor, inv_temperature: Tensor, upstream: Tensor) -> "_Coefficients":
        row = dict(zip(SCALARS, scalars, strict=True))
        to_label, to_entropy, to_nucleus = upstream
        scale = -inv_temperature * (-row["log_sum"]).exp()
        of_nucleus = scale * to_nucleus / row["nucleus_mass"]
        return cls(
            maximum=row["maximum"],
            bits=inv_temperature / _LN2,
            threshold=row["threshold"],
            tie_weight=row["tie_weight"],
            a=scale * (to_label + to_entropy * (row["entropy"] - row["log_sum"])),
            b=scale * to_entropy * _LN2,
            c=of_nucleus * (row["nucleus_entropy"] - row["log_sum"] - row["nucleus_mass"].log()),
            d=of_nucleus * _LN2,
        )

    def at(self, *index) -> "_Coefficients":
        return _Coefficients(*(getattr(self, f.name)[index] for f in fields(self)))

    def in_nucleus(self, z: Tensor) -> Tensor:
        """w e (c + d x) at the logits z, float64; z is overwritten."""
        weight = torch.where(z == self.threshold, self.tie_weight, (z > self.threshold).double())
        x = z.sub_(self.maximum).mul_(self.bits).clamp_(min=_GONE)
        return weight.mul_(x.exp2()).mul_(x.mul_(self.d).add_(self.c))

    def gradient(self, z: Tensor) -> Tensor:
        """The full gradient at the logits z, float64, without the label's part."""
        x = ((z - self.maximum) * self.bits).clamp_(min=_GONE)
        return x.exp2() * (self.a + self.b * x) + self.in_nucleus(z.clone())


class _Kept(threading.local):
    """The CPU buffer of a thread, kept between calls: a new one would cost a page fault for every 4 KiB."""

    buffer: Tensor | None = None


_kept = _Kept()


def release_buffer() -> None:
    """Free the CPU buffer that this thread keeps between calls, at most about 10 MiB (at least one row)."""
    _kept.buffer = None


def _kept_buffer(numel: int, device: torch.device) -> Tensor:
    """[numel] float64, uninitialised; on other devices PyTorch's own allocator keeps memory."""
    with torch.inference_mode(False):  # otherwise a buffer created in inference mode could not be written outside of it
        if device.type != "cpu":
            return torch.empty(numel, dtype=torch.float64, device=device)
        if _kept.buffer is None or _kept.buffer.numel() < numel:
            _kept.buffer = torch.empty(numel, dtype=torch.float64)
        return _kept.buffer[:numel]


class _Workspace:
    """Two float64 buffers [rows, V] and the order in which the rows of `logits` go through them."""

    def __init__(self, logits: Tensor):
        tokens, width = logits.shape
        budget = _CHUNK_BYTES.get(logits.device.type, _CHUNK_BYTES["cuda"])
        self.tokens = tokens
        self.rows = min(max(1, budget // (16 * max(width, 1))), max(tokens, 1))
        self.buffers = _kept_buffer(2 * self.rows * width, logits.device).view(2, self.rows, width)

    def spans(self, indices: Tensor | None = None) -> Iterator[slice | Tensor]:
        """All rows, or those of the ascending `indices`, in pieces that fit; slices if the rows are adjacent."""
        if not self.buffers.shape[2]:
            return
        if indices is None:
            yield from (slice(start, min(start + self.rows, self.tokens)) for start in range(0, self.tokens, self.rows))
            return
        for piece in indices.split(self.rows) if indices.numel() else ():
            first, last = int(piece[0]), int(piece[-1])
            yield slice(first, last + 1) if last - first + 1 == piece.numel() else piece

    @staticmethod
    def exponents(z: Tensor, maximum: Tensor, bits: Tensor, clamp: bool = True) -> Tensor:
        """z [R, V] becomes x = (z - maximum) / temperature in bits; with `clamp`, not below -1100."""
        x = z.sub_(maximum).mul_(bits)
        return x.clamp_(min=_GONE) if clamp else x


# ---- the pass over all logits ----------------------------------------------------------------------------------------


def _blocks(rows: Tensor) -> list[Tensor]:
    """Views [R, n, 128] and, if V is not a multiple of 128, [R, 1, the rest]."""
    full = rows.shape[1] // _BLOCK * _BLOCK
    parts = [rows[:, :full].unflatten(1, (-1, _BLOCK))] if full else []
    return parts + ([rows[:, None, full:]] if full < rows.shape[1] else [])


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _block_sums(rows: Tensor) -> Tensor:
    """Sum of each block [R, n]. The order of summation in a row is independent of the number of rows and threads."""
    return _joined([part.sum(-1) for part in _blocks(rows)])


def _sums(work, logits: Tensor, inv_temperature: Tensor, shard: VocabularyShard) -> tuple[Tensor, Tensor, Tensor]:
    """[4, T] maximum, second largest, sum of e = exp(x) without the maximum, sum of e x; block maxima, their blocks.

    The `_PEAKS` largest block maxima [T, K] are in descending order, with -inf if this shard has fewer blocks.
    """
    tokens, width = logits.shape
    kept = min(_PEAKS, math.ceil(shard.widest(logits) / _BLOCK))
    peaks = torch.full((tokens, kept), -math.inf, dtype=torch.float64, device=logits.device)
    peak_blocks = torch.zeros(tokens, kept, dtype=torch.int64, device=logits.device)
    sums = torch.zeros(2, tokens, dtype=torch.float64, device=logits.device)
    bits = inv_temperature / _LN2
    # A shard can be entirely -inf (or empty); its sums are then 0.
    for span in work.spans():
        z = logits[span]
        x, e = work.buffers[0, : z.shape[0]].copy_(z), work.buffers[1, : z.shape[0]]
        largest, blocks = _joined([part.amax(-1) for part in _blocks(x)]).topk(min(kept, math.ceil(width / _BLOCK)))
        peaks[span, : largest.shape[1]], peak_blocks[span, : blocks.shape[1]] = largest, blocks
        x = work.exponents(x, _finite(largest[:, :1]), bits[span, None])
        torch.exp2(x, out=e)
        sums[0, span] = _block_sums(e).scatter_(1, blocks[:, :1], 0.0).sum(-1)  # the first block is added below
        sums[1, span] = _block_sums(e.mul_(x)).sum(-1) * _LN2

    maximum, second, rest = peaks[:, 0], peaks[:, 1] if kept > 1 else torch.full_like(peaks[:, 0], -math.inf), sums[0]
    if width:
        inside, columns = _columns(peak_blocks[:, 0], width)
        first = torch.where(inside, logits.gather(1, columns).double(), -math.inf)
        first.scatter_(1, first.argmax(dim=-1, keepdim=True), -math.inf)
        second = torch.maximum(second, first.amax(-1))
        rest += ((first - _finite(maximum)[:, None]) * inv_temperature[:, None]).exp().sum(-1)
    return torch.stack([maximum, second, rest, sums[1]]), peaks, peak_blocks


def _finite(maximum: Tensor) -> Tensor:
    """What to subtract from a row: its maximum, or 0 if that is -inf."""
    return torch.where(maximum == -math.inf, 0.0, maximum)


def _columns(blocks: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The columns [n, 128] of each block and which of them exist; those that do not are replaced by the last."""
    columns = blocks[:, None] * _BLOCK + torch.arange(min(_BLOCK, width), device=blocks.device)
    return columns < width, columns.clamp(max=width - 1)


def _merged(parts: Tensor, inv_temperature: Tensor) -> tuple[Tensor, ...]:
    """Shards' [N, 5, T] of `_sums` (relative to each shard's maximum) and label -> those of the full rows, [T] each."""
    maximum, owner = parts[:, 0].max(dim=0)
    second = parts[:, :2].flatten(0, 1).topk(2, dim=0).values[1]
    shift = ((parts[:, 0] - maximum) * inv_temperature).clamp(min=_GONE)
    factor = shift.exp()
    own = torch.arange(parts.shape[0], device=owner.device)[:, None] == owner
    rest = (factor * parts[:, 2] + torch.where(own, 0.0, factor)).sum(0)
    total_x = (factor * (parts[:, 3] + shift * (1 + parts[:, 2]))).sum(0)
    return maximum, second, rest, total_x, parts[:, 4].amax(0)


def _count_possible(work: _Workspace, logits: Tensor) -> Tensor:
    count = torch.zeros(logits.shape[0], dtype=torch.int64, device=logits.device)
    for span in work.spans():
        count[span] = (logits[span] != -math.inf).sum(-1)
    return count


# ---- the edge of the nucleus -----------------------------------------------------------------------------------------


class _Search:
    """The edge of every row's nucleus: a bracket [low, high] of logits, and the sums over the tokens above it."""

    def __init__(self, work, logits, inv_temperature, maximum, total, top_p, shard):
        self.work, self.logits, self.shard = work, logits, shard
        self.inv_temperature, self.maximum = inv_temperature, maximum
        self.target = top_p * total
        self.low = maximum + (total.log() - math.log(2 * shard.vocab_size(logits) / (1 - top_p))) / inv_temperature
        self.high = maximum.clone()
        # mass, sum of e x and number of the tokens above the bracket
        self.above = torch.zeros(3, maximum.numel(), dtype=torch.float64, device=maximum.device)
        most, self.list_size = (_BUCKETS_SHARDED, _LIST_SHARDED) if shard.group else (_BUCKETS, _LIST)
        self.buckets = max(2, min(most, shard.vocab_size(logits)))
        self.wide = maximum.isfinite()  # rows whose edge is not among the peaks
        self.lists = [maximum.new_empty(2, 0)]  # [2, n] row and logit of the tokens
        self.ties = torch.ones_like(maximum)

    def among_peaks(self, peaks: Tensor, peak_blocks: Tensor) -> None:
        """List the tokens of the rows in which the largest block maxima alone reach top_p."""
        largest = self.shard.gather(peaks).transpose(0, 1).flatten(1).topk(peaks.shape[1]).values
        x = (largest - self.maximum[:, None]) * self.inv_temperature[:, None]
        mass = x.exp().cumsum(-1)
        reached = self.wide & (mass[:, -1] >= self.target)
        position = (mass < self.target[:, None]).sum(-1).clamp(max=mass.shape[1] - 1)
        low = largest.gather(1, position[:, None])[:, 0]
        # Blocks that are not among the kept ones must lie below: their maxima can tie with the last.
        if peaks.shape[1] < math.ceil(self.logits.shape[1] / _BLOCK):
            missing = (peaks[:, -1] >= low) & reached
        else:
            missing = torch.zeros_like(reached)

        chosen, counts = [], torch.zeros_like(self.maximum)
        where = reached & ~missing
        for span in self.work.spans():
            row, k = ((peaks[span] >= low[span, None]) & where[span, None]).nonzero(as_tuple=True)
            row += span.start
            inside, columns = _columns(peak_blocks[row, k], self.logits.shape[1])
            z = self.logits[row[:, None], columns].double()
            inside &= z >= low[row, None]
            row = row[:, None].expand_as(z)[inside]
            chosen.append((row, z[inside]))
            counts += torch.bincount(row, minlength=counts.numel())
        counts, missing = self.shard.sum(torch.stack([counts, missing.double()]))
        listed = reached & (missing == 0) & (counts <= self.list_size)
        for row, z in chosen:
            keep = listed[row]
            self.lists.append(torch.stack([row[keep].double(), z[keep]]))
        self.wide &= ~listed
        self._settle_listed()

    def by_histograms(self) -> None:
        """Narrow the other rows' brackets until each contains few tokens, which are listed, or a single value."""
        rows = self.wide.nonzero()[:, 0]
        if not rows.numel():
            return
        # On a single rank a few rows at a time: their histograms are not small. With several all: exchanges cost more.
        for part in (rows,) if self.shard.group else rows.split(_ROWS):
            while part.numel():
                part = part[~self._narrowed(part)]
            self._settle_listed()

    def _narrowed(self, rows: Tensor) -> Tensor:
        """One round of histograms for `rows`; returns which of them [R] are done."""
        sums, extremes = self._histograms(rows)
        sums, extremes = self.shard.sum(sums), self.shard.max(extremes)
        place = torch.arange(self.buckets, device=rows.device)
        cumulative = self.above[0, rows, None] + sums[0].cumsum(-1)
        filled = torch.where(sums[2] > 0, place, 0).amax(-1)
        crossing = torch.minimum((cumulative < self.target[rows, None]).sum(-1), filled)[:, None]
        self.above[:, rows] += (sums * (place < crossing)).sum(-1)
        self.low[rows] = -extremes[0].gather(1, crossing)[:, 0]
        self.high[rows] = extremes[1].gather(1, crossing)[:, 0]
        inside = sums[2].gather(1, crossing)[:, 0]
        self.ties[rows] = inside
        single = self.low[rows] == self.high[rows]
        short = ~single & (inside <= self.list_size)
        self._list(rows[short])
        return single | short

    def _histograms(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Of each bucket, highest first: mass, sum of e x, number of tokens [3, R, B]; -smallest, largest [2, R, B]."""
        buckets = self.buckets
        sums = torch.zeros(3, rows.numel(), buckets + 1, dtype=torch.float64, device=rows.device)
        extremes = torch.full((2, rows.numel(), buckets + 1), -math.inf, dtype=torch.float64, device=rows.device)
        index = torch.empty_like(self.work.buffers[0], dtype=torch.int64)
        done = 0
        for span in self.work.spans(rows):
            logits = self.logits[span]
            count = logits.shape[0]
            low, high, here = self.low[span, None], self.high[span, None], slice(done, done + count)
            z, place = self.work.buffers[0, :count], self.work.buffers[1, :count]
            # The maximum has its own bucket, so every round separates it from the rest: the loop ends.
            torch.sub(high, z.copy_(logits), out=place).mul_(buckets / (high - low)).clamp_(1, buckets - 1)
            place.masked_fill_(z == high, 0).masked_fill_(z < low, buckets).masked_fill_(z > high, buckets)
            bucket = index[:count].copy_(place)
            extremes[1, here].scatter_reduce_(1, bucket, z, "amax")
            extremes[0, here].scatter_reduce_(1, bucket, torch.neg(z, out=place), "amax")
            x = self.work.exponents(z, self.maximum[span, None], self.inv_temperature[span, None] / _LN2)
            e = place
            sums[0, here].scatter_add_(1, bucket, torch.exp2(x, out=e))
            sums[1, here].scatter_add_(1, bucket, e.mul_(x))
            sums[2, here].scatter_add_(1, bucket, e.fill_(1))
            done += count
        sums[1] *= _LN2
        return sums[..., :buckets], extremes[..., :buckets]

    def _list(self, rows: Tensor) -> None:
        for span in self.work.spans(rows):
            z = self.logits[span]
            z = self.work.buffers[0, : z.shape[0]].copy_(z)
            row, column = ((z >= self.low[span, None]) & (z <= self.high[span, None])).nonzero(as_tuple=True)
            here = row + span.start if isinstance(span, slice) else span[row]
            self.lists.append(torch.stack([here.double(), z[row, column]]))

    def _settle_listed(self) -> None:
        """Find the edge among the listed tokens, and clear the list."""
        rows, values = self.shard.gather_pairs(torch.cat(self.lists, dim=1))
        self.lists = [self.lists[0][:, :0]]
        order = values.argsort(descending=True)
        order = order[rows[order].argsort(stable=True)]
        values = values[order]
        counts = torch.bincount(rows.long(), minlength=self.maximum.numel())
        starts = counts.cumsum(0) - counts
        listed = counts.nonzero()[:, 0]
        # By number of tokens, so that the padding below is small.
        for rows in listed[counts[listed].argsort()].split(_ROWS) if listed.numel() else ():
            places = torch.arange(int(counts[rows].max()), device=rows.device)
            valid = places < counts[rows, None]
            z = values[(starts[rows, None] + places).clamp(max=values.numel() - 1)]
            x = (z - self.maximum[rows, None]) * self.inv_temperature[rows, None]
            e = torch.where(valid, x.exp(), 0.0)
            mass = self.above[0, rows, None] + e.cumsum(-1)
            crossing = torch.minimum((valid & (mass < self.target[rows, None])).sum(-1), counts[rows] - 1)
            edge = z.gather(1, crossing[:, None])
            higher = valid & (z > edge)
            self.above[:, rows] += torch.stack([e * higher, e * x * higher, higher.double()]).sum(-1)
            self.high[rows] = edge[:, 0]
            self.ties[rows] = (valid & (z == edge)).sum(-1).double()

    def result(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Of each row's nucleus: sum of e, sum of e x, size, threshold, weight of the tokens that tie at it."""
        mass, mass_x, number = self.above
        x = (self.high - self.maximum) * self.inv_temperature
        e = x.exp()
        inside = torch.minimum(((self.target - mass) / e).ceil().clamp(min=1), self.ties)
        size = torch.where(self.maximum.isfinite(), number + inside, 0.0).long()
        return mass + inside * e, mass_x + inside * e * x, size, self.high, inside / self.ties
