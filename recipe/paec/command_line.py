"""What the Hydra commands of this recipe (train, evaluate) share: composition, errors in one sentence, exit codes."""

from __future__ import annotations

import difflib
import errno
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from recipe.paec import safety
from recipe.paec.errors import UserError

NOT_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR)
"""Errors of the file system that no change of the code would mend: a full disk, a folder that cannot be written."""

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "configs"


def say(text: str) -> None:
    """Print at once: progress is no use in a buffer."""
    print(text, flush=True)


def complain(problems: list[str]) -> int:
    """Print errors; returns the exit code."""
    print(safety.hide("\n".join(f"error: {problem}" for problem in problems)), file=sys.stderr, flush=True)
    return 2


def explain(error: Exception, overrides: list[str], config_name: str) -> str:
    """Hydra's complaint as one sentence with the closest key that exists."""
    text = " ".join(str(error).split())
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown is None:
        return text
    key = unknown[1].split("@")[0]
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        names = "experiment|method|also|base|model|data|data@data|cluster|mode|curriculum|protocol"
        groups = [o for o in overrides if re.match(f"({names})=", o)]
        if config_name != "train":
            groups = [o for o in groups if o.startswith(("cluster=", "protocol="))]
        known = _keys(hydra.compose(config_name, overrides=groups))
    close = difflib.get_close_matches(key, known, n=1)
    hint = f": did you mean {close[0]}?" if close else ""
    return f"unknown configuration key {key}{hint} (python -m recipe.paec.{config_name} --cfg job shows all keys)"


def _keys(node: Any, prefix: str = "") -> list[str]:
    keys = []
    for key in node:
        keys.append(prefix + str(key))
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            if isinstance(node[key], DictConfig):
                keys += _keys(node[key], prefix + str(key) + ".")
    return keys


def hydra_command(config_name: str, run: Callable[[DictConfig], None], arguments: list[str], interrupted: str) -> int:
    """Compose `config_name` with the command line and call `run`; returns the exit code.

    Args:
        run: raises UserError for everything a user can mend.
        arguments: the command line without the program; `--dry-run` has become an override already.
        interrupted: what Ctrl-C means for what was done so far.
    """
    problems = safety.check_arguments(arguments)
    if problems:
        return complain(problems)
    sys.argv[1:] = arguments
    signal.signal(signal.SIGTERM, _terminated)
    overrides = [a for a in arguments if not a.startswith("-")]

    def guarded(config: DictConfig) -> None:
        # Inside Hydra, which would print its own report around these.
        try:
            run(config)
        except UserError as error:
            sys.exit(complain(error.problems))
        except OmegaConfBaseException as error:
            sys.exit(complain([explain(error, list(HydraConfig.get().overrides.task), config_name)]))
        except OSError as error:
            if error.errno not in NOT_OURS:
                raise
            place = error.filename or "while writing"
            sys.exit(complain([f"{place}: {error.strerror}: make room, or name a folder that can be written"]))

    try:
        if len(overrides) == len(arguments):
            # Composed once here because hydra.main prints composition errors its own way.
            with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
                hydra.compose(config_name, overrides=overrides)
        hydra.main(config_path=str(CONFIGS), config_name=config_name, version_base="1.3")(guarded)()
    except (ConfigCompositionException, HydraException, OmegaConfBaseException) as error:
        return complain([explain(error, overrides, config_name)])
    except KeyboardInterrupt:
        print(f"interrupted; {interrupted}", file=sys.stderr, flush=True)
        return 130
    return 0


def _terminated(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut the clean-up short
    sys.exit(143)


def git_commit() -> str | None:
    """Commit of this checkout with `-dirty` when it has changes, None outside a checkout."""
    result = subprocess.run(
        ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=40"],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or None
