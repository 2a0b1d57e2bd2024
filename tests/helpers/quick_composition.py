"""Hydra's composition with what equal command lines share kept: 850 tests compose, and would take most of their time.

Kept are parsed files, parsed interpolations, which files a choice of configurations lists, and these merged; values on
the command line are set anew each time, by Hydra's own code. A file that changes is read again.
"""

from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import omegaconf.base
import pytest
from hydra._internal import config_loader_impl
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource


def state_of(file: str | Path) -> tuple:
    status = os.stat(file)
    return str(file), status.st_mtime_ns, status.st_size, status.st_ino


def state_of_sources(repo: Any) -> tuple:
    """Of all files and registered methods that a composition may read."""
    folders = [source.path for source in repo.get_sources() if source.scheme() == "file"]
    files = (state_of(file) for folder in folders for file in sorted(Path(folder).rglob("*.yaml")))
    methods = ConfigStore.instance().repo.get("method", {})
    return *files, *((name, id(node)) for name, node in methods.items())


def reading(parse: Callable) -> Callable:
    """`ConfigSource.load_config` of files, which parses a file once."""
    parsed: dict[tuple, bytes] = {}

    def load_config(source: ConfigSource, config_path: str) -> ConfigResult:
        file = Path(source.path, config_path).with_suffix(".yaml")
        if not file.is_file():
            return parse(source, config_path)
        key = source.provider, source.path, config_path, state_of(file)
        if key not in parsed:
            parsed[key] = pickle.dumps(parse(source, config_path))
        return pickle.loads(parsed[key])

    return load_config


def listing(create: Callable) -> Callable:
    """`create_defaults_list`, which lists the files of a choice of configurations once."""
    lists: dict[tuple, Any] = {}

    def create_defaults_list(repo, config_name, overrides_list, **options):
        of_values = [o for o in overrides_list if is_value(repo, o)]
        choices = [o for o in overrides_list if o not in of_values]
        key = config_name, *(o.input_line for o in choices), *sorted(options.items()), state_of_sources(repo)
        if key not in lists:
            lists[key] = create(repo=repo, config_name=config_name, overrides_list=choices, **options)
        found = lists[key]
        return SimpleNamespace(defaults=found.defaults, config_overrides=of_values, overrides=found.overrides)

    return create_defaults_list


def is_value(repo: Any, override: Any) -> bool:
    """Whether an override is one of a value and not of which file to take; as in Hydra's `Overrides`."""
    if override.is_sweep_override():
        return False
    return isinstance(override.value(), dict) or not repo.group_exists(override.key_or_group)


def merging(merge: Callable) -> Callable:
    """`ConfigLoaderImpl._compose_config_from_defaults_list`, which merges the files of a list once."""
    merged: dict[tuple, bytes] = {}

    def compose_config_from_defaults_list(self, defaults, repo):
        key = *(repr(default) for default in defaults), state_of_sources(repo)
        if key not in merged:
            merged[key] = pickle.dumps(merge(self, defaults=defaults, repo=repo))
        return pickle.loads(merged[key])

    return compose_config_from_defaults_list


@contextmanager
def composing_once() -> Iterator[None]:
    """Within it, Hydra composes this way in this process."""
    Plugins.instance()  # registers the sources
    of_files = SourcesRegistry.instance().resolve("file")
    loader = config_loader_impl.ConfigLoaderImpl
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_files, "load_config", reading(of_files.load_config))
        patch.setattr(omegaconf.base, "parse", functools.cache(omegaconf.base.parse))
        listed = listing(config_loader_impl.create_defaults_list)
        patch.setattr(config_loader_impl, "create_defaults_list", listed)
        merged = merging(loader._compose_config_from_defaults_list)
        patch.setattr(loader, "_compose_config_from_defaults_list", merged)
        yield
