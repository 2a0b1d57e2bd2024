"""`python -m recipe.paec.evaluate model=... benchmarks=[aime24,...] protocol=luffy|dapo|paec`: scores with provenance.

Generates with vLLM (recipe.paec.generation, a process of its own), grades (recipe.grading), estimates
(recipe.paec.scores) and writes into the output folder

    evaluation.json   what is evaluated: a later start with the same goes on, with another it is refused
    journal.jsonl     responses as they come
    samples.jsonl     every response with its grades
    scores.json       scores, intervals, provenance, contamination
    scores.md         the table

A killed evaluation goes on where it was: nothing is generated twice. A run directory is evaluated checkpoint by
checkpoint, in `step_<N>/`, with `curve.json` and `curve.png` beside them.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data_prep.contamination import find_contamination, problems_of
from data_prep.files import atomic_write, sha256
from recipe.grading.pool import GraderPool
from recipe.grading.sources import supports, why_not
from recipe.paec import checkpoints, preflight, versions
from recipe.paec.command_line import git_commit, hydra_command, say
from recipe.paec.config import EvaluationConfig
from recipe.paec.curve import draw
from recipe.paec.errors import UserError
from recipe.paec.generation import Job, missing
from recipe.paec.samples import Problem, load_benchmark, mend_journal, read_journal, read_samples
from recipe.paec.scores import heading, percent, score, table
from recipe.paec.supervise import ProcessTree
from recipe.paec.targets import Target, context_of, exported, find_targets, fingerprint
from recipe.paec.train import Stalled, clear, lock

EVALUATION, JOURNAL, SAMPLES = "evaluation.json", "journal.jsonl", "samples.jsonl"
SCORES, TABLE, CURVE = "scores.json", "scores.md", "curve.json"
GRADE_TOGETHER = 256
"""Responses handed to the graders at once: often enough for a line of progress."""


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
            path = Path(config.data_root) / entry / "test.parquet"
            if not path.is_file():
                raise UserError(
                    f"benchmarks: {path} does not exist: python -m data_prep {entry} --output {path.parent} makes it "
                    "(python -m data_prep --list shows all sets); other files are named by their path, ending in "
                    ".parquet"
                )
        files[str(entry)] = path
    return files


def load_problems(files: dict[str, Path]) -> dict[str, list[Problem]]:
    """Problems by benchmark (data source); UserError for bad files, unknown sources, a benchmark named twice."""
    loaded: dict[str, list[Problem]] = {}
    for path in files.values():
        problems = load_benchmark(path)
        name = problems[0].benchmark
        if name in loaded:
            raise UserError(f"benchmarks: {path} is {name}, which another file is already: name each once")
        if not supports(name):
            raise UserError(f"benchmarks: {path}, field data_source: {why_not(name)}")
        loaded[name] = problems
    return loaded


# ---- configuration ---------------------------------------------------------------------------------------------------


def resolved(config: DictConfig) -> DictConfig:
    """The evaluation's own sections with nothing left to look up; UserError for wrong types and values."""
    problems = []
    OmegaConf.resolve(config)
    own = {key: config[key] for key in EvaluationConfig.__dataclass_fields__}
    try:
        typed = OmegaConf.merge(OmegaConf.structured(EvaluationConfig), OmegaConf.to_container(OmegaConf.create(own)))
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {error.msg.splitlines()[0]}") from None
    protocol = typed.protocol
    for key, value in {"protocol.samples": protocol.samples, "protocol.max_tokens": protocol.max_tokens}.items():
        if value < 1:
            problems.append(f"{key}={value}: must be at least 1")
    problems += [f"protocol.samples_of.{k}={v}: must be at least 1" for k, v in protocol.samples_of.items() if v < 1]
    if not 0 <= protocol.temperature < 100:
        problems.append(f"protocol.temperature={protocol.temperature}: must be 0 (greedy) or positive")
    if not 0 < protocol.top_p <= 1:
        problems.append(f"protocol.top_p={protocol.top_p}: must be in (0, 1]")
    if protocol.temperature == 0 and max([protocol.samples, *protocol.samples_of.values()]) > 1:
        problems.append("protocol.temperature=0 draws the same response every time: set protocol.samples=1 too")
    if typed.samples is None and (typed.model.path is None or not typed.benchmarks):
        problems.append("give model=... and benchmarks=[...], or samples=FILE.jsonl to score responses made before")
    if typed.samples is not None and typed.model.path is not None:
        problems.append("samples=... scores responses made before, model=... generates new ones: give one of them")
    if problems:
        raise UserError(*problems)
    return typed


