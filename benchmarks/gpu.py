"""Exactness, speed and memory of the token statistics on a GPU: `python -m benchmarks.gpu --json FILE [--no-sweep]`

The copy bandwidth of the device comes first: every time is shown next to bytes / that bandwidth. Sections run in order
of importance, and the JSON file is rewritten after each, so an interrupted run keeps its results so far:

default   bf16 at top_p = 0.8, what training uses: exact? through the public function too? the same bits every time?
speed     forward and backward, T = 8192, peaked rows; the bars: at most 1.25 x bytes / bandwidth
flat      the same for rows that are searched in full
memory    what forward, backward and backward in place allocate
dtypes    fp32 and fp16, top_p 0.99 and 1: exact? their speed; T = 32768
loose     vocabularies that are not divisible by 16: exact? their speed
torch     the torch backend on this device: exact? its speed
head      the fused LM head against product + statistics: speed, memory, equal?
shards    a vocabulary split over a process group of one rank: equal? its speed
sweep     other tile sizes, warps, pivots (skipped with --no-sweep)

Exact means: equal to the sorted float64 definition on the same numbers. At a borderline, where the cumulative mass is
within 3e-7 of top_p, the nucleus may be one token larger or smaller; it is then compared with the definition's result
for a top_p that far away, and counted.

About 21 compilations of 2 to 4 s without the sweep and 21 more in it: an estimate of 2 minutes, and 1 more (not run on
a GPU yet). Takes at most 45 GiB of the GPU's memory. Exits 1 when a check of exactness fails or a section breaks, 2
without CUDA; a missed bar is only printed. `--rehearse` runs it all on the CPU, Triton's kernels in its interpreter, at
a size that says nothing about speed.
"""

import argparse
import itertools
import json
import math
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from data_prep.files import atomic_write
from paec_loss import linear_token_statistics, token_statistics
from paec_loss.backends import SCALARS, reference, torch_backend
from paec_loss.statistics import backend_name

TOP_P = 0.8
BAR = 1.25
"""Times bytes / measured bandwidth that forward and backward may take: bf16, T = 8192, peaked rows."""
KNIFE_EDGE = 3e-7
"""Distance of the cumulative mass from top_p within which float32 exponentials cannot tell whether it is reached."""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
MEMORY_LIMIT_GIB = 70


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    device: str
    kinds: tuple[str, ...]
    """Of rows, on which exactness is checked."""
    vocab_size: int
    loose: tuple[int, ...]
    """Vocabularies that are not divisible by 16."""
    exact: int
    """Rows of a check against the definition."""
    many: int
    """Rows of a check of repeatability, and of a slice in which large inputs are made."""
    tokens: int
    long: int
    repeats: int
    hidden: int
    copied: int
    """Bytes of the copy that measures the bandwidth."""


FULL = Scale("cuda", ("peaked", "flat", "special"), 151936, (259, 50257), 32, 1024, 8192, 32768, 20, 1536, 2**31)
REHEARSAL = Scale("cpu", ("special",), 192, (77,), 8, 2, 2, 4, 1, 16, 2**22)
REHEARSAL_CONSTANTS = {"GROUPS": 16, "SEARCH_GROUPS": 64, "LOOSE_SEARCH_GROUPS": 32, "SELECT_GROUPS": 16}
REHEARSAL_CONSTANTS |= {"FOUND": 16, "PIVOTS": 3, "LOOSE_PIVOTS": 3, "BACKWARD_BLOCK": 128}
"""Of the Triton backend, so that a row of 192 takes several tiles and a search."""


# ---- rows ------------------------------------------------------------------------------------------------------------


