"""The laboratory's command line: `key=value` overrides of configs/lab.yaml, the groups and fields as in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

import data_prep
from paec_loss import Clip, MethodStack
from recipe.lab import own_code, task_files
from recipe.paec.common import folder_names
from recipe.paec.common.errors import UserError
from recipe.paec.config import method_rules, values
from recipe.paec.config.command_line import GROUPS_OF, explain
from recipe.paec.config.composition import compose, with_own_class
from recipe.paec.config.keys import Table, check_overrides, repeated
from recipe.paec.config.methods import stack_of
from recipe.paec.config.resolve import run_suffix

ROOT = Path("outputs/lab")
SECTIONS = ("method", "also", "data", "actor_rollout_ref", "algorithm", "trainer", "run")
SAME_RUN = ("steps", "test_every", "held_out", "save_every", "threads", "name", "output", "fresh")
"""Keys that do not make it a different run: how long, how monitored, where."""
RULES = {
    "seed": values.SEED,
    "task": values.TEXT,
    "steps": values.COUNT,
    "prompts": values.COUNT,
    "responses": values.Rule(
        lambda n: values.COUNT.accepts(n) and n > 1, "must be an integer >= 2: GRPO compares them"
    ),
    "mini_batch": values.COUNT,
    "lr": values.POSITIVE,
    "temperature": values.POSITIVE,
    "test_every": values.INTERVAL,
    "test_samples": values.COUNT,
    "held_out": values.FLAG,
    "save_every": values.COUNT,
    "threads": values.COUNT,
    "fresh": values.FLAG,
    "algorithm.filter_groups.metric": values.Rule(lambda v: v == "acc", "must be acc, the score of the responses"),
    "actor_rollout_ref.rollout.val_kwargs.temperature": values.POSITIVE,
}
SHARED = (
    *("data.max_response_length", "algorithm.norm_adv_by_std_in_grpo", "algorithm.filter_groups.enable"),
    *(f"{values.ACTOR}.{key}" for key in ("clip_ratio_low", "clip_ratio_high", "clip_ratio_c", "loss_agg_mode")),
    f"{values.ACTOR}.loss_scale_factor",
    *(f"{values.ACTOR}.optim.{key}" for key in ("weight_decay", "betas", "clip_grad")),
)
"""Keys checked by the pipeline's rules."""
TABLE = Table(
    groups=GROUPS_OF["lab"],
    top_level=(*(key for key in RULES if "." not in key), *SECTIONS, "name", "output"),
    owned={
        "data.train_batch_size": "prompts",
        f"{values.ACTOR}.clip_ratio": f"{values.ACTOR}.clip_ratio_low and {values.ACTOR}.clip_ratio_high",
        f"{values.ACTOR}.ppo_mini_batch_size": "mini_batch",
        f"{values.ACTOR}.optim.lr": "lr",
        f"{values.ROLLOUT}.n": "responses",
        f"{values.ROLLOUT}.temperature": "temperature",
        f"{values.ROLLOUT}.val_kwargs.n": "test_samples",
        "trainer": "steps, test_every or save_every",
        "run": "name or output",
    },
    fixed={},
    sections=frozenset(SECTIONS),
    needed=frozenset((*RULES, *SHARED)),
)
"""Tables for the laboratory's overrides; `owned`: the pipeline's name of a setting -> the laboratory's own key."""


@dataclass(frozen=True)
class Settings:
    """A run of the laboratory, checked."""

    stack: MethodStack
    clip: Clip
    """`MethodStack.run_clip`."""
    seed: int
    steps: int
    prompts: int
    responses: int
    mini_batch: int
    """Prompts of an update."""
    max_response_length: int
    lr: float
    weight_decay: float
    betas: tuple[float, float]
    clip_grad: float
    temperature: float
    aggregation: str
    """verl's loss_agg_mode."""
    loss_scale: float | None
    """Divisor of seq-mean-token-sum-norm."""
    by_std: bool
    """Whether advantages are divided by the group's standard deviation."""
    mixed_only: bool
    """Whether prompts whose responses all have one score are replaced (DAPO's dynamic sampling)."""
    test_every: int
    test_samples: int
    held_out: bool
    """Whether each validation is repeated on the problems that nothing was trained on."""
    test_temperature: float
    save_every: int
    threads: int
    task: Path
    output: Path
    fresh: bool
    """Whether a run in the folder is deleted first."""
    own_code: dict[str, str]
    """`own_code.hashes_of` the methods, as they were imported."""
    task_files: dict[str, str]
    """`task_files.hashes_of` the task."""
    record: dict[str, Any]
    """The resolved configuration."""


