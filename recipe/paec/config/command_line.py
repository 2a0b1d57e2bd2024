"""What the Hydra commands share: composition, one-sentence errors, exit codes."""

from __future__ import annotations

import difflib
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import fields
from importlib.util import find_spec
from io import StringIO
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recipe.paec.common import secrets
from recipe.paec.common.console import complain, complain_of_files, say
from recipe.paec.common.errors import UserError
from recipe.paec.common.repository import CONFIGS
from recipe.paec.config import values
from recipe.paec.config.composition import addable, compose, with_own_class
from recipe.paec.config.keys import EVALUATION, GROUPS, TRAINING, check_overrides, given_twice, one_choice
from recipe.paec.config.quoting import quoted

GROUPS_OF = {"evaluate": EVALUATION.groups, "lab": ("method", "also", "base")}
"""Configuration -> the groups that it has, where it is not those of training."""


def explain(error: Exception, overrides: Sequence[str], config_name: str) -> str:
    """Hydra's error as one sentence with the remedy: the closest existing key or choice."""
    text = " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        if not value:
            return f"{error.override}: is not an override: write key=value"
        remedy = shlex.quote(f"{key}={quoted(value)}")
        return f"{error.override}: Hydra cannot read this value: put quotes around special characters: {remedy}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return no_such_file(error)
    if (several := re.match(r"Multiple values for ([\w/@]+)\.", text)) is not None:
        return f"{several[1]} is chosen more than once: choose it once, without a plus: {several[1]}=..."
    if (several := re.match(r"Ambiguous value for argument '([^=']+)=([^']*)'", text)) is not None:
        key, names = several[1], several[2].split(",")
        if key in (*GROUPS, *EVALUATION.groups) and key != "also":
            return one_choice(f"{key}={several[2]}", key, names)
        text = shlex.quote(f'{key}="{several[2]}"')
        return f"{key}={several[2]}: has several values: write {key}=[{several[2]}] for a list, {text} for a text"
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown is None:
        where = getattr(error, "full_key", None) or " ".join(o for o in overrides if "${" in o)
        return f"{where}: {text}" if where and where not in text else text
    if (other := re.search(r"Did you mean to override (\S+)\?", text)) is not None:
        return f"{unknown[1]} cannot be set: write {other[1]}=..."
    key = unknown[1].split("@")[0]
    if key.startswith("cluster.env."):
        return f"{key} does not exist yet: add it with a plus, +{key}=..."
    if config_name != "evaluate" and (sentence := _no_such_field(key, overrides)) is not None:
        return sentence
    names = "|".join((*GROUPS, "data@data", *EVALUATION.groups))
    groups = [o for o in overrides if re.fullmatch(rf"({names})=[\w.,\[\]-]+", o)]
    if config_name in GROUPS_OF:
        groups = [o for o in groups if o.partition("=")[0] in GROUPS_OF[config_name]]
    known = _keys(compose(config_name, groups))
    if key in known:
        return f"{key}: {' '.join(str(error.__cause__).split())}"
    close = difflib.get_close_matches(key, known, n=1)
    hint = f": did you mean {close[0]}?" if close else ""
    shown = "configs/lab.yaml has" if config_name == "lab" else f"python -m recipe.paec.{config_name} --cfg job shows"
    return f"unknown configuration key {key}{hint} ({shown} all keys)"


def no_such_file(error: MissingConfigException) -> str:
    """`no method sirn: did you mean siren?` and the options."""
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if group == "also" and "." in name:
        return (
            f"also={name}: a class of your own goes to method=, one of the catalogue to also=: method={name} also=..."
        )
    options = list(error.options or ())
    if group == "method" and name.isidentifier() and name not in sys.stdlib_module_names and find_spec(name):
        return f"method={name}: is a module: name its class, method={name}.CLASS"
    close = difflib.get_close_matches(name, options)
    best = [one for one in close if _similar(name, one) == _similar(name, close[0])]
    hint = f"did you mean {' or '.join(sorted(best))}? " if best else ""
    return f"no {group} {name}: {hint}The options are {', '.join(options)}"


def _similar(name: str, option: str) -> float:
    return difflib.SequenceMatcher(None, option, name).ratio()  # as in difflib.get_close_matches


