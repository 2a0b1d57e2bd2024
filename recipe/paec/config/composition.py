"""A command line's configuration, composed by Hydra from configs/ and verl's files."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from recipe.paec.common.repository import CONFIGS, OF_CHECKOUT
from recipe.paec.config import values


def _verl_configs() -> str:
    """Hydra's address of verl's configuration files, found without importing verl, which takes seconds."""
    verl = importlib.util.find_spec("verl")
    if verl is None:
        raise ModuleNotFoundError(
            f"verl is not installed in this Python: run launch/setup_env.sh{OF_CHECKOUT}, and use its environment"
        )
    return f"file://{Path(verl.submodule_search_locations[0]) / 'trainer' / 'config'}"


OmegaConf.register_new_resolver("verl_configs", _verl_configs, replace=True)
OmegaConf.register_new_resolver("several", lambda number: number > 1, replace=True)
OmegaConf.register_new_resolver("quoted", lambda path: shlex.quote(str(path)), replace=True)


OPEN_TABLE = "reward.scorers"
"""A key whose names below it are the user's, so that an override needs no plus."""


def addable(override: str) -> str:
    """An override of a name in `OPEN_TABLE` as Hydra takes it, which otherwise wants to know the name beforehand."""
    return f"++{override}" if override.startswith((f"{OPEN_TABLE}.", f"{OPEN_TABLE}={{")) else override


def with_own_class(overrides: Sequence[str]) -> list[str]:
    """A class of the user's as Hydra takes it: `method=my_pkg.Mine method.alpha=2` becomes `method=custom
    method.class_path=my_pkg.Mine +method.alpha=2`.
    """
    found: list[str] = []
    for override in overrides:
        key, _, value = override.partition("=")
        own = key == "method" and values.OWN_CLASS.fullmatch(value)
        found += ["method=custom", f"method.class_path={value}"] if own else [override]
    if "method=custom" not in found:
        return found
    path = ("method.class_path=", "method._target_=")
    return [f"+{o}" if o.startswith("method.") and not o.startswith(path) else o for o in found]


def compose(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """The unresolved configuration of this command line, with HydraConfig set; raises Hydra's errors."""
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = hydra.compose(
            config_name, overrides=[*map(addable, with_own_class(overrides))], return_hydra_config=True
        )
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    return config


def defaults(config_name: str) -> DictConfig:
    """The unresolved configuration without overrides; HydraConfig stays as it is."""
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return hydra.compose(config_name)