def identity_of(config: DictConfig, target: Target | None, problems: dict[str, list[Problem]]) -> dict[str, Any]:
    """What responses must agree in to belong to one evaluation."""
    return {
        "model": fingerprint(target.folder) if target is not None else None,
        "samples": sha256(Path(config.samples)) if config.samples is not None else None,
        "protocol": OmegaConf.to_container(config.protocol),
        "seed": config.seed,
        "chat_template": config.chat_template,
        "context_length": config.context_length,
        "dtype": config.engine.dtype,
        "benchmarks": {
            name: hashlib.sha256(json.dumps([asdict(p) for p in group], sort_keys=True).encode()).hexdigest()
            for name, group in problems.items()
        },
    }


def continue_or_start(folder: Path, identity: dict[str, Any]) -> None:
    """Record the identity in an empty folder, check it in another; UserError naming the first difference."""
    file = folder / EVALUATION
    if not file.is_file():
        checkpoints.write_json(file, identity)
        return
    found = json.loads(file.read_text(encoding="utf-8"))
    for key in identity:
        if found.get(key) != identity[key]:
            raise UserError(
                f"{folder} holds another evaluation: its {key} is {found.get(key)!r:.200}, this one's "
                f"{identity[key]!r:.200}. "
                "Name another folder with output=..., or start over with fresh=true, which deletes it"
            )


# ---- generation ------------------------------------------------------------------------------------------------------


def samples_per_problem(config: DictConfig, problems: dict[str, list[Problem]]) -> dict[str, int]:
    """Responses a problem, by benchmark."""
    return {name: config.protocol.samples_of.get(name, config.protocol.samples) for name in problems}


def check_prompts(config: DictConfig, folder: Path, problems: Iterable[Problem]) -> dict[str, int]:
    """Lengths that matter: of the context, of the longest prompt; UserError if a prompt leaves no room to answer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if config.chat_template is not None:
        tokenizer.chat_template = config.chat_template
    if tokenizer.chat_template is None:
        raise UserError(f"model={folder}: the tokenizer has no chat template: give one with chat_template=...")
    context, longest = context_of(config, folder), 0
    for problem in problems:
        length = len(
            tokenizer.apply_chat_template(problem.prompt, add_generation_prompt=True, tokenize=True, return_dict=False)
        )
        if length >= context:
            raise UserError(
                f"benchmark {problem.benchmark}, problem {problem.id}: its prompt has {length} tokens, the model's "
                f"context is {context} (context_length)"
            )
        longest = max(longest, length)
    return {"context": context, "longest_prompt": longest}


def generate(config: DictConfig, target: Target, problems: dict[str, list[Problem]]) -> None:
    """Fill the journal of `target.output`, showing progress; UserError if generation fails or stalls."""
    journal, everything = target.output / JOURNAL, [problem for group in problems.values() for problem in group]
    samples = samples_per_problem(config, problems)
    mend_journal(journal)
    total, left = sum(samples[p.benchmark] for p in everything), len(missing(everything, samples, journal))
    if not left:
        return
    model = exported(config, target)
    lengths = check_prompts(config, model, everything)
    if lengths["longest_prompt"] + config.protocol.max_tokens > lengths["context"]:
        say(
            f"note: protocol.max_tokens={config.protocol.max_tokens} beside prompts of up to "
            f"{lengths['longest_prompt']} tokens does not fit the context of {lengths['context']}: responses end there "
            "(finish_reason length)"
        )
    engine = {key: value for key, value in OmegaConf.to_container(config.engine).items() if value is not None}
    if config.cluster.platform == "cpu":
        # A prompt prefilled in two parts ends vLLM's CPU engine: it rewinds the request's generator, which cannot be.
        engine |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(lengths["context"], 4096)}
    workers = config.cluster.nodes * config.cluster.gpus_per_node
    sampling = {key: config.protocol[key] for key in ("temperature", "top_p", "top_k", "max_tokens")}
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
        max_model_len=lengths["context"],
        engine=engine,
        replicas=workers // config.cluster.tensor_parallel,
        gpus_per_replica=config.cluster.tensor_parallel,
        ray=ray_arguments,
        env=OmegaConf.to_container(config.cluster.env),
    )
    job_file = target.output / "job.json"
    job.write(job_file)
    log = target.output / "generation.log"
    say(f"generating {left} of {total} responses with {job.replicas} vLLM engine(s); log: {log}")
    watch = Watch(journal, total, config.stall_timeout)
    env = {**os.environ, **job.env}
    tree = ProcessTree([sys.executable, "-m", "recipe.paec.generation", str(job_file)], log, env)
    try:
        code = tree.wait(watch.tick)
    finally:
        tree.end()
    if code != 0:
        raise UserError(f"the generation ended with exit code {code}: {last_error(log)}", f"the whole log: {log}")
    if missing(everything, samples, journal):
        raise UserError(f"the generation ended without all responses: see {log}; the same command goes on")
    job_file.unlink()
    if model == target.output / "model":
        shutil.rmtree(model)


def last_error(log: Path) -> str:
    """The last line of a log that looks like an exception."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.strip() for line in lines if re.match(r"\S*(Error|Exception)\b.*: ", line.strip())]
    return errors[-1] if errors else "no error message in the log (killed, or out of memory?)"