def _no_such_field(key: str, overrides: Sequence[str]) -> str | None:
    """`none has no field rho (it has none); paec has`, for a field of a method that others have; else None."""
    from paec_loss.methods import METHODS

    section, _, field = key.rpartition(".")
    chosen = {o.partition("=")[0]: o.partition("=")[2] for o in overrides}
    name = section.removeprefix("also.") if section.startswith("also.") else chosen.get("method", "paec")
    has = [other for other, kind in METHODS.items() if field in {f.name for f in fields(kind)}]
    if name not in METHODS or name in has or not has or section not in ("method", f"also.{name}"):
        return None
    own = ", ".join(f.name for f in fields(METHODS[name])) or "none"
    others = f"{', '.join(has)} {'have' if len(has) > 1 else 'has'} one"
    return f"{key}: method {name} has no field {field} (its fields: {own}); {others}"


def _keys(node: Any, prefix: str = "") -> list[str]:
    keys = []
    for key in node:
        keys.append(prefix + str(key))
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            if isinstance(node[key], DictConfig):
                keys += _keys(node[key], prefix + str(key) + ".")
    return keys


FLAGS = {"--dry-run": "dry_run=true", "--print-config": "print_config=true"}
"""The recipe's own options -> the override that each one means."""
HYDRA_FLAGS = (
    *("--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun", "--info"),
    *("--config-dir", "--config-name", "--config-path", "--shell-completion", "--experimental-rerun"),
    *("-h", "-c", "-p", "-r", "-m", "-sc", "-cp", "-cn", "-cd", "-i"),
)
SHOWING = ("--cfg", "-c", "--info", "-i", "--hydra-help")
"""Those with which Hydra only prints."""


def with_flags(arguments: Sequence[str], section: str = "") -> list[str]:
    """The command line with FLAGS as overrides of the keys in `section` ("run." or "")."""
    return [section + FLAGS[a] if a in FLAGS else a for a in arguments]


def unknown_flags(arguments: Sequence[str]) -> list[str]:
    """One sentence for every option that neither the recipe nor Hydra has."""
    known = [*FLAGS, "--check", *HYDRA_FLAGS]
    given = [a for a in arguments if a.startswith("-") and a.partition("=")[0] not in HYDRA_FLAGS]
    # --check itself only gets here from commands that do not have it.
    hints = {a: values.closest(a, known, ": did you mean {}?") for a in given if a not in known}
    return [f"{a}: unknown option{hints.get(a, ' of this command')}" for a in given]


def hydra_command(config_name: str, run: Callable[[DictConfig], None], arguments: list[str], interrupted: str) -> int:
    """Compose `config_name` with the command line and call `run`; returns the exit code.

    Args:
        run: raises UserError for anything the user can fix.
        arguments: the command line without the program, after `with_flags`.
        interrupted: what Ctrl-C means for the work done so far.
    """
    overrides = [a for a in arguments if not a.startswith("-")]
    table = TRAINING if config_name == "train" else EVALUATION
    errors = secrets.check_arguments(arguments) or unknown_flags(arguments) or check_overrides(overrides, table)
    if errors:
        return complain(errors)
    for note in given_twice(overrides):
        say(f"note: {note}")
    signal.signal(signal.SIGTERM, _terminated)

    def guarded(config: DictConfig) -> None:
        # Inside Hydra, which would print its own report for these.
        try:
            run(config)
        except UserError as error:
            sys.exit(complain(error.errors))
        except OmegaConfBaseException as error:
            sys.exit(complain([explain(error, list(HydraConfig.get().overrides.task), config_name)]))
        except OSError as error:
            sys.exit(complain_of_files(error, "free some space, or choose a writable folder", "while writing"))

    try:
        composed = compose(config_name, overrides) if len(overrides) == len(arguments) else None
        if composed is not None and not any(o.lstrip("+~").startswith(("hydra.", "hydra/")) for o in overrides):
            guarded(composed)
        else:  # Hydra's own options (--cfg, --multirun, ...) and settings
            sys.argv[1:] = map(addable, with_own_class(arguments))
            with _at_once() if {a.partition("=")[0] for a in arguments} & {*SHOWING} else nullcontext():
                hydra.main(config_path=str(CONFIGS), config_name=config_name, version_base="1.3")(guarded)()
    except (ConfigCompositionException, HydraException, OmegaConfBaseException) as error:
        return complain([explain(error, overrides, config_name)])
    except KeyboardInterrupt:
        print(f"interrupted; {interrupted}", file=sys.stderr, flush=True)
        return 130
    return 0


@contextmanager
def _at_once() -> Iterator[None]:
    """Print at the end what the block prints: Hydra reports a reader that has gone away as an error of the job."""
    with StringIO() as text:
        try:
            with redirect_stdout(text):
                yield
        finally:
            print(text.getvalue(), end="", flush=True)


def _terminated(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the clean-up
    sys.exit(143)
