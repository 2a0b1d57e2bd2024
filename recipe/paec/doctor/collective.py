"""A tiny collective over all ranks of a run, in its own processes: `python -m recipe.paec.doctor.collective`.

Reads a resolved configuration from stdin. Without a Ray cluster the ranks are processes of this node; with one they
are Ray actors in the placement groups that training asks for, and every node is checked too (recipe.paec.doctor.node).
The last line of stdout is the result, as JSON. Started by recipe.paec.doctor.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import timedelta

from omegaconf import DictConfig, OmegaConf

from recipe.paec.common.early import inherited
from recipe.paec.common.errors import UserError
from recipe.paec.common.process_tree import die_with_parent
from recipe.paec.common.ray_access import queue_of_another_run, running_ray
from recipe.paec.common.repository import OF_CHECKOUT
from recipe.paec.doctor.collective_errors import remedy
from recipe.paec.doctor.report import Check

SECONDS = {"cpu": 20.0, "cuda": 60.0}
"""Time for the collective itself, once all processes are up, by platform: on a GPU it includes the start of CUDA."""
PLACEMENT = 20.0
"""Time for Ray to find free GPUs."""
LIMIT = 180.0
"""Time for everything, imports and Ray included."""


# ---- the caller's side -----------------------------------------------------------------------------------------------


class Collective:
    """The collective of a configuration, running in parallel with the caller until `result` is called."""

    def __init__(self, config: DictConfig):
        self._env, self._errors = inherited(config.cluster), tempfile.TemporaryFile("w+", errors="replace")
        if config.cluster.ray_address is not None:
            self._env |= running_ray()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "recipe.paec.doctor.collective"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=self._env,
            preexec_fn=die_with_parent,
        )
        self._process.stdin.write(OmegaConf.to_yaml(config))
        self._process.stdin.close()
        self._process.stdin = None  # communicate() would flush it

    def result(self, limit: float = LIMIT) -> list[Check]:
        """The checks; a failure of the process itself is reported as one of them."""
        try:
            output, _ = self._process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            output = ""
        finally:
            self.end()
        if self._process.returncode == 0:
            return [_check(content) for content in json.loads(output.splitlines()[-1])]
        self._errors.seek(0)
        last = (self._errors.read().strip().splitlines() or ["it printed nothing"])[-1]
        why = f"did not finish within {limit:.0f} s" if self._process.returncode < 0 else f"failed ({last:.300})"
        return [Check("collective", "failed", (f"the collective over all ranks {why}: {remedy(why, self._env)}",))]

    def end(self) -> None:
        """Kill it if it is still running; its ranks end with it."""
        self._process.kill()
        self._process.wait()


def _check(content: dict) -> Check:
    """A Check that went through JSON or Ray as a dictionary."""
    return Check(content["name"], content["found"], tuple(content["errors"]), tuple(content["notes"]))


# ---- a rank ----------------------------------------------------------------------------------------------------------


def all_reduce(rank: int, world: int, store: str, device: str, seconds: float) -> None:
    """Join `world` ranks at `store` (an init_method of torch) and sum two numbers on the CPU and on `device`.

    Raises:
        RuntimeError: it fails, takes longer than `seconds`, or the sums are wrong.
    """
    import torch
    import torch.distributed as dist

    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        init_method=store,
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=seconds),
    )
    try:
        for place in ("cpu", device) if cuda else ("cpu",):
            values = torch.tensor([rank + 1.0, float((rank + 1) ** 2)], device=place)
            dist.all_reduce(values)
            expected = [world * (world + 1) / 2, world * (world + 1) * (2 * world + 1) / 6]
            if values.tolist() != expected:
                raise RuntimeError(f"the sum over ranks on {place} is {values.tolist()}, not {expected}")
    finally:
        dist.destroy_process_group()


def _reported(rank: int, world: int, store: str, device: str, seconds: float, report) -> None:
    die_with_parent()
    try:
        all_reduce(rank, world, store, device, seconds)
        report.send("")
    except Exception as error:  # any error becomes the caller's message
        report.send(f"{error}".strip().splitlines()[0])
        raise


# ---- on this node ----------------------------------------------------------------------------------------------------


def on_this_node(config: DictConfig) -> list[Check]:
    """The collective over `cluster.gpus_per_node` processes."""
    import torch.multiprocessing as multiprocessing

    world, cuda = config.cluster.gpus_per_node, config.cluster.platform == "cuda"
    seconds = SECONDS[config.cluster.platform]
    started = time.monotonic()
    # Forked: torch is imported once for all of them, and has not touched a GPU yet.
    context = multiprocessing.get_context("fork")
    errors = {}
    with tempfile.TemporaryDirectory(prefix="paec-doctor-") as folder:
        ranks = {}
        for rank in range(world):
            receive, send = context.Pipe(duplex=False)
            place = (rank, world, f"file://{folder}/store", f"cuda:{rank}" if cuda else "cpu", seconds, send)
            process = context.Process(target=_reported, args=place, daemon=True)
            process.start()
            send.close()
            ranks[rank] = (process, receive)
        deadline = started + seconds + 5  # the ranks' own timeout says more
        for rank, (process, receive) in ranks.items():
            try:
                there = receive.poll(max(0.0, deadline - time.monotonic()))
                errors[rank] = receive.recv() if there else f"no answer within {seconds:.0f} s"
            except EOFError:
                errors[rank] = "its process was killed"
            process.kill()
            process.join()
    return [verdict(errors, time.monotonic() - started, dict(os.environ))]


def verdict(errors: dict[int, str], seconds: float, env: dict[str, str]) -> Check:
    """The check of a collective, from each rank's error ("": none)."""
    bad = {rank: error for rank, error in errors.items() if error}
    if not bad:
        return Check("collective", f"{len(errors)} rank(s), {seconds:.1f} s, the sums are correct")
    rank, error = next(iter(bad.items()))
    sentence = (
        f"the collective failed on {len(bad)} of {len(errors)} ranks (rank {rank}: {error:.300}): {remedy(error, env)}"
    )
    return Check("collective", "failed", (sentence,))