class Watch:
    """Shows how many responses there are, and notices when no more come."""

    def __init__(self, journal: Path, total: int, timeout: float):
        self._journal, self._total, self._timeout = journal, total, timeout
        self._count, self._position = 0, 0
        self._last_sign = self._last_line = time.monotonic()
        self._count_new()
        self._first, self._started = self._count, None

    def _count_new(self) -> bool:
        if not self._journal.is_file() or self._journal.stat().st_size == self._position:
            return False
        with open(self._journal, "rb") as stream:
            stream.seek(self._position)
            new = stream.read()
        self._count, self._position = self._count + new.count(b"\n"), self._position + len(new)
        return True

    def tick(self) -> None:
        """Print what is new, at most every ten seconds; Stalled after too long a silence."""
        now = time.monotonic()
        if self._count_new():
            self._last_sign = now
            if self._started is None:  # from the first response on: before it, engines start
                self._first, self._started = self._count, now
            elif now - self._last_line >= 10 or self._count == self._total:
                rate = (self._count - self._first) / (now - self._started)
                left = (self._total - self._count) / rate / 60
                say(f"  {self._count}/{self._total} responses, {rate:.1f} a second, {left:.0f} min left")
                self._last_line = now
        if now - self._last_sign > self._timeout:
            raise Stalled(
                f"no response for {now - self._last_sign:.0f} s (stall_timeout): the generation was ended; the same "
                "command goes on from what there is"
            )


# ---- grading and scores ----------------------------------------------------------------------------------------------


def grade(samples: list[dict[str, Any]], workers: int | None) -> list[dict[str, Any]]:
    """Samples with both graders' verdicts and the groups of equivalent answers, in the order given."""
    graded: list[dict[str, Any]] = []
    started = last = time.monotonic()
    with GraderPool(workers) as pool:
        for begin in range(0, len(samples), GRADE_TOGETHER):
            part = samples[begin : begin + GRADE_TOGETHER]
            verdicts = pool.grade((s["benchmark"], s["response"], s["ground_truth"]) for s in part)
            graded += [sample | asdict(verdict) for sample, verdict in zip(part, verdicts, strict=True)]
            if time.monotonic() - last > 10:
                last = time.monotonic()
                say(f"  graded {len(graded)}/{len(samples)}")
        for group in by_problem(graded).values():
            for sample, number in zip(group, pool.group([s["answer"] for s in group]), strict=True):
                sample["group"] = number
        failed = pool.failed_comparisons
    say(f"graded {len(graded)} responses in {time.monotonic() - started:.0f} s")
    if failed:
        say(f"note: {failed} comparisons of two answers had no verdict in time; they count as different in maj@k")
    return graded


