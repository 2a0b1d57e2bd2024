"""Time and memory of `token_statistics` against the alternatives. `python -m benchmarks.token_statistics`

Every contender differentiates its outputs with the same upstream gradients, on the same logits, in turns: A B C A B C.
Prints one table, then the bars of this machine, and writes every raw figure as JSON. Without options peaked, flat and
real logits, about an hour on 2 cores; `--tokens 512 --kinds peaked --dtypes fp32` measures the CPU's bars alone, in
some minutes. `--kinds` names more shapes of rows (SHAPES says which), `--vocab` and `--top-p` other sizes.

Time: median and range over the rounds, forward (what autograd saves included) and forward + backward. "x ours" is the
median over the rounds of contender / ours in the same round; ours is `ours numba` on CPU, `ours triton` on CUDA. The
gradient is allocated by the contender, as in training; on CPU its page faults count. On CUDA the time is between events
in the stream, queued behind a write of 1 GiB that clears the cache and lets the host run ahead, as in training. If
others use the machine, times with several threads jump by the scheduler's slices: `--threads 1 --clock cpu` measures
what a single thread computes, whatever else runs.

Extra memory: peak minus what was there before (logits, labels), of the forward; and over both passes, less the
gradient's size unless it was written over the logits (so less than the forward's where that peak fits in the gradient).
CUDA: torch.cuda.max_memory_allocated. CPU: the resident set of a fresh process per contender and case: after a run on 4
rows (code pages, thread pools, compilation) the heap is trimmed, VmHWM is reset through /proc/self/clear_refs, and one
forward and backward follow. It counts touched pages of any kind and is good to about 1 MiB. There freed blocks of
128 KiB and more go back to the system at once; left to itself glibc keeps some (up to 32 MiB each), more or fewer from
run to run. Where clear_refs is not writable, VmRSS is sampled every half millisecond.

Memory floor: read the logits once (a sum), plus for forward + backward one more read and one write (a product into
memory that is there already, so without page faults), by the same threads.

What verl 0.9.1's FSDP engine does to compute entropies, as in `verl compiled`: entropy_from_logits under
torch.compile(dynamic=True), and logprobs_from_logits uncompiled with inplace_backward off: flash-attn's kernel where
that is installed, else a loop over the rows. `verl eager` is its use_torch_compile=False. Neither knows the nucleus.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.util
import itertools
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from statistics import mean, median

import torch
from torch import Tensor

from data_prep.countdown import problems
from data_prep.files import atomic_write
from paec_loss import token_statistics
from paec_loss.backends import torch_backend

TOP_P = 0.8
VOCAB_SIZE = 151936
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
KINDS = ("peaked", "flat", "real")
"""What is measured without `--kinds`."""
TOKENS = {"cpu": (128, 512, 2048), "cuda": (8192, 32768)}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
OURS = {"cpu": "ours numba", "cuda": "ours triton"}
FLOOR, H200_FLOOR = "memory floor", "bytes / 4.3 TB/s"
H200_BANDWIDTH = 4.3e12
"""Bytes per second that a H200's memory reaches (its data sheet says 4.8e12)."""
WARM_UP_ROWS = 4
PINNED_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}
"""For the processes that measure memory: glibc's own initial value, which it otherwise raises as blocks are freed."""
MIB = 2**20

Outputs = tuple[Tensor, ...]


# ---- contenders: (logits [T, V], labels [T]) -> log_prob[, entropy[, nucleus entropy]], each [T] ---------------------


def ours(logits: Tensor, labels: Tensor, *, backend: str, in_place: bool = False, top_p: float = TOP_P) -> Outputs:
    """`token_statistics` by one of its backends."""
    stats = token_statistics(logits, labels, top_p=top_p, backend=backend, inplace_backward=in_place)
    return stats.log_prob, stats.entropy, stats.nucleus_entropy


def naive_sort(logits: Tensor, labels: Tensor, *, top_p: float = TOP_P) -> Outputs:
    """The straightforward code: everything [T, V] in the logits' dtype, gradients by autograd."""
    log_p = logits.log_softmax(dim=-1)
    p = log_p.exp()
    ordered = p.sort(dim=-1, descending=True).values
    before = ordered.cumsum(dim=-1) - ordered
    nucleus = ordered.masked_fill(before >= top_p, 0.0)
    nucleus = nucleus / nucleus.sum(dim=-1, keepdim=True)
    log_nucleus = nucleus.clamp_min(torch.finfo(p.dtype).tiny).log()
    return log_p.gather(-1, labels[:, None])[:, 0], -(p * log_p).sum(dim=-1), -(nucleus * log_nucleus).sum(dim=-1)


