"""What does a separate seed for every response cost vLLM's sampler? `python -m benchmarks.seeded_sampling`

Times vLLM's sampler on random logits, one row per running response: with one random state for all of them, and with a
generator for each. Prints a table; a minute on a CPU, where it counts the thread's processor time. `--device cuda`
was not run yet.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

SIZES = ((128, 259), (64, 151_936), (256, 151_936))
"""(running responses, vocabulary): the quick start's, and Qwen2.5's."""


def seconds(rows: int, vocabulary: int, seeded: bool, device: str, repeats: int) -> float:
    """Median time to draw one token for each of `rows` responses."""
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler

    sampler = TopKTopPSampler()
    generators = {row: torch.Generator(device).manual_seed(row) for row in range(rows)} if seeded else {}
    clock, synchronize = time.thread_time, lambda: None
    if device != "cpu":
        clock, synchronize = time.perf_counter, torch.accelerator.synchronize
    found = []
    for _ in range(repeats + 1):
        logits = torch.randn(rows, vocabulary, device=device)
        synchronize()
        start = clock()
        sampler.forward(logits, generators, None, None)
        synchronize()
        found.append(clock() - start)
    return statistics.median(found[1:])  # the first one warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| running responses | vocabulary | one random state, ms | a seed each, ms |\n|---|---|---|---|", flush=True)
    for rows, vocabulary in SIZES:
        one, each = (seconds(rows, vocabulary, s, options.device, options.repeats) * 1e3 for s in (False, True))
        print(f"| {rows} | {vocabulary} | {one:.2f} | {each:.2f} |", flush=True)


if __name__ == "__main__":
    main()
