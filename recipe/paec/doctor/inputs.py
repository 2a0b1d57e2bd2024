"""The doctor's checks of model, tokenizer and data."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from recipe.grading import sources
from recipe.grading.pool import GraderPool
from recipe.grading.scorers import is_function
from recipe.paec.common import prompts
from recipe.paec.common.errors import UserError
from recipe.paec.common.model_files import (
    context_length,
    file_errors,
    head_dim,
    model_folder,
    module_errors,
    read_config,
)
from recipe.paec.config.data_files import data_files
from recipe.paec.config.rules import check_context, sequence_length
from recipe.paec.config.scored_files import COMMAND, SCORE, scored_path, scores_in, too_few, train_files


def check_files(config: DictConfig) -> list[str]:
    """Training files without scores, or too few rows for the stages; missing files are reported by another check."""
    files = [file for file in train_files(config) if Path(file).expanduser().is_file()]
    if config.data.curriculum is None or not files:
        return []
    errors, rows = [], 0
    for file in files:
        scores = scores_in(file)
        known = [score for score in scores if score is not None]
        rows += len(known)
        # Rows with a prompt that is too long have no score, and are dropped.
        if not known or (len(known) < len(scores) and not config.data.filter_overlong_prompts):
            errors.append(
                f"data.train_files: {file}: {len(scores) - len(known)} of {len(scores)} rows have no "
                f"extra_info.{SCORE}: run {COMMAND} with the arguments of this run, which writes {scored_path(file)}"
            )
        elif bad := [score for score in known if not 0 <= score < math.inf]:
            errors.append(f"data.train_files: {file}: extra_info.{SCORE} is {bad[0]} in a row: score the file again")
    if not errors and rows // config.data.curriculum.stages < config.data.train_batch_size:
        errors.append(too_few(rows, config.data.curriculum.stages, config.data.train_batch_size))
    return errors


def check_model(config: DictConfig, to_come: Path | None = None) -> list[str]:
    """The model's files: configuration, weights, tokenizer. A folder below `to_come` may still be missing."""
    path = config.model.path
    folder = model_folder(path)
    if folder is None and is_below(path, to_come):
        return []
    if folder is None:
        return [
            f"model.path={path}: does not exist, and is not in the Hugging Face cache: run {config.model.obtain}, or "
            "set model.path to a local folder"
        ]
    return file_errors(folder, f"model.path={path}")


def is_below(path: str, folder: Path | None) -> bool:
    """Whether a path is in a folder, if there is one."""
    return folder is not None and folder.absolute() in Path(path).expanduser().absolute().parents


def check_data(config: DictConfig, tokenizer: Any | None, to_come: Path | None = None) -> list[str]:
    """Every data file: readable, contract, known data source, and prompts that fit (with a tokenizer); scorers; rows.

    A file below `to_come` may still be missing.
    """
    from data_prep.contract import ContractError, validate_rows  # imports pandas

    errors, own = [], dict(config.reward.scorers)
    first: dict[str, tuple[str, dict[str, Any]]] = {}
    rows, unread, validated = 0, set(), set()
    for key, files in data_files(config).items():
        for file in files:
            path = Path(os.path.expanduser(file))
            if not path.is_file():
                unread.add(key)
                if not is_below(file, to_come):
                    errors.append(f"data.{key}: {file} does not exist: run {config.data.obtain}")
                continue
            try:
                frame = validate_rows(path)
            except ContractError as error:
                errors.append(f"data.{key}: {error}")
                unread.add(key)
                continue
            rows += len(frame) * (key == "train_files")
            validated |= set(frame["data_source"]) if key == "val_files" else set()
            for source in sorted(set(frame["data_source"])):
                if not sources.supports(source, own):
                    errors.append(f"data.{key}: {file}: {sources.why_not(source)}")
            errors += _check_media(config, key, file, frame) + _check_references(key, file, frame, own)
            for source, reward, extra in zip(
                frame["data_source"], frame["reward_model"], frame["extra_info"], strict=True
            ):
                first.setdefault(source, (reward["ground_truth"], extra))
            if tokenizer is not None:
                errors += _check_prompts(config, key, file, frame, tokenizer)
    if "train_files" not in unread:
        errors += _check_count(config, rows)
    if "val_files" not in unread:
        errors += _check_best_metric(config, sorted(validated))
    if not unread:
        errors += [
            f"reward.scorers.{source}: no row of data.train_files and data.val_files has this data_source; they have "
            f"{', '.join(sorted(first))}"
            for source in own
            if source not in first
        ]
    return errors + check_scorers(own, first)