def verl_eager(logits: Tensor, labels: Tensor) -> Outputs:
    """verl's log-prob and entropy as its engine calls them with use_torch_compile=False."""
    from verl.utils import torch_functional as verl_F

    entropy = verl_F.entropy_from_logits(logits)
    return verl_F.logprobs_from_logits(logits, labels, inplace_backward=False), entropy


def verl_compiled(logits: Tensor, labels: Tensor) -> Outputs:
    """verl's log-prob and entropy as its engine calls them by default: the entropy compiled, the log-prob not."""
    from verl.utils import torch_functional as verl_F

    entropy = _compiled(verl_F.entropy_from_logits)(logits)
    return verl_F.logprobs_from_logits(logits, labels, inplace_backward=False), entropy


def compiled_together(logits: Tensor, labels: Tensor) -> Outputs:
    """verl's formulas compiled as well as possible: both in one graph, the log-prob without the row loop."""
    return _compiled(_verl_log_prob_and_entropy)(logits, labels)


def _verl_log_prob_and_entropy(logits: Tensor, labels: Tensor) -> Outputs:
    from verl.utils import torch_functional as verl_F

    return verl_F.logprobs_from_logits_naive(logits, labels), verl_F.entropy_from_logits(logits)


@cache
def _compiled(fn: Callable) -> Callable:
    return torch.compile(fn, dynamic=True)


def liger(logits: Tensor, labels: Tensor) -> Outputs:
    """Liger's fused cross-entropy, log-prob only; its forward writes the gradient over the logits."""
    from liger_kernel.transformers import LigerCrossEntropyLoss

    return (-LigerCrossEntropyLoss(reduction="none")(logits, labels),)


def flash_attn(logits: Tensor, labels: Tensor) -> Outputs:
    """flash-attn's cross-entropy, log-prob only."""
    from flash_attn.ops.triton.cross_entropy import cross_entropy_loss

    return (-cross_entropy_loss(logits, labels, inplace_backward=False)[0],)


@dataclass(frozen=True)
class Contender:
    """A way to compute some of the statistics, and its requirements."""

    run: Callable[[Tensor, Tensor], Outputs]
    needs: str | None = None
    """A module that it needs."""
    device: str | None = None
    """The only device that it runs on."""
    nucleus: bool = False
    """Computes the nucleus, and takes `top_p`."""

    def obstacle(self, device: str) -> str | None:
        """Why it cannot run here, None if it can."""
        if self.device not in (None, device):
            return f"needs {self.device.upper()}"
        if self.needs and importlib.util.find_spec(self.needs) is None:
            return f"{self.needs} is not installed"
        return None

    def at(self, top_p: float) -> Callable[[Tensor, Tensor], Outputs]:
        """What to call."""
        return partial(self.run, top_p=top_p) if self.nucleus else self.run


CONTENDERS = {
    **{
        f"ours {backend}{' in place' * in_place}": Contender(
            partial(ours, backend=backend, in_place=in_place), needs=backend, device=device, nucleus=True
        )
        for backend, device in (("numba", "cpu"), ("torch", None), ("triton", "cuda"))
        for in_place in (False, True)
    },
    "ours reference": Contender(partial(ours, backend="reference"), nucleus=True),
    "naive sort": Contender(naive_sort, nucleus=True),
    "verl eager": Contender(verl_eager, needs="verl"),
    "verl compiled": Contender(verl_compiled, needs="verl"),
    "verl log-prob + entropy, compiled together": Contender(compiled_together, needs="verl"),
    "Liger log-prob": Contender(liger, needs="liger_kernel", device="cuda"),
    "flash-attn log-prob": Contender(flash_attn, needs="flash_attn", device="cuda"),
}


