"""Rollouts with a seed for every response: `actor_rollout_ref.rollout.agent.agent_loop_manager_class`.

verl draws all responses from one random state per vLLM engine: they depend on which engine serves a request, and when.
Here every request has a seed computed from what identifies it.

verl also builds an agent loop, a request, a reward call and a queue entry for every single response: milliseconds of
Python for each. Where a response is one request, the responses of a prompt share all four here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import numpy as np
import ray
import torch
import transfer_queue as tq
from tensordict import TensorDict
from verl.experimental.agent_loop import AgentLoopOutput, SingleTurnAgentLoop
from verl.experimental.agent_loop.agent_loop import DictConfigWrap, ToolListWrap
from verl.protocol import DataProto
from verl.trainer.ppo.v1 import AgentLoopManagerTQ, AgentLoopWorkerTQ
from verl.utils.profiler import simple_timer
from verl.utils.tensordict_utils import list_of_dict_to_tensordict
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput

from recipe.paec.common.seeds import rollout_seed
from recipe.paec.rollout.together import Together

VerlAgentLoopWorker = AgentLoopWorkerTQ.__ray_metadata__.modified_class
LOGGER = logging.getLogger(__name__)

ROLLOUT_TEMPERATURE = "rollout_temperature"
"""Field of a prompt: the temperature that a method sets for its responses; 0: the run's own."""

EARLIER_DRAWS = "earlier_draws"
"""Field of a prompt whose row was drawn for this step before: how often."""

PROMPT_FIELDS = ("uid", "data_source", "reward_model", "index", ROLLOUT_TEMPERATURE)
"""What is stored of a prompt with each of its responses, where it has it: all that is read again later."""


def _replica() -> type[RolloutReplica]:
    from recipe.paec.rollout.server import GroupReplica  # only the driver needs it, and it imports vLLM

    return GroupReplica


RolloutReplicaRegistry.register("vllm", _replica)


class SeededAgentLoopWorker(VerlAgentLoopWorker):
    """verl's worker; sets `seed` in the sampling parameters of each response, if a response is one request.

    Also sets `temperature`, if a method samples a prompt's responses at its own temperature.

    A response of several turns, or one that continues under newer weights (asynchronous modes), takes several requests
    and gets no seed: the second request would repeat the random numbers of the first, on which its prompt depends, so
    the response would not be a sample of the policy.
    """

    _loop: SingleTurnAgentLoop | None = None
    _put_together: Together | None = None

    async def _run_agent_loop(
        self, sampling_params: dict[str, Any], trajectory: dict[str, Any], *, agent_name: str, **kwargs
    ):
        parameters = self._parameters(sampling_params, trajectory, kwargs, kwargs["session_id"], agent_name)
        return await super()._run_agent_loop(parameters, trajectory, agent_name=agent_name, **kwargs)

    def _parameters(
        self, shared: dict[str, Any], trajectory: dict[str, Any], prompt: dict[str, Any], sample: int, agent_name: str
    ) -> dict[str, Any]:
        """The sampling parameters of a response: a copy, because verl passes the same dict to all of a prompt."""
        parameters = dict(shared)
        if agent_name == "single_turn_agent" and self.config.trainer.v1.trainer_mode == "sync":
            parameters["seed"] = rollout_seed(
                seed=self.rollout_config.seed,
                validate=trajectory["validate"],
                step=int(trajectory["step"]),
                data_source=prompt["data_source"],
                index=int(prompt["index"]),
                sample=sample,
                earlier=int(prompt.get(EARLIER_DRAWS) or 0),
            )
        if prompt.get(ROLLOUT_TEMPERATURE):
            parameters["temperature"] = prompt[ROLLOUT_TEMPERATURE]
        return parameters

    # ---- the responses of a prompt together --------------------------------------------------------------------------

    async def _run_prompt(self, prompt: dict, sampling_params: dict, trajectory: dict, trace: bool = False) -> None:
        if not self._one_request_each(prompt):
            await super()._run_prompt(prompt, sampling_params, trajectory, trace)
            return
        rollout, validate = self.config.actor_rollout_ref.rollout, trajectory["validate"]
        count = rollout.val_kwargs.n if validate else rollout.n
        partition = "val" if validate else "train"
        try:
            parameters = [
                self._parameters(sampling_params, trajectory, prompt, sample, prompt["agent_name"])
                for sample in range(count)
            ]
            responses = await self._generate(prompt, parameters)
            await self._score(responses, prompt)
            if self._put_together is None:
                self._put_together = Together(put)
            await self._put_together((partition, prompt["uid"], *rows_of(responses, prompt)))
        except Exception:
            LOGGER.exception("the responses of prompt %s failed", prompt["uid"])
            await tq.async_kv_put(key=prompt["uid"], partition_id=partition, tag={"status": "failure"})

    def _one_request_each(self, prompt: dict) -> bool:
        """Whether each response of this prompt is one request, of text only, scored by the reward workers."""
        return (
            prompt["agent_name"] == "single_turn_agent"
            and self.config.trainer.v1.trainer_mode == "sync"
            and self.processor is None
            and not self.distillation_enabled
            and self.reward_loop_worker_handles is not None
            and not prompt.keys() & {"__rollout_n__", "__do_sample__"}
        )

    async def _generate(self, prompt: dict, parameters: Sequence[dict[str, Any]]) -> list[AgentLoopOutput]:
        """The responses to a prompt, one for each entry of `parameters`, all by one engine."""
        if self._loop is None:
            self._loop = SingleTurnAgentLoop(
                trainer_config=DictConfigWrap(config=self.config),
                server_manager=self.llm_client,
                tokenizer=self.tokenizer,
                processor=self.processor,
                dataset_cls=self.dataset_cls,
                data_config=DictConfigWrap(self.config.data),
                hf_model_type=self.hf_model_type,
                tools=ToolListWrap(self.tools),
            )
        prompt_ids = await self._loop.ct_build_initial_tokens(list(prompt["raw_prompt"]))
        timing: dict[str, float] = {}
        with simple_timer("generate_sequences", timing):
            request = uuid4().hex
            name, engine = await self.llm_client._acquire_server(request, prompt_ids=prompt_ids)
            try:
                found = await engine.generate_many.remote(prompt_ids, parameters)
            finally:
                self.llm_client._release_server(name, request_id=request)
        return [self._response(prompt_ids, output, timing) for output in found]

    def _response(self, prompt_ids: list[int], output: TokenOutput, timing: dict[str, float]) -> AgentLoopOutput:
        length = self.rollout_config.response_length
        ids = list(output.token_ids[:length])
        steps = output.extra_fields.get("global_steps")
        preempted = output.num_preempted if output.num_preempted is not None else -1
        return AgentLoopOutput(
            prompt_ids=prompt_ids,
            response_ids=ids,
            response_mask=[1] * len(ids),
            response_logprobs=output.log_probs[:length] if output.log_probs else None,
            num_turns=2,
            metrics={**timing, "num_preempted": preempted},
            extra_fields={
                **output.extra_fields,
                "min_global_steps": steps,
                "max_global_steps": steps,
                "turn_scores": [],
                "tool_rewards": [],
            },
        )

    async def _score(self, responses: Sequence[AgentLoopOutput], prompt: dict) -> None:
        """Set the reward of the responses, in one call of a reward worker."""
        count = len(responses)
        ids = [torch.tensor(response.response_ids, dtype=torch.int64) for response in responses]
        columns = {
            "responses": torch.nn.utils.rnn.pad_sequence(ids, batch_first=True),
            "attention_mask": torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        }
        # The reward manager writes into `extra_info`, so that each response has its own.
        others = {
            "data_source": [prompt["data_source"]] * count,
            "reward_model": [prompt["reward_model"]] * count,
            "extra_info": [dict(prompt.get("extra_info") or {}) for _ in responses],
            "__num_turns__": [response.num_turns for response in responses],
        }
        data = DataProto(batch=TensorDict(columns, batch_size=count), non_tensor_batch={})
        for name, values in others.items():
            data.non_tensor_batch[name] = np.empty(count, dtype=object)
            data.non_tensor_batch[name][:] = values
        worker = self.reward_loop_worker_handles[hash(prompt["uid"]) % len(self.reward_loop_worker_handles)]
        timing: dict[str, float] = {}
        with simple_timer("compute_score", timing):
            scores = await worker.compute_score_batch.remote(data)
        for response, score in zip(responses, scores, strict=True):
            response.reward_score = score["reward_score"]
            response.extra_fields["reward_extra_info"] = score["reward_extra_info"]
            response.metrics.compute_score = timing["compute_score"]


