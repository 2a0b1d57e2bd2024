"""`python -m recipe.paec.evaluate model=... benchmarks=[aime24,...] protocol=luffy|dapo|paec`: scores with provenance.

Generates with vLLM (recipe.paec.generation, a process of its own), grades and estimates (recipe.paec.results) and
writes into the output folder

    evaluation.json   what is evaluated: a later start with the same goes on, with another it is refused
    generation.json   the engine's settings, context and chat template
    journal.jsonl     responses as they come
    samples.jsonl     every response with its grades
    scores.json       scores, intervals, provenance, contamination
    scores.md         the table

A killed evaluation goes on where it was: nothing is generated twice. A run directory is evaluated checkpoint by
checkpoint, in `step_<N>/`, with `curve.json` and `curve.png` beside them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data_prep.cleaning import remove
from data_prep.files import remove_leftovers, sha256
from data_prep.sets import DATA_SETS
from recipe.paec import checkpoints, doctor, folders, keys, machine, preflight, safety, versions
from recipe.paec.command_line import hydra_command, say, with_flags
from recipe.paec.config import EvaluationConfig
from recipe.paec.curve import draw
from recipe.paec.errors import UserError
from recipe.paec.generation import Job, max_new_tokens, missing
from recipe.paec.origin import EVALUATION, GENERATION, JOURNAL, SCORES, own_origin
from recipe.paec.prompts import encode, load_tokenizer
from recipe.paec.results import TABLE, journaled, training_files, training_texts, write_results
from recipe.paec.samples import Problem, load_benchmark, mend_journal, problems_in, read_samples
from recipe.paec.supervise import ProcessTree, printed
from recipe.paec.targets import EXPORTED, Target, context_of, exported, find_targets, fingerprint
from recipe.paec.train import Stalled, ray_ended

JOB, CURVE, PICTURE = "job.json", "curve.json", "curve.png"
GRACE = 2.0
"""Seconds that the engines have to end: time to give their shared memory back. They have nothing to save, the journal
holds every response, and an evaluation must end within 10 s of SIGTERM."""
LINE_EVERY = 10.0
"""Seconds from one line of progress to the next."""


# ---- what is evaluated -----------------------------------------------------------------------------------------------


def label_of(config: DictConfig, problems: Iterable[str]) -> str:
    """Protocol with whatever the command line changed in it, seed and benchmarks: a name for folders."""
    changed = [
        o.lstrip("+").removeprefix("protocol.")
        for o in sorted(HydraConfig.get().overrides.task)
        if o.lstrip("+").startswith(("protocol.", "seed="))
    ]
    text = re.sub(r"[^A-Za-z0-9=.,_-]", "_", ",".join([config.protocol.name, *changed]) + "-" + ",".join(problems))
    return text if len(text) <= 120 else text[:100] + hashlib.sha256(text.encode()).hexdigest()[:12]


def find_benchmarks(config: DictConfig) -> dict[str, Path]:
    """Parquet file of every requested benchmark, in the order asked for."""
    files = {}
    for entry in config.benchmarks:
        path = Path(entry).expanduser()
        if path.suffix != ".parquet":
            path = Path(config.data_root).expanduser() / entry / "test.parquet"
            if not path.is_file():
                if entry not in DATA_SETS:
                    known = [name for name, data_set in DATA_SETS.items() if "test" in data_set.counts]
                    hint = keys.closest(entry, known, "did you mean {}? ")
                    raise UserError(
                        f"benchmarks: {entry}: there is no {path}, and no data set of this name: {hint}There are "
                        f"{', '.join(known)}; other files are named by their path, ending in .parquet"
                    )
                raise UserError(
                    f"benchmarks: {path} does not exist: python -m data_prep {entry} --output {path.parent} makes it "
                    "(python -m data_prep --list shows all sets); other files are named by their path, ending in "
                    ".parquet"
                )
        files[str(entry)] = path
    return files


def load_problems(files: dict[str, Path]) -> dict[str, list[Problem]]:
    """Problems by benchmark (data source); UserError for bad files, a benchmark named twice."""
    loaded: dict[str, list[Problem]] = {}
    for path in files.values():
        problems = load_benchmark(path)
        name = problems[0].benchmark
        if name in loaded:
            raise UserError(f"benchmarks: {path} is {name}, which another file is already: name each once")
        loaded[name] = problems
    return loaded


# ---- configuration ---------------------------------------------------------------------------------------------------


def resolved(config: DictConfig) -> DictConfig:
    """The evaluation's own sections with nothing left to look up; UserError for wrong types and values."""
    OmegaConf.resolve(config)
    problems = safety.check_config(config)
    own = {key: config[key] for key in EvaluationConfig.__dataclass_fields__}
    try:
        typed = OmegaConf.merge(OmegaConf.structured(EvaluationConfig), OmegaConf.to_container(OmegaConf.create(own)))
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {error.msg.splitlines()[0]}") from None
    problems += keys.check_values(typed, keys.EVALUATION_RULES)
    protocol = typed.protocol
    counts = {"protocol.samples": protocol.samples, "protocol.max_tokens": protocol.max_tokens}
    counts |= {"context_length": typed.context_length, "grader.workers": typed.grader.workers}
    for key, value in counts.items():
        if value is not None and value < 1:
            problems.append(f"{key}={value}: must be at least 1")
    problems += [f"protocol.samples_of.{k}={v}: must be at least 1" for k, v in protocol.samples_of.items() if v < 1]
    if not 0 <= protocol.temperature < 100:
        problems.append(f"protocol.temperature={protocol.temperature}: must be 0 (greedy) or positive")
    if not 0 < protocol.top_p <= 1:
        problems.append(f"protocol.top_p={protocol.top_p}: must be in (0, 1]")
    if protocol.top_k != -1 and protocol.top_k < 1:
        problems.append(f"protocol.top_k={protocol.top_k}: must be -1 (no limit) or at least 1")
    if not typed.stall_timeout > 0:
        problems.append(f"stall_timeout={typed.stall_timeout}: must be positive")
    if typed.samples is None and (typed.model.path is None or not typed.benchmarks):
        problems.append("give model=... and benchmarks=[...], or samples=FILE.jsonl to score responses made before")
    if typed.output is not None and (problem := folders.path_problem("output", typed.output)):
        problems.append(problem)
    if typed.samples is not None and typed.model.path is not None:
        problems.append("samples=... scores responses made before, model=... generates new ones: give one of them")
    if problems:
        raise UserError(*problems)
    return typed


