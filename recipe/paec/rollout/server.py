"""The rollout server: verl's vLLM server, with one call for all responses to a prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import ray
from verl.workers.rollout.replica import TokenOutput
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica
from vllm.sampling_params import RequestOutputKind

ONLY_THE_END = {"output_kind": RequestOutputKind.FINAL_ONLY, "detokenize": False}
"""Sampling parameters of a response that nobody reads before it is complete, and as token ids."""


class GroupServer(vLLMHttpServer):
    """verl's server in its Ray actor."""

    async def generate_many(self, prompt_ids: list[int], parameters: Sequence[dict[str, Any]]) -> list[TokenOutput]:
        """One response to the prompt for each entry of `parameters`, which are what `generate` takes."""
        return await asyncio.gather(
            *(
                self.generate(
                    prompt_ids=list(prompt_ids), sampling_params={**own, **ONLY_THE_END}, request_id=uuid4().hex
                )
                for own in parameters
            )
        )


class GroupReplica(vLLMReplica):
    """verl's replica, with `GroupServer`s."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(GroupServer)
