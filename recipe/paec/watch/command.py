"""`python -m recipe.paec.watch RUN`: the report of a run in a browser, with new steps as they come."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from recipe.paec.common.console import complain, parsed, say
from recipe.paec.common.errors import UserError
from recipe.paec.report.runs import is_run
from recipe.paec.watch.live_run import LiveRun
from recipe.paec.watch.server import HOST, serve

USAGE = """
usage: paec watch RUN [--port N]
Serves the report of a run on this machine only, and adds new steps to it while the run trains. Ctrl-C ends it.
  RUN       a run's directory; it is only read, and may be finished
  --port N  the port on 127.0.0.1; by default any that is free
docs/watch.md says how to see it from another machine.
example: paec watch outputs/tiny_cpu-paec
"""


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text}: must be a port, 1 to 65535")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="paec watch", usage=USAGE.strip().removeprefix("usage: "), add_help=False)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--port", type=_port, default=0, metavar="N")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit code."""
    options = parsed(_parser(), USAGE, arguments)
    if options is None:
        return 0
    try:
        if not is_run(options.run):
            raise UserError(f"{options.run} has no metrics.jsonl: give the directory of a run, outputs/<name>")
        server = serve(LiveRun(options.run), options.port)
    except UserError as error:
        return complain(error.errors)
    say(f"{options.run}: http://{HOST}:{server.server_port}/ (Ctrl-C ends it)")
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("")
    return 0