def check_samples(config: DictConfig, problems: dict[str, list[Problem]]) -> None:
    """UserError for numbers of samples that cannot be meant: of a benchmark not asked for, or several greedy ones."""
    for override in HydraConfig.get().overrides.task:
        name = override.lstrip("+").partition("=")[0].removeprefix("protocol.samples_of.")
        if override.lstrip("+").startswith("protocol.samples_of.") and name not in problems:
            raise UserError(f"protocol.samples_of.{name}: the benchmarks are {', '.join(problems)}: name one of them")
    several = [name for name, n in samples_per_problem(config, problems).items() if n > 1]
    if config.protocol.temperature == 0 and several:
        keys = [
            f"protocol.samples_of.{k}=1" if k in config.protocol.samples_of else "protocol.samples=1" for k in several
        ]
        raise UserError(
            f"protocol.temperature=0 draws the same response every time: set {' '.join(dict.fromkeys(keys))} too"
        )


def digests(problems: dict[str, list[Problem]]) -> dict[str, str]:
    """SHA-256 of every benchmark's problems: prompts, references and their order."""
    return {
        name: hashlib.sha256(json.dumps([asdict(p) for p in group], sort_keys=True).encode()).hexdigest()
        for name, group in problems.items()
    }


def identity_of(config: DictConfig, target: Target, problems: dict[str, list[Problem]]) -> dict[str, Any]:
    """What responses must agree in to belong to one evaluation."""
    return {
        "model": fingerprint(target.folder),
        "protocol": OmegaConf.to_container(config.protocol),
        "seed": config.seed,
        "chat_template": config.chat_template,
        "context_length": config.context_length,
        "dtype": config.engine.dtype,
        "benchmarks": digests(problems),
    }


def hold(folder: Path) -> IO[str]:
    """The lock of an output folder, to be closed at the end; UserError if another evaluation has it."""
    try:
        return folders.lock(folder)
    except UserError:
        raise UserError(
            f"{folder} is in use by another evaluation: wait for it, or name another folder with output=..."
        ) from None


