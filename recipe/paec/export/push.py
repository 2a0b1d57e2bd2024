"""An export's upload to the Hugging Face hub, or to the server that HF_ENDPOINT names: one commit with its files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.files import sha256
from data_prep.progress import quiet_hub
from recipe.paec.common import secrets
from recipe.paec.common.console import gib
from recipe.paec.common.errors import UserError
from recipe.paec.common.folder_kinds import EXPORT_RECORD
from recipe.paec.export.model_card import CARD

TOKEN_REMEDY = "export HF_TOKEN with a token that can write, or run hf auth login"


@dataclass(frozen=True)
class Upload:
    """What is uploaded, and where to."""

    repository: str
    """OWNER/NAME."""
    folder: Path
    names: tuple[str, ...]
    """Files of the folder, sorted."""
    public: bool
    """Visibility of the repository if it is created; an existing one keeps its own."""


def repository_error(repository: str) -> str | None:
    """Why this cannot be the name of a repository, None if it can."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        return f"--push {repository}: {str(error).splitlines()[0]}"
    return None if repository.count("/") == 1 else f"--push {repository}: must be OWNER/NAME"


def token() -> str:
    """The hub's token, from HF_TOKEN or `hf auth login`; UserError without one."""
    from huggingface_hub import get_token

    if found := get_token():
        return found
    raise UserError(f"--push: there is no token for the hub: {TOKEN_REMEDY}")


def planned(folder: Path, repository: str, public: bool) -> Upload:
    """The files of an export that are uploaded: those that its record lists, but not the record.

    The record names the run, and with it possibly folders of this machine.

    Raises:
        UserError: a file is missing, or contains a secret of the environment.
    """
    listed = json.loads((folder / EXPORT_RECORD).read_text(encoding="utf-8"))["files"]
    names = tuple(sorted(set(listed) - {EXPORT_RECORD}))
    for name in names:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: export the checkpoint again with --replace")
        if Path(name).suffix in (*secrets.WRITTEN, ".jinja"):
            text = (folder / name).read_text(encoding="utf-8")
            if secrets.hide(text) != text:
                raise UserError(
                    f"{folder / name}: contains the value of a secret environment variable: remove it first"
                )
    return Upload(repository, folder, names, public)


def shown(upload: Upload) -> str:
    """What would be uploaded: destination, every file with size and SHA-256, and the card's metadata."""
    from huggingface_hub import constants

    sizes = {name: (upload.folder / name).stat().st_size for name in upload.names}
    wide = max(map(len, upload.names))
    files = [
        f"  {name:<{wide}}  {size:>14,} bytes  sha256 {sha256(upload.folder / name)}" for name, size in sizes.items()
    ]
    metadata = (upload.folder / CARD).read_text(encoding="utf-8").split("---\n")[1]
    kind = "public" if upload.public else "private"
    where = f"{constants.ENDPOINT}/{upload.repository} (created as a {kind} repository if needed)"
    return "\n".join(
        [
            f"would be uploaded to {where}:",
            *files,
            f"  {len(files)} files, {gib(sum(sizes.values()))}",
            f"metadata of {upload.folder / CARD}:",
            *(f"  {line}" for line in metadata.rstrip().splitlines()),
        ]
    )


def push(upload: Upload, message: str, secret: str) -> str:
    """Upload in one commit; returns the commit's address.

    Args:
        message: of the commit.
        secret: the token, which is in no error.

    Raises:
        UserError: the hub cannot be reached, refuses the token, the repository or the commit, or the repository has
            files that are not the export's.
    """
    import httpx
    from huggingface_hub import CommitOperationAdd, HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    quiet_hub()
    api = HfApi(token=secret)
    name = upload.repository
    doing = "creating the repository"
    try:
        api.create_repo(name, private=not upload.public, exist_ok=True)
        doing = "listing its files"
        strangers = sorted(set(api.list_repo_files(name)) - {*upload.names, ".gitattributes"})
        if strangers:
            raise UserError(
                f"{name} already has {strangers[0]} ({len(strangers)} file(s) that are not part of this export): "
                "choose a new repository, or delete them there"
            )
        doing = "uploading the files"
        adding = [CommitOperationAdd(part, upload.folder / part) for part in upload.names]
        return str(api.create_commit(name, adding, commit_message=message).commit_url)
    except OfflineModeIsEnabled:
        raise UserError("--push: HF_HUB_OFFLINE is set: unset it, or use --dry-run") from None
    except HfHubHTTPError as error:
        raise UserError(_refusal(error, name, doing).replace(secret, secrets.HIDDEN)) from None
    except (httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
        reason = _root(error)
        if isinstance(reason, HfHubHTTPError):
            raise UserError(_refusal(reason, name, doing).replace(secret, secrets.HIDDEN)) from None
        if isinstance(reason, httpx.HTTPError):
            what = f"--push {name}: {constants.ENDPOINT} cannot be reached while {doing} ({reason}): try again"
        elif isinstance(reason, ValueError):
            what = f"--push {name}: refused while {doing}: {' '.join(str(reason).split())}"
        else:
            raise
        raise UserError(what.replace(secret, secrets.HIDDEN)) from None


def _root(error: BaseException) -> BaseException:
    """The error that this one was raised from, which for an upload in threads is a RuntimeError without the reason."""
    return _root(error.__cause__) if isinstance(error, RuntimeError) and error.__cause__ is not None else error


def _refusal(error: Any, repository: str, doing: str) -> str:
    code = error.response.status_code
    said = " ".join((error.server_message or "no reason given").split())
    where = f"--push {repository}: refused while {doing} ({code}: {said})"
    if code == 401:
        return f"{where}: the token is not valid: {TOKEN_REMEDY}"
    if code == 403:
        return f"{where}: the token may not write to {repository.partition('/')[0]}: {TOKEN_REMEDY}"
    return f"{where}: correct what this message names, or try again later"
