"""`python -m recipe.paec.export CHECKPOINT TARGET`: a checkpoint (`.../global_step_N`) as a Hugging Face folder.

Safetensors, tokenizer, generation configuration with the sampling of training, and a model card with the provenance.
The shards of any number of ranks are joined without rounding; an adapter (LoRA) is merged. Nothing pickled is executed,
and neither a GPU nor verl is needed: verl's merger rounds everything to bfloat16, leaves adapters separate from the
model and executes pickled code in shards. Memory: the model once, in the precision it was saved in.

`--push OWNER/NAME` then writes the checkpoint's evaluations into the card and uploads the folder to the hub.
`--inspect` instead converts an evaluation to logs of Inspect AI.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from data_prep.files import atomic_write
from recipe.paec.common.console import complain, complain_of_files, say
from recipe.paec.common.errors import UserError
from recipe.paec.export import push
from recipe.paec.export.evaluations import evaluations_of
from recipe.paec.export.huggingface import checkpoint_in, export, is_export_of
from recipe.paec.export.inspect_log import write_logs
from recipe.paec.export.model_card import CARD
from recipe.paec.export.model_index import with_evaluations
from recipe.paec.export.shards import DTYPES
from recipe.paec.run import checkpoints


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="paec export",
        description="Exports a checkpoint as a Hugging Face folder, and uploads it (docs/publish.md).",
        epilog="example: paec export outputs/tiny_cpu-paec model",
    )
    parser.add_argument(
        "checkpoint", type=Path, help="checkpoints/global_step_N of a run, or a run, for its newest checkpoint"
    )
    parser.add_argument("target", type=Path, nargs="?", help="folder to create")
    parser.add_argument("--dtype", choices=DTYPES, help="dtype of the weights (default: that of the run's rollouts)")
    parser.add_argument("--replace", action="store_true", help="replace an existing target")
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload the target, with the evaluations in its card")
    parser.add_argument(
        "--evaluation",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="evaluation of this checkpoint; may be given several times (default: all in the run)",
    )
    parser.add_argument("--public", action="store_true", help="make the repository public if it is created")
    parser.add_argument(
        "--inspect", action="store_true", help="CHECKPOINT is an evaluation: write it to TARGET as logs for Inspect AI"
    )
    parser.add_argument("--dry-run", action="store_true", help="with --push: show what would be uploaded; send nothing")
    return parser


def _push(checkpoint: Path, options: argparse.Namespace) -> None:
    """Export unless the target is this export already, complete its card, and upload it or show the upload."""
    if problem := push.repository_error(options.push):
        raise UserError(problem)
    secret = None if options.dry_run else push.token()
    try:
        step = checkpoints.verify(checkpoint).step
    except checkpoints.CheckpointError as error:
        raise UserError(f"{error}: give a folder checkpoints/global_step_N of a run") from None
    target = options.target
    there = not options.replace and is_export_of(target, checkpoint, options.dtype)
    run = checkpoints.run_of(checkpoint)
    own = [run / "huggingface"] if run is not None else []
    exports = [folder for folder in (target, *own) if is_export_of(folder, checkpoint, None)]
    evaluations = evaluations_of(checkpoint, step, options.evaluation, exports)
    if there:
        say(f"{target} is already the export of step {step}")
    else:
        export(checkpoint, target, options.dtype, options.replace)
    card = (target / CARD).read_text(encoding="utf-8")
    name = options.push.partition("/")[2]
    with atomic_write(target / CARD) as partial:
        text = with_evaluations(card, name, [evaluation.scores for evaluation in evaluations])
        partial.write_text(text, encoding="utf-8")
    upload = push.planned(target, options.push, options.public)
    if secret is None:
        say(push.shown(upload))
        say("dry run: nothing was sent")
        return
    say(f"uploading {len(upload.names)} files to {options.push}")
    say(f"uploaded: {push.push(upload, f'Step {step}, exported by the PAEC recipe', secret)}")


def _inspect(options: argparse.Namespace) -> None:
    """Convert an evaluation, to which the options for weights and uploads do not apply."""
    given = {"--dtype": options.dtype, "--replace": options.replace, "--push": options.push}
    if wrong := [flag for flag, value in given.items() if value]:
        raise UserError(f"{wrong[0]}: cannot be used with --inspect: leave one of them out")
    if options.target is None:
        raise UserError(f"name the folder to create: paec export {options.checkpoint} TARGET --inspect")
    write_logs(options.checkpoint, options.target)


def main() -> int:
    """Command line entry; returns the exit code."""
    options = _parser().parse_args()
    from safetensors import SafetensorError

    try:
        for given, flag in (
            (options.evaluation, "--evaluation"),
            (options.public, "--public"),
            (options.dry_run, "--dry-run"),
        ):
            if given and options.push is None:
                raise UserError(f"{flag}: has no effect without --push: add --push OWNER/NAME, or leave {flag} out")
        if options.inspect:
            _inspect(options)
            return 0
        checkpoint = checkpoint_in(options.checkpoint)
        if options.target is None:
            raise UserError(f"name the folder to create: python -m recipe.paec.export {options.checkpoint} TARGET")
        if checkpoint != options.checkpoint:
            say(f"{options.checkpoint}: its newest complete checkpoint is {checkpoint.name}")
        if options.push is not None:
            _push(checkpoint, options)
        else:
            export(checkpoint, options.target, options.dtype, options.replace)
    except UserError as error:
        return complain(error.errors)
    except SafetensorError as error:
        return complain([f"{options.target}: cannot be written ({error}): free some space, or choose another folder"])
    except OSError as error:
        return complain_of_files(error, "free some space, or choose another folder", options.target)
    except KeyboardInterrupt:
        return 130
    return 0
