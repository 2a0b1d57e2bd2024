"""`python -m recipe.paec.report RUN [RUN ...]`: one HTML file about runs, finished or not, and figures of them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import paec_loss
from data_prep.files import atomic_write
from recipe.paec.common import folder_kinds
from recipe.paec.common.console import complain, complain_of_files, parsed, say
from recipe.paec.common.errors import UserError
from recipe.paec.compare.evaluations import distinct
from recipe.paec.report.benchmarks import Scored, is_evaluation, of_run, read_scored, with_own_names
from recipe.paec.report.page import Content, render
from recipe.paec.report.plane import findings_of
from recipe.paec.report.responses import read_responses
from recipe.paec.report.runs import Run, is_run, read_run
from recipe.paec.report.series import grouped

REPORT = "report.html"
USAGE = """
usage: paec report RUN [RUN ...] [--output FILE] [--figures FOLDER]
Writes one HTML file about runs, finished or not; it opens in any browser, without a server or network.
  RUN               a run, a grid's folder or an evaluation, or NAME=FOLDER; runs under one NAME are seeds of one method
  --output FILE     the file to write; with one run RUN/report.html is the default
  --figures FOLDER  also writes the main figures as SVG, PNG and CSV
Runs are overlaid; those that differ only in their seed are one line with a band. docs/report.md has more.
example: paec report outputs/tiny_cpu-none outputs/tiny_cpu-paec --output compared.html --figures figures
"""


def expanded(arguments: Sequence[str]) -> tuple[list[tuple[str | None, Path]], list[Scored]]:
    """(name given, run directory) of a command line, a grid's folder replaced by its runs; and the evaluations in it.

    Each run is there once, under its first name.

    Raises:
        UserError: a folder that is neither, or an evaluation that cannot be read.
    """
    found: list[tuple[str | None, Path]] = []
    scored: list[Scored] = []
    for name, folder in distinct(arguments, "a run"):
        mark = folder_kinds.mark_of(folder)
        if is_run(folder):
            found.append((name, folder))
        elif mark is not None and mark["kind"] == folder_kinds.GRID.name:
            found += _runs_of_grid(folder)
        elif is_evaluation(folder):
            scored.append(read_scored(folder, name))
        else:
            raise UserError(f"{folder} has no metrics.jsonl and no scores: give a run, a grid or an evaluation")
    # The folder of a run that several grids share counts once.
    once: dict[Path, tuple[str | None, Path]] = {}
    for one in found:
        once.setdefault(one[1].resolve(), one)
    found = [*once.values()]
    if not found and not scored:
        raise UserError(f"{', '.join(arguments)}: no run of this grid has started: give the directory of a run")
    return found, scored


def _runs_of_grid(folder: Path) -> list[tuple[str | None, Path]]:
    content = folder_kinds.read_json_or_none(folder / "table.json")
    try:
        listed = [(str(run["label"]), Path(run["directory"])) for run in content["runs"]]
    except (TypeError, KeyError):
        raise UserError(f"{folder / 'table.json'} cannot be read: make it again with paec grid --table-only") from None
    # A directory may be relative to the folder in which the grid was started; its runs are beside it.
    places = [(label, place if place.is_dir() else folder.resolve().parent / place.name) for label, place in listed]
    found = [(label, place) for label, place in places if place.is_dir() and is_run(place)]
    if not found and any(run.get("step") for run in content["runs"]):
        raise UserError(f"{folder}: its runs are not found: call this in the folder in which the grid was started")
    return found


def content_of(runs: Sequence[tuple[str | None, Run]], scored: Sequence[Scored] = ()) -> Content:
    """What a report of these runs, with the names given to them, and of these evaluations shows."""
    read = [(name, run, read_responses(run.folder, run.last_step)) for name, run in runs]
    own = {run.folder: of_run(run) for _, run in runs}
    groups = grouped(read)
    return Content(
        groups=groups,
        responses={run.folder: responses for _, run, responses in read if responses is not None},
        scored=with_own_names([*(one for found, _ in own.values() for one in found), *scored]),
        remarks={folder: remarks for folder, (_, remarks) in own.items()},
        findings=findings_of(groups),
    )


def write(content: Content, output: Path) -> None:
    """Write a report, completely or not at all."""
    made = f"Made by paec {paec_loss.__version__} on {time.strftime('%Y-%m-%d %H:%M')}"
    text = render(content, made)
    with atomic_write(output) as partial:
        partial.write_text(text, encoding="utf-8")


def report_of(folder: Path, ended: str | None = None) -> Path:
    """Write the report of one run into its directory; returns the file.

    Args:
        folder: the run's directory.
        ended: see `read_run`.
    """
    write(content_of([(None, read_run(folder, ended=ended))]), folder / REPORT)
    return folder / REPORT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="paec report", usage=USAGE.strip().removeprefix("usage: "), add_help=False)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--output", type=Path, metavar="FILE")
    parser.add_argument("--figures", type=Path, metavar="FOLDER")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit code."""
    options = parsed(_parser(), USAGE, arguments)
    if options is None:
        return 0
    try:
        found, scored = expanded(options.runs)
        if options.output is None and (len(found) != 1 or scored):
            raise UserError(f"{len(found) + len(scored)} folders: say where the report goes with --output FILE")
        output = options.output or found[0][1] / REPORT
        if output.is_dir():
            raise UserError(f"--output {output}: is a folder: give the name of a file")
        if options.figures and options.figures.is_file():
            raise UserError(f"{options.figures}: is a file: choose another --figures")
        runs = []
        for name, folder in found:
            alone = name is not None and [given for given, _ in found].count(name) == 1
            runs.append((name, read_run(folder, name if alone else None)))
        content = content_of(runs, scored)
        write(content, output)
        say(f"{output} ({output.stat().st_size / 1e6:.1f} MB)")
        if options.figures:
            from recipe.paec.report.figures import write_figures  # imports matplotlib, which the page does not need

            say(f"{options.figures}: {len(write_figures(content, options.figures))} files")
    except UserError as error:
        return complain(error.errors)
    except OSError as error:
        return complain_of_files(error, "free some space, or choose another place with --output")
    return 0
