"""`python -m recipe.paec.compare RUN ... [options]`: evaluations of several methods in one table, or their curves.

A RUN is an evaluation's folder (with scores.json), or `name=folder`. Folders under one name are seeds of one method.
Without a name it is the name of the training run, or else of the folder, without its seed: `paec-seed2` and
`paec-trainer.seed=2` are seeds of `paec`.

Only comparable evaluations are compared: same protocol, grader, problems and, for maj and pass, samples per problem.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep.files import atomic_write
from recipe.paec.common.console import complain, complain_of_files
from recipe.paec.common.errors import UserError
from recipe.paec.compare.comparability import check
from recipe.paec.compare.comparison import compare
from recipe.paec.compare.evaluations import choose, read_methods
from recipe.paec.compare.tables import FORMATS, render


def _metric(text: str) -> str:
    if not re.fullmatch(r"avg|maj|pass@[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be one of avg, maj, pass@K")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="paec compare",
        description="Compares evaluations: a table with intervals and tests, or curves (docs/comparing.md).",
        epilog="example: paec compare grpo=outputs/a/evaluation/luffy-aime24/step_400 "
        "paec=outputs/b/evaluation/luffy-aime24/step_400 --metric avg pass@16",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder with scores.json, or name=folder")
    parser.add_argument("--metric", nargs="+", type=_metric, help="avg (default), maj, pass@K: a table for each")
    parser.add_argument("--benchmark", nargs="+", help="compare only these")
    parser.add_argument("--baseline", help="method that the others are tested against (default: the first)")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="format of the printed table")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="also write comparison.md, .tex and .json there")
    parser.add_argument("--curve", type=Path, metavar="FILE", help="draw the RUNs' curve.json instead, as .png or .svg")
    parser.add_argument(
        "--allow-protocol-mismatch", action="store_true", help="compare evaluations with different protocols"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.curve:
            if given := [name for name in ("metric", "baseline", "output") if getattr(options, name)]:
                raise UserError(f"--curve draws a picture and prints no table: leave --{given[0]} out")
            from recipe.paec.compare import curves  # imports matplotlib, which tables do not need

            for remark in curves.draw(options.runs, options.curve, options.benchmark, options.allow_protocol_mismatch):
                print(f"warning: {remark}", file=sys.stderr)
            return 0
        methods = read_methods(options.runs)
        if options.benchmark:
            methods = choose(methods, options.benchmark)
        metrics = options.metric or ["avg"]
        remarks = check(methods, metrics, options.allow_protocol_mismatch)
        baseline = options.baseline or methods[0].name
        results = [compare(methods, metric, baseline, remarks) for metric in metrics]
        for remark in results[0]["remarks"]:
            print(f"warning: {remark}", file=sys.stderr)
        texts = render(results)
        print(texts[options.format], end="")
        if options.output:
            for form, suffix in zip(FORMATS, ("md", "tex", "json"), strict=True):
                with atomic_write(options.output / f"comparison.{suffix}") as partial:
                    partial.write_text(texts[form], encoding="utf-8")
    except UserError as error:
        return complain(error.errors)
    except OSError as error:
        option = "--curve" if options.curve else "--output"
        return complain_of_files(error, f"free some space, or choose another {option}", options.curve or options.output)
    return 0
