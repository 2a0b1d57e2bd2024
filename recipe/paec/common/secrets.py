"""Keeps secrets (tokens, keys, passwords) out of every file and argument list.

They are passed only in the environment, which every worker inherits and only their owner can read, and are recognized
by the names of their variables. docs/safety.md says what is protected, how, and what is not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.paec.common.files import replace_file

HIDDEN = "<hidden>"
SHORTEST_SECRET = 8
"""Characters; a shorter value would match unrelated text."""
WRITTEN = (".html", ".json", ".jsonl", ".log", ".md", ".txt", ".yaml")
"""Suffixes of the text files of a run or an evaluation."""
BULK = {"checkpoints", "rollouts", "tokens", "validation"}
"""Folders of a run without text of its own."""
_VARIABLE = re.compile(r"(^|_)(TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|APIKEY)$")
_LOWER = re.compile(r"(^|_)(api_?key|secret|password|passwd|passphrase|(auth|access|hf)_token)$")


def is_secret(name: str) -> bool:
    """Whether the value of a variable or configuration key of this name is a secret.

    `HF_TOKEN`, `WANDB_API_KEY`, `api_key` are; `max_token_len`, `tokenizer`, `RAY_AUTH_TOKEN_PATH` are not.
    """
    return bool((_VARIABLE if name.isupper() else _LOWER).search(name))


def environment_secrets() -> list[str]:
    """Values of this process's environment variables with a secret's name, the longest first."""
    values = {value for name, value in os.environ.items() if is_secret(name) and len(value) >= SHORTEST_SECRET}
    return sorted(values, key=len, reverse=True)


def hide(text: str) -> str:
    """`text` with the environment's secrets replaced by `<hidden>`."""
    for value in environment_secrets():
        text = text.replace(value, HIDDEN)
    return text


def _problem(key: str, value: Any, known: list[str]) -> str | None:
    """What is wrong with a secret in the configuration; its value is not repeated."""
    name = key.rpartition(".")[2]
    if is_secret(name) and value not in (None, False, "", "null", "false"):
        return (
            f"{key} would put a secret where others can read it (process list, config.yaml, logs): leave it out "
            f"and `export {name.upper()}=...` in the shell, or log in with the tool's own command; environment "
            "variables reach every worker"
        )
    if any(secret in str(value) for secret in known):
        return f"{key} contains the value of a secret environment variable and would be written to files: leave it out"
    return None


def check_arguments(arguments: list[str]) -> list[str]:
    """One sentence for every secret among the overrides of a command line."""
    known = environment_secrets()
    found = []
    for argument in arguments:
        key, _, value = argument.lstrip("+~").partition("=")
        found.append(_problem(key, value, known))
    return [problem for problem in found if problem]


def check_config(config: DictConfig) -> list[str]:
    """One sentence for every secret in a configuration, which is written to disk and sent to loggers."""
    known = environment_secrets()
    pairs = _leaves(OmegaConf.to_container(config, resolve=True))
    return [problem for key, value in pairs if (problem := _problem(key, value, known))]


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping | list):
        entries = node.items() if isinstance(node, Mapping) else enumerate(node)
        for key, value in entries:
            yield from _leaves(value, f"{prefix}{key}.")
    else:
        yield prefix.removesuffix("."), node


def scrub(folder: Path) -> list[Path]:
    """Replace the environment's secrets in a run's text files, logs of others' code included; returns the files.

    Folders with nothing but tensors, prompts and responses are left out.
    """
    changed, known = [], [value.encode() for value in environment_secrets()]
    for place, folders, names in os.walk(folder) if known else ():
        folders[:] = [name for name in folders if name not in BULK]
        for file in (Path(place, name) for name in names):
            if file.suffix not in WRITTEN or not file.is_file() or file.is_symlink():
                continue
            with suppress(FileNotFoundError):  # deleted since it was listed
                content = clean = file.read_bytes()
                for value in known:
                    clean = clean.replace(value, HIDDEN.encode())
                if clean != content:
                    replace_file(file, clean)
                    changed.append(file)
    return changed