def _check_media(config: DictConfig, key: str, file: str, frame) -> list[str]:
    """Columns from which verl would add images, videos or sound to the prompts."""
    names = [config.data.get(f"{kind}_key", f"{kind}s") for kind in ("image", "video", "audio")]
    found = [
        name for name in names if name in frame and any(hasattr(cell, "__len__") and len(cell) for cell in frame[name])
    ]
    return [
        f"data.{key}: {file}, field {name}: only text is supported: leave the column out, or use another file"
        for name in found
    ]


def _check_count(config: DictConfig, rows: int) -> list[str]:
    """Fewer training rows than a step takes: there would be no step."""
    batch, most = config.data.train_batch_size, config.data.train_max_samples
    mini = "actor_rollout_ref.actor.ppo_mini_batch_size"
    if 0 < most < min(rows, batch):
        return [
            f"data.train_max_samples={most}: fewer than data.train_batch_size={batch}: raise it, or lower "
            f"data.train_batch_size to at most {most}, of which {mini} must be a divisor"
        ]
    if rows >= batch:
        return []
    return [
        f"data.train_files: {rows} row{'s' * (rows != 1)}, fewer than data.train_batch_size={batch}: add rows, or "
        f"lower data.train_batch_size to at most {rows}, of which {mini} must be a divisor"
    ]


def _check_best_metric(config: DictConfig, validated: list[str]) -> list[str]:
    """A metric that no validation of these data sources gives; what a scorer from outside measures is not known."""
    metric, n = config.run.best_metric, config.actor_rollout_ref.rollout.val_kwargs.n
    if metric is None:
        return []
    source, _, name = metric.removeprefix("val/").rpartition("/")
    of_number = name.startswith(("avg@", "maj@")) and name.partition("@")[2] != str(n)
    if metric.startswith("val/") and not of_number and source.removesuffix("/metric") in validated:
        return []
    return [
        f"run.best_metric={metric}: must be a metric of the validation, such as "
        f"{' or '.join(f'val/{source}/avg@{n}' for source in validated)}"
    ]


