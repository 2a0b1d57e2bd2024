"""`paec lab KEY=VALUE ...`, or `python -m recipe.lab`: train a small policy with any method, in one process."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from data_prep.arithmetic import choose_avx2
from recipe.paec.common import folder_kinds
from recipe.paec.common.console import asked_for_help, complain, complain_of_files
from recipe.paec.common.entry import ended
from recipe.paec.common.errors import UserError

USAGE = """
usage: paec lab [KEY=VALUE ...], or paec lab sweep JOBS.yaml (paec lab sweep --help)
Trains a small policy with any method in one process, without Ray, vLLM and verl.
  method=NAME       a method of docs/methods.md, or the import path of your own class; its fields as method.FIELD=VALUE
  also=[NAME,...]   additional methods
  base=NAME         grpo, dr_grpo or dapo
  KEY=VALUE         seed, steps, prompts, responses, mini_batch, lr, ...: configs/lab.yaml has all keys
The same command resumes a run, and leaves a finished one as it is; fresh=true starts over. docs/lab.md has more.
example: paec lab method=clip_cov method.ratio=0.002 seed=2 steps=300
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    choose_avx2()  # before anything imports torch
    if given and given[0] == "sweep":
        from recipe.lab import sweep

        return sweep.main(given[1:])
    if asked_for_help(given, USAGE):
        return 0
    from paec_loss.hooks import HookError
    from recipe.lab.settings import settings_of

    try:
        settings = settings_of(given)
        from recipe.lab.runs import run  # what imports torch, after the settings' errors

        run(settings)
    except UserError as error:
        return complain(error.errors)
    except HookError as error:
        return complain([str(error)])
    except OSError as error:
        return complain_of_files(error, "free some space, or choose a writable folder with output=...", "while writing")
    except KeyboardInterrupt:
        same = folder_kinds.LAB.same_command(folder_kinds.LAB.fresh in given)
        print(f"interrupted; {same} continues from the last checkpoint", file=sys.stderr, flush=True)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(ended(main))
