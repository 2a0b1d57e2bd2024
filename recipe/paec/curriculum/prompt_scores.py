"""Scores of prompts from the policy's own samples, and the files that contain them."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from omegaconf import DictConfig, OmegaConf

from data_prep.contract import ContractError, validate_rows
from data_prep.files import atomic_write
from paec_loss.semantic import semantic_entropy
from recipe.grading.pool import GraderPool
from recipe.paec.common import folder_kinds, folders
from recipe.paec.common.console import say
from recipe.paec.common.errors import UserError
from recipe.paec.common.model_files import fingerprint
from recipe.paec.common.prompts import encode
from recipe.paec.common.records import first_difference
from recipe.paec.config import rules
from recipe.paec.config.scored_files import ACCURACY, DIFFICULTY, SCORE, scored_path
from recipe.paec.evaluate.benchmarks import Problem, reference_of
from recipe.paec.evaluate.folder import JOURNAL, continue_or_start, digests, refuse, scorers_of
from recipe.paec.evaluate.generation import generate
from recipe.paec.evaluate.grading import by_problem, grade, journaled
from recipe.paec.evaluate.targets import Target
from recipe.paec.scoring.difficulty import label_of

GROUP = "curriculum=semantic_entropy"
PROVENANCE = SCORE.encode()
"""Key of the scored file's schema metadata: what the scores were made with, JSON."""


def sampling_of(config: DictConfig) -> DictConfig:
    """The training's sampling settings, as `evaluate.generation.generate` takes them."""
    data, rollout = config.data, config.actor_rollout_ref.rollout
    return OmegaConf.create(
        {
            "protocol": {
                **{key: rollout[key] for key in ("temperature", "top_p", "top_k")},
                "max_tokens": data.max_response_length,
                "samples": data.curriculum.samples,
                "samples_of": {},
            },
            "engine": {
                **{key: rollout[key] for key in ("dtype", "enforce_eager", "max_num_seqs")},
                "tensor_parallel_size": config.cluster.tensor_parallel,
            },
            "cluster": config.cluster,
            "chat_template": config.model.chat_template,
            "apply_chat_template_kwargs": data.apply_chat_template_kwargs,
            "context_length": rules.sequence_length(config),
            "seed": config.seed,
            "stall_timeout": config.run.stall_timeout,
        }
    )


def load_prompts(path: Path, tokenizer: Any, longest: int) -> dict[str, list[Problem]]:
    """The prompts of a training file by data source, `id` being the row; those of more than `longest` tokens left out.

    Raises:
        UserError: the file breaks the row contract, or has a reference that no grader reads.
    """
    try:
        frame = validate_rows(path)
    except (ContractError, FileNotFoundError) as error:
        raise UserError(f"data.train_files: {error}") from None
    prompts: dict[str, list[Problem]] = {}
    for number, row in enumerate(frame.to_dict("records")):
        turns = [dict(turn) for turn in row["prompt"]]
        if len(encode(tokenizer, turns)) <= longest:
            truth = reference_of(row["reward_model"], f"data.train_files: {path}, row {number}")
            text = turns[-1]["content"]
            problem = Problem(row["data_source"], str(number), turns, truth, text, row["extra_info"])
            prompts.setdefault(problem.benchmark, []).append(problem)
    return prompts


def entropy_of(samples: list[dict[str, Any]]) -> float:
    """Semantic entropy of one prompt's graded samples, nats; a response without an answer agrees with no other."""
    groups = [-1 - place if s["group"] is None else s["group"] for place, s in enumerate(samples)]
    log_prob = torch.tensor([s["log_prob"] for s in samples], dtype=torch.float64)
    return semantic_entropy(torch.tensor(groups), log_prob)


def write_scores(
    source: Path,
    target: Path,
    scores: dict[int, float],
    identity: dict[str, Any],
    accuracies: Mapping[int, float] | None = None,
) -> None:
    """A copy of a data file with extra_info.semantic_entropy, null in the rows that `scores` lacks.

    With `accuracies` also extra_info.sample_accuracy and its label, extra_info.difficulty. Everything else stays as it
    is, types, rows and their order included. The copy is written completely or not at all.
    """
    table = pq.ParquetFile(source).read()
    place = table.schema.get_field_index("extra_info")
    extra = table.column(place).combine_chunks()
    fields = {field.name: extra.field(i) for i, field in enumerate(extra.type)}
    fields[SCORE] = pa.array([scores.get(row) for row in range(table.num_rows)], pa.float64())
    if accuracies is not None:
        found = [accuracies.get(row) for row in range(table.num_rows)]
        fields[ACCURACY] = pa.array(found, pa.float64())
        fields[DIFFICULTY] = pa.array([None if one is None else label_of(one) for one in found], pa.string())
    new = pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
    table = table.set_column(place, "extra_info", new)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), PROVENANCE: json.dumps(identity)})
    with atomic_write(target) as partial:
        pq.write_table(table, partial)
        validate_rows(partial)