def check_scorers(own: Mapping[str, str], first: Mapping[str, tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Functions of `reward.scorers` that cannot be imported, or fail for a row: one sentence each.

    Args:
        own: data source -> scorer.
        first: data source -> ground truth and `extra_info` of its first row. A function whose source has none is
            imported, but not called.
    """
    functions = {source: scorer for source, scorer in own.items() if is_function(scorer)}
    if not functions:
        return []
    with GraderPool(1) as pool:
        found = {source: pool.probe(scorer, *first.get(source, ())) for source, scorer in functions.items()}
    return [f"reward.scorers.{source}: {problem}" for source, problem in found.items() if problem]


def _check_references(key: str, file: str, frame, own: Mapping[str, str]) -> list[str]:
    """Reference answers that the scorer cannot read: each would be an error in the middle of a run."""
    bad = [
        (row, problem)
        for row, (source, reward_model) in enumerate(zip(frame["data_source"], frame["reward_model"], strict=True))
        if sources.supports(source, own)
        and (problem := sources.check_ground_truth(source, reward_model["ground_truth"], own)) is not None
    ]
    if not bad:
        return []
    row, problem = bad[0]
    more = f" (and {len(bad) - 1} more rows)" if len(bad) > 1 else ""
    return [f"data.{key}: {file}, row {row}, field reward_model.ground_truth: {problem}{more}: prepare the file again"]


def _check_prompts(config: DictConfig, key: str, file: str, frame, tokenizer) -> list[str]:
    limit = config.data.max_prompt_length
    told = config.data.apply_chat_template_kwargs
    lengths = [len(prompts.encode(tokenizer, prompt, **told)) for prompt in frame["prompt"]]
    too_long = sum(length > limit for length in lengths)
    if too_long == len(lengths):
        return [
            f"data.max_prompt_length={limit}: every prompt of {file} is longer (the shortest has {min(lengths)} "
            "tokens): raise it"
        ]
    if too_long and not config.data.filter_overlong_prompts:
        return [
            f"data.max_prompt_length={limit}: {too_long} of {len(lengths)} prompts of {file} are longer, up to "
            f"{max(lengths)} tokens: raise it, or drop them with data.filter_overlong_prompts=true"
        ]
    return []


def check_tokenizer(config: DictConfig, folder: Path, tokenizer: Any) -> list[str]:
    """The tokenizer and the requested lengths against the model's own config.json."""
    path, content = config.model.path, read_config(folder)
    rows, size, end = content["vocab_size"], len(tokenizer), tokenizer.eos_token_id
    errors = []
    if size > rows:
        errors.append(
            f"model.path={path}: the tokenizer has {size} tokens, the model's embedding only {rows} rows (vocab_size): "
            "use the tokenizer that belongs to the model, or resize the embedding (resize_token_embeddings)"
        )
    elif config.cluster.platform == "cpu" and size < rows:
        errors.append(
            f"model.path={path}: the tokenizer has {size} tokens, the model's embedding {rows} rows (vocab_size): on "
            "cluster=cpu they must be equal, because vLLM never draws the extra ids, which the actor counts: "
            "resize the embedding (resize_token_embeddings)"
        )
    if end is None:
        errors.append(f"model.path={path}: the tokenizer has no eos_token, so no response would end: set one")
    if config.cluster.platform == "cpu" and head_dim(content) < 32:
        errors.append(
            f"model.path={path}: its attention heads are {head_dim(content)} wide, vLLM on cluster=cpu needs at least "
            "32: use a model with fewer or wider heads"
        )
    own = context_length(content)
    if own is not None:
        errors += check_context(sequence_length(config), own, f"{folder / 'config.json'}")
    return errors


def check_inputs(config: DictConfig, to_come: Path | None = None) -> list[str]:
    """Problems of model and data; what is below `to_come` will be created first, so it may be missing."""
    errors, tokenizer = model_errors(config, to_come)
    return errors + data_errors(config, tokenizer, to_come)


def model_errors(config: DictConfig, to_come: Path | None = None) -> tuple[list[str], Any | None]:
    """Problems of the model with its tokenizer, as in `check_inputs`; and the tokenizer, None if it cannot be read."""
    errors = check_model(config, to_come)
    folder, tokenizer = model_folder(config.model.path), None
    if not errors and config.lora.target_modules != "all-linear":
        errors = module_errors(folder, list(config.lora.target_modules))
    if folder is not None and not errors:
        try:
            tokenizer = prompts.load_tokenizer(
                folder, config.model.chat_template, f"model.path={config.model.path}", "set model.chat_template to one"
            )
            errors = check_tokenizer(config, folder, tokenizer)
        except UserError as error:
            errors = error.errors
    return errors, tokenizer


def data_errors(config: DictConfig, tokenizer: Any | None, to_come: Path | None = None) -> list[str]:
    """Problems of the data files, as in `check_inputs`; whether prompts fit is only known with a tokenizer."""
    return check_data(config, tokenizer, to_come) or check_files(config)
