"""`python -m recipe.paec.analyse FOLDER ...`: what runs and evaluations say about support, entropy and answers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from data_prep.files import atomic_write
from recipe.paec.analyse import catalogue, phrases, planning, utility
from recipe.paec.analyse.phrases import PhraseList
from recipe.paec.analyse.sampled import Policy
from recipe.paec.analyse.sources import Source, base_policies, read_source
from recipe.paec.common.console import asked_for_help, complain, complain_of_files, say
from recipe.paec.common.errors import UserError

FORMAT = 1
"""Format of the JSON file; raised when a reader of the old one would misread the new one."""
USAGE = """
usage: paec analyse FOLDER [FOLDER ...] [--base FOLDER] [--only NAME ...] [--output FILE] [option ...]
Prints tables about policies and runs, as Markdown, with intervals (docs/analyse.md).
  FOLDER         a run, also of paec lab, an evaluation, or NAME=FOLDER; or a file in the form of metrics.jsonl
  --base FOLDER  the evaluation of the base model; without it, a run's first policy is compared with its last
  --only NAME    one or more of: {names}
  --phrases FILE the phrases that `planning` counts, one per line (default: the list of hicra)
  --mine FILE    mines phrases from the responses, counts these, and writes them to FILE
  --model MODEL  the model that reads an evaluation's responses for `utility`, with the options
                 --border {borders}, --before-answer TEXT, --responses N (docs/analyse.md)
  --output FILE  also writes everything as JSON
example: paec analyse outputs/RUN/evaluation/luffy-aime24 --base outputs/base_evaluation --only support
"""


def usage() -> str:
    """What `paec analyse --help` prints."""
    return USAGE.strip().format(names=", ".join(catalogue.ANALYSES), borders="|".join(utility.BORDERS))


def analyses_of(
    sources: Sequence[Source], base: Mapping[str, Policy], names: Sequence[str]
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Results of each analysis over all sources, and a sentence for each thing that an analysis lacks."""
    results: dict[str, list[dict[str, Any]]] = {}
    remarks = [f"{source.name}: {remark}" for source in sources for remark in source.remarks]
    for name in names:
        results[name] = []
        for source in sources:
            try:
                results[name] += catalogue.ANALYSES[name].of_source(source, base, remarks)
            except UserError as error:
                remarks += error.errors
    return results, list(dict.fromkeys(remarks))


def phrases_of(sources: Sequence[Source], file: Path | None, mine: Path | None) -> PhraseList | None:
    """The list of `--phrases`, or the one that is mined from all responses of the sources for `--mine` and written."""
    if file is not None:
        return phrases.read_phrases(file)
    if mine is None:
        return None
    if mine.exists():
        raise UserError(f"--mine {mine}: exists already: use it with --phrases, or name a new file")
    found = phrases.mined((text for source in sources for text in planning.all_texts(source)), str(mine))
    with atomic_write(mine) as partial:
        partial.write_text(phrases.as_text(found), encoding="utf-8")
    return found


def names_with(model: bool) -> list[str]:
    """The analyses that are possible with a model or without one."""
    return [name for name, analysis in catalogue.ANALYSES.items() if model or not analysis.needs_model]


def scorer_of(settings: utility.Settings) -> AbstractContextManager[utility.Scorer]:
    """`utility_pass.scorer`, whose module loads torch.

    Raises:
        UserError: a setting that cannot be.
    """
    if settings.responses < 1:
        raise UserError(f"--responses {settings.responses}: must be at least 1")
    if not settings.before.strip():
        raise UserError("--before-answer: must not be empty: give what announces the answer in your responses")
    from recipe.paec.analyse.utility_pass import scorer

    return scorer(settings)


def text_of(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The tables of the analyses that have results, each with its title and a note."""
    parts = []
    for name, found in results.items():
        if found:
            analysis = catalogue.ANALYSES[name]
            parts.append(f"## {analysis.title}\n\n{analysis.table(found)}\n{analysis.note}\n")
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if asked_for_help(given, usage()):
        return 0
    parser = argparse.ArgumentParser(prog="paec analyse", usage=usage().removeprefix("usage: "), add_help=False)
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--base", metavar="FOLDER")
    parser.add_argument("--only", nargs="+", choices=tuple(catalogue.ANALYSES))
    lists = parser.add_mutually_exclusive_group()
    lists.add_argument("--phrases", type=Path, metavar="FILE")
    lists.add_argument("--mine", type=Path, metavar="FILE")
    parser.add_argument("--model", metavar="MODEL")
    parser.add_argument("--border", choices=tuple(utility.BORDERS), default=utility.Settings.border)
    parser.add_argument("--before-answer", metavar="TEXT", default=utility.BEFORE_ANSWER)
    parser.add_argument("--responses", type=int, metavar="N", default=utility.Settings.responses)
    parser.add_argument("--output", type=Path, metavar="FILE")
    options = parser.parse_args(given)
    try:
        if options.output and options.output.is_dir():
            raise UserError(f"--output {options.output}: is a folder: give the name of a file")
        names = options.only or names_with(options.model is not None)
        if options.model is not None and not any(catalogue.ANALYSES[name].needs_model for name in names):
            raise UserError(
                f"--model {options.model}: only utility uses a model: add utility to --only, or leave --model out"
            )
        answers = any(catalogue.ANALYSES[name].needs_answers for name in names)
        sources = [read_source(folder, answers) for folder in options.folders]
        if listed := phrases_of(sources, options.phrases, options.mine):
            sources = [replace(source, phrases=listed) for source in sources]
        base = base_policies(options.base) if options.base else {}
        with ExitStack() as stack:
            if options.model is not None:
                settings = utility.Settings(options.model, options.border, options.before_answer, options.responses)
                score = partial(utility.of_source, settings=settings, scorer=stack.enter_context(scorer_of(settings)))
                sources = [replace(source, score=score) for source in sources]
            results, remarks = analyses_of(sources, base, names)
        if not any(results.values()):
            return complain(remarks)
        for remark in remarks:
            print(f"warning: {remark}", file=sys.stderr)
        say(text_of(results).rstrip())
        if options.output:
            with atomic_write(options.output) as unfinished:
                content = {"format": FORMAT, "analyses": results, "remarks": remarks}
                unfinished.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            say(f"\n{options.output}")
    except UserError as error:
        return complain(error.errors)
    except OSError as error:
        return complain_of_files(error, "choose another place with --output")
    return 0