def peaked(tokens: int, vocab_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Logits [T, V] float32 and sampled labels [T]: a few tokens hold the mass, the others lie about 15 nats lower."""
    device = generator.device
    logits = torch.randn(tokens, vocab_size, generator=generator, device=device).mul_(2.2)
    likely = torch.randint(0, vocab_size, (tokens, 30), generator=generator, device=device)
    spread = torch.rand(tokens, 1, generator=generator, device=device) * 2 + 0.5
    logits.scatter_(1, likely, 20 - spread * torch.arange(30, device=device))
    return logits, likely[:, 0].contiguous()


def flat(tokens: int, vocab_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Logits [T, V] of an untrained model: every token is likely, and the nucleus has most of them."""
    logits = torch.randn(tokens, vocab_size, generator=generator, device=generator.device)
    return logits, torch.randint(0, vocab_size, (tokens,), generator=generator, device=generator.device)


def special(tokens: int, vocab_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows that are exact by luck only: forks on the edge, ties, uniform, one-hot, late maximum, -inf, NaN, +inf."""
    logits, labels = peaked(tokens, vocab_size, generator)
    logits[0::8] = logits[0::8].sub_(logits[0::8].amax(1, keepdim=True)).clamp_max_(-12)
    logits[0::8, [7, vocab_size - 3]] = 5.0
    logits[1::8] = (logits[1::8] * 0.3).round_()
    logits[2::8] = 1.25
    logits[3::8] = -31.7
    logits[3::8, vocab_size // 2] = 3.0
    logits[4::8] = torch.linspace(-6, 6, vocab_size, device=logits.device)
    logits[5::8, ::2] = -math.inf
    logits[6::16, vocab_size * 2 // 3] = math.nan
    logits[14::16, 5] = math.inf
    labels[4::16] = -100
    return logits, labels


ROWS = {"peaked": peaked, "flat": flat, "special": special}


def inputs(kind: str, dtype: str, tokens: int, vocab_size: int, device: str, seed: int = 0) -> tuple[Tensor, ...]:
    """logits [T, V], labels [T], 1 / temperature [T], upstream [3, T]."""
    generator = torch.Generator(device).manual_seed(seed)
    logits, labels = ROWS[kind](tokens, vocab_size, generator)
    upstream = torch.randn(3, tokens, generator=generator, device=device, dtype=torch.float64)
    upstream[0, labels < 0] = 0
    upstream[:, tokens // 2] = 0
    inv_temperature = 1 / (0.7 + 0.6 * torch.rand(tokens, generator=generator, device=device, dtype=torch.float64))
    return logits.to(DTYPES[dtype]), labels, inv_temperature, upstream


# ---- exactness -------------------------------------------------------------------------------------------------------


def largest_error(value: Tensor, expected: Tensor, floor: float | Tensor) -> float:
    """Largest |value - expected| / max(|expected|, floor); infinite where only one of them is NaN or infinite."""
    value, expected = value.double(), expected.double()
    same = (value == expected) | (value.isnan() & expected.isnan())
    error = (value - expected).abs() / expected.abs().clamp_min(floor)
    return torch.where(same, 0.0, error.nan_to_num(nan=math.inf)).max().item()


def definition(
    logits: Tensor, labels: Tensor, inv_temperature: Tensor, top_p: float, size: Tensor
) -> tuple[Tensor, Tensor, int]:
    """The reference's scalars and sizes, and the number of rows at a knife edge, where `size` decided.

    A row is at a knife edge if `size` differs by one and the cumulative mass up to the smaller of the two nuclei is
    within KNIFE_EDGE of top_p; its result is then the one for a top_p that far beyond that mass.
    """
    scalars, expected = reference.forward(logits, labels, inv_temperature, top_p)
    edges = 0
    for row in ((size - expected).abs() == 1).nonzero()[:, 0].tolist() if top_p < 1 else ():
        smaller = int(min(size[row], expected[row]))
        x = logits[row].double().sort(descending=True).values * inv_temperature[row]
        mass = x.softmax(dim=0).cumsum(dim=0)[smaller - 1].item()
        if abs(mass - top_p) <= KNIFE_EDGE:
            moved = mass - KNIFE_EDGE if size[row] == smaller else mass + KNIFE_EDGE
            at = slice(row, row + 1)
            scalars[:, at], expected[at] = reference.forward(logits[at], labels[at], inv_temperature[at], moved)
            edges += 1
    return scalars, expected, edges


@dataclass(frozen=True)
class Exactness:
    """How far a backend is from the definition on some rows."""

    errors: dict[str, float]
    """Of each scalar, relative."""
    gradient: float
    """Relative to the gradient, or where that changes its sign to p times the upstream gradients."""
    sizes: int
    """Nuclei of another size, knife edges left out."""
    edges: int
    allowed: float
    """For the gradient."""

    @property
    def good(self) -> bool:
        """Whether all of it is within bounds."""
        return max(self.errors.values()) < 1e-6 and self.gradient < self.allowed and self.sizes == 0


def exactness(backend, given: tuple[Tensor, ...], top_p: float, *, half_ulp: bool = True) -> Exactness:
    """Scalars, nucleus sizes and gradient of a backend against the definition; without `half_ulp` bf16 may be cut."""
    logits, labels, inv_temperature, upstream = given
    scalars, size = backend.forward(logits, labels, inv_temperature, top_p)
    expected, expected_size, edges = definition(logits, labels, inv_temperature, top_p, size)
    rows = range(10 if top_p < 1 else 8)  # top_p = 1 has no threshold
    errors = {SCALARS[i]: largest_error(scalars[i], expected[i], 1e-12) for i in rows}
    gradient = torch.empty_like(logits)
    backend.backward(logits, labels, inv_temperature, scalars, upstream, gradient)
    wanted = torch.empty(logits.shape, dtype=torch.float64, device=logits.device)
    reference.backward(logits, labels, inv_temperature, expected, upstream, wanted)
    p = (logits.double() * inv_temperature[:, None]).softmax(dim=1)
    floor = (p * upstream.abs().sum(dim=0)[:, None]).nan_to_num(nan=0.0).clamp_min(1e-30)
    if logits.dtype == torch.float16:
        floor = floor.clamp_min(1e-4)
    allowed = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 4.1e-3}[logits.dtype]
    return Exactness(
        errors=errors,
        gradient=largest_error(gradient, wanted, floor),
        sizes=(size != expected_size).sum().item(),
        edges=edges,
        allowed=allowed if half_ulp else 2 * allowed,
    )


# ---- the run ---------------------------------------------------------------------------------------------------------


class Run:
    """The machine, what was found so far, and the file that it goes to."""

    def __init__(self, scale: Scale, backend, file: Path | None):
        self.scale, self.backend, self.file = scale, backend, file
        self.cuda = scale.device == "cuda"
        self.failed = False
        self.sections: list[dict] = []
        self.machine: dict = {}
        self.bandwidth = math.nan

    # -- report

    def add(self, what: str, value: str, verdict: bool | None = None, *, exact: bool = False, **numbers) -> None:
        """Print a line and keep it; a failed verdict on exactness fails the run, one on a bar does not."""
        word = {None: "", True: "PASS", False: "FAIL"}[verdict]
        print(f"{what:72} {value:64} {word}", flush=True)
        self.sections[-1]["lines"].append({"what": what, "value": value, "verdict": verdict, **numbers})
        self.failed |= exact and verdict is False

    def section(self, name: str, body: Callable[["Run"], None]) -> None:
        """Run one section and write the file. One that breaks is recorded, and the next one runs all the same."""
        print(f"\n== {name}", flush=True)
        record = {"name": name, "seconds": None, "compilations": None, "peak_gib": None, "error": None, "lines": []}
        self.sections.append(record)
        before, start = compilations(), time.perf_counter()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        try:
            body(self)
        except Exception as error:  # what the other sections find is worth having
            traceback.print_exc()
            record["error"] = f"{type(error).__name__}: {error}"[:2000]
            self.failed = True
        record["seconds"] = time.perf_counter() - start
        record["compilations"] = compilations() - before
        if self.cuda and record["error"] is None:
            torch.cuda.empty_cache()
            record["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
            if record["peak_gib"] > MEMORY_LIMIT_GIB:
                self.add("peak memory", f"{record['peak_gib']:.1f} GiB, more than {MEMORY_LIMIT_GIB}", False)
        print(f"-- {name}: {record['seconds']:.1f} s, {record['compilations']} compilations", flush=True)
        self.save()

    def save(self) -> None:
        """Write everything so far, completely or not at all."""
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        found = {"machine": self.machine, "failed": self.failed, "sections": self.sections}
        with atomic_write(self.file) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    # -- measuring

    def inputs(self, kind: str, dtype: str, tokens: int, vocab_size: int | None = None) -> tuple[Tensor, ...]:
        """`inputs` on this device, made in slices: float32 noise of the whole might not fit."""
        vocab_size = vocab_size or self.scale.vocab_size
        step = min(self.scale.many, tokens)
        logits = torch.empty(tokens, vocab_size, dtype=DTYPES[dtype], device=self.scale.device)
        others = []
        for start in range(0, tokens, step):
            part = inputs(kind, dtype, min(step, tokens - start), vocab_size, self.scale.device, seed=start)
            logits[start : start + step] = part[0]
            others.append(part[1:])
            del part
        return logits, *(torch.cat(parts, dim=-1) for parts in zip(*others, strict=True))

    def milliseconds(self, call: Callable, *arguments, repeats: int | None = None) -> float:
        """Median time of a call; the logits are larger than the L2 cache, so every call reads memory."""
        for _ in range(2):
            call(*arguments)
        times = []
        for _ in range(repeats or self.scale.repeats):
            if self.cuda:
                start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                start.record()
                call(*arguments)
                end.record()
                end.synchronize()
                times.append(start.elapsed_time(end))
            else:
                start = time.perf_counter()
                call(*arguments)
                times.append(1e3 * (time.perf_counter() - start))
        return statistics.median(times)

    def peak(self, call: Callable, *arguments) -> int | None:
        """Bytes that a call allocates at its peak, its results included; None where no allocator tells."""
        if not self.cuda:
            call(*arguments)
            return None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        result = call(*arguments)
        torch.cuda.synchronize()
        del result
        return torch.cuda.max_memory_allocated() - held

    def add_time(self, what: str, size: int, time_ms: float, *, bar: bool = False) -> None:
        """A time next to `size` bytes / the measured bandwidth."""
        floor = 1e3 * size / self.bandwidth
        ratio = time_ms / floor
        verdict = ratio <= BAR if bar else None
        text = f"{time_ms:9.3f} ms, bytes / bandwidth {floor:8.3f} ms, ratio {ratio:6.2f}"
        self.add(what, text, verdict, milliseconds=time_ms, bytes=size, floor_ms=floor, ratio=ratio)

    def add_memory(self, what: str, used: int | None, allowed: float, logits: Tensor) -> None:
        """A peak next to the size of the logits."""
        if used is None:
            self.add(what, "not measured on a CPU")
            return
        text = f"{used / 2**20:.1f} MiB, logits {logits.nbytes / 2**20:.0f} MiB, allowed {allowed / 2**20:.1f}"
        self.add(what, text, used <= allowed, bytes=used, logits=logits.nbytes)

    def add_exactness(self, what: str, backend, given: tuple[Tensor, ...], top_p: float) -> None:
        """A check of `exactness`."""
        found = exactness(backend, given, top_p, half_ulp=self.cuda)
        worst = max(found.errors, key=found.errors.get)
        text = f"{worst} {found.errors[worst]:.0e}, gradient {found.gradient:.0e}, sizes off {found.sizes}"
        text += f", knife edges {found.edges}" if found.edges else ""
        numbers = {"errors": found.errors, "gradient": found.gradient, "sizes": found.sizes, "edges": found.edges}
        self.add(what, text, found.good, exact=True, **numbers)


_compiled = [0]


def count_compilations() -> None:
    """Have Triton count what it compiles, for `compilations`."""
    import triton

    def counted(*_, **__) -> None:
        _compiled[0] += 1

    triton.knobs.runtime.jit_post_compile_hook = counted


def compilations() -> int:
    """Kernels compiled, or loaded from Triton's cache, so far."""
    return _compiled[0]


# ---- sections --------------------------------------------------------------------------------------------------------


def machine(run: Run) -> None:
    """Device, versions, and the bytes read and written a second by a copy of 2 GiB."""
    import triton

    source = torch.ones(run.scale.copied, dtype=torch.uint8, device=run.scale.device)
    target = torch.empty_like(source)
    run.bandwidth = 2e3 * source.numel() / run.milliseconds(target.copy_, source)
    run.machine = {
        "device": torch.cuda.get_device_name() if run.cuda else "CPU (a rehearsal: its times are meaningless)",
        "bandwidth": run.bandwidth,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
        "constants": {k: v for k, v in vars(run.backend).items() if k.isupper() and isinstance(v, int)},
    }
    if run.cuda:
        run.machine["memory_gib"] = torch.cuda.get_device_properties(0).total_memory / 2**30
    run.add("device", run.machine["device"])
    run.add("copy bandwidth, read + written", f"{run.bandwidth / 1e12:.3f} TB/s", bandwidth=run.bandwidth)


def default(run: Run) -> None:
    """bf16 at top_p = 0.8: against the definition, through the public function, and again and again."""
    for kind in run.scale.kinds:
        run.add_exactness(
            f"exact triton {kind} bf16 top_p={TOP_P}", run.backend, run.inputs(kind, "bf16", run.scale.exact), TOP_P
        )
    public(run)
    for kind in run.scale.kinds:
        repeatable(run, kind, "bf16")


def public(run: Run) -> None:
    """`token_statistics` as the engine calls it, in place, equals the backend's own functions."""
    logits, labels, inv_temperature, upstream = run.inputs("special", "bf16", run.scale.exact)
    upstream = upstream.float().double()  # what autograd hands on
    name = backend_name("auto" if run.cuda else "triton", logits, None)
    scalars, size = run.backend.forward(logits, labels, inv_temperature, TOP_P)
    gradient = torch.empty_like(logits)
    run.backend.backward(logits, labels, inv_temperature, scalars, upstream, gradient)
    leaf = logits.clone().requires_grad_()
    found = token_statistics(
        leaf * 1, labels, top_p=TOP_P, temperature=1 / inv_temperature, backend=name, inplace_backward=True
    )
    outputs = (found.log_prob, found.entropy, found.nucleus_entropy)
    torch.autograd.backward(outputs, [row.to(output.dtype) for row, output in zip(upstream, outputs, strict=True)])
    errors = [largest_error(output, row, 1e-12) for output, row in zip(outputs, scalars, strict=False)]
    slope = largest_error(leaf.grad, gradient, 1e-30)
    good = name == "triton" and torch.equal(found.nucleus_size, size) and max(errors) < 1e-6 and slope < 0.02
    text = f"backend {name}, values {max(errors):.0e}, gradient {slope:.0e}"
    run.add("token_statistics, in place", text, good, exact=True, errors=errors, gradient=slope)


def repeatable(run: Run, kind: str, dtype: str) -> None:
    """The same bits 20 times, with enough rows to fill the GPU; in-place backward gives them too."""
    logits, labels, inv_temperature, upstream = run.inputs(kind, dtype, run.scale.many)
    first, first_size = run.backend.forward(logits, labels, inv_temperature, TOP_P)
    first_gradient = torch.empty_like(logits)
    run.backend.backward(logits, labels, inv_temperature, first, upstream, first_gradient)
    equal = True
    for _ in range(run.scale.repeats):
        scalars, size = run.backend.forward(logits, labels, inv_temperature, TOP_P)
        gradient = logits.clone()
        run.backend.backward(gradient, labels, inv_temperature, scalars, upstream, gradient)
        equal &= torch.equal(scalars.nan_to_num(nan=7.0), first.nan_to_num(nan=7.0))
        equal &= torch.equal(size, first_size)
        equal &= torch.equal(gradient.nan_to_num(nan=7.0), first_gradient.nan_to_num(nan=7.0))
    run.add(f"repeat {kind} {dtype}", f"{run.scale.repeats} times, in place", bool(equal), exact=True)


def times(run: Run, backend, name: str, given: tuple[Tensor, ...], *, repeats: int | None = None, bar=False) -> None:
    """Forward and backward of a backend."""
    logits, labels, inv_temperature, upstream = given
    scalars, _ = backend.forward(logits, labels, inv_temperature, TOP_P)
    out = torch.empty_like(logits)
    arguments = (logits, labels, inv_temperature)
    forward = run.milliseconds(backend.forward, *arguments, TOP_P, repeats=repeats)
    run.add_time(f"time forward {name}", logits.nbytes, forward, bar=bar)
    backward = run.milliseconds(backend.backward, *arguments, scalars, upstream, out, repeats=repeats)
    run.add_time(f"time backward {name}", 2 * logits.nbytes, backward, bar=bar)


def speed(run: Run) -> None:
    """The bars."""
    tokens = run.scale.tokens
    times(run, run.backend, f"bf16 T={tokens} peaked", run.inputs("peaked", "bf16", tokens), bar=True)


def flat_rows(run: Run) -> None:
    """Rows that are searched in full; a forward reads them three to five times."""
    tokens = run.scale.tokens
    times(
        run,
        run.backend,
        f"bf16 T={tokens} flat",
        run.inputs("flat", "bf16", tokens),
        repeats=max(1, run.scale.repeats // 2),
    )


def memory(run: Run) -> None:
    """Memory allocated in addition to the logits."""
    logits, labels, inv_temperature, upstream = run.inputs("peaked", "bf16", run.scale.tokens)
    scalars, _ = run.backend.forward(logits, labels, inv_temperature, TOP_P)
    out = torch.empty_like(logits)
    used = run.peak(run.backend.forward, logits, labels, inv_temperature, TOP_P)
    run.add_memory("memory forward", used, 0.03 * logits.nbytes, logits)
    used = run.peak(run.backend.backward, logits, labels, inv_temperature, scalars, upstream, out)
    run.add_memory("memory backward, its result not counted", used, 2**20, logits)
    # Once, and last: a repeat would start from its own result.
    used = run.peak(run.backend.backward, logits, labels, inv_temperature, scalars, upstream, logits)
    run.add_memory("memory backward in place", used, 2**20, logits)


def dtypes(run: Run) -> None:
    """Other dtypes, other top_p, more rows."""
    for dtype in ("fp32", "fp16"):
        for kind in run.scale.kinds:
            given = run.inputs(kind, dtype, run.scale.exact)
            run.add_exactness(f"exact triton {kind} {dtype} top_p={TOP_P}", run.backend, given, TOP_P)
    repeatable(run, "special", "fp32")
    for top_p, dtype, kind in itertools.product((0.99, 1.0), ("bf16", "fp32"), run.scale.kinds):
        given = run.inputs(kind, dtype, run.scale.exact)
        run.add_exactness(f"exact triton {kind} {dtype} top_p={top_p}", run.backend, given, top_p)
    del given
    few = max(1, run.scale.repeats // 4)
    for dtype, tokens, kind in (
        ("fp32", run.scale.tokens, "peaked"),
        ("fp32", run.scale.tokens, "flat"),
        ("fp16", run.scale.tokens, "peaked"),
        ("bf16", run.scale.long, "peaked"),
        ("fp32", run.scale.long, "peaked"),
    ):
        times(run, run.backend, f"{dtype} T={tokens} {kind}", run.inputs(kind, dtype, tokens), repeats=few)


def loose(run: Run) -> None:
    """Rows that are no sequence of aligned groups of 16 bytes."""
    for vocab_size, dtype, kind in itertools.product(run.scale.loose, ("bf16", "fp32"), run.scale.kinds):
        given = run.inputs(kind, dtype, run.scale.exact, vocab_size)
        run.add_exactness(f"exact triton {kind} {dtype} V={vocab_size}", run.backend, given, TOP_P)
    for vocab_size in run.scale.loose:
        given = run.inputs("peaked", "bf16", run.scale.tokens, vocab_size)
        times(run, run.backend, f"bf16 T={run.scale.tokens} peaked V={vocab_size}", given)


def torch_on_device(run: Run) -> None:
    """The torch backend, which takes shards of the vocabulary and float64."""
    for dtype, kind in itertools.product(("bf16", "fp32"), run.scale.kinds):
        given = run.inputs(kind, dtype, run.scale.exact)
        run.add_exactness(f"exact torch {kind} {dtype} top_p={TOP_P}", torch_backend, given, TOP_P)
    for kind in ("peaked", "flat"):
        given = run.inputs(kind, "bf16", run.scale.many)
        times(run, torch_backend, f"torch bf16 T={run.scale.many} {kind}", given, repeats=3)


def head(run: Run) -> None:
    """Hidden states to statistics and back: the fused head against the product and the statistics by themselves."""
    scale = run.scale
    generator = torch.Generator(scale.device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=scale.device).bfloat16().requires_grad_()

    hidden, weight = normal(scale.tokens, scale.hidden), normal(scale.vocab_size, scale.hidden)
    with torch.no_grad():
        weight.mul_(6 / scale.hidden**0.5)  # logits of standard deviation 6
    labels = torch.randint(0, scale.vocab_size, (scale.tokens,), generator=generator, device=scale.device)
    upstream = torch.randn(3, scale.tokens, generator=generator, device=scale.device)
    backend = "auto" if run.cuda else "torch"

    def passes(fused: bool) -> tuple[Tensor, ...]:
        hidden.grad = weight.grad = None
        if fused:
            found = linear_token_statistics(hidden, weight, labels, top_p=TOP_P, backend=backend)
        else:
            logits = hidden @ weight.t()
            found = token_statistics(logits, labels, top_p=TOP_P, backend=backend, inplace_backward=True)
            del logits
        outputs = (found.log_prob, found.entropy, found.nucleus_entropy)
        torch.autograd.backward(outputs, list(upstream))
        return *(output.detach() for output in outputs), hidden.grad, weight.grad

    few = max(1, scale.repeats // 4)
    products = 6 * scale.tokens * scale.hidden * scale.vocab_size  # operations of the head, forward and backward
    results = {}
    for name, fused in (("product, then statistics in place", False), ("fused head", True)):
        results[fused] = [part.float() for part in passes(fused)]
        taken = run.milliseconds(passes, fused, repeats=few)
        rate = products / taken / 1e9
        run.add(f"time forward + backward, {name}", f"{taken:.2f} ms, {rate:.0f} useful TFLOP/s", milliseconds=taken)
        used = run.peak(passes, fused)
        size = 2 * scale.tokens * scale.vocab_size
        text = "not measured on a CPU" if used is None else f"{used / 2**20:.0f} MiB; the logits are {size / 2**20:.0f}"
        run.add(f"memory, {name}", text, bytes=used)
    # Two matrix products of other shapes differ in the last bits of bf16 logits; a few nuclei then differ as well.
    gaps = [((a - b).norm() / b.norm()).item() for a, b in zip(results[True], results[False], strict=True)]
    run.add("fused against not fused, relative", f"{max(gaps):.1e}", max(gaps) < 0.02, exact=True, gaps=gaps)


def shards(run: Run) -> None:
    """The exchange over a process group of one rank: the collectives' way, whose result is that of the whole."""
    logits, labels, inv_temperature, _ = run.inputs("peaked", "bf16", run.scale.many)
    flat_logits = run.inputs("flat", "bf16", run.scale.many)[0]
    with tempfile.TemporaryDirectory() as folder:
        method = f"file://{folder}/rendezvous"
        dist.init_process_group("nccl" if run.cuda else "gloo", init_method=method, rank=0, world_size=1)
        try:
            for kind, rows in (("peaked", logits), ("flat", flat_logits)):
                arguments = {"top_p": TOP_P, "temperature": 1 / inv_temperature}
                whole = token_statistics(rows, labels, backend="torch", **arguments)

                def split(rows=rows, arguments=arguments):
                    return token_statistics(rows, labels, group=dist.group.WORLD, **arguments)

                found = split()
                equal = torch.equal(found.nucleus_size, whole.nucleus_size)
                error = largest_error(found.nucleus_entropy, whole.nucleus_entropy, 1e-12)
                run.add(
                    f"shards {kind}, entropy {error:.0e}", f"T={run.scale.many}", equal and error < 1e-6, exact=True
                )
                run.add_time(f"time forward shards {kind}", rows.nbytes, run.milliseconds(split, repeats=3))
        finally:
            dist.destroy_process_group()


@contextmanager
def constants(module, **values: int) -> Iterator[None]:
    """The module's constants with other values, for the length of a `with`."""
    before = {name: getattr(module, name) for name in values}
    for name, value in values.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


SWEEP = {
    "forward": [
        {"WARPS": warps, "GROUPS": groups, "STAGES": stages, "SELECT_GROUPS": 32 * warps}
        for warps, groups, stages in (
            *((1, 128, 2), (1, 128, 4), (1, 64, 3), (1, 64, 5), (2, 256, 3), (2, 128, 4)),
            *((4, 512, 2), (4, 512, 3), (4, 256, 4), (8, 1024, 3)),
        )
    ],
    "search": [
        {"SEARCH_WARPS": warps, "SEARCH_GROUPS": groups, "PIVOTS": pivots}
        for warps, groups, pivots in ((8, 256, 16), (4, 256, 16), (16, 512, 8), (8, 512, 8), (4, 128, 12))
    ],
    "backward": [
        {"BACKWARD_WARPS": warps, "BACKWARD_BLOCK": block}
        for warps, block in ((4, 2048), (4, 8192), (8, 4096), (8, 8192), (16, 16384))
    ],
}


def sweep(run: Run) -> None:
    """Constants of the Triton backend that a first run on a GPU may want to change; bf16, the shipped ones first."""
    peaked_rows = run.inputs("peaked", "bf16", run.scale.tokens)
    logits, labels, inv_temperature, upstream = peaked_rows
    scalars, _ = run.backend.forward(logits, labels, inv_temperature, TOP_P)
    flat_logits = run.inputs("flat", "bf16", run.scale.tokens)[0]
    out = torch.empty_like(logits)
    calls = {
        "forward": (run.backend.forward, logits, labels, inv_temperature, TOP_P),
        "search": (run.backend.forward, flat_logits, labels, inv_temperature, TOP_P),
        "backward": (run.backend.backward, logits, labels, inv_temperature, scalars, upstream, out),
    }
    few = max(1, run.scale.repeats // 4)
    for name, call in calls.items():
        size = logits.nbytes * (2 if name == "backward" else 1)
        run.add_time(f"sweep {name}: shipped", size, run.milliseconds(*call, repeats=few))
        for values in SWEEP[name] if run.cuda else SWEEP[name][:1]:
            with constants(run.backend, **values):
                run.add_time(f"sweep {name}: {values}", size, run.milliseconds(*call, repeats=few))
            run.save()


SECTIONS = {
    "default": default,
    "speed": speed,
    "flat": flat_rows,
    "memory": memory,
    "dtypes": dtypes,
    "loose": loose,
    "torch": torch_on_device,
    "head": head,
    "shards": shards,
    "sweep": sweep,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write all numbers to this file after every section")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=" ".join(SECTIONS))
    parser.add_argument("--no-sweep", action="store_true")
    parser.add_argument(
        "--rehearse", action="store_true", help="run on the CPU, at a size that says nothing about speed"
    )
    options = parser.parse_args(arguments)
    if not options.rehearse and not torch.cuda.is_available():
        print(
            "benchmarks.gpu needs a CUDA device, and this machine has none: use --rehearse to run it small on the CPU"
        )
        return 2
    if options.rehearse:
        from benchmarks import interpreter

        interpreter.use()
    from paec_loss.backends import triton_backend

    count_compilations()
    start = time.perf_counter()
    run = Run(REHEARSAL if options.rehearse else FULL, triton_backend, options.json)
    with constants(triton_backend, **(REHEARSAL_CONSTANTS if options.rehearse else {})):
        run.section("machine", machine)
        for name in options.only or SECTIONS:
            if not (name == "sweep" and options.no_sweep):
                run.section(name, SECTIONS[name])
    broken = [record["name"] for record in run.sections if record["error"]]
    failed = [
        f"{line['what']}: {line['value']}" for r in run.sections for line in r["lines"] if line["verdict"] is False
    ]
    print("", *failed, *(f"section {name} broke" for name in broken), sep="\n")
    print(f"{'FAILED' if run.failed else 'exact'}; {time.perf_counter() - start:.0f} s, {compilations()} compilations")
    return int(run.failed)


if __name__ == "__main__":
    sys.exit(main())
