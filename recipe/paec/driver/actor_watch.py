"""Notices that an actor of this run has died; verl itself would hang, or continue without it.

verl counts a prompt whose engine or grader has died as failed, and pads the batch. Here a thread asks Ray which actors
of this job have died without being told to, and ends the trainer's process with one sentence. What happens inside
a living actor is seen by the trainer (`RolloutFailed`) and by the weight sync (`recipe.paec.rollout.server_adapter`).
"""

from __future__ import annotations

import os
import threading
import traceback
from pathlib import Path

import ray
from ray._private.state import actors
from ray.core.generated.common_pb2 import ActorDiedErrorContext

from recipe.paec.run.log import write_failure

INTERVAL = 2.0
"""Seconds between checks."""
Reason = ActorDiedErrorContext.Reason
NO_FAULT = tuple(Reason.Value(name) for name in ("RAY_KILL", "REF_DELETED", "OUT_OF_SCOPE", "OWNER_DIED"))
"""Actors that were told to exit, and those that exit with the one that created them."""


class RolloutFailed(RuntimeError):
    """The rollout workers failed to produce responses."""


def dead_actors() -> list[str]:
    """One sentence on each actor of this job that has died and was not told to."""
    job = ray.get_runtime_context().get_job_id()
    dead = [
        actor
        for actor in actors(actor_state_name="DEAD").values()
        if actor["JobID"] == job and actor["DeathCause"].actor_died_error_context.reason not in NO_FAULT
    ]
    names = {node["NodeID"]: node["NodeName"] for node in ray.nodes()} if dead else {}
    found = []
    for actor in dead:
        address = actor["Address"]
        node = names.get(address["NodeID"], address["IPAddress"])
        name = actor["ActorClassName"].rpartition(".")[2]
        found.append(f"{name} (process {actor['Pid']} on {node}) has died: {_cause(actor)}")
    return found


def _cause(actor: dict) -> str:
    cause = actor["DeathCause"]
    if cause.HasField("oom_context"):
        return "Ray killed it because its node ran out of memory"
    died = cause.actor_died_error_context
    if died.reason == Reason.Value("NODE_DIED"):
        return "its node is no longer in the Ray cluster"
    if died.reason == Reason.Value("WORKER_DIED"):
        return "its process was killed, or ran out of memory"
    return died.error_message.strip().split(". ")[0] or "Ray gives no reason"


class ActorWatch(threading.Thread):
    """Ends this process, the trainer's, when an actor of the run has died; the run directory then has the reason."""

    def __init__(self, directory: Path):
        super().__init__(name="actor watch", daemon=True)
        self._directory = directory
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Stop watching. Ray must not be asked after its end: it would start again."""
        self._stopped.set()
        if self.ident is not None:
            self.join(timeout=5 * INTERVAL)

    def run(self) -> None:
        failing = False
        while not self._stopped.wait(INTERVAL):
            try:
                dead = dead_actors()
            except Exception:  # Ray was too busy to answer, or the watch is being stopped
                if not failing:
                    traceback.print_exc()
                failing = True
                continue
            failing = False
            if dead:
                try:
                    write_failure(self._directory, "ActorDied", "; ".join(dead))
                finally:
                    os._exit(1)