def problem_of(folder: Path, identity: dict[str, Any], fresh: bool, kind: folders.Kind) -> str | None:
    """Why the evaluation `identity` cannot be in `folder`, None if it can; touches nothing.

    The folder holds something else, or without `fresh` another evaluation: then the first difference is named.
    """
    if problem := folders.problem_of(folder, kind, {}, fresh):
        return problem
    file = folder / EVALUATION
    if fresh or not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        return f"{file} is damaged ({error}): {kind.fresh} starts over, or {kind.elsewhere}"
    for key in sorted(identity.keys() | found.keys()):
        if found.get(key) != identity.get(key):
            return (
                f"{folder} holds another evaluation: its {key} is {found.get(key)!r:.200}, this one's "
                f"{identity.get(key)!r:.200}. Name another folder with output=..., or start over with {kind.fresh}, "
                "which deletes it"
            )
    return None


def continue_or_start(
    folder: Path, identity: dict[str, Any], fresh: bool, kind: folders.Kind = folders.EVALUATION
) -> None:
    """Record the identity in an empty folder, which is held, and check it in another.

    Args:
        fresh: delete the evaluation that the folder holds, and only an evaluation, first.
        kind: whether it is an evaluation or a scoring of prompts.

    Raises:
        UserError: of `problem_of`; nothing was deleted.
    """
    if problem := problem_of(folder, identity, fresh, kind):
        raise UserError(problem)
    folders.take(folder, kind, {}, fresh, say)
    if not (folder / EVALUATION).is_file():
        checkpoints.write_json(folder / EVALUATION, identity)


# ---- generation ------------------------------------------------------------------------------------------------------


def samples_per_problem(config: DictConfig, problems: dict[str, list[Problem]]) -> dict[str, int]:
    """Responses a problem, by benchmark."""
    return {name: config.protocol.samples_of.get(name, config.protocol.samples) for name in problems}


def check_prompts(config: DictConfig, folder: Path, problems: Iterable[Problem]) -> dict[str, Any]:
    """What decides how the model is asked; UserError if a prompt leaves no room to answer.

    Returns:
        context_length (prompt + response), longest_prompt and least_room (for the response to the longest prompt, at
        most protocol.max_tokens), in tokens; chat_template, the SHA-256 of the one that is used.
    """
    tokenizer = load_tokenizer(folder, config.chat_template, f"model={folder}", "give one with chat_template=...")
    context, longest = context_of(config, folder), 0
    for problem in problems:
        length = len(encode(tokenizer, problem.prompt))
        if length >= context:
            raise UserError(
                f"benchmark {problem.benchmark}, problem {problem.id}: its prompt has {length} tokens, the model's "
                f"context is {context} (context_length)"
            )
        longest = max(longest, length)
    return {
        "context_length": context,
        "longest_prompt": longest,
        "least_room": max_new_tokens(longest, config.protocol.max_tokens, context),
        "chat_template": hashlib.sha256(json.dumps(tokenizer.chat_template).encode()).hexdigest(),
    }


