"""The sending end of the weight sync, verl's `ServerAdapter` in every actor worker: fails where verl's would hang.

verl's sender waits for a reply of the vLLM worker, and only then checks the worker's error: when the worker fails there
is no reply, and the run hangs. Also, the name of its socket, made of Ray's job id, is the same for two runs on one host
that each have their own Ray: they would load each other's weights.
"""

from __future__ import annotations

import threading

import ray
import zmq
from verl.workers.rollout import base
from verl.workers.rollout.vllm_rollout import ServerAdapter

from recipe.paec.common.run_mark import unique_job


class WeightSyncFailed(RuntimeError):
    """vLLM did not load the weights."""


class WatchedServerAdapter(ServerAdapter):
    """Sends the weights and watches the receiver meanwhile."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        job = ray.get_runtime_context().get_job_id()
        self.zmq_handle = self.zmq_handle.replace(job, unique_job(job))
        self._failure: Exception | None = None

    async def _execute_method(self, method: str, non_block: bool = False, **kwargs):
        future = await super()._execute_method(method, non_block=non_block, **kwargs)
        if non_block and future is not None:
            threading.Thread(target=self._watch, args=(future,), daemon=True).start()
        return future

    def _watch(self, future: ray.ObjectRef) -> None:
        try:
            ray.get(future)
        except Exception as error:  # any error is raised where the sender waits
            self._failure = error
            zmq.Context.instance().term()  # the only way to stop waiting for a reply that nobody will send

    async def update_weights(self, *args, **kwargs):
        try:
            await super().update_weights(*args, **kwargs)
        except zmq.ContextTerminated:
            raise WeightSyncFailed(
                f"vLLM replica {self.replica_rank} did not load the actor's weights: {_last_line(self._failure)} (its "
                "worker's first error is in the log)"
            ) from self._failure


def _last_line(error: Exception | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


base._ROLLOUT_REGISTRY[("vllm", "async")] = f"{__name__}.{WatchedServerAdapter.__name__}"