# ---- on a Ray cluster ------------------------------------------------------------------------------------------------


def on_ray(config: DictConfig) -> list[Check]:
    """The nodes of the Ray cluster, and the collective over all GPUs that train. UserError if there is no room."""
    import ray
    from ray.util.placement_group import placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    from recipe.paec.doctor.node_folders import files_here
    from recipe.paec.doctor.node_limits import COLOCATED, has_room, queue_cpus

    cluster = config.cluster
    count, per_node, address = cluster.nodes, cluster.gpus_per_node, cluster.ray_address
    ray.init(
        address=address,
        runtime_env={"env_vars": dict(cluster.env)},
        log_to_driver=False,
        logging_level="ERROR",
    )
    if problem := queue_of_another_run(ray.util.list_named_actors(all_namespaces=True)):
        raise UserError(problem)
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    groups_of_gpus = [per_node] * count + [cluster.rollout_gpus_per_node] * cluster.rollout_nodes
    others = queue_cpus(config, len(nodes))
    wanted = f"{count} node(s) with {per_node} GPU(s) and {COLOCATED * per_node + others} CPUs each"
    if cluster.rollout_nodes:
        its, cpus = cluster.rollout_gpus_per_node, COLOCATED * cluster.rollout_gpus_per_node + others
        wanted += f", and {cluster.rollout_nodes} for rollout with {its} GPU(s) and {cpus} CPUs each"
    if not has_room(list(nodes.values()), groups_of_gpus, others):
        have = {n["NodeName"]: (n["Resources"].get("GPU", 0), n["Resources"].get("CPU", 0)) for n in nodes.values()}
        there = ", ".join(f"{name}: {gpus:.0f} GPU(s), {cpus:.0f} CPUs" for name, (gpus, cpus) in have.items())
        total = sum(gpus for gpus, _ in have.values())
        raise UserError(
            f"the Ray cluster at {address} has {total:.0f} of {sum(groups_of_gpus)} GPUs ({there}); the run needs "
            f"{wanted}: start Ray on the missing nodes (launch/ray_worker.sh --gpus --cpus{OF_CHECKOUT}), or lower "
            "cluster.nodes"
        )
    bundle = {"CPU": COLOCATED, "GPU": 1}
    groups = [placement_group([bundle] * gpus, strategy="STRICT_PACK") for gpus in groups_of_gpus]
    deadline = time.monotonic() + PLACEMENT
    if not all(group.wait(max(0.1, deadline - time.monotonic())) for group in groups):
        free = ray.available_resources()
        raise UserError(
            f"the Ray cluster at {address} has {wanted}, but only {free.get('GPU', 0):.0f} GPU(s) and "
            f"{free.get('CPU', 0):.0f} CPUs are free: another job uses the rest: wait for it, or stop it (ray list "
            "actors)"
        )

    started, seconds = time.monotonic(), SECONDS[cluster.platform]
    members = [
        ray.remote(Rank)
        .options(
            num_cpus=1,
            num_gpus=1,
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
        )
        .remote(OmegaConf.to_yaml(config))
        for group in groups[:count]
        for index in range(per_node)
    ]
    homes = ray.get([member.home.remote() for member in members])
    checks, files = [], files_here(config)
    for home in dict.fromkeys(homes):
        own = [member for member, its_home in zip(members, homes, strict=True) if its_home == home]
        looked = ray.get([own[0].look.remote(files), *(member.look_at_gpu.remote() for member in own)])
        checks.append(_joined(nodes[home]["NodeName"], [_check(content) for content in sum(looked, [])]))
    store = ray.get(members[0].store.remote())
    device = "cuda:0" if cluster.platform == "cuda" else "cpu"  # Ray shows every actor only its own GPU
    errors = ray.get([m.reduce.remote(rank, len(members), store, device, seconds) for rank, m in enumerate(members)])
    env = {**os.environ, **cluster.env}
    return [*checks, verdict(dict(enumerate(errors)), time.monotonic() - started, env)]


