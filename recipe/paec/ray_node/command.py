"""`python -m recipe.paec.ray_node head|worker|wait ...`: a Ray node that ends with this process, and who has joined.

Safe on machines shared with others: a token that every connection must show, no dashboard, every port but the head's
chosen by the system, a private temporary folder that is removed at the end (or by the next node on this machine, where
this process was killed). Ray's processes cannot outlive this one, not even when it is killed with SIGKILL.
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
    node.add_argument("--name", default=name, help="what this node is called (default: its host name)")
    node.add_argument("--gpus", type=int, help="GPUs to offer (default: those of the machine)")
    node.add_argument("--cpus", type=int, help="CPUs to offer (default: those of the machine)")
    command = commands.add_parser("head", parents=[node], help="start the head and stay")
    command.add_argument("--peer", help="another node: the head takes its address on the way there")
    command.add_argument("--port", type=int, default=6379, help="port of the head, 0 for a free one (default 6379)")
    command.add_argument("--address-file", type=Path, help="file to write the address to when Ray is up")
    command.add_argument("--end-with-parent", action="store_true", help="end when the process that started this ends")
    command = commands.add_parser("worker", parents=[node], help="join a head and stay")
    command.add_argument("address", help="HOST:PORT of the head")
    command.add_argument("--outlast-head", action="store_true", help="stay on SIGTERM until the head has ended")
    command = commands.add_parser("wait", help="wait until all nodes have joined")
    command.add_argument("address", help="HOST:PORT of the head")
    command.add_argument("names", nargs="+", help="what the nodes are called")
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
