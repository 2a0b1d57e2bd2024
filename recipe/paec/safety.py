"""What keeps a run to itself: its secrets out of every file, its ports on this machine, and no code out of its data.

Secrets (tokens, keys, passwords) travel by the environment alone, which every worker inherits and only their owner can
read. They are known by the names of their variables. docs/safety.md says what is protected, how, and what is not.
"""

from __future__ import annotations

import os
import pickle
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from recipe.paec.checkpoints import CheckpointError

HIDDEN = "<hidden>"
SHORTEST_SECRET = 8
"""Characters; a shorter value would be found in text that has nothing to do with it."""
TOKEN_FILE = ".ray_token"
DEFAULT_TOKEN = Path("~/.ray/auth_token")
"""Where Ray itself looks for the token."""
WRITTEN = (".json", ".jsonl", ".log", ".md", ".txt", ".yaml")
"""Suffixes of the text files of a run or an evaluation."""
FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""torch obeys this variable where a caller asks for `weights_only=False`."""
BULK = {"checkpoints", "rollouts", "validation"}
"""Folders of a run that hold no text of its own."""
GCS_TIMEOUT = 15
"""Seconds after which Ray's processes give up a gcs_server that was killed. Ray's own 60 allow for networks that fail
for a while; on loopback only a dead server refuses connections, and a busy one keeps them."""
_VARIABLE = re.compile(r"(^|_)(TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|APIKEY)$")
_LOWER = re.compile(r"(^|_)(api_?key|secret|password|passwd|passphrase|(auth|access|hf)_token)$")


# ---- secrets ---------------------------------------------------------------------------------------------------------


def is_secret(name: str) -> bool:
    """Whether the value of a variable or configuration key of this name is nobody else's business.

    `HF_TOKEN`, `WANDB_API_KEY`, `api_key` are; `max_token_len`, `tokenizer`, `prompt_key`, `RAY_AUTH_TOKEN_PATH` not.
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
            f"{key} would put a secret where others can read it (list of processes, config.yaml, logs): leave it out "
            f"and `export {name.upper()}=...` in the shell, or log in with the tool's own command; the environment "
            "reaches every worker"
        )
    if any(secret in str(value) for secret in known):
        return f"{key} holds the value of a secret of the environment, which would be written into files: leave it out"
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
    for file in folder.rglob("*") if known else ():
        if (
            file.suffix not in WRITTEN
            or not file.is_file()
            or file.is_symlink()
            or BULK & set(file.relative_to(folder).parts)
        ):
            continue
        content = clean = file.read_bytes()
        for value in known:
            clean = clean.replace(value, HIDDEN.encode())
        if clean != content:
            temporary = file.with_name(f".{file.name}.tmp")
            temporary.write_bytes(clean)
            os.replace(temporary, file)
            changed.append(file)
    return changed


# ---- ports -----------------------------------------------------------------------------------------------------------


def running_ray() -> dict[str, str]:
    """Environment for a process that joins a running Ray cluster by its address: shows the token, where there is one.

    Ray itself looks for a token only where no address is named.
    """
    return {"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token")} if cluster_token().is_file() else {}


def cluster_token() -> Path:
    """Where the token of a Ray cluster of several nodes lies, by `RAY_AUTH_TOKEN_PATH` or where Ray itself looks."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH", DEFAULT_TOKEN)).expanduser()


def write_token(file: Path) -> None:
    """A new token for Ray in the new file `file`, readable for its owner only."""
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as stream:
        stream.write(secrets.token_hex(32))


@contextmanager
def private_ray(ray_address: str | None, folder: Path) -> Iterator[dict[str, str]]:
    """Environment for a process that starts Ray on this machine for itself alone, while the block runs.

    Ray's node address is the loopback one, so that its servers, and all that ask Ray for an address (vLLM's servers,
    TransferQueue, the rendezvous), listen there; and every connection must show a token made for this run.

    Args:
        ray_address: of a running cluster, which has its own rules: the environment is then that of `running_ray`.
        folder: where the token lies meanwhile, readable for its owner only.
    """
    if ray_address is not None:
        yield running_ray()
        return
    file = folder / TOKEN_FILE
    file.unlink(missing_ok=True)
    write_token(file)
    try:
        yield {
            # Ray's own switch between "one machine" and "cluster"; on Linux its default is the cluster.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(file.absolute()),
            "RAY_gcs_rpc_server_reconnect_timeout_s": str(GCS_TIMEOUT),
            # Between processes of one machine these carry the first handshake, not the data.
            **{name: os.environ.get(name, "lo") for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")},
        }
    finally:
        file.unlink(missing_ok=True)


# ---- files that could hold code --------------------------------------------------------------------------------------


@contextmanager
def tensors_only(folder: Path) -> Iterator[None]:
    """While the block runs, `torch.load` in this process reads tensors and plain data only, whatever verl asks for.

    NumPy's random state, which verl's checkpoints hold, is allowed too. Not for longer than a checkpoint is read: verl
    also sends its batches between processes with `torch.load`.

    Args:
        folder: what is read, for the error.

    Raises:
        CheckpointError: there is something else, which loading would execute; it was not.
    """
    import numpy
    import torch
    import torch.distributed.tensor  # noqa: F401  (registers DTensor as safe)

    state = [numpy._core.multiarray._reconstruct, numpy.ndarray, numpy.dtype, type(numpy.dtype("uint32"))]
    before = os.environ.get(FORCE)
    os.environ[FORCE] = "1"
    try:
        with torch.serialization.safe_globals(state):
            yield
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{folder}: a file holds something else than tensors, which loading would execute: it was not written by a "
            "training run of this recipe, or was tampered with; delete the folder to go on from the checkpoint before"
        ) from None
    finally:
        if before is None:
            del os.environ[FORCE]
        else:
            os.environ[FORCE] = before