def settings_of(overrides: Sequence[str]) -> Settings:
    """The run that a command line describes.

    Raises:
        UserError: one sentence for everything that is wrong.
    """
    given = with_own_class(overrides)
    errors = (
        [_without_dashes(o) for o in given if o.startswith("-")]
        or [_once(key, lines) for key, lines in repeated(overrides).items()]
        or check_overrides(given, TABLE)
        or [
            f"{o}: is not a key of the laboratory, so nothing would read it (configs/lab.yaml has all keys)"
            for o in given
            if o.startswith("+") and not o.startswith("+method.")
        ]
    )
    if errors:
        raise UserError(*errors)
    try:
        config = compose("lab", given)
        with open_dict(config):
            _complete(config, given)
        errors = values.check_values(config, RULES) + values.check_values(config, names=SHARED)
        places = folder_names.name_error("name", config.name), folder_names.path_error("output", config.output)
        errors += [problem for problem in places if problem]
        if errors:
            raise UserError(*errors)
        try:
            stack = stack_of(config)
        except (ValueError, TypeError) as error:
            raise UserError(str(error)) from None
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error, given, "lab")) from None
    if errors := _combinations(config, stack):
        raise UserError(*errors)
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    task = _task(config.task)
    return Settings(
        stack=stack,
        clip=stack.run_clip(Clip(actor.clip_ratio_low, actor.clip_ratio_high, actor.clip_ratio_c)),
        **{key: config[key] for key in ("seed", "steps", "prompts", "responses", "mini_batch", "lr", "temperature")},
        **{key: config[key] for key in ("test_every", "test_samples", "held_out", "save_every", "threads")},
        max_response_length=config.data.max_response_length,
        weight_decay=actor.optim.weight_decay,
        betas=tuple(actor.optim.betas),
        clip_grad=actor.optim.clip_grad,
        aggregation=actor.loss_agg_mode,
        loss_scale=actor.loss_scale_factor,
        by_std=config.algorithm.norm_adv_by_std_in_grpo,
        mixed_only=config.algorithm.filter_groups.enable,
        test_temperature=rollout.val_kwargs.temperature,
        task=task,
        output=Path(str(config.output)).expanduser(),
        fresh=config.fresh,
        own_code=own_code.hashes_of(stack),
        task_files=task_files.hashes_of(task),
        record=OmegaConf.to_container(config, resolve=True),
    )


def _without_dashes(argument: str) -> str:
    key, _, value = argument.lstrip("-").partition("=")
    if key.split(".")[0] not in (*TABLE.groups, *TABLE.top_level):
        hint = (
            "steps=1 tries a run" if key in ("check", "dry-run") else "its settings are KEY=VALUE, in configs/lab.yaml"
        )
        return f"{argument}: paec lab has no such option: {hint}"
    return f"{argument}: write {key}={value or 'VALUE'} without dashes"


def _once(key: str, lines: list[str]) -> str:
    """The error for a key that is given more than once: the last would count, and the folder's name have all."""
    names = ",".join(line.partition("=")[2].strip("[]") for line in lines)
    remedy = f"write also=[{names}]" if key == "also" else "give it once"
    return f"{' '.join(lines)}: {key} is given {len(lines)} times: {remedy}"


def _complete(config: DictConfig, given: list[str]) -> None:
    """The name, the folder and the command line."""
    chosen = next((o.partition("=")[2] for o in given if o.startswith("method=")), "paec")
    if chosen == "custom":
        chosen = str(config.method.class_path).rpartition(".")[2]
    parts = [o for o in given if o.partition("=")[0] not in SAME_RUN and not o.startswith("method.class_path=")]
    if config.name is None:
        config.name = chosen + run_suffix(parts)
    if config.output is None:
        config.output = str(ROOT / str(config.name))
    config.run.overrides = list(given)


def _combinations(config: DictConfig, stack: MethodStack) -> list[str]:
    """What cannot work together; the sentences of the pipeline where it has the same rule."""
    errors, names = [], " and ".join(stack.names)
    if config.prompts % config.mini_batch:
        errors.append(f"prompts={config.prompts}: must be a multiple of mini_batch={config.mini_batch}")
    actor = config.actor_rollout_ref.actor
    if actor.loss_agg_mode == "seq-mean-token-sum-norm" and not actor.loss_scale_factor:
        errors.append(f"{values.ACTOR}.loss_agg_mode={actor.loss_agg_mode}: needs loss_scale_factor: use base=dr_grpo")
    errors += method_rules.check_config(config, stack)
    errors += stack.too_few("responses", config.responses)
    if "curriculum" in stack.needs:
        errors.append(
            f"{names} trains on the prompts in a given order, which the laboratory does not have: use paec train with "
            "curriculum=semantic_entropy"
        )
    return errors


def _task(name: str) -> Path:
    folder = Path(name) if "/" in name or Path(name).is_dir() else Path(data_prep.__file__).parent / "prepared" / name
    model = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    for part in (*(f"model/{name}" for name in model), "data/train.parquet", "data/validation.parquet"):
        if not (folder / part).is_file():
            raise UserError(
                f"task={name}: {folder / part} is missing: give a folder with model/ and data/, as "
                '"python -m data_prep.tiny" makes it, or leave task out'
            )
    return folder