# ---- logits ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One set of logits. The same case has the same numbers in every process."""

    kind: str
    dtype: str
    tokens: int
    device: str
    file: str | None = None
    """Folder of the real logits."""
    vocab_size: int = VOCAB_SIZE
    """Of logits that are not real."""
    top_p: float = TOP_P

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [T, V], labels [T] sampled from them, upstream gradients [3, T] float32."""
        upstream = torch.randn(3, self.tokens, generator=torch.Generator().manual_seed(0)) / self.tokens
        if self.file is None:
            logits, labels = _synthetic(self)
        else:
            stored = torch.load(self.file, mmap=True)
            logits = stored["logits"][: self.tokens].to(self.device, DTYPES[self.dtype], copy=True)
            labels = stored["labels"][: self.tokens].to(self.device, copy=True)
        return logits, labels, upstream.to(self.device)


def _synthetic(case: Case) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(case.device).manual_seed(case.tokens)
    logits = torch.empty(case.tokens, case.vocab_size, dtype=DTYPES[case.dtype], device=case.device)
    labels = torch.empty(case.tokens, dtype=torch.int64, device=case.device)
    for span in torch.arange(case.tokens, device=case.device).split(64):
        rows = torch.randn(span.numel(), case.vocab_size, generator=generator, device=case.device)
        rows = SHAPES[case.kind](rows, generator)
        logits[span] = rows.to(logits.dtype)
        labels[span] = torch.multinomial(rows.softmax(dim=-1), 1, generator=generator)[:, 0]
    return logits, labels


def _raise_head(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Give 32 tokens of every row 0.9 to 0.99 of the mass, falling by a factor of 1.03 to 20 from one to the next.

    The nucleus at 0.8 then has 1 to 28 tokens, as in a trained model.
    """
    share, steepness = torch.rand(2, rows.shape[0], 1, generator=generator, device=rows.device)
    head = -0.03 * 100**steepness * torch.arange(32, device=rows.device)
    mass = (0.9 + 0.09 * share).logit()
    head += mass + rows.logsumexp(dim=-1, keepdim=True) - head.logsumexp(dim=-1, keepdim=True)
    places = torch.randint(rows.shape[1], head.shape, generator=generator, device=rows.device)
    return rows.scatter_(1, places, head)


def _zipf(rows: Tensor, generator: torch.Generator, low: float, high: float) -> Tensor:
    """Probabilities that fall with a power of the rank, tokens in random order."""
    exponent = low + (high - low) * torch.rand(rows.shape[0], 1, generator=generator, device=rows.device)
    return -exponent * (1 + rows.argsort(dim=1).argsort(dim=1)).log()


def _bulk_and_one(rows: Tensor, generator: torch.Generator, low: float, high: float) -> Tensor:
    """Normal logits with standard deviation 2.2, and one token that is higher than their mean."""
    height = low + (high - low) * torch.rand(rows.shape[0], 1, generator=generator, device=rows.device)
    place = torch.randint(rows.shape[1], height.shape, generator=generator, device=rows.device)
    return rows.mul_(2.2).scatter_(1, place, height)


def _mixed(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Each row of another shape, in turn."""
    shapes = [shape for name, shape in SHAPES.items() if name != "mixed"]
    for start, shape in enumerate(shapes):
        rows[start :: len(shapes)] = shape(rows[start :: len(shapes)].clone(), generator)
    return rows


SHAPES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "peaked": lambda rows, generator: _raise_head(rows.mul_(2), generator),
    "flat": lambda rows, generator: rows,
    "zipf-1.6-3": partial(_zipf, low=1.6, high=3.0),
    "zipf-1-2": partial(_zipf, low=1.0, high=2.0),
    "normal-0.1": lambda rows, generator: rows.mul_(0.1),
    "normal-3": lambda rows, generator: rows.mul_(3),
    "normal-6": lambda rows, generator: rows.mul_(6),
    "bulk+20-26": partial(_bulk_and_one, low=20.0, high=26.0),
    "bulk+16-26": partial(_bulk_and_one, low=16.0, high=26.0),
    "bulk+6-26": partial(_bulk_and_one, low=6.0, high=26.0),
    "bulk+6-16": partial(_bulk_and_one, low=6.0, high=16.0),
    "one-hot": partial(_bulk_and_one, low=40.0, high=60.0),
    "mixed": _mixed,
}
"""Kind of rows -> standard normal numbers [R, V] to logits. Only "peaked" was made for certain sizes of nuclei."""


@torch.no_grad()
def sample_responses(folder: Path, tokens: int, device: str) -> dict[str, Tensor]:
    """Logits [T, V] and sampled tokens [T] of the model's own responses to countdown problems, at temperature 1."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder).to(device)
    turns = [[{"role": "user", "content": problem.text}] for problem in problems(64, seed=0)]
    batch = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    ).to(device)
    sampling = dict(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=64)
    logits, labels = [], []
    while sum(part.numel() for part in labels) < tokens:
        out = model.generate(**batch, **sampling, return_dict_in_generate=True, output_logits=True)
        responses = out.sequences[:, batch["input_ids"].shape[1] :]
        ends = (responses == tokenizer.eos_token_id).long()
        inside = ends.cumsum(dim=1) - ends == 0
        logits.append(torch.stack(out.logits, dim=1)[inside].cpu())
        labels.append(responses[inside].cpu())
    return {"logits": torch.cat(logits)[:tokens].clone(), "labels": torch.cat(labels)[:tokens].clone()}


