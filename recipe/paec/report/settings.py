"""A run's configuration, flat, and where it differs from the defaults of its experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from recipe.paec.config.resolve import composed, resolved

PLACE = (
    *("run.", "identity", "ray_kwargs.", "cluster.env.", "actor_rollout_ref.rollout.trace."),
    *("trainer.default_local_dir", "trainer.rollout_data_dir", "trainer.validation_data_dir"),
    *("trainer.experiment_name", "trainer.resume_", "trainer.val_before_train"),
)
"""Beginnings of keys that say where and how a run was started, not what it computes."""
COPIES = tuple(f"actor_rollout_ref.actor.fsdp_config.{name}." for name in ("methods", "clip"))
"""Beginnings of keys that the recipe fills from `method`, `also` and the clip range."""
LAB_PLACE = ("name", "output", "fresh")
"""Those of the laboratory, complete keys; its section `run` is made from them."""


@dataclass(frozen=True)
class Setting:
    """One key of a configuration."""

    key: str
    value: str
    default: str | None
    """The experiment's value where it differs, "" if the experiment has no such key; None where it is the same."""


@dataclass(frozen=True)
class Settings:
    """A configuration beside its experiment's defaults."""

    experiment: str | None
    entries: tuple[Setting, ...]
    note: str | None
    """Why nothing is marked, None if differences are marked."""

    @property
    def changed(self) -> tuple[Setting, ...]:
        """The entries that differ from the defaults, those of the methods first."""
        found = (entry for entry in self.entries if entry.default is not None)
        return tuple(sorted(found, key=lambda entry: not entry.key.startswith(("method.", "also"))))


def is_place(key: str) -> bool:
    """Whether a key says where or how a run was started."""
    return key.startswith(PLACE) or key in LAB_PLACE


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of the leaves; an empty mapping is a leaf, and so is a list without mappings."""
    if isinstance(node, Mapping) and node:
        entries = [(str(key), value) for key, value in node.items()]
    elif isinstance(node, list) and any(isinstance(value, Mapping) for value in node):
        entries = [(str(index), value) for index, value in enumerate(node)]
    else:
        return {prefix.removesuffix("."): node} if prefix else {}
    return {k: v for key, value in entries for k, v in flat(value, f"{prefix}{key}.").items()}


@cache
def defaults_of(experiment: str) -> dict[str, Any]:
    """The flat resolved configuration of an experiment without any override; raises what Hydra raises."""
    config = resolved(composed(f"experiment={experiment}"))
    return flat(OmegaConf.to_container(config, resolve=True))


def settings_of(config: Mapping[str, Any]) -> Settings:
    """A run's recorded configuration beside its experiment's defaults in this version of the recipe."""
    own = flat(config)
    experiment = own.get("run.experiment")
    defaults, note = None, None
    if not own:
        note = "the configuration was not recorded"
    elif not isinstance(experiment, str):
        note = "the configuration names no experiment, so its defaults are not known"
    else:
        try:
            defaults = defaults_of(experiment)
        except Exception as error:  # Hydra's, OmegaConf's or ours: another version's experiment is not an error here
            lines = str(error).splitlines() or [type(error).__name__]
            note = f"the defaults of experiment {experiment} are not known to this version: {lines[0]}"
    entries = []
    for key in sorted(own.keys() | (defaults or {}).keys()):
        if key not in own and is_place(key):
            continue
        value = _text(own[key]) if key in own else ""
        default = None
        if defaults is not None and not is_place(key) and not key.startswith(COPIES):
            expected = _text(defaults[key]) if key in defaults else ""
            default = None if _same(value, expected) else expected
        entries.append(Setting(key, value, default))
    return Settings(experiment if isinstance(experiment, str) else None, tuple(entries), note)


def _same(value: str, default: str) -> bool:
    """Whether two values are equal, but for the folder that a relative path starts from."""
    if value == default:
        return True
    parts, others = value.strip("[]").split(", "), default.strip("[]").split(", ")
    pairs = [(a.strip("'"), b.strip("'")) for a, b in zip(parts, others, strict=False)]
    return len(parts) == len(others) and all(a == b or (b and "/" in b and a.endswith("/" + b)) for a, b in pairs)


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)
