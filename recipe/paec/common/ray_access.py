"""Ray for a single run: its ports, its token, and how to join a cluster."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

TOKEN_FILE = ".ray_token"
DEFAULT_TOKEN = Path("~/.ray/auth_token")
"""Where Ray looks for the token by default."""
GCS_TIMEOUT = 15
"""Seconds after which Ray's processes give up on a gcs_server that was killed. Ray's default of 60 allows for temporary
network failures; on loopback only a dead server refuses connections, and a busy one keeps them."""


def running_ray() -> dict[str, str]:
    """Environment for a process that joins a running Ray cluster by its address: sets the token, if there is one.

    Ray looks for a token by itself only if no address is given.
    """
    return {"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token")} if cluster_token().is_file() else {}


def cluster_token() -> Path:
    """Path of the token of a multi-node Ray cluster: `RAY_AUTH_TOKEN_PATH`, or where Ray looks by default."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH", DEFAULT_TOKEN)).expanduser()


def write_token(file: Path) -> None:
    """A new token for Ray in the new file `file`, readable for its owner only."""
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as stream:
        stream.write(secrets.token_hex(32))


@contextmanager
def private_ray(ray_address: str | None, folder: Path) -> Iterator[dict[str, str]]:
    """Environment for a process that starts a private Ray on this machine, while the block runs.

    Ray's node address is the loopback one, so that its servers, and all that ask Ray for an address (vLLM's servers,
    TransferQueue, the rendezvous), listen there; and every connection must present a token made for this run.

    Args:
        ray_address: a running cluster, which has its own rules: the environment is then that of `running_ray`.
        folder: where the token is kept in the meantime, readable only for its owner.
    """
    if ray_address is not None:
        yield running_ray()
        return
    file = folder / TOKEN_FILE
    file.unlink(missing_ok=True)
    write_token(file)
    try:
        yield {
            # Ray's own switch between "one machine" and "cluster"; on Linux its default is the cluster.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(file.absolute()),
            "RAY_gcs_rpc_server_reconnect_timeout_s": str(GCS_TIMEOUT),
            # Between processes of one machine these carry the first handshake, not the data.
            **{name: os.environ.get(name, "lo") for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")},
        }
    finally:
        file.unlink(missing_ok=True)


def counted_cpus() -> int:
    """CPUs that a Ray started here offers where it is told no number: in a container, no more than its quota."""
    from ray._private.utils import get_num_cpus  # half a second, which most commands need not pay

    return int(get_num_cpus(override_docker_cpu_warning=True))


QUEUE = {"name": "TransferQueueController", "namespace": "transfer_queue"}
"""The actor that TransferQueue's `init` looks for in the whole cluster, and joins if it is there."""


def queue_of_another_run(named_actors: Iterable[Mapping[str, str]]) -> str | None:
    """Why no run can start in a Ray cluster with these actors, of all namespaces; None if one can."""
    if QUEUE not in named_actors:
        return None
    return (
        "another run uses this Ray cluster, and both would read and write the same queue of responses: wait until it "
        "has ended, or give this run a Ray cluster of its own (cluster.ray_address)"
    )


RAY_ENDED = {
    "Raylet is terminated": "it was killed, or ran out of memory",
    "Failed to connect to GCS": "its gcs_server was killed, or ran out of memory",
}
"""What Ray prints before it kills a process that has lost a server of this node, and what it means."""


def ray_ended(output: str) -> str | None:
    """One sentence if Ray itself has exited, judging by what its processes have printed; else None."""
    return next((f"Ray on this node has ended: {why}" for text, why in RAY_ENDED.items() if text in output), None)
