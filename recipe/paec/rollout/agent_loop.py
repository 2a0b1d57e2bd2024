"""Rollouts with a seed for every response: `actor_rollout_ref.rollout.agent.agent_loop_manager_class`.

verl draws all responses from one random state per vLLM engine: they depend on which engine serves a request, and when.
Here every request has a seed computed from what identifies it.
"""

from __future__ import annotations

from typing import Any

import ray
from verl.trainer.ppo.v1 import AgentLoopManagerTQ, AgentLoopWorkerTQ

from recipe.paec.common.seeds import rollout_seed

VerlAgentLoopWorker = AgentLoopWorkerTQ.__ray_metadata__.modified_class


class SeededAgentLoopWorker(VerlAgentLoopWorker):
    """verl's worker; sets `seed` in the sampling parameters of each response, if a response is one request.

    Also sets `temperature`, if a method samples a prompt's responses at its own temperature.

    With several turns it is not, nor in the asynchronous modes, where a response continues under newer weights. There a
    second request with the same seed would repeat the random numbers of the first one, on which its prompt depends: it
    would not be a sample of the policy.
    """

    async def _run_agent_loop(
        self, sampling_params: dict[str, Any], trajectory: dict[str, Any], *, agent_name: str, **kwargs
    ):
        if agent_name == "single_turn_agent" and self.config.trainer.v1.trainer_mode == "sync":
            seed = rollout_seed(
                seed=self.rollout_config.seed,
                validate=trajectory["validate"],
                step=int(trajectory["step"]),
                data_source=kwargs["data_source"],
                index=int(kwargs["index"]),
                sample=kwargs["session_id"],
            )
            # A copy: verl passes the same dict to all responses of a prompt.
            sampling_params = {**sampling_params, "seed": seed}
        if kwargs.get(ROLLOUT_TEMPERATURE):
            sampling_params = {**sampling_params, "temperature": kwargs[ROLLOUT_TEMPERATURE]}
        return await super()._run_agent_loop(sampling_params, trajectory, agent_name=agent_name, **kwargs)


class SeededAgentLoopManager(AgentLoopManagerTQ):
    """verl's manager of agent loop workers, with `SeededAgentLoopWorker`s."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(SeededAgentLoopWorker)


ROLLOUT_TEMPERATURE = "rollout_temperature"
"""Field of a prompt: the temperature that a method sets for its responses; 0: the run's own."""
