r"""What a response costs beside the model: `python -m benchmarks.rollout_overhead [--prompts 128] [--samples 8]`

The rollout of a step with everything real but the engine, which answers at once with tokens made of the seed: Ray,
agent loops, load balancer, reward workers with their graders, TransferQueue, and the driver's wait for the batch.
verl's agent loops and ours take turns, `--rounds` times each after a first one that is not counted. Prints milliseconds
a response (the median round), and the ratio. It is what a cluster pays beside its GPUs.

The responses are countdown's, of `--tokens` tokens; a model whose tokenizer is read is made here.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from data_prep.files import atomic_write

GROUND_TRUTH = json.dumps({"question": "1 2 4 > 7", "metadata": {"numbers": [1, 2, 4], "target": 7}})


def configuration(folder: Path, options: argparse.Namespace) -> DictConfig:
    """The quick start's configuration, with `--samples` responses a prompt."""
    from data_prep import tiny_model
    from recipe.paec.config.resolve import composed, resolved

    tiny_model.build(folder / "model")
    config = resolved(
        composed(
            "experiment=tiny_cpu",
            f"run.root={folder}",
            f"model.path={folder / 'model'}",
            f"actor_rollout_ref.rollout.n={options.samples}",
            f"data.max_response_length={options.tokens}",
            f"actor_rollout_ref.rollout.max_model_len={options.tokens + 64}",
        )
    )
    with open_dict(config):
        config.trainer.v1.trainer_mode = "sync"  # as the trainer of this mode sets it
        config.transfer_queue.enable = True
    return config


def engine(tokens: int) -> Any:
    """A Ray actor with the two calls of a rollout server, which answers at once."""
    import ray
    from verl.workers.rollout.replica import TokenOutput

    @ray.remote
    class Engine:
        async def generate(self, prompt_ids, sampling_params, request_id, **_):
            seed = sampling_params.get("seed", 0)
            ids = [40 + (seed + place) % 60 for place in range(tokens)]
            return TokenOutput(token_ids=ids, log_probs=[-0.5] * tokens, extra_fields={"global_steps": 1})

        async def generate_many(self, prompt_ids, parameters):
            return [await self.generate(prompt_ids, own, "") for own in parameters]

    return Engine.remote()


class Rollout:
    """The rollout of one step after the other, with one kind of agent loops."""

    def __init__(self, config: DictConfig, manager: type, balancer: Any, rewards: list):
        from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
        from verl.workers.rollout.llm_server import LLMServerClient

        self.config, self.steps, self.name = config, 0, manager.__name__
        self.loops = manager.create(
            config=config,
            llm_client=LLMServerClient(config, balancer),
            teacher_client=None,
            reward_loop_worker_handles=rewards,
        )
        self.buffer = ReplayBuffer(
            trainer_mode="sync",
            trainer_config={},
            max_off_policy_threshold=None,
            max_off_policy_strategy="drop",
            sampler_kwargs={},
            poll_interval=config.run.poll_interval,
        )

    def step(self, prompts: int) -> float:
        """Seconds from the submission of a batch to the batch of its responses, as verl's trainer does it."""
        import numpy as np
        import transfer_queue as tq
        from verl.utils import tensordict_utils as tu

        self.steps += 1
        columns = {
            "uid": [f"{self.name}-{self.steps:03d}-{place:05d}" for place in range(prompts)],
            "raw_prompt": [[{"role": "user", "content": "1 2 4 > 7"}] for _ in range(prompts)],
            "data_source": ["reasoning_gym/countdown"] * prompts,
            "reward_model": [{"ground_truth": GROUND_TRUTH, "style": "rule"} for _ in range(prompts)],
            "extra_info": [{"split": "train", "index": place} for place in range(prompts)],
            "index": list(range(prompts)),
            "agent_name": ["single_turn_agent"] * prompts,
        }
        arrays = {}
        for name, values in columns.items():
            arrays[name] = np.empty(prompts, dtype=object)
            arrays[name][:] = values
        batch = tu.get_tensordict(arrays)
        tu.assign_non_tensor_data(batch, "global_steps", self.steps)
        began = time.perf_counter()
        tags = [{"is_prompt": True, "status": "pending", "global_steps": self.steps} for _ in range(prompts)]
        tq.kv_batch_put(keys=columns["uid"], partition_id="train", tags=tags)
        self.loops.generate_sequences(batch)
        found, _ = self.buffer.sample(global_steps=self.steps, partition_id="train", batch_size=prompts)
        seconds = time.perf_counter() - began
        expected = prompts * self.config.actor_rollout_ref.rollout.n
        if len(found) != expected:
            raise SystemExit(f"{self.name}: {len(found)} responses instead of {expected}")
        tq.kv_clear(keys=found.keys, partition_id="train")
        return seconds


def main() -> None:
    """Measure both, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--samples", type=int, default=8, help="responses a prompt")
    parser.add_argument("--tokens", type=int, default=28, help="tokens a response")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only-ours", action="store_true", help="without verl's, to profile")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="paec-rollout-") as name:
        config = configuration(Path(name), options)
        os.environ.update(config.cluster.env)
        import ray
        import transfer_queue as tq
        import verl  # noqa: F401  (loads the plugin, which knows the platform)
        from verl.experimental.reward_loop import RewardLoopManager
        from verl.trainer.ppo.v1 import AgentLoopManagerTQ
        from verl.workers.rollout.router import get_router_handle

        from recipe.paec.rollout.agent_loop import SeededAgentLoopManager

        environment = {**OmegaConf.to_container(config.cluster.env), "TRANSFER_QUEUE_ENABLE": "1"}
        ray.init(num_cpus=16, include_dashboard=False, runtime_env={"env_vars": environment}, log_to_driver=False)
        try:
            tq.init(config.transfer_queue)
            balancer = get_router_handle(servers={"one": engine(options.tokens)}, router_config_path=None)
            rewards = RewardLoopManager(config).reward_loop_worker_handles
            kinds = {"verl": AgentLoopManagerTQ, "ours": SeededAgentLoopManager}
            if options.only_ours:
                del kinds["verl"]
            rollouts = {kind: Rollout(config, manager, balancer, rewards) for kind, manager in kinds.items()}
            seconds: dict[str, list[float]] = {kind: [] for kind in rollouts}
            for number in range(options.rounds + 1):
                for kind, rollout in rollouts.items():
                    taken = rollout.step(options.prompts)
                    print(f"round {number} {kind}: {taken:.2f} s", flush=True)
                    if number:
                        seconds[kind].append(taken)
        finally:
            tq.close()
            ray.shutdown()
    responses = options.prompts * options.samples
    cost = {kind: 1000 * statistics.median(values) / responses for kind, values in seconds.items()}
    for kind, milliseconds in cost.items():
        ratio = f", verl = 1: {milliseconds / cost['verl']:.2f}" if "verl" in cost else ""
        print(f"{kind:5} {milliseconds:6.2f} ms a response{ratio}")
    if options.out:
        with atomic_write(options.out) as partial:
            found = {"date": datetime.now(UTC).isoformat(), "responses": responses, "ms": cost, "s": seconds}
            partial.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
