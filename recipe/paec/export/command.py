"""`python -m recipe.paec.export CHECKPOINT TARGET`: a checkpoint (`.../global_step_N`) as a Hugging Face folder.

Safetensors, tokenizer, generation configuration with the sampling of training, and a model card with the provenance.
The shards of any number of ranks are joined without rounding; an adapter (LoRA) is merged. Nothing pickled is executed,
and neither a GPU nor verl is needed: verl's merger rounds everything to bfloat16, leaves adapters separate from the
model and executes pickled code in shards. Memory: the model once, in the precision it was saved in.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from recipe.paec.common.console import NOT_OURS, complain, say
from recipe.paec.common.errors import UserError
from recipe.paec.export.huggingface import checkpoint_in, export
from recipe.paec.export.shards import DTYPES


def main() -> int:
    """Command line entry; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="paec export",
        description="Exports a checkpoint as a Hugging Face folder.",
        epilog="example: paec export outputs/tiny_cpu-paec model",
    )
    parser.add_argument(
        "checkpoint", type=Path, help="checkpoints/global_step_N of a run, or a run, for its newest checkpoint"
    )
    parser.add_argument("target", type=Path, nargs="?", help="folder to create")
    parser.add_argument("--dtype", choices=DTYPES, help="dtype of the weights (default: that of the run's rollouts)")
    parser.add_argument("--replace", action="store_true", help="replace an existing target")
    options = parser.parse_args()
    from safetensors import SafetensorError

    try:
        checkpoint = checkpoint_in(options.checkpoint)
        if options.target is None:
            raise UserError(f"name the folder to create: python -m recipe.paec.export {options.checkpoint} TARGET")
        if checkpoint != options.checkpoint:
            say(f"{options.checkpoint}: its newest complete checkpoint is {checkpoint.name}")
        export(checkpoint, options.target, options.dtype, options.replace)
    except UserError as error:
        return complain(error.errors)
    except SafetensorError as error:
        return complain([f"{options.target}: cannot be written ({error}): free some space, or choose another folder"])
    except OSError as error:
        if error.errno not in NOT_OURS:
            raise
        return complain(
            [f"{error.filename or options.target}: {error.strerror}: free some space, or choose another folder"]
        )
    except KeyboardInterrupt:
        return 130
    return 0
