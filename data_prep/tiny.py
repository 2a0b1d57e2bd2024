"""Everything a tiny experiment needs, in one command: data, model, warm start.

    python -m data_prep.tiny --output DIR [--task countdown --model qwen2 --steps 1800]

creates DIR/data/{train.parquet, validation.parquet, warm_start.jsonl}, DIR/model (a Hugging Face folder) and, last,
DIR/manifest.json with the options and the SHA-256 of every file. If the manifest exists and agrees, nothing is done;
what a killed run left, or other options created, is removed and created anew. Other files are never removed: those in
DIR/data stay, and one in DIR/model is an error.

What the quick start needs is kept in `data_prep/prepared/` and copied, which saves the minutes of the warm start;
`--fresh`, or PAEC_TINY_FRESH=1, creates it like everything else.
"""

import argparse
import fcntl
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data_prep.arithmetic import choose_avx2
from data_prep.cleaning import contents, remove
from data_prep.files import TRAIN_FILE, VALIDATION_FILE, WARM_START_FILE, atomic_write, sha256
from data_prep.tasks import MODELS, TASKS, Line, Task, default_threads

DATA, MODEL, MANIFEST = "data", "model", "manifest.json"

BUILDING = ".building"
"""Marks a folder whose contents are ours to remove, from the first write until the manifest is written."""

_MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
)
WRITTEN = (
    *(f"{DATA}/{name}" for name in (TRAIN_FILE, VALIDATION_FILE, WARM_START_FILE)),
    *(f"{MODEL}/{name}" for name in _MODEL_FILES),
)
"""What this module creates below its folder, except BUILDING and the manifest, as patterns of `data_prep.cleaning`."""

PREPARED = Path(__file__).parent / "prepared"
"""For some tasks a folder of their name, made by this command with its defaults."""

VERSION = 1
"""Part of the options: raise it when the same options would create different files."""

UNNAMED = {"task": "countdown", "model": "qwen2"}
"""Options that are missing in manifests from when there was only one task, or one model."""


