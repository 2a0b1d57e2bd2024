"""`python -m recipe.paec.evaluate model=... benchmarks=[...] protocol=luffy|dapo|paec|tiny`: scores with provenance.

Generates with vLLM (in its own process), grades, estimates, and writes into the output folder

    evaluation.json   what is evaluated: a later start with the same resumes, a different one is refused
    generation.json   the engine's settings, context and chat template
    journal.jsonl     responses as they come
    samples.jsonl     every response with its grades
    scores.json       scores, intervals, provenance, contamination
    scores.md         the table

An interrupted evaluation resumes: nothing is generated twice. A run directory is evaluated checkpoint by
checkpoint, in `step_<N>/`, with `curve.json` and `curve.png` next to them.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from data_prep.cleaning import matches
from data_prep.files import sha256
from recipe.grading.scorers import is_function
from recipe.paec.common import folder_kinds, folders, versions
from recipe.paec.common.console import asked_for_help, say
from recipe.paec.common.errors import UserError
from recipe.paec.common.gpus import gpu_count
from recipe.paec.config.command_line import hydra_command, with_flags
from recipe.paec.doctor import examine, inputs, node
from recipe.paec.evaluate.benchmarks import Problem, find_benchmarks, load_problems, problems_in
from recipe.paec.evaluate.contamination import training_files, training_texts
from recipe.paec.evaluate.curve import write_curve
from recipe.paec.evaluate.folder import (
    JOURNAL,
    SCORES,
    _unwritable,
    continue_or_start,
    digests,
    error_of,
    identity_of,
    label_of,
    output_errors,
    refuse,
    scorers_of,
)
from recipe.paec.evaluate.generation import generate
from recipe.paec.evaluate.grading import journaled
from recipe.paec.evaluate.origin import own_origin
from recipe.paec.evaluate.results import finished_table, write_results
from recipe.paec.evaluate.samples import read_samples
from recipe.paec.evaluate.settings import as_trained, check_samples, resolved, samples_per_problem
from recipe.paec.evaluate.targets import Target, find_targets

USAGE = """
usage: paec evaluate model=PATH benchmarks=[NAME,...] protocol=luffy|dapo|paec|tiny [key=value ...] [--dry-run]
       paec evaluate samples=FILE.jsonl [benchmarks=[NAME,...]]
Generates responses, grades them, and writes scores with intervals and provenance (docs/evaluation.md).
  model=PATH        a Hugging Face folder or id, a checkpoint, or a run: then every checkpoint (steps=[...] for some)
  benchmarks=[...]  prepared data sets (paec data NAME), or .parquet files
  samples=FILE      scores existing responses
  output=FOLDER     where the results go; the same command resumes an interrupted evaluation
  --dry-run         checks everything and starts nothing; --print-config prints the resolved configuration alone
example: paec evaluate model=outputs/tiny_cpu-paec benchmarks=[data/tiny/data/validation.parquet] protocol=tiny
"""


def evaluate_target(config: DictConfig, target: Target, problems: dict[str, list[Problem]]) -> None:
    """One model from generation to table; a finished evaluation only shows its table."""
    config = as_trained(config, target)
    identity = identity_of(config, target, problems)
    refuse(target.output, identity, config.fresh)
    with folders.held(target.output, folder_kinds.EVALUATION, say):
        continue_or_start(target.output, identity, config.fresh)
        label = target.source if target.step is None else f"step {target.step} ({target.source})"
        if (target.output / SCORES).is_file():
            say(
                f"{label} is already evaluated: {target.output} (delete {SCORES} there to grade its responses again; "
                "fresh=true generates new ones)"
            )
            say(finished_table(config, target.output, target, problems))
            return
        say(f"evaluating {label}")
        generate(config, target, problems, resume=folder_kinds.EVALUATION.same_command(config.fresh))
        write_results(config, target.output, target, identity, problems, journaled(problems, target.output / JOURNAL))


def run(config: DictConfig) -> None:
    """Run an evaluation; raises UserError for anything the user can fix."""
    config = resolved(config)
    if config.print_config:
        say(OmegaConf.to_yaml(config))
        if not config.dry_run:
            return
    problems = load_problems(find_benchmarks(config), config.reward.scorers)
    if config.samples is not None:
        score_samples(config, problems)
        return
    check_samples(config, problems)
    check_own_scorers(config, problems)
    checks = examine.basics(config) + (node.ray_checks(config) if config.cluster.ray_address is None else [])
    errors = [problem for check in checks for problem in check.errors]
    workers = config.cluster.nodes * config.cluster.gpus_per_node
    if workers % config.cluster.tensor_parallel:
        errors.append(f"cluster.tensor_parallel={config.cluster.tensor_parallel} does not divide {workers} GPUs")
    if errors and not config.dry_run:
        raise UserError(*errors)
    targets = find_targets(config, label_of(config, problems))
    training_texts(training_files(config, targets[0].run))  # a bad file is reported now, not after the generation
    errors += output_errors(config, targets, problems)
    if config.dry_run:
        show(config, targets, problems)
        if errors:
            raise UserError(*errors)
        say("all checks passed")
        return
    if errors:
        raise UserError(*errors)
    for target in targets:
        evaluate_target(config, target, problems)
    if targets[0].run is not None and targets[0].output.name == f"step_{targets[0].step}":
        write_curve(targets)


def check_own_scorers(config: DictConfig, problems: dict[str, list[Problem]]) -> None:
    """UserError for a scorer of the configuration that cannot be used, or whose data source is not evaluated."""
    own = dict(config.reward.scorers)
    first = {name: (group[0].ground_truth, group[0].extra) for name, group in problems.items()}
    if unused := [name for name in own if name not in problems]:
        raise UserError(f"reward.scorers.{unused[0]}: must name one of the benchmarks {', '.join(problems)}")
    if errors := inputs.check_scorers(own, first):
        raise UserError(*errors)


def show(config: DictConfig, targets: list[Target], problems: dict[str, list[Problem]]) -> None:
    """What would be done (`--dry-run`)."""
    samples = samples_per_problem(config, problems)
    for name, group in problems.items():
        say(f"{name}: {len(group)} problems x {samples[name]} responses")
    for target in targets:
        say(f"{target.source} -> {target.output}")
        if config.fresh and (sentence := folders.to_be_cleared(target.output, folder_kinds.EVALUATION)):
            say(f"  fresh=true {sentence}")


def score_samples(config: DictConfig, problems: dict[str, list[Problem]]) -> None:
    """Grade and score a file of existing responses."""
    path = Path(config.samples).expanduser()
    named = next(iter(problems)) if len(problems) == 1 else None
    samples = read_samples(path, problems, named, config.reward.scorers)
    origin = own_origin(path, samples)
    if origin is not None and problems:
        origin.pop("benchmarks", None)  # the hashes of the files that it is graded against now
    problems = problems or problems_in(samples)
    check_own_scorers(config, problems)
    training_texts(training_files(config, None))
    folder = Path(config.output).expanduser() if config.output else Path("outputs") / "evaluation" / path.stem
    place = os.path.relpath(os.path.realpath(path), os.path.realpath(folder))
    if matches(place, folder_kinds.EVALUATION.files):
        raise UserError(
            f"samples={path} is a file of the evaluation in {folder}, which this command replaces: choose another "
            "folder with output=..."
        )
    own = config.reward.scorers
    identity = {"samples": sha256(path), "benchmarks": digests(problems, own), **scorers_of(config, problems)}
    if origin is not None and "benchmarks" in origin:  # samples do not have the columns that a function reads
        origin["benchmarks"] |= {n: d for n, d in identity["benchmarks"].items() if is_function(own.get(n, ""))}
    problem = error_of(folder, identity, config.fresh, folder_kinds.EVALUATION) or _unwritable(folder)
    if problem:
        raise UserError(problem)
    if config.dry_run:
        if config.fresh and (sentence := folders.to_be_cleared(folder, folder_kinds.EVALUATION)):
            say(f"fresh=true {sentence}")
        say(f"{len(samples)} responses would be graded -> {folder}")
        return
    with folders.held(folder, folder_kinds.EVALUATION, say):
        continue_or_start(folder, identity, config.fresh)
        if origin is not None:
            say(f"these samples were generated by this recipe, protocol {origin['protocol']['name']}")
        write_results(config, folder, None, identity, problems, samples, origin)


QUOTED = ("model.path", "output", "samples", "data_root", "chat_template")
"""Keys with a text that Hydra's grammar would misinterpret."""