def rows_of(responses: Sequence[AgentLoopOutput], prompt: dict) -> tuple[list[dict], list[dict]]:
    """Fields and tags of the responses of a prompt, as verl stores them."""
    about = {name: prompt[name] for name in PROMPT_FIELDS if name in prompt}
    fields, tags = [], []
    for response in responses:
        row = {**response.as_dict(), **about}
        row["loss_mask"] = row["response_mask"]
        row["input_ids"] = torch.cat([row["prompts"], row["responses"]])
        row["position_ids"] = torch.arange(len(row["input_ids"]))
        fields.append(row)
        tags.append(
            {
                "status": "success",
                "prompt_len": len(row["prompts"]),
                "response_len": len(row["responses"]),
                "seq_len": len(row["input_ids"]),
                "global_steps": prompt["global_steps"],
                "min_global_steps": response.extra_fields["min_global_steps"],
                "max_global_steps": response.extra_fields["max_global_steps"],
            }
        )
    return fields, tags


async def put(prompts: Sequence[tuple[str, str, list[dict], list[dict]]]) -> None:
    """Put the responses of several prompts into the queue, under verl's keys, then mark the prompts as finished.

    `prompts`: partition, name, and the fields and tags of each response.
    """
    for partition in dict.fromkeys(of for of, *_ in prompts):
        part = [(uid, fields, tags) for of, uid, fields, tags in prompts if of == partition]
        await tq.async_kv_batch_put(
            keys=[f"{uid}_{sample}_0" for uid, fields, _ in part for sample in range(len(fields))],
            fields=list_of_dict_to_tensordict([row for _, fields, _ in part for row in fields]),
            tags=[tag for _, _, tags in part for tag in tags],
            partition_id=partition,
        )
        await tq.async_kv_batch_put(
            keys=[uid for uid, *_ in part], tags=[{"status": "finished"} for _ in part], partition_id=partition
        )


class SeededAgentLoopManager(AgentLoopManagerTQ):
    """verl's manager of agent loop workers, with `SeededAgentLoopWorker`s."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(SeededAgentLoopWorker)