def _joined(name: str, checks: list[Check]) -> Check:
    """All checks of one node as one line."""
    return Check(
        f"node {name}",
        "; ".join(f"{check.name} {check.found}" for check in checks),
        tuple(f"node {name}: {problem}" for check in checks for problem in check.errors),
        tuple(f"node {name}: {note}" for check in checks for note in check.notes),
    )


class Rank:
    """Ray actor: one rank, on one GPU of a node."""

    def __init__(self, config: str):
        import torch.distributed  # noqa: F401  (here, since a cold disk takes long: `reduce` has a limit)

        self._config = OmegaConf.create(config)

    def home(self) -> str:
        """Id of the node."""
        import ray

        return ray.get_runtime_context().get_node_id()

    def look(self, files: list[str]) -> list[dict]:
        """The checks of the node, which must have the model and data `files` that the driver's node has."""
        from recipe.paec.doctor.node import node_checks
        from recipe.paec.doctor.node_folders import same_files

        return [asdict(check) for check in (*node_checks(self._config), same_files(self._config, files))]

    def look_at_gpu(self) -> list[dict]:
        """The check of this actor's own GPU."""
        from recipe.paec.doctor.node_memory import gpu_memory

        return [asdict(gpu_memory(self._config, 1))] if self._config.cluster.platform == "cuda" else []

    def store(self) -> str:
        """Where the ranks meet: this node's address, and a free port."""
        import ray

        from recipe.paec.ray_node.addresses import free_port

        address = ray.util.get_node_ip_address()
        host = f"[{address}]" if ":" in address else address
        return f"tcp://{host}:{free_port(address)}"

    def reduce(self, rank: int, world: int, store: str, device: str, seconds: float) -> str:
        """The collective; returns its error, "" for none."""
        try:
            all_reduce(rank, world, store, device, seconds)
        except Exception as error:
            return f"{error}".strip().splitlines()[0]
        return ""


def main() -> int:
    config = OmegaConf.create(sys.stdin.read())
    look = on_this_node if config.cluster.ray_address is None else on_ray
    try:
        checks = look(config)
    except UserError as error:
        checks = [Check("collective", "failed", tuple(error.errors))]
    print("\n" + json.dumps([asdict(check) for check in checks]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
