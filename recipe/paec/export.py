"""`python -m recipe.paec.export CHECKPOINT TARGET`: a checkpoint (`.../global_step_N`) as a Hugging Face folder.

verl's own merger does the work; here it also knows this recipe's attention function, and the result forgets which
attention it was trained with, so that it loads where that one does not exist. Without GPU, set `VERL_PLATFORM=cpu`.
"""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

from recipe.paec.checkpoints import write_json
from recipe.paec.errors import UserError
from recipe.paec.supervise import die_with_parent


def export(checkpoint: Path, target: Path) -> None:
    """Merge the sharded weights of `checkpoint` into the new folder `target`."""
    import verl  # noqa: F401  (loads the plugin)

    from recipe.paec import attention  # noqa: F401  (registers itself)

    arguments = ["merge", "--backend", "fsdp", "--local_dir", str(checkpoint / "actor"), "--target_dir", str(target)]
    sys.argv = ["verl.model_merger", *arguments]
    runpy.run_module("verl.model_merger", run_name="__main__")
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    config.pop("attn_implementation", None)
    write_json(target / "config.json", config)


def export_in_process(checkpoint: Path, target: Path, log: Path, env: dict[str, str]) -> None:
    """`export` in a process of its own, its output in `log`; UserError if it fails."""
    command = [sys.executable, "-m", "recipe.paec.export", str(checkpoint), str(target)]
    with open(log, "wb") as stream:
        done = subprocess.run(
            command, stdout=stream, stderr=subprocess.STDOUT, env=env, check=False, preexec_fn=die_with_parent
        )
    if done.returncode != 0:
        raise UserError(f"the export of {checkpoint} to Hugging Face format failed: see {log}")


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]))
