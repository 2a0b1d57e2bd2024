"""The evaluations of a checkpoint: found in its run or named, and checked to be of this very model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recipe.paec.common.errors import UserError
from recipe.paec.common.model_files import fingerprint
from recipe.paec.compare.evaluations import SCORES_FILE, Evaluation, read_run
from recipe.paec.run.checkpoints import run_of


def evaluations_of(checkpoint: Path, step: int, named: Sequence[Path], exports: Sequence[Path]) -> list[Evaluation]:
    """The evaluations of `checkpoint`, each checked by the fingerprint of the model that it evaluated.

    Args:
        step: of the checkpoint.
        named: folders of evaluations; without any, those in the checkpoint's run.
        exports: folders that are exports of this checkpoint, which may have been evaluated instead of it.

    Raises:
        UserError: there is no evaluation, one cannot be read, or it is of another model.
    """
    run = run_of(checkpoint)
    folders = list(named)
    if not folders and run is not None:
        folders = sorted(file.parent for file in run.glob(f"evaluation/*/step_{step}/{SCORES_FILE}"))
    if not folders:
        where = f" in {run / 'evaluation'}" if run is not None else ""
        raise UserError(
            f"no evaluation of {checkpoint}{where}: run paec evaluate model={checkpoint} benchmarks=[NAME,...], or "
            "name its folder with --evaluation"
        )
    same = {fingerprint(folder) for folder in (checkpoint, *exports)}
    found = [read_run(folder / SCORES_FILE) for folder in folders]
    for evaluation in found:
        made = evaluation.scores["provenance"]
        if made.get("model_fingerprint") not in same:
            what = f"the model {made['model']}" if made.get("model") else "samples whose model is not known"
            raise UserError(
                f"{evaluation.path.parent}: evaluated {what}, which is not {checkpoint} as it is now: evaluate this "
                "checkpoint, and name that evaluation with --evaluation"
            )
    return found
