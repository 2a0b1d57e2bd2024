"""A run's resolved configuration, its name, and its directory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from paec_loss import Clip
from recipe.paec.common import folder_names
from recipe.paec.common.errors import UserError
from recipe.paec.common.model_files import model_folder
from recipe.paec.common.run_mark import RUN_VARIABLE
from recipe.paec.config import attention, scored_files, values
from recipe.paec.config.composition import compose
from recipe.paec.config.methods import method_nodes, stack_of
from recipe.paec.config.schema import OWN_SURROGATE, register_methods

SAME_RUN_PREFIXES = ("run.", "trainer.", "cluster", "experiment", "method=", "hydra.")
"""Overrides that do not make it a different run: how long, how monitored, where. `TRAINING` ones do."""

TRAINING = "trainer.v1."
"""Overrides of the section `trainer` that do: which responses the asynchronous modes train on."""

NO_DUAL_CLIP = 1e30
"""`clip_ratio_c` without a dual clip: not inf, because verl multiplies it with advantages, and inf * 0 is NaN."""

CLIP = tuple(f"{values.ACTOR}.clip_ratio_{part}" for part in ("low", "high", "c"))
"""Keys of the actor's clip range, from which the methods' is made."""

register_methods()


def defining(overrides: Iterable[str]) -> list[str]:
    """The overrides that make it a different run, without their pluses; of a key that is given twice, the last."""
    bare = [o.lstrip("+~") for o in overrides]
    last = {o.partition("=")[0]: o for o in bare if "={" not in o}  # a dict is merged with what the key has
    bare = list(dict.fromkeys(o for o in bare if last.get(o.partition("=")[0], o) == o))
    return [o for o in bare if o.startswith(TRAINING) or not o.startswith(SAME_RUN_PREFIXES)]


def run_suffix(overrides: list[str]) -> str:
    """What the command line adds to a run's name, so that different runs never share a directory."""
    chosen = defining(overrides)
    if not chosen:
        return ""
    text = ",".join(o.removeprefix("method.").removeprefix("actor_rollout_ref.") for o in sorted(chosen))
    text = re.sub(r"[^A-Za-z0-9=.,_-]", "_", text)
    return "-" + (text if len(text) <= 80 else hashlib.sha256(text.encode()).hexdigest()[:12])


def composed(*overrides: str) -> DictConfig:
    """The training configuration of this command line, as `resolved` takes it; raises Hydra's errors."""
    return compose("train", overrides)


def resolved(config: DictConfig) -> DictConfig:
    """The resolved configuration of this run, with its name derived from the command line.

    Raises:
        UserError: a path is not one, or run.root, run.name and run.directory do not name a folder for this run only.
    """
    overrides = list(HydraConfig.get().overrides.task)
    with open_dict(config):
        _name_run(config, overrides)
        config.identity = {}
        OmegaConf.resolve(config)
        _check_places(config)
        apply_methods(config)
        if not any(o.lstrip("+").startswith("run.record_tokens=") for o in overrides) and no_statistics(config):
            config.run.record_tokens = 0
        attention.resolve(config)
        if config.cluster.ray_address is not None:
            _leave_to_running_ray(config)
        for key in ("directory", "root"):
            config.run[key] = str(Path(config.run[key]).expanduser().absolute())
        for key in ("default_local_dir", "rollout_data_dir", "validation_data_dir"):
            if config.trainer[key] is not None:
                config.trainer[key] = str(Path(config.trainer[key]).expanduser().absolute())
        scored_files.use_scored_files(config)
        _mark_environment(config)
    return resolved_paths(config)


def _name_run(config: DictConfig, overrides: list[str]) -> None:
    """Record the command line, and add what makes this run a different one to its name, unless that was given."""
    if not any(o.lstrip("+").startswith(("run.name=", "run.directory=")) for o in overrides):
        config.run.name = config.run.name + run_suffix(overrides)
    config.run.overrides = overrides


def _check_places(config: DictConfig) -> None:
    """UserError unless the run has a folder of its own, and every path is one."""
    places = config.run.root, config.run.name, config.run.directory
    errors = []
    if all(isinstance(place, str) for place in places):
        errors = folder_names.run_errors(*places)
    errors = errors or values.check_values(config, names=values.PATHS)
    if errors:
        raise UserError(*errors)


def _leave_to_running_ray(config: DictConfig) -> None:
    """Drop what was set when a running cluster was started.

    Ray refuses to set its resources again. The name of its interface may differ between nodes; loopback is for our own
    Ray on one host.
    """
    config.ray_kwargs.ray_init.update(num_cpus=None, num_gpus=None)
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if config.cluster.env.get(name) == "lo":
            del config.cluster.env[name]


def _mark_environment(config: DictConfig) -> None:
    """The environment of the run's processes, as the text that Ray takes, with the mark by which they are found."""
    mark = hashlib.sha256(config.run.directory.encode()).hexdigest()[:12]
    # An override such as cluster.env.OMP_NUM_THREADS=2 is a number.
    config.cluster.env = {**{key: str(value) for key, value in config.cluster.env.items()}, RUN_VARIABLE: mark}
    config.ray_kwargs.ray_init.runtime_env.env_vars = config.cluster.env


def folder_mark(config: DictConfig) -> dict[str, str]:
    """The mark of the run's directory: its experiment and its name."""
    return {"experiment": str(config.run.experiment), "name": str(config.run.name)}


def apply_methods(config: DictConfig) -> None:
    """Set verl's keys as the methods need them: clip range, surrogate, reference policy.

    Methods that cannot be created, and a clip range that is none, are left to `rules.check_config`, which says why.
    """
    actor = config.actor_rollout_ref.actor
    if values.check_values(config, names=CLIP):
        return
    try:
        stack = stack_of(config)
    except (ValueError, TypeError):
        return
    actor.fsdp_config.methods = method_nodes(config)
    clip = stack.run_clip(Clip(actor.clip_ratio_low, actor.clip_ratio_high, actor.clip_ratio_c))
    actor.fsdp_config.clip.update(asdict(clip))
    actor.clip_ratio_low, actor.clip_ratio_high = clip.low, clip.high
    actor.clip_ratio_c = min(clip.dual_clip, NO_DUAL_CLIP)
    if stack.own_surrogate and actor.policy_loss.loss_mode == "vanilla":
        actor.policy_loss.loss_mode = OWN_SURROGATE
    if "reference" in stack.needs and not actor.use_kl_loss:
        actor.use_kl_loss, actor.kl_loss_coef = True, 0.0


def no_statistics(config: DictConfig) -> str | None:
    """The setting without which the log-prob pass would have the statistics of the tokens; None if it has them."""
    if OmegaConf.select(config, "algorithm.rollout_correction.bypass_mode"):
        return "algorithm.rollout_correction.bypass_mode=true"
    if config.actor_rollout_ref.model.use_fused_kernels:
        return "actor_rollout_ref.model.use_fused_kernels=true"
    return None


def resolved_paths(config: DictConfig) -> DictConfig:
    """Model paths made absolute where the model is on this machine."""
    for section in (config.model, config.actor_rollout_ref.model):
        folder = model_folder(section.path)
        if folder is not None:
            section.path = str(folder.absolute())
    return config