def arguments_of(given: list[str]) -> list[str]:
    """The command line as Hydra takes it.

    `model` is also a group of `configs/`, so its value has a key below it; and paths are quoted, because a run's name
    may contain "=" and ",", and so are chat templates. A comma separates list items, unless they are already quoted.
    """
    arguments = with_flags(given)
    arguments = [f"model.path={a.removeprefix('model=')}" if a.startswith("model=") else a for a in arguments]
    # A protocol only names some benchmarks; this sets any.
    arguments = [_setting_samples_of(a) for a in arguments]
    return [_quoted(a) for a in arguments]


def _setting_samples_of(argument: str) -> str:
    name, equals, value = argument.removeprefix("protocol.samples_of.").partition("=")
    if not equals or not argument.startswith("protocol.samples_of."):
        return argument
    # Hydra's keys are made of words and dots; a data source such as exact_match/caps can only be a key of a dict.
    return f"++{argument}" if name.isidentifier() else f"++protocol.samples_of={{{name}: {value}}}"


def _quoted(argument: str) -> str:
    key, _, value = argument.partition("=")
    if value in ("", "null", "[]") or value.startswith(("'", '"')):
        return argument
    if key in ("benchmarks", "trained_on"):
        items = _ITEM.findall(value.removeprefix("[").removesuffix("]") + ",")
        return f"{key}=[" + ",".join(quoted or _quote(plain) for quoted, plain in items) + "]"
    return f"{key}={_quote(value)}" if key in QUOTED else argument


_ITEM = re.compile(r"""\s*(?:('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|([^,]*?))\s*,""", re.DOTALL)
"""An item of a list and the comma after it: (in quotes, "") or ("", without)."""


def _quote(value: str) -> str:
    # Hydra reads backslashes as an escape before a quote alone, which the closing one is too.
    escaped = re.sub(r"(\\+)(?='|\Z)", r"\1\1", value.strip())
    return "'" + escaped.replace("'", "\\'") + "'"


def with_cluster(arguments: list[str], gpus: int) -> list[str]:
    """The command line with this machine's `gpus` GPUs as its cluster, of which it may choose the number."""
    if gpus <= 1:
        return [*arguments, "cluster=gpu_1x1"]
    chosen = any(a.lstrip("+").startswith("cluster.gpus_per_node=") for a in arguments)
    return [*arguments, "cluster=gpu_1x8", *([] if chosen else [f"cluster.gpus_per_node={gpus}"])]


def main() -> int:
    """Command line entry; returns the exit code."""
    if asked_for_help(sys.argv[1:], USAGE):
        return 0
    arguments = arguments_of(sys.argv[1:])
    if not any(a.startswith("cluster=") for a in arguments) and versions.stack() != "cpu":
        arguments = with_cluster(arguments, gpu_count())
    same = folder_kinds.EVALUATION.same_command(folder_kinds.EVALUATION.fresh in arguments)
    return hydra_command("evaluate", run, arguments, f"{same} resumes from the responses generated so far")
