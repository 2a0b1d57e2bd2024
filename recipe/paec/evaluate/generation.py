"""Starts the generating process and watches it."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from data_prep.cleaning import remove
from data_prep.files import remove_leftovers
from recipe.paec.common import folder_kinds
from recipe.paec.common.child import LastSign, run_on_ray
from recipe.paec.common.console import say
from recipe.paec.common.errors import Stalled, UserError
from recipe.paec.common.files import write_json
from recipe.paec.common.fork_server import forks
from recipe.paec.common.prompts import encode, load_tokenizer
from recipe.paec.common.ray_access import ray_ended
from recipe.paec.evaluate.benchmarks import Problem
from recipe.paec.evaluate.folder import GENERATION, JOB, JOURNAL
from recipe.paec.evaluate.generation_process import Job, max_new_tokens, missing
from recipe.paec.evaluate.journal import repair_journal
from recipe.paec.evaluate.settings import samples_per_problem
from recipe.paec.evaluate.targets import EXPORTED, Target, context_of, exported

PROCESS = "recipe.paec.evaluate.generation_process"
"""The process that generates."""
GRACE = 2.0
"""Seconds that the engines have to exit and release their shared memory. They have nothing to save, the journal has
every response, and an evaluation must end within 10 s of SIGTERM."""
LINE_EVERY = 10.0
"""Seconds between lines of progress."""


def check_prompts(config: DictConfig, folder: Path, problems: Iterable[Problem]) -> dict[str, Any]:
    """The settings that determine the model's input; UserError if a prompt leaves no room for a response.

    Returns:
        context_length (prompt + response), longest_prompt and least_room (for the response to the longest prompt, at
        most protocol.max_tokens), in tokens; chat_template, the SHA-256 of the one that is used, with what it is told.
    """
    tokenizer = load_tokenizer(folder, config.chat_template, f"model={folder}", "give one with chat_template=...")
    context, longest = context_of(config, folder), 0
    for problem in problems:
        length = len(encode(tokenizer, problem.prompt, **config.apply_chat_template_kwargs))
        if length >= context:
            raise UserError(
                f"benchmark {problem.benchmark}, problem {problem.id}: its prompt has {length} tokens, but the model's "
                f"context is {context} (context_length): evaluate a model with a longer context"
            )
        longest = max(longest, length)
    told = OmegaConf.to_container(config.apply_chat_template_kwargs)
    template = json.dumps(tokenizer.chat_template) + (json.dumps(told, sort_keys=True) if told else "")
    return {
        "context_length": context,
        "longest_prompt": longest,
        "least_room": max_new_tokens(longest, config.protocol.max_tokens, context),
        "chat_template": hashlib.sha256(template.encode()).hexdigest(),
    }


def generate(
    config: DictConfig,
    target: Target,
    problems: dict[str, list[Problem]],
    log_probs: bool = False,
    resume: str = "the same command",
) -> None:
    """Fill the journal of `target.output`, showing progress; UserError if generation fails or stalls.

    Args:
        log_probs: each line also has log_prob, of the full response under the distribution it is drawn from, nats.
        resume: how errors name the command that resumes.
    """
    journal, everything = target.output / JOURNAL, [problem for group in problems.values() for problem in group]
    samples = samples_per_problem(config, problems)
    repair_journal(journal)
    total, left = sum(samples[p.benchmark] for p in everything), len(missing(everything, samples, journal))
    if not left:
        tidy(target)
        return
    model = exported(target)
    settings = check_prompts(config, model, everything)
    context = settings["context_length"]
    if settings["least_room"] < config.protocol.max_tokens:
        say(
            f"note: protocol.max_tokens={config.protocol.max_tokens} and prompts of up to "
            f"{settings['longest_prompt']} tokens do not fit the context of {context}: responses end there "
            "(finish_reason length)"
        )
    engine = {key: value for key, value in OmegaConf.to_container(config.engine).items() if value is not None}
    if config.cluster.platform == "cpu":
        # A prompt prefilled in two parts crashes vLLM's CPU engine, which then tries to rewind the request's generator.
        engine |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(context, 4096)}
    elif config.cluster.tensor_parallel > 1:
        engine["distributed_executor_backend"] = "mp"  # on the GPUs of the replica's own actor, not in new Ray actors
    write_json(target.output / GENERATION, {**settings, "platform": config.cluster.platform, "engine": engine})
    workers = config.cluster.nodes * config.cluster.gpus_per_node
    sampling = {key: config.protocol[key] for key in ("temperature", "top_p", "top_k", "max_tokens")}
    if log_probs:
        sampling["logprobs"] = 0  # of the drawn tokens only
        engine["logprobs_mode"] = "processed_logprobs"
    ray_arguments = {"address": config.cluster.ray_address}
    if config.cluster.ray_address is None:
        ray_arguments |= {"num_gpus": config.cluster.gpus_per_node, "num_cpus": config.cluster.num_cpus}
    job = Job(
        model=str(model),
        chat_template=config.chat_template,
        apply_chat_template_kwargs=OmegaConf.to_container(config.apply_chat_template_kwargs),
        journal=str(journal.absolute()),
        problems=[problem.asked() for problem in everything],
        samples=samples,
        seed=config.seed,
        sampling=sampling,
        max_model_len=context,
        engine=engine,
        replicas=workers // config.cluster.tensor_parallel,
        gpus_per_replica=config.cluster.tensor_parallel,
        ray=ray_arguments,
        env=OmegaConf.to_container(config.cluster.env),
        fork=forks(config.cluster),
    )
    job_file = target.output / JOB
    job.write(job_file)
    log = target.output / "generation.log"
    say(f"generating {left} of {total} responses with {job.replicas} vLLM engine(s); log: {log}")
    watch = Watch(journal, total, config.stall_timeout, resume)
    ended = run_on_ray(PROCESS, job_file, config.cluster, target.output, log, watch.tick, grace=GRACE)
    if ended.code != 0:
        reason = ray_ended(ended.output) or last_error(ended.output)
        raise UserError(f"the generation failed with exit code {ended.code}: {reason}", f"the complete log: {log}")
    if missing(everything, samples, journal):
        raise UserError(f"the generation ended before all responses were there: see {log}, and resume with {resume}")
    tidy(target)


def tidy(target: Target) -> None:
    """Delete what only a generation needs; a run killed just after its last response leaves it behind."""
    (target.output / JOB).unlink(missing_ok=True)
    if target.is_checkpoint:
        exported = target.output / EXPORTED
        patterns = folder_kinds.exported_files(exported)
        remove(target.output, [f"{EXPORTED}/{pattern}" for pattern in patterns])
        remove_leftovers(exported)


def last_error(output: str) -> str:
    """The last line of what a process printed that looks like an exception."""
    errors = [line.strip() for line in output.splitlines() if re.match(r"\S*(Error|Exception)\b.*: ", line.strip())]
    return errors[-1] if errors else "no error message in the log (killed, or out of memory?)"


class Watch:
    """Shows the number of responses, and notices when no more arrive."""

    def __init__(self, journal: Path, total: int, timeout: float, resume: str = "the same command"):
        self._journal, self._total, self._timeout, self._resume = journal, total, timeout, resume
        self._count, self._position, self._changed = 0, 0, 0
        self._sign, self._last_line = LastSign(), time.monotonic()
        self._count_new()
        self._before = self._count
        self._first: tuple[int, float] | None = None
        """Count and time of the first responses of this start: the time before is start-up, not part of the rate."""

    def _count_new(self) -> bool:
        if not self._journal.is_file():
            return False
        # Also the time, because the journal is touched once the engines are up.
        state = self._journal.stat()
        if (state.st_mtime_ns, state.st_size) == (self._changed, self._position):
            return False
        self._changed = state.st_mtime_ns
        with open(self._journal, "rb") as stream:
            stream.seek(self._position)
            while new := stream.read(2**20):
                self._count += new.count(b"\n")
            self._position = stream.tell()
        return True

    def tick(self) -> None:
        """Print progress, at most every `LINE_EVERY` seconds; raises Stalled after too long without any."""
        now = time.monotonic()
        if self._count_new():
            self._sign.seen()
            if self._first is None and self._count > self._before:
                self._first, self._last_line = (self._count, now), now
            if self._first is not None and (now - self._last_line >= LINE_EVERY or self._count == self._total):
                say(f"  {self._count}/{self._total} responses{self._pace(now)}")
                self._last_line = now
        if self._sign.silence > self._timeout:
            raise Stalled(
                f"no response for {self._sign.silence:.0f} s (stall_timeout), so the generation was stopped: resume "
                f"with {self._resume}"
            )

    def _pace(self, now: float) -> str:
        count, began = self._first
        if self._count == count or now <= began:
            return ""
        rate = (self._count - count) / (now - began)
        return f", {rate:.1f} per second, {(self._total - self._count) / rate / 60:.0f} min left"
