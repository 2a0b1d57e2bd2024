"""The files of a curriculum: training data with a score for every prompt, and what data.curriculum may say.

    data.curriculum.stages=N     stage s of N has the s-th easiest part of the rows and total_training_steps / N steps

Scores are `extra_info.semantic_entropy` of the rows, nats; if FILE.semantic_entropy.parquet is next to a training file
FILE.parquet, training reads that one. The order itself is recipe.paec.driver.curriculum_sampler.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

SCORE = "semantic_entropy"
"""Field of `extra_info`, and part of the name of a scored file."""
ACCURACY, DIFFICULTY = "sample_accuracy", "difficulty"
"""Fields of `extra_info` beside it: the share of right samples, and its label (`scoring.difficulty`)."""
COMMAND = "python -m recipe.paec.curriculum"


# ---- files -----------------------------------------------------------------------------------------------------------


def scored_path(file: str | Path) -> Path:
    """Path of the scored copy of a data file: X.parquet -> X.semantic_entropy.parquet next to it."""
    path = original_path(file)
    return path.with_name(f"{path.stem}.{SCORE}{path.suffix}")


def original_path(file: str | Path) -> Path:
    """The data file that a scored copy was made from, or the file itself."""
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
    """The score of every row of a data file, None for a row without one."""
    import pyarrow.parquet as pq  # only needed for data: a configuration is checked without it

    extra = pq.ParquetFile(Path(file).expanduser()).read(columns=["extra_info"]).column("extra_info")
    return [row.get(SCORE) for row in extra.to_pylist()]


# ---- checks ----------------------------------------------------------------------------------------------------------


def check_config(config: DictConfig) -> list[str]:
    """What is wrong with `data.curriculum`, and what it cannot be combined with."""
    section = config.data.curriculum
    if section is None:
        return []
    if not isinstance(section, DictConfig):
        return [f"data.curriculum={section}: choose it with curriculum=none or curriculum=semantic_entropy"]
    errors = []
    for key, least in (("stages", 1), ("samples", 2)):
        value = OmegaConf.select(section, key)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            errors.append(f"data.curriculum.{key}={value}: must be an integer >= {least}")
    if not errors and section.stages > config.trainer.total_training_steps:
        errors.append(
            f"data.curriculum.stages={section.stages} is more than trainer.total_training_steps="
            f"{config.trainer.total_training_steps}: lower it, every stage needs at least one step"
        )
    if not config.data.shuffle:
        errors.append("data.shuffle=false: a curriculum sets the order and shuffles within a stage: leave it out")
    if OmegaConf.select(config, "algorithm.filter_groups.enable"):
        errors.append(
            "algorithm.filter_groups.enable=true draws more prompts than a step trains on, so stages would not end "
            "with a step: set it to false, or choose curriculum=none"
        )
    return errors


def too_few(rows: int, stages: int, batch_size: int) -> str:
    """The sentence on stages with fewer rows than a batch."""
    return (
        f"data.curriculum.stages={stages}: a stage has {rows // stages} of the {rows} rows, fewer than "
        f"data.train_batch_size={batch_size}: lower one of them"
    )
