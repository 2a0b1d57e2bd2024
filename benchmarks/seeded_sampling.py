"""What does a seed of its own for every response cost vLLM? `python -m benchmarks.seeded_sampling MODEL [...]`

One engine as in the quick start; the same prompts are answered with and without seeds in turn, all of them in flight
together. Prints the responses and tokens a second of each; about 3 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

from omegaconf import OmegaConf

from recipe.paec.command_line import CONFIGS
from recipe.paec.seeds import response_seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="Hugging Face folder, e.g. data/tiny/model")
    parser.add_argument("--responses", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=32, help="of each response; the end token is ignored")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()

    cluster = OmegaConf.load(CONFIGS / "cluster" / "cpu.yaml")
    os.environ.update(OmegaConf.to_container(cluster.cluster.env))
    from vllm import LLM, SamplingParams

    rollout = cluster.actor_rollout_ref.rollout
    llm = LLM(
        options.model,
        dtype=rollout.dtype,
        enforce_eager=rollout.enforce_eager,
        max_num_seqs=rollout.max_num_seqs,
        enable_chunked_prefill=rollout.enable_chunked_prefill,
        max_model_len=128,
        max_num_batched_tokens=8192,
    )
    prompts = [f"{number % 50} 5 1 > {number // 50}" for number in range(options.responses)]
    rates: dict[str, list[float]] = {"one state for all": [], "a seed each": []}
    for repeat in range(options.repeats + 1):
        for name, found in rates.items():
            parameters = [
                SamplingParams(
                    max_tokens=options.tokens,
                    ignore_eos=True,
                    logprobs=0,
                    seed=response_seed(repeat, number) if name == "a seed each" else None,
                )
                for number in range(options.responses)
            ]
            start = time.perf_counter()
            llm.generate(prompts, parameters, use_tqdm=False)
            rate = options.responses / (time.perf_counter() - start)
            print(f"round {repeat}, {name}: {rate:.1f} responses/s", flush=True)
            if repeat > 0:  # the first round warms up
                found.append(rate)
    print("| sampling | responses/s | tokens/s |\n|---|---|---|")
    for name, found in rates.items():
        rate = statistics.median(found)
        print(f"| {name} | {rate:.1f} | {rate * options.tokens:.0f} |")


if __name__ == "__main__":
    main()