def generate(config: DictConfig, target: Target, problems: dict[str, list[Problem]], log_probs: bool = False) -> None:
    """Fill the journal of `target.output`, showing progress; UserError if generation fails or stalls.

    `log_probs`: each line also has log_prob, the response's as a whole under the distribution it is drawn from, nats.
    """
    journal, everything = target.output / JOURNAL, [problem for group in problems.values() for problem in group]
    samples = samples_per_problem(config, problems)
    mend_journal(journal)
    total, left = sum(samples[p.benchmark] for p in everything), len(missing(everything, samples, journal))
    if not left:
        tidy(target)
        return
    model = exported(target)
    settings = check_prompts(config, model, everything)
    context = settings["context_length"]
    if settings["least_room"] < config.protocol.max_tokens:
        say(
            f"note: protocol.max_tokens={config.protocol.max_tokens} beside prompts of up to "
            f"{settings['longest_prompt']} tokens does not fit the context of {context}: responses end there "
            "(finish_reason length)"
        )
    engine = {key: value for key, value in OmegaConf.to_container(config.engine).items() if value is not None}
    if config.cluster.platform == "cpu":
        # A prompt prefilled in two parts ends vLLM's CPU engine: it rewinds the request's generator, which cannot be.
        engine |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(context, 4096)}
    elif config.cluster.tensor_parallel > 1:
        engine["distributed_executor_backend"] = "mp"  # on the GPUs of the replica's own actor, not in new Ray actors
    checkpoints.write_json(
        target.output / GENERATION, {**settings, "platform": config.cluster.platform, "engine": engine}
    )
    workers = config.cluster.nodes * config.cluster.gpus_per_node
    sampling = {key: config.protocol[key] for key in ("temperature", "top_p", "top_k", "max_tokens")}
    if log_probs:
        sampling["logprobs"] = 0  # of the drawn tokens alone
        engine["logprobs_mode"] = "processed_logprobs"
    ray_arguments = {"address": config.cluster.ray_address}
    if config.cluster.ray_address is None:
        ray_arguments |= {"num_gpus": config.cluster.gpus_per_node, "num_cpus": config.cluster.num_cpus}
    job = Job(
        model=str(model),
        chat_template=config.chat_template,
        journal=str(journal.absolute()),
        problems=[asdict(problem) for problem in everything],
        samples=samples,
        seed=config.seed,
        sampling=sampling,
        max_model_len=context,
        engine=engine,
        replicas=workers // config.cluster.tensor_parallel,
        gpus_per_replica=config.cluster.tensor_parallel,
        ray=ray_arguments,
        env=OmegaConf.to_container(config.cluster.env),
    )
    job_file = target.output / JOB
    job.write(job_file)
    log = target.output / "generation.log"
    say(f"generating {left} of {total} responses with {job.replicas} vLLM engine(s); log: {log}")
    watch = Watch(journal, total, config.stall_timeout)
    before = log.stat().st_size if log.is_file() else 0
    with safety.private_ray(config.cluster.ray_address, target.output) as private:
        env = {**os.environ, **job.env, **private}
        tree = ProcessTree([sys.executable, "-m", "recipe.paec.generation", str(job_file)], log, env)
        try:
            code = tree.wait(watch.tick)
        finally:
            tree.end(GRACE)
    if code != 0:
        reason = ray_ended(printed(log, before, most=1 << 20)) or last_error(log, before)
        raise UserError(f"the generation ended with exit code {code}: {reason}", f"the whole log: {log}")
    if missing(everything, samples, journal):
        raise UserError(f"the generation ended without all responses: see {log}; the same command goes on")
    tidy(target)


def tidy(target: Target) -> None:
    """Delete what only a generation needs; a start that was killed just after its last response leaves it behind."""
    (target.output / JOB).unlink(missing_ok=True)
    if target.is_checkpoint:
        exported = target.output / EXPORTED
        patterns = folders.exported_files(exported)
        remove(target.output, [f"{EXPORTED}/{pattern}" for pattern in patterns])
        remove_leftovers(exported)


def last_error(log: Path, start: int) -> str:
    """The last line of a log, from byte `start` on (earlier starts come before), that looks like an exception."""
    lines = printed(log, start).splitlines()
    errors = [line.strip() for line in lines if re.match(r"\S*(Error|Exception)\b.*: ", line.strip())]
    return errors[-1] if errors else "no error message in the log (killed, or out of memory?)"


class Watch:
    """Shows how many responses there are, and notices when no more come."""

    def __init__(self, journal: Path, total: int, timeout: float):
        self._journal, self._total, self._timeout = journal, total, timeout
        self._count, self._position, self._changed = 0, 0, 0
        self._last_sign = self._last_line = time.monotonic()
        self._count_new()
        self._before = self._count
        self._first: tuple[int, float] | None = None
        """Count and time of the first responses of this start: what came before them is start-up, not pace."""

    def _count_new(self) -> bool:
        if not self._journal.is_file():
            return False
        # The time too, because the journal is touched once the engines stand.
        state = self._journal.stat()
        if (state.st_mtime_ns, state.st_size) == (self._changed, self._position):
            return False
        self._changed = state.st_mtime_ns
        with open(self._journal, "rb") as stream:
            stream.seek(self._position)
            while new := stream.read(2**20):
                self._count += new.count(b"\n")
            self._position = stream.tell()
        return True

    def tick(self) -> None:
        """Print what is new, at most every `LINE_EVERY` seconds; Stalled after too long a silence."""
        now = time.monotonic()
        if self._count_new():
            self._last_sign = now
            if self._first is None and self._count > self._before:
                self._first, self._last_line = (self._count, now), now
            if self._first is not None and (now - self._last_line >= LINE_EVERY or self._count == self._total):
                say(f"  {self._count}/{self._total} responses{self._pace(now)}")
                self._last_line = now
        if now - self._last_sign > self._timeout:
            raise Stalled(
                f"no response for {now - self._last_sign:.0f} s (stall_timeout): the generation was ended; the same "
                "command goes on from what there is"
            )

    def _pace(self, now: float) -> str:
        count, began = self._first
        if self._count == count or now <= began:
            return ""
        rate = (self._count - count) / (now - began)
        return f", {rate:.1f} a second, {(self._total - self._count) / rate / 60:.0f} min left"


