"""The curve of a run's evaluated checkpoints: `curve.json` and `curve.png` next to their folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recipe.paec.common.console import say
from recipe.paec.common.errors import UserError
from recipe.paec.common.files import write_json
from recipe.paec.compare.comparability import check
from recipe.paec.compare.curves import METRICS, draw
from recipe.paec.compare.evaluations import Evaluation, SeedGroup, read_run
from recipe.paec.evaluate.folder import CURVE, PICTURE, SCORES, curve_error
from recipe.paec.evaluate.targets import Target


def write_curve(targets: Sequence[Target]) -> None:
    """Write the curve of these checkpoints of a run and of those in the same folder that were evaluated before.

    Of one checkpoint alone there is no curve.
    """
    folder = targets[0].output.parent
    files = {target.step: target.output / SCORES for target in targets}
    files |= _earlier(folder, read_run(files[targets[0].step]), {file.parent for file in files.values()})
    if len(files) < 2:
        return
    if problem := curve_error(folder):  # checked before the start only for several checkpoints
        say(f"note: no curve: {problem}")
        return
    steps = [{"step": step, "scores": str(files[step].relative_to(folder))} for step in sorted(files)]
    write_json(folder / CURVE, {"run": targets[0].run.name, "steps": steps})
    draw([str(folder)], folder / PICTURE, None, False)
    say(f"curve over the steps: {folder / PICTURE}")


def _earlier(folder: Path, now: Evaluation, done: set[Path]) -> dict[int, Path]:
    """Step -> scores of other checkpoints of the same run, on the same benchmarks and under the same protocol."""
    found = {}
    for file in sorted(folder.glob(f"step_*/{SCORES}")):
        if file.parent in done:
            continue
        try:
            other = read_run(file)
            check([SeedGroup("now", (now,)), SeedGroup("earlier", (other,))], list(METRICS), allow_mismatch=False)
        except UserError as error:
            say(f"note: the curve leaves {file.parent} out: {error}")
            continue
        made = other.scores["provenance"]
        if made["run"] == now.scores["provenance"]["run"] and made["step"] is not None:
            found[made["step"]] = file
    return found
