"""`paec COMMAND ...`, or `python -m recipe.paec COMMAND ...`: one entry to every command."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

from recipe.paec.common.entry import ended

COMMANDS = {
    "train": ("recipe.paec.train.command", "train a policy, from configuration to summary"),
    "evaluate": ("recipe.paec.evaluate.command", "score models, checkpoints or runs on benchmarks"),
    "compare": ("recipe.paec.compare.command", "compare evaluations, with intervals and tests"),
    "report": ("recipe.paec.report.command", "one HTML page about runs, and figures of them"),
    "analyse": ("recipe.paec.analyse.command", "print tables of the support, entropy and answers of policies"),
    "watch": ("recipe.paec.watch.command", "the report of a run in a browser, while it trains"),
    "tokens": ("recipe.paec.tokens.command", "one HTML page that shows which tokens methods select, and why"),
    "grid": ("recipe.paec.grid.command", "train every method with every seed, and make the table"),
    "search": ("recipe.search.command", "try the same number of settings of every method, and choose the best"),
    "doctor": ("recipe.paec.doctor.command", "check that everything a run needs is there"),
    "plan": ("recipe.paec.plan.command", "estimate the memory each GPU needs, and whether it fits"),
    "export": ("recipe.paec.export.command", "export a checkpoint as a Hugging Face folder"),
    "curriculum": ("recipe.paec.curriculum.command", "score prompts for training from easy to hard"),
    "select": ("recipe.paec.select.command", "write a training file of the prompts whose accuracy changed most"),
    "lab": ("recipe.lab.__main__", "train a small policy with any method in one process, for experiments"),
    "data": ("data_prep.__main__", "prepare a data set"),
}
"""Command -> the module that defines its `main()`, and a one-line description."""


def usage() -> str:
    """What `paec --help` prints."""
    lines = [f"  {name:<12}{line}" for name, (_, line) in COMMANDS.items()]
    example = "example: paec train experiment=tiny_cpu method=clip_cov"
    return "\n".join(["usage: paec COMMAND ...", *lines, "paec COMMAND --help shows how to use one.", example])


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit code of the command, 2 if there is no such command."""
    return ended(lambda: command(arguments))


def command(arguments: Sequence[str] | None) -> int:
    """Call the command that is named first; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("--help", "-h", "help"):
        print(usage())
        return 0 if given else 2
    name, *rest = given
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        print(f"error: paec {name}: no such command: {hint}The commands are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    sys.argv = [f"paec {name}", *rest]
    # For method=my_pkg.MyMethod of the current folder (""), last, so that its files hide none that is installed. Other
    # processes have it already: `python -m` starts them, and Ray gives it to its workers.
    sys.path.append("")
    return import_module(COMMANDS[name][0]).main() or 0


if __name__ == "__main__":
    sys.exit(main())