def provenance(file: Path) -> dict[str, Any] | None:
    """What the scores of a file were made with; None if it does not say."""
    try:
        metadata = pq.read_schema(file).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    return json.loads(metadata[PROVENANCE]) if PROVENANCE in metadata else None


def is_scored(target: Path, identity: dict[str, Any], fresh: bool) -> bool:
    """Whether the scored file already exists; UserError if it was made with other settings and may not be replaced.

    With `fresh` it is made again, and replaces only a file that contains such scores.
    """
    if not os.path.lexists(target):
        return False
    found = None if target.is_symlink() else provenance(target)
    if found is None:
        raise UserError(f"{target} exists and was not written by this command: move it away")
    if fresh:
        return False
    if (difference := first_difference(found, identity)) is not None:
        key, recorded, wanted = difference
        raise UserError(
            f"{target} was scored with other settings: its {key} is {recorded!r:.200}, but this command has "
            f"{wanted!r:.200}: replace it with run.fresh=true"
        )
    return True


def accuracies_of(graded: Mapping[tuple[str, str], list[dict[str, Any]]]) -> dict[int, float]:
    """Row -> share of its samples that are right."""
    return {int(row): sum(s["correct"] for s in samples) / len(samples) for (_, row), samples in graded.items()}


def summary(correct: Mapping[int, float], scores: dict[int, float], stages: int) -> Iterator[str]:
    """One line per stage: rows, range of their semantic entropy, accuracy of their samples (`correct`, by row)."""
    order, rows = sorted(scores, key=lambda row: (scores[row], row)), len(scores)
    for stage in range(stages):
        part = order[rows * stage // stages : rows * (stage + 1) // stages]
        if part:
            yield (
                f"  stage {stage + 1} of {stages}: {len(part)} rows, semantic entropy {scores[part[0]]:.3f} to "
                f"{scores[part[-1]]:.3f} nats, accuracy of the samples {sum(correct[r] for r in part) / len(part):.3f}"
            )


def score_file(config: DictConfig, file: Path, folder: Path, tokenizer: Any) -> None:
    """One training file from its prompts to the scored copy; an existing copy is left alone."""
    sampling, target = sampling_of(config), scored_path(file)
    problems = load_prompts(file, tokenizer, config.data.max_prompt_length)
    identity = {
        "model": fingerprint(folder),
        "sampling": OmegaConf.to_container(sampling.protocol),
        "seed": config.seed,
        "chat_template": sampling.chat_template,
        "context_length": sampling.context_length,
        "dtype": sampling.engine.dtype,
        "prompts": digests(problems, config.reward.scorers),
        **scorers_of(config, problems),
    }
    if is_scored(target, identity, config.run.fresh):
        say(f"{target} is already scored (run.fresh=true scores it again)")
        return
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    output = Path(config.run.root) / "curriculum" / f"{file.stem}-{digest}"
    refuse(output, identity, config.run.fresh, folder_kinds.CURRICULUM)
    with folders.held(output, folder_kinds.CURRICULUM, say):
        continue_or_start(output, identity, config.run.fresh, folder_kinds.CURRICULUM)
        say(
            f"scoring {sum(map(len, problems.values()))} prompts of {file} with {config.data.curriculum.samples} "
            "samples each"
        )
        model = Target(config.model.path, folder, False, None, None, output)
        resume = folder_kinds.CURRICULUM.same_command(config.run.fresh)
        generate(sampling, model, problems, log_probs=True, resume=resume)
        with GraderPool(scorers=config.reward.scorers) as pool:
            graded = by_problem(grade(journaled(problems, output / JOURNAL), pool, problems))
        scores = {int(row): entropy_of(samples) for (_, row), samples in graded.items()}
        if bad := [row for row, score in scores.items() if not math.isfinite(score)]:
            raise UserError(f"{file}, row {bad[0]}: no response has a finite log-prob: see {output / JOURNAL}")
        correct = accuracies_of(graded)
        write_scores(file, target, scores, identity, correct)
        say(f"{target}: extra_info.{SCORE} of {len(scores)} rows")
        say("\n".join(summary(correct, scores, config.data.curriculum.stages)))