def by_problem(samples: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Samples of each (benchmark, problem), in order."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for sample in samples:
        groups.setdefault((sample["benchmark"], sample["problem"]), []).append(sample)
    return groups


def journaled(problems: dict[str, list[Problem]], journal: Path) -> list[dict[str, Any]]:
    """The journal's responses joined with their problems, in benchmark order."""
    found = read_journal(journal)
    ordered = []
    for group in problems.values():
        for problem in group:
            index = 0
            while (record := found.get((problem.benchmark, problem.id, index))) is not None:
                prompt = {"prompt": problem.prompt[-1]["content"], "ground_truth": problem.ground_truth}
                ordered.append({**{key: record[key] for key in ("benchmark", "problem", "sample")}, **prompt, **record})
                index += 1
    return ordered


def training_files(config: DictConfig, run: Path | None) -> list[str]:
    """Files to look for the benchmarks in: `trained_on`, else the run's own if they are still there, else none."""
    if config.trained_on is not None:
        files = list(config.trained_on)
        for file in files:
            if not Path(file).expanduser().is_file():
                raise UserError(f"trained_on: {file} does not exist")
        return files
    if run is None:
        return []
    files = OmegaConf.load(run / "config.yaml").data.train_files
    files = [files] if isinstance(files, str) else list(files)
    return files if all(Path(file).expanduser().is_file() for file in files) else []


def contamination(files: list[str], samples: list[dict[str, Any]], problems: dict[str, list[Problem]]) -> dict | None:
    """Benchmark problems with a near-copy in the training files, and avg@n without them; None without files."""
    if not files:
        return None
    texts: dict[str, dict[str, str]] = {name: {p.id: p.text for p in group} for name, group in problems.items()}
    if not problems:
        for sample in samples:
            texts.setdefault(sample["benchmark"], {})[sample["problem"]] = sample["prompt"]
    training = [text for file in files for text in problems_of(Path(file).expanduser())]
    found = find_contamination(training, {name: list(of_name.values()) for name, of_name in texts.items()})
    report = found.report()
    for name, overlap in found.benchmarks.items():
        ids = list(texts[name])
        copied = {ids[match.problem] for match in overlap.copies}
        rest = [sample for sample in samples if sample["benchmark"] == name and sample["problem"] not in copied]
        report["benchmarks"][name] |= {
            "ids": sorted(copied),
            "avg_without": score(rest)["benchmarks"][name]["avg"] if rest else None,
        }
    return {"trained_on": files, **report}


def contamination_lines(found: dict[str, Any] | None) -> str:
    """What is printed below the table."""
    if found is None:
        return "contamination: not checked, the training data is not known (trained_on=[FILE.parquet] checks it)"
    lines = [f"contamination: problems that stand in {', '.join(found['trained_on'])}"]
    for name, of_name in found["benchmarks"].items():
        line = f"  {heading(name)}: {of_name['contaminated']} of {of_name['size']}"
        if of_name["contaminated"] and of_name["avg_without"] is not None:
            line += f"; avg@n without them {percent(of_name['avg_without'])}"
        lines.append(line)
    return "\n".join(lines)


def provenance(config: DictConfig, target: Target | None, identity: dict[str, Any]) -> dict[str, Any]:
    """Everything that says where these scores come from."""
    return {
        "model": target.source if target is not None else None,
        "samples": config.samples,
        "model_fingerprint": identity["model"],
        "run": target.run.name if target is not None and target.run is not None else None,
        "step": target.step if target is not None else None,
        "protocol": identity["protocol"] if config.samples is None else {"name": "samples file"},
        "seed": config.seed if config.samples is None else None,
        "benchmarks": identity["benchmarks"],
        "dtype": config.engine.dtype if config.samples is None else None,
        "versions": {
            **versions.report(),
            "math-verify": versions.installed("math-verify"),
            "sympy": versions.installed("sympy"),
            "python": platform.python_version(),
        },
        "git_commit": git_commit(),
        "command": list(HydraConfig.get().overrides.task),
        "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def write_results(
    config: DictConfig, folder: Path, target: Target | None, identity: dict, problems: dict, samples: list[dict]
) -> None:
    """Grade, score and write samples.jsonl, scores.md and, last, scores.json; print the table."""
    graded = grade(samples, config.grader.workers)
    with atomic_write(folder / SAMPLES) as partial:
        partial.write_text("".join(json.dumps(sample) + "\n" for sample in graded), encoding="utf-8")
    scores = score(graded)
    scores["provenance"] = provenance(config, target, identity)
    files = training_files(config, target.run if target else None)
    scores["contamination"] = contamination(files, graded, problems)
    text = table(scores) + "\n" + contamination_lines(scores["contamination"])
    with atomic_write(folder / TABLE) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    checkpoints.write_json(folder / SCORES, scores)
    say(text)
    say(f"samples, scores and table: {folder}")


# ---- the command -----------------------------------------------------------------------------------------------------


def evaluate_target(config: DictConfig, target: Target, problems: dict[str, list[Problem]]) -> None:
    """One model from generation to table; a finished evaluation only shows its table."""
    held = lock(target.output)
    try:
        if config.fresh:
            clear(target.output)
        identity = identity_of(config, target, problems)
        continue_or_start(target.output, identity)
        label = target.source if target.step is None else f"step {target.step} ({target.source})"
        if (target.output / SCORES).is_file():
            say(f"{label} is evaluated already (fresh=true starts over): {target.output}")
            say((target.output / TABLE).read_text(encoding="utf-8"))
            return
        say(f"evaluating {label}")
        generate(config, target, problems)
        write_results(config, target.output, target, identity, problems, journaled(problems, target.output / JOURNAL))
    finally:
        held.close()


def run(config: DictConfig) -> None:
    """A whole evaluation; UserError for everything a user can mend."""
    config = resolved(config)
    problems = load_problems(find_benchmarks(config))
    if config.samples is not None:
        score_samples(config, problems)
        return
    errors = preflight.check_versions() + preflight.check_cluster(config)
    workers = config.cluster.nodes * config.cluster.gpus_per_node
    if workers % config.cluster.tensor_parallel:
        errors.append(f"cluster.tensor_parallel={config.cluster.tensor_parallel} does not divide {workers} GPUs")
    if errors and not config.dry_run:
        raise UserError(*errors)
    targets = find_targets(config, label_of(config, problems))
    if config.dry_run:
        show(config, targets, problems)
        if errors:
            raise UserError(*errors)
        say("all checks passed")
        return
    for target in targets:
        evaluate_target(config, target, problems)
    if targets[0].output.name.startswith("step_") and len(targets) > 1:
        write_curve(targets)


def show(config: DictConfig, targets: list[Target], problems: dict[str, list[Problem]]) -> None:
    """What would be done (`--dry-run`)."""
    print(OmegaConf.to_yaml(config))
    samples = samples_per_problem(config, problems)
    for name, group in problems.items():
        say(f"{name}: {len(group)} problems x {samples[name]} responses")
    for target in targets:
        say(f"{target.source} -> {target.output}")


def score_samples(config: DictConfig, problems: dict[str, list[Problem]]) -> None:
    """Grade and score a file of responses made before."""
    path = Path(config.samples).expanduser()
    samples = read_samples(path, problems, next(iter(problems)) if len(problems) == 1 else None)
    for source in sorted({sample["benchmark"] for sample in samples}):
        if not supports(source):
            raise UserError(f"samples: {path}, field benchmark: {why_not(source)}")
    folder = Path(config.output) if config.output else Path("outputs") / "evaluation" / path.stem
    if config.dry_run:
        say(f"{len(samples)} responses would be graded -> {folder}")
        return
    held = lock(folder)
    try:
        if config.fresh:
            clear(folder)
        identity = identity_of(config, None, problems)
        continue_or_start(folder, identity)
        write_results(config, folder, None, identity, problems, samples)
    finally:
        held.close()


def write_curve(targets: list[Target]) -> None:
    """`curve.json` and `curve.png` beside the steps' folders."""
    folder = targets[0].output.parent
    steps = [{"step": t.step, "scores": str((t.output / SCORES).relative_to(folder))} for t in targets]
    checkpoints.write_json(folder / CURVE, {"run": targets[0].run.name, "steps": steps})
    draw([str(folder)], folder / "curve.png", None, False)
    say(f"curve over the steps: {folder / 'curve.png'}")


def arguments_of(given: list[str]) -> list[str]:
    """The command line as Hydra takes it.

    `model` is also a group of `configs/`, so its value has a key below it; and paths are quoted, because a run's name
    may hold "=" and ",".
    """
    arguments = ["dry_run=true" if a == "--dry-run" else a for a in given]
    arguments = [f"model.path={a.removeprefix('model=')}" if a.startswith("model=") else a for a in arguments]
    return [_quoted(a) if a.startswith(("model.path=", "output=", "samples=", "data_root=")) else a for a in arguments]


def _quoted(argument: str) -> str:
    key, _, value = argument.partition("=")
    if value in ("", "null") or value[0] in "\"'":
        return argument
    return f"{key}='" + value.replace("'", "\\'") + "'"


def main() -> int:
    """Command line entry; returns the exit code."""
    arguments = arguments_of(sys.argv[1:])
    if not any(a.startswith("cluster=") for a in arguments) and versions.stack() != "cpu":
        arguments += ["cluster=gpu_1x8", f"cluster.gpus_per_node={max(preflight.gpu_count(), 1)}"]
    return hydra_command("evaluate", run, arguments, "the same command goes on from the responses that there are")


if __name__ == "__main__":
    sys.exit(main())
