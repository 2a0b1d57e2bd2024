"""A curriculum in training: its files and its checks. The order itself is recipe.paec.curriculum_sampler.

    data.curriculum.stages=N     stage s of N has the s-th easiest part of the rows and total_training_steps / N steps

Scores are `extra_info.semantic_entropy` of the rows, nats; where FILE.semantic_entropy.parquet stands beside a training
file FILE.parquet, training reads that one.
"""

from __future__ import annotations

import math
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

SCORE = "semantic_entropy"
"""Field of `extra_info`, and what marks the name of a scored file."""
COMMAND = "python -m recipe.paec.curriculum"


# ---- files -----------------------------------------------------------------------------------------------------------


def scored_path(file: str | Path) -> Path:
    """Where the scored copy of a data file stands: X.parquet -> X.semantic_entropy.parquet beside it."""
    path = original_path(file)
    return path.with_name(f"{path.stem}.{SCORE}{path.suffix}")


def original_path(file: str | Path) -> Path:
    """The data file that a scored copy was made of, or the file itself."""
    path = Path(file).expanduser()
    return path.with_name(f"{path.stem.removesuffix(f'.{SCORE}')}{path.suffix}")


def train_files(config: DictConfig) -> list[str]:
    """`data.train_files` as a list."""
    files = config.data.train_files
    return [files] if isinstance(files, str) else list(files)


def use_scored_files(config: DictConfig) -> None:
    """With a curriculum, put the scored copies that exist into `data.train_files`."""
    if config.data.curriculum is not None:
        pairs = [(file, scored_path(file)) for file in train_files(config)]
        config.data.train_files = [str(scored) if scored.is_file() else file for file, scored in pairs]


def scores_in(file: str | Path) -> list[float | None]:
    """The score of every row of a data file, None where it has none."""
    import pyarrow.parquet as pq  # for data alone: a configuration is checked without it

    extra = pq.ParquetFile(Path(file).expanduser()).read(columns=["extra_info"]).column("extra_info")
    return [row.get(SCORE) for row in extra.to_pylist()]


# ---- checks ----------------------------------------------------------------------------------------------------------


def check_config(config: DictConfig) -> list[str]:
    """What is wrong with `data.curriculum`, and what it cannot be combined with."""
    section = config.data.curriculum
    if section is None:
        return []
    if not isinstance(section, DictConfig):
        return [f"data.curriculum={section}: choose with curriculum=none or curriculum=semantic_entropy"]
    problems = []
    for key, least in (("stages", 1), ("samples", 2)):
        value = OmegaConf.select(section, key)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            problems.append(f"data.curriculum.{key}={value}: must be a whole number of at least {least}")
    if not problems and section.stages > config.trainer.total_training_steps:
        problems.append(
            f"data.curriculum.stages={section.stages} is more than trainer.total_training_steps="
            f"{config.trainer.total_training_steps}: lower it, every stage has a step at least"
        )
    if not config.data.shuffle:
        problems.append("data.shuffle=false: a curriculum has an order of its own, shuffled within a stage: leave it")
    if OmegaConf.select(config, "algorithm.filter_groups.enable"):
        problems.append(
            "algorithm.filter_groups.enable=true draws more prompts than a step has, so that no stage ends with a "
            "step: leave one of the two, or choose curriculum=none"
        )
    return problems


def check_files(config: DictConfig) -> list[str]:
    """Training files without scores, or too few rows for the stages; a file that is missing is not this check's."""
    files = [file for file in train_files(config) if Path(file).expanduser().is_file()]
    if config.data.curriculum is None or not files:
        return []
    problems, rows = [], 0
    for file in files:
        scores = scores_in(file)
        known = [score for score in scores if score is not None]
        rows += len(known)
        # Rows whose prompt is too long have none, and are dropped.
        if not known or (len(known) < len(scores) and not config.data.filter_overlong_prompts):
            problems.append(
                f"data.train_files: {file}: {len(scores) - len(known)} of {len(scores)} rows have no "
                f"extra_info.{SCORE}: {COMMAND} with the arguments of this run writes it, to {scored_path(file)}"
            )
        elif bad := [score for score in known if not 0 <= score < math.inf]:
            problems.append(f"data.train_files: {file}: extra_info.{SCORE} is {bad[0]} in a row: score it again")
    if not problems and rows // config.data.curriculum.stages < config.data.train_batch_size:
        problems.append(too_few(rows, config.data.curriculum.stages, config.data.train_batch_size))
    return problems


def too_few(rows: int, stages: int, batch_size: int) -> str:
    """The sentence on stages with fewer rows than a batch."""
    return (
        f"data.curriculum.stages={stages}: a stage has {rows // stages} of the {rows} rows, fewer than "
        f"data.train_batch_size={batch_size}: lower one of them"
    )