# ---- the command -----------------------------------------------------------------------------------------------------


def as_trained(config: DictConfig, target: Target) -> DictConfig:
    """The configuration with the chat template of the run that the model comes from, unless one is given."""
    if config.chat_template is not None or target.run is None:
        return config
    template = OmegaConf.load(target.run / "config.yaml").model.chat_template
    return OmegaConf.merge(config, {"chat_template": template})


def refuse(folder: Path, identity: dict[str, Any], fresh: bool, kind: folders.Kind = folders.EVALUATION) -> None:
    """UserError for a folder that `continue_or_start` would refuse, before anything is written there."""
    if problem := problem_of(folder, identity, fresh, kind):
        raise UserError(problem)


def output_problems(config: DictConfig, targets: list[Target], problems: dict[str, list[Problem]]) -> list[str]:
    """What keeps the results from their folders, one sentence each; tries to write beside those that are to be made."""
    found = []
    for target in targets:
        identity = identity_of(as_trained(config, target), target, problems)
        found.append(
            problem_of(target.output, identity, config.fresh, folders.EVALUATION) or _unwritable(target.output)
        )
    if len(targets) > 1:
        found.append(curve_problem(targets[0].output.parent))
    return list(dict.fromkeys(problem for problem in found if problem))


def _unwritable(folder: Path) -> str | None:
    place = machine.existing(folder.absolute())
    if not os.path.lexists(folder) and place != folder.absolute():
        below = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.parent == place)
        if os.path.lexists(below):
            return f"{below} is no folder, so {folder} cannot be made: name another folder with output=..."
    if reason := machine.unwritable(place):
        return f"{place} cannot be written ({reason}): name another folder with output=..."
    return None


def curve_problem(folder: Path) -> str | None:
    """Why no curve can be written into `folder`, the one that holds the steps: files of others have its names."""
    file = folder / CURVE
    try:
        ours = {"run", "steps"} == json.loads(file.read_text(encoding="utf-8")).keys()
    except (FileNotFoundError, NotADirectoryError):
        ours = not (folder / PICTURE).exists()
    except (OSError, ValueError, AttributeError):
        ours = False
    if ours:
        return None
    there = file if file.exists() else folder / PICTURE
    return f"{there} exists and is no curve of an evaluation: move it away, or name another folder with output=..."


def evaluate_target(config: DictConfig, target: Target, problems: dict[str, list[Problem]]) -> None:
    """One model from generation to table; a finished evaluation only shows its table."""
    config = as_trained(config, target)
    identity = identity_of(config, target, problems)
    refuse(target.output, identity, config.fresh)
    held = hold(target.output)
    continue_or_start(target.output, identity, config.fresh)
    try:
        label = target.source if target.step is None else f"step {target.step} ({target.source})"
        if (target.output / SCORES).is_file():
            say(
                f"{label} is evaluated already: {target.output} (delete {SCORES} there to grade its responses again; "
                "fresh=true generates new ones)"
            )
            say((target.output / TABLE).read_text(encoding="utf-8"))
            return
        say(f"evaluating {label}")
        generate(config, target, problems)
        write_results(config, target.output, target, identity, problems, journaled(problems, target.output / JOURNAL))
    finally:
        for file in safety.scrub(target.output):
            say(f"note: a secret of the environment had been printed into {file}; {safety.HIDDEN} is there now")
        held.close()


def run(config: DictConfig) -> None:
    """A whole evaluation; UserError for everything a user can mend."""
    config = resolved(config)
    if config.print_config:
        say(OmegaConf.to_yaml(config))
    problems = load_problems(find_benchmarks(config))
    if config.samples is not None:
        score_samples(config, problems)
        return
    check_samples(config, problems)
    checks = doctor.basics(config) + (machine.ray_checks(config) if config.cluster.ray_address is None else [])
    errors = [problem for check in checks for problem in check.problems]
    workers = config.cluster.nodes * config.cluster.gpus_per_node
    if workers % config.cluster.tensor_parallel:
        errors.append(f"cluster.tensor_parallel={config.cluster.tensor_parallel} does not divide {workers} GPUs")
    if errors and not config.dry_run:
        raise UserError(*errors)
    targets = find_targets(config, label_of(config, problems))
    training_texts(training_files(config, targets[0].run))  # a bad file is an error now, not after the generation
    errors += output_problems(config, targets, problems)
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
    if targets[0].output.name.startswith("step_") and len(targets) > 1:
        write_curve(targets)