def make(
    output: str | Path,
    steps: int | None = None,
    train: int = 2048,
    validation: int = 100,
    seed: int = 0,
    threads: int | None = None,
    task: str = "countdown",
    fresh: bool = False,
    model: str = "qwen2",
) -> bool:
    """Create data and model under `output`, unless they already exist and were created with the same options.

    Args:
        steps: steps of the warm start; None for the task's own number.
        train: training rows.
        validation: validation rows.
        seed: seed of data, initial weights and warm start.
        threads: threads of torch; the manifest does not compare them. None leaves them unchanged.
        task: a name of `data_prep.tasks.TASKS`.
        fresh: also create what could be copied from `PREPARED`.
        model: a name of `data_prep.tasks.MODELS`.

    Returns:
        Whether anything was created.

    Raises:
        FileExistsError: `output` contains a data or model folder that this function did not create.
    """
    output = Path(output)
    steps = TASKS[task].steps if steps is None else steps
    options = {
        "version": VERSION,
        "task": task,
        "steps": steps,
        "train": train,
        "validation": validation,
        "seed": seed,
        "model": model,
    }
    output.mkdir(parents=True, exist_ok=True)
    folder = os.open(output, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # a second build waits, and then finds the result of the first
        return _make(output, options, threads, fresh)
    finally:
        os.close(folder)


def _make(output: Path, options: dict[str, Any], threads: int | None, fresh: bool) -> bool:
    if is_complete(output, options):
        print(f"{output}: already complete, with the same options; nothing to do")
        return False
    if not fresh and is_complete(prepared := PREPARED / options["task"], options):
        _copy(prepared, output)
        return True
    from transformers.utils import logging

    from data_prep import tiny_model, warm_start

    logging.disable_progress_bar()
    _clear(output)
    task, steps, seed = options["task"], options["steps"], options["seed"]
    kind = TASKS[task]
    print(kind.write(output / DATA, options["train"], options["validation"], seed, progress=True))
    with tempfile.TemporaryDirectory(prefix="untrained-", dir=output / BUILDING) as folder:
        untrained = Path(folder) / MODEL
        merges = tiny_model.learn_merges(
            _texts(kind, warm_start.read_problems(output / DATA, "train", task)), kind.merges
        )
        tiny_model.build(untrained, seed, merges, kind.initializer_range, options["model"])
        outcome = warm_start.run(untrained, output / DATA, output / MODEL, steps, seed, threads, task=task)
    print(f"{output / MODEL}: {warm_start.describe(outcome)}")
    manifest = {"options": options, "outcome": vars(outcome), "sha256": _checksums(output)}
    with atomic_write(output / MANIFEST) as partial:
        partial.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    remove(output, [f"{BUILDING}/**"])
    return True


def _copy(prepared: Path, output: Path) -> None:
    """Copy what was made with the same options."""
    _clear(output)
    manifest = _manifest(prepared)
    for path in manifest["sha256"]:
        (output / path).parent.mkdir(exist_ok=True)
        shutil.copyfile(prepared / path, output / path)
    with atomic_write(output / MANIFEST) as partial:
        shutil.copyfile(prepared / MANIFEST, partial)
    remove(output, [f"{BUILDING}/**"])
    outcome = manifest["outcome"]
    print(
        f"{output}: data and warm-started model copied (mean score {outcome['accuracy']:.3f}, token entropy "
        f"{outcome['entropy']:.3f} nats, temperature 1, held out); PAEC_TINY_FRESH=1 creates them anew in a few minutes"
    )


def _texts(task: Task, lines: Iterable[Line]) -> Iterator[str]:
    """What a tokenizer learns from: both turns of every line, each after its role, as in the chat template."""
    for line in lines:
        yield from (f"user\n{prompt}" for prompt in task.prompts(line))
        yield from (f"assistant\n{response}" for response in task.responses(line))


def is_complete(output: str | Path, options: dict[str, Any]) -> bool:
    """Whether `output` has a manifest with these options and every file still has its checksum."""
    output = Path(output)
    recorded = _manifest(output)
    if recorded is None:
        return False
    # There may be more files, such as a scored copy of the data.
    return UNNAMED | recorded["options"] == options and recorded["sha256"] == _checksums(output)


def _manifest(output: Path) -> dict[str, Any] | None:
    """The manifest of this module, None if there is none: another program's may have the same name."""
    try:
        found = json.loads((output / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    ours = isinstance(found, dict) and isinstance(found.get("options"), dict) and isinstance(found.get("sha256"), dict)
    return found if ours and {"version", "steps"} <= found["options"].keys() else None


def _clear(output: Path) -> None:
    """Remove what this module created before; FileExistsError, with nothing removed, if there is anything else."""
    # The marker is written first and the manifest deleted next: if this is killed, the rest is recognised as ours.
    marker, manifest = output / BUILDING, output / MANIFEST
    held = contents(output, (*WRITTEN, MANIFEST, f"{BUILDING}/**"))
    if held.links:
        raise FileExistsError(
            f"{output / held.links[0]} is a symbolic link, and nothing is deleted through links; choose another "
            "--output"
        )
    ours = marker.is_dir() or _manifest(output) is not None
    made = [path for path in (output / DATA, output / MODEL, manifest) if path.exists()]
    if made and not ours:
        raise FileExistsError(
            f"{made[0]} exists and was not created by this command; choose another folder with --output"
        )
    if strangers := [path for path in held.foreign if path.startswith(f"{MODEL}/")]:
        raise FileExistsError(
            f"{output / strangers[0]} was not created by this command, which creates {output / MODEL} anew; move it "
            "away, or choose another folder with --output"
        )
    marker.mkdir(parents=True, exist_ok=True)
    manifest.unlink(missing_ok=True)
    remove(output, WRITTEN)
    remove(marker, ["**"])


def _checksums(output: Path) -> dict[str, str]:
    return {path: sha256(output / path) for path in contents(output, WRITTEN).own}


def main() -> int:
    """Command line of this module: 0 done, 2 refused with one sentence on stderr."""
    choose_avx2()
    parser = argparse.ArgumentParser(description="Creates the data and the warm-started model of a tiny experiment.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--task", choices=TASKS, default="countdown")
    parser.add_argument("--model", choices=MODELS, default="qwen2")
    parser.add_argument("--steps", type=int, help="steps of the warm start (default: the task's own number)")
    parser.add_argument("--train", type=int, default=2048, help="training rows")
    parser.add_argument("--validation", type=int, default=100, help="validation rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument(
        "--fresh",
        action="store_true",
        default=os.environ.get("PAEC_TINY_FRESH") == "1",
        help="create everything anew, even what data_prep/prepared contains",
    )
    options = parser.parse_args()
    try:
        make(**vars(options))
    except (FileExistsError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
