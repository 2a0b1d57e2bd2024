"""`python -m recipe.paec.ray_node head|worker|wait ...`: Ray nodes that exit with this process, and waiting for them.

Safe on shared machines: every connection must present a token, there is no dashboard, every port except the head's is
chosen by the system, and a private temporary folder is removed at the end (or by the next node on this machine if this
process was killed). Ray's processes cannot outlive this one, even if it is killed with SIGKILL.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
from pathlib import Path

from recipe.paec.common.console import complain
from recipe.paec.common.errors import UserError
from recipe.paec.ray_node.node import STOP, head, stop, wait, worker


def main() -> int:
    parser = argparse.ArgumentParser(prog="recipe.paec.ray_node", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    node = argparse.ArgumentParser(add_help=False)
    name = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    node.add_argument("--name", default=name, help="name of this node (default: its host name)")
    node.add_argument("--gpus", type=int, help="GPUs to offer (default: those of the machine)")
    node.add_argument("--cpus", type=int, help="CPUs to offer (default: those of the machine)")
    command = commands.add_parser("head", parents=[node], help="start the head and keep running")
    command.add_argument("--peer", help="another node: the head uses its own address on the route to it")
    command.add_argument("--port", type=int, default=6379, help="port of the head, 0 for any free port (default 6379)")
    command.add_argument("--address-file", type=Path, help="file to write the address to when Ray is up")
    command.add_argument("--end-with-parent", action="store_true", help="exit when the parent process exits")
    command = commands.add_parser("worker", parents=[node], help="join a head and keep running")
    command.add_argument("address", help="HOST:PORT of the head")
    command.add_argument(
        "--outlast-head", action="store_true", help="after SIGTERM, keep running until the head has exited"
    )
    command = commands.add_parser("wait", help="wait until all nodes have joined")
    command.add_argument("address", help="HOST:PORT of the head")
    command.add_argument("names", nargs="+", help="names of the nodes")
    command.add_argument("--timeout", type=float, default=300, help="seconds (default 300)")
    options = parser.parse_args()
    for number in STOP:
        signal.signal(number, stop)
    try:
        return {"head": head, "worker": worker, "wait": wait}[options.command](options)
    except UserError as error:
        return complain(error.errors)
    except KeyboardInterrupt:
        return 130