def show(config: DictConfig, targets: list[Target], problems: dict[str, list[Problem]]) -> None:
    """What would be done (`--dry-run`)."""
    samples = samples_per_problem(config, problems)
    for name, group in problems.items():
        say(f"{name}: {len(group)} problems x {samples[name]} responses")
    for target in targets:
        say(f"{target.source} -> {target.output}")
        if config.fresh and (sentence := folders.to_be_cleared(target.output, folders.EVALUATION)):
            say(f"  fresh=true {sentence}")


def score_samples(config: DictConfig, problems: dict[str, list[Problem]]) -> None:
    """Grade and score a file of responses made before."""
    path = Path(config.samples).expanduser()
    samples = read_samples(path, problems, next(iter(problems)) if len(problems) == 1 else None)
    origin = own_origin(path, samples)
    if origin is not None and problems:
        origin.pop("benchmarks", None)  # those of the files that it is graded by now
    problems = problems or problems_in(samples)
    training_texts(training_files(config, None))
    folder = Path(config.output).expanduser() if config.output else Path("outputs") / "evaluation" / path.stem
    identity = {"samples": sha256(path), "benchmarks": digests(problems)}
    problem = problem_of(folder, identity, config.fresh, folders.EVALUATION) or _unwritable(folder)
    if problem:
        raise UserError(problem)
    if config.dry_run:
        if config.fresh and (sentence := folders.to_be_cleared(folder, folders.EVALUATION)):
            say(f"fresh=true {sentence}")
        say(f"{len(samples)} responses would be graded -> {folder}")
        return
    held = hold(folder)
    try:
        continue_or_start(folder, identity, config.fresh)
        if origin is not None:
            say(f"these are samples of this recipe, protocol {origin['protocol']['name']}")
        write_results(config, folder, None, identity, problems, samples, origin)
    finally:
        held.close()


def write_curve(targets: list[Target]) -> None:
    """`curve.json` and `curve.png` beside the steps' folders."""
    folder = targets[0].output.parent
    steps = [{"step": t.step, "scores": str((t.output / SCORES).relative_to(folder))} for t in targets]
    checkpoints.write_json(folder / CURVE, {"run": targets[0].run.name, "steps": steps})
    draw([str(folder)], folder / PICTURE, None, False)
    say(f"curve over the steps: {folder / PICTURE}")


QUOTED = ("model.path", "output", "samples", "data_root", "chat_template")
"""Keys with a text that Hydra's grammar would read something into."""


def arguments_of(given: list[str]) -> list[str]:
    """The command line as Hydra takes it.

    `model` is also a group of `configs/`, so its value has a key below it; and paths are quoted, because a run's name
    may hold "=" and ",", and so are chat templates. In a list the comma separates, unless its paths are quoted already.
    """
    arguments = with_flags(given)
    arguments = [f"model.path={a.removeprefix('model=')}" if a.startswith("model=") else a for a in arguments]
    # A protocol names some benchmarks only; this sets any.
    arguments = [f"++{a}" if a.startswith("protocol.samples_of.") else a for a in arguments]
    return [_quoted(a) for a in arguments]


def _quoted(argument: str) -> str:
    key, _, value = argument.partition("=")
    if value in ("", "null", "[]") or value.removeprefix("[").startswith(("'", '"')):
        return argument
    if key in ("benchmarks", "trained_on"):
        return f"{key}=[" + ",".join(map(_quote, value.removeprefix("[").removesuffix("]").split(","))) + "]"
    return f"{key}={_quote(value)}" if key in QUOTED else argument


def _quote(value: str) -> str:
    return "'" + value.strip().replace("'", "\\'") + "'"


def main() -> int:
    """Command line entry; returns the exit code."""
    arguments = arguments_of(sys.argv[1:])
    if not any(a.startswith("cluster=") for a in arguments) and versions.stack() != "cpu":
        gpus = preflight.gpu_count()
        arguments += ["cluster=gpu_1x8", f"cluster.gpus_per_node={gpus}"] if gpus > 1 else ["cluster=gpu_1x1"]
    return hydra_command("evaluate", run, arguments, "the same command goes on from the responses that there are")


if __name__ == "__main__":
    sys.exit(main())