# ---- one run ---------------------------------------------------------------------------------------------------------


def forward_backward(
    run: Callable, logits: Tensor, labels: Tensor, upstream: Tensor, mark: Callable[[], object]
) -> tuple[list, int]:
    """What `mark` returns before, between and after the passes, and the bytes of the gradient beyond the logits."""
    logits = logits.detach().requires_grad_()
    # Neither a leaf nor a view, as a linear layer returns them: what is a leaf may not be overwritten.
    head = torch.ops.aten._unsafe_view(logits, logits.shape)
    marks = [mark()]
    outputs = run(head, labels)
    marks.append(mark())
    weights = [weight.to(output.dtype) for weight, output in zip(upstream, outputs, strict=False)]
    (gradient,) = torch.autograd.grad(outputs, head, weights)
    marks.append(mark())
    return marks, 0 if gradient.data_ptr() == logits.data_ptr() else gradient.nbytes


def _rows(logits: Tensor, labels: Tensor, upstream: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first rows, as tensors of their own: compiled code is compiled anew where a tensor stops being a view."""
    return logits[:count].clone(), labels[:count].clone(), upstream[:, :count].clone()


def read_and_write(logits: Tensor, labels: Tensor, upstream: Tensor, mark: Callable[[], object]) -> tuple[list, int]:
    """The floor, measured like a contender: its forward reads the logits, its backward reads them and writes."""
    words = logits.flatten()[: logits.numel() // 2 * 2].view(torch.float32)  # adding up bf16 costs more than reading it
    out = torch.zeros_like(words)
    marks = [mark()]
    words.sum()
    marks.append(mark())
    torch.mul(words, 2.0, out=out)
    marks.append(mark())
    return marks, out.nbytes


@dataclass
class Samples:
    """The rounds of one contender on one case; seconds and bytes. `not_run` says why there are none."""

    forward: list[float]
    both: list[float]
    extra_forward: int | None = None
    extra_both: int | None = None
    not_run: str | None = None

    @property
    def backward(self) -> list[float]:
        """Seconds of the backward passes."""
        return [both - forward for forward, both in zip(self.forward, self.both, strict=True)]

    def add(self, measure: Callable[[Callable], tuple[list, int]], device: str, clock: Callable) -> None:
        """Run once more. On CUDA that measures the memory too, and `clock` is not used."""
        if device == "cuda":
            torch.empty(2**30, dtype=torch.uint8, device=device).zero_()
            torch.cuda.reset_peak_memory_stats()
            marks, gradient = measure(_cuda_mark)
            torch.cuda.synchronize()
            start, between, end = (event for event, _ in marks)
            seconds = (start.elapsed_time(between) / 1e3, start.elapsed_time(end) / 1e3)
            self.set_memory([allocated for _, allocated in marks], gradient)
        else:
            (start, between, end), _ = measure(clock)
            seconds = (between - start, end - start)
        self.forward.append(seconds[0])
        self.both.append(seconds[1])

    def set_memory(self, peaks: list[int], gradient: int) -> None:
        """From the peaks before, after forward and after backward."""
        self.extra_forward = peaks[1] - peaks[0]
        self.extra_both = peaks[2] - peaks[0] - gradient


def _cuda_mark() -> tuple[torch.cuda.Event, int]:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event, torch.cuda.max_memory_allocated()


# ---- memory on CPU: a process of its own -----------------------------------------------------------------------------


def resident_peaks(name: str, case: Case) -> tuple[list[int], int]:
    """`forward_backward` of a contender with this process's peak resident bytes as marks."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # if memory runs out, kill this process, not its parent
    run = CONTENDERS[name].at(case.top_p)
    logits, labels, upstream = case.tensors()
    forward_backward(run, *_rows(logits, labels, upstream, WARM_UP_ROWS), time.perf_counter)
    torch_backend.release_buffer()  # what ours keeps between calls also counts
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return forward_backward(run, logits, labels, upstream, _peak_reader())


def _peak_reader() -> Callable[[], int]:
    """A function that returns the peak resident bytes since now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return lambda: _status("VmHWM")
    except OSError:
        seen = [_status("VmRSS")]

        def sample() -> None:
            while True:
                seen[0] = max(seen[0], _status("VmRSS"))
                time.sleep(0.0005)

        threading.Thread(target=sample, daemon=True).start()
        return lambda: max(seen[0], _status("VmRSS"))


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def memory_in_child(name: str, case: Case, samples: Samples) -> None:
    """Fill in the memory that the contender takes, or why it does not run."""
    job = json.dumps({"name": name, "case": asdict(case), "threads": torch.get_num_threads()})
    command = [sys.executable, "-m", "benchmarks.token_statistics", "--child", job]
    child = subprocess.run(command, capture_output=True, text=True, env=os.environ | PINNED_ALLOCATOR)
    if child.returncode == 0:
        samples.set_memory(*json.loads(child.stdout.splitlines()[-1]))
    elif child.returncode < 0:
        samples.not_run = f"ended by signal {-child.returncode} (9: out of memory)"
    else:
        samples.not_run = (child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1]


# ---- one case --------------------------------------------------------------------------------------------------------


def measure(case: Case, names: list[str], rounds: int, budget: float, clock: Callable, memory: bool) -> dict:
    """All contenders on one case: its fields, vocab_size, logits_bytes, nucleus (sizes), contenders {name: Samples}."""
    results = {name: Samples([], [], not_run=CONTENDERS[name].obstacle(case.device)) for name in names}
    if case.device == "cpu" and memory:
        for name, samples in results.items():
            if samples.not_run is None:
                _progress(case, f"memory, {name}")
                memory_in_child(name, case, samples)

    torch.compiler.reset()  # the limit of recompilations counts across cases, and past it compiled code runs eagerly
    logits, labels, upstream = case.tensors()
    warm_up = WARM_UP_ROWS if case.device == "cpu" else case.tokens
    for name, samples in results.items():
        if samples.not_run is None:
            _progress(case, f"warm-up, {name}")
            run = partial(forward_backward, CONTENDERS[name].at(case.top_p), *_rows(logits, labels, upstream, warm_up))
            _try(samples, run, case.device, clock)
            del run
            samples.forward.clear(), samples.both.clear()

    runs = {name: partial(forward_backward, CONTENDERS[name].at(case.top_p)) for name in names} | {
        FLOOR: read_and_write
    }
    results[FLOOR] = Samples([], [])
    for number, (name, samples) in itertools.product(range(rounds), results.items()):
        if samples.not_run is None and sum(samples.both) < budget:
            _progress(case, f"round {number + 1}, {name}")
            _try(samples, partial(runs[name], logits.clone(), labels, upstream), case.device, clock)
    results[FLOOR].extra_forward = results[FLOOR].extra_both = 0
    if case.device == "cuda" and "H200" in torch.cuda.get_device_name():
        read = logits.nbytes / H200_BANDWIDTH
        results[H200_FLOOR] = Samples([read], [3 * read], 0, 0)
    return {
        **asdict(case),
        "vocab_size": logits.shape[1],
        "logits_bytes": logits.nbytes,
        "nucleus": token_statistics(logits[:512], labels[:512], top_p=case.top_p).nucleus_size.tolist(),
        "contenders": results,
    }


def _try(samples: Samples, run: Callable, device: str, clock: Callable) -> None:
    try:
        samples.add(run, device, clock)
    except Exception as error:  # a failing contender is a result, and no reason to lose the others
        samples.not_run = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
    if samples.not_run and device == "cuda":  # not before, as the error holds on to tensors
        torch.cuda.empty_cache()


def _progress(case: Case, text: str) -> None:
    print(
        f"{case.kind} {case.dtype} T={case.tokens} V={case.vocab_size} p={case.top_p}: {text}",
        file=sys.stderr,
        flush=True,
    )


def cases(options: argparse.Namespace, device: str, folder: Path) -> Iterator[Case | str]:
    """The cases to measure, or the reason why a kind is not measured. Real logits are written into `folder`."""
    for kind in options.kinds:
        file = None
        if kind == "real":
            if not (options.model / "config.json").is_file():
                yield f"real logits: not run: no model in {options.model} (see README, quick start; --model)"
                continue
            file = str(folder / "real.pt")
            torch.save(sample_responses(options.model, max(options.tokens), device), file)
        sizes = options.vocab if file is None else options.vocab[:1]
        for dtype, tokens, size, top_p in itertools.product(options.dtypes, options.tokens, sizes, options.top_p):
            yield Case(kind, dtype, tokens, device, file, size, top_p)


# ---- report ----------------------------------------------------------------------------------------------------------

HEADER = (
    "| logits | contender | forward, ms | x ours | forward + backward, ms | x ours | extra forward, MiB "
    "| extra forward + backward, MiB | rounds |\n|---|---|---|---|---|---|---|---|---|"
)


def machine(device: str) -> dict[str, str | float]:
    """What the figures depend on apart from the code."""
    found = {"date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "torch": torch.__version__}
    if device == "cuda":
        return found | {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return found | {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load of the last minute": os.getloadavg()[0],
        "transparent huge pages": pages.read_text().strip() if pages.is_file() else "none",
    }


def table_rows(result: dict, rounds: int) -> Iterator[str]:
    """The lines of one case."""
    nucleus = result["nucleus"]
    shape = f"[{result['tokens']}, {result['vocab_size']}]"
    title = (
        f"{result['kind']} {result['dtype']} {shape}, p = {result['top_p']}, nucleus {min(nucleus)}..{max(nucleus)}, "
        f"median {median(nucleus):.0f}, mean {mean(nucleus):.0f}"
    )
    contenders = result["contenders"]
    for name, samples in contenders.items():
        if samples.not_run:
            yield f"| {title} | {name} | not run: {samples.not_run} | | | | | | |"
            continue
        base = contenders.get(OURS[result["device"]])
        columns = [title, name]
        for which in ("forward", "both"):
            times = getattr(samples, which)
            columns += [_milliseconds(times), _number(ratio(times, getattr(base, which, [])))]
        extra = samples.extra_forward, samples.extra_both
        columns += ["" if b is None else _memory(b, result["logits_bytes"]) for b in extra]
        done = len(samples.both)
        few = done < rounds and name != H200_FLOOR
        yield f"| {' | '.join(columns)} | {done}{f' of {rounds}, over the budget' if few else ''} |"


def ratio(times: list[float], base: list[float]) -> float:
    """Median over the rounds of time / base in the same round; NaN without a common round."""
    ratios = [a / b for a, b in zip(times, base, strict=False)]
    return median(ratios) if ratios else math.nan


def _milliseconds(times: list[float]) -> str:
    middle, low, high = (_number(1e3 * t) for t in (median(times), min(times), max(times)))
    return f"{middle} ({low}..{high})"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _memory(extra: int, logits_bytes: int) -> str:
    return f"{extra / MIB:.1f} ({100 * extra / logits_bytes:.3g} %)"


NO_BARS = "bars: none here; they apply to peaked fp32 T = 512 on CPU, and to peaked bf16 T = 8192 on an H200"


@dataclass
class Bar:
    """One requirement. `passed` is None if the run did not include what it needs."""

    text: str
    measured: str
    passed: bool | None

    def __str__(self) -> str:
        verdict = {True: "PASS", False: "FAIL", None: "NOT MEASURED"}[self.passed]
        return f"{verdict}  {self.text}: {self.measured}"


def bars(results: list[dict], device: str) -> list[Bar]:
    """The requirements on the machine at hand: peaked rows, fp32 T = 512 on CPU, bf16 T = 8192 on a H200."""
    wanted = ("peaked", "fp32", 512) if device == "cpu" else ("peaked", "bf16", 8192)
    standard = [r for r in results if (r["vocab_size"], r["top_p"]) == (VOCAB_SIZE, TOP_P)]
    found = [r for r in standard if (r["kind"], r["dtype"], r["tokens"]) == wanted]
    if not found or (device == "cuda" and "H200" not in torch.cuda.get_device_name()):
        return []
    (case,) = found
    where = f"{wanted[0]} {wanted[1]} T = {wanted[2]}"
    bar = partial(_bar, case["contenders"], OURS[device])
    share = bar(
        f"{where}, extra peak memory below 5 % of the logits",
        lambda own: 100 * own.extra_both / case["logits_bytes"],
        lambda v: v < 5,
        "%",
    )
    if device == "cuda":
        return [
            bar(f"{where}, forward <= 0.75 ms", lambda own: 1e3 * median(own.forward), lambda v: v <= 0.75, "ms"),
            bar(f"{where}, backward <= 1.45 ms", lambda own: 1e3 * median(own.backward), lambda v: v <= 1.45, "ms"),
            share,
        ]
    naive, verl = "naive sort", "verl compiled"
    return [
        bar(
            f"{where}, forward + backward at least 15 x faster than the naive sort",
            lambda own, other: ratio(other.both, own.both),
            lambda v: v >= 15,
            "x",
            naive,
        ),
        bar(
            f"{where}, forward + backward faster than verl's compiled log-prob + entropy",
            lambda own, other: ratio(other.both, own.both),
            lambda v: v > 1,
            "x",
            verl,
        ),
        share,
    ]


def _bar(contenders, own: str, text: str, value: Callable, holds: Callable, unit: str, *others: str) -> Bar:
    """A bar on the contender `own`, possibly against others; a contender that should have run but did not fails it."""
    names = (own, *others)
    missing = [name for name in names if name not in contenders]
    if missing:
        return Bar(text, f"{', '.join(missing)} left out", None)
    failed = [f"{name} not run: {contenders[name].not_run}" for name in names if contenders[name].not_run]
    if failed:
        return Bar(text, "; ".join(failed), False)
    measured = value(*(contenders[name] for name in names))
    return Bar(text, f"{measured:.3g} {unit}", bool(holds(measured)))


def arguments(device: str) -> argparse.ArgumentParser:
    """The options, with the defaults for `device`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS[device], metavar="T")
    kinds = (*SHAPES, "real")
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=KINDS, metavar="KIND", help=" ".join(kinds))
    parser.add_argument("--vocab", type=int, nargs="+", default=(VOCAB_SIZE,), metavar="V", help="of synthetic logits")
    parser.add_argument("--top-p", type=float, nargs="+", default=(TOP_P,), metavar="P")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=tuple(DTYPES), help=" ".join(DTYPES))
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=tuple(CONTENDERS), metavar="CONTENDER")
    parser.add_argument(
        "--model", type=Path, default=Path("data/tiny/model"), help="folder of a model, for the real logits"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--budget", type=float, default=60.0, help="seconds after which a contender gets no more rounds"
    )
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: processor time of all threads, not elapsed"
    )
    parser.add_argument("--no-memory", action="store_true", help="times only")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, default=Path("build/token_statistics.json"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


def main() -> int:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options = arguments(device).parse_args()
    if options.child:
        job = json.loads(options.child)
        torch.set_num_threads(job["threads"])
        print(json.dumps(resident_peaks(job["name"], Case(**job["case"]))))
        return 0
    torch.set_num_threads(options.threads)
    report = {"machine": machine(device) | {"clock": options.clock}, "cases": [], "bars": []}
    print("; ".join(f"{key} {value}" for key, value in report["machine"].items()), HEADER, sep="\n\n", flush=True)
    notes = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(options, device, Path(folder)):
            if isinstance(case, str):
                notes.append(case)
                continue
            given = list(options.only), options.rounds, options.budget, CLOCKS[options.clock], not options.no_memory
            report["cases"].append(measure(case, *given))
            print(*table_rows(report["cases"][-1], options.rounds), sep="\n", flush=True)
            save(options.json, report)
    report["bars"] = [] if options.no_memory and device == "cpu" else bars(report["cases"], device)
    save(options.json, report | {"notes": notes})
    print("", *notes, f"every figure: {options.json}", *(report["bars"] or [NO_BARS]), sep="\n")
    return int(any(bar.passed is False for bar in report["bars"]))


def save(path: Path, report: dict) -> None:
    """Write the report as JSON, completely or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1, default=asdict) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
