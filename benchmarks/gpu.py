"""Exactness, speed and memory of the Triton backend on a GPU: `python -m benchmarks.gpu [--json FILE]`.

Exactness is against the float64 reference at V = 151936; times are medians by CUDA events, beside the floor of bytes /
4.3 TB/s (H200) and the bars of one read in 0.75 ms and one read + write in 1.45 ms (bf16, T = 8192). Ends with a small
sweep over tile sizes and warps. Exits 1 when a check of exactness fails, 2 without CUDA; a missed bar is only printed.
"""

import argparse
import itertools
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from paec_loss.backends import SCALARS, reference, torch_backend

VOCAB_SIZE = 151936
BYTES_PER_SECOND = 4.3e12
BARS_MS = {"forward": 0.75, "backward": 1.45}
"""For bf16, T = 8192, V = 151936, peaked rows."""
TOP_P = 0.8


def peaked(tokens: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Logits [T, V] float32 and sampled labels [T]: a few tokens hold the mass, the others lie about 15 nats lower."""
    logits = torch.randn(tokens, VOCAB_SIZE, generator=generator, device="cuda").mul_(2.2)
    likely = torch.randint(0, VOCAB_SIZE, (tokens, 30), generator=generator, device="cuda")
    spread = torch.rand(tokens, 1, generator=generator, device="cuda") * 2 + 0.5
    logits.scatter_(1, likely, 20 - spread * torch.arange(30, device="cuda"))
    return logits, likely[:, 0].contiguous()


def flat(tokens: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Logits [T, V] of an untrained model: every token is likely, and the nucleus has most of them."""
    logits = torch.randn(tokens, VOCAB_SIZE, generator=generator, device="cuda")
    return logits, torch.randint(0, VOCAB_SIZE, (tokens,), generator=generator, device="cuda")


def special(tokens: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows that are exact by luck only: forks on the edge, ties, uniform, one-hot, late maximum, -inf, NaN, +inf."""
    logits, labels = peaked(tokens, generator)
    logits[0::8] = logits[0::8].sub_(logits[0::8].amax(1, keepdim=True)).clamp_max_(-12)
    logits[0::8, [7, VOCAB_SIZE - 3]] = 5.0
    logits[1::8] = (logits[1::8] * 0.3).round_()
    logits[2::8] = 1.25
    logits[3::8] = -31.7
    logits[3::8, VOCAB_SIZE // 2] = 3.0
    logits[4::8] = torch.linspace(-6, 6, VOCAB_SIZE, device="cuda")
    logits[5::8, ::2] = -math.inf
    logits[6::16, 100000] = math.nan
    logits[14::16, 5] = math.inf
    labels[4::16] = -100
    return logits, labels


ROWS = {"peaked": peaked, "flat": flat, "special": special}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class Report:
    """Lines printed as they come and kept for the JSON file."""

    def __init__(self):
        self.lines: list[dict] = []
        self.failed = False

    def add(self, what: str, value: str, verdict: bool | None = None, *, exactness: bool = False, **numbers) -> None:
        word = {None: "", True: "PASS", False: "FAIL"}[verdict]
        print(f"{what:88} {value:64} {word}", flush=True)
        self.lines.append({"what": what, "value": value, "verdict": verdict, **numbers})
        self.failed |= exactness and verdict is False


def inputs(kind: str, dtype: str, tokens: int, seed: int = 0):
    """logits [T, V], labels [T], 1 / temperature [T], upstream [3, T]."""
    generator = torch.Generator("cuda").manual_seed(seed)
    logits, labels = ROWS[kind](tokens, generator)
    upstream = torch.randn(3, tokens, generator=generator, device="cuda", dtype=torch.float64)
    upstream[0, labels < 0] = 0
    upstream[:, tokens // 2] = 0
    inv_temperature = 1 / (0.7 + 0.6 * torch.rand(tokens, generator=generator, device="cuda", dtype=torch.float64))
    return logits.to(DTYPES[dtype]), labels, inv_temperature, upstream


def largest_error(value: Tensor, expected: Tensor, floor: float | Tensor) -> float:
    """Largest |value - expected| / max(|expected|, floor); infinite where only one of them is NaN or infinite."""
    value, expected = value.double(), expected.double()
    same = (value == expected) | (value.isnan() & expected.isnan())
    error = (value - expected).abs() / expected.abs().clamp_min(floor)
    return torch.where(same, 0.0, error.nan_to_num(nan=math.inf)).max().item()


def check_exactness(report: Report, backend, name: str) -> None:
    """Scalars, nucleus sizes and gradients against the sorted float64 definition, for every kind of row and dtype."""
    for kind in ROWS:
        for dtype in DTYPES:
            for top_p in (TOP_P, 0.99, 1.0):
                logits, labels, inv_temperature, upstream = inputs(kind, dtype, 32)
                scalars, size = backend.forward(logits, labels, inv_temperature, top_p)
                expected, expected_size = reference.forward(logits, labels, inv_temperature, top_p)
                rows = range(10 if top_p < 1 else 8)  # top_p = 1 has no threshold
                errors = {SCALARS[i]: largest_error(scalars[i], expected[i], 1e-12) for i in rows}
                worst = max(errors, key=errors.get)
                sizes = (size != expected_size).sum().item()
                gradient = torch.empty_like(logits)
                backend.backward(logits, labels, inv_temperature, scalars, upstream, gradient)
                wanted = torch.empty(logits.shape, dtype=torch.float64, device="cuda")
                reference.backward(logits, labels, inv_temperature, expected, upstream, wanted)
                # Where a gradient changes its sign, its error is that of its terms, p times the upstream and log p.
                p = (logits.double() * inv_temperature[:, None]).softmax(dim=1)
                floor = (p * upstream.abs().sum(dim=0)[:, None]).nan_to_num(nan=0.0).clamp_min(1e-30)
                slope = largest_error(gradient, wanted, floor.clamp_min(1e-4) if dtype == "fp16" else floor)
                allowed = {"fp32": 2e-6, "fp16": 1e-3, "bf16": 4.1e-3}[dtype]
                report.add(
                    f"exact {name} {kind} {dtype} top_p={top_p}",
                    f"{worst} {errors[worst]:.0e}, gradient {slope:.0e}, sizes off {sizes}",
                    errors[worst] < 1e-6 and slope < allowed and sizes == 0,
                    exactness=True,
                    errors=errors,
                    gradient=slope,
                    sizes=sizes,
                )


def check_repeatability(report: Report, backend) -> None:
    """The same bits 20 times, with enough rows to fill the GPU; in-place backward gives them too."""
    for kind in ROWS:
        for dtype in ("bf16", "fp32"):
            logits, labels, inv_temperature, upstream = inputs(kind, dtype, 1024)
            first, first_size = backend.forward(logits, labels, inv_temperature, TOP_P)
            first_gradient = torch.empty_like(logits)
            backend.backward(logits, labels, inv_temperature, first, upstream, first_gradient)
            equal = True
            for _ in range(20):
                scalars, size = backend.forward(logits, labels, inv_temperature, TOP_P)
                gradient = logits.clone()
                backend.backward(gradient, labels, inv_temperature, scalars, upstream, gradient)
                equal &= torch.equal(scalars.nan_to_num(nan=7.0), first.nan_to_num(nan=7.0))
                equal &= torch.equal(size, first_size)
                equal &= torch.equal(gradient.nan_to_num(nan=7.0), first_gradient.nan_to_num(nan=7.0))
            report.add(f"repeat {kind} {dtype}", "20 times, in place", bool(equal), exactness=True)


def milliseconds(repeats: int, call: Callable, *arguments) -> float:
    """Median time of a call on the GPU; the logits are larger than the L2 cache, so every call reads memory."""
    for _ in range(3):
        call(*arguments)
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call(*arguments)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def peak_memory(call: Callable, *arguments) -> int:
    """Bytes that a call allocates at its peak, its results included."""
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    call(*arguments)
    return torch.cuda.max_memory_allocated() - held


def check_speed_and_memory(report: Report, backend, dtype: str, tokens: int, kind: str) -> None:
    """Forward and backward against the time that their bytes take, and what they allocate besides the results."""
    name = f"{dtype} T={tokens} {kind}"
    logits, labels, inv_temperature, upstream = big_inputs(kind, dtype, tokens)
    forward = (backend.forward, logits, labels, inv_temperature, TOP_P)
    scalars, _ = backend.forward(*forward[1:])
    out = torch.empty_like(logits)
    backward = (backend.backward, logits, labels, inv_temperature, scalars, upstream, out)
    in_place = (*backward[:-1], logits)
    read = logits.numel() * logits.element_size()
    for direction, call, size in (("forward", forward, read), ("backward", backward, 2 * read)):
        time = milliseconds(20 if tokens == 8192 else 8, *call)
        floor = size / BYTES_PER_SECOND * 1e3
        bar = (dtype, tokens, kind) == ("bf16", 8192, "peaked")
        report.add(
            f"time {direction} {name}",
            f"{time:8.3f} ms, floor {floor:6.3f} ms, ratio {time / floor:5.2f}",
            time <= BARS_MS[direction] if bar else None,
            milliseconds=time,
            floor=floor,
        )
    # Once in place, and last: a repeat would start from its own result.
    for direction, call, allowed in (
        ("forward", forward, 0.03 * read),
        ("backward", backward, 2**20),
        ("backward in place", in_place, 2**20),
    ):
        memory = peak_memory(*call)
        text = f"{memory / 2**20:.1f} MiB beside logits of {read / 2**20:.0f}"
        report.add(f"memory {direction} {name}", text, memory <= allowed, bytes=memory)


def big_inputs(kind: str, dtype: str, tokens: int):
    """`inputs` made in slices of 1024 rows: float32 noise of the whole would not fit."""
    parts = [inputs(kind, dtype, 1024, seed) for seed in range(tokens // 1024)]
    logits = torch.empty(tokens, VOCAB_SIZE, dtype=DTYPES[dtype], device="cuda")
    for start, part in enumerate(parts):
        logits[start * 1024 : (start + 1) * 1024] = part[0]
    return logits, *(torch.cat([part[i] for part in parts], dim=-1) for i in (1, 2, 3))


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


def sweep(report: Report, backend, dtype: str) -> None:
    """Module constants that a first run on a GPU may want to change; T = 8192, peaked rows."""
    logits, labels, inv_temperature, upstream = big_inputs("peaked", dtype, 8192)
    scalars, _ = backend.forward(logits, labels, inv_temperature, TOP_P)
    out = torch.empty_like(logits)
    for warps, block, stages in (
        *((1, 1024, 2), (1, 1024, 3), (1, 1024, 4), (2, 2048, 2), (2, 2048, 3), (4, 2048, 3), (4, 4096, 2)),
        *((4, 4096, 3), (4, 4096, 4), (4, 8192, 2), (8, 8192, 2), (8, 8192, 3), (8, 4096, 3)),
    ):
        values = {"WARPS": warps, "BLOCK": block, "STAGES": stages, "SELECT_GROUPS": 32 * warps}
        with constants(backend, **values):
            time = milliseconds(10, backend.forward, logits, labels, inv_temperature, TOP_P)
        report.add(f"sweep forward {dtype} {values}", f"{time:.3f} ms", milliseconds=time)
    flat_logits = big_inputs("flat", dtype, 8192)[0]
    for warps, block in ((4, 4096), (8, 4096), (8, 8192), (16, 8192), (16, 16384)):
        values = {"SEARCH_WARPS": warps, "SEARCH_BLOCK": block}
        with constants(backend, **values):
            time = milliseconds(5, backend.forward, flat_logits, labels, inv_temperature, TOP_P)
        report.add(f"sweep search, flat {dtype} {values}", f"{time:.3f} ms", milliseconds=time)
    del flat_logits
    for warps, block in ((4, 2048), (4, 4096), (4, 8192), (8, 4096), (8, 8192), (16, 16384)):
        values = {"BACKWARD_WARPS": warps, "BACKWARD_BLOCK": block}
        with constants(backend, **values):
            time = milliseconds(10, backend.backward, logits, labels, inv_temperature, scalars, upstream, out)
        report.add(f"sweep backward {dtype} {values}", f"{time:.3f} ms", milliseconds=time)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.gpu needs a CUDA device; this machine has none")
        return 2
    from paec_loss.backends import triton_backend

    report = Report()
    report.add("device", torch.cuda.get_device_name())
    check_exactness(report, triton_backend, "triton")
    check_exactness(report, torch_backend, "torch")
    check_repeatability(report, triton_backend)
    for case in itertools.product(("bf16", "fp32"), (8192, 32768), ("peaked", "flat")):
        check_speed_and_memory(report, triton_backend, *case)
    for dtype in ("bf16", "fp32"):
        sweep(report, triton_backend, dtype)
    if arguments.json:
        arguments.json.write_text(json.dumps(report.lines, indent=1))
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
