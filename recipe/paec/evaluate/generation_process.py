"""`python -m recipe.paec.evaluate.generation_process JOB.json`: generates an evaluation's missing responses.

Runs on Ray: one engine per replica (vLLM's AsyncLLM, which training's rollouts use too), each a Ray actor with its
GPUs. Requests go to any replica that has room, and every finished response is appended to the journal immediately.
Started, watched and stopped by `recipe.paec.evaluate`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recipe.paec.common import fork_server
from recipe.paec.common.prompts import encode, load_tokenizer
from recipe.paec.common.seeds import response_seed
from recipe.paec.evaluate.benchmarks import Problem
from recipe.paec.evaluate.journal import Key, journal_keys

OUTSTANDING = 512
"""Requests per replica, running and waiting: more than it runs at the same time, so that it never idles."""


@dataclass(frozen=True)
class Job:
    """Everything one generation needs; passed as JSON."""

    model: str
    """Local Hugging Face folder."""
    chat_template: str | None
    journal: str
    problems: list[dict[str, Any]]
    """`Problem`s as dicts."""
    samples: dict[str, int]
    """Responses per problem, by benchmark."""
    seed: int
    sampling: dict[str, Any]
    """temperature, top_p, top_k, max_tokens; with logprobs, each line of the journal also has log_prob."""
    max_model_len: int
    """Prompt + response, tokens."""
    engine: dict[str, Any]
    """AsyncEngineArgs fields beyond model and max_model_len."""
    replicas: int
    gpus_per_replica: int
    ray: dict[str, Any]
    """Arguments of ray.init."""
    env: dict[str, str] = field(default_factory=dict)
    fork: bool = False
    """Whether Ray forks its workers of this process (`cluster.fork_workers`)."""
    apply_chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    """What the chat template is told."""

    def write(self, path: Path) -> None:
        """The job as a JSON file."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Job:
        """The job of `write`."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def missing(problems: list[Problem], samples: dict[str, int], journal: Path) -> list[tuple[Problem, int]]:
    """(problem, sample index) of every response missing in the journal, in benchmark order."""
    done = journal_keys(journal)
    return [
        (problem, sample)
        for problem in problems
        for sample in range(samples[problem.benchmark])
        if (problem.benchmark, problem.id, sample) not in done
    ]


def max_new_tokens(prompt_length: int, max_tokens: int, max_model_len: int) -> int:
    """Response tokens for a prompt: the protocol's limit, or what the context leaves."""
    return min(max_tokens, max_model_len - prompt_length)


def _requests(job: Job) -> Iterator[dict[str, Any]]:
    tokenizer = load_tokenizer(job.model, job.chat_template, f"model={job.model}", "give one with chat_template=...")
    encoded: dict[tuple[str, str], list[int]] = {}
    for problem, sample in missing([Problem(**p) for p in job.problems], job.samples, Path(job.journal)):
        key: Key = (problem.benchmark, problem.id, sample)
        if key[:2] not in encoded:
            encoded[key[:2]] = encode(tokenizer, problem.prompt, **job.apply_chat_template_kwargs)
        tokens = encoded[key[:2]]
        room = max_new_tokens(len(tokens), job.sampling["max_tokens"], job.max_model_len)
        yield {
            "key": key,
            "prompt_token_ids": tokens,
            "sampling": {**job.sampling, "max_tokens": room, "seed": response_seed(job.seed, *key)},
        }


class Replica:
    """One vLLM engine; a Ray actor."""

    def __init__(self, model: str, max_model_len: int, engine: dict[str, Any]):
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = AsyncEngineArgs(model=model, max_model_len=max_model_len, enable_log_requests=False, **engine)
        # For any other caller vLLM's default is 128 sequences at once, on every GPU.
        self.engine = AsyncLLM.from_engine_args(arguments, usage_context=UsageContext.OPENAI_API_SERVER)

    async def ready(self) -> bool:
        """Return once the engine is running; fails if it could not start."""
        await self.engine.check_health()
        return True

    async def stop(self) -> None:
        """Stop the engine's processes."""
        self.engine.shutdown()

    async def generate(self, request: dict[str, Any]) -> dict[str, Any]:
        """The journal line of one request."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        parameters = SamplingParams(output_kind=RequestOutputKind.FINAL_ONLY, **request["sampling"])
        benchmark, problem, sample = request["key"]
        prompt = {"prompt_token_ids": request["prompt_token_ids"]}
        async for output in self.engine.generate(prompt, parameters, f"{benchmark}/{problem}/{sample}"):
            final = output.outputs[0]
        line = {
            "benchmark": benchmark,
            "problem": problem,
            "sample": sample,
            "response": final.text,
            "finish_reason": final.finish_reason,
            "tokens": len(final.token_ids),
            "seed": request["sampling"]["seed"],
        }
        if "logprobs" in request["sampling"]:
            line["log_prob"] = final.cumulative_logprob
        return line


def run(job: Job) -> None:
    """Generate the responses missing in the journal; each is appended as soon as it is finished."""
    runtime_env: dict[str, Any] = {"env_vars": job.env}
    if job.fork:
        runtime_env["py_executable"] = fork_server.python_of_ray(fork_server.VLLM_ON_CPU)
    import ray

    ray.init(**job.ray, runtime_env=runtime_env, include_dashboard=False, log_to_driver=True)
    actor = ray.remote(Replica).options(num_gpus=job.gpus_per_replica, max_concurrency=2 * OUTSTANDING)
    replicas = [actor.remote(job.model, job.max_model_len, job.engine) for _ in range(job.replicas)]
    ray.get([replica.ready.remote() for replica in replicas])
    Path(job.journal).touch()  # heartbeat: the engines are up
    requests, running = _requests(job), {}
    load = dict.fromkeys(range(job.replicas), 0)
    with open(job.journal, "a", encoding="utf-8") as journal:
        while True:
            while load[number := min(load, key=load.get)] < OUTSTANDING:
                if (request := next(requests, None)) is None:
                    break
                running[replicas[number].generate.remote(request)] = number
                load[number] += 1
            if not running:
                break
            finished, _ = ray.wait(list(running), num_returns=1)
            # ray.wait returns at least one; also take all others that are ready.
            finished, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
            for reference in finished:
                journal.write(json.dumps(ray.get(reference), ensure_ascii=True) + "\n")
                load[running.pop(reference)] -= 1
            journal.flush()
    ray.get([replica.stop.remote() for replica in replicas])


def main(path: str) -> None:
    """Run the job of a file; a traceback and exit code 1 if it fails."""
    job = Job.read(Path(path))
    os.environ.update(job.env)
    run(job)


if __name__ == "__main__":
    main(sys.argv[1])
    fork_server.leave(0)
